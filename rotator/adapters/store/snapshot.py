"""Reads of one consistent state. What a tick asks for is answered from an index, whatever else the tables hold."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

import sqlalchemy as sa

from rotator.adapters.store import asked, reach, rows, schema
from rotator.adapters.store.migrate import HEAD
from rotator.adapters.store.revoke import revoked_tokens
from rotator.adapters.store.times import from_us, to_us
from rotator.core.model import Jti, KeysetName, Kid, Overlap, Token, Wish, WorkspaceId, WorkspaceState
from rotator.ports import (
    AuditHead,
    AuditRow,
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
    Sighting,
    Target,
    TokenRow,
)

FETCHED_AT_ONCE: Final = 1_000
"""Rows that a long listing holds in memory at a time."""

NAMED_AT_ONCE: Final = 5_000
"""Ids in one query: below the limits of both databases."""

KEYSETS: Final = schema.keysets.c
KEYS: Final = schema.signing_keys.c
SIGHTINGS: Final = schema.sightings.c
REPLICAS: Final = schema.replicas.c
WORKSPACES: Final = schema.workspaces.c
TOKENS: Final = schema.tokens.c
DELIVERIES: Final = schema.deliveries.c
REQUESTS: Final = schema.requests.c
AUDIT: Final = schema.audit.c

TOKEN_WITHOUT_TEXT: Final = [
    TOKENS[name]
    for name in (
        "jti",
        "workspace",
        "keyset",
        "kid",
        "phase",
        "sequence",
        "issued_at",
        "expires_at",
        "rotate_at",
        "superseded_at",
        "revoked_at",
        "retired_at",
    )
]

# A query that uses a partial index repeats its condition word for word: a parameter in it would prove nothing.
NOT_REMOVED: Final = sa.text(f"workspaces.{schema.NOT_REMOVED}")
REMOVED: Final = sa.text(f"workspaces.{schema.REMOVED}")
FAILING: Final = sa.text(f"workspaces.{schema.FAILING}")
LIVE: Final = sa.text(f"tokens.{schema.LIVE}")

KEYSET_IN_USE: Final = sa.select(
    sa.exists().where(WORKSPACES.keyset == sa.bindparam("name"), NOT_REMOVED)
    | sa.exists().where(
        KEYS.keyset == sa.bindparam("name"),
        WORKSPACES.current_kid == KEYS.kid,
        WORKSPACES.current_expires_at > sa.bindparam("now"),
        REMOVED,
    )
)

DUE_WORKSPACES: Final = (
    sa.select(*rows.WORKSPACE)
    .where(
        WORKSPACES.keyset.in_(sa.bindparam("keysets", expanding=True)),
        WORKSPACES.next_at <= sa.bindparam("now"),
        NOT_REMOVED,
    )
    .order_by(WORKSPACES.next_at)
    .limit(sa.bindparam("at_most"))
)

OVERDUE_WORKSPACES: Final = sa.select(
    # Seeks into the index once per keyset, then reads what is overdue and nothing else.
    sa.select(sa.func.count())
    .where(
        WORKSPACES.keyset.in_(sa.select(KEYSETS.name)),
        WORKSPACES.next_at < sa.bindparam("before"),
        NOT_REMOVED,
    )
    .scalar_subquery()
    + sa.select(sa.func.count())
    .where(
        WORKSPACES.next_at >= sa.bindparam("before"), WORKSPACES.due_at < sa.bindparam("before"), NOT_REMOVED, FAILING
    )
    .scalar_subquery()
)

NEXT_DUE_WORKSPACE: Final = (
    sa.select(
        sa.select(WORKSPACES.next_at)
        .where(WORKSPACES.keyset == KEYSETS.name, NOT_REMOVED)
        .order_by(WORKSPACES.next_at)
        .limit(1)
        .correlate(schema.keysets)
        .scalar_subquery()
        .label("at")
    )
    .where(KEYSETS.name.in_(sa.bindparam("signing", expanding=True)))
    .subquery()
)

NEXT_DUE: Final = sa.select(
    sa.select(sa.func.min(KEYSETS.next_at)).scalar_subquery(),
    sa.select(sa.func.min(NEXT_DUE_WORKSPACE.c.at)).scalar_subquery(),
    sa.select(sa.func.min(DELIVERIES.due_at)).where(DELIVERIES.due_at.is_not(None)).scalar_subquery(),
)


class SqlSnapshot:
    """A :class:`~rotator.ports.Snapshot` on one connection, whose transaction its maker began and ends."""

    def __init__(self, connection: sa.Connection, revision: str = HEAD) -> None:
        self._connection = connection
        self._asks: Final = revision >= asked.SINCE
        self._under_way: set[sa.CursorResult[Any]] = set()

    def close(self) -> None:
        """End the listings that were not read to their end: an open cursor holds the snapshot, and with it the log."""
        for result in self._under_way:
            result.close()

    def _all(self, statement: sa.Select[Any], **parameters: object) -> Sequence[rows.AnyRow]:
        return self._connection.execute(statement, parameters).all()

    def _first(self, statement: sa.Select[Any], **parameters: object) -> rows.AnyRow | None:
        return self._connection.execute(statement, parameters).first()

    def _each(self, statement: sa.Select[Any]) -> Iterator[rows.AnyRow]:
        result = self._connection.execute(statement, execution_options={"yield_per": FETCHED_AT_ONCE})
        self._under_way.add(result)
        yield from result
        self._under_way.discard(result)

    # -------------------------------------------------------------------------------------------------------- itself

    def installation(self) -> str:
        """Return the id that this database was created with."""
        return str(self._connection.execute(sa.select(schema.installation.c.id)).scalar_one())

    def clock_mark(self) -> ClockMark | None:
        """Return what is remembered of time; None before the first tick."""
        row = self._first(sa.select(schema.clock))
        return None if row is None else rows.clock_mark(row)

    def keks(self) -> tuple[KekRow, ...]:
        """Return every KEK in use."""
        found = self._all(sa.select(schema.keks).order_by(schema.keks.c.kek_id))
        return tuple(KekRow(row.kek_id, row.check_value) for row in found)

    # -------------------------------------------------------------------------------------------------- keysets, keys

    def keysets(self) -> tuple[KeysetRow, ...]:
        """Return every keyset, ended ones included, by name."""
        return tuple(map(rows.keyset, self._all(sa.select(schema.keysets).order_by(KEYSETS.name))))

    def keyset(self, name: KeysetName) -> KeysetRow | None:
        """Return one keyset."""
        row = self._first(sa.select(schema.keysets).where(KEYSETS.name == name))
        return None if row is None else rows.keyset(row)

    def due_keysets(self, now: datetime) -> tuple[KeysetName, ...]:
        """Return the keysets with ``due_at`` ≤ ``now`` and no ``retry_at`` after it, most overdue first."""
        due = sa.select(KEYSETS.name).where(KEYSETS.next_at <= to_us(now)).order_by(KEYSETS.due_at, KEYSETS.name)
        return tuple(row.name for row in self._all(due))

    def keyset_in_use(self, name: KeysetName, now: datetime) -> bool:
        """Tell whether a workspace that is not removed, or the unexpired current token of a removed one, is on it."""
        return bool(self._connection.execute(KEYSET_IN_USE, {"name": name, "now": to_us(now)}).scalar_one())

    def keys(self, keyset: KeysetName) -> tuple[KeyRow, ...]:
        """Return its keys by sequence, without those that are retired or revoked and destroyed."""
        gone = KEYS.phase.in_(("retired", "revoked")) & KEYS.destroyed_at.is_not(None)
        live = sa.select(schema.signing_keys).where(KEYS.keyset == keyset, ~gone).order_by(KEYS.sequence, KEYS.kid)
        return tuple(map(rows.key, self._all(live)))

    def all_keys(self) -> tuple[KeyRow, ...]:
        """Return every key ever, by keyset and sequence."""
        every = sa.select(schema.signing_keys).order_by(KEYS.keyset, KEYS.sequence, KEYS.kid)
        return tuple(map(rows.key, self._all(every)))

    def key(self, kid: Kid) -> KeyRow | None:
        """Return one key."""
        row = self._first(sa.select(schema.signing_keys).where(KEYS.kid == kid))
        return None if row is None else rows.key(row)

    def sightings(self, keyset: KeysetName) -> tuple[Sighting, ...]:
        """Return every sighting of the keyset's kids, forgotten replicas left out."""
        forgotten = sa.select(REPLICAS.replica).where(REPLICAS.forgotten_at.is_not(None))
        seen = (
            sa.select(schema.sightings)
            .where(SIGHTINGS.keyset == keyset, SIGHTINGS.replica.not_in(forgotten))
            .order_by(SIGHTINGS.replica, SIGHTINGS.kid)
        )
        return tuple(map(rows.sighting, self._all(seen)))

    def replicas(self) -> tuple[ReplicaRow, ...]:
        """Return the replicas that are not forgotten."""
        known = sa.select(schema.replicas).where(REPLICAS.forgotten_at.is_(None)).order_by(REPLICAS.replica)
        return tuple(map(rows.replica, self._all(known)))

    def wish(self, keyset: KeysetName) -> Wish | None:
        """Return what an operator asked of a keyset, if it is not fulfilled yet."""
        return asked.wish(self._connection, keyset) if self._asks else None

    # ------------------------------------------------------------------------------------------------------ workspaces

    def workspaces(self) -> Iterator[WorkspaceState]:
        """Yield every workspace, removed ones included, by id."""
        return map(rows.workspace, self._each(sa.select(*rows.WORKSPACE).order_by(WORKSPACES.id)))

    def workspace(self, workspace: WorkspaceId) -> WorkspaceState | None:
        """Return one workspace."""
        row = self._first(sa.select(*rows.WORKSPACE).where(WORKSPACES.id == workspace))
        return None if row is None else rows.workspace(row)

    def due_workspaces(self, keysets: Sequence[KeysetName], now: datetime, limit: int) -> tuple[WorkspaceState, ...]:
        """Return workspaces on ``keysets``, not removed, with ``due_at`` ≤ ``now`` and no later ``retry_at``."""
        due = self._all(DUE_WORKSPACES, keysets=list(keysets), now=to_us(now), at_most=limit)
        return tuple(map(rows.workspace, due))

    def overdue_workspaces(self, before: datetime) -> int:
        """Count workspaces, not removed, with ``due_at`` < ``before``."""
        return int(self._connection.execute(OVERDUE_WORKSPACES, {"before": to_us(before)}).scalar_one())

    def workspace_faults(self) -> tuple[tuple[WorkspaceId, int, str], ...]:
        """Return workspaces whose last issue failed: id, failures in a row, message."""
        failing = sa.select(WORKSPACES.id, WORKSPACES.failures, WORKSPACES.fault).where(FAILING, NOT_REMOVED)
        # Sorted here: asked to, SQLite would rather walk all workspaces in the order of their ids.
        return tuple(sorted((WorkspaceId(row.id), row.failures, row.fault) for row in self._all(failing)))

    # ---------------------------------------------------------------------------------------------------------- tokens

    def token(self, jti: Jti) -> TokenRow | None:
        """Return one token."""
        row = self._first(sa.select(schema.tokens).where(TOKENS.jti == jti))
        return None if row is None else rows.sealed_token(row)

    def tokens(self, workspace: WorkspaceId | None = None) -> Iterator[Token]:
        """Yield tokens, of one workspace or of all, by workspace and sequence."""
        listed = sa.select(*TOKEN_WITHOUT_TEXT).order_by(TOKENS.workspace, TOKENS.sequence)
        if workspace is not None:
            listed = listed.where(TOKENS.workspace == workspace)
        return map(rows.token, self._each(listed))

    def current_tokens(self, workspaces: Sequence[WorkspaceId]) -> Mapping[WorkspaceId, TokenRow]:
        """Return the current token of each of ``workspaces`` that has one."""
        joined = schema.tokens.join(schema.workspaces, WORKSPACES.current == TOKENS.jti)
        current = sa.select(schema.tokens).select_from(joined)
        found: dict[WorkspaceId, TokenRow] = {}
        for start in range(0, len(workspaces), NAMED_AT_ONCE):
            named = WORKSPACES.id.in_(workspaces[start : start + NAMED_AT_ONCE])
            found |= {WorkspaceId(row.workspace): rows.sealed_token(row) for row in self._all(current.where(named))}
        return MappingProxyType(found)

    def expired_tokens(self, before: datetime, limit: int) -> tuple[Token, ...]:
        """Return tokens with ``exp`` < ``before`` that are active or in grace, oldest first."""
        expired = (
            sa.select(*TOKEN_WITHOUT_TEXT)
            .where(LIVE, TOKENS.expires_at < to_us(before))
            .order_by(TOKENS.expires_at)
            .limit(limit)
        )
        return tuple(map(rows.token, self._all(expired)))

    def revoked_tokens(self, after: datetime) -> Mapping[Jti, datetime]:
        """Return the ends, above ``after``, of the tokens that were revoked by themselves, not with their key."""
        return revoked_tokens(self._connection, after)

    def tokens_on_key(self, kid: Kid, after: datetime, limit: int) -> KeyLoad:
        """Return how many tokens with ``exp`` > ``after`` hang on a key, and the first ``limit`` workspaces by id."""
        on_key = (LIVE, TOKENS.kid == kid, TOKENS.expires_at > to_us(after))
        counted = self._connection.execute(
            sa.select(
                sa.func.count(), sa.func.count(sa.distinct(TOKENS.workspace)), sa.func.max(TOKENS.expires_at)
            ).where(*on_key)
        ).one()
        holders = self._all(
            sa.select(TOKENS.workspace, sa.func.count().label("number"), sa.func.max(TOKENS.expires_at).label("last"))
            .where(*on_key)
            .group_by(TOKENS.workspace)
            .order_by(TOKENS.workspace)
            .limit(limit)
        )
        return KeyLoad(
            tokens=counted[0],
            workspaces=counted[1],
            last_exp=from_us(counted[2]),
            holders=tuple(KeyHolder(row.workspace, row.number, from_us(row.last)) for row in holders),
        )

    def overlaps(self) -> tuple[Overlap, ...]:
        """Return every overlap that an operator set and that is not over yet, the first to end first."""
        return asked.overlaps(self._connection) if self._asks else ()

    def ended_overlaps(self, now: datetime, limit: int) -> tuple[Overlap, ...]:
        """Return overlaps with ``ends_at`` ≤ ``now`` whose token has a successor or is no longer valid anyway."""
        return asked.ended_overlaps(self._connection, now, limit) if self._asks else ()

    def reach(self, target: Target, now: datetime, *, revoked_since: datetime | None, limit: int) -> Reach:
        """Count what hangs on ``target``: what would be revoked at ``now``, or what was ``revoked_since`` then."""
        return reach.reach(self._connection, target, now, revoked_since, limit)

    # ------------------------------------------------------------------------------------------------------ deliveries

    def due_deliveries(self, now: datetime, limit: int) -> tuple[DeliveryRow, ...]:
        """Return deliveries with ``due_at`` ≤ ``now``, longest due first."""
        due = (
            sa.select(schema.deliveries).where(DELIVERIES.due_at <= to_us(now)).order_by(DELIVERIES.due_at).limit(limit)
        )
        return tuple(map(rows.delivery, self._all(due)))

    def deliveries(self, workspace: WorkspaceId | None = None) -> tuple[DeliveryRow, ...]:
        """Return the deliveries of one workspace or of all."""
        listed = sa.select(schema.deliveries).order_by(DELIVERIES.workspace, DELIVERIES.sink)
        if workspace is not None:
            listed = listed.where(DELIVERIES.workspace == workspace)
        return tuple(map(rows.delivery, self._all(listed)))

    def delivery_alarms(self) -> tuple[DeliveryAlarm, ...]:
        """Return open deliveries with at least one failed attempt."""
        failing = (
            sa.select(schema.deliveries)
            .where(sa.text(f"deliveries.{schema.FAILED_DELIVERY}"), DELIVERIES.due_at.is_not(None))
            .order_by(DELIVERIES.deadline, DELIVERIES.workspace, DELIVERIES.sink)
        )
        return tuple(
            DeliveryAlarm(
                workspace=row.workspace,
                sink=row.sink,
                wanted_at=from_us(row.wanted_at),
                deadline=from_us(row.deadline),
                attempts=row.attempts,
                last_error=row.last_error,
            )
            for row in self._all(failing)
        )

    # -------------------------------------------------------------------------------------------------------- requests

    def open_requests(self) -> tuple[RequestRow, ...]:
        """Return unfinished requests in the order of their making."""
        waiting = sa.select(schema.requests).where(REQUESTS.finished_at.is_(None)).order_by(REQUESTS.id)
        return tuple(map(rows.request, self._all(waiting)))

    def request(self, request_id: int) -> RequestRow | None:
        """Return one request."""
        row = self._first(sa.select(schema.requests).where(REQUESTS.id == request_id))
        return None if row is None else rows.request(row)

    # ----------------------------------------------------------------------------------------------------------- audit

    def audit_head(self) -> AuditHead:
        """Return the head of the chain."""
        row = self._connection.execute(sa.select(schema.audit_head)).one()
        return AuditHead(row.seq, row.hash, row.anchor_seq, row.anchor_hash, row.logged_seq)

    def audit(self, after: int = 0, limit: int | None = None) -> Iterator[AuditRow]:
        """Yield events with a sequence number above ``after``, in order."""
        listed = sa.select(schema.audit).where(AUDIT.seq > after).order_by(AUDIT.seq).limit(limit)
        return map(rows.audit, self._each(listed))

    def audit_hash(self, seq: int) -> str | None:
        """Return the hash of one event (the anchor's, too); None if there is no such event."""
        found = self._connection.execute(sa.select(AUDIT.hash).where(AUDIT.seq == seq)).scalar()
        if found is None:
            head = self.audit_head()
            found = head.anchor_hash if seq == head.anchor_seq else None
        return found

    # ------------------------------------------------------------------------------------------------------- overviews

    def next_due(self, signing: Sequence[KeysetName]) -> datetime | None:
        """Return when the first keyset, delivery, overlap, or workspace on a ``signing`` keyset is due.

        None: nothing is.
        """
        moments = [from_us(moment) for moment in self._connection.execute(NEXT_DUE, {"signing": list(signing)}).one()]
        if self._asks:
            moments.append(asked.next_end(self._connection))
        return min((moment for moment in moments if moment is not None), default=None)

    def counts(self) -> Mapping[str, int]:
        """Return ``workspaces`` (not removed), ``tokens`` (pending, active or in grace), ``events``."""
        counted = self._connection.execute(
            sa.select(
                sa.select(sa.func.count()).select_from(schema.workspaces).where(NOT_REMOVED).scalar_subquery(),
                sa.select(sa.func.count()).select_from(schema.tokens).where(LIVE).scalar_subquery()
                + sa.select(sa.func.count())
                .select_from(schema.tokens)
                .where(TOKENS.phase == "pending")
                .scalar_subquery(),
                sa.select(sa.func.count()).select_from(schema.audit).scalar_subquery(),
            )
        ).one()
        return MappingProxyType({"workspaces": counted[0], "tokens": counted[1], "events": counted[2]})
