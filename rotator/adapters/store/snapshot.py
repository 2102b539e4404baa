"""Reads of one consistent state. What a tick asks for is answered from an index, whatever else the tables hold."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

import sqlalchemy as sa

from rotator.adapters.store import asked, chain, queries, reach, rows, scrub, trail
from rotator.adapters.store.bounds import Check
from rotator.adapters.store.integrity import Integrity
from rotator.adapters.store.revoke import revoked_tokens
from rotator.adapters.store.times import noted, to_us
from rotator.core.alarms import OVERDUE_AFTER
from rotator.core.events import EventName
from rotator.core.model import (
    Algorithm,
    DueWorkspace,
    Jti,
    KeysetName,
    Kid,
    Overlap,
    ReplicaId,
    Token,
    Wish,
    WorkspaceId,
    WorkspaceState,
)
from rotator.core.secret import Secret
from rotator.errors import StoreError
from rotator.ports import (
    AuditHead,
    AuditRow,
    AuditWanted,
    ClockMark,
    DeliveryAlarm,
    DeliveryRow,
    KekRow,
    KeyHolder,
    KeyLoad,
    KeyRow,
    KeysetRow,
    Reach,
    ReplicaRow,
    RequestRow,
    RowProblem,
    Sighting,
    Target,
    TokenRow,
    WorkspaceSeen,
)

MICROSECOND: Final = timedelta(microseconds=1)

FETCHED_AT_ONCE: Final = 1_000

NONCES_AT_ONCE: Final = 500
"""Rows that a long listing holds in memory at a time."""

NAMED_AT_ONCE: Final = 5_000
"""Ids in one query: below the limits of both databases."""


class SqlSnapshot:
    """A :class:`~rotator.ports.Snapshot` on one connection, whose transaction its maker began and ends."""

    def __init__(self, connection: sa.Connection, integrity: Integrity, check: Check | None = None) -> None:
        self._connection = connection
        self._check: Final = check
        self._integrity: Final = integrity
        self._under_way: set[sa.CursorResult[Any]] = set()
        self._replicas: tuple[ReplicaRow, ...] | None = None
        """Read once: each look at a keyset asks for them, and they hardly ever change."""

    def close(self) -> None:
        """End the listings that were not read to their end: an open cursor holds the snapshot, and with it the log."""
        for result in self._under_way:
            result.close()

    def _all(self, statement: sa.Select[*tuple[Any, ...]], **parameters: object) -> Sequence[rows.AnyRow]:
        return self._connection.execute(statement, parameters).all()

    def _first(self, statement: sa.Select[*tuple[Any, ...]], **parameters: object) -> rows.AnyRow | None:
        return self._connection.execute(statement, parameters).first()

    def _one(self, statement: sa.Select[*tuple[Any, ...]], **parameters: object) -> rows.AnyRow:
        return self._connection.execute(statement, parameters).one()

    def _only(self, statement: sa.Select[*tuple[Any, ...]], table: str) -> rows.AnyRow:
        """Return the one row of ``table``, without which nobody knows what database this is."""
        row = self._first(statement)
        if row is None:
            raise StoreError(
                f"the database has no row in {table}: somebody removed it. Nothing was changed. Put the database from "
                "the last backup in place: rotator restore"
            )
        return row

    def _each(self, statement: sa.Select[*tuple[Any, ...]], **parameters: object) -> Iterator[rows.AnyRow]:
        result = self._connection.execute(statement, parameters, execution_options={"yield_per": FETCHED_AT_ONCE})
        self._under_way.add(result)
        for row in result:
            if self._check is not None:
                self._check()
            yield row
        self._under_way.discard(result)

    def _of_each(
        self, statement: sa.Select[*tuple[Any, ...]], workspaces: Sequence[WorkspaceId]
    ) -> Iterator[rows.AnyRow]:
        for start in range(0, len(workspaces), NAMED_AT_ONCE):
            yield from self._all(statement, workspaces=list(workspaces[start : start + NAMED_AT_ONCE]))

    # -------------------------------------------------------------------------------------------------------- itself

    def installation(self) -> str:
        """Return the id that this database was created with."""
        return str(self._only(queries.INSTALLATION, "installation")[0])

    def clock_mark(self) -> ClockMark | None:
        """Return what is remembered of time; None before the first tick."""
        row = self._first(queries.CLOCK_MARK)
        found = () if row is None else (row,)
        return next(rows.believed("clock", found, self._integrity, rows.clock_mark), None)

    def keks(self) -> tuple[KekRow, ...]:
        """Return every KEK in use."""
        return tuple(map(rows.kek, self._all(queries.KEKS)))

    # -------------------------------------------------------------------------------------------------- keysets, keys

    def keysets(self) -> tuple[KeysetRow, ...]:
        """Return every keyset, ended ones included, by name."""
        return tuple(rows.keyset(row, self._integrity) for row in self._all(queries.ALL_KEYSETS))

    def keyset(self, name: KeysetName) -> KeysetRow | None:
        """Return one keyset."""
        row = self._first(queries.ONE_KEYSET, name=name)
        return None if row is None else rows.keyset(row, self._integrity)

    def due_keysets(self, now: datetime) -> tuple[KeysetName, ...]:
        """Return the keysets with ``due_at`` ≤ ``now`` and no ``retry_at`` after it, most overdue first."""
        return tuple(row.name for row in self._all(queries.DUE_KEYSETS, now=to_us(now)))

    def keyset_in_use(self, name: KeysetName, now: datetime) -> bool:
        """Tell whether a workspace that is not removed, or the unexpired current token of a removed one, is on it."""
        return bool(self._one(queries.KEYSET_IN_USE, name=name, now=to_us(now))[0])

    def keys(self, keyset: KeysetName) -> tuple[KeyRow, ...]:
        """Return its keys by sequence, without those that are retired or revoked and destroyed."""
        return tuple(rows.key(row, self._integrity) for row in self._all(queries.KEYS_NOT_GONE, keyset=keyset))

    def all_keys(self) -> tuple[KeyRow, ...]:
        """Return every key ever, by keyset and sequence."""
        return tuple(rows.key(row, self._integrity) for row in self._all(queries.ALL_KEYS))

    def key(self, kid: Kid) -> KeyRow | None:
        """Return one key."""
        row = self._first(queries.ONE_KEY, kid=kid)
        return None if row is None else rows.key(row, self._integrity)

    def sightings(self, keyset: KeysetName) -> tuple[Sighting, ...]:
        """Return every sighting of the keyset's kids, forgotten replicas left out, and rows that are not authentic."""
        found = self._all(queries.SIGHTINGS_OF_KEYSET, keyset=keyset)
        forgotten = self.forgotten_replicas()
        believed = rows.believed("sightings", found, self._integrity, rows.sighting)
        return tuple(sighting for sighting in believed if sighting.replica not in forgotten)

    def has_published(self, replica: ReplicaId, keyset: KeysetName) -> bool:
        """Tell whether a replica ever published a set of the keyset, whatever its tree holds now."""
        return self._first(queries.PUBLICATION_OF_REPLICA, replica=replica, keyset=keyset) is not None

    def replicas(self) -> tuple[ReplicaRow, ...]:
        """Return the replicas that are not forgotten. One whose row is not authentic is none that was forgotten."""
        return tuple(row for row in self._every_replica() if row.forgotten_at is None)

    def forgotten_replicas(self) -> frozenset[ReplicaId]:
        """Return the replicas of which somebody said that they are gone for good."""
        return frozenset(row.replica for row in self._every_replica() if row.forgotten_at is not None)

    def _every_replica(self) -> tuple[ReplicaRow, ...]:
        if self._replicas is None:
            self._replicas = tuple(rows.replica(row, self._integrity) for row in self._all(queries.ALL_REPLICAS))
        return self._replicas

    def wish(self, keyset: KeysetName) -> Wish | None:
        """Return what an operator asked of a keyset, if it is not fulfilled yet."""
        return asked.wish(self._connection, self._integrity, keyset)

    # ------------------------------------------------------------------------------------------------------ workspaces

    def workspaces(self) -> Iterator[WorkspaceState]:
        """Yield every workspace, removed ones included, by id."""
        return (rows.workspace(row, self._integrity) for row in self._each(queries.ALL_WORKSPACES))

    def workspace(self, workspace: WorkspaceId) -> WorkspaceState | None:
        """Return one workspace."""
        row = self._first(queries.ONE_WORKSPACE, id=workspace)
        return None if row is None else rows.workspace(row, self._integrity)

    def workspaces_named(self, workspaces: Sequence[WorkspaceId]) -> tuple[WorkspaceState, ...]:
        """Return those of ``workspaces`` that are there, removed ones included."""
        return tuple(
            rows.workspace(row, self._integrity) for row in self._of_each(queries.WORKSPACES_NAMED, workspaces)
        )

    def due_workspaces(self, keysets: Sequence[KeysetName], now: datetime, limit: int) -> Collection[DueWorkspace]:
        """Return workspaces on ``keysets``, not removed, with ``due_at`` ≤ ``now`` and no later ``retry_at``."""
        due = self._all(queries.DUE_WORKSPACES, keysets=list(keysets), now=to_us(now), at_most=limit)
        return rows.Lazily(due, rows.due_workspace)

    def overdue_workspaces(self, before: datetime) -> int:
        """Count workspaces, not removed, with ``due_at`` < ``before``."""
        return int(self._one(queries.OVERDUE_WORKSPACES, before=to_us(before))[0])

    def workspace_faults(self) -> tuple[tuple[WorkspaceId, int, str], ...]:
        """Return workspaces whose last issue failed: id, failures in a row, message."""
        failing = self._all(queries.FAILING_WORKSPACES)
        # Sorted here: asked to, SQLite would rather walk all workspaces in the order of their ids.
        return tuple(sorted((WorkspaceId(row.id), row.failures, row.fault) for row in failing))

    # ---------------------------------------------------------------------------------------------------------- tokens

    def token(self, jti: Jti) -> TokenRow | None:
        """Return one token."""
        row = self._first(queries.ONE_TOKEN, jti=jti)
        return None if row is None or not rows.is_readable(row) else rows.sealed_token(row)

    def jtis_beginning(self, beginning: str, limit: int) -> tuple[Jti, ...]:
        """Return the ids of tokens that begin so, in order, and at most ``limit`` of them."""
        found = self._connection.execute(queries.JTIS_BEGINNING, {"beginning": beginning, "most": limit})
        return tuple(Jti(jti) for jti in found.scalars())

    def token_text(self, jti: Jti, algorithm: Algorithm) -> Secret[bytes] | None:
        """Return the text of a token; None where it was erased, or the KEK that opens it is not at hand."""
        row = self._connection.execute(queries.ONE_TOKEN, {"jti": jti}).mappings().first()
        return None if row is None else self._integrity.open_token(row, algorithm)

    def tokens(self, workspace: WorkspaceId | None = None, *, after: WorkspaceId | None = None) -> Iterator[Token]:
        """Yield tokens, of one workspace or of all (of those ``after`` one), by workspace and sequence."""
        if workspace is None and after is not None:
            return rows.tokens(self._each(queries.TOKENS_AFTER, after=after), self._integrity)
        if workspace is None:
            return rows.tokens(self._each(queries.ALL_TOKENS), self._integrity)
        return rows.tokens(self._each(queries.TOKENS_OF_WORKSPACE, workspace=workspace), self._integrity)

    def tokens_of(self, workspaces: Sequence[WorkspaceId]) -> Iterator[Token]:
        """Yield the tokens of some workspaces, by workspace and sequence."""
        return rows.tokens(self._of_each(queries.TOKENS_OF_WORKSPACES, workspaces), self._integrity)

    def current_tokens(self, workspaces: Sequence[WorkspaceId]) -> Mapping[WorkspaceId, TokenRow]:
        """Return the current token of each of ``workspaces`` that has one."""
        current = self._of_each(queries.CURRENT_TOKENS, workspaces)
        return MappingProxyType(
            {WorkspaceId(row.workspace): rows.sealed_token(row) for row in current if rows.is_readable(row)}
        )

    def expired_tokens(self, before: datetime, limit: int) -> tuple[Token, ...]:
        """Return tokens with ``exp`` < ``before`` that are active or in grace, oldest first."""
        found = self._all(queries.EXPIRED_TOKENS, before=to_us(before), at_most=limit)
        return tuple(rows.tokens(found, self._integrity))

    def revoked_tokens(self, after: datetime) -> Mapping[Jti, datetime]:
        """Return the ends, above ``after``, of the tokens that were revoked by themselves, not with their key."""
        return revoked_tokens(self._connection, self._integrity, after)

    def tokens_on_key(self, kid: Kid, after: datetime, limit: int) -> KeyLoad:
        """Return how many tokens with ``exp`` > ``after`` hang on a key, and the first ``limit`` workspaces by id."""
        load = self._one(queries.LOAD_OF_KEY, kid=kid, after=to_us(after))
        holders = self._all(queries.HOLDERS_OF_KEY, kid=kid, after=to_us(after), at_most=limit)
        return KeyLoad(
            tokens=load[0],
            workspaces=load[1],
            last_exp=noted(load[2]),
            holders=tuple(KeyHolder(row.workspace, row.number, noted(row.last)) for row in holders),
        )

    def overlaps(self) -> tuple[Overlap, ...]:
        """Return every overlap that an operator set and that is not over yet, the first to end first."""
        return asked.overlaps(self._connection, self._integrity)

    def ended_overlaps(self, now: datetime, limit: int) -> tuple[Overlap, ...]:
        """Return overlaps with ``ends_at`` ≤ ``now`` whose token has a successor or is no longer valid anyway."""
        return asked.ended_overlaps(self._connection, self._integrity, now, limit)

    def reach(self, target: Target, now: datetime, *, revoked_since: datetime | None, limit: int) -> Reach:
        """Count what hangs on ``target``: what would be revoked at ``now``, or what was ``revoked_since`` then."""
        return reach.reach(self._connection, self._integrity, target, now, revoked_since, limit)

    # ------------------------------------------------------------------------------------------------------ deliveries

    def due_deliveries(self, now: datetime, limit: int, passed: int = 0) -> tuple[DeliveryRow, ...]:
        """Return deliveries with ``due_at`` ≤ ``now``, longest due first, without the first ``passed``."""
        return self._deliveries(self._all(queries.DUE_DELIVERIES, now=to_us(now), at_most=limit, passed=passed))

    def deliveries(self, workspace: WorkspaceId | None = None) -> tuple[DeliveryRow, ...]:
        """Return the deliveries of one workspace or of all."""
        if workspace is None:
            return self._deliveries(self._all(queries.ALL_DELIVERIES))
        return self._deliveries(self._all(queries.DELIVERIES_OF_WORKSPACE, workspace=workspace))

    def deliveries_of(self, workspaces: Sequence[WorkspaceId]) -> tuple[DeliveryRow, ...]:
        """Return the deliveries of some workspaces."""
        return self._deliveries(list(self._of_each(queries.DELIVERIES_OF_WORKSPACES, workspaces)))

    def _deliveries(self, found: Sequence[rows.AnyRow]) -> tuple[DeliveryRow, ...]:
        return tuple(rows.delivery(row, self._integrity) for row in found)

    def delivery_alarms(self, now: datetime) -> tuple[DeliveryAlarm, ...]:
        """Return open deliveries that failed or are late, those first whose grace ends first."""
        return tuple(
            DeliveryAlarm(
                workspace=row.workspace,
                sink=row.sink,
                wanted_at=noted(row.wanted_at),
                deadline=noted(row.deadline),
                attempts=row.attempts,
                last_error=row.last_error,
            )
            for row in self._all(queries.LATE_DELIVERIES, now=to_us(now), allowed=OVERDUE_AFTER // MICROSECOND)
        )

    # --------------------------------------------------------------------------------------------------- integrity

    def changed_rows(self) -> tuple[RowProblem, ...]:
        """Return the rows of the small tables that somebody else wrote or took away."""
        return tuple(scrub.small_tables(self._connection, self._integrity))

    def changed_tokens(self, after: Jti, limit: int, now: datetime) -> tuple[tuple[RowProblem, ...], Jti | None]:
        """Return those of the next ``limit`` tokens by jti, and the last jti of them; None when there are no more."""
        return scrub.token_page(self._connection, self._integrity, after, limit, now)

    def workspaces_after(self, after: WorkspaceId, limit: int) -> tuple[WorkspaceSeen, ...]:
        """Return the next ``limit`` workspaces by id, each with whether its row is authentic."""
        return scrub.workspace_page(self._connection, self._integrity, after, limit)

    # -------------------------------------------------------------------------------------------------------- requests

    def open_requests(self) -> tuple[RequestRow, ...]:
        """Return unfinished requests in the order of their making."""
        return tuple(map(rows.request, self._all(queries.OPEN_REQUESTS)))

    def answered_requests(self, limit: int) -> tuple[RequestRow, ...]:
        """Return the latest ``limit`` finished requests."""
        return tuple(map(rows.request, self._all(queries.ANSWERED_REQUESTS, limit=limit)))

    def stored_nonces(self, nonces: Collection[str]) -> frozenset[str]:
        """Return those of ``nonces`` that a request has, finished or not."""
        wanted = sorted(nonces)
        chunks = (wanted[first : first + NONCES_AT_ONCE] for first in range(0, len(wanted), NONCES_AT_ONCE))
        return frozenset(row.nonce for chunk in chunks for row in self._all(queries.NONCES, nonces=chunk))

    def request(self, request_id: int) -> RequestRow | None:
        """Return one request."""
        row = self._first(queries.ONE_REQUEST, id=request_id)
        return None if row is None else rows.request(row)

    # ----------------------------------------------------------------------------------------------------------- audit

    def audit_head(self) -> AuditHead:
        """Return the head of the chain."""
        return chain.head_of(self._connection, self._only(queries.AUDIT_HEAD, "audit_head"))

    def audit(
        self, after: int = 0, limit: int | None = None, *, names: Collection[EventName] | None = None
    ) -> Iterator[AuditRow]:
        """Yield events with a sequence number above ``after``, in order; of ``names`` alone, where they are given."""
        listed = queries.AUDIT_AFTER if limit is None else queries.AUDIT_AFTER.limit(limit)
        if names is not None:
            listed = listed.where(queries.AUDIT.name.in_(sorted(names)))
        return map(rows.audit, self._each(listed, after=after))

    def newest_audit(self, wanted: AuditWanted) -> Iterator[AuditRow]:
        """Yield the events that are ``wanted``, the newest first."""
        return map(rows.audit, self._each(trail.newest(wanted)))

    def audit_hash(self, seq: int) -> str | None:
        """Return the hash of one event (the anchor's, too); None if there is no such event."""
        row = self._first(queries.AUDIT_HASH, seq=seq)
        if row is not None:
            return str(row.hash)
        head = self.audit_head()
        return head.anchor_hash if seq == head.anchor_seq else None

    # ------------------------------------------------------------------------------------------------------- overviews

    def next_due(self, signing: Sequence[KeysetName]) -> datetime | None:
        """Return when the first keyset, delivery, overlap, or workspace on a ``signing`` keyset is due.

        None: nothing is.
        """
        moments = [noted(moment) for moment in self._one(queries.NEXT_DUE, signing=list(signing))]
        moments.append(asked.next_end(self._connection, self._integrity))
        return min((moment for moment in moments if moment is not None), default=None)

    def counts(self) -> Mapping[str, int]:
        """Return ``workspaces`` (not removed), ``tokens`` (pending, active or in grace), ``events``."""
        counted = self._one(queries.COUNTS)
        return MappingProxyType({"workspaces": counted[0], "tokens": counted[1], "events": counted[2]})
