"""Where the marks of a time axis stand, and what is written at them: round moments, never too many."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

_DAY: Final = timedelta(days=1)
_EPOCH: Final = datetime(1970, 1, 5, tzinfo=UTC)
"""A Monday, so that steps of weeks fall on Mondays."""

_STEPS: Final = (
    *(timedelta(seconds=count) for count in (1, 5, 15, 30)),
    *(timedelta(minutes=count) for count in (1, 5, 15, 30)),
    *(timedelta(hours=count) for count in (1, 3, 6, 12)),
    *(timedelta(days=count) for count in (1, 2, 7, 14)),
)
_MONTHS: Final = (1, 2, 3, 6, 12, 24, 60)


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark on the axis."""

    at: datetime
    text: str


def marks(start: datetime, end: datetime, *, at_most: int) -> tuple[Mark, ...]:
    """Return marks at round moments (UTC) from ``start`` to ``end``, as many as there is room for."""
    for step in _STEPS:
        if (end - start) / step <= at_most:
            return _named(_by_step(start, end, step), step)
    months = next((each for each in _MONTHS if (end - start) / (30 * _DAY) / each <= at_most), _MONTHS[-1])
    return _named(_by_month(start, end, months), months * 30 * _DAY)


def _by_step(start: datetime, end: datetime, step: timedelta) -> Iterator[datetime]:
    at = _EPOCH + -((_EPOCH - start) // step) * step
    while at <= end:
        if at >= start:
            yield at
        at += step


def _by_month(start: datetime, end: datetime, months: int) -> Iterator[datetime]:
    start = start.astimezone(UTC)
    number = start.year * 12 // months * months
    while True:
        year, month = divmod(number, 12)
        at = datetime(year, month + 1, 1, tzinfo=UTC)
        if at > end:
            return
        if at >= start:
            yield at
        number += months


def _named(moments: Iterator[datetime], step: timedelta) -> tuple[Mark, ...]:
    found: list[Mark] = []
    before: datetime | None = None
    for at in moments:
        found.append(Mark(at, _name(at, before, step)))
        before = at
    return tuple(found)


def _name(at: datetime, before: datetime | None, step: timedelta) -> str:
    """Write only what is new: the year where it changes, the date where the hours begin anew."""
    if step >= 360 * _DAY:
        return f"{at:%Y}"
    year = f" {at:%Y}" if before is None or before.year != at.year else ""
    if step >= 28 * _DAY:
        return f"{at:%b}{year}"
    day = f"{at.day} {at:%b}{year}"
    if step >= _DAY:
        return day
    time = f"{at:%H:%M:%S}" if step < timedelta(minutes=1) else f"{at:%H:%M}"
    return f"{day} {time}" if before is None or before.date() != at.date() else time
