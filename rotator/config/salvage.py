"""Out of a config that is wrong: where the daemon that may be running on the one before it listens."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from rotator.config import derive
from rotator.config.places import SyntaxFaultError
from rotator.config.problems import Source
from rotator.config.reading import read_text
from rotator.config.schema import ConfigShape

_WANTED: Final = {"control": "socket", "state": "url"}
"""The settings that say where the socket is, by their section."""

_SECTION: Final = re.compile(r"^(?:control|state):.*(?:\n(?:[ \t#].*)?)*", re.MULTILINE)
"""A section at the top of a file, up to the next line that begins something else."""

_ISSUER: Final = "https://unknown.invalid"
"""Stands in for the one that may be what is wrong."""


def likely_socket(path: Path, environ: Mapping[str, str]) -> Path:
    """Return where the control socket is by what can be understood of the config, else by default."""
    shape = ConfigShape.model_validate({"issuer": _ISSUER, **_settings(path)})
    return derive.settings(shape, path.absolute().parent, environ, lambda *_: None).control.socket


def _settings(path: Path) -> dict[str, Any]:
    """Return those of the wanted settings that are sound by themselves."""
    try:
        _, text = read_text(path, included=False)
    except SyntaxFaultError:
        return {}
    found: dict[str, Any] = {}
    for part in (text, *(match.group() for match in _SECTION.finditer(text))):
        value = _parse(Source(path, part))
        for section, name in _WANTED.items():
            inner = value.get(section)
            setting = inner.get(name) if isinstance(inner, dict) else None
            if setting is not None and _is_sound({section: {name: setting}}):
                found.setdefault(section, {name: setting})
    return found


def _parse(source: Source) -> dict[str, Any]:
    try:
        value, _ = source.parse()
    except SyntaxFaultError:
        return {}
    return value if isinstance(value, dict) else {}


def _is_sound(settings: Mapping[str, Any]) -> bool:
    try:
        ConfigShape.model_validate({"issuer": _ISSUER, **settings})
    except ValidationError:
        return False
    return True
