"""How many may talk to the daemon at once, so that nobody on the machine can keep the others out."""

import os
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

CONNECTIONS_AT_ONCE: Final = 32

OF_ONE_USER: Final = 8
"""How many of these one user may have."""

KEPT_FREE: Final = 8
"""How many only root and the service's own user may have: however many users crowd in, they can look and act."""


@dataclass(slots=True)
class Places:
    """Counts the connections of each user. Safe to use from several threads."""

    _taken: Counter[int] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, uid: int) -> str:
        """Take a place for ``uid``; return why there is none, empty when it was taken."""
        owner = uid in (0, os.geteuid())
        with self._lock:
            if not owner and self._taken[uid] >= OF_ONE_USER:
                return f"you are talking to the daemon {OF_ONE_USER} times already; try again when one is through"
            taken = self._taken.total()
            if taken >= (CONNECTIONS_AT_ONCE if owner else CONNECTIONS_AT_ONCE - KEPT_FREE):
                return f"{taken} others are talking to the daemon right now; try again"
            self._taken[uid] += 1
        return ""

    def leave(self, uid: int) -> None:
        """Give a place of ``uid`` back."""
        with self._lock:
            self._taken[uid] -= 1
            if not self._taken[uid]:
                del self._taken[uid]
