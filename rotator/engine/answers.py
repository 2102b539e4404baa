"""Where whoever asked waits for the answer: in this process alone, so that no row of the database can answer for it.

A secret answer exists here and nowhere else. It is for the one that waits; when nobody waits any more it is dropped.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from threading import Condition

from rotator.ports import Answer


@dataclass(slots=True)
class Answers:
    """Answers by the nonce of the request. Used by the loop and by the threads that wait."""

    _changed: Condition = field(default_factory=Condition, compare=False)
    _awaited: dict[str, Answer | None] = field(default_factory=dict)
    """None while there is no answer yet."""

    def expect(self, nonce: str) -> None:
        """Wait for the answer to a request from now on, until :meth:`leave`."""
        with self._changed:
            self._awaited[nonce] = None

    def awaited(self, nonce: str) -> bool:
        """Tell whether somebody waits for this answer."""
        with self._changed:
            return nonce in self._awaited

    def give(self, nonce: str, answer: Answer) -> None:
        """Answer whoever waits; nothing is kept where nobody does."""
        with self._changed:
            if nonce in self._awaited:
                self._awaited[nonce] = answer
                self._changed.notify_all()

    def wait(self, nonce: str, patience: timedelta) -> Answer | None:
        """Return the answer, or None when there is none after ``patience``."""
        with self._changed:
            self._changed.wait_for(lambda: self._awaited.get(nonce) is not None, patience.total_seconds())
            return self._awaited.get(nonce)

    def leave(self, nonce: str) -> None:
        """Wait no more, and drop the answer."""
        with self._changed:
            self._awaited.pop(nonce, None)
