"""Rows of the database as the records of the ports."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import Row

from rotator.adapters.store import schema
from rotator.adapters.store.integrity import Columns, Integrity
from rotator.adapters.store.times import from_us, noted, span_from_us
from rotator.core.events import Detail, Event, EventName
from rotator.core.instants import EPOCH
from rotator.core.model import Algorithm, DueWorkspace, Origin, Phase, SigningKey, SinkId, Token, WorkspaceState
from rotator.errors import StoreError
from rotator.ports import (
    AuditRow,
    ClockMark,
    DeliveryRow,
    KekRow,
    KeyRow,
    KeysetRow,
    ReplicaRow,
    RequestRow,
    Sighting,
    TokenRow,
)

AnyRow = Row[*tuple[Any, ...]]
T = TypeVar("T")

WORKSPACE: Final = tuple(schema.workspaces.c[name] for name in WorkspaceState._fields)
"""The columns that :func:`workspace` reads."""

WORKSPACE_WITH_MAC: Final = (*WORKSPACE, schema.workspaces.c.kek_id, schema.workspaces.c.mac)
"""And those that it is verified by."""

ENDED: Final = (Phase.RETIRED, Phase.REVOKED)

KNOWN: Final = frozenset({*map(str, Algorithm), *map(str, Origin), *map(str, Phase)})

UNREADABLE: Final = (ValueError, OverflowError, TypeError)
"""What a row raises in which there is something that nobody wrote."""

DUE_WORKSPACE: Final = tuple(schema.workspaces.c[name] for name in DueWorkspace._fields)
"""The columns that :func:`due_workspace` reads."""


def _columns(row: AnyRow) -> Columns:
    return row._mapping  # noqa: SLF001 - public by its documentation, and named so for the columns' sake


def _count(noted_count: int) -> int:
    """Return how often something failed, within reason: it is a note that no MAC covers."""
    return min(max(noted_count, 0), 1_000_000)


def clock_mark(row: AnyRow) -> ClockMark:
    """Read a row of ``clock``."""
    return ClockMark(high_water_at=from_us(row.high_water_at), boot_id=row.boot_id, offset=span_from_us(row.offset_us))


def kek(row: AnyRow) -> KekRow:
    """Read a row of ``keks``."""
    return KekRow(row.kek_id, row.check_value, noted(row.created_at))


def keyset(row: AnyRow, integrity: Integrity) -> KeysetRow:
    """Read a row of ``keysets``. It is put off until ``next_at``, whatever the two say that this is made from."""
    put_off = row.next_at if row.next_at > max(row.due_at, row.retry_at or row.due_at) else row.retry_at
    return KeysetRow(
        name=row.name,
        generation=row.generation,
        schedule_fingerprint=row.schedule_fingerprint,
        next_sequence=row.next_sequence,
        ever_active=bool(row.ever_active),
        due_at=noted(row.due_at),
        ended_at=noted(row.ended_at),
        failures=_count(row.failures),
        retry_at=noted(put_off),
        fault=row.fault,
        set_sha256=row.set_sha256,
        policy=row.policy,
        authentic=integrity.holds("keysets", _columns(row)),
    )


def key(row: AnyRow, integrity: Integrity) -> KeyRow:
    """Read a row of ``signing_keys``.

    Of one that is not authentic what can be read is kept, and nobody believes it; least of all that its key was revoked
    or retired, for that would take a live one out of the set.
    """
    authentic = integrity.holds("signing_keys", _columns(row))
    algorithm, origin, phase = row.algorithm, row.origin, row.phase
    if not authentic and phase in ENDED:
        phase = Phase.GRACE
    readable = algorithm in KNOWN and origin in KNOWN and phase in KNOWN
    public = SigningKey(
        kid=row.kid,
        keyset=row.keyset,
        sequence=row.sequence,
        algorithm=Algorithm(algorithm) if algorithm in KNOWN else Algorithm.ES256,
        phase=Phase(phase) if phase in KNOWN else Phase.PENDING,
        created_at=noted(row.created_at),
        origin=Origin(origin) if origin in KNOWN else Origin.ADOPTED,
        public_jwk=row.public_jwk,
        has_private=row.sealed is not None,
        authentic=authentic and readable,
        proven_at=noted(row.proven_at),
        activated_at=noted(row.activated_at),
        rotate_at=noted(row.rotate_at),
        demoted_at=noted(row.demoted_at),
        grace_until=noted(row.grace_until),
        last_exp=noted(row.last_exp),
        retired_at=noted(row.retired_at) if authentic else None,
        revoked_at=noted(row.revoked_at) if authentic else None,
        destroyed_at=noted(row.destroyed_at) if authentic else None,
    )
    return KeyRow(public, row.sealed, row.kek_id)


def sighting(row: AnyRow) -> Sighting:
    """Read a row of ``sightings``."""
    return Sighting(
        replica=row.replica,
        keyset=row.keyset,
        kid=row.kid,
        seen_at=from_us(row.seen_at),
        absent_until=from_us(row.absent_until),
        boot_id=row.boot_id,
        since_boot=span_from_us(row.since_boot_us),
    )


def replica(row: AnyRow, integrity: Integrity) -> ReplicaRow:
    """Read a row of ``replicas``. One that is not authentic is that of a replica of which no more is known."""
    authentic = integrity.holds("replicas", _columns(row))
    return ReplicaRow(
        replica=row.replica,
        started_at=noted(row.started_at),
        seen_at=noted(row.seen_at),
        forgotten_at=noted(row.forgotten_at) if authentic else None,
    )


def believed(table: str, found: Iterable[AnyRow], integrity: Integrity, read: Callable[[AnyRow], T]) -> Iterator[T]:
    """Yield the records of those rows of ``table`` that are authentic and can be read. Who looks at all names others.

    One row that is not ours holds up no other.
    """
    for row in found:
        if integrity.holds(table, _columns(row)):
            try:
                record = read(row)
            except UNREADABLE:
                continue
            yield record


class Lazily(Collection[T]):
    """Records, each read from its row when its turn comes: the first of many can be worked on at once."""

    def __init__(self, found: Sequence[AnyRow], read: Callable[[AnyRow], T]) -> None:
        self._found = found
        self._read = read

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[T]:
        return map(self._read, self._found)

    def __contains__(self, record: object) -> bool:
        return any(each == record for each in self)


def due_workspace(row: AnyRow) -> DueWorkspace:
    """Read :data:`DUE_WORKSPACE` of a row of ``workspaces``."""
    values: tuple[Any, ...] = tuple(row)
    name, sequence, jti, expires, due_reason = values
    return DueWorkspace(name, sequence, jti, noted(expires), due_reason)


def workspace(row: AnyRow, integrity: Integrity) -> WorkspaceState:
    """Read :data:`WORKSPACE_WITH_MAC` of a row of ``workspaces``: unpacked, for thousands are read at a time.

    Of one that is not authentic nothing is believed that the config has to say: so the config is applied to it anew.
    """
    return workspace_of(tuple(row), authentic=integrity.holds("workspaces", _columns(row)))


def workspace_of(values: tuple[Any, ...], *, authentic: bool) -> WorkspaceState:
    """Read the values of :data:`WORKSPACE_WITH_MAC`."""
    name, keyset, sequence, due, jti, kid, issued, expires, claims, schedule, sinks, due_reason, *rest = values
    removed, returned, deletes = rest[:3]
    if not authentic:
        claims = schedule = sinks = ""
        removed = returned = None
        deletes = ""
    return WorkspaceState(
        name,
        keyset,
        sequence,
        noted(due),
        jti,
        kid,
        noted(issued),
        noted(expires),
        claims,
        schedule,
        sinks,
        due_reason,
        noted(removed),
        noted(returned),
        _names(deletes) if deletes else (),
    )


def _names(stored: str) -> tuple[SinkId, ...]:
    return tuple(json.loads(stored))


def encode_names(names: Sequence[SinkId]) -> str:
    """Return the stored form of names of sinks; empty when there are none."""
    return json.dumps(names, ensure_ascii=False, separators=(",", ":")) if names else ""


def tokens(found: Iterable[AnyRow], integrity: Integrity) -> Iterator[Token]:
    """Yield the tokens of those rows of ``tokens`` that are authentic and can be read."""
    for row in found:
        if integrity.token_holds(_columns(row)):
            try:
                record = token(row)
            except UNREADABLE:
                continue
            yield record


def token(row: AnyRow) -> Token:
    """Read a row of ``tokens`` without its sealed text."""
    return Token(
        jti=row.jti,
        workspace=row.workspace,
        keyset=row.keyset,
        kid=row.kid,
        phase=Phase(row.phase),
        sequence=row.sequence,
        issued_at=from_us(row.issued_at),
        expires_at=from_us(row.expires_at),
        rotate_at=from_us(row.rotate_at),
        superseded_at=noted(row.superseded_at),
        revoked_at=noted(row.revoked_at),
        retired_at=noted(row.retired_at),
    )


def is_readable(row: AnyRow) -> bool:
    """Tell whether a row of ``tokens`` can be read at all."""
    try:
        token(row)
    except UNREADABLE:
        return False
    return True


def sealed_token(row: AnyRow) -> TokenRow:
    """Read a row of ``tokens`` with its sealed text."""
    return TokenRow(token(row), row.sealed, row.kek_id, row.reason)


def delivery(row: AnyRow, integrity: Integrity) -> DeliveryRow:
    """Read a row of ``deliveries``. What its sink is said to hold, and nothing authenticates, it does not hold."""
    holds = row.delivered_sequence == 0 or integrity.holds("deliveries", _columns(row))
    return DeliveryRow(
        workspace=row.workspace,
        sink=row.sink,
        jti=row.jti,
        sequence=row.sequence,
        wanted_at=noted(row.wanted_at),
        deadline=noted(row.deadline),
        delivered_sequence=row.delivered_sequence if holds else 0,
        delivered_at=noted(row.delivered_at),
        attempts=_count(row.attempts),
        due_at=noted(row.due_at),
        last_error=row.last_error,
    )


def request(row: AnyRow) -> RequestRow:
    """Read a row of ``requests``; one that cannot be read has no MAC, so that nobody takes it for a request."""
    try:
        arguments, bound, mac = _plain(row.arguments), _plain(row.bound), bytes(row.mac)
        created_at, finished_at = from_us(row.created_at), from_us(row.finished_at)
    except (ValueError, OverflowError, RecursionError):
        arguments, bound, mac, created_at, finished_at = {}, {}, b"", EPOCH, None
    return RequestRow(
        id=row.id,
        kind=row.kind,
        arguments=arguments,
        actor=row.actor,
        uid=row.uid,
        reason=row.reason,
        created_at=created_at,
        nonce=row.nonce,
        bound=bound,
        kek_id=row.kek_id,
        mac=mac,
        finished_at=finished_at,
        succeeded=None if row.succeeded is None else bool(row.succeeded),
        result=row.result,
    )


def _plain(stored: str) -> Mapping[str, Detail]:
    details = decode_details(stored)
    if not all(value is None or isinstance(value, str | int) for value in details.values()):
        raise ValueError("a value is neither text nor a whole number")
    return details


def audit(row: AnyRow) -> AuditRow:
    """Read a row of ``audit``, exactly as it was chained. Raise :class:`StoreError` if no event can look like it."""
    try:
        event = Event(
            name=EventName(row.name),
            at=from_us(row.at),
            keyset=row.keyset,
            workspace=row.workspace,
            kid=row.kid,
            jti=row.jti,
            actor=row.actor,
            reason=row.reason,
            details=decode_details(row.details),
        )
    except (ValueError, OverflowError) as error:
        raise StoreError(
            f"audit event {row.seq} is not one that rotator wrote ({error}): somebody changed the audit table. Compare "
            "with the log, which has every event too"
        ) from error
    return AuditRow(row.seq, event, row.hash)


def decode_details(stored: str) -> Mapping[str, Detail]:
    """Read what :func:`~rotator.core.events.encode_details` wrote. Raise ``ValueError`` if it is something else."""
    details = json.loads(stored) if stored else {}
    if not isinstance(details, dict):
        raise ValueError("its details are no mapping")  # noqa: TRY004 - a value of the wrong kind in a file
    return details
