"""When what is late is told: 60 s after it was due, and at a quarter and at three quarters of a delivery's time."""

from datetime import timedelta

import pytest

from rotator.core.alarms import (
    CRITICAL_SHARE,
    OVERDUE_AFTER,
    SILENT_AFTER,
    WARNING_SHARE,
    Lateness,
    lateness,
    share_gone,
)
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


@pytest.mark.parametrize(
    ("passed", "failed", "late"),
    [
        (timedelta(0), False, None),
        (timedelta(minutes=59), True, None),
        (HOUR, False, Lateness.LATE),
        (timedelta(minutes=179), True, Lateness.LATE),
        (3 * HOUR, False, Lateness.CRITICAL),
    ],
)
def test_a_delivery_is_late_by_what_its_sink_holds(passed: timedelta, failed: bool, late: Lateness | None) -> None:
    """Whether an attempt failed, hangs or was never begun."""
    assert lateness(T0, T0 + 4 * HOUR, T0 + passed, failed=failed) is late


@pytest.mark.parametrize(
    ("passed", "failed", "late"),
    [
        (timedelta(0), False, None),
        (timedelta(seconds=1), True, Lateness.LATE),
        (OVERDUE_AFTER, False, Lateness.CRITICAL),
    ],
)
def test_a_sink_without_a_valid_token_has_no_time(passed: timedelta, failed: bool, late: Lateness | None) -> None:
    assert lateness(T0, T0, T0 + passed, failed=failed) is late
