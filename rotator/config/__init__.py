"""The config: files → settings and policy, or every error in them with its line.

Importing this package is cheap; the parser and the validator are imported by the first :func:`load`.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from rotator.config.durations import format_duration, parse_duration
from rotator.config.settings import (
    Config,
    ControlSettings,
    KekKind,
    KekSource,
    LogFormat,
    LogLevel,
    LogSettings,
    RetentionSettings,
    Settings,
    config_path,
)

__all__ = [
    "Config",
    "ControlSettings",
    "KekKind",
    "KekSource",
    "LogFormat",
    "LogLevel",
    "LogSettings",
    "RetentionSettings",
    "Settings",
    "config_path",
    "format_duration",
    "json_schema",
    "load",
    "parse_duration",
]


def load(path: Path, environ: Mapping[str, str], *, now: datetime, looks_at_sinks: bool = True) -> Config:
    """Load the config at ``path`` with its includes, and hold it against the time contract as of ``now`` (aware UTC).

    Raise :class:`~rotator.errors.ConfigError` with every error found, one a line, by file and line.

    ``looks_at_sinks``: warn of links in the paths of sinks. The daemon does without, for what lies there may hang.
    """
    from rotator.config.loading import load_config  # noqa: PLC0415  # pydantic and yaml are imported only when needed

    return load_config(path, environ, now, looks_at_sinks=looks_at_sinks)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the config file, for editors."""
    from rotator.config.schema import document_schema  # noqa: PLC0415  # as in load

    return document_schema()
