"""Names for the shell to complete: those that the daemon knows, where it answers at once; else none, and no word of it.

Imports nothing but typer until a name is asked for, as ``--help`` goes through here, too.
"""

import signal
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any, Final

import typer

from rotator.cli.options import config_of

PATIENCE: Final = timedelta(seconds=0.4)
"""How long a person who pressed TAB is kept waiting, all in all."""


def workspaces(context: typer.Context, incomplete: str) -> list[str]:
    """Return the workspaces that begin so."""
    return _known(context, incomplete, "tokens.list", lambda found: [each["workspace"] for each in found["tokens"]])


def keysets(context: typer.Context, incomplete: str) -> list[str]:
    """Return the keysets that begin so."""
    return _known(context, incomplete, "keys.list", lambda found: [each["keyset"] for each in found["keys"]])


def kids(context: typer.Context, incomplete: str) -> list[str]:
    """Return the kids that begin so."""
    return _known(context, incomplete, "keys.list", lambda found: [each["kid"] for each in found["keys"]])


def _known(context: typer.Context, incomplete: str, command: str, names: Callable[[Any], list[str]]) -> list[str]:
    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE.total_seconds())
    try:
        from rotator.cli.session import ask_daemon  # noqa: PLC0415 - heavy

        found = names(ask_daemon(config_of(context, context.params.get("config"), aloud=False), command, PATIENCE))
        return sorted({name for name in found if name.startswith(incomplete)})
    except Exception:  # noqa: BLE001 - the edge of a key press: whatever is wrong, the next command tells it
        return []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
