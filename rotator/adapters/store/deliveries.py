"""The outbox: which token each sink should hold, which it holds, and when it is to be tried next."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from rotator.adapters.store import schema
from rotator.adapters.store.bulk import Statement, Values, upsert
from rotator.adapters.store.integrity import Integrity
from rotator.adapters.store.times import to_us
from rotator.core.model import SinkId, WorkspaceId
from rotator.ports import DeliveryRow

ERASE_SUPERSEDED: Final = Statement(
    "UPDATE tokens SET sealed = NULL WHERE workspace = ? AND phase = 'grace' AND sealed IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM deliveries WHERE workspace = ? AND due_at IS NOT NULL)"
)

# A row that wants a newer token by now is left alone: the caller looked before that one was issued.
WANT_DELIVERY: Final = Statement(
    upsert(
        schema.deliveries,
        (
            "workspace",
            "sink",
            "jti",
            "sequence",
            "wanted_at",
            "deadline",
            "delivered_sequence",
            "delivered_at",
            "attempts",
            "due_at",
            "last_error",
            "kek_id",
            "mac",
        ),
        only_where="deliveries.sequence <= excluded.sequence",
    )
)
LOCKED_AT_ONCE: Final = 1_000
DELIVERIES: Final = schema.deliveries.c
WANTED: Final = (
    sa.select(DELIVERIES.workspace, DELIVERIES.sink, DELIVERIES.sequence, DELIVERIES.delivered_sequence)
    .where(DELIVERIES.workspace.in_(sa.bindparam("workspaces", expanding=True)))
    .with_for_update()
)
PUT_OFF: Final = Statement(
    "UPDATE deliveries SET due_at = ? WHERE workspace = ? AND sink = ? AND sequence = ? AND due_at IS NOT NULL"
)
DROP_DELIVERY: Final = Statement("DELETE FROM deliveries WHERE workspace = ? AND sink = ?")
# Where a later token is wanted already, the sink now holds the delivered one: its end is the deadline, and the wait
# counts from when its successor took its place.
DELIVERED_EARLIER: Final = Statement(
    "UPDATE deliveries SET delivered_sequence = ?, delivered_at = ?, kek_id = ?, mac = ?,"
    " wanted_at = coalesce((SELECT superseded_at FROM tokens WHERE tokens.workspace = deliveries.workspace"
    " AND tokens.sequence = ?), wanted_at),"
    " deadline = coalesce((SELECT expires_at FROM tokens WHERE tokens.workspace = deliveries.workspace"
    " AND tokens.sequence = ?), deadline)"
    " WHERE workspace = ? AND sink = ? AND delivered_sequence < ? AND sequence > ?"
)
DELIVERED_WANTED: Final = Statement(
    "UPDATE deliveries SET delivered_sequence = ?, delivered_at = ?, kek_id = ?, mac = ?, due_at = NULL,"
    " attempts = 0, last_error = '' WHERE workspace = ? AND sink = ? AND delivered_sequence < ? AND sequence <= ?"
)
DELIVERY_FAILED: Final = Statement(
    "UPDATE deliveries SET attempts = attempts + 1, due_at = ?, last_error = ?"
    " WHERE workspace = ? AND sink = ? AND sequence = ?"
)
RELEASE_LEASES: Final = Statement(
    f"UPDATE deliveries SET due_at = ? WHERE {schema.OPEN_DELIVERY} AND due_at > ? AND attempts = 0"  # noqa: S608 - ours
)
REDELIVER: Final = Statement(
    "UPDATE deliveries SET due_at = ?, wanted_at = ?, deadline = ?, delivered_sequence = 0"
    " WHERE workspace = ? AND sink = ? AND sequence = ? AND due_at IS NULL"
)


def want_deliveries(connection: sa.Connection, integrity: Integrity, rows: Sequence[DeliveryRow]) -> None:
    """Insert or replace deliveries, in bulk; one that wants a later token by now is left alone."""
    WANT_DELIVERY.run(
        connection,
        [
            (
                row.workspace,
                row.sink,
                row.jti,
                row.sequence,
                to_us(row.wanted_at),
                to_us(row.deadline),
                row.delivered_sequence,
                to_us(row.delivered_at),
                row.attempts,
                to_us(row.due_at),
                row.last_error,
                *_mac(integrity, row.workspace, row.sink, row.delivered_sequence),
            )
            for row in rows
        ],
    )


def put_off(connection: sa.Connection, rows: Sequence[DeliveryRow]) -> None:
    """Store when each of these is due; one that wants another token by now, or none, is left alone."""
    PUT_OFF.run(connection, [(to_us(row.due_at), row.workspace, row.sink, row.sequence) for row in rows])


def drop_deliveries(connection: sa.Connection, pairs: Sequence[tuple[WorkspaceId, SinkId]]) -> None:
    """Delete the deliveries of sinks that are gone; what only they waited for is erased."""
    DROP_DELIVERY.run(connection, pairs)
    gone = dict.fromkeys(workspace for workspace, _ in pairs)
    ERASE_SUPERSEDED.run(connection, [(workspace, workspace) for workspace in gone])


def delivered(
    connection: sa.Connection,
    integrity: Integrity,
    workspace: WorkspaceId,
    sink: SinkId,
    sequence: int,
    at: datetime,
) -> bool:
    """Record a delivery. When no sink of the workspace is open any more, erase the text of superseded tokens.

    Return False, with nothing changed, if that sink is gone, or its delivered sequence is at or past ``sequence``.
    """
    at_us, mac = to_us(at), _mac(integrity, workspace, sink, sequence)
    if DELIVERED_WANTED.run(connection, [(sequence, at_us, *mac, workspace, sink, sequence, sequence)]):
        ERASE_SUPERSEDED.run(connection, [(workspace, workspace)])
        return True
    values = (sequence, at_us, *mac, sequence, sequence, workspace, sink, sequence, sequence)
    return DELIVERED_EARLIER.run(connection, [values]) == 1


def delivered_as_wanted(
    connection: sa.Connection, integrity: Integrity, rows: Sequence[DeliveryRow], at: datetime
) -> list[DeliveryRow]:
    """Do as :func:`delivered` for many at once that still want just this token; return the others, left as they are."""
    workspaces = sorted({row.workspace for row in rows})
    delivered_now = {(row.workspace, row.sink): row.sequence for row in rows}
    wanted = {
        (found.workspace, found.sink)
        for start in range(0, len(workspaces), LOCKED_AT_ONCE)
        for found in connection.execute(WANTED, {"workspaces": workspaces[start : start + LOCKED_AT_ONCE]})
        if delivered_now.get((found.workspace, found.sink)) == found.sequence > found.delivered_sequence
    }
    batch = [row for row in rows if (row.workspace, row.sink) in wanted]
    at_us = to_us(at)
    DELIVERED_WANTED.run(
        connection,
        [
            (
                row.sequence,
                at_us,
                *_mac(integrity, row.workspace, row.sink, row.sequence),
                row.workspace,
                row.sink,
                row.sequence,
                row.sequence,
            )
            for row in batch
        ],
    )
    ERASE_SUPERSEDED.run(connection, [(name, name) for name in dict.fromkeys(row.workspace for row in batch)])
    return [row for row in rows if (row.workspace, row.sink) not in wanted]


def _mac(integrity: Integrity, workspace: WorkspaceId, sink: SinkId, delivered_sequence: int) -> Values:
    """Return the KEK and the MAC of what a sink holds; none where it holds nothing."""
    if delivered_sequence == 0:
        return None, None
    values = {"workspace": workspace, "sink": sink, "delivered_sequence": delivered_sequence}
    return tuple(integrity.seal("deliveries", values).values())


def delivery_failed(
    connection: sa.Connection, workspace: WorkspaceId, sink: SinkId, sequence: int, retry_at: datetime, error: str
) -> None:
    """Count a failed attempt for ``sequence`` (a later wanted one is left alone)."""
    DELIVERY_FAILED.run(connection, [(to_us(retry_at), error, workspace, sink, sequence)])


def release_leases(connection: sa.Connection, now: datetime) -> None:
    """At a start: make deliveries due now that the process before had claimed and neither made nor failed.

    A database in a file has one process at a time, by the lock on its directory. PostgreSQL may have many: nothing
    is changed there, and a lease runs out by itself.
    """
    if connection.dialect.name == "sqlite":
        RELEASE_LEASES.run(connection, [(to_us(now), to_us(now))])


def redeliver(connection: sa.Connection, workspace: WorkspaceId, sink: SinkId, sequence: int, at: datetime) -> None:
    """Make a delivery of ``sequence`` due again although it was made, as the sink has lost it: without grace."""
    at_us = to_us(at)
    REDELIVER.run(connection, [(at_us, at_us, at_us, workspace, sink, sequence)])
