"""YAML → plain values, by events: nothing is built that the config cannot mean, however the file was made.

Read as YAML 1.1 with three differences that keep what was written: dates, numbers in base 60 and numbers with a leading
zero (``0640``) stay text. No tags, no second document, no recursion, and aliases are counted before they are followed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import yaml
from yaml import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from rotator.config.places import Fault, KeyPath, Mark, SyntaxFaultError, Token

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser is not in every build of PyYAML

MAX_DEPTH: Final = 50
"""Of nesting; a config needs seven levels."""

MAX_NODES: Final = 10_000_000
"""Of a document with its aliases written out."""

_NO_KEY: Final = object()
_DROPPED: Final = object()  # a key that cannot be: its value is read and forgotten
_TAG: Final = "tag:yaml.org,2002:"
_PLAIN_TAGS: Final = frozenset({"!", _TAG + "str", _TAG + "int", _TAG + "bool", _TAG + "float", _TAG + "null"})
_COLLECTION_TAGS: Final = frozenset({"!", _TAG + "map", _TAG + "seq"})

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"})
_FALSE: Final = frozenset({"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"})
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,18})", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?[0-9][0-9_]{0,40}\.[0-9_]{0,40}(?:[eE][-+]?[0-9]{1,4})?", re.ASCII)


@lru_cache(maxsize=4096)
def resolve_plain(text: str) -> str | int | float | bool | None:
    """Return what an unquoted scalar means."""
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if _INTEGER.fullmatch(text):
        return int(text.replace("_", ""))
    if _FLOAT.fullmatch(text):
        return float(text.replace("_", ""))
    return text


def _events(text: str) -> Iterator[Any]:  # Any: the stubs let a mark be None, the parser never does
    """Yield the parser's events; raise :class:`SyntaxFaultError` where it stops."""
    try:
        yield from yaml.parse(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise SyntaxFaultError(line, _explain(text, line, error)) from None
    except yaml.YAMLError as error:  # the pure reader's, for characters; those were refused before
        raise SyntaxFaultError(1, f"is not YAML: {error}") from None


def _explain(text: str, line: int, error: yaml.MarkedYAMLError) -> str:
    lines = text.split("\n")
    written = lines[line - 1] if line <= len(lines) else ""
    if "\t" in written[: len(written) - len(written.lstrip())]:
        return "is indented with a tab; YAML allows only spaces there"
    if "nesting depth" in (error.problem or ""):  # the parser's own limit, which later ones have; far above ours
        return f"is nested more than {MAX_DEPTH} levels deep"
    parts = [part for part in (error.context, error.problem) if part]
    said = ", ".join(parts) or "cannot be read"
    return f"is not YAML: {said}; look at the indentation, quotes and brackets here and in the line before"


_MARKS: Final = {
    MappingStartEvent: Mark.OPEN_MAPPING,
    SequenceStartEvent: Mark.OPEN_SEQUENCE,
    MappingEndEvent: Mark.CLOSE,
    SequenceEndEvent: Mark.CLOSE,
    ScalarEvent: Mark.SCALAR,
    AliasEvent: Mark.SCALAR,
}


def tokens(text: str) -> Iterator[Token]:
    """Yield the document's tokens with their lines."""
    for event in _events(text):
        mark = _MARKS.get(type(event))
        if mark is not None:
            yield mark, getattr(event, "value", ""), event.start_mark.line + 1


@dataclass(slots=True)
class _Node:
    """A mapping or sequence that is being read."""

    value: dict[str, Any] | list[Any]
    anchor: str | None
    key: Any = _NO_KEY
    size: int = 1
    height: int = 1
    merged: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class _Reader:
    """Builds the value of one document from its events."""

    faults: list[Fault] = field(default_factory=list)
    stack: list[_Node] = field(default_factory=list)
    anchors: dict[str, tuple[Any, int, int] | None] = field(default_factory=dict)
    """The value, size and height of each; None while it is being read."""
    documents: int = 0
    root: Any = None

    def read(self, text: str) -> Any:
        for event in _events(text):
            kind = type(event)
            if kind is ScalarEvent:
                self._scalar(event)
            elif kind is MappingStartEvent:
                self._open(event, {})
            elif kind is SequenceStartEvent:
                self._open(event, [])
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                self._close(event)
            elif kind is AliasEvent:
                self._alias(event)
            elif kind is DocumentStartEvent:
                self.documents += 1
                if self.documents > 1:
                    raise SyntaxFaultError(event.start_mark.line + 1, "begins a second document; a file holds only one")
        return self.root

    def _path(self) -> KeyPath:
        parts: list[str | int] = []
        for node in self.stack:
            if isinstance(node.value, list):
                parts.append(len(node.value))
            elif isinstance(node.key, str):
                parts.append(node.key)
        return tuple(parts)

    def _fault(self, event: Any, text: str) -> None:
        self.faults.append(Fault(event.start_mark.line + 1, self._path(), text))

    def _scalar(self, event: Any) -> None:
        text: str = event.value
        value: Any = text
        if event.tag is None or event.tag in _PLAIN_TAGS:
            if event.implicit[0] or event.tag not in (None, "!", _TAG + "str"):
                value = resolve_plain(text)
        else:
            self._fault(event, f"has the tag {_show_tag(event.tag)}; the config uses plain YAML without tags")
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, 1, 0)
        stack = self.stack
        if stack and stack[-1].key is _NO_KEY and type(stack[-1].value) is dict:
            self._key(event, text, value)
        else:
            self._add(value, 1, 0)

    def _key(self, event: Any, text: str, value: Any) -> None:
        node = self.stack[-1]
        if type(value) is not str:
            self._fault(
                event,
                f"has the key {text[:80] or 'null'}, which YAML reads as {kind_of(value)}; write a name in quotes",
            )
            value = text
        elif value in node.value:
            node.key = value
            self._fault(event, "is there twice; keep one of them")
        node.key = value
        node.size += 1

    def _open(self, event: Any, value: dict[str, Any] | list[Any]) -> None:
        if event.tag is not None and event.tag not in _COLLECTION_TAGS:
            self._fault(event, f"has the tag {_show_tag(event.tag)}; the config uses plain YAML without tags")
        if len(self.stack) >= MAX_DEPTH:
            raise SyntaxFaultError(event.start_mark.line + 1, f"is nested more than {MAX_DEPTH} levels deep")
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        self.stack.append(_Node(value, event.anchor))

    def _close(self, event: Any) -> None:
        node = self.stack.pop()
        if type(node.value) is dict:
            for merged in node.merged:
                for key, value in merged.items():
                    node.value.setdefault(key, value)
        if node.anchor is not None:
            self.anchors[node.anchor] = (node.value, node.size, node.height)
        stack = self.stack
        if stack and stack[-1].key is _NO_KEY and type(stack[-1].value) is dict:
            self._fault(event, "has a list or mapping as a key; a key is text (a template that was not filled in?)")
            stack[-1].key = _DROPPED
            return
        self._add(node.value, node.size, node.height)

    def _alias(self, event: Any) -> None:
        known = self.anchors.get(event.anchor, ())
        line = event.start_mark.line + 1
        if known is None:
            raise SyntaxFaultError(line, f"the alias *{event.anchor} stands inside of what it names")
        if not known:
            raise SyntaxFaultError(
                line, f"the alias *{event.anchor} names nothing before it; define it with &{event.anchor}"
            )
        value, size, height = known
        if len(self.stack) + height > MAX_DEPTH:
            raise SyntaxFaultError(line, f"is nested more than {MAX_DEPTH} levels deep, aliases followed")
        if sum(node.size for node in self.stack) + size > MAX_NODES:
            raise SyntaxFaultError(
                line, f"has more than {MAX_NODES:,} values when its aliases are followed; write less"
            )
        node = self.stack[-1] if self.stack else None
        if node is not None and node.key is _NO_KEY and type(node.value) is dict:
            if type(value) is str:
                self._key(event, value, value)
            else:
                self._fault(event, f"has the alias *{event.anchor} as a key, which is not text")
                node.key = _DROPPED
            return
        self._add(value, size, height)

    def _add(self, value: Any, size: int, height: int) -> None:
        if not self.stack:
            self.root = value
            return
        node = self.stack[-1]
        node.size += size
        node.height = max(node.height, height + 1)
        if type(node.value) is list:
            node.value.append(value)
            return
        key, node.key = node.key, _NO_KEY
        if key == "<<":
            merged = value if type(value) is list else [value]
            node.merged += [each for each in merged if type(each) is dict]
            if all(type(each) is dict for each in merged):
                return
        if key is not _DROPPED:
            node.value[key] = value


def _show_tag(tag: str) -> str:
    shown = tag.replace(_TAG, "!!")
    return shown if len(shown) <= 60 else shown[:60] + "…"


def kind_of(value: object) -> str:
    """Return what kind of thing ``value`` is, as messages say it."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return f"the boolean {str(value).lower()}"
        case int() | float():
            return f"the number {str(value)[:40]}"
        case str():
            return f"the text {value!r}" if len(value) <= 60 else f"the text {value[:60]!r}…"
        case list() | tuple():
            return "a list"
        case _:
            return "a mapping"


def parse(text: str) -> tuple[Any, list[Fault]]:
    """Return the value of the document and the faults that did not stop the reading.

    Raise :class:`SyntaxFaultError` for one that did. An empty document is None.
    """
    reader = _Reader()
    value = reader.read(text)
    return value, reader.faults
