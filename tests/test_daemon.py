"""When the daemon's loop ticks."""

from datetime import UTC, datetime, timedelta

import pytest

from rotator.daemon import has_come
from rotator.ports import Reading

NOW = datetime(2026, 3, 2, 12, 0, 0, tzinfo=UTC)
DUE = NOW + timedelta(seconds=30)


def after(passed: float, leap: timedelta = timedelta(0)) -> Reading:
    """Return what the clocks show so many seconds later, with the wall clock set meanwhile."""
    return Reading(NOW + timedelta(seconds=passed) + leap, "boot", timedelta(seconds=100 + passed), None)


@pytest.mark.parametrize(
    ("reading", "come"),
    [
        (after(29), False),
        (after(30), True),
        (after(1, timedelta(seconds=29)), True),
        (after(29, -timedelta(days=27_000)), False),
        (after(30, -timedelta(days=27_000)), True),
    ],
    ids=["early", "in time", "set forward", "set back, early", "set back"],
)
def test_a_clock_that_is_set_right_does_not_put_the_daemon_to_sleep(reading: Reading, come: bool) -> None:
    """A moment named by a clock that was 74 years ahead comes when the time to it has passed."""
    assert has_come(DUE, reading, after(0)) is come
