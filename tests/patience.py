"""How long a test waits for what happens beside it: another process, a thread, a server.

A test goes on as soon as what it waits for has happened, and gives up only where that never will, on however busy a
machine. A time that a test sets for our own code (how long a daemon waits for a line, or a sink for its command) is
another matter: a test that lets it run out must not need anything to happen before.
"""

import time
from collections.abc import Callable
from typing import Final

HANG_SECONDS: Final = 300.0
"""After this long, it hangs."""


def wait_until(
    happened: Callable[[], bool], what: str, *, still_possible: Callable[[], bool] = lambda: True, every: float = 0.02
) -> None:
    """Wait until it ``happened``; fail with ``what`` when it hangs, or is not ``still_possible``."""
    give_up_at = time.monotonic() + HANG_SECONDS
    while not happened():
        possible = still_possible()
        assert possible or happened(), f"cannot happen any more: {what}"
        assert time.monotonic() < give_up_at, f"not within {HANG_SECONDS:.0f} s: {what}"
        time.sleep(every)
