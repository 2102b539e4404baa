"""When what is late is told: 60 s after it was due, and at a quarter and at three quarters of a delivery's time."""

from datetime import timedelta

import pytest

from rotator.core.alarms import CRITICAL_SHARE, OVERDUE_AFTER, SILENT_AFTER, WARNING_SHARE, share_gone
from tests.core.worlds import HOUR, T0


def test_the_limits_are_those_that_people_are_told() -> None:
    assert timedelta(seconds=60) == OVERDUE_AFTER
    assert timedelta(minutes=5) == SILENT_AFTER
    assert (WARNING_SHARE, CRITICAL_SHARE) == (0.25, 0.75)


@pytest.mark.parametrize(
    ("time", "passed", "share"),
    [
        (4 * HOUR, 0 * HOUR, 0.0),
        (4 * HOUR, HOUR, 0.25),
        (4 * HOUR, 5 * HOUR, 1.25),
        (timedelta(seconds=1), timedelta(0), 0.0),
        (0 * HOUR, 0 * HOUR, 1.0),
        (timedelta(milliseconds=-500), timedelta(0), 1.0),
    ],
)
def test_a_delivery_has_the_time_until_the_prior_token_ends(time: timedelta, passed: timedelta, share: float) -> None:
    """Where there was none from the start, all of it is gone."""
    assert share_gone(T0, T0 + time, T0 + passed) == share
