"""The protocols that the engine is written against, and the records that cross them.

Implementations live in ``rotator.adapters`` and, simulated, in the tests. Instants are aware UTC datetimes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from rotator.core.events import Detail, Event
from rotator.core.model import (
    Algorithm,
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
from rotator.core.policy import KeysetPolicy, Sink, WorkspacePolicy
from rotator.core.schedule import Calendar
from rotator.core.secret import Secret
from rotator.core.timeguard import ClockMark, Reading

__all__ = ["Calendar", "ClockMark", "Reading"]  # of the core, and part of these protocols

# ----------------------------------------------------------------------------------------------------------- time


class Clock(Protocol):
    """The only place where the clocks are read."""

    def read(self) -> Reading:
        """Read all of them at one moment."""
        ...


# -------------------------------------------------------------------------------------------------------- secrets


class Sealer(Protocol):
    """Seals records under the KEK, each bound to its row, and authenticates what is public.

    Every method raises :class:`~rotator.errors.SealError` for a record that does not open or authenticate.
    """

    @property
    def kek_id(self) -> KekId:
        """The id of the KEK that seals new records."""
        ...

    def seal(self, purpose: str, record_id: str, kid: str, algorithm: str, secret: bytes) -> bytes:
        """Seal ``secret`` under :attr:`kek_id`; the arguments before it are bound to it."""
        ...

    def open(
        self, purpose: str, record_id: str, kid: str, algorithm: str, kek_id: KekId, sealed: bytes
    ) -> Secret[bytes]:
        """Open what :meth:`seal` made with the same arguments under the KEK ``kek_id``."""
        ...

    def mac(self, purpose: str, content: bytes, kek_id: KekId | None = None) -> bytes:
        """Authenticate ``content`` under the KEK ``kek_id`` (default: :attr:`kek_id`)."""
        ...

    def verify_mac(self, purpose: str, content: bytes, mac: bytes, kek_id: KekId) -> bool:
        """Tell whether ``mac`` is that of ``content``, in constant time."""
        ...


@dataclass(frozen=True, slots=True)
class KeyMaterial:
    """A new key pair."""

    kid: Kid
    algorithm: Algorithm
    public_jwk: str
    """Canonical JSON of the public JWK with ``kid``, ``use`` and ``alg``."""
    private: Secret[bytes]
    """PKCS #8, DER."""


@dataclass(frozen=True, slots=True)
class KekRow:
    """A KEK that this installation has used."""

    kek_id: KekId
    check: bytes
    """A MAC that only the right KEK reproduces."""


class Keyring(Protocol):
    """The key-encryption keys of this machine, read anew each time: they may be gone, or be others, the next time."""

    def unlock(self, known: Sequence[KekRow]) -> Sealer:
        """Return a sealer if every KEK in ``known`` is there and right; raise :class:`KekError` otherwise."""
        ...

    def check_value(self, kek_id: KekId) -> bytes:
        """Return the check to store for a KEK; raise :class:`KekError` if it is not there."""
        ...


class KeyMaker(Protocol):
    """Makes key pairs."""

    def make(self, algorithm: Algorithm) -> KeyMaterial:
        """Make one. The kid is the RFC 7638 thumbprint."""
        ...


@dataclass(frozen=True, slots=True)
class MintOrder:
    """One token to mint."""

    jti: Jti
    workspace: WorkspacePolicy
    issuer: str
    not_before: int
    """``iat`` and ``nbf``, seconds since the epoch."""
    expires: int


class Signer(Protocol):
    """A loaded private key; its ``repr`` shows nothing of it."""

    @property
    def kid(self) -> Kid:
        """The key's id."""
        ...

    @property
    def algorithm(self) -> Algorithm:
        """The key's one algorithm."""
        ...


class TokenMaker(Protocol):
    """Signs tokens and probes."""

    def load(self, kid: Kid, algorithm: Algorithm, private: Secret[bytes]) -> Signer:
        """Load an opened private half (PKCS #8, DER). Raise :class:`~rotator.errors.SealError` if it is not one."""
        ...

    def mint_batch(self, signer: Signer, orders: Sequence[MintOrder]) -> list[Secret[str]]:
        """Sign one JWT per order, in order."""
        ...

    def probe(self, signer: Signer, issuer: str, now: datetime) -> Secret[str]:
        """Sign a JWT that expires as it is made and that no audience accepts, to prove the key."""
        ...

    def new_jtis(self, now: datetime, count: int) -> list[Jti]:
        """Draw ``count`` fresh token ids that sort by time."""
        ...

    def verify_with(self, token: Secret[str], jwks: bytes) -> None:
        """Verify the signature of ``token`` from the bytes of a published set alone; raise :class:`SealError` if it fails."""
        ...


# ----------------------------------------------------------------------------------------------------- publishing


@dataclass(frozen=True, slots=True)
class PublishedSet:
    """A published set as it was read back from the tree."""

    kids: tuple[Kid, ...]
    sha256: str
    """Hex, of the bytes of ``jwks.json``."""
    content: bytes


@dataclass(frozen=True, slots=True)
class Publication:
    """A set to publish."""

    policy: KeysetPolicy
    generation: int
    jwks: Sequence[str]
    """Public JWKs as canonical JSON, in order of the keys' sequence."""
    published_at: datetime
    next_change_at: datetime | None


class Publisher(Protocol):
    """One published tree. Every method raises :class:`~rotator.errors.PublishError` when the tree cannot serve it."""

    def read(self, keyset: KeysetName, *, fully: bool = False) -> PublishedSet | None:
        """Read the keyset's published set; None where there is none or it is not a JWK Set.

        For ``default`` both of its places are read, and differing or missing ones count as none. A file whose status
        did not change since it was read need not be read again, unless ``fully``.
        """
        ...

    def publish(self, publication: Publication) -> PublishedSet:
        """Write every file of the keyset durably, read them back, and return what stands there now."""
        ...

    def intact(self, publication: Publication, *, fully: bool = False) -> bool:
        """Tell whether every file of the keyset stands as :meth:`publish` would write it.

        ``published_at``, ``next_change_at`` and the generation in the meta file are not compared.
        """
        ...

    def keep_aside(self, keyset: KeysetName, content: bytes, now: datetime) -> str:
        """Keep a set that someone else put into the tree, outside it, for a person to look at; return the path."""
        ...

    def withdraw(self, keyset: KeysetName, content: bytes, now: datetime) -> str:
        """Keep the set aside and remove it from the tree; return the path where it is kept."""
        ...


class ServedSets(Protocol):
    """The published tree as verifiers see it through ``publish.verify_url``; fetched beside the loop, never in it."""

    def latest(self, keyset: KeysetName) -> tuple[datetime, frozenset[Kid] | None] | None:
        """Return when the last fetch ended and the kids it showed (None: it failed); None before the first one."""
        ...

    def refresh(self, keysets: Sequence[KeysetName], now: datetime) -> None:
        """Start fetching in the background; a fetch under way is not started twice."""
        ...


# ------------------------------------------------------------------------------------------------------- delivery


@dataclass(frozen=True, slots=True)
class Parcel:
    """What a sink is given."""

    workspace: WorkspaceId
    jti: Jti
    kid: Kid
    sequence: int
    issued_at: datetime
    expires_at: datetime
    token: Secret[str]


class Courier(Protocol):
    """Puts tokens where workspaces need them."""

    def deliver(self, sink: Sink, parcel: Parcel) -> None:
        """Put ``parcel`` into ``sink``. Raise :class:`~rotator.errors.DeliveryError` when it did not get there."""
        ...

    def holds(self, sink: Sink, parcel: Parcel) -> bool:
        """Tell whether ``sink`` still holds ``parcel``; True for sinks that cannot be looked into."""
        ...

    def cancel(self) -> None:
        """End what can hang, now and each later time at once: the daemon stops."""
        ...


# -------------------------------------------------------------------------------------------------------- witness


@dataclass(frozen=True, slots=True)
class WitnessedKey:
    """A published key as the witness remembers it."""

    kid: Kid
    algorithm: Algorithm
    public_jwk: str
    sequence: int
    ends_at: datetime | None
    """The latest time at which a token on it can end; None for a key that never signed."""


@dataclass(frozen=True, slots=True)
class WitnessedKeyset:
    """A keyset as the witness remembers it."""

    generation: int
    active: Kid | None
    published: tuple[WitnessedKey, ...]


@dataclass(frozen=True, slots=True)
class WitnessRecord:
    """What is kept outside the database, to find out that an old one was put back."""

    installation: str
    audit_seq: int
    audit_hash: str
    keysets: Mapping[KeysetName, WitnessedKeyset] = field(default_factory=dict)
    revoked_kids: frozenset[Kid] = frozenset()
    revoked_jtis: Mapping[Jti, datetime] = field(default_factory=dict)
    """With the ``exp`` of each, after which it needs no remembering."""


class Witness(Protocol):
    """The witness file. Raises :class:`~rotator.errors.WitnessError` when it is damaged or not ours."""

    def read(self) -> WitnessRecord | None:
        """Read and authenticate it; None where there is none."""
        ...

    def write(self, record: WitnessRecord) -> None:
        """Write it durably; nothing is written when it already says so."""
        ...


# ---------------------------------------------------------------------------------------------------------- store


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


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key with what the core must not see."""

    key: SigningKey
    sealed: bytes | None
    kek_id: KekId
    mac: bytes


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


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedToken:
    """A minted and sealed token, with all that its commit changes."""

    token: Token
    sealed: bytes
    kek_id: KekId
    reason: str
    prior: Jti | None
    prior_sequence: int
    """The workspace's sequence that the plan was made from: the commit fails if it moved."""
    sinks: tuple[SinkId, ...]
    delivery_deadline: datetime
    """When the prior token ends; a delivery still open then leaves the workspace without one."""
    claims_fingerprint: str
    schedule_fingerprint: str


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
    finished_at: datetime | None = None
    succeeded: bool | None = None
    result: str = ""


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An event in the chain."""

    seq: int
    event: Event
    hash: str


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The end of the chain, where it begins after pruning, and how far the log has it."""

    seq: int
    hash: str
    anchor_seq: int
    anchor_hash: str
    logged_seq: int


@dataclass(frozen=True, slots=True)
class DeliveryAlarm:
    """Open deliveries that have failed at least once, counted by how much of the grace is gone."""

    workspace: WorkspaceId
    sink: SinkId
    wanted_at: datetime
    deadline: datetime
    attempts: int
    last_error: str


class Snapshot(Protocol):
    """Reads of one consistent state."""

    def installation(self) -> str:
        """Return the id that this database was created with."""
        ...

    def clock_mark(self) -> ClockMark | None:
        """Return what is remembered of time; None before the first tick."""
        ...

    def keks(self) -> tuple[KekRow, ...]:
        """Return every KEK in use."""
        ...

    def keysets(self) -> tuple[KeysetRow, ...]:
        """Return every keyset, ended ones included, by name."""
        ...

    def keyset(self, name: KeysetName) -> KeysetRow | None:
        """Return one keyset."""
        ...

    def due_keysets(self, now: datetime) -> tuple[KeysetName, ...]:
        """Return the keysets with ``due_at`` ≤ ``now`` and no ``retry_at`` after it, most overdue first."""
        ...

    def keyset_in_use(self, name: KeysetName, now: datetime) -> bool:
        """Tell whether a workspace that is not removed, or the unexpired current token of a removed one, is on it."""
        ...

    def keys(self, keyset: KeysetName) -> tuple[KeyRow, ...]:
        """Return its keys by sequence, without those that are retired or revoked and destroyed."""
        ...

    def all_keys(self) -> tuple[KeyRow, ...]:
        """Return every key ever, by keyset and sequence."""
        ...

    def key(self, kid: Kid) -> KeyRow | None:
        """Return one key."""
        ...

    def sightings(self, keyset: KeysetName) -> tuple[Sighting, ...]:
        """Return every sighting of the keyset's kids, forgotten replicas left out."""
        ...

    def replicas(self) -> tuple[ReplicaRow, ...]:
        """Return the replicas that are not forgotten."""
        ...

    def workspaces(self) -> Iterator[WorkspaceState]:
        """Yield every workspace, removed ones included, by id."""
        ...

    def workspace(self, workspace: WorkspaceId) -> WorkspaceState | None:
        """Return one workspace."""
        ...

    def due_workspaces(
        self, keysets: Sequence[KeysetName], now: datetime, limit: int
    ) -> tuple[WorkspaceState, ...]:
        """Return workspaces on ``keysets``, not removed, with ``due_at`` ≤ ``now`` and no later ``retry_at``."""
        ...

    def token(self, jti: Jti) -> TokenRow | None:
        """Return one token."""
        ...

    def tokens(self, workspace: WorkspaceId | None = None) -> Iterator[Token]:
        """Yield tokens, of one workspace or of all, by workspace and sequence."""
        ...

    def current_tokens(self, workspaces: Sequence[WorkspaceId]) -> Mapping[WorkspaceId, TokenRow]:
        """Return the current token of each of ``workspaces`` that has one."""
        ...

    def expired_tokens(self, before: datetime, limit: int) -> tuple[Token, ...]:
        """Return superseded or current tokens with ``exp`` < ``before`` that are not retired or revoked, oldest first."""
        ...

    def due_deliveries(self, now: datetime, limit: int) -> tuple[DeliveryRow, ...]:
        """Return deliveries with ``due_at`` ≤ ``now``, longest due first."""
        ...

    def deliveries(self, workspace: WorkspaceId | None = None) -> tuple[DeliveryRow, ...]:
        """Return the deliveries of one workspace or of all."""
        ...

    def delivery_alarms(self) -> tuple[DeliveryAlarm, ...]:
        """Return open deliveries with at least one failed attempt."""
        ...

    def open_requests(self) -> tuple[RequestRow, ...]:
        """Return unfinished requests in the order of their making."""
        ...

    def request(self, request_id: int) -> RequestRow | None:
        """Return one request."""
        ...

    def audit_head(self) -> AuditHead:
        """Return the head of the chain."""
        ...

    def audit(self, after: int = 0, limit: int | None = None) -> Iterator[AuditRow]:
        """Yield events with a sequence number above ``after``, in order."""
        ...

    def audit_hash(self, seq: int) -> str | None:
        """Return the hash of one event (the anchor's, too); None if there is no such event."""
        ...

    def next_due(self, signing: Sequence[KeysetName]) -> datetime | None:
        """Return the earliest moment at which anything is due: keysets, workspaces on ``signing`` keysets, deliveries."""
        ...

    def workspace_faults(self) -> tuple[tuple[WorkspaceId, int, str], ...]:
        """Return workspaces whose last issue failed: id, failures in a row, message."""
        ...

    def counts(self) -> Mapping[str, int]:
        """Return ``workspaces`` (not removed), ``tokens`` (pending, active or in grace), ``events``."""
        ...

    def overdue_workspaces(self, before: datetime) -> int:
        """Count workspaces, not removed, with ``due_at`` < ``before``."""
        ...


class Transaction(Snapshot, Protocol):
    """Changes that become durable together or not at all."""

    def set_clock_mark(self, mark: ClockMark) -> None:
        """Remember ``mark``."""
        ...

    def add_kek(self, row: KekRow) -> None:
        """Register a KEK."""
        ...

    def lock_keyset(self, name: KeysetName) -> KeysetRow | None:
        """Return one keyset with its row locked until the end of the transaction."""
        ...

    def put_keyset(self, row: KeysetRow) -> None:
        """Insert or replace a keyset."""
        ...

    def insert_key(self, row: KeyRow) -> None:
        """Store a new key. Raise :class:`StoreError` if its kid was ever used."""
        ...

    def update_key(self, key: SigningKey) -> None:
        """Store the phase and instants of ``key``; where ``has_private`` is false, erase its sealed private half."""
        ...

    def raise_last_exp(self, kid: Kid, exp: datetime) -> bool:
        """Raise ``last_exp`` of an active key, locking its row; False, with nothing changed, if it is not active."""
        ...

    def put_sighting(self, sighting: Sighting) -> None:
        """Insert or replace a sighting (one per replica and kid)."""
        ...

    def delete_sightings(self, replica: ReplicaId, kids: Sequence[Kid]) -> None:
        """Forget that ``replica`` holds ``kids``."""
        ...

    def put_replica(self, row: ReplicaRow) -> None:
        """Insert or replace a replica."""
        ...

    def put_publication(
        self, replica: ReplicaId, keyset: KeysetName, generation: int, sha256: str, at: datetime
    ) -> None:
        """Record what a replica's tree holds; one row per replica, keyset and generation."""
        ...

    def insert_workspaces(self, rows: Sequence[WorkspaceState]) -> None:
        """Insert new workspaces, or bring removed ones back, in bulk."""
        ...

    def update_workspaces(self, rows: Sequence[WorkspaceState]) -> None:
        """Store keyset, due_at, fingerprints and removed_at of existing workspaces, in bulk."""
        ...

    def fail_workspaces(self, workspaces: Sequence[WorkspaceId], retry_at: datetime, fault: str) -> None:
        """Count a failed issue and put off the next try."""
        ...

    def issue(self, tokens: Sequence[IssuedToken]) -> bool:
        """Commit a batch: prior tokens to grace, new ones in, workspaces moved on, deliveries wanted.

        Every statement is in bulk. Return False if any workspace's sequence moved since the plan: roll back then.
        """
        ...

    def retire_tokens(self, jtis: Sequence[Jti], at: datetime) -> None:
        """Mark expired tokens as retired and erase their sealed text, in bulk."""
        ...

    def revoke_token(self, jti: Jti, at: datetime, reason: str) -> None:
        """Mark one token as revoked and erase its sealed text."""
        ...

    def want_deliveries(self, rows: Sequence[DeliveryRow]) -> None:
        """Insert or replace deliveries, in bulk."""
        ...

    def drop_deliveries(self, pairs: Sequence[tuple[WorkspaceId, SinkId]]) -> None:
        """Delete the deliveries of sinks that are gone from the config."""
        ...

    def delivered(self, workspace: WorkspaceId, sink: SinkId, sequence: int, at: datetime) -> bool:
        """Record a delivery. When no sink of the workspace is open any more, erase the text of superseded tokens.

        Return False, with nothing changed, if that sink's delivered sequence is already at or past ``sequence``.
        A later wanted token stays due.
        """
        ...

    def delivery_failed(
        self, workspace: WorkspaceId, sink: SinkId, sequence: int, retry_at: datetime, error: str
    ) -> None:
        """Count a failed attempt for ``sequence`` (a later wanted one is left alone)."""
        ...

    def redeliver(self, workspace: WorkspaceId, sink: SinkId, sequence: int, at: datetime) -> None:
        """Make a delivery of ``sequence`` due again although it was made, as the sink has lost it."""
        ...

    def add_request(
        self, kind: str, arguments: Mapping[str, Detail], actor: str, uid: int, reason: str, at: datetime
    ) -> int:
        """Store a request; return its id."""
        ...

    def finish_request(self, request_id: int, at: datetime, *, succeeded: bool, result: str) -> None:
        """Record the outcome of a request."""
        ...

    def append(self, events: Sequence[Event], *, first_seq: int | None = None) -> AuditHead:
        """Chain ``events`` to the head, in bulk; the head's row is locked last, so call it last.

        ``first_seq``: leave a gap before the first event, as after a restored backup.
        """
        ...

    def mark_logged(self, seq: int) -> None:
        """Record that the log has every event up to ``seq``."""
        ...

    def prune(self, *, tokens_before: datetime, audit_before: datetime) -> int:
        """Delete retired tokens and logged events that are older; leave an anchor; return how many events went."""
        ...


class Store(Protocol):
    """The database. Every method raises :class:`~rotator.errors.StoreError` when it cannot be used."""

    def begin(self) -> AbstractContextManager[Transaction]:
        """Open a writing transaction: committed durably at the end of the block, rolled back on an exception."""
        ...

    def read(self) -> AbstractContextManager[Snapshot]:
        """Open a consistent read that blocks no writer."""
        ...

    def purge_erased(self) -> bool:
        """Make erased values leave the disk as far as this database can; False: a reader holds it up, try again."""
        ...

    def trusted_time(self) -> datetime | None:
        """Return the time of a database server that is not this machine, as evidence; None without one."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


# ------------------------------------------------------------------------------------------------------------ log


class EventLog(Protocol):
    """Where events go that people and alerts read."""

    def audit(self, rows: Sequence[AuditRow]) -> None:
        """Write audit events, in order."""
        ...

    def event(self, name: str, **fields: object) -> None:
        """Write an event of the log's catalogue that changes no state."""
        ...
