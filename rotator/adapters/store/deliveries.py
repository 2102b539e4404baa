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
DROP_DELIVERY: Final = Statement("DELETE FROM deliveries WHERE workspace = ? AND sink = ?")
# Where a later token is wanted already, the sink now holds the delivered one, and its end is the new deadline.
DELIVERED_EARLIER: Final = Statement(
    "UPDATE deliveries SET delivered_sequence = ?, delivered_at = ?, kek_id = ?, mac = ?, wanted_at = ?,"
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
    "UPDATE deliveries SET due_at = ?, delivered_sequence = 0 WHERE workspace = ? AND sink = ? AND sequence = ?"
    " AND due_at IS NULL"
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
    values = (sequence, at_us, *mac, at_us, sequence, workspace, sink, sequence, sequence)
    return DELIVERED_EARLIER.run(connection, [values]) == 1


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
    """Make a delivery of ``sequence`` due again although it was made, as the sink has lost it."""
    REDELIVER.run(connection, [(to_us(at), workspace, sink, sequence)])
