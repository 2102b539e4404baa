"""What a loaded config is: the policy for the core, and the settings for the adapters. Plain values, no parsing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from rotator.core.policy import Policy
from rotator.core.secret import Secret

DEFAULT_PATH: Final = Path("/etc/rotator/config.yaml")


class KekKind(StrEnum):
    """Where the key-encryption key comes from; the first of these that is there."""

    CONFIG = "config"  # kek.file names it
    CREDENTIAL = "credential"  # systemd's credential `kek`
    ENVIRONMENT = "environment"  # $ROTATOR_KEK
    STATE = "state"  # `kek` in the state directory


@dataclass(frozen=True, slots=True)
class KekSource:
    """Where to read the key-encryption key. Exactly one of ``file`` and ``value`` is set."""

    kind: KekKind
    file: Path | None
    value: Secret[str] | None = None

    @property
    def may_create(self) -> bool:
        """Tell whether it may be made on the first start: only in our own state directory."""
        return self.kind is KekKind.STATE


class LogFormat(StrEnum):
    """How log lines look."""

    JSON = "json"
    CONSOLE = "console"
    AUTO = "auto"  # console when stdout is a terminal, else JSON


class LogLevel(StrEnum):
    """The least severe lines that are logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How and how much is logged."""

    format: LogFormat
    level: LogLevel


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """Who may talk to the daemon, and where."""

    socket: Path
    viewers: tuple[str, ...]
    """Names of Unix groups, as are the next two."""
    operators: tuple[str, ...]
    admins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """How long what has ended is kept for people to look at."""

    tokens: timedelta
    audit: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the adapters need to know. Every path is absolute."""

    state_url: str = field(repr=False)
    """Of the database, for SQLAlchemy; left out of ``repr`` because it may hold a password."""
    state_directory: Path
    publish_directory: Path
    """Where the published tree is served, without a slash at the end."""
    publish_lag: timedelta
    verify_urls: tuple[str, ...]
    """Where this process can fetch the served tree to look at it, without a slash at the end."""
    kek: KekSource
    control: ControlSettings
    log: LogSettings
    retention: RetentionSettings
    max_cache: timedelta
    """The longest that a verifier is expected to hold a copy of a set."""
    clock_max_gap: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A config that was loaded and found to be sound."""

    path: Path
    digest: str
    """Hex SHA-256 over the contents of all files read."""
    settings: Settings
    policy: Policy
    warnings: tuple[str, ...]
    """Each ``file:line: path.to.key: text``, as errors are."""
    arithmetic: tuple[str, ...]
    """The rules of the time contract with this config's numbers, a line each."""
    empty_includes: tuple[str, ...]
    """Patterns of ``include`` that matched no file."""


def config_path(option: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the path of the config: ``--config``, else ``$ROTATOR_CONFIG``, else :data:`DEFAULT_PATH`.

    A command that is named none may have one of its own: see :mod:`rotator.config.choosing`.
    """
    if option is not None:
        return option
    return Path(environ["ROTATOR_CONFIG"]) if environ.get("ROTATOR_CONFIG") else DEFAULT_PATH
