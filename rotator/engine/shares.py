"""Shares: how long one step of a tick may work before the others, and whoever is outside the loop, have their turn.

A step that has more to do than its share goes on in the next tick, which begins with what people ask for. So a stop,
the watchdog and a revocation never wait for more than what lies between two durable steps.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from rotator.engine.run import Run

SHARE: Final = timedelta(milliseconds=300)
"""By CLOCK_BOOTTIME. A tick has a few such steps, and is to be over within a second."""


def begin_share(run: Run) -> Callable[[], bool]:
    """Return what tells, from now on, whether the step that begins now is to stop before its next piece of work."""
    begun = run.around.clock.read().since_boot

    def is_over() -> bool:
        return is_called_away(run) or run.around.clock.read().since_boot - begun >= SHARE

    return is_over


def is_called_away(run: Run) -> bool:
    """Tell whether something is to be done that no step may hold up: a stop, or a revocation that came in."""
    return run.stopping() or not run.urgent.empty()
