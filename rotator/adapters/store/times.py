"""Instants and durations as the database holds them: integer microseconds, since the epoch for instants."""

from datetime import UTC, datetime, timedelta
from typing import Final, overload

from rotator.core import instants


def span_to_us(span: timedelta) -> int:
    """Return ``span`` in whole microseconds."""
    return span // instants.MICROSECOND


def span_from_us(span_us: int) -> timedelta:
    """Return the duration that :func:`span_to_us` stored."""
    return timedelta(microseconds=span_us)


@overload
def to_us(moment: datetime) -> int: ...
@overload
def to_us(moment: None) -> None: ...
@overload
def to_us(moment: datetime | None) -> int | None: ...
def to_us(moment: datetime | None) -> int | None:
    """Return an aware ``moment`` in microseconds since the epoch; None stays None."""
    return None if moment is None else instants.to_us(moment)


@overload
def from_us(moment_us: int) -> datetime: ...
@overload
def from_us(moment_us: None) -> None: ...
@overload
def from_us(moment_us: int | None) -> datetime | None: ...
def from_us(moment_us: int | None) -> datetime | None:
    """Return the instant, aware UTC, that :func:`to_us` stored; None stays None."""
    return None if moment_us is None else instants.from_us(moment_us)


_LATEST_US: Final = instants.to_us(datetime(9990, 1, 1, tzinfo=UTC))


@overload
def noted(moment_us: int) -> datetime: ...
@overload
def noted(moment_us: None) -> None: ...
@overload
def noted(moment_us: int | None) -> datetime | None: ...
def noted(moment_us: int | None) -> datetime | None:
    """Return an instant that no MAC covers: one that lies outside of all reason is the nearest that does not."""
    return None if moment_us is None else instants.from_us(min(max(moment_us, 0), _LATEST_US))
