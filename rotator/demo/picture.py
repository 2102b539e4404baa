"""Draws the scene for a terminal of 80 columns and 24 lines, or more.

A lane runs from the past on the left into the future on the right; the line of now stands still, and the lanes move
through it. What is yet to come is dim.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from rotator.core.instants import EPOCH
from rotator.core.model import Phase
from rotator.demo.scene import KEYS_SHOWN, Lane, Scene, Stage
from rotator.demo.story import Line

PAST: Final = timedelta(seconds=27)
FUTURE: Final = timedelta(seconds=13)

_LABEL_WIDTH: Final = 10
_NAME_WIDTH: Final = 12
_PHASE_WIDTH: Final = 9
_NOTE_WIDTH: Final = 15
_INDENT: Final = "  "
_QUIET: Final = "bright_black"

_STAGES: Final = {
    Stage.ANNOUNCED: ("┄", "┼", "blue"),
    Stage.READY: ("─", "┼", "cyan"),
    Stage.ACTIVE: ("━", "┿", "green"),
    Stage.GRACE: ("─", "┼", "yellow"),
}
"""For each stage its line, its crossing with the line of now, and its colour."""

_MEANINGS: Final = {
    Stage.ANNOUNCED: "published",
    Stage.READY: "known to all verifiers",
    Stage.ACTIVE: "signs or is current",
    Stage.GRACE: "still verifies",
}

_PHASES: Final = {
    Phase.PENDING: "cyan",
    Phase.ACTIVE: "bold green",
    Phase.GRACE: "yellow",
    Phase.RETIRED: _QUIET,
    Phase.REVOKED: "red",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One frame. Lengths of time are whole seconds."""

    scene: Scene
    now: datetime
    elapsed: int
    seconds: int
    checks: int
    refusals: int
    max_cache: timedelta
    log: Sequence[Line]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines of the frame, no more of them than there is room for."""
        width, height = options.max_width, options.height or console.height
        lines = [*self._head(width), *self._body(width)]
        lines += self._log(height - len(lines))
        for line in lines[:height]:
            line.truncate(width)
            yield line

    def _head(self, width: int) -> Iterator[Text]:
        head = Text.assemble(("rotator demo", "bold"), ("   the daemon itself, its periods in seconds", _QUIET))
        clock = f"{_clock(self.elapsed)} of {_clock(self.seconds)}"
        yield _spread(head, Text(clock, _QUIET), width)
        legend = [(f"{_STAGES[stage][0]} ", _STAGES[stage][2]) for stage in Stage]
        meanings = [(f"{_MEANINGS[stage]}  ", _QUIET) for stage in Stage]
        yield Text.assemble(*(part for pair in zip(legend, meanings, strict=True) for part in pair))
        yield Text()

    def _body(self, width: int) -> Iterator[Text]:
        axis = _Axis.of(self.now, max(8, width - len(_INDENT) - _NAME_WIDTH - _PHASE_WIDTH - 1 - _NOTE_WIDTH))
        yield self._title("KEYS", axis)
        keys = [*self.scene.keys, *[Lane("", None)] * (KEYS_SHOWN - len(self.scene.keys))]
        yield from (_lane(lane, axis) for lane in keys)
        yield _gap(axis)
        yield self._title("TOKENS", axis, marker="│")
        yield from (_lane(lane, axis) for lane in self.scene.tokens)
        yield Text()
        verdict = ("0 refused", "bold green") if not self.refusals else (f"{self.refusals:,} refused", "bold red")
        yield Text.assemble(
            (f"{'VERIFIER':<{_LABEL_WIDTH}}", "bold"),
            f"{self.checks:,} checks, ",
            verdict,
            (f"   with a copy of the set up to {self.max_cache.seconds}s old", _QUIET),
        )
        yield Text()

    @staticmethod
    def _title(text: str, axis: "_Axis", marker: str = "now") -> Text:
        line = Text(text, "bold")
        at = len(_INDENT) + _NAME_WIDTH + _PHASE_WIDTH + axis.now_at - len(marker) // 2
        line.append(" " * (at - len(text)) + marker, _QUIET)
        return line

    def _log(self, room: int) -> Iterator[Text]:
        recent = list(self.log)[-max(1, room) :]
        for label, line in zip(["LOG", *[""] * len(recent)], recent, strict=False):
            yield Text.assemble(
                (f"{label:<{_LABEL_WIDTH}}", "bold"),
                (f"{line.at:%H:%M:%S}  ", _QUIET),
                f"{line.event:<18}",
                (line.subject, _QUIET),
            )


@dataclass(frozen=True, slots=True)
class _Axis:
    """Which moment each column of a lane stands for."""

    moments: tuple[datetime, ...]
    now_at: int
    """The column of now."""

    @classmethod
    def of(cls, now: datetime, width: int) -> "_Axis":
        cell = (PAST + FUTURE) / width
        now_at = int(width * (PAST / (PAST + FUTURE)))
        current = EPOCH + (now - EPOCH) // cell * cell  # whole cells since ever, so that lanes move and do not flicker
        return cls(tuple(current + cell * (column - now_at) for column in range(width)), now_at)


def _lane(lane: Lane, axis: _Axis) -> Text:
    if lane.phase is None:
        return _gap(axis)
    style = _PHASES[lane.phase]
    gone = lane.phase is Phase.RETIRED
    line = Text(_INDENT)
    line.append(f"{lane.name:<{_NAME_WIDTH}}", _QUIET if gone else "")
    line.append(f"{lane.phase:<{_PHASE_WIDTH}}", style)
    for column, moment in enumerate(axis.moments):
        line.append(*_cell(lane, moment, column - axis.now_at))
    line.append(f" {lane.note}", _QUIET if gone or lane.phase is Phase.PENDING else "")
    return line


def _cell(lane: Lane, moment: datetime, columns_from_now: int) -> tuple[str, str]:
    found = next((each.stage for each in lane.stretches if each.start <= moment < each.end), None)
    if found is None:
        return (" ", "") if columns_from_now else ("│", _QUIET)
    char, crossing, colour = _STAGES[found]
    if columns_from_now == 0:
        return crossing, colour
    return char, f"dim {colour}" if columns_from_now > 0 else colour


def _gap(axis: _Axis) -> Text:
    return Text.assemble(" " * (len(_INDENT) + _NAME_WIDTH + _PHASE_WIDTH + axis.now_at), ("│", _QUIET))


def _spread(left: Text, right: Text, width: int) -> Text:
    left.append(" " * max(1, width - len(left) - len(right)))
    return left.append_text(right)


def _clock(seconds: int) -> str:
    return f"{seconds // 60}:{seconds % 60:02}"
