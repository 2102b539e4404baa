"""Where things stand in a file: key paths, faults with their lines, and the walk that finds a line when it is needed.

Positions are not kept while a config is read: only an error needs them, and a file of 100,000 workspaces has millions.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

KeyPath = tuple[str | int, ...]

WHOLE_FILE: Final = 0
"""The line of a fault that has none: the file is missing, or is nothing to be read."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong at a place in a file."""

    line: int
    path: KeyPath
    text: str


class SyntaxFaultError(Exception):
    """The file cannot be read any further than this fault."""

    def __init__(self, line: int, text: str, path: KeyPath = ()) -> None:
        super().__init__(text)
        self.fault = Fault(line, path, text)


class Mark(Enum):
    """What a token of a document is."""

    OPEN_MAPPING = auto()
    OPEN_SEQUENCE = auto()
    CLOSE = auto()
    SCALAR = auto()


_PLAIN: Final = re.compile(r"[\w.…<-]+")

Token = tuple[Mark, str, int]
"""The kind, the text of a scalar, and the line, from 1."""


def show_path(path: KeyPath) -> str:
    """Return ``path`` as it is written in messages: ``workspaces.acme.deliver[0].file``."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            part_shown = part if len(part) <= 80 else part[:80] + "…"
            part_shown = part_shown if _PLAIN.fullmatch(part_shown) else ascii(part_shown)
            shown += f".{part_shown}" if shown else part_shown
    return shown


_NO_KEY: Final = object()


@dataclass(slots=True)
class _Open:
    path: KeyPath | None
    """None: nothing in here is looked for."""
    is_mapping: bool
    is_key: bool
    key: object = _NO_KEY
    count: int = 0


def walk(tokens: Iterable[Token], inside: Collection[KeyPath] | None = None) -> Iterator[tuple[KeyPath, int]]:
    """Yield the path and line of each member of each mapping and each item of each sequence, in order.

    A member's line is that of its key. With ``inside``, only what stands directly in one of these paths is yielded.
    """
    stack: list[_Open] = []
    key_line = 1
    for mark, text, line in tokens:
        if mark is Mark.CLOSE:
            closed = stack.pop()
            if closed.is_key:
                stack[-1].key = ""
            continue
        top = stack[-1] if stack else None
        is_key = top is not None and top.is_mapping and top.key is _NO_KEY
        path: KeyPath | None = None
        if top is None:
            path = ()
            yield path, line
        elif is_key:
            key_line = line
            if mark is Mark.SCALAR:
                top.key = text
                continue
        else:
            part = top.key if top.is_mapping else top.count
            at = key_line if top.is_mapping else line
            top.key, top.count = _NO_KEY, top.count + 1
            if top.path is not None:
                path = (*top.path, part)  # type: ignore[arg-type]  # a key is text here: _NO_KEY made it a key above
                yield path, at
        if mark is not Mark.SCALAR:
            stack.append(_Open(path if inside is None or path in inside else None, mark is Mark.OPEN_MAPPING, is_key))


def find_lines(tokens: Iterable[Token], wanted: Iterable[KeyPath]) -> dict[KeyPath, int]:
    """Return the line of each path in ``wanted``; of the nearest thing around it where it is not in the document."""
    asked = set(wanted)
    inside = {path[:length] for path in asked for length in range(len(path))}
    found: dict[KeyPath, int] = {}
    for path, line in walk(tokens, inside):
        if path in asked or path in inside:
            found.setdefault(path, line)
    return {path: _nearest(found, path) for path in asked}


def _nearest(found: dict[KeyPath, int], path: KeyPath) -> int:
    return next((found[path[:length]] for length in range(len(path), -1, -1) if path[:length] in found), 1)
