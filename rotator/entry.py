"""Where the program begins. What takes time to import comes after the signals."""

import os
import sys
from collections.abc import Sequence

from rotator.signals import catch_early, stand_behind_first_process


def main() -> int:
    """Run one command and return its exit code."""
    _have_paths_in_utf8()
    if _command(sys.argv[1:]) == "run":
        stand_behind_first_process()
        catch_early()
    from rotator.cli import main as run_command  # noqa: PLC0415 - heavy

    return run_command()


def _have_paths_in_utf8() -> None:
    """Start again in Python's UTF-8 mode (PEP 540) where the locale would have the names of files be something else.

    A config is UTF-8, and so are the paths in it, whatever the terminal shows: that goes on in its own encoding.
    """
    if sys.getfilesystemencoding() == "utf-8":
        return
    shown = f"{getattr(sys.stdout, 'encoding', None) or 'ascii'}:backslashreplace"
    again = [sys.executable, "-X", "utf8", *sys.orig_argv[1:]]
    os.execve(sys.executable, again, {"PYTHONIOENCODING": shown, **os.environ})  # noqa: S606 - the same program


def _command(arguments: Sequence[str]) -> str | None:
    """Return the first argument that is no option, and no option's value."""
    left = iter(arguments)
    for argument in left:
        if argument in {"--config", "-c"}:
            next(left, None)
        elif not argument.startswith("-"):
            return argument
    return None
