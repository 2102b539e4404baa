"""Where the program begins. What takes time to import comes after the signals."""

import sys
from collections.abc import Sequence

from rotator.signals import catch_early, stand_behind_first_process


def main() -> int:
    """Run one command and return its exit code."""
    if _command(sys.argv[1:]) == "run":
        stand_behind_first_process()
        catch_early()
    from rotator.cli import main as run_command  # noqa: PLC0415 - heavy

    return run_command()


def _command(arguments: Sequence[str]) -> str | None:
    """Return the first argument that is no option, and no option's value."""
    left = iter(arguments)
    for argument in left:
        if argument in {"--config", "-c"}:
            next(left, None)
        elif not argument.startswith("-"):
            return argument
    return None
