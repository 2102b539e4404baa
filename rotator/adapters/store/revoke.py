"""Marks tokens as revoked: one, or all that hang on a key, in bulk; and tells which are."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

import sqlalchemy as sa

from rotator.adapters.store import schema
from rotator.adapters.store.bulk import Statement
from rotator.adapters.store.times import from_us, to_us
from rotator.core.actions import Reason
from rotator.core.model import Jti, Kid, Phase
from rotator.ports import RevokedTokens

REVOKE_TOKEN: Final = Statement(
    "UPDATE tokens SET phase = 'revoked', revoked_at = ?, revoke_reason = ?, sealed = NULL"
    " WHERE jti = ? AND phase <> 'revoked'"
)

# No index leads from a key to its tokens: one would cost each issue something, and this reads them all once in years.
REVOKE_TOKENS_OF_KEY: Final = Statement(
    "UPDATE tokens SET phase = 'revoked', revoked_at = ?, revoke_reason = ?, sealed = NULL"
    " WHERE kid = ? AND phase IN ('active', 'grace') AND expires_at > ?"
)

# What failed keeps its pause, for what it failed by is still there. The current token has ended as far as its workspace
# goes: a delivery of the next one that fails leaves that without any. The sign keeps SQLite from walking through the
# index of what is due, which this changes: in the order of the table it takes two thirds of the time.
MAKE_DUE_BY_KEY: Final = Statement(
    "UPDATE workspaces SET due_at = CASE WHEN due_at < ? THEN due_at ELSE ? END,"
    " next_at = CASE WHEN retry_at > ? THEN retry_at WHEN due_at < ? THEN due_at ELSE ? END, due_reason = ?,"
    " current_expires_at = CASE WHEN current_expires_at < ? THEN current_expires_at ELSE ? END"
    " WHERE current_kid = ? AND +removed_at IS NULL"
)

TOKENS: Final = schema.tokens.c

REVOKED_TOKENS: Final = sa.select(TOKENS.jti, TOKENS.expires_at).where(
    sa.text(schema.ENDED),
    TOKENS.phase == Phase.REVOKED,
    TOKENS.revoke_reason != Reason.KEY_REVOKED,
    TOKENS.expires_at > sa.bindparam("after"),
)


def revoke_token(connection: sa.Connection, jti: Jti, at: datetime, reason: str) -> None:
    """Mark one token as revoked and erase its sealed text; the first revocation stands."""
    REVOKE_TOKEN.run(connection, [(to_us(at), reason, jti)])


def revoke_tokens_of_key(connection: sa.Connection, kid: Kid, at: datetime, due_at: datetime) -> RevokedTokens:
    """Mark every token on ``kid`` that lives at ``due_at``, erase their texts, and make their workspaces due then."""
    due_us = to_us(due_at)
    tokens = REVOKE_TOKENS_OF_KEY.run(connection, [(to_us(at), Reason.KEY_REVOKED, kid, due_us)])
    due = (due_us, due_us, due_us, due_us, due_us, Reason.KEY_REVOKED, due_us, due_us, kid)
    return RevokedTokens(tokens, MAKE_DUE_BY_KEY.run(connection, [due]))


def revoked_tokens(connection: sa.Connection, after: datetime) -> Mapping[Jti, datetime]:
    """Return the ends, above ``after``, of the tokens that were revoked by themselves, not with their key."""
    revoked = connection.execute(REVOKED_TOKENS, {"after": to_us(after)})
    return MappingProxyType({Jti(row.jti): from_us(row.expires_at) for row in revoked})
