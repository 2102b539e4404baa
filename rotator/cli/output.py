"""What commands that look have in common: asking, and printing for programs."""

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

from rotator.adapters.clock import wall_time
from rotator.cli.session import read, settings_of
from rotator.config import parse_duration
from rotator.errors import ConfigError, RotatorError
from rotator.report.shape import from_json, rfc3339

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """An answer, for programs and for people."""

    json: Any
    report: T


def answer(
    option: Path | None, command: str, kind: type[T], arguments: Mapping[str, str | int | bool | None] | None = None
) -> Found[T]:
    """Return the answer to a reading command."""
    found = read(option, command, arguments)
    return Found(found, from_json(kind, found))


def print_json(document: object) -> None:
    """Print a document for programs."""
    json.dump(document, sys.stdout, indent=2, ensure_ascii=sys.stdout.encoding.lower() != "utf-8")
    sys.stdout.write("\n")


def now() -> datetime:
    """Return the wall time, against which moments are shown."""
    return wall_time()


def span(text: str, option: str) -> timedelta:
    """Read a span of time given as an option; raise :class:`ConfigError`."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None


def moment(text: str, option: str) -> str:
    """Read a moment given as an option, or a span before now, and return it as RFC 3339; raise :class:`ConfigError`."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        try:
            return rfc3339(wall_time() - parse_duration(text))
        except ValueError as error:
            raise ConfigError(f"{option}: {error}; or a moment, such as 2026-03-01T00:00:00Z") from None
    if found.tzinfo is None:
        raise ConfigError(f"{option}: {text!r} has no zone; write {text}Z for UTC")
    return rfc3339(found)


_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def published_set(option: Path | None, keyset: str) -> str:
    """Return the text of a published set, from the tree that is served."""
    if not _NAME.fullmatch(keyset):
        raise ConfigError(f"--keyset: {keyset!r} is no name of a keyset")
    path = settings_of(option).publish_directory / "keysets" / keyset / "jwks.json"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RotatorError(f"no set of keyset {keyset} is published: there is no {path}") from None
    except PermissionError:
        closed = next(
            (each for each in reversed(path.parents) if not os.access(each, os.X_OK, effective_ids=True)), path
        )
        raise RotatorError(
            f"{path} cannot be read: {closed} is closed to this user; fetch the set where it is served, run this as "
            "the service's user, or have publish.directory set to a place that others may read"
        ) from None
    except OSError as error:
        raise RotatorError(f"{path} cannot be read: {error.strerror}; see what is wrong: rotator check") from None
    except UnicodeDecodeError:
        raise RotatorError(f"{path} is no text, and no set; see what is wrong: rotator status") from None
