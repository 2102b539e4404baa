"""When what is late becomes a warning, and when it becomes critical. Pure.

The measure of a delivery is the grace of the prior token: while it lasts, whoever reads the sink still holds a token
that is accepted.
"""

from datetime import datetime, timedelta
from typing import Final

OVERDUE_AFTER: Final = timedelta(seconds=60)
"""How late a thing may be before people are told."""

SILENT_AFTER: Final = timedelta(minutes=5)
"""How long a replica may say nothing before people are told."""

WARNING_SHARE: Final = 0.25
CRITICAL_SHARE: Final = 0.75
"""Of the time until the prior token ends, that a delivery may take before it is late, and before it is critical."""


def share_gone(wanted_at: datetime, deadline: datetime, now: datetime) -> float:
    """Return how much of the time that a delivery has is gone: 0 when it was wanted, 1 when the prior token ends."""
    whole = (deadline - wanted_at).total_seconds()
    return 1.0 if whole <= 0 else (now - wanted_at).total_seconds() / whole
