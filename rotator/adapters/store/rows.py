"""Rows of the database as the records of the ports."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import Row

from rotator.adapters.store import schema
from rotator.adapters.store.times import from_us, span_from_us
from rotator.core.events import Detail, Event, EventName
from rotator.core.model import Algorithm, DueWorkspace, Origin, Phase, SigningKey, Token, WorkspaceState
from rotator.errors import StoreError
from rotator.ports import (
    AuditRow,
    ClockMark,
    DeliveryRow,
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

DUE_WORKSPACE: Final = tuple(schema.workspaces.c[name] for name in DueWorkspace._fields)
"""The columns that :func:`due_workspace` reads."""


def clock_mark(row: AnyRow) -> ClockMark:
    """Read a row of ``clock``."""
    return ClockMark(high_water_at=from_us(row.high_water_at), boot_id=row.boot_id, offset=span_from_us(row.offset_us))


def keyset(row: AnyRow) -> KeysetRow:
    """Read a row of ``keysets``."""
    return KeysetRow(
        name=row.name,
        generation=row.generation,
        schedule_fingerprint=row.schedule_fingerprint,
        next_sequence=row.next_sequence,
        ever_active=bool(row.ever_active),
        due_at=from_us(row.due_at),
        ended_at=from_us(row.ended_at),
        failures=row.failures,
        retry_at=from_us(row.retry_at),
        fault=row.fault,
        set_sha256=row.set_sha256,
        policy=row.policy,
    )


def key(row: AnyRow) -> KeyRow:
    """Read a row of ``signing_keys``."""
    public = SigningKey(
        kid=row.kid,
        keyset=row.keyset,
        sequence=row.sequence,
        algorithm=Algorithm(row.algorithm),
        phase=Phase(row.phase),
        created_at=from_us(row.created_at),
        origin=Origin(row.origin),
        public_jwk=row.public_jwk,
        has_private=row.sealed is not None,
        proven_at=from_us(row.proven_at),
        activated_at=from_us(row.activated_at),
        rotate_at=from_us(row.rotate_at),
        demoted_at=from_us(row.demoted_at),
        grace_until=from_us(row.grace_until),
        last_exp=from_us(row.last_exp),
        retired_at=from_us(row.retired_at),
        revoked_at=from_us(row.revoked_at),
        destroyed_at=from_us(row.destroyed_at),
    )
    return KeyRow(public, row.sealed, row.kek_id, row.mac)


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


def replica(row: AnyRow) -> ReplicaRow:
    """Read a row of ``replicas``."""
    return ReplicaRow(
        replica=row.replica,
        started_at=from_us(row.started_at),
        seen_at=from_us(row.seen_at),
        forgotten_at=from_us(row.forgotten_at),
    )


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
    name, sequence, jti, expires, claims, schedule, due_reason = values
    return DueWorkspace(name, sequence, jti, from_us(expires), claims, schedule, due_reason)


def workspace(row: AnyRow) -> WorkspaceState:
    """Read :data:`WORKSPACE` of a row of ``workspaces``: unpacked, for thousands are read at a time."""
    values: tuple[Any, ...] = tuple(row)
    name, keyset, sequence, due, jti, kid, issued, expires, claims, schedule, sinks, due_reason, removed = values
    return WorkspaceState(
        name,
        keyset,
        sequence,
        from_us(due),
        jti,
        kid,
        from_us(issued),
        from_us(expires),
        claims,
        schedule,
        sinks,
        due_reason,
        from_us(removed),
    )


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
        superseded_at=from_us(row.superseded_at),
        revoked_at=from_us(row.revoked_at),
        retired_at=from_us(row.retired_at),
    )


def sealed_token(row: AnyRow) -> TokenRow:
    """Read a row of ``tokens`` with its sealed text."""
    return TokenRow(token(row), row.sealed, row.kek_id, row.reason)


def delivery(row: AnyRow) -> DeliveryRow:
    """Read a row of ``deliveries``."""
    return DeliveryRow(
        workspace=row.workspace,
        sink=row.sink,
        jti=row.jti,
        sequence=row.sequence,
        wanted_at=from_us(row.wanted_at),
        deadline=from_us(row.deadline),
        delivered_sequence=row.delivered_sequence,
        delivered_at=from_us(row.delivered_at),
        attempts=row.attempts,
        due_at=from_us(row.due_at),
        last_error=row.last_error,
    )


def request(row: AnyRow) -> RequestRow:
    """Read a row of ``requests``."""
    return RequestRow(
        id=row.id,
        kind=row.kind,
        arguments=decode_details(row.arguments),
        actor=row.actor,
        uid=row.uid,
        reason=row.reason,
        created_at=from_us(row.created_at),
        finished_at=from_us(row.finished_at),
        succeeded=None if row.succeeded is None else bool(row.succeeded),
        result=row.result,
    )


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
