"""What operators asked for and is not over yet: another signing key for a keyset, the end of a replaced token."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from rotator.adapters.store import rows, schema
from rotator.adapters.store.bulk import Statement
from rotator.adapters.store.integrity import OVERLAPS as OVERLAPS_TABLE
from rotator.adapters.store.integrity import WISHES as WISHES_TABLE
from rotator.adapters.store.integrity import Integrity
from rotator.adapters.store.times import from_us, to_us
from rotator.core.model import Jti, KeysetName, Overlap, Wish, WorkspaceId

WISHES: Final = schema.wishes.c
OVERLAPS: Final = schema.token_overlaps.c
KEYS: Final = schema.signing_keys.c

DROP_WISH: Final = Statement("DELETE FROM wishes WHERE keyset = ?")
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
SIGNED_LAST: Final = (
    sa.select(KEYS.kid)
    .where(KEYS.keyset == sa.bindparam("keyset"), KEYS.activated_at.is_not(None))
    .order_by(KEYS.activated_at.desc(), KEYS.sequence.desc())
    .limit(1)
)
ALL_OVERLAPS: Final = sa.select(schema.token_overlaps).order_by(OVERLAPS.ends_at, OVERLAPS.jti)
ENDED_OVERLAPS: Final = ALL_OVERLAPS.where(OVERLAPS.ends_at <= sa.bindparam("now"), ~_STILL_CURRENT).limit(
    sa.bindparam("at_most")
)
WITH_SUCCESSOR: Final = sa.select(schema.token_overlaps).where(~_STILL_CURRENT)


def wish(connection: sa.Connection, integrity: Integrity, keyset: KeysetName) -> Wish | None:
    """Return what was asked of a keyset; nothing where the row is not authentic, or was fulfilled and put back."""
    row = connection.execute(WISH, {"keyset": keyset}).mappings().first()
    if row is None or not integrity.holds("wishes", row) or row["signed"] != signed_last(connection, keyset):
        return None
    try:
        asked_at = from_us(row["asked_at"])
    except OverflowError:
        return None
    return Wish(asked_at=asked_at, actor=row["actor"], reason=row["reason"], emergency=bool(row["emergency"]))


def signed_last(connection: sa.Connection, keyset: KeysetName) -> str:
    """Return the key of a keyset that began to sign last, whatever became of it; empty: none ever did."""
    return connection.execute(SIGNED_LAST, {"keyset": keyset}).scalar() or ""


def put_wish(connection: sa.Connection, integrity: Integrity, keyset: KeysetName, wanted: Wish) -> None:
    """Insert or replace a wish. It is for the key that signs now: once another one does, it is fulfilled for good."""
    values = {
        "keyset": keyset,
        "asked_at": to_us(wanted.asked_at),
        "emergency": int(wanted.emergency),
        "signed": signed_last(connection, keyset),
        "actor": wanted.actor,
        "reason": wanted.reason,
    }
    WISHES_TABLE.put(connection, integrity, values, anew=True)


def drop_wish(connection: sa.Connection, keyset: KeysetName) -> None:
    """Forget a wish."""
    DROP_WISH.run(connection, [(keyset,)])


def overlaps(connection: sa.Connection, integrity: Integrity) -> tuple[Overlap, ...]:
    """Return every overlap whose row is authentic, the first to end first."""
    return _overlaps(connection.execute(ALL_OVERLAPS), integrity)


def ended_overlaps(connection: sa.Connection, integrity: Integrity, now: datetime, limit: int) -> tuple[Overlap, ...]:
    """Return overlaps that are over and whose token is not the current one any more."""
    return _overlaps(connection.execute(ENDED_OVERLAPS, {"now": to_us(now), "at_most": limit}), integrity)


def next_end(connection: sa.Connection, integrity: Integrity) -> datetime | None:
    """Return when the first overlap ends whose token is not the current one any more."""
    return min((each.ends_at for each in _overlaps(connection.execute(WITH_SUCCESSOR), integrity)), default=None)


def put_overlaps(connection: sa.Connection, integrity: Integrity, wanted: Sequence[Overlap]) -> None:
    """Store overlaps; of two for one token the one that ends first stands.

    Who asks twice means the earlier end: nothing that was to count as revoked comes back to life.
    """
    for each in wanted:
        values = {
            "jti": each.jti,
            "workspace": each.workspace,
            "ends_at": to_us(each.ends_at),
            "actor": each.actor,
            "reason": each.reason,
        }
        before = OVERLAPS_TABLE.lock(connection, values)
        if before is None or before["ends_at"] > values["ends_at"] or not integrity.holds("token_overlaps", before):
            OVERLAPS_TABLE.put(connection, integrity, values, anew=True)


def drop_overlaps(connection: sa.Connection, jtis: Sequence[Jti]) -> None:
    """Forget overlaps that are over."""
    DROP_OVERLAP.run(connection, [(jti,) for jti in jtis])


def make_due(
    connection: sa.Connection, workspace: WorkspaceId, at: datetime, reason: str, current_ends_at: datetime | None
) -> bool:
    """Make a workspace's next token due, and let its current one end by ``current_ends_at``, if one is given."""
    at_us, ends_us = to_us(at), to_us(current_ends_at)
    return MAKE_DUE.run(connection, [(at_us, at_us, reason, ends_us, ends_us, workspace)]) == 1


def _overlaps(found: Iterable[rows.AnyRow], integrity: Integrity) -> tuple[Overlap, ...]:
    return tuple(rows.believed("token_overlaps", found, integrity, _overlap))


def _overlap(row: rows.AnyRow) -> Overlap:
    return Overlap(row.jti, row.workspace, from_us(row.ends_at), row.actor, row.reason)
