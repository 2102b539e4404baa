"""When what is late becomes a warning, and when it becomes critical. Pure.

The measure of a delivery is the grace of the token that its sink holds: while it lasts, whoever reads there still has
one that is accepted. It counts from when that token was superseded, whatever was tried since, and whichever token is
wanted by now. A sink that holds none has no grace.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

OVERDUE_AFTER: Final = timedelta(seconds=60)
"""How late a thing may be before people are told."""

SILENT_AFTER: Final = timedelta(minutes=5)
"""How long a replica may say nothing before people are told."""

WARNING_SHARE: Final = 0.25
CRITICAL_SHARE: Final = 0.75
"""Of the time until the prior token ends, that a delivery may take before it is late, and before it is critical."""


class Lateness(StrEnum):
    """How late a delivery is."""

    LATE = "late"
    CRITICAL = "critical"


def lateness(wanted_at: datetime, deadline: datetime, now: datetime, *, failed: bool) -> Lateness | None:
    """Return how late an open delivery is; None while it is in time. ``failed``: at least one attempt did.

    ``deadline``: when the token that the sink holds ends; not after ``wanted_at`` if it holds none that is valid. Then
    it is late with the first failure, and critical a minute after it was wanted.
    """
    if deadline <= wanted_at:
        if now - wanted_at >= OVERDUE_AFTER:
            return Lateness.CRITICAL
        return Lateness.LATE if failed else None
    gone = share_gone(wanted_at, deadline, now)
    if gone >= CRITICAL_SHARE:
        return Lateness.CRITICAL
    return Lateness.LATE if gone >= WARNING_SHARE else None


def share_gone(wanted_at: datetime, deadline: datetime, now: datetime) -> float:
    """Return how much of the time that a delivery has is gone: 0 when it was wanted, 1 when the prior token ends."""
    whole = (deadline - wanted_at).total_seconds()
    return 1.0 if whole <= 0 else (now - wanted_at).total_seconds() / whole
