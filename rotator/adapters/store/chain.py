"""The audit chain: appending to it, and cutting off its oldest part."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from rotator.adapters.store import queries, rows, schema
from rotator.adapters.store.bulk import Statement, Values, insert
from rotator.core.events import Event, chain_hash, encode_details
from rotator.core.instants import to_us
from rotator.errors import InvariantError
from rotator.ports import AuditHead

AUDIT: Final = schema.audit

INSERT_EVENTS: Final = Statement(
    insert(AUDIT, ("seq", "at", "name", "keyset", "workspace", "kid", "jti", "actor", "reason", "details", "hash"))
)
LOCK_HEAD: Final = queries.AUDIT_HEAD.with_for_update()
MOVE_HEAD: Final = Statement("UPDATE audit_head SET seq = ?, hash = ?")
MOVE_ANCHOR: Final = Statement("UPDATE audit_head SET anchor_seq = ?, anchor_hash = ?")
MARK_LOGGED: Final = Statement("UPDATE audit_head SET logged_seq = ? WHERE logged_seq < ? OR logged_seq > seq")

OLDEST: Final = sa.select(AUDIT.c.seq, AUDIT.c.at).order_by(AUDIT.c.seq).limit(sa.bindparam("at_most")).subquery()
FIRST_SINCE: Final = sa.select(sa.func.min(OLDEST.c.seq)).where(OLDEST.c.at >= sa.bindparam("since"))
LAST_OF_OLDEST: Final = sa.select(sa.func.max(OLDEST.c.seq))
LAST: Final = sa.select(AUDIT.c.seq, AUDIT.c.hash).where(
    AUDIT.c.seq == sa.select(sa.func.max(AUDIT.c.seq)).scalar_subquery()
)
LAST_UP_TO: Final = (
    sa.select(AUDIT.c.seq, AUDIT.c.hash)
    .where(AUDIT.c.seq <= sa.bindparam("up_to"))
    .order_by(AUDIT.c.seq.desc())
    .limit(1)
)
DELETE_UP_TO: Final = Statement("DELETE FROM audit WHERE seq <= ?")


def lock_head(connection: sa.Connection) -> AuditHead:
    """Return the head of the chain with its row locked until the end of the transaction."""
    return head_of(connection, connection.execute(LOCK_HEAD).one())


def head_of(connection: sa.Connection, row: rows.AnyRow) -> AuditHead:
    """Return the head, where its row falls behind the events, or names another one, as the last event is.

    What the log is said to have that was never chained, it has not: it gets it again.
    """
    seq, link = row.seq, row.hash
    last = connection.execute(LAST).first()
    if last is not None and (last.seq > seq or (last.seq == seq and last.hash != link)):
        seq, link = last.seq, last.hash
    logged = row.logged_seq if row.anchor_seq <= row.logged_seq <= seq else min(row.anchor_seq, seq)
    return AuditHead(seq, link, row.anchor_seq, row.anchor_hash, logged)


def is_head(connection: sa.Connection) -> bool:
    """Tell whether the head's row says what the events do."""
    row = connection.execute(queries.AUDIT_HEAD).first()
    if row is None:
        return False
    return head_of(connection, row) == AuditHead(row.seq, row.hash, row.anchor_seq, row.anchor_hash, row.logged_seq)


def append(connection: sa.Connection, events: Sequence[Event], first_seq: int | None) -> AuditHead:
    """Chain ``events`` to the head, the first of them as ``first_seq`` or the next one."""
    head = lock_head(connection)
    if not events:
        return head
    seq = head.seq if first_seq is None else first_seq - 1
    if seq < head.seq:
        raise InvariantError(f"an event cannot be chained as {first_seq}: the chain already ends at {head.seq}")
    link = head.hash
    links: list[Values] = []
    for event in events:
        seq += 1
        at_us, details = to_us(event.at), encode_details(event.details)
        link = chain_hash(link, seq, event, at_us, details)
        links.append(
            (
                seq,
                at_us,
                str(event.name),
                event.keyset,
                event.workspace,
                event.kid,
                event.jti,
                event.actor,
                str(event.reason),
                details,
                link,
            )
        )
    INSERT_EVENTS.run(connection, links)
    MOVE_HEAD.run(connection, [(seq, link)])
    return AuditHead(seq, link, head.anchor_seq, head.anchor_hash, head.logged_seq)


def mark_logged(connection: sa.Connection, seq: int) -> None:
    """Record that the log has every event up to ``seq``; never goes back."""
    MARK_LOGGED.run(connection, [(seq, seq)])


def prune_events(connection: sa.Connection, before: datetime, at_most: int) -> int:
    """Delete the oldest events, up to the first that is not older than ``before`` or not logged; leave an anchor."""
    head = lock_head(connection)
    kept_from = connection.execute(FIRST_SINCE, {"since": to_us(before), "at_most": at_most}).scalar()
    last_seq = connection.execute(LAST_OF_OLDEST, {"at_most": at_most}).scalar()
    upto = min(head.logged_seq, (last_seq or 0) if kept_from is None else kept_from - 1)
    last = connection.execute(LAST_UP_TO, {"up_to": upto}).first()
    if last is None:
        return 0
    deleted = DELETE_UP_TO.run(connection, [(last.seq,)])
    MOVE_ANCHOR.run(connection, [(last.seq, last.hash)])
    return deleted
