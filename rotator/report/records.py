"""How things stand: the records of a status report."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from rotator.core.model import Algorithm, KekId, KeysetName, Kid, ReplicaId, WorkspaceId
from rotator.report.timeline import PlanEntry


class Health(StrEnum):
    """How a person should take it."""

    OK = "ok"
    DEGRADED = "degraded"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that a person should know of."""

    subject: str
    severity: Health
    text: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standby:
    """The key that is to sign next."""

    kid: Kid
    ready: bool
    ready_at: datetime | None
    """From when on every verifier can know it; None as long as a replica does not publish it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A rotation that an operator has asked for and that is not done yet."""

    at: datetime
    actor: str
    reason: str
    emergency: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysetStatus:
    """One keyset."""

    name: KeysetName
    generation: int
    algorithm: Algorithm
    issuer: str
    ending: bool
    keys: dict[str, int]
    """How many are pending, active and in grace."""
    signing_kid: Kid | None
    signing_since: datetime | None
    rotates_at: datetime | None
    security_period_ends_at: datetime | None
    overdue_seconds: int
    standby: Standby | None
    next_event: PlanEntry | None
    needs_signer: bool
    """Tokens are issued on it, or will be."""
    ever_signed: bool
    failures: int
    """Turns of the planner that failed in a row."""
    fault: str
    asked: Asked | None = None
    refused_until: datetime | None = None
    """Until then a verifier that caches may refuse tokens on the key that signs; None: none may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceCounts:
    """Workspaces of the config."""

    total: int
    overdue: int
    failing: int
    tokens: int
    """Pending, current or in grace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingWorkspace:
    """A workspace whose last issue failed."""

    workspace: WorkspaceId
    failures: int
    problem: str
    expires_at: datetime | None
    """Of the token that it still has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryCounts:
    """Deliveries that are not made yet."""

    open: int
    overdue: int
    """Not even begun a minute after they were due."""
    failing: int
    late: int
    """Failing, with more than a quarter of the prior token's grace gone."""
    critical: int
    """Failing, with more than three quarters of it gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockStatus:
    """What is thought of the clock."""

    trusted: bool
    problem: str
    latest_trusted_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KekStatus:
    """Whether the key-encryption key can be used."""

    usable: bool
    problem: str
    ids: tuple[KekId, ...]
    """Those that records are sealed under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """A daemon, or a served tree."""

    replica: ReplicaId
    started_at: datetime
    seen_at: datetime
    silent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditStatus:
    """The end of the audit chain."""

    seq: int
    hash: str
    not_logged: int
    """Events that the log does not have yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How everything stands."""

    state: Health
    at: datetime
    installation: str
    problems: tuple[Problem, ...]
    """The worst first."""
    keysets: tuple[KeysetStatus, ...]
    workspaces: WorkspaceCounts
    failing: tuple[FailingWorkspace, ...]
    """The first twenty by name."""
    deliveries: DeliveryCounts
    clock: ClockStatus
    kek: KekStatus
    replicas: tuple[ReplicaStatus, ...]
    adopted_kids: tuple[Kid, ...]
    """Published, of another system or a database that is gone: they never sign, and leave by themselves."""
    adopted_until: datetime | None
    """When the last of them leaves; None: there is none."""
    audit: AuditStatus
    open_requests: int
    next_due_at: datetime | None


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass of the daemon leaves."""

    next_due_at: datetime
    status: Report


@dataclass(frozen=True, slots=True)
class Done:
    """A request that was carried out."""

    command: str
    text: str
    """What to tell a person."""
    request: int | None = None
    """The number of a request that is accepted and still under way; None: it was carried out."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a command with ``--json`` prints as the last line on stderr when it fails, in place of a sentence."""

    error: str
    """What is wrong and what to do; several lines where several things are."""
    exit_code: int


@dataclass(frozen=True, slots=True)
class ShownToken:
    """A workspace's current token, for the one who asked."""

    workspace: str
    jti: str
    token: str = field(repr=False)
