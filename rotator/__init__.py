"""rotator: replaces signing keys and workspace tokens when their security period ends."""

__version__ = "0.1.0"
