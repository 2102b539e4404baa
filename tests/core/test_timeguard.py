"""When the clock is trusted: a table of what can happen to it between two looks."""

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from rotator.core.timeguard import EPOCH, ClockMark, Reading, judge, mark_of
from tests.core.worlds import DAY, HOUR, T0

SKEW = timedelta(seconds=60)
MINUTE = timedelta(minutes=1)
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
    Case("a leap within the skew", HOUR + MINUTE, HOUR),
    Case("a long outage", 29 * DAY, HOUR, rebooted=True),
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

    assert "1970" in judge(mark, unset, clock_skew=SKEW, max_gap=DAY).held


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
    later = replace(BEFORE, now=T0 + timedelta(microseconds=900_000))

    assert judge(mark_of(BEFORE), later, clock_skew=timedelta(0), max_gap=DAY).trusted
