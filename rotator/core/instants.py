"""Instants and spans as whole numbers: microseconds in files and in the database, seconds in tokens.

Instants are aware, in UTC; their numbers count from the epoch.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
SECOND: Final = timedelta(seconds=1)


def to_us(moment: datetime) -> int:
    """Return ``moment`` in microseconds since the epoch."""
    return (moment - EPOCH) // MICROSECOND


def from_us(moment_us: int) -> datetime:
    """Return the instant that :func:`to_us` gave."""
    return EPOCH + moment_us * MICROSECOND  # half the time of a timedelta made from the number


def whole_second(moment: datetime) -> datetime:
    """Return ``moment`` rounded down to a second, as JWT times are (RFC 7519 §2)."""
    return moment - moment.microsecond * MICROSECOND


def epoch_seconds(moment: datetime) -> int:
    """Return whole seconds since the epoch, rounded down, as in JWT claims."""
    return (moment - EPOCH) // SECOND
