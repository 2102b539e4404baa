"""What the frames look like."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from rotator.core.model import Phase
from rotator.demo.picture import Picture
from rotator.demo.scene import Lane, Scene, Stage, Stretch
from rotator.demo.story import Line

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def after(seconds: int) -> datetime:
    return NOW + timedelta(seconds=seconds)


KEY = Lane(
    name="f8eC9Z4VMD",
    phase=Phase.ACTIVE,
    stretches=(
        Stretch(Stage.ANNOUNCED, after(-20), after(-16)),
        Stretch(Stage.READY, after(-16), after(-6)),
        Stretch(Stage.ACTIVE, after(-6), after(6)),
        Stretch(Stage.GRACE, after(6), after(18)),
    ),
    note="signs for 6s",
)


def draw(width: int, height: int, *, refusals: int = 0, lanes: tuple[Lane, ...] = (KEY,)) -> list[str]:
    events = [Line(NOW, "token.issued", "info", {"workspace": f"w{n}", "sequence": str(n)}) for n in range(40)]
    picture = Picture(
        scene=Scene(lanes, (Lane("acme #1", Phase.ACTIVE, note="expires in 9s"), Lane("", None))),
        now=NOW,
        elapsed=62,
        seconds=600,
        checks=1234,
        refusals=refusals,
        max_cache=timedelta(seconds=2),
        log=events,
    )
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None, force_terminal=True)
    return [
        "".join(segment.text for segment in line).rstrip()
        for line in console.render_lines(picture, console.options.update_dimensions(width, height))
    ]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 10), (20, 3)])
def test_a_frame_fits_its_terminal(width: int, height: int) -> None:
    lines = draw(width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


def test_a_lane_runs_through_now() -> None:
    """Each stage has its own line, and what is to come lies right of now."""
    (lane,) = [line for line in draw(80, 24) if "f8eC9Z4VMD" in line]
    assert lane == "  f8eC9Z4VMD  active           ┄┄┄┄──────────━━━━━┿━━━━━━─────── signs for 6s"
    title = draw(80, 24)[3]
    assert title.index("now") + 1 == lane.index("┿")


def test_lanes_keep_their_places() -> None:
    """An absent key or token leaves its line empty but for the line of now."""
    few, many = draw(80, 24, lanes=()), draw(80, 24, lanes=(KEY,) * 5)
    assert few.index(next(line for line in few if "TOKENS" in line)) == many.index(
        next(line for line in many if "TOKENS" in line)
    )
    assert few[4].strip() == "│"


def test_the_newest_events_fill_what_is_left() -> None:
    assert draw(80, 40)[-1].endswith("#39")


@pytest.mark.parametrize(("refusals", "shown"), [(0, "1,234 checks, 0 refused"), (1234, "1,234 refused")])
def test_the_verdict_is_there(refusals: int, shown: str) -> None:
    assert any(shown in line for line in draw(80, 24, refusals=refusals))


def test_the_clock_counts_minutes() -> None:
    assert draw(80, 24)[0].endswith("1:02 of 10:00")
