"""Replaces a workspace's token at an operator's word: a new one is due at once, those before it end as was said.

The request changes what the planner sees: the workspace is due, and each prior token has an end of its overlap. What
follows is the usual work. With no overlap at all the prior tokens are revoked here and now: a leak waits for nothing.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from rotator.core.actions import Reason
from rotator.core.events import Event, EventName
from rotator.core.model import Overlap, Phase, Token, WorkspaceId, WorkspaceState
from rotator.engine.requests.binding import require_current
from rotator.engine.requests.outcome import done
from rotator.engine.requests.revocation import token_revoked
from rotator.engine.run import Run
from rotator.engine.witnessing import remember_revoked
from rotator.errors import KekError, RefusedError, WitnessError
from rotator.ports import Reading, RequestRow, Transaction

TO_ITS_END: Final = "end"
"""The overlap that leaves prior tokens alone; any other is a whole number of seconds."""

LONGEST_SECONDS: Final = 36_525 * 86_400
"""A hundred years: what is longer leaves the range of dates."""


def replace_token(run: Run, request: RequestRow, reading: Reading) -> None:
    """Make the next token due now, and let the prior ones end. The result is the jti of the one that is replaced."""
    workspace = WorkspaceId(str(request.arguments.get("workspace", "")))
    overlap = _overlap(str(request.arguments.get("overlap", TO_ITS_END)))
    ends_at = None if overlap is None else reading.now + overlap
    if ends_at == reading.now:
        with run.around.store.read() as snapshot:
            # The witness takes nothing back.
            _require_replaceable(run, request, snapshot.workspace(workspace), workspace)
            _witness_first(run, _living(snapshot.tokens(workspace), reading.now))
    with run.around.store.begin() as transaction:
        state = _require_replaceable(run, request, transaction.lock_workspace(workspace), workspace)
        living = _living(transaction.tokens(workspace), reading.now)
        events = [] if ends_at is None else _limit(transaction, request, reading, living, ends_at)
        transaction.make_due(workspace, reading.now, Reason.REQUESTED, ends_at)
        event = Event(
            name=EventName.TOKEN_REPLACEMENT_REQUESTED,
            at=reading.now,
            keyset=state.keyset,
            workspace=workspace,
            kid=state.current_kid,
            jti=state.current,
            actor=request.actor,
            reason=request.reason,
            details={"overlap_ends_at": None if ends_at is None else ends_at.isoformat(timespec="seconds")},
        )
        done(run, transaction, request, event, str(state.current), before=events)


def _witness_first(run: Run, tokens: Iterable[Token]) -> None:
    """Let the witness know first, so that no backup brings them back; a leaked token does not live on without it."""
    try:
        remember_revoked(run, jtis={token.jti: token.expires_at for token in tokens})
    except (KekError, WitnessError) as error:
        run.fault("witness", str(error), "witness.refused")


def _overlap(text: str) -> timedelta | None:
    """Return the overlap that was asked for; None: to the prior token's own end."""
    if text == TO_ITS_END:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > LONGEST_SECONDS:
        raise RefusedError(f"an overlap is {TO_ITS_END!r} or a whole number of seconds, not {text!r}")
    return timedelta(seconds=int(text))


def _require_replaceable(
    run: Run, request: RequestRow, state: WorkspaceState | None, workspace: WorkspaceId
) -> WorkspaceState:
    if state is None:
        raise RefusedError(f"there is no workspace {workspace!r}; `rotator tokens list` names them")
    if state.removed_at is not None or workspace not in run.policy.workspaces:
        raise RefusedError(
            f"workspace {workspace} has left the config and gets no new token; to end the one that it has: "
            f"rotator revoke workspace {workspace}"
        )
    if state.current is None:
        raise RefusedError(f"workspace {workspace} has no token yet that could be replaced; `rotator status` says why")
    require_current(request, state)
    return state


def _living(tokens: Iterable[Token], now: datetime) -> list[Token]:
    return [token for token in tokens if token.phase in (Phase.ACTIVE, Phase.GRACE) and token.expires_at > now]


def _limit(
    transaction: Transaction, request: RequestRow, reading: Reading, living: Sequence[Token], ends_at: datetime
) -> list[Event]:
    """Let every living token end at ``ends_at`` at the latest: whoever means a leak does not know which one leaked."""
    if ends_at > reading.now:
        overlaps = [
            Overlap(token.jti, token.workspace, ends_at, request.actor, request.reason)
            for token in living
            if token.expires_at > ends_at
        ]
        transaction.put_overlaps(overlaps)
        return []
    for token in living:
        transaction.revoke_token(token.jti, reading.now, Reason.REQUESTED)
    return [token_revoked(request, reading, token) for token in living]
