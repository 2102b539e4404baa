"""When the clock is trusted: a table of what can happen to it between two looks."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from rotator.core.instants import EPOCH
from rotator.core.timeguard import ClockMark, Reading, judge, mark_of
from tests.core.worlds import DAY, HOUR, T0

SKEW = timedelta(seconds=60)
MINUTE = timedelta(minutes=1)
INSTANT = timedelta(microseconds=1)
BOOT = 31 * DAY - HOUR
BEFORE = Reading(now=T0, boot_id="boot", since_boot=DAY, synchronised_at=None)


@dataclass(frozen=True)
class Case:
    """What the clocks say the next time, against ``BEFORE``."""

    says: str
    wall: timedelta
    really: timedelta
    rebooted: bool = False
    synchronised: timedelta | None = None
    server: timedelta | None = None
    held: str = ""


CASES = [
    Case("an hour passed", HOUR, HOUR),
    Case("a small step back", -MINUTE / 2, timedelta(0)),
    Case("a step back", -HOUR, MINUTE, held="has been before"),
    Case("a step back, with an older mark of synchronisation", -HOUR, MINUTE, synchronised=-2 * HOUR, held="before"),
    Case("a step back, with a mark from its future", -HOUR, MINUTE, synchronised=-MINUTE, held="before"),
    Case("a step back by synchronisation", -HOUR, MINUTE, synchronised=-HOUR),
    Case("a leap", HOUR, MINUTE, held="leapt forward by 59m"),
    Case("a leap, with an older mark of synchronisation", HOUR, MINUTE, synchronised=-HOUR, held="leapt"),
    Case("a leap by synchronisation", HOUR, MINUTE, synchronised=HOUR),
    Case("a leap that a server confirms", HOUR, MINUTE, server=HOUR),
    Case("a leap that a server denies", HOUR, MINUTE, server=MINUTE, held="leapt"),
    Case("a leap that a server confirms, give or take the skew", HOUR, MINUTE, server=HOUR + MINUTE),
    Case("a leap that a server nearly confirms", HOUR, MINUTE, server=HOUR + MINUTE + INSTANT, held="leapt"),
    Case("a leap within the skew", HOUR + MINUTE, HOUR),
    Case("a leap just beyond it", HOUR + MINUTE + INSTANT, HOUR, held="leapt forward by 1m"),
    Case("a leap by synchronisation, marked within the skew ahead", HOUR, MINUTE, synchronised=HOUR + MINUTE),
    Case("a leap, marked further ahead", HOUR, MINUTE, synchronised=HOUR + MINUTE + INSTANT, held="leapt"),
    Case("a leap by synchronisation, right after the last look", HOUR, MINUTE, synchronised=59 * MINUTE),
    Case("a leap, marked right before the last look", HOUR, MINUTE, synchronised=59 * MINUTE - INSTANT, held="leapt"),
    Case("a step back as far as the skew", -MINUTE, timedelta(0)),
    Case("a step back a little further", -MINUTE - INSTANT, timedelta(0), held="has been before"),
    Case("a long outage", 29 * DAY, HOUR, rebooted=True),
    Case("as long an outage as may be", 30 * DAY, HOUR, rebooted=True),
    Case("an outage a little longer", 30 * DAY + INSTANT, HOUR, rebooted=True, held="30 days"),
    Case("too long an outage, marked as the boot began", 31 * DAY, HOUR, rebooted=True, synchronised=BOOT - MINUTE),
    Case(
        "too long an outage, marked before",
        31 * DAY,
        HOUR,
        rebooted=True,
        synchronised=BOOT - MINUTE - INSTANT,
        held="31 days",
    ),
    Case("too long an outage", 31 * DAY, HOUR, rebooted=True, held="31 days"),
    Case("too long an outage, synchronised", 31 * DAY, HOUR, rebooted=True, synchronised=31 * DAY - MINUTE),
    Case("too long an outage, mark of another time", 31 * DAY, HOUR, rebooted=True, synchronised=DAY, held="31 days"),
    Case("a boot in the past", -DAY, HOUR, rebooted=True, held="has been before"),
    Case("a boot in the past, set right", MINUTE, HOUR, rebooted=True, synchronised=MINUTE),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_the_clock_is_held_or_trusted(case: Case) -> None:
    reading = Reading(
        now=T0 + case.wall,
        boot_id="another" if case.rebooted else "boot",
        since_boot=case.really if case.rebooted else DAY + case.really,
        synchronised_at=None if case.synchronised is None else T0 + case.synchronised,
    )
    mark = mark_of(BEFORE)

    verdict = judge(
        mark,
        reading,
        clock_skew=SKEW,
        max_gap=30 * DAY,
        server_time=None if case.server is None else T0 + case.server,
    )

    assert verdict.trusted == (not case.held)
    assert case.held in verdict.held
    if not verdict.trusted:
        assert verdict.mark == mark


@pytest.mark.parametrize("mark", [None, mark_of(BEFORE)])
def test_a_clock_that_was_never_set_is_held(mark: ClockMark | None) -> None:
    """A board without a battery starts in 1970, and says that it is synchronised with itself."""
    unset = Reading(now=EPOCH + HOUR, boot_id="new", since_boot=HOUR, synchronised_at=EPOCH + HOUR)

    verdict = judge(mark, unset, clock_skew=SKEW, max_gap=DAY)

    assert "1970" in verdict.held
    assert verdict.mark == (mark or mark_of(unset))


def test_no_clock_of_this_code_says_less_than_2025() -> None:
    at = datetime(2025, 1, 1, tzinfo=UTC)

    assert judge(None, replace(BEFORE, now=at), clock_skew=SKEW, max_gap=DAY).trusted
    assert not judge(None, replace(BEFORE, now=at - INSTANT), clock_skew=SKEW, max_gap=DAY).trusted


def test_what_is_stored_of_the_boot_is_when_it_began() -> None:
    """An earlier version wrote it, and a later one reads it."""
    assert mark_of(BEFORE) == ClockMark(
        high_water_at=T0, boot_id="boot", offset=timedelta(seconds=T0.timestamp()) - DAY
    )


def test_the_first_reading_is_trusted() -> None:
    assert judge(None, BEFORE, clock_skew=SKEW, max_gap=DAY).mark == mark_of(BEFORE)


def test_small_steps_do_not_add_up_unseen() -> None:
    """Each is within the skew; together they are not, for the anchor stays that of the first trusted reading."""
    mark: ClockMark = mark_of(BEFORE)
    reading = BEFORE
    held = []
    for _ in range(4):
        reading = replace(
            reading, now=reading.now + timedelta(seconds=40), since_boot=reading.since_boot + timedelta(seconds=10)
        )
        verdict = judge(mark, reading, clock_skew=SKEW, max_gap=30 * DAY)
        mark = verdict.mark
        held.append(not verdict.trusted)
    assert held == [False, False, True, True]


def test_a_clock_that_was_set_back_is_trusted_again_when_it_caught_up() -> None:
    mark = mark_of(BEFORE)
    behind = replace(BEFORE, now=T0 - HOUR, since_boot=DAY + MINUTE)
    caught_up = replace(BEFORE, now=T0, since_boot=DAY + MINUTE + HOUR)

    assert not judge(mark, behind, clock_skew=SKEW, max_gap=DAY).trusted
    assert judge(mark, caught_up, clock_skew=SKEW, max_gap=DAY).trusted


def test_the_high_water_mark_never_sinks_on_a_small_step_back() -> None:
    verdict = judge(mark_of(BEFORE), replace(BEFORE, now=T0 - MINUTE / 2), clock_skew=SKEW, max_gap=DAY)

    assert verdict.trusted
    assert verdict.mark.high_water_at == T0


def test_clocks_that_are_read_one_after_another_are_no_step() -> None:
    """However small the configured skew is."""
    for late, trusted in ((timedelta(seconds=1), True), (timedelta(seconds=1) + INSTANT, False)):
        later = replace(BEFORE, now=T0 + late)
        assert judge(mark_of(BEFORE), later, clock_skew=timedelta(0), max_gap=DAY).trusted is trusted
