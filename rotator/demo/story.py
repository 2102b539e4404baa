"""What the daemon's log tells: the events, how many of each, and a sentence for those that matter here."""

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

KID_SHOWN: Final = 10
LINES_KEPT: Final = 60

_LOUD: Final = ("warning", "error", "critical")
_EXPECTED: Final = "config.warning"  # that a grace period of seconds leaves no room for an outage
_SIDE_SHOWS: Final = ("token.delivered", "token.retired", "key.proven", _EXPECTED)
"""Logged too, and left out of what is shown, so that the others can be followed by eye."""


def short(kid: str) -> str:
    """Return the beginning of a kid, which is enough to tell it from the few others here."""
    return kid[:KID_SHOWN]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the log."""

    at: datetime
    event: str
    level: str
    fields: Mapping[str, str]

    @property
    def shown(self) -> bool:
        """Tell whether it is one to be followed by eye."""
        return self.event not in _SIDE_SHOWS

    @property
    def subject(self) -> str:
        """Return what it is about, with names short enough to be read."""
        whose, sequence, generation = self["workspace"] or self["keyset"], self["sequence"], self["generation"]
        parts = (
            whose and f"{whose:<9}",
            sequence and f"#{sequence}",
            generation and f"generation {generation}",
            short(self["kid"]),
            self["problem"],
        )
        return "  ".join(part for part in parts if part)

    def __getitem__(self, name: str) -> str:
        return self.fields.get(name, "")


@dataclass(slots=True)
class Story:
    """Follows the log, which is JSON, a line for each event."""

    log: Path
    lines: deque[Line] = field(default_factory=lambda: deque(maxlen=LINES_KEPT))
    ready: bool = False
    announced: set[str] = field(default_factory=set)
    """Kids."""
    took_over: set[str] = field(default_factory=set)
    """Kids; the very first key took over from nobody."""
    retired: set[str] = field(default_factory=set)
    """Kids."""
    rotated: set[tuple[str, str]] = field(default_factory=set)
    """Workspaces with the number of the token; the first one of each replaced nothing."""
    _read_to: int = 0
    _handing_over: str = ""

    @property
    def full_life_seen(self) -> bool:
        """Tell whether some key was seen announced, taking over and retired."""
        return bool(self.announced & self.took_over & self.retired)

    def follow(self) -> list[tuple[Line, str]]:
        """Read what is new; return the lines with a sentence for each, empty for those that need none."""
        told = []
        for line in self._new_lines():
            told.append((line, self._tell(line)))
            if line.shown:
                self.lines.append(line)
        return told

    def _new_lines(self) -> Iterator[Line]:
        with self.log.open("rb") as log:
            log.seek(self._read_to)
            new = log.read()
        complete = new[: new.rfind(b"\n") + 1]
        self._read_to += len(complete)
        for text in complete.decode(errors="replace").splitlines():
            line = _parse(text)
            if line is not None:
                yield line

    def _tell(self, line: Line) -> str:
        kid = short(line["kid"])
        match line.event:
            case "daemon.ready":
                self.ready = True
                return ""
            case "key.made":
                self.announced.add(line["kid"])
                return f"key {kid} announced: it is published, and does not sign yet"
            case "key.demoted":
                self._handing_over = kid
                return ""
            case "key.activated" if not self._handing_over:
                return f"key {kid} signs, the first one: no verifier can hold an older set"
            case "key.activated":
                self.took_over.add(line["kid"])
                return f"key {kid} took over from {self._handing_over}, which still verifies"
            case "key.retired":
                self.retired.add(line["kid"])
                return f"key {kid} retired: the last token on it has ended"
            case "token.issued" if line["sequence"] == "1":
                return f"token 1 of {line['workspace']} issued, signed by {kid}"
            case "token.issued":
                self.rotated.add((line["workspace"], line["sequence"]))
                return f"token of {line['workspace']} rotated: number {line['sequence']}, signed by {kid}"
            case _ if line.level in _LOUD and line.event != _EXPECTED:
                return f"{line.level}: {line.event}: {line['problem']}"
            case _:
                return ""


def _parse(text: str) -> Line | None:
    """Read one line; None for what a library, or a dying process, wrote in between."""
    try:
        fields = json.loads(text)
        at = datetime.fromisoformat(fields["timestamp"])
        texts = {name: _plain(value) for name, value in fields.items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return Line(at, texts.get("event", ""), texts.get("level", ""), texts)


def _plain(value: object) -> str:
    """Return the first line of a value, without anything that could steer a terminal."""
    return "".join(char for char in str(value).partition("\n")[0] if char.isprintable())
