"""The database."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from rotator.core.events import Event, EventName
from rotator.core.model import (
    Algorithm,
    DueWorkspace,
    Jti,
    KeysetName,
    Kid,
    Overlap,
    ReplicaId,
    SigningKey,
    SinkId,
    Token,
    Wish,
    WorkspaceId,
    WorkspaceState,
)
from rotator.core.secret import Secret
from rotator.core.timeguard import ClockMark
from rotator.ports.records import (
    AuditHead,
    AuditRow,
    AuditWanted,
    DeliveryAlarm,
    DeliveryRow,
    IssuedToken,
    KeyLoad,
    KeyRow,
    KeysetRow,
    Pruned,
    Reach,
    ReplicaRow,
    RequestRow,
    RevokedTokens,
    RowProblem,
    Sighting,
    Target,
    TokenRow,
    WorkspaceSeen,
)
from rotator.ports.secrets import KekRow, Sealer


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

    def has_published(self, replica: ReplicaId, keyset: KeysetName) -> bool:
        """Tell whether a replica ever published a set of the keyset, whatever its tree holds now."""
        ...

    def replicas(self) -> tuple[ReplicaRow, ...]:
        """Return the replicas that are not forgotten."""
        ...

    def forgotten_replicas(self) -> frozenset[ReplicaId]:
        """Return the replicas of which somebody said that they are gone for good."""
        ...

    def wish(self, keyset: KeysetName) -> Wish | None:
        """Return what an operator asked of a keyset, if it is not fulfilled yet."""
        ...

    def workspaces(self) -> Iterator[WorkspaceState]:
        """Yield every workspace, removed ones included, by id."""
        ...

    def workspace(self, workspace: WorkspaceId) -> WorkspaceState | None:
        """Return one workspace."""
        ...

    def workspaces_named(self, workspaces: Sequence[WorkspaceId]) -> tuple[WorkspaceState, ...]:
        """Return those of ``workspaces`` that are there, removed ones included."""
        ...

    def due_workspaces(self, keysets: Sequence[KeysetName], now: datetime, limit: int) -> Collection[DueWorkspace]:
        """Return workspaces on ``keysets``, not removed, with ``due_at`` ≤ ``now`` and no later ``retry_at``."""
        ...

    def token(self, jti: Jti) -> TokenRow | None:
        """Return one token."""
        ...

    def jtis_beginning(self, beginning: str, limit: int) -> tuple[Jti, ...]:
        """Return the ids of tokens that begin so, in order, and at most ``limit`` of them."""
        ...

    def token_text(self, jti: Jti, algorithm: Algorithm) -> Secret[bytes] | None:
        """Return the text of a token; None where it was erased, or the KEK that opens it is not at hand."""
        ...

    def tokens(self, workspace: WorkspaceId | None = None, *, after: WorkspaceId | None = None) -> Iterator[Token]:
        """Yield tokens, of one workspace or of all (of those ``after`` one), by workspace and sequence."""
        ...

    def tokens_of(self, workspaces: Sequence[WorkspaceId]) -> Iterator[Token]:
        """Yield the tokens of some workspaces, by workspace and sequence."""
        ...

    def current_tokens(self, workspaces: Sequence[WorkspaceId]) -> Mapping[WorkspaceId, TokenRow]:
        """Return the current token of each of ``workspaces`` that has one."""
        ...

    def expired_tokens(self, before: datetime, limit: int) -> tuple[Token, ...]:
        """Return current and superseded tokens with ``exp`` < ``before`` still in their phase, oldest first."""
        ...

    def revoked_tokens(self, after: datetime) -> Mapping[Jti, datetime]:
        """Return the ends, above ``after``, of the tokens that were revoked by themselves, not with their key."""
        ...

    def tokens_on_key(self, kid: Kid, after: datetime, limit: int) -> KeyLoad:
        """Return how many tokens with ``exp`` > ``after`` hang on a key, and the first ``limit`` workspaces by id."""
        ...

    def overlaps(self) -> tuple[Overlap, ...]:
        """Return every overlap that an operator set and that is not over yet, the first to end first."""
        ...

    def ended_overlaps(self, now: datetime, limit: int) -> tuple[Overlap, ...]:
        """Return overlaps with ``ends_at`` ≤ ``now`` whose token has a successor or is no longer valid anyway."""
        ...

    def reach(self, target: Target, now: datetime, *, revoked_since: datetime | None, limit: int) -> Reach:
        """Count what hangs on ``target``.

        What would be revoked at ``now``, or with ``revoked_since`` what was revoked then or later. ``limit``: of the
        open deliveries that are named.
        """
        ...

    def due_deliveries(self, now: datetime, limit: int, passed: int = 0) -> tuple[DeliveryRow, ...]:
        """Return deliveries with ``due_at`` ≤ ``now``, longest due first, without the first ``passed``."""
        ...

    def deliveries(self, workspace: WorkspaceId | None = None) -> tuple[DeliveryRow, ...]:
        """Return the deliveries of one workspace or of all."""
        ...

    def deliveries_of(self, workspaces: Sequence[WorkspaceId]) -> tuple[DeliveryRow, ...]:
        """Return the deliveries of some workspaces."""
        ...

    def delivery_alarms(self, now: datetime) -> tuple[DeliveryAlarm, ...]:
        """Return open deliveries that failed or are late, those first whose grace ends first."""
        ...

    def changed_rows(self) -> tuple[RowProblem, ...]:
        """Return the rows of the small tables that somebody else wrote or took away."""
        ...

    def changed_tokens(self, after: Jti, limit: int, now: datetime) -> tuple[tuple[RowProblem, ...], Jti | None]:
        """Return those of the next ``limit`` tokens by jti, and the last jti of them; None when there are no more."""
        ...

    def workspaces_after(self, after: WorkspaceId, limit: int) -> tuple[WorkspaceSeen, ...]:
        """Return the next ``limit`` workspaces by id, each with whether its row is authentic."""
        ...

    def open_requests(self) -> tuple[RequestRow, ...]:
        """Return unfinished requests in the order of their making; one that cannot be read has no ``mac``."""
        ...

    def answered_requests(self, limit: int) -> tuple[RequestRow, ...]:
        """Return the latest ``limit`` finished requests."""
        ...

    def stored_nonces(self, nonces: Collection[str]) -> frozenset[str]:
        """Return those of ``nonces`` that a request has, finished or not."""
        ...

    def request(self, request_id: int) -> RequestRow | None:
        """Return one request."""
        ...

    def audit_head(self) -> AuditHead:
        """Return the head of the chain."""
        ...

    def audit(
        self, after: int = 0, limit: int | None = None, *, names: Collection[EventName] | None = None
    ) -> Iterator[AuditRow]:
        """Yield events with a sequence number above ``after``, in order; of ``names`` alone, where they are given."""
        ...

    def newest_audit(self, wanted: AuditWanted) -> Iterator[AuditRow]:
        """Yield the events that are ``wanted``, the newest first."""
        ...

    def audit_hash(self, seq: int) -> str | None:
        """Return the hash of one event (the anchor's, too); None if there is no such event."""
        ...

    def next_due(self, signing: Sequence[KeysetName]) -> datetime | None:
        """Return when anything is due next: keysets, workspaces on ``signing`` keysets, deliveries, overlaps."""
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

    def put_keyset(self, row: KeysetRow, *, anew: bool = False) -> None:
        """Insert or replace a keyset.

        Where the stored row is not authentic only what decides nothing is stored, unless ``anew``: then ``row`` is made
        from what is known besides.
        """
        ...

    def insert_key(self, row: KeyRow) -> None:
        """Store a new key. Raise :class:`StoreError` if its kid was ever used."""
        ...

    def replace_unauthentic_key(self, row: KeyRow) -> None:
        """Store ``row`` in place of one of the same kid. Raise :class:`StoreError` unless that one is not authentic."""
        ...

    def update_key(self, key: SigningKey) -> None:
        """Store the phase and instants of ``key``; where ``has_private`` is false, erase its sealed private half.

        Raise :class:`~rotator.errors.SealError` if its row is not authentic and it is to be anything but revoked.
        """
        ...

    def complete_key(self, row: KeyRow) -> None:
        """Give an adopted key its private half: store ``row`` in its place, but for ``last_exp``, which never shrinks.

        Raise :class:`StoreError` where there is no adopted key of its kid, keyset, sequence and public half in grace.
        """
        ...

    def raise_last_exp(self, kid: Kid, exp: datetime) -> bool:
        """Raise ``last_exp`` of an active key, locking its row; False, with nothing changed, if it is not active."""
        ...

    def put_wish(self, keyset: KeysetName, wish: Wish) -> None:
        """Remember what an operator asks of a keyset, in place of what was asked before."""
        ...

    def drop_wish(self, keyset: KeysetName) -> None:
        """Forget what was asked of a keyset: it is fulfilled."""
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

    def renew_workspace(self, workspace: WorkspaceId, at: datetime) -> None:
        """Let what a row says of a workspace's token follow from its tokens, and the next one be due ``at``."""
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

    def revoke_tokens_of_key(self, kid: Kid, at: datetime, due_at: datetime) -> RevokedTokens:
        """Mark the tokens on ``kid`` that live at ``due_at``, erase their texts, make their workspaces due; in bulk.

        ``due_at``: the latest moment that is certain to have come; workspaces that are due earlier stay so.
        """
        ...

    def lock_workspace(self, workspace: WorkspaceId) -> WorkspaceState | None:
        """Return one workspace with its row locked until the end of the transaction."""
        ...

    def make_due(self, workspace: WorkspaceId, at: datetime, reason: str, current_ends_at: datetime | None) -> bool:
        """Make a workspace's next token due at ``at``, and let its current one end by ``current_ends_at``, if given.

        An earlier failure to issue is forgotten. Return False if there is no such workspace.
        """
        ...

    def put_overlaps(self, overlaps: Sequence[Overlap]) -> None:
        """Store how long replaced tokens stay valid; of two for one token the one that ends first stands."""
        ...

    def drop_overlaps(self, jtis: Sequence[Jti]) -> None:
        """Forget overlaps that are over."""
        ...

    def want_deliveries(self, rows: Sequence[DeliveryRow]) -> None:
        """Insert or replace deliveries, in bulk."""
        ...

    def put_off(self, rows: Sequence[DeliveryRow]) -> None:
        """Store when each of these is due; one that wants another token by now, or none, is left alone."""
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

    def delivered_as_wanted(self, rows: Sequence[DeliveryRow], at: datetime) -> list[DeliveryRow]:
        """Do as :meth:`delivered` for many at once that still want just this token; return the others, untouched."""
        ...

    def delivery_failed(
        self, workspace: WorkspaceId, sink: SinkId, sequence: int, retry_at: datetime, error: str
    ) -> None:
        """Count a failed attempt for ``sequence`` (a later wanted one is left alone)."""
        ...

    def release_leases(self, now: datetime) -> None:
        """At a start: make deliveries due now that the process before had claimed and neither made nor failed.

        Changes nothing where other replicas may be carrying them.
        """
        ...

    def redeliver(self, workspace: WorkspaceId, sink: SinkId, sequence: int, at: datetime) -> None:
        """Make a delivery of ``sequence`` due again although it was made, as the sink has lost it.

        Whoever reads there has no token from ``at`` on: there is no grace.
        """
        ...

    def add_request(self, request: RequestRow) -> int:
        """Store a request that is not finished; return the id that it got, whatever its own says."""
        ...

    def finish_request(self, request_id: int, at: datetime, *, succeeded: bool, result: str) -> None:
        """Record the outcome of a request, and erase its argument :data:`~rotator.ports.records.SEALED`."""
        ...

    def put_aside_requests(self, request_ids: Sequence[int], at: datetime, result: str) -> None:
        """Record that requests were not carried out, in bulk, and erase the arguments of those that hold one sealed."""
        ...

    def append(self, events: Sequence[Event], *, first_seq: int | None = None) -> AuditHead:
        """Chain ``events`` to the head, in bulk; the head's row is locked last, so call it last.

        ``first_seq``: leave a gap before the first event, as after a restored backup.
        """
        ...

    def mark_logged(self, seq: int) -> None:
        """Record that the log has every event up to ``seq``."""
        ...

    def prune(self, *, tokens_before: datetime, audit_before: datetime, at_most: int) -> Pruned:
        """Delete retired tokens, requests and logged events that are older, ``at_most`` of each; leave an anchor."""
        ...


class Store(Protocol):
    """The database. Every method raises :class:`~rotator.errors.StoreError` when it cannot be used."""

    def trust(self, sealer: Sealer | None) -> None:
        """Verify and authenticate rows under the KEKs of ``sealer`` from now on.

        None: the KEK is away. Rows are still verified by what was derived from it, and none is authenticated:
        a change of one that decides raises :class:`~rotator.errors.KekError`.
        """
        ...

    def begin(self) -> AbstractContextManager[Transaction]:
        """Open a writing transaction: committed durably at the end of the block, rolled back on an exception."""
        ...

    def read(self, check: Callable[[], None] | None = None) -> AbstractContextManager[Snapshot]:
        """Open a consistent read that blocks no writer.

        ``check`` is called again and again while it reads, and in the midst of long statements, possibly from another
        thread: what it raises ends the read.
        """
        ...

    def lost(self) -> str:
        """Return what became of the open database's files, if others took them away or replaced them; else empty.

        From then on :meth:`begin` raises :class:`~rotator.errors.StoreLostError`: what would be written is not kept.
        """
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
