"""Collects everything that is wrong in all files, and says where: ``file:line: path.to.key: text``."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from rotator.config import json_source, yaml_source
from rotator.config.nearest import nearest
from rotator.config.places import WHOLE_FILE, Fault, KeyPath, SyntaxFaultError, find_lines, show_path
from rotator.config.yaml_source import kind_of
from rotator.errors import ConfigError


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A file that was read."""

    file: Path
    text: str

    @property
    def is_json(self) -> bool:
        """Tell whether it is read as JSON."""
        return self.file.suffix == ".json"

    def parse(self) -> tuple[Any, list[Fault]]:
        """Return its value and the faults that did not stop the reading; raise :class:`SyntaxFaultError`."""
        return json_source.parse(self.text) if self.is_json else yaml_source.parse(self.text)

    def lines(self, paths: Iterable[KeyPath]) -> Mapping[KeyPath, int]:
        """Return the line of each of ``paths``."""
        return find_lines(json_source.tokens(self.text) if self.is_json else yaml_source.tokens(self.text), paths)


@dataclass(slots=True)
class Problems:
    """What is wrong so far. Lines are looked up once, at the end."""

    _errors: list[tuple[Source, KeyPath, str]] = field(default_factory=list)
    _warnings: list[tuple[Source, KeyPath, str]] = field(default_factory=list)
    _located: list[tuple[Path, Fault]] = field(default_factory=list)

    def add(self, source: Source, path: KeyPath, text: str) -> None:
        """Record an error about the setting at ``path``."""
        self._errors.append((source, path, text))

    def warn(self, source: Source, path: KeyPath, text: str) -> None:
        """Record a warning about the setting at ``path``."""
        self._warnings.append((source, path, text))

    def add_fault(self, file: Path, fault: Fault) -> None:
        """Record an error whose line is known."""
        self._located.append((file, fault))

    def check(self) -> None:
        """Raise :class:`ConfigError` if there is any error."""
        if self._errors or self._located:
            lines = [
                *_locate(self._errors),
                *((file, fault.line, fault.path, fault.text) for file, fault in self._located),
            ]
            raise ConfigError("\n".join(_show(lines)))

    def warnings(self) -> tuple[str, ...]:
        """Return the warnings with their places."""
        return tuple(_show(_locate(self._warnings)))


def _locate(found: Iterable[tuple[Source, KeyPath, str]]) -> Iterator[tuple[Path, int, KeyPath, str]]:
    by_source: dict[Path, list[tuple[Source, KeyPath, str]]] = {}
    for entry in found:
        by_source.setdefault(entry[0].file, []).append(entry)
    for entries in by_source.values():
        lines = entries[0][0].lines(path for _, path, _ in entries)
        for source, path, text in entries:
            yield source.file, lines[path], path, text


def _show(found: Iterable[tuple[Path, int, KeyPath, str]]) -> list[str]:
    unique = sorted({(str(file), line, show_path(path), text) for file, line, path, text in found})
    return [f"{_at_line(file, line)}: {f'{path}: ' if path else ''}{text}" for file, line, path, text in unique]


def _at_line(file: str, line: int) -> str:
    return file if line == WHOLE_FILE else f"{file}:{line}"


# ------------------------------------------------------------------------------------------- what pydantic has found


def explain(model: type[BaseModel], error: ValidationError) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path and the text of everything that is wrong, in our words."""
    schema = model.model_json_schema()
    for found in error.errors(include_url=False):
        loc: KeyPath = found["loc"]
        path = loc[:-1] if loc and loc[-1] == "[key]" else loc
        kind = found["type"]
        if kind == "extra_forbidden":
            yield path, _unknown(schema, path)
        elif kind == "missing":
            meaning = _at(schema, path).get("description", "")
            yield path, "is missing" + (f"; it is: {meaning}" if meaning else "")
        elif kind in ("enum", "literal_error"):
            yield path, _not_one_of(found["ctx"]["expected"], found["input"])
        elif kind == "too_short":
            if not found["input"]:  # else each of its items is wrong, and said to be
                yield path, "is an empty list; name at least one"
        elif kind in _EXPECTED:
            yield path, f"expected {_EXPECTED[kind]}, found {kind_of(found['input'])}"
        else:
            yield path, found["msg"]


_EXPECTED = {
    "model_type": "a mapping of settings",
    "model_attributes_type": "a mapping of settings",
    "dict_type": "a mapping",
    "tuple_type": "a list",
}


def _unknown(schema: Mapping[str, Any], path: KeyPath) -> str:
    known = sorted(_at(schema, path[:-1]).get("properties", {}))
    name = str(path[-1])
    return "unknown setting" + (nearest(name, known) or f"; known here: {', '.join(known)}")


def _not_one_of(expected: str, value: object) -> str:
    allowed = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
    if isinstance(value, str):
        shown = value if len(value) <= 60 else value[:60] + "…"
        return f"{shown!r} is not one of {', '.join(allowed)}{nearest(value, allowed)}"
    return f"expected one of {', '.join(allowed)}, found {kind_of(value)}"


def _at(schema: Mapping[str, Any], path: KeyPath) -> Mapping[str, Any]:
    """Return the part of a JSON Schema that describes what is at ``path``."""
    here: Mapping[str, Any] = schema
    for part in path:
        here = _resolve(schema, here)
        if isinstance(part, int):
            here = here.get("items", {})
        else:
            named = here.get("properties", {}).get(part)
            here = named or next(iter(here.get("patternProperties", {}).values()), {})
    described = here.get("description")
    resolved = _resolve(schema, here)
    return {**resolved, "description": described} if described else resolved


def _resolve(schema: Mapping[str, Any], here: Mapping[str, Any]) -> Mapping[str, Any]:
    for option in here.get("anyOf", ()):
        if "$ref" in option or option.get("type") in ("object", "array"):
            here = option
            break
    if "$ref" in here:
        found: Any = schema
        for part in here["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return found  # type: ignore[no-any-return]  # a reference leads to a schema
    return here


Report = Callable[[KeyPath, str], None]

__all__ = ["Problems", "Report", "Source", "SyntaxFaultError", "explain"]
