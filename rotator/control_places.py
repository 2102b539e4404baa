"""How many may talk to the daemon at once, so that nobody on the machine can keep those out who may do more."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from rotator.control_roles import Role

CONNECTIONS_AT_ONCE: Final = 32
"""All of them; the last few are for root and the service's own user: however many crowd in, they can look and act."""

OF_ONE_USER: Final = 8
"""How many of these one user may have."""

UP_TO: Final = MappingProxyType({Role.VIEWER: 16, Role.OPERATOR: 20, Role.ADMIN: 24})
"""How many may be taken by those with a role before one with this role is sent away."""

STRANGERS_AT_ONCE: Final = 8
"""Those without any role are told so, and take no place of the others."""

OF_ONE_STRANGER: Final = 4


@dataclass(slots=True)
class Places:
    """Counts the connections of each user. Safe to use from several threads."""

    _taken: Counter[int] = field(default_factory=Counter)
    _strangers: Counter[int] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, uid: int, role: Role) -> str:
        """Take a place for ``uid``; return why there is none, empty when it was taken."""
        owner = uid in (0, os.geteuid())
        with self._lock:
            if role is Role.NONE:
                return self._take(self._strangers, uid, OF_ONE_STRANGER, STRANGERS_AT_ONCE)
            of_one = CONNECTIONS_AT_ONCE if owner else OF_ONE_USER
            return self._take(self._taken, uid, of_one, CONNECTIONS_AT_ONCE if owner else UP_TO[role])

    @staticmethod
    def _take(taken: Counter[int], uid: int, of_one: int, of_all: int) -> str:
        if taken.total() >= of_all:
            return f"{taken.total()} others are talking to the daemon right now; try again"
        if taken[uid] >= of_one:
            return f"you are talking to the daemon {of_one} times already; try again when one is through"
        taken[uid] += 1
        return ""

    def leave(self, uid: int, role: Role) -> None:
        """Give a place back that was taken for ``uid`` with ``role``."""
        taken = self._strangers if role is Role.NONE else self._taken
        with self._lock:
            taken[uid] -= 1
            if not taken[uid]:
                del taken[uid]


@dataclass(slots=True)
class Complaints:
    """Keeps one user from filling the log with what is refused to them. Safe to use from several threads."""

    each: timedelta = timedelta(seconds=10)
    """One line for each user in this time, and the number of those that were left out."""
    clock: Callable[[], float] = time.monotonic
    _last: dict[int, float] = field(default_factory=dict)
    _left_out: Counter[int] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def due(self, uid: int) -> int | None:
        """Return how many were left out before this one; None: this one is left out as well."""
        now = self.clock()
        with self._lock:
            for known in [known for known, at in self._last.items() if now - at >= self.each.total_seconds()]:
                if known == uid or not self._left_out[known]:
                    del self._last[known]
            if uid in self._last:
                self._left_out[uid] += 1
                return None
            self._last[uid] = now
            return self._left_out.pop(uid, 0)
