"""The openings of rotation windows, by APScheduler's cron trigger and the machine's time zones.

The trigger is asked in wall time, without a zone, and each wall time is then placed on the time line by two rules:

- a wall time that the autumn change of clocks repeats counts once, at its first occurrence;
- a wall time that the spring change skips happens at the first moment after the gap; several of them are one opening.

Days and times of day are kept apart: a window is a list of days and a list of times, so that a question costs two
look-ups however often it opens.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from rotator.core.contract import Gap
from rotator.core.policy import RotationWindow

_DAY: Final = timedelta(days=1)
_LAST_YEAR: Final = 9998
_SEARCH_LIMIT_YEARS: Final = 12
"""A day that some year has comes back within this: 29 February does after 8 at the most."""


def place(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment (UTC) of the naive ``wall`` time in ``zone``, by the rules in the module's docstring."""
    first = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if first.astimezone(zone).replace(tzinfo=None) == wall:
        return first
    before, after = wall.replace(tzinfo=zone, fold=1).astimezone(UTC), first
    offset = before.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):  # the change of clocks lies between: halve until it is found
        middle = before + (after - before) // 2
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)


@dataclass(slots=True)
class _Opens:
    """One window: its days of each year, computed when first asked for, and its times of day."""

    zone: ZoneInfo
    day_fields: dict[str, str]
    times: tuple[time, ...]
    shape: tuple[time, time, time, time]
    days_of_year: dict[int, tuple[date, ...]] = field(default_factory=dict)
    openings_of_day: dict[date, tuple[datetime, ...]] = field(default_factory=dict)

    def days(self, year: int) -> tuple[date, ...]:
        """Return the days of ``year`` on which it opens."""
        if year not in self.days_of_year:
            trigger = CronTrigger(**self.day_fields, year=year, hour=0, minute=0, timezone=UTC)
            start = datetime(year, 1, 1, tzinfo=UTC)
            self.days_of_year[year] = tuple(moment.date() for moment in _fire_times(trigger, start))
        return self.days_of_year[year]

    def openings(self, day: date) -> tuple[datetime, ...]:
        """Return its openings on ``day``, in order, without repetitions."""
        found = self.openings_of_day.get(day)
        if found is None:  # whoever else asks may empty it in between: what was found is not looked up again
            if len(self.openings_of_day) > 4096:
                self.openings_of_day.clear()
            found = tuple(dict.fromkeys(place(datetime.combine(day, at), self.zone) for at in self.times))
            self.openings_of_day[day] = found
        return found

    def days_from(self, first: date) -> Iterator[date]:
        """Yield its days from ``first`` on, until none comes for many years."""
        empty = 0
        for year in range(first.year, _LAST_YEAR + 1):
            days = self.days(year)
            empty = 0 if days else empty + 1
            if empty > _SEARCH_LIMIT_YEARS:
                return
            yield from days[bisect_left(days, first) :]

    def days_back(self, last: date) -> Iterator[date]:
        """Yield its days from ``last`` backwards, likewise."""
        empty = 0
        for year in range(last.year, 0, -1):
            days = self.days(year)
            empty = 0 if days else empty + 1
            if empty > _SEARCH_LIMIT_YEARS:
                return
            yield from reversed(days[: bisect_right(days, last)])

    def neighbours(self, start: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Yield neighbouring openings from ``start`` on, but of those within an ordinary day only the widest pair."""
        previous: datetime | None = None
        for day in self.days_from(start.astimezone(self.zone).date()):
            if previous is not None and self.is_ordinary(day):
                first, left, right, last = (place(datetime.combine(day, at), self.zone) for at in self.shape)
                yield from ((previous, first), (left, right))
                previous = last
                continue
            for moment in self.openings(day):
                if previous is not None:
                    yield previous, moment
                previous = moment if moment >= start else previous

    def is_ordinary(self, day: date) -> bool:
        """Tell whether the clocks do not change on ``day``."""
        midnight = datetime.combine(day, time())
        offsets = {
            (midnight + part).replace(tzinfo=self.zone, fold=fold).utcoffset()
            for part in (timedelta(0), _DAY)
            for fold in (0, 1)
        }
        return len(offsets) == 1


def _fire_times(trigger: Any, start: datetime) -> Iterator[datetime]:
    moment = trigger.get_next_fire_time(None, start)
    while moment is not None:
        yield moment
        moment = trigger.get_next_fire_time(moment, moment + timedelta(seconds=1))


@lru_cache(maxsize=256)
def _opens(cron: str, timezone: str) -> _Opens:
    minute, hour, day, month, weekday = cron.split()
    by_time = CronTrigger(year=2001, month=1, day=1, minute=minute, hour=hour, timezone=UTC)
    times = tuple(moment.time() for moment in _fire_times(by_time, datetime(2001, 1, 1, tzinfo=UTC)))
    return _Opens(ZoneInfo(timezone), {"day": day, "month": month, "day_of_week": weekday}, times, _shape(times))


class CronCalendar:
    """Implements :class:`~rotator.core.schedule.Calendar` and :class:`~rotator.core.contract.Almanac`.

    A window's cron expression must be one that :func:`rotator.config.crontab.check_cron` accepts.
    """

    def last_opening(self, window: RotationWindow, *, after: datetime, until: datetime) -> datetime | None:
        """Return the latest opening that lies after ``after`` and whose end is at or before ``until``; else None."""
        opens = _opens(window.cron, window.timezone)
        latest = until - window.duration
        if latest <= after:
            return None
        for day in opens.days_back(latest.astimezone(opens.zone).date()):
            openings = opens.openings(day)
            place_of_next = bisect_right(openings, latest)
            if place_of_next:
                found = openings[place_of_next - 1]
                return found if found > after else None
            if openings[-1] <= after:
                return None
        return None

    def openings(self, window: RotationWindow, *, start: datetime, end: datetime) -> Iterator[datetime]:
        """Yield the openings from ``start`` to before ``end``."""
        opens = _opens(window.cron, window.timezone)
        for day in opens.days_from(start.astimezone(opens.zone).date()):
            for moment in opens.openings(day):
                if moment >= end:
                    return
                if moment >= start:
                    yield moment

    def widest_gap(self, window: RotationWindow, *, start: datetime, end: datetime) -> Gap | None:
        """Return the two neighbouring openings that lie furthest apart, the first between ``start`` and ``end``.

        None where it opens fewer than twice.
        """
        opens = _opens(window.cron, window.timezone)
        widest: tuple[datetime, datetime] | None = None
        for pair in opens.neighbours(start):
            if widest is None or pair[1] - pair[0] > widest[1] - widest[0]:
                widest = pair
            if pair[1] >= end:
                break
        if widest is None:
            return None
        first, second = (moment.astimezone(opens.zone).utcoffset() for moment in widest)
        return Gap(*widest, clock_change=first != second)


def _shape(times: tuple[time, ...]) -> tuple[time, time, time, time]:
    """Return the first of ``times``, the two neighbours furthest apart, and the last."""
    pairs = pairwise(times) if len(times) > 1 else [(times[0], times[0])]
    return times[0], *max(pairs, key=lambda pair: _of_day(pair[1]) - _of_day(pair[0])), times[-1]


def _of_day(at: time) -> timedelta:
    return timedelta(hours=at.hour, minutes=at.minute)
