"""What a revocation reaches, counted by the database: twenty thousand tokens are not read for it."""

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from rotator.adapters.store import rows, schema
from rotator.adapters.store.integrity import Integrity
from rotator.adapters.store.times import noted, to_us
from rotator.ports import Reach, Target

TOKENS: Final = schema.tokens.c
WORKSPACES: Final = schema.workspaces.c
DELIVERIES: Final = schema.deliveries.c

# Each condition is that of an index, word for word, for no index leads from a key to its tokens.
LIVE: Final = sa.text(f"tokens.{schema.LIVE}")
ENDED: Final = sa.text(f"tokens.{schema.ENDED}")


def reach(
    connection: sa.Connection,
    integrity: Integrity,
    target: Target,
    now: datetime,
    revoked_since: datetime | None,
    limit: int,
) -> Reach:
    """Count what hangs on ``target``: what would be revoked at ``now``, or what was ``revoked_since`` then."""
    hit = [_named(target), *_standing(now, revoked_since)]
    tokens = connection.execute(sa.select(sa.func.count(), sa.func.max(TOKENS.expires_at)).where(*hit)).one()
    # A token that was current when it was revoked has no date of its successor: the next one did not supersede it.
    current = (
        sa.select(
            WORKSPACES.id,
            WORKSPACES.removed_at,
            ((WORKSPACES.current == TOKENS.jti) & WORKSPACES.removed_at.is_(None)).label("waits"),
        )
        .select_from(schema.tokens.join(schema.workspaces, WORKSPACES.id == TOKENS.workspace))
        .where(*hit, TOKENS.superseded_at.is_(None))
        .cte("current")
    )
    waits = sa.case((current.c.waits, 1), else_=0)
    workspaces = connection.execute(
        sa.select(
            sa.func.count(), sa.func.sum(waits), sa.func.sum(sa.case((current.c.removed_at.is_not(None), 1), else_=0))
        ).select_from(current)
    ).one()
    theirs = schema.deliveries.join(current, DELIVERIES.workspace == current.c.id)
    is_open = current.c.waits | DELIVERIES.due_at.is_not(None)
    deliveries = connection.execute(
        sa.select(
            sa.func.count(),
            sa.func.sum(sa.case((is_open, 1), else_=0)),
            sa.func.sum(sa.case((DELIVERIES.due_at.is_not(None) & (DELIVERIES.attempts > 0), 1), else_=0)),
        ).select_from(theirs)
    ).one()
    first: list[Any] = []
    if revoked_since is not None:
        first = list(
            connection.execute(
                sa.select(schema.deliveries)
                .select_from(theirs)
                .where(DELIVERIES.due_at.is_not(None))
                .order_by(DELIVERIES.attempts.desc(), DELIVERIES.workspace, DELIVERIES.sink)
                .limit(limit)
            ).all()
        )
    return Reach(
        tokens=tokens[0],
        last_exp=noted(tokens[1]),
        workspaces=workspaces[0],
        waiting=int(workspaces[1] or 0),
        left=int(workspaces[2] or 0),
        deliveries=deliveries[0],
        deliveries_open=int(deliveries[1] or 0),
        deliveries_failing=int(deliveries[2] or 0),
        open_deliveries=tuple(rows.delivery(row, integrity) for row in first),
    )


def _named(target: Target) -> sa.ColumnElement[bool]:
    if target.jti is not None:
        return TOKENS.jti == target.jti
    if target.workspace is not None:
        return TOKENS.workspace == target.workspace
    return TOKENS.kid.in_(target.kids)


def _standing(now: datetime, revoked_since: datetime | None) -> list[sa.ColumnElement[bool]]:
    if revoked_since is None:
        return [LIVE, TOKENS.expires_at > to_us(now)]  # type: ignore[list-item]  # a text is a condition, too
    since = to_us(revoked_since)
    return [ENDED, TOKENS.expires_at > since, TOKENS.revoked_at >= since]  # type: ignore[list-item]
