"""Shapes → settings: where things are when the config leaves them out, and what systemd gives."""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from rotator.config.nearest import nearest
from rotator.config.problems import Report
from rotator.config.profiles import MAX_CACHE
from rotator.config.schema import ConfigShape, ConsumersShape
from rotator.config.settings import ControlSettings, KekKind, KekSource, LogSettings, RetentionSettings, Settings
from rotator.core.policy import Verifiers
from rotator.core.secret import Secret

DEFAULT_MAX_CACHE: Final = MAX_CACHE["confluent"]
"""The longest that any verifier known here holds a set."""

_SQLITE: Final = "sqlite:///"
_POSTGRES: Final = ("postgresql://", "postgres://", "postgresql+psycopg://")


def verifiers(shape: ConfigShape) -> Verifiers:
    """Return what the config promises about those who verify."""
    return Verifiers(max_cache=_max_cache(shape.consumers), publish_lag=shape.publish.lag)


def _max_cache(consumers: ConsumersShape) -> timedelta:
    if consumers.profiles:
        return max(MAX_CACHE[profile] for profile in consumers.profiles)
    return consumers.max_cache or DEFAULT_MAX_CACHE


def settings(shape: ConfigShape, directory: Path, environ: Mapping[str, str], report: Report) -> Settings:
    """Return the settings, every path absolute.

    Relative paths and defaults are under systemd's ``$STATE_DIRECTORY`` where it is given, else beside the config, in
    ``directory``.
    """
    given = environ.get("STATE_DIRECTORY", "").split(":")[0]
    base = Path(given) if given else directory
    state_url, state_directory = _state(shape, base, given, report)
    published = (
        Path(os.path.normpath(base / shape.publish.directory))
        if shape.publish.directory
        else state_directory / "public"
    )
    kek = _kek(shape, base, state_directory, environ)
    if state_directory == published or state_directory.is_relative_to(published):
        report(
            ("publish", "directory"),
            f"{published} is served to everybody and holds the state ({state_directory}); name a directory of its own",
        )
    elif kek.file is not None and kek.file.is_relative_to(published):
        report(("kek", "file"), f"{kek.file} is in the published directory ({published}), which everybody can read")
    return Settings(
        state_url=state_url,
        state_directory=state_directory,
        publish_directory=published,
        publish_lag=shape.publish.lag,
        verify_urls=tuple(dict.fromkeys(url.rstrip("/") for url in shape.publish.verify_url)),
        kek=kek,
        control=_control(shape, base, state_directory, environ),
        log=LogSettings(format=shape.log.format, level=shape.log.level),
        retention=RetentionSettings(tokens=shape.retention.tokens, audit=shape.retention.audit),
        max_cache=_max_cache(shape.consumers),
        clock_max_gap=shape.clock.max_gap,
    )


def _state(shape: ConfigShape, base: Path, given: str, report: Report) -> tuple[str, Path]:
    """Return the URL of the database and the directory for what is kept beside it."""
    default = base if given else base / "rotator-data"
    url = shape.state.url
    if url is None:
        return f"{_SQLITE}{default / 'rotator.db'}", default
    if url.startswith(_POSTGRES):
        return "postgresql+psycopg://" + url.partition("://")[2], default
    name = url.removeprefix(_SQLITE)
    if not url.startswith(_SQLITE) or not name.strip("/") or name.startswith(":memory:"):
        report(("state", "url"), _bad_url(url))
        return url, default
    if "?" in name:
        report(("state", "url"), "takes no parameters after '?'; write sqlite:///PATH")
    database = Path(os.path.normpath(base / name))
    return f"{_SQLITE}{database}", database.parent


def _bad_url(url: str) -> str:
    scheme, separator, rest = url.partition(":")
    right = "write sqlite:///rotator.db (beside the config), sqlite:////an/absolute/path, or postgresql://host/database"
    if not separator or not scheme.isascii() or "@" in scheme:
        return f"is not the URL of a database; {right}"
    if scheme == "sqlite" and rest.startswith("///"):
        return f"must name a file, for what is in memory is gone at the next start; {right}"
    if scheme.partition("+")[0] in ("sqlite", "postgresql", "postgres"):
        return f"begins with {scheme}: in a form that is not taken; {right}"
    return f"names the database {scheme[:40]!r}{nearest(scheme, ('sqlite', 'postgresql'))}; {right}"


def _kek(shape: ConfigShape, base: Path, state: Path, environ: Mapping[str, str]) -> KekSource:
    if shape.kek.file:
        return KekSource(KekKind.CONFIG, Path(os.path.normpath(base / shape.kek.file)))
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    if credentials and (Path(credentials) / "kek").exists():
        return KekSource(KekKind.CREDENTIAL, Path(credentials) / "kek")
    if environ.get("ROTATOR_KEK"):
        return KekSource(KekKind.ENVIRONMENT, None, Secret(environ["ROTATOR_KEK"]))
    return KekSource(KekKind.STATE, state / "kek")


def _control(shape: ConfigShape, base: Path, state: Path, environ: Mapping[str, str]) -> ControlSettings:
    runtime = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    default = (Path(runtime) if runtime else state) / "control.sock"
    chosen = shape.control.socket
    return ControlSettings(
        socket=Path(os.path.normpath(base / chosen)) if chosen else default,
        viewers=shape.control.viewers,
        operators=shape.control.operators,
        admins=shape.control.admins,
    )
