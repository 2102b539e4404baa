"""Marks tokens as revoked: one, or all that hang on a key, in bulk; and tells which are."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

import sqlalchemy as sa

from rotator.adapters.store import queries, rows, schema
from rotator.adapters.store.bulk import Statement
from rotator.adapters.store.integrity import Integrity
from rotator.adapters.store.times import to_us
from rotator.core.actions import Reason
from rotator.core.model import Jti, Kid, Phase
from rotator.ports import RevokedTokens

REVOKE_TOKEN: Final = Statement(
    "UPDATE tokens SET phase = 'revoked', revoked_at = ?, revoke_reason = ?, sealed = NULL, kek_id = ?, mac = ?"
    " WHERE jti = ?"
)
ONE_TOKEN: Final = queries.ONE_TOKEN.with_for_update()

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

REVOKED_TOKENS: Final = sa.select(*queries.TOKEN_WITHOUT_TEXT).where(
    sa.text(schema.ENDED),
    TOKENS.phase == Phase.REVOKED,
    TOKENS.revoke_reason != Reason.KEY_REVOKED,
    TOKENS.expires_at > sa.bindparam("after"),
)


def revoke_token(connection: sa.Connection, integrity: Integrity, jti: Jti, at: datetime, reason: str) -> None:
    """Mark one token as revoked and erase its sealed text; the first revocation stands."""
    row = connection.execute(ONE_TOKEN, {"jti": jti}).mappings().first()
    if row is None:
        return
    believed = integrity.token_holds(row)
    if believed and row["phase"] == Phase.REVOKED:
        return
    after = {**row, "phase": str(Phase.REVOKED), "revoked_at": to_us(at), "revoke_reason": str(reason)}
    # A row that somebody else changed is marked as well, and authenticated by nothing: the witness knows the jti.
    mac = integrity.seal_token(after) if believed else {"kek_id": row["kek_id"], "mac": row["mac"]}
    REVOKE_TOKEN.run(connection, [(after["revoked_at"], after["revoke_reason"], mac["kek_id"], mac["mac"], jti)])


def revoke_tokens_of_key(connection: sa.Connection, kid: Kid, at: datetime, due_at: datetime) -> RevokedTokens:
    """Mark every token on ``kid`` that lives at ``due_at``, erase their texts, and make their workspaces due then."""
    due_us = to_us(due_at)
    tokens = REVOKE_TOKENS_OF_KEY.run(connection, [(to_us(at), Reason.KEY_REVOKED, kid, due_us)])
    due = (due_us, due_us, due_us, due_us, due_us, Reason.KEY_REVOKED, due_us, due_us, kid)
    return RevokedTokens(tokens, MAKE_DUE_BY_KEY.run(connection, [due]))


def revoked_tokens(connection: sa.Connection, integrity: Integrity, after: datetime) -> Mapping[Jti, datetime]:
    """Return the ends, above ``after``, of the tokens that were revoked by themselves, not with their key."""
    revoked = connection.execute(REVOKED_TOKENS, {"after": to_us(after)})
    return MappingProxyType({token.jti: token.expires_at for token in rows.tokens(revoked, integrity)})
