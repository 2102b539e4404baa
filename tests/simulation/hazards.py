"""Where the simulated process may die, and what is out of order: one place that every stand-in asks.

A *durable step* is what outlives the process: a commit, a written file, a delivery. Each stand-in announces its steps
here, and the world arms the hazard to kill the process right before or right after the n-th of them from now.
"""

from collections import Counter
from dataclasses import dataclass, field


class ProcessDied(BaseException):  # no error: what `except Exception` must not catch, as with a real kill
    """The process was killed at a durable step."""


@dataclass(slots=True)
class Hazards:
    """What may happen to one replica's process and to its disk."""

    killed: Counter[str] = field(default_factory=Counter)
    """How often a process died, by the step."""
    steps_left: int = 0
    """Durable steps until the process dies; 0: it lives."""
    after: bool = False
    disk_full: bool = False
    """Neither tree nor witness can be written."""
    files_until_full: int = 0
    """Files that still fit before ``disk_full`` shows: a set whose writing stops half way."""
    store_locked: bool = False
    signal: str = ""
    """Sent to the process, which has not acted on it yet: HUP or TERM."""
    arrived: bool = False
    """It was asked for amid a tick, and cut that short."""
    _asked_before: int = 0
    _dies_after: bool = False

    def arm(self, steps: int, *, after: bool) -> None:
        """Let the process die at the ``steps``-th durable step from now."""
        self.steps_left, self.after = steps, after

    def send(self, signal: str, asked_before: int) -> None:
        """Let a signal come once the process has asked so often whether one did."""
        self.signal, self.arrived, self._asked_before = signal, False, asked_before

    def called_away(self) -> bool:
        """Tell the process whether it is to end its step: from when a signal came."""
        if self.signal and self._asked_before:
            self._asked_before -= 1
        elif self.signal:
            self.arrived = True
        return self.arrived

    def disarm(self) -> None:
        """Forget an armed death, or a signal, that never came."""
        self.steps_left = 0
        self.signal, self.arrived = "", False
        self._dies_after = False

    def before(self, step: str) -> None:
        """Announce a durable step that is about to be done."""
        if not self.steps_left:
            return
        self.steps_left -= 1
        if self.steps_left == 0:
            if not self.after:
                self._die(f"before {step}")
            self._dies_after = True

    def done(self, step: str) -> None:
        """Announce that it was done."""
        if self._dies_after:
            self._die(f"after {step}")

    def _die(self, where: str) -> None:
        self._dies_after = False
        self.killed[where] += 1
        raise ProcessDied(where)
