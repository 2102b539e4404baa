"""Decides whether the wall clock can be trusted. Pure: one reading of the clocks against what was remembered.

Nothing is minted, delivered, activated, retired or destroyed on a clock that stands further back than it was known to
be, that leapt forward against the time since boot, or that a start finds further ahead than ``max_gap``; unless there
is evidence of time synchronisation from after the change, or the operator accepts it.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from rotator.core.durations import format_duration
from rotator.core.instants import EPOCH

OLDEST: Final = datetime(2025, 1, 1, tzinfo=UTC)
"""A clock that says less is wrong: this code is younger than that."""

SMALLEST_STEP: Final = timedelta(seconds=1)
"""Less than this is no step of the clock, however small the configured skew: the clocks are read one after another."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the clocks."""

    now: datetime
    """Wall time, aware UTC."""
    boot_id: str
    """Names this boot of this machine."""
    since_boot: timedelta
    """CLOCK_BOOTTIME: passes evenly, suspend included, whatever is done to the wall clock."""
    synchronised_at: datetime | None
    """When time synchronisation last left its mark in this boot, if it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockMark:
    """What is remembered of time across ticks and starts."""

    high_water_at: datetime
    """The latest trusted wall time."""
    boot_id: str
    offset: timedelta
    """Trusted wall time (since the epoch) minus CLOCK_BOOTTIME, in the boot ``boot_id``."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a reading is trusted, why not, and what to remember."""

    mark: ClockMark
    """To be stored; the old one while the clock is held."""
    held: str = ""
    """Why the clock is not trusted, as a sentence for people; empty when it is."""

    @property
    def trusted(self) -> bool:
        """Tell whether work that depends on time may go on."""
        return not self.held


def mark_of(reading: Reading) -> ClockMark:
    """Return what to remember of a reading that is trusted."""
    return ClockMark(
        high_water_at=reading.now, boot_id=reading.boot_id, offset=reading.now - EPOCH - reading.since_boot
    )


def judge(
    mark: ClockMark | None,
    reading: Reading,
    *,
    clock_skew: timedelta,
    max_gap: timedelta,
    server_time: datetime | None = None,
) -> Verdict:
    """Hold ``reading`` against ``mark``, the memory of earlier ticks (None: there is none).

    ``server_time`` is what a server that is not this machine says the time is, if one was asked just now.
    """
    clock_skew = max(clock_skew, SMALLEST_STEP)
    fresh = mark_of(reading)
    if reading.now < OLDEST:
        return Verdict(mark or fresh, f"the clock says {reading.now:%Y-%m-%d %H:%M:%S} UTC, which cannot be")
    if mark is None:
        return Verdict(fresh)
    suspicion = _suspicion(mark, fresh, clock_skew, max_gap)
    if not suspicion:
        return Verdict(
            replace(fresh, high_water_at=max(fresh.high_water_at, mark.high_water_at), offset=_anchor(mark, fresh))
        )
    if _evidence(mark, fresh, reading, clock_skew, server_time):
        return Verdict(fresh)
    return Verdict(mark, suspicion)


def _anchor(mark: ClockMark, fresh: ClockMark) -> timedelta:
    """Keep the offset of this boot's first trusted reading, so that small steps cannot add up unseen."""
    return mark.offset if mark.boot_id == fresh.boot_id else fresh.offset


def _suspicion(mark: ClockMark, fresh: ClockMark, clock_skew: timedelta, max_gap: timedelta) -> str:
    now, known = fresh.high_water_at, mark.high_water_at
    if now < known - clock_skew:
        return f"the clock says {now:%Y-%m-%d %H:%M:%S} UTC, and {known:%Y-%m-%d %H:%M:%S} UTC has been before"
    if fresh.boot_id == mark.boot_id:
        leap = fresh.offset - mark.offset
        if leap > clock_skew:
            shown = format_duration(timedelta(seconds=round(leap.total_seconds())))
            return f"the clock leapt forward by {shown} against the time since boot"
    elif now - known > max_gap:
        days = (now - known).days
        return f"the clock says {days} days have passed since the last run, which was at {known:%Y-%m-%d %H:%M:%S} UTC"
    return ""


def _evidence(
    mark: ClockMark, fresh: ClockMark, reading: Reading, clock_skew: timedelta, server_time: datetime | None
) -> bool:
    now = reading.now
    if server_time is not None and abs(server_time - now) <= clock_skew:
        return True
    synchronised = reading.synchronised_at
    if synchronised is None or synchronised > now + clock_skew:
        return False
    if fresh.boot_id == mark.boot_id:
        # The step came after the last trusted tick: a mark left before it lies before that tick's time, shifted.
        return synchronised >= mark.high_water_at + (fresh.offset - mark.offset)
    return synchronised >= now - reading.since_boot - clock_skew
