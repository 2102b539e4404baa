"""What bounds a question: the one who asks may go away, time passes, the daemon stops; and few long ones at a time.

A question is never the loop's business: it is answered in the thread of the peer who asks, reads one state of the
database, and ends as soon as nobody waits for its answer.
"""

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from rotator.errors import RefusedError

ANSWERED_WITHIN: Final = timedelta(seconds=30)
"""How long an answer may take; whoever asks waits for twice that."""

LONG_AT_ONCE: Final = 2
"""Long questions that are answered at a time, so that they leave the interpreter to the loop and to short ones."""

SHORT_AT_ONCE: Final = 8
"""Short ones at a time: each has a connection to the database, of which there are always some left for the loop."""

STORED_AT_ONCE: Final = 4
"""Requests that are being written down at a time; a revocation waits for none of them."""

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
    """Lets few be answered at a time, and fewer of the long ones. Safe to use from several threads."""

    _long: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(LONG_AT_ONCE))
    _short: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(SHORT_AT_ONCE))
    _stored: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(STORED_AT_ONCE))

    def answering(self, command: str, question: Question) -> AbstractContextManager[None]:
        """Wait for a turn to answer ``command``, for as long as the question may take, and hold it."""
        return _turn(self._long if command in LONG else self._short, question)

    def storing(self, question: Question) -> AbstractContextManager[None]:
        """Wait for a turn to write a request down, and hold it."""
        return _turn(self._stored, question)


@contextmanager
def _turn(turns: threading.Semaphore, question: Question) -> Iterator[None]:
    while not turns.acquire(timeout=LOOK.total_seconds()):
        question.check()
    try:
        yield
    finally:
        turns.release()


def has_gone(connection: socket.socket) -> bool:
    """Tell whether a peer has hung up; one that only says no more still listens."""
    poll = select.poll()
    poll.register(connection, 0)  # a hang-up is reported whatever is asked for
    return bool(poll.poll(0))
