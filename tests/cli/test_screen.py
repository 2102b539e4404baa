"""How things are shown: moments, spans, and text that someone else wrote."""

import io
from datetime import UTC, datetime, timedelta, timezone

import pytest

from rotator.cli.output import moment, span
from rotator.cli.screen import Screen, printable, short
from rotator.cli.times import absolute, both, relative, rough
from rotator.errors import ConfigError

NOW = datetime(2026, 3, 1, 4, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.4, "0s"),
        (59, "59s"),
        (60, "1m"),
        (61, "1m 1s"),
        (3_600, "1h"),
        (3_601, "1h"),
        (86_399, "23h 59m"),
        (86_400, "1d"),
        (3 * 86_400 + 4 * 3_600 + 1, "3d 4h"),
        (30 * 86_400 + 3_600, "30d"),
        (400 * 86_400, "400d"),
    ],
)
def test_spans_show_their_two_largest_units(seconds: float, shown: str) -> None:
    """And one alone where the second says nothing."""
    assert rough(timedelta(seconds=seconds)) == shown


def test_moments_are_utc_whatever_the_zone() -> None:
    """With how far away they are."""
    later = (NOW + timedelta(days=2, hours=1)).astimezone(timezone(timedelta(hours=5)))
    assert absolute(later) == "2026-03-03 05:05Z"
    assert both(later, NOW) == "2026-03-03 05:05Z (in 2d 1h)"
    assert relative(NOW, later) == "2d 1h ago"
    assert relative(NOW, NOW) == "now"


def test_text_cannot_steer_the_terminal() -> None:
    """An error that a sink wrote may hold anything."""
    stream = io.StringIO()
    Screen.of(stream).facts([("what", "bad \x1b[2J\x07 \x9b31m text\u202e")])
    assert stream.getvalue() == "  what  bad \ufffd[2J\ufffd \ufffd31m text\ufffd\n"
    assert printable("two\nlines") == "two\nlines"


def test_ascii_terminal_gets_ascii() -> None:
    """What it cannot show is a question mark, never an exception."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Screen.of(stream).line("a ≥ b")
    stream.seek(0)
    assert stream.read() == "a ? b\n"


def test_kids_are_shortened_and_placeholders_are_not() -> None:
    """Twelve characters tell one from the other."""
    assert short("E4SyfcamivLYH8GrHey7s18Gb13tbd8qN56cf99IbrE")[:12] == "E4SyfcamivLY"
    assert short("short-kid") == "short-kid"
    assert short("(payments #3)") == "(payments #3)"


def test_options_that_are_no_spans_or_moments() -> None:
    """Are refused with what is right."""
    assert moment("2026-03-01T00:00:00+01:00", "--since") == "2026-02-28T23:00:00Z"
    with pytest.raises(ConfigError, match="--since: '2026-03-01T00:00:00' has no zone; write 2026-03-01T00:00:00Z"):
        moment("2026-03-01T00:00:00", "--since")
    with pytest.raises(ConfigError, match="--for: 'x' is not a span"):
        span("x", "--for")
