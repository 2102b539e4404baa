"""What is wanted: the config, after validation, as frozen values that the planner reads."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from rotator.core.model import Algorithm, KeysetName, WorkspaceId


@dataclass(frozen=True, slots=True)
class RotationWindow:
    """Openings at which a rotation may happen: a cron expression, its time zone, and how long each one lasts."""

    cron: str
    """Five fields; the weekday by name (``sun``), for numbers mean different days to cron and to schedulers."""
    timezone: str
    """An IANA name, such as ``Europe/Berlin``."""
    duration: timedelta


@dataclass(frozen=True, slots=True)
class FileSink:
    """A file that holds the workspace's current token."""

    path: str
    """Absolute."""
    mode: int = 0o640
    format: str = "raw"
    """``raw``: the token; ``json``: an object with its metadata; ``env``: ``TOKEN=…`` lines."""
    deletes: bool = False
    """The file goes when the config has it no more, if it holds a token that was written there."""


@dataclass(frozen=True, slots=True)
class CommandSink:
    """A command that is given the token on its standard input."""

    run: tuple[str, ...]
    """The argument list, never a shell line; the program by absolute path."""
    timeout: timedelta = timedelta(seconds=30)


Sink = FileSink | CommandSink


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysetPolicy:
    """How one keyset rotates."""

    name: KeysetName
    issuer: str
    algorithm: Algorithm
    security_period: timedelta
    propagation_period: timedelta
    grace_period: timedelta
    clock_skew: timedelta
    rotation_window: RotationWindow | None = None
    ending: bool = False
    """The keyset left the config: it makes no more keys, and ends when the last token on it has."""

    @property
    def headroom(self) -> timedelta:
        """How much earlier than strictly needed a successor is announced: room for an outage.

        As long as another ``propagation_period``, but no more than half of what the security period leaves.
        """
        room = self.security_period - self.security_period / 10 - self.propagation_period
        return max(timedelta(0), min(self.propagation_period, room / 2))

    @property
    def lead(self) -> timedelta:
        """How long before a rotation the key after the next is made."""
        return self.propagation_period + self.headroom

    @property
    def jitter(self) -> timedelta:
        """The longest that a rotation without a window is moved earlier."""
        room = max(timedelta(0), self.security_period - self.propagation_period)
        return min(self.security_period / 10, room / 4)

    @property
    def schedule_fingerprint(self) -> str:
        """Changes when the stored deadlines of this keyset are to be computed anew."""
        return _fingerprint(
            self.algorithm,
            self.security_period,
            self.propagation_period,
            self.grace_period,
            self.rotation_window,
            self.ending,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspacePolicy:
    """What one workspace's token says, how long it lives, and where it goes."""

    id: WorkspaceId
    keyset: KeysetName
    security_period: timedelta
    grace_period: timedelta
    audience: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()
    rotation_window: RotationWindow | None = None
    sinks: tuple[Sink, ...] = ()

    @property
    def lifetime(self) -> timedelta:
        """From issue to ``exp``."""
        return self.security_period + self.grace_period

    @property
    def schedule_fingerprint(self) -> str:
        """Changes when ``due_at`` is to be computed anew."""
        return _fingerprint(self.security_period, self.grace_period, self.rotation_window)

    @property
    def sinks_fingerprint(self) -> str:
        """Changes when deliveries are to be planned anew."""
        return _fingerprint(*self.sinks)

    def claims_fingerprint(self, issuer: str) -> str:
        """Change when the current token no longer says what it should, given the keyset's issuer."""
        return _fingerprint(issuer, self.keyset, self.audience, self.roles, self.permissions)


@dataclass(frozen=True, slots=True)
class Verifiers:
    """What is promised about those who verify, and about the way to them."""

    max_cache: timedelta
    """The longest that one of them holds a copy of a set."""
    publish_lag: timedelta
    """From the writing of a file until everyone who fetches gets it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The whole of what is wanted."""

    keysets: Mapping[KeysetName, KeysetPolicy] = field(default_factory=dict)
    workspaces: Mapping[WorkspaceId, WorkspacePolicy] = field(default_factory=dict)
    clock_skew: timedelta = timedelta(seconds=60)
    clock_max_gap: timedelta = timedelta(days=30)
    verifiers: Verifiers = Verifiers(max_cache=timedelta(hours=24), publish_lag=timedelta(seconds=60))
    max_token_size: int = 8192
    """The most characters that a token may have."""
    base_url: str = ""
    """Where the published tree is served."""
    digest: str = field(default="", compare=False)
    """Of the files that it was read from: what a person accepts is this config and no other."""

    _longest: Mapping[KeysetName, timedelta] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        longest: dict[KeysetName, timedelta] = {}
        for wanted in self.workspaces.values():
            longest[wanted.keyset] = max(longest.get(wanted.keyset, wanted.lifetime), wanted.lifetime)
        object.__setattr__(self, "_longest", longest)

    def longest_lifetime(self, keyset: KeysetName) -> timedelta:
        """Of any token that the policy lets a workspace have on ``keyset``; zero without one."""
        return self._longest.get(keyset, timedelta(0))


def _fingerprint(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
