"""What shows a secret to the person who asked for it."""

from typing import Final

from rotator.core.events import Event, EventName
from rotator.core.model import Phase, SinkId, Token, WorkspaceId, WorkspaceState
from rotator.core.secret import Secret
from rotator.engine.deliver import open_parcel
from rotator.engine.requests.binding import require_current
from rotator.engine.requests.outcome import done
from rotator.engine.run import Run
from rotator.errors import RefusedError
from rotator.ports import Answer, DeliveryRow, Reading, RequestRow

SHOWN_SINK: Final = SinkId("shown")


def show_token(run: Run, request: RequestRow, reading: Reading) -> None:
    """Open a workspace's current token for the person who waits, and say so in the audit. The row holds no secret."""
    if not run.answers.awaited(request.nonce):
        raise RefusedError("whoever asked for the token waits no more; nothing was shown. Ask again")
    workspace = WorkspaceId(str(request.arguments.get("workspace", "")))
    with run.around.store.read() as snapshot:
        state = snapshot.workspace(workspace)
        if state is None:
            raise RefusedError(f"there is no workspace {workspace!r}; `rotator tokens list` names them")
        if state.current is None or state.current_expires_at is None:
            raise RefusedError(f"workspace {workspace} has no token yet; `rotator status` says why")
        require_current(request, state)
        wanted = DeliveryRow(
            workspace=workspace,
            sink=SHOWN_SINK,
            jti=state.current,
            sequence=state.sequence,
            wanted_at=reading.now,
            deadline=state.current_expires_at,
        )
        parcel = open_parcel(run, snapshot, wanted)
        row = snapshot.token(state.current)
    if parcel is None:
        raise RefusedError(_why_erased(state, None if row is None else row.token))
    with run.around.store.begin() as transaction:
        event = Event(
            name=EventName.TOKEN_SHOWN,
            at=reading.now,
            keyset=state.keyset,
            workspace=workspace,
            kid=parcel.kid,
            jti=parcel.jti,
        )
        done(run, transaction, request, event, parcel.jti)
    run.outcomes[request.nonce] = Answer(succeeded=True, text=parcel.jti, secret=Secret(parcel.token.reveal()))


def _why_erased(state: WorkspaceState, token: Token | None) -> str:
    """Return why the text of a workspace's current token cannot be shown, and what gives it another one."""
    workspace = state.id
    if token is not None and token.phase is Phase.REVOKED:
        on = "" if token.revoked_at is None else f" on {token.revoked_at:%Y-%m-%d %H:%M:%SZ}"
        follows = "It gets a new one by itself, as soon as a key signs; `rotator status` says what that waits for"
        if state.removed_at is not None:
            follows = "It has left the config, and gets no new one"
        return f"the current token of workspace {workspace} was revoked{on}, and its text erased. {follows}"
    ended = ""
    if token is not None and token.phase is Phase.RETIRED:
        ended = f" when it had ended, {token.expires_at:%Y-%m-%d %H:%M:%SZ}"
    return (
        f"the text of workspace {workspace}'s current token was erased{ended}; `rotator status` says what the next one "
        f"waits for, and `rotator replace {workspace}` asks for it now"
    )
