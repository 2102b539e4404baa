"""What bounds a question: the one who asks may go away, time passes, the daemon stops; and few long ones at a time.

A question is never the loop's business: it is answered in the thread of the peer who asks, reads one state of the
database, and ends as soon as nobody waits for its answer.
"""

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from rotator.errors import RefusedError

ANSWERED_WITHIN: Final = timedelta(seconds=30)
"""How long an answer may take; whoever asks waits for twice that."""

LONG_AT_ONCE: Final = 2
"""Long questions that are answered at a time, so that they leave the interpreter to the loop and to short ones."""

LONG: Final = frozenset(
    {"audit.list", "audit.page", "audit.verify", "keys.show", "plan", "revocation.show", "tokens.list", "tokens.page"}
)
"""Questions whose answer takes the longer, the more workspaces or events there are."""

LOOK: Final = timedelta(milliseconds=50)
"""How often it is looked whether a question is over."""


class PeerGoneError(ConnectionError):
    """Nobody waits for the answer any more."""


@dataclass(slots=True)
class Question:
    """One question of a peer, from when it was understood."""

    connection: socket.socket
    closing: threading.Event
    answered_within: timedelta = ANSWERED_WITHIN
    _began: float = field(default_factory=time.monotonic)
    _looked: float = 0.0

    def check(self) -> None:
        """Raise when the question is over: to be called often, from any thread."""
        now = time.monotonic()
        if now - self._looked < LOOK.total_seconds():
            return
        self._looked = now
        if has_gone(self.connection):
            raise PeerGoneError("whoever asked has gone")
        if self.closing.is_set():
            raise RefusedError("the daemon is stopping; ask again once it runs")
        if now - self._began >= self.answered_within.total_seconds():
            raise RefusedError(
                f"the answer took longer than {self.answered_within.total_seconds():g} seconds and was given up, so "
                "that nobody else has to wait for it. Ask for less, as of one workspace or a shorter time, or ask "
                "again when the daemon has less to do"
            )


@dataclass(slots=True)
class Turns:
    """Lets few long questions be answered at a time. Safe to use from several threads."""

    at_once: int = LONG_AT_ONCE
    _free: threading.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._free = threading.Semaphore(self.at_once)

    @contextmanager
    def taken(self, command: str, question: Question) -> Iterator[None]:
        """Wait for a turn, where ``command`` needs one, for as long as the question may take, and hold it."""
        if command not in LONG:
            yield
            return
        while not self._free.acquire(timeout=LOOK.total_seconds()):
            question.check()
        try:
            yield
        finally:
            self._free.release()


def has_gone(connection: socket.socket) -> bool:
    """Tell whether a peer has hung up; one that only says no more still listens."""
    poll = select.poll()
    poll.register(connection, 0)  # a hang-up is reported whatever is asked for
    return bool(poll.poll(0))
