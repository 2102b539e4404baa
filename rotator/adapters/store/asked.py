"""What operators asked for and is not over yet: another signing key for a keyset, the end of a replaced token."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from rotator.adapters.store import rows, schema
from rotator.adapters.store.bulk import Statement, insert, upsert
from rotator.adapters.store.times import from_us, to_us
from rotator.core.model import Jti, KeysetName, Overlap, Wish, WorkspaceId

SINCE: Final = "0002"
"""The revision that brought these tables. An older database is read as if nothing had been asked for."""

WISHES: Final = schema.wishes.c
OVERLAPS: Final = schema.token_overlaps.c

PUT_WISH: Final = Statement(upsert(schema.wishes, ("keyset", "asked_at", "emergency", "actor", "reason")))
DROP_WISH: Final = Statement("DELETE FROM wishes WHERE keyset = ?")

# Who asks twice means the earlier end: nothing that was to count as revoked comes back to life.
PUT_OVERLAP: Final = Statement(
    insert(schema.token_overlaps, ("jti", "workspace", "ends_at", "actor", "reason"))
    + " ON CONFLICT (jti) DO UPDATE SET ends_at = excluded.ends_at, actor = excluded.actor, reason = excluded.reason"
    " WHERE token_overlaps.ends_at > excluded.ends_at"
)
DROP_OVERLAP: Final = Statement("DELETE FROM token_overlaps WHERE jti = ?")

MAKE_DUE: Final = Statement(
    "UPDATE workspaces SET due_at = ?, next_at = ?, due_reason = ?, failures = 0, retry_at = NULL, fault = '',"
    " current_expires_at = CASE WHEN current_expires_at > ? THEN ? ELSE current_expires_at END WHERE id = ?"
)

# While the token is still the current one, its successor is what is waited for: looked at by its jti, one by one, for
# what operators ask for is little.
_STILL_CURRENT: Final = sa.exists().where(
    schema.tokens.c.jti == OVERLAPS.jti, sa.text("tokens.phase IN ('pending', 'active')")
)

WISH: Final = sa.select(schema.wishes).where(WISHES.keyset == sa.bindparam("keyset"))
ALL_OVERLAPS: Final = sa.select(schema.token_overlaps).order_by(OVERLAPS.ends_at, OVERLAPS.jti)
ENDED_OVERLAPS: Final = ALL_OVERLAPS.where(OVERLAPS.ends_at <= sa.bindparam("now"), ~_STILL_CURRENT).limit(
    sa.bindparam("at_most")
)
NEXT_END: Final = sa.select(sa.func.min(OVERLAPS.ends_at)).where(~_STILL_CURRENT)


def wish(connection: sa.Connection, keyset: KeysetName) -> Wish | None:
    """Return what was asked of a keyset."""
    row = connection.execute(WISH, {"keyset": keyset}).first()
    if row is None:
        return None
    return Wish(asked_at=from_us(row.asked_at), actor=row.actor, reason=row.reason, emergency=bool(row.emergency))


def put_wish(connection: sa.Connection, keyset: KeysetName, wanted: Wish) -> None:
    """Insert or replace a wish."""
    values = (keyset, to_us(wanted.asked_at), int(wanted.emergency), wanted.actor, wanted.reason)
    PUT_WISH.run(connection, [values])


def drop_wish(connection: sa.Connection, keyset: KeysetName) -> None:
    """Forget a wish."""
    DROP_WISH.run(connection, [(keyset,)])


def overlaps(connection: sa.Connection) -> tuple[Overlap, ...]:
    """Return every overlap, the first to end first."""
    return tuple(map(_overlap, connection.execute(ALL_OVERLAPS)))


def ended_overlaps(connection: sa.Connection, now: datetime, limit: int) -> tuple[Overlap, ...]:
    """Return overlaps that are over and whose token is not the current one any more."""
    return tuple(map(_overlap, connection.execute(ENDED_OVERLAPS, {"now": to_us(now), "at_most": limit})))


def next_end(connection: sa.Connection) -> datetime | None:
    """Return when the first overlap ends whose token is not the current one any more."""
    return from_us(connection.execute(NEXT_END).scalar())


def put_overlaps(connection: sa.Connection, wanted: Sequence[Overlap]) -> None:
    """Store overlaps; of two for one token the one that ends first stands."""
    PUT_OVERLAP.run(
        connection, [(each.jti, each.workspace, to_us(each.ends_at), each.actor, each.reason) for each in wanted]
    )


def drop_overlaps(connection: sa.Connection, jtis: Sequence[Jti]) -> None:
    """Forget overlaps that are over."""
    DROP_OVERLAP.run(connection, [(jti,) for jti in jtis])


def make_due(
    connection: sa.Connection, workspace: WorkspaceId, at: datetime, reason: str, current_ends_at: datetime | None
) -> bool:
    """Make a workspace's next token due, and let its current one end by ``current_ends_at``, if one is given."""
    at_us, ends_us = to_us(at), to_us(current_ends_at)
    return MAKE_DUE.run(connection, [(at_us, at_us, reason, ends_us, ends_us, workspace)]) == 1


def _overlap(row: rows.AnyRow) -> Overlap:
    return Overlap(row.jti, row.workspace, from_us(row.ends_at), row.actor, row.reason)
