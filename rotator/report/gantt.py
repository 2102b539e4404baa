"""Draws a plan: a lane for each key with its phases, and how large the published file is, as SVG. Pure.

The colours are from the palette of Okabe and Ito, which people with any kind of colour vision can tell apart; what is
light and what is dark differs as well, so that it can be printed in black and white, and each phase is written into its
bar where there is room. The picture follows the reader's light or dark background.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Final
from xml.sax.saxutils import escape

from rotator.core.counting import counted
from rotator.core.model import Phase
from rotator.report.lanes import KeyLane, LanePhase, PublishedFile, SetSize, Stretch
from rotator.report.plans import Plan
from rotator.report.time_axis import marks

WIDTH: Final = 1200
LANES_AT_MOST: Final = 120
"""Of one keyset; more cannot be read."""

_CELLS_AT_MOST: Final = 40
"""Of one published file; more have no room for their numbers, and become one with what they are between."""

_LEFT: Final = 200
_RIGHT: Final = WIDTH - 40
_TOP: Final = 118
_LANE: Final = 30
_BAR: Final = 20
_HEADING: Final = 34
_FILE: Final = 34
_GAP: Final = 14
_HISTORY: Final = 0.06
"""How much of the picture is what was: enough to see what a bar comes from."""
_SHORT: Final = timedelta(days=3)
"""A time ahead in which the date alone does not tell two moments apart."""
_CHARACTER: Final = 7.2
"""Pixels that a character takes, at the most."""

_STYLE: Final = """\
    text { font-size: 12px; } .title { font-size: 17px; } .heading { font-size: 14px; }
    .title, .heading, .warn { font-weight: 600; }
    .mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; }
    .paper { fill: #ffffff; } .ink { fill: #1f2328; } .soft { fill: #59636e; } .grid { stroke: #d1d9e0; }
    .edge { stroke: #818b98; fill: none; } .band { fill: #f6f8fa; } .now { stroke: #1f2328; stroke-width: 1.6; }
    .pending { fill: #d3ebfa; stroke: #56b4e9; } .standby { fill: #56b4e9; stroke: #0072b2; }
    .active { fill: #00604a; stroke: #00604a; } .grace { fill: #f2c14e; stroke: #b97f00; }
    .on-pending, .on-standby, .on-grace { fill: #10202b; } .on-active { fill: #ffffff; }
    .estimated { stroke-dasharray: 4 3; fill-opacity: 0.82; } .revoked { stroke: #d55e00; stroke-width: 2.6; }
    .warn { fill: #b34700; } .cell { fill: none; stroke: #818b98; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0d1117; } .ink { fill: #f0f6fc; } .soft { fill: #9da7b3; } .grid { stroke: #2a313c; }
      .edge { stroke: #7d8590; } .band { fill: #151b23; } .now { stroke: #f0f6fc; }
      .active { fill: #00725a; stroke: #14b892; } .warn { fill: #ff9a5c; } .cell { stroke: #7d8590; }
      .revoked { stroke: #ff7a2f; }
    }"""


@dataclass(frozen=True, slots=True)
class _Scale:
    """Turns moments into pixels."""

    start: datetime
    now: datetime
    end: datetime

    def x(self, at: datetime) -> float:
        """Return where ``at`` stands; what is outside stands at the edge."""
        share = (at - self.start) / (self.end - self.start)
        return round(_LEFT + (_RIGHT - _LEFT) * min(max(share, 0.0), 1.0), 1)


def draw(plan: Plan, *, name: str = "") -> str:
    """Return the plan as an SVG document; ``name``: of the installation, for the title."""
    scale = _Scale(plan.from_at - (plan.until - plan.from_at) * _HISTORY, plan.from_at, plan.until)
    rows: list[str] = []
    y = float(_TOP)
    for keyset, found in groupby(plan.keys, key=lambda lane: lane.keyset):
        file = next((each for each in plan.files if each.keyset == keyset), None)
        part, y = _keyset(str(keyset), list(found), file, scale, y)
        rows += part
    if not plan.keys:
        rows.append(_text(_LEFT, y + 30, "there is no key yet, and none will be made in this time", "soft"))
        y += 60
    height = round(y + 44)
    return "\n".join([*_head(plan, name, height), *_axis(scale, y), *rows, *_lines(plan, scale, y), "</svg>", ""])


def _head(plan: Plan, name: str, height: int) -> Iterator[str]:
    precise = _minute if plan.until - plan.from_at < _SHORT else _day
    period = f"{precise(plan.from_at)} to {precise(plan.until)}"
    title = f"Signing keys{name and f' of {_clean(name)}'}, {period}"
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-labelledby="title description" font-family="-apple-system, BlinkMacSystemFont, Segoe UI, '
        f'Noto Sans, Helvetica, Arial, DejaVu Sans, sans-serif">'
    )
    yield f'  <title id="title">{title}</title>'
    yield (
        '  <desc id="description">A lane for each signing key along the time, by keyset: pending, standby, active, in '
        "grace. Below each keyset the number of keys and bytes in its published file.</desc>"
    )
    yield f"  <style>\n{_STYLE}\n  </style>"
    yield '  <pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    yield '    <path d="M0 0V6" stroke="#56b4e9" stroke-width="2"/></pattern>'
    yield f'  <rect class="paper" width="{WIDTH}" height="{height}"/>'
    yield _text(24, 34, title, "ink title")
    if plan.changes is not None:
        yield _text(24, 54, f"supposed: {_clean(plan.changes.supposed)}", "warn")
    yield from _legend()


_LEGEND: Final = (
    (LanePhase.PENDING, "not yet known everywhere"),
    (LanePhase.STANDBY, "ready to sign"),
    (LanePhase.ACTIVE, "signs"),
    (LanePhase.GRACE, "still verifies"),
)


def _legend() -> Iterator[str]:
    x = 24.0
    for phase, meaning in _LEGEND:
        yield _bar(phase, x, 64, 26, 14)
        text = f"{phase}: {meaning}"
        yield _text(x + 33, 75.5, text, "ink")
        x += 33 + len(text) * _CHARACTER + 12
    yield f'  <rect class="edge estimated" x="{x:.0f}" y="64" width="26" height="14" rx="2"/>'
    yield _text(x + 33, 75.5, "dashed: yet to be made", "ink")


def _axis(scale: _Scale, bottom: float) -> Iterator[str]:
    margin = (scale.end - scale.start) / 80  # so that no text stands half outside
    free = float(_LEFT) - 40
    for mark in marks(scale.start + margin, scale.end - margin, at_most=13):
        x = scale.x(mark.at)
        half = len(mark.text) * _CHARACTER / 2
        if x - half < free:  # the first one has the date as well: its neighbour gives way
            continue
        free = x + half + 4
        yield f'  <path class="grid" d="M{x} {_TOP - 6}V{bottom + 4:.1f}"/>'
        yield _text(x, bottom + 20, mark.text, "soft", anchor="middle")
    yield f'  <path class="edge" d="M{_LEFT} {bottom + 4:.1f}H{_RIGHT}"/>'
    yield _text(24, bottom + 20, "UTC", "soft")


def _lines(plan: Plan, scale: _Scale, bottom: float) -> Iterator[str]:
    now, end = scale.x(plan.from_at), scale.x(plan.until)
    yield f'  <path class="now" d="M{now} {_TOP - 8}V{bottom + 4:.1f}"/>'
    yield _text(
        now, _TOP - 14, f"now: {_minute(plan.from_at)}", "ink", anchor="middle" if now - _LEFT > 60 else "start"
    )
    yield f'  <path class="edge" stroke-dasharray="2 3" d="M{end} {_TOP - 8}V{bottom + 4:.1f}"/>'
    until = _minute(plan.until) if plan.until - plan.from_at < _SHORT else _day(plan.until)
    yield _text(end, _TOP - 14, f"end of this plan: {until}", "soft", anchor="end")


def _keyset(
    name: str, found: list[KeyLane], file: PublishedFile | None, scale: _Scale, y: float
) -> tuple[list[str], float]:
    """Return what is drawn of one keyset from ``y`` on, and where the next one begins."""
    parts = [_text(24, y + 18, f"keyset {_clean(name)}", "ink heading")]
    y += _HEADING
    for number, lane in enumerate(found[:LANES_AT_MOST]):
        if number % 2 == 0:
            parts.append(f'  <rect class="band" x="12" y="{y:.1f}" width="{_RIGHT - 12}" height="{_LANE}"/>')
        parts += _lane(lane, scale, y)
        y += _LANE
    if len(found) > LANES_AT_MOST:
        parts.append(_text(24, y + 18, f"and {counted(len(found) - LANES_AT_MOST, 'more key')}", "soft"))
        y += _LANE
    if file is not None and file.sizes:
        parts.append(_text(24, y + 21, "in the published file", "soft"))
        parts += _sizes(file.sizes, scale, y + 6)
        y += _FILE
    return parts, y + _GAP


def _lane(lane: KeyLane, scale: _Scale, y: float) -> Iterator[str]:
    middle = y + _LANE / 2 + 4
    yield _text(24, middle, _short(lane.kid), "soft mono" if lane.estimated else "ink mono")
    yield _text(_LEFT - 10, middle, lane.algorithm, "soft", anchor="end")
    for stretch in lane.stretches:
        yield from _stretch(stretch, scale, y + (_LANE - _BAR) / 2, estimated=lane.estimated)
    last = lane.stretches[-1] if lane.stretches else None
    if lane.ended is Phase.REVOKED:
        x, top = (_LEFT if last is None or last.until is None else scale.x(last.until)), y + (_LANE - _BAR) / 2
        yield f'  <path class="revoked" d="M{x - 5} {top + 4}l12 12m0 -12l-12 12"/>'
        yield _text(x + 14, middle, "revoked", "warn")
    if last is not None and last.until is None:
        yield f'  <path class="edge" d="M{_RIGHT + 4} {y + _LANE / 2 - 5}l6 5l-6 5"/>'


def _stretch(stretch: Stretch, scale: _Scale, y: float, *, estimated: bool) -> Iterator[str]:
    left, right = scale.x(stretch.from_at), scale.x(stretch.until or scale.end + timedelta(1))
    if right <= _LEFT or left >= _RIGHT or stretch.from_at > scale.end:
        return
    until = "later than this plan" if stretch.until is None else _minute(stretch.until)
    title = f"{stretch.phase}: {_minute(stretch.from_at)} to {until}"
    width = max(right - left, 1.5)
    yield _bar(stretch.phase, left, y, width, _BAR, title=title, estimated=estimated)
    when = _clock(stretch.from_at) if scale.end - scale.now < _SHORT else _date(stretch.from_at)
    since = f"{stretch.phase} from {when}"
    seen = stretch.from_at >= scale.start
    for text in (since, str(stretch.phase)) if seen else (str(stretch.phase),):
        for start in (
            left,
            scale.x(scale.now),
        ):  # after the line of the present moment, if it would go through the text
            end = start + len(text) * _CHARACTER + 8
            if left <= start and end <= right and not start < scale.x(scale.now) < end:
                yield _text(start + 6, y + 14.5, text, f"on-{stretch.phase}")
                return


def _bar(
    phase: LanePhase, x: float, y: float, width: float, height: float, *, title: str = "", estimated: bool = False
) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" rx="2"'
    inside = f"<title>{title}</title>" if title else ""
    bar = f'  <rect class="{phase}{" estimated" * estimated}" {place}>{inside}</rect>'
    if phase is LanePhase.PENDING:  # told from the others in black and white, too
        bar += f'<rect {place} fill="url(#hatch)" fill-opacity="0.45" pointer-events="none"/>'
    return bar


def _sizes(sizes: tuple[SetSize, ...], scale: _Scale, y: float) -> Iterator[str]:
    if len(sizes) > _CELLS_AT_MOST:
        yield _all_sizes(sizes, scale, y)
        return
    for place, size in enumerate(sizes):
        end = sizes[place + 1].at if place + 1 < len(sizes) else scale.end
        left, right = scale.x(size.at), scale.x(end)
        if right - left < 1:
            continue
        keys = f"{size.keys} key{'s' * (size.keys != 1)}"
        amount = f"{'~' * size.estimated}{size.bytes} B"
        title = f"from {_minute(size.at)}: {keys}, {amount}"
        yield (
            f'  <rect class="cell" x="{left}" y="{y:.1f}" width="{right - left:.1f}" height="20">'
            f"<title>{title}</title></rect>"
        )
        for text in (f"{keys}, {amount}", keys, str(size.keys)):
            if len(text) * _CHARACTER + 6 <= right - left:
                yield _text((left + right) / 2, y + 14.5, text, "ink", anchor="middle")
                break


def _all_sizes(sizes: tuple[SetSize, ...], scale: _Scale, y: float) -> str:
    left, right = scale.x(sizes[0].at), scale.x(scale.end)
    least, most = min(size.keys for size in sizes), max(size.keys for size in sizes)
    text = f"{least} to {most} keys, at most ~{max(size.bytes for size in sizes)} B; it changes {len(sizes) - 1} times"
    cell = f'  <rect class="cell" x="{left}" y="{y:.1f}" width="{right - left:.1f}" height="20"/>'
    return cell + "\n" + _text((left + right) / 2, y + 14.5, text, "ink", anchor="middle")


# ------------------------------------------------------------------------------------------------------------- text


def _text(x: float, y: float, text: str, kind: str, *, anchor: str = "start") -> str:
    return f'  <text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_clean(text)}</text>'


def _clean(text: str) -> str:
    """Return ``text`` as XML can hold it."""
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return escape(shown)


def _short(kid: str) -> str:
    if kid.startswith("("):  # yet to be made
        return kid.strip("()")
    return kid if len(kid) <= 13 else kid[:12] + "\N{HORIZONTAL ELLIPSIS}"


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d}"


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%MZ}"


def _clock(moment: datetime) -> str:
    moment = moment.astimezone(UTC)
    return f"{_date(moment)} {moment:%H:%M}"


def _date(moment: datetime) -> str:
    moment = moment.astimezone(UTC)
    return f"{moment.day} {moment:%b}"
