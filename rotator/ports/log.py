"""Where events go that people and alerts read."""

from collections.abc import Sequence
from typing import Protocol

from rotator.ports.records import AuditRow


class EventLog(Protocol):
    """Where events go that people and alerts read."""

    def audit(self, rows: Sequence[AuditRow]) -> None:
        """Write audit events, in order."""
        ...

    def event(self, name: str, **fields: object) -> None:
        """Write an event of the log's catalogue that changes no state."""
        ...
