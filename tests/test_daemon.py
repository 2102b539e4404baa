"""When the daemon's loop ticks."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.triggers.date import DateTrigger

from rotator.daemon import Alarm, has_come
from rotator.ports import Reading
from tests.patience import HANG_SECONDS, wait_until

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


def test_an_alarm_that_is_late_skips_no_moment_and_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """However long one waking takes, the next one comes after it."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Alarm):
        def wake(self) -> None:
            begun.set()
            assert go_on.wait(HANG_SECONDS)
            super().wake()

    alarm = Slow()
    try:
        alarm.set(datetime.now(UTC))
        assert begun.wait(HANG_SECONDS)
        alarm.set(datetime.now(UTC))
        go_on.set()
        assert alarm.wait(timedelta(seconds=HANG_SECONDS))
        wait_until(lambda: not alarm._scheduler.get_jobs(), "the second moment is over, too")
    finally:
        alarm.close()
    assert caplog.messages == []


def test_an_alarm_is_stopped_amid_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread goes through with what it is at, and does not die of it."""
    died: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    alarm = Alarm()
    amid = threading.Event()

    class Lingering(DateTrigger):  # type: ignore[misc] # it ships no types
        asked = 0

        def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
            self.asked += 1
            if self.asked > 1:  # it was found due, and is about to be removed
                amid.set()
                stopping.wait(0.2)  # never set where the stop waits for this
                return None
            return datetime.now(UTC)

    stopping = threading.Event()
    alarm._scheduler.add_job(alarm.wake, Lingering(), misfire_grace_time=None)
    assert amid.wait(HANG_SECONDS)
    thread = alarm._scheduler._thread
    alarm.close()
    stopping.set()
    thread.join(HANG_SECONDS)
    assert died == []
