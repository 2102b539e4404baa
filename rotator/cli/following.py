"""Follows what the daemon does after a request: for a moment, or until it is done."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, TypeVar

from rotator.cli.output import Found
from rotator.cli.progress import Bar
from rotator.cli.screen import tell
from rotator.errors import RefusedError, RotatorError
from rotator.report.replacement import Replacement
from rotator.report.takeover import Takeover

T = TypeVar("T")

POLL: Final = timedelta(milliseconds=250)

SHORTLY: Final = timedelta(seconds=1)
"""How long a command that does not wait looks for what the daemon does at once."""


@contextmanager
def told_that_it_goes_on(look: str) -> Iterator[None]:
    """Say, whatever ends the following, that what was asked for is stored, and how to ``look`` how far it is."""
    try:
        yield
    except KeyboardInterrupt:
        tell(goes_on(look))
        raise
    except RotatorError as error:
        raise RefusedError(f"{error}\n{goes_on(look)}") from None


def goes_on(look: str) -> str:
    """Return what to say when a command stops to follow what was asked for."""
    return (
        f"it is stored, and the daemon goes on with it, at its next start at the latest; see how far it is:\n    {look}"
    )


def follow_replacement(ask: Callable[[], Found[Replacement]], patience: timedelta | None) -> Found[Replacement]:
    """Ask until the new token is with every sink; without ``patience`` only until it is issued, and briefly."""
    with Bar.of(sys.stderr, quiet=patience is None) as bar:

        def enough(found: Replacement) -> bool:
            bar.show("token issued", int(found.token is not None), 1)
            bar.show("deliveries made", found.delivered, found.sinks)
            return found.token is not None if patience is None else found.done

        return _follow(ask, enough, SHORTLY if patience is None else patience)


def follow_takeover(ask: Callable[[], Found[Takeover]], signing: str | None) -> Found[Takeover]:
    """Ask until another key than ``signing`` signs, or it is plain that this takes longer than a moment."""

    def enough(found: Takeover) -> bool:
        ahead = found.takes_over_at is not None and found.takes_over_at > found.at
        return found.signing_kid != signing or ahead

    return _follow(ask, enough, SHORTLY)


def _follow(ask: Callable[[], Found[T]], enough: Callable[[T], bool], patience: timedelta) -> Found[T]:
    give_up_at = time.monotonic() + patience.total_seconds()
    while True:
        found = ask()
        if enough(found.report) or time.monotonic() >= give_up_at:
            return found
        time.sleep(POLL.total_seconds())
