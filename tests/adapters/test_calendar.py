from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotator.adapters.calendar import CronCalendar, place
from rotator.core.contract import Gap
from rotator.core.policy import RotationWindow

HOUR = timedelta(hours=1)
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "UTC")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def openings(window: RotationWindow, start: str, count: int) -> list[datetime]:
    return list(islice(CronCalendar().openings(window, start=utc(start), end=utc("2100-01-01")), count))


@pytest.mark.parametrize(
    ("cron", "zone", "start", "expected"),
    [
        pytest.param(
            "0 3 * * sun",
            "Europe/Berlin",
            "2026-10-17",
            ["2026-10-18T01:00", "2026-10-25T02:00", "2026-11-01T02:00"],
            id="after the change, so an hour later in UTC",
        ),
        pytest.param(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24",
            ["2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30"],
            id="repeated in autumn: the first occurrence alone",
        ),
        pytest.param(
            "*/30 2 * * *",
            "Europe/Berlin",
            "2027-03-28",
            ["2027-03-28T01:00", "2027-03-29T00:00", "2027-03-29T00:30"],
            id="skipped in spring: once, at the moment after the gap",
        ),
        pytest.param(
            "30 1,2,3 * * *",
            "America/New_York",
            "2027-03-14T05:00",
            ["2027-03-14T06:30", "2027-03-14T07:00", "2027-03-14T07:30"],
            id="the gap of New York is from 2 to 3",
        ),
        pytest.param(
            "30 1 * * *",
            "America/New_York",
            "2026-11-01",
            ["2026-11-01T05:30", "2026-11-02T06:30"],
            id="repeated in New York",
        ),
        pytest.param("30 2 * * *", "Asia/Kolkata", "2026-10-24T12:00", ["2026-10-24T21:00"], id="no change of clocks"),
        pytest.param(
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-02T16:00",
            ["2026-10-03T15:30", "2026-10-04T15:15"],
            id="a change of half an hour, skipped: 02:00 becomes 02:30",
        ),
        pytest.param(
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2027-04-03T12:00",
            ["2027-04-03T14:45", "2027-04-04T15:15"],
            id="a change of half an hour, repeated",
        ),
        pytest.param(
            "0 12 29 feb *", "UTC", "2026-01-01", ["2028-02-29T12:00", "2032-02-29T12:00"], id="years without any"
        ),
        pytest.param("0 0 * * sat,sun", "UTC", "2026-06-01", ["2026-06-06", "2026-06-07", "2026-06-13"], id="names"),
    ],
)
def test_openings_are_where_the_rules_put_them(cron: str, zone: str, start: str, expected: list[str]) -> None:
    window = RotationWindow(cron, zone, HOUR)
    assert [utc(text) for text in expected] == openings(window, start, len(expected))


def test_a_window_that_never_opens_has_no_openings() -> None:
    window = RotationWindow("0 3 31 feb *", "UTC", HOUR)
    calendar = CronCalendar()
    assert openings(window, "2026-01-01", 1) == []
    assert calendar.last_opening(window, after=utc("1990-01-01"), until=utc("2026-01-01")) is None
    assert calendar.widest_gap(window, start=utc("2026-01-01"), end=utc("2031-01-01")) is None


def test_the_last_opening_ends_in_time_and_begins_after() -> None:
    """The end of an opening may be the limit itself; its start may not."""
    window = RotationWindow("0 3 * * sun", "Europe/Berlin", HOUR)
    opening = utc("2026-10-25T02:00")
    last = CronCalendar().last_opening
    assert opening == last(window, after=utc("2026-10-18T01:00"), until=opening + HOUR)
    assert last(window, after=utc("2026-10-18T01:00"), until=opening + HOUR - timedelta(seconds=1)) is None
    assert last(window, after=opening, until=opening + 6 * timedelta(days=1)) is None
    assert opening == last(window, after=opening - timedelta(microseconds=1), until=opening + HOUR)
    assert last(window, after=opening, until=opening - HOUR) is None


def test_the_last_opening_may_lie_in_an_earlier_year() -> None:
    window = RotationWindow("0 3 1 dec *", "UTC", HOUR)
    found = CronCalendar().last_opening(window, after=utc("2026-01-01"), until=utc("2027-06-01"))
    assert utc("2026-12-01T03:00") == found


def test_openings_stop_at_the_end() -> None:
    window = RotationWindow("0 * * * *", "UTC", HOUR)
    found = list(CronCalendar().openings(window, start=utc("2026-01-01T00:30"), end=utc("2026-01-01T03:00")))
    assert [utc("2026-01-01T01:00"), utc("2026-01-01T02:00")] == found


@pytest.mark.parametrize(
    ("cron", "zone", "span", "clock_change"),
    [
        ("0 3 * * sun", "Europe/Berlin", timedelta(days=7, hours=1), True),
        ("0 3 * * sun", "Asia/Kolkata", timedelta(days=7), False),
        ("0 0-23 * * sun", "UTC", timedelta(days=6, hours=1), False),
        ("* * * * *", "Europe/Berlin", timedelta(hours=1, minutes=1), True),
        ("* * * * *", "Australia/Lord_Howe", timedelta(minutes=31), True),
        ("0,5,7,50 9 * * *", "UTC", timedelta(hours=23, minutes=10), False),
    ],
)
def test_the_widest_gap_is_that_of_the_autumn(cron: str, zone: str, span: timedelta, *, clock_change: bool) -> None:
    gap = CronCalendar().widest_gap(RotationWindow(cron, zone, HOUR), start=utc("2026-06-01"), end=utc("2028-06-01"))
    assert gap is not None
    assert (span, clock_change) == (gap.span, gap.clock_change)


def test_the_widest_gap_is_found_beyond_the_end_when_there_is_none_before() -> None:
    window = RotationWindow("0 0 29 feb *", "UTC", HOUR)
    gap = CronCalendar().widest_gap(window, start=utc("2026-06-01"), end=utc("2027-06-01"))
    assert Gap(utc("2028-02-29"), utc("2032-02-29"), clock_change=False) == gap


@st.composite
def windows(draw: st.DrawFn) -> RotationWindow:
    minutes = draw(st.lists(st.integers(0, 59), min_size=1, max_size=3, unique=True))
    hours = draw(st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True))
    days = draw(st.sampled_from(["*", "1", "1-7", "25-31"]))
    weekdays = draw(st.sampled_from(["*", "sun", "mon-fri", "sat,sun"]))
    cron = f"{','.join(map(str, minutes))} {','.join(map(str, hours))} {days} * {weekdays}"
    return RotationWindow(cron, draw(st.sampled_from(ZONES)), timedelta(minutes=draw(st.integers(1, 180))))


def matches(item: str, value: int) -> bool:
    """Match one field of the cron expressions that `windows` draws, independently of the code under test."""
    for part in item.split(","):
        first, _, last = part.partition("-")
        if item == "*" or int(first) <= value <= int(last or first):
            return True
    return False


def brute_force(window: RotationWindow, after: datetime, until: datetime) -> datetime | None:
    """Walk the minutes of the time line backwards, looking at the clock on the wall."""
    zone = ZoneInfo(window.timezone)
    minute, hour, day, _, weekday = window.cron.split()
    names = weekday
    for number, name in enumerate(WEEKDAYS):
        names = names.replace(name, str(number))

    def fits(wall: datetime) -> bool:
        return (
            matches(minute, wall.minute)
            and matches(hour, wall.hour)
            and matches(day, wall.day)
            and matches(names, wall.weekday())
        )

    moment = (until - window.duration).replace(second=0, microsecond=0)
    while moment > after:
        wall = moment.astimezone(zone)
        before = (moment - timedelta(minutes=1)).astimezone(zone)
        skipped = wall.replace(tzinfo=None) - before.replace(tzinfo=None) - timedelta(minutes=1)
        walls = [wall - timedelta(minutes=back) for back in range(1 + max(0, int(skipped.total_seconds() // 60)))]
        if wall.fold == 0 and any(fits(each) for each in walls):
            return moment
        moment -= timedelta(minutes=1)
    return None


NEAR_A_CHANGE = st.sampled_from(
    [date(2026, 3, 29), date(2026, 10, 25), date(2026, 11, 1), date(2027, 3, 14), date(2026, 10, 4), date(2027, 4, 4)]
)


@settings(max_examples=60, deadline=None)
@given(windows(), NEAR_A_CHANGE, st.integers(-1440, 2880), st.integers(0, 3 * 1440))
def test_the_last_opening_is_what_a_walk_over_every_minute_finds(
    window: RotationWindow, day: date, offset: int, length: int
) -> None:
    until = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(minutes=offset)
    after = until - timedelta(minutes=length)
    assert brute_force(window, after, until) == CronCalendar().last_opening(window, after=after, until=until)


@settings(max_examples=30, deadline=None)
@given(windows(), st.datetimes(datetime(2026, 1, 1), datetime(2028, 1, 1)))  # noqa: DTZ001  # made aware below
def test_the_widest_gap_is_the_widest_of_all(window: RotationWindow, start: datetime) -> None:
    begin = start.replace(tzinfo=UTC)
    end = begin + timedelta(days=200)
    calendar = CronCalendar()
    gap = calendar.widest_gap(window, start=begin, end=end)
    every = pairwise(calendar.openings(window, start=begin, end=end + timedelta(days=5_000)))
    within = takewhile(lambda pair: pair[0] < end, every)
    assert gap is not None
    assert max((second - first for first, second in within), default=gap.span) == gap.span


def test_a_wall_time_in_a_gap_is_placed_at_the_first_moment_after_it() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert utc("2027-03-28T01:00") == place(datetime(2027, 3, 28, 2, 59), berlin)  # noqa: DTZ001  # a wall time
    assert utc("2027-03-28T01:00") == place(datetime(2027, 3, 28, 3, 0), berlin)  # noqa: DTZ001  # a wall time
