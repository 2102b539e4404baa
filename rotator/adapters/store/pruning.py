"""What is deleted when it is past its retention. Keys never are."""

from datetime import datetime
from typing import Final

import sqlalchemy as sa

from rotator.adapters.store import schema
from rotator.adapters.store.times import to_us
from rotator.ports import RevocationKind

TOKENS: Final = schema.tokens.c
WORKSPACES: Final = schema.workspaces.c
DELIVERIES: Final = schema.deliveries.c

# What a workspace that is still configured last had stays, however old: it is why its automation broke.
DOOMED_TOKENS: Final = sa.and_(
    sa.text(f"tokens.{schema.ENDED}"),
    TOKENS.expires_at < sa.bindparam("before"),
    ~sa.exists().where(
        WORKSPACES.id == TOKENS.workspace, WORKSPACES.current == TOKENS.jti, WORKSPACES.removed_at.is_(None)
    ),
)

OLDEST: Final = sa.select(TOKENS.jti).where(DOOMED_TOKENS).order_by(TOKENS.expires_at).limit(sa.bindparam("at_most"))
DELETE_THEIR_DELIVERIES: Final = sa.delete(schema.deliveries).where(
    sa.tuple_(DELIVERIES.workspace, DELIVERIES.sink).in_(
        sa.select(DELIVERIES.workspace, DELIVERIES.sink)
        .join(schema.tokens, (TOKENS.workspace == DELIVERIES.workspace) & (TOKENS.jti == DELIVERIES.jti))
        .where(TOKENS.jti.in_(sa.bindparam("jtis", expanding=True)))
    )
)
DELETE_TOKENS: Final = sa.delete(schema.tokens).where(TOKENS.jti.in_(sa.bindparam("jtis", expanding=True)))
# A revocation stays in the journal for ever, and its request says that the database has followed it: without that row
# the next start would carry it out once more.
DELETE_REQUESTS: Final = sa.delete(schema.requests).where(
    schema.requests.c.id.in_(
        sa.select(schema.requests.c.id)
        .where(schema.requests.c.finished_at < sa.bindparam("before"))
        .where(schema.requests.c.kind.not_in(list(RevocationKind)))
        .limit(sa.bindparam("at_most"))
    )
)


def prune_tokens(connection: sa.Connection, before: datetime, at_most: int) -> int:
    """Delete ended tokens whose ``exp`` is older, but for the last one of a workspace that is still configured."""
    jtis = list(connection.execute(OLDEST, {"before": to_us(before), "at_most": at_most}).scalars())
    if jtis:
        connection.execute(DELETE_THEIR_DELIVERIES, {"jtis": jtis})
        connection.execute(DELETE_TOKENS, {"jtis": jtis})
    return len(jtis)


def prune_requests(connection: sa.Connection, before: datetime, at_most: int) -> int:
    """Delete requests that were finished before, revocations excepted."""
    return connection.execute(DELETE_REQUESTS, {"before": to_us(before), "at_most": at_most}).rowcount
