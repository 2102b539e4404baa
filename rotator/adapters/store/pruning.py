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

DELETE_THEIR_DELIVERIES: Final = sa.delete(schema.deliveries).where(
    sa.tuple_(DELIVERIES.workspace, DELIVERIES.sink).in_(
        sa.select(DELIVERIES.workspace, DELIVERIES.sink)
        .join(schema.tokens, (TOKENS.workspace == DELIVERIES.workspace) & (TOKENS.jti == DELIVERIES.jti))
        .where(DOOMED_TOKENS)
    )
)
DELETE_TOKENS: Final = sa.delete(schema.tokens).where(DOOMED_TOKENS)
# A revocation stays in the journal for ever, and its request says that the database has followed it: without that row
# the next start would carry it out once more.
DELETE_REQUESTS: Final = sa.delete(schema.requests).where(
    schema.requests.c.finished_at < sa.bindparam("before"), schema.requests.c.kind.not_in(list(RevocationKind))
)


def prune_tokens(connection: sa.Connection, before: datetime) -> None:
    """Delete ended tokens whose ``exp`` is older, but for the last one of a workspace that is still configured."""
    bound = {"before": to_us(before)}
    connection.execute(DELETE_THEIR_DELIVERIES, bound)
    connection.execute(DELETE_TOKENS, bound)


def prune_requests(connection: sa.Connection, before: datetime) -> None:
    """Delete requests that were finished before, revocations excepted."""
    connection.execute(DELETE_REQUESTS, {"before": to_us(before)})
