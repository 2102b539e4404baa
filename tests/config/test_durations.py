from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.config.durations import LONGEST, format_duration, parse_duration
from rotator.core.durations import round_up

D, H, M, S = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("90s", 90 * S),
        ("10m", 10 * M),
        ("12h", 12 * H),
        ("30d", 30 * D),
        ("8w", 56 * D),
        ("1h30m", 90 * M),
        ("1w2d3h4m5s", 9 * D + 3 * H + 4 * M + 5 * S),
        ("P30D", 30 * D),
        ("PT12H", 12 * H),
        ("P1W", 7 * D),
        ("P1DT2H3M4S", D + 2 * H + 3 * M + 4 * S),
        ("PT90S", 90 * S),
        ("36525d", LONGEST),
    ],
)
def test_a_span_is_read_in_both_notations(text: str, span: timedelta) -> None:
    assert span == parse_duration(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a span of time"),
        ("30", "write 30s, 30m, 30h or 30d"),
        ("30 d", "not a span of time"),
        ("1m1h", "not a span of time"),
        ("1.5h", "not a span of time"),
        ("30D", "not a span of time"),
        ("²d", "not a span of time"),
        ("٣d", "not a span of time"),
        ("-5m", "negative"),
        ("0s", "no time at all"),
        ("PT0S", "no time at all"),
        ("P", "not a span of time"),
        ("PT", "not a span of time"),
        ("P1DT", "not a span of time"),
        ("P1M", "months or years"),
        ("P2Y", "months or years"),
        ("P1Y2M", "months or years"),
        ("36526d", "a hundred years"),
        ("999999999w", "a hundred years"),
        ("9" * 400 + "d", "not a span of time"),
        ("x" * 400, "xx…"),
    ],
)
def test_what_is_not_a_span_is_refused_with_what_would_be_right(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_duration(text)


def test_nothing_is_a_span_where_it_may_be() -> None:
    assert timedelta(0) == parse_duration("0s", zero_allowed=True)


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(0), "0s"),
        (90 * D, "90d"),
        (400 * D, "400d"),
        (49 * H, "49h"),
        (99 * H, "99h"),
        (100 * H, "4d4h"),
        (101 * M, "1h41m"),
        (24 * H, "1d"),
        (7 * D + 2 * H, "7d2h"),
        (24 * H + 3 * M, "1d3m"),
        (90 * M, "90m"),
        (90 * S, "90s"),
        (timedelta(milliseconds=250), "0.25s"),
        (2 * S + timedelta(milliseconds=250), "2s"),
        (-5 * M, "-5m"),
        (-3 * H - 20 * M - 5 * S, "-3h20m5s"),
    ],
)
def test_a_span_is_shown_as_a_person_would_write_it(span: timedelta, text: str) -> None:
    assert text == format_duration(span)


@given(st.integers(1, int(LONGEST.total_seconds())))
def test_what_is_shown_reads_back_as_the_same_span(seconds: int) -> None:
    assert timedelta(seconds=seconds) == parse_duration(format_duration(timedelta(seconds=seconds)))


@pytest.mark.parametrize(
    ("span", "rounded"),
    [
        (7 * D + 2 * H, 8 * D),
        (4 * D + S, 5 * D),
        (3 * D + S, 4 * D),
        (2 * D + S, 49 * H),
        (24 * H + 3 * M, 25 * H),
        (3 * H + S, 4 * H),
        (2 * H + S, 121 * M),
        (3 * M + S, 4 * M),
        (2 * M + S, 121 * S),
        (11 * M, 11 * M),
        (11 * M + S, 12 * M),
        (90 * S, 90 * S),
        (timedelta(milliseconds=1), S),
    ],
)
def test_advice_is_rounded_up_to_whole_units(span: timedelta, rounded: timedelta) -> None:
    assert rounded == round_up(span)


@given(st.timedeltas(timedelta(0), LONGEST))
def test_advice_is_never_below_what_is_needed(span: timedelta) -> None:
    assert span <= round_up(span) <= span * 1.5 + S
