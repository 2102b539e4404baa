"""Stand-ins that several kinds of tests share: clocks that a test turns, and a log that is kept.

What stands behind a port of its own kind of test alone lives beside that test.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from rotator.core.timeguard import Reading
from rotator.ports import AuditRow

T0 = datetime(2026, 3, 2, 12, 0, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class FakeClock:
    """Wall time that can be set, time since boot that cannot, and the time that really passed."""

    def __init__(self) -> None:
        self.wall = T0
        self.boot = "boot-1"
        self.since_boot = HOUR
        self.synchronised_at: datetime | None = None
        self.true = T0

    def read(self) -> Reading:
        return Reading(self.wall, self.boot, self.since_boot, self.synchronised_at)

    def elapse(self, span: timedelta) -> None:
        self.wall += span
        self.since_boot += span
        self.true += span

    def leap(self, span: timedelta) -> None:
        """Set the wall clock: no time passes."""
        self.wall += span

    def reboot(self, down_for: timedelta = MINUTE) -> None:
        self.wall += down_for
        self.true += down_for
        self.boot = f"boot-{int(self.boot.split('-')[1]) + 1}"
        self.since_boot = MINUTE
        self.synchronised_at = None


@dataclass
class RecordingLog:
    """What people would read."""

    audited: list[AuditRow] = field(default_factory=list)
    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    broken: bool = False
    """As when the disk of the log is full."""

    def audit(self, rows: Sequence[AuditRow]) -> None:
        if self.broken:
            raise OSError("no space left on the log's device")
        self.audited += rows

    def event(self, name: str, **fields: object) -> None:
        self.events.append((name, fields))

    def named(self, name: str) -> list[dict[str, object]]:
        return [fields for known, fields in self.events if known == name]
