"""The writes whose number grows with the number of workspaces: syncing them, and issuing their tokens."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from rotator.adapters.store import rows, schema
from rotator.adapters.store.bulk import Statement, Values, insert, update
from rotator.adapters.store.integrity import Integrity
from rotator.adapters.store.times import to_us
from rotator.core import instants
from rotator.core.actions import Reason
from rotator.core.model import Token, WorkspaceId, WorkspaceState
from rotator.ports import IssuedToken

# A row that another process brought back meanwhile is left as it is: it is not for us to make it due again.
INSERT_WORKSPACES: Final = Statement(
    insert(
        schema.workspaces,
        (
            "id",
            "keyset",
            "sequence",
            "due_at",
            "next_at",
            "current",
            "current_kid",
            "current_issued_at",
            "current_expires_at",
            "claims_fingerprint",
            "schedule_fingerprint",
            "sinks_fingerprint",
            "due_reason",
            "returned_at",
            "deletes",
            "kek_id",
            "mac",
        ),
    )
    + " ON CONFLICT (id) DO UPDATE SET keyset = excluded.keyset, due_at = excluded.due_at, next_at = excluded.next_at,"
    " claims_fingerprint = excluded.claims_fingerprint, schedule_fingerprint = excluded.schedule_fingerprint,"
    " sinks_fingerprint = excluded.sinks_fingerprint, due_reason = excluded.due_reason, removed_at = NULL,"
    " returned_at = excluded.returned_at, deletes = excluded.deletes, kek_id = excluded.kek_id, mac = excluded.mac,"
    " failures = 0, retry_at = NULL, fault = '' WHERE workspaces.removed_at IS NOT NULL"
)

# The sequence never goes back: a token may have been issued since the caller looked.
UPDATE_WORKSPACES: Final = Statement(
    "UPDATE workspaces SET keyset = ?, sequence = CASE WHEN sequence < ? THEN ? ELSE sequence END, due_at = ?,"
    " next_at = ?, claims_fingerprint = ?, schedule_fingerprint = ?, sinks_fingerprint = ?, due_reason = ?,"
    " removed_at = ?, returned_at = ?, deletes = ?, kek_id = ?, mac = ?,"
    " failures = 0, retry_at = NULL, fault = '' WHERE id = ?"
)

FAIL_WORKSPACES: Final = Statement(
    "UPDATE workspaces SET failures = CASE WHEN failures < 1000000 THEN failures + 1 ELSE 1 END, retry_at = ?,"
    " fault = ?, next_at = CASE WHEN due_at > ? THEN due_at ELSE ? END WHERE id = ?"
)

ANY_TOKEN: Final = sa.select(schema.tokens.c.jti).limit(1)
NOT_BELOW_TOKENS: Final = Statement(
    "UPDATE workspaces SET sequence = coalesce((SELECT max(sequence) FROM tokens WHERE workspace = ?), 0) WHERE id = ?"
    " AND sequence < coalesce((SELECT max(sequence) FROM tokens WHERE workspace = ?), 0)"
)
RENEW_WORKSPACE: Final = Statement(
    "UPDATE workspaces SET sequence = ?, current = ?, current_kid = ?, current_issued_at = ?, current_expires_at = ?,"
    " due_at = ?, next_at = ?, due_reason = ?, failures = 0, retry_at = NULL, fault = '' WHERE id = ?"
)
_GIVEN: Final = sa.union_all(
    sa.select(schema.tokens.c.sequence.label("n")).where(schema.tokens.c.workspace == sa.bindparam("workspace")),
    sa.select(schema.workspaces.c.sequence).where(schema.workspaces.c.id == sa.bindparam("workspace")),
    sa.select(schema.deliveries.c.delivered_sequence).where(schema.deliveries.c.workspace == sa.bindparam("workspace")),
).subquery()
HIGHEST_SEQUENCE: Final = sa.select(sa.func.max(_GIVEN.c.n)).where(
    _GIVEN.c.n <= sa.select(schema.audit_head.c.seq).scalar_subquery()
)

MOVE_WORKSPACES_ON: Final = update(
    schema.workspaces,
    (
        "sequence",
        "current",
        "current_kid",
        "current_issued_at",
        "current_expires_at",
        "due_at",
        "next_at",
    ),
    ("id", "sequence"),
    always="due_reason = '', failures = 0, retry_at = NULL, fault = ''",
    only_where="workspaces.removed_at IS NULL",
)

# The workspace as well: whose token it is does not follow from what the workspace's row calls the current one.
SUPERSEDE_TOKENS: Final = update(
    schema.tokens,
    ("superseded_at",),
    ("jti", "workspace"),
    always="phase = 'grace'",
    only_where="tokens.phase = 'active'",
)

SUPERSEDE_AND_ERASE_TOKENS: Final = update(
    schema.tokens,
    ("superseded_at",),
    ("jti", "workspace"),
    always="phase = 'grace', sealed = NULL",
    only_where="tokens.phase = 'active'",
)

INSERT_TOKENS: Final = Statement(
    insert(
        schema.tokens,
        (
            "jti",
            "workspace",
            "keyset",
            "kid",
            "phase",
            "sequence",
            "issued_at",
            "expires_at",
            "rotate_at",
            "reason",
            "kek_id",
            "mac",
            "sealed",
        ),
    )
)

# While a delivery is open, the sink still holds an older token, or none: the wait began with it, and its end is the
# deadline. A prior token that ended sooner was revoked, and what was before it as well.
WANT_NEW_TOKENS: Final = Statement(
    "INSERT INTO deliveries (workspace, sink, jti, sequence, wanted_at, deadline, due_at, delivered_sequence, attempts,"
    " last_error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (workspace, sink) DO UPDATE SET"
    " jti = excluded.jti, sequence = excluded.sequence, due_at = excluded.due_at, attempts = 0, last_error = '',"
    " wanted_at = CASE WHEN deliveries.due_at IS NULL THEN excluded.wanted_at ELSE deliveries.wanted_at END,"
    " deadline = CASE WHEN deliveries.due_at IS NULL OR excluded.deadline < deliveries.deadline"
    " THEN excluded.deadline ELSE deliveries.deadline END"
)


def insert_workspaces(connection: sa.Connection, integrity: Integrity, states: Sequence[WorkspaceState]) -> None:
    """Insert new workspaces, or bring removed ones back; a sequence that was reached before is kept."""
    INSERT_WORKSPACES.run(
        connection,
        [
            (
                state.id,
                state.keyset,
                state.sequence,
                to_us(state.due_at),
                to_us(state.due_at),
                state.current,
                state.current_kid,
                to_us(state.current_issued_at),
                to_us(state.current_expires_at),
                state.claims_fingerprint,
                state.schedule_fingerprint,
                state.sinks_fingerprint,
                state.due_reason,
                to_us(state.returned_at),
                rows.encode_names(state.deletes),
                *_mac(integrity, state._replace(removed_at=None)),
            )
            for state in states
        ],
    )
    if connection.execute(ANY_TOKEN).first() is not None:  # a row that was lost comes back where its tokens are
        NOT_BELOW_TOKENS.run(connection, [(state.id, state.id, state.id) for state in states])


def update_workspaces(connection: sa.Connection, integrity: Integrity, states: Sequence[WorkspaceState]) -> None:
    """Store what a config or a restore changes; an earlier failure is forgotten, and the next try is at ``due_at``."""
    UPDATE_WORKSPACES.run(
        connection,
        [
            (
                state.keyset,
                state.sequence,
                state.sequence,
                to_us(state.due_at),
                to_us(state.due_at),
                state.claims_fingerprint,
                state.schedule_fingerprint,
                state.sinks_fingerprint,
                state.due_reason,
                to_us(state.removed_at),
                to_us(state.returned_at),
                rows.encode_names(state.deletes),
                *_mac(integrity, state),
                state.id,
            )
            for state in states
        ],
    )


def _mac(integrity: Integrity, state: WorkspaceState) -> Values:
    values = {
        "id": state.id,
        "keyset": state.keyset,
        "claims_fingerprint": state.claims_fingerprint,
        "schedule_fingerprint": state.schedule_fingerprint,
        "sinks_fingerprint": state.sinks_fingerprint,
        "removed_at": to_us(state.removed_at),
        "returned_at": to_us(state.returned_at),
        "deletes": rows.encode_names(state.deletes),
    }
    return tuple(integrity.seal("workspaces", values).values())


def fail_workspaces(
    connection: sa.Connection, workspaces: Sequence[WorkspaceId], retry_at: datetime, fault: str
) -> None:
    """Count a failed issue and put off the next try."""
    retry_us = to_us(retry_at)
    FAIL_WORKSPACES.run(connection, [(retry_us, fault, retry_us, retry_us, workspace) for workspace in workspaces])


def renew_workspace(connection: sa.Connection, tokens: Sequence[Token], workspace: WorkspaceId, at: datetime) -> None:
    """Let what a row says of a workspace's token follow from its ``tokens``, and the next one be due ``at``.

    Its number is above any that was given, but for one that nobody can have given: each token is an event.
    """
    latest = max(tokens, key=lambda token: token.sequence, default=None)
    at_us = to_us(at)
    sequence = connection.execute(HIGHEST_SEQUENCE, {"workspace": workspace}).scalar() or 0
    RENEW_WORKSPACE.run(
        connection,
        [
            (
                sequence,
                None if latest is None else latest.jti,
                None if latest is None else latest.kid,
                None if latest is None else to_us(latest.issued_at),
                None if latest is None else to_us(latest.expires_at),
                at_us,
                at_us,
                str(Reason.RESTORED),
                workspace,
            )
        ],
    )


def issue(connection: sa.Connection, batch: Sequence[IssuedToken]) -> bool:
    """Commit a batch in five statements; False if a workspace's sequence moved or it was removed: roll back then."""
    us = instants.to_us  # none of them may be missing
    new: list[Values] = []
    moved: list[Values] = []
    superseded: list[Values] = []
    erased: list[Values] = []
    wanted: list[Values] = []
    for issued in batch:
        token = issued.token
        jti, workspace, kid, sequence = token.jti, token.workspace, token.kid, token.sequence
        issued_at, expires_at, rotate_at = us(token.issued_at), us(token.expires_at), us(token.rotate_at)
        new.append(
            (
                jti,
                workspace,
                token.keyset,
                kid,
                str(token.phase),
                sequence,
                issued_at,
                expires_at,
                rotate_at,
                str(issued.reason),
                issued.kek_id,
                bytearray(issued.mac),
                bytearray(issued.sealed),
            )
        )
        moved.append(
            (
                sequence,
                jti,
                kid,
                issued_at,
                expires_at,
                rotate_at,
                rotate_at,
                workspace,
                issued.prior_sequence,
            )
        )
        if issued.prior is not None:
            (superseded if issued.sinks else erased).append((issued_at, issued.prior, workspace))
        if issued.sinks:
            deadline = us(issued.delivery_deadline)
            wanted += [
                (workspace, sink, jti, sequence, issued_at, deadline, issued_at, 0, 0, "") for sink in issued.sinks
            ]
    if MOVE_WORKSPACES_ON.run(connection, moved) != len(batch):
        return False
    SUPERSEDE_TOKENS.run(connection, superseded)
    SUPERSEDE_AND_ERASE_TOKENS.run(connection, erased)
    INSERT_TOKENS.run(connection, new)
    WANT_NEW_TOKENS.run(connection, wanted)
    return True
