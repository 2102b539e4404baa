"""Whole numbers for instants: exact both ways, and rounded down where a token knows seconds only."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from rotator.core.instants import EPOCH, MICROSECOND, epoch_seconds, from_us, to_us, whole_second
from tests.core.worlds import T0

INSTANTS = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - the strategy adds the zone


@given(INSTANTS)
def test_an_instant_comes_back_to_the_microsecond(moment: datetime) -> None:
    assert from_us(to_us(moment)) == moment
    assert EPOCH + to_us(moment) * MICROSECOND == moment
    assert from_us(to_us(moment)).tzinfo is UTC


@given(INSTANTS)
def test_a_second_is_rounded_down(moment: datetime) -> None:
    assert whole_second(moment) == moment.replace(microsecond=0)
    assert epoch_seconds(moment) == to_us(moment) // 1_000_000


def test_epoch_seconds_round_down() -> None:
    assert epoch_seconds(T0 + timedelta(microseconds=999_999)) == int(T0.timestamp())
