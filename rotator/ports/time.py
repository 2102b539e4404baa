"""The clocks."""

from typing import Protocol

from rotator.core.timeguard import Reading


class Clock(Protocol):
    """The only place where the clocks are read."""

    def read(self) -> Reading:
        """Read all of them at one moment."""
        ...
