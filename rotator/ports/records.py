"""The records that the store keeps."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from rotator.core.alarms import Lateness, lateness
from rotator.core.events import Detail, Event, EventName
from rotator.core.model import (
    Jti,
    KekId,
    KeysetName,
    Kid,
    ReplicaId,
    SigningKey,
    SinkId,
    Token,
    WorkspaceId,
    WorkspaceState,
)
from rotator.core.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysetRow:
    """A keyset as stored."""

    name: KeysetName
    generation: int = 0
    schedule_fingerprint: str = ""
    next_sequence: int = 1
    ever_active: bool = False
    due_at: datetime
    """When the planner is to look at it next."""
    ended_at: datetime | None = None
    failures: int = 0
    retry_at: datetime | None = None
    fault: str = ""
    set_sha256: str = ""
    """Hex, of the set that ``generation`` stands for; empty before the first publication."""
    policy: str = ""
    """The last policy it had, as JSON: what a keyset that left the config ends by."""
    authentic: bool = True
    """Its row carries our MAC. Observed, not stored."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key with what the core must not see."""

    key: SigningKey
    sealed: bytes | None
    kek_id: KekId


@dataclass(frozen=True, slots=True)
class Sighting:
    """That a replica's tree (or the served URL) holds a kid."""

    replica: ReplicaId
    keyset: KeysetName
    kid: Kid
    seen_at: datetime
    absent_until: datetime | None
    """The last moment at which it still served a set without the kid; None if its first set had it."""
    boot_id: str
    since_boot: timedelta
    """CLOCK_BOOTTIME of the boot ``boot_id`` at ``absent_until``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaRow:
    """A running daemon with a published tree of its own, or a served URL."""

    replica: ReplicaId
    started_at: datetime
    seen_at: datetime
    forgotten_at: datetime | None = None


class RowProblem(NamedTuple):
    """A row that somebody else wrote, changed or took away."""

    table: str
    key: str
    problem: str


class WorkspaceSeen(NamedTuple):
    """A workspace as it is stored, for whoever looks for what was changed in it."""

    state: WorkspaceState
    authentic: bool
    next_at: datetime
    retry_at: datetime | None
    failures: int


class IssuedToken(NamedTuple):
    """A minted and sealed token, with all that its commit changes."""

    token: Token
    sealed: bytes
    mac: bytes
    """Of its row, under the same KEK."""
    kek_id: KekId
    reason: str
    prior: Jti | None
    prior_sequence: int
    """The workspace's sequence that the plan was made from: the commit fails if it moved."""
    sinks: tuple[SinkId, ...]
    delivery_deadline: datetime
    """When the prior token ends, and with it the grace; a first token has none."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token with its sealed text."""

    token: Token
    sealed: bytes | None
    kek_id: KekId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRow:
    """The state of one sink of one workspace: which token it should hold and which it holds."""

    workspace: WorkspaceId
    sink: SinkId
    jti: Jti
    """The token that it should hold."""
    sequence: int
    wanted_at: datetime
    deadline: datetime
    delivered_sequence: int = 0
    delivered_at: datetime | None = None
    attempts: int = 0
    """Failed in a row, for the wanted token."""
    due_at: datetime | None = None
    """When to try next; None: nothing to do."""
    last_error: str = ""


SEALED: Final = "sealed"
"""The argument of a request that holds a secret, sealed and bound to its row; gone when the request is finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is revoked: keys, else all tokens of a workspace, else one token."""

    kids: tuple[Kid, ...] = ()
    workspace: WorkspaceId | None = None
    jti: Jti | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What a revocation takes with it, and how much of that is replaced by now."""

    tokens: int
    """Unexpired, current or superseded."""
    last_exp: datetime | None
    """The latest end of these tokens."""
    workspaces: int
    """Whose current token it is."""
    waiting: int
    """Of these, configured and still without a newer token."""
    left: int
    """Of these, no longer in the config: they get none."""
    deliveries: int
    """Sinks of these workspaces."""
    deliveries_open: int
    """Of these sinks, without a newer token yet."""
    deliveries_failing: int
    """Of these open deliveries, tried in vain at least once."""
    open_deliveries: tuple[DeliveryRow, ...]
    """The first of those that can be made, the failing ones before others."""


class Pruned(NamedTuple):
    """What was deleted at once of what is past its retention."""

    events: int
    """Of the audit."""
    more: bool
    """There is more."""


class RevokedTokens(NamedTuple):
    """What the revocation of a key took with it."""

    tokens: int
    """Marked as revoked."""
    workspaces: int
    """Configured, whose current token is on the key: each gets a new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRow:
    """What a person asked for, stored before it is answered."""

    id: int
    kind: str
    arguments: Mapping[str, Detail]
    actor: str
    uid: int
    reason: str
    created_at: datetime
    nonce: str = ""
    """Drawn at random when it was accepted: whatever bears it again is the same request."""
    bound: Mapping[str, Detail] = field(default_factory=dict)
    """What was found, when it was accepted, of that which it is about."""
    kek_id: str = ""
    mac: bytes = b""
    """Of all that is above but ``id``."""
    finished_at: datetime | None = None
    succeeded: bool | None = None
    result: str = ""


class Answer(NamedTuple):
    """What became of a request."""

    succeeded: bool
    text: str
    secret: Secret[str] | None = None
    follows: bool = False
    """What counts is done; the rest follows when what it needs is back, and nobody can wait for that."""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An event in the chain."""

    seq: int
    event: Event
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditWanted:
    """Which events of the audit are asked for; None: all of them."""

    before: int | None = None
    """Those with a lower number."""
    workspace: WorkspaceId | None = None
    key: str | None = None
    """A kid, or its beginning. In this, as in ``actor``, a database may take capital and small letters for the same."""
    names: frozenset[EventName] | None = None
    since: datetime | None = None
    actor: str | None = None
    """``NAME(uid)``, or the name or the uid alone."""


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The end of the chain, where it begins after pruning, and how far the log has it."""

    seq: int
    hash: str
    anchor_seq: int
    anchor_hash: str
    logged_seq: int


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """A workspace with unexpired tokens on a key."""

    workspace: WorkspaceId
    tokens: int
    last_exp: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLoad:
    """What hangs on a key: unexpired tokens that are current or in grace."""

    tokens: int
    workspaces: int
    last_exp: datetime | None
    """None: nothing hangs on it."""
    holders: tuple[KeyHolder, ...]
    """The first of the workspaces, by id."""


@dataclass(frozen=True, slots=True)
class DeliveryAlarm:
    """An open delivery that failed or is late."""

    workspace: WorkspaceId
    sink: SinkId
    wanted_at: datetime
    deadline: datetime
    attempts: int
    last_error: str

    def lateness(self, now: datetime) -> Lateness | None:
        """Return how late it is."""
        return lateness(self.wanted_at, self.deadline, now, failed=self.attempts > 0)
