"""What shows a secret to the person who asked for it."""

from typing import Final

from rotator.core.events import Event, EventName
from rotator.core.model import SinkId, WorkspaceId
from rotator.core.secret import Secret
from rotator.engine.deliver import open_parcel
from rotator.engine.requests.outcome import done
from rotator.engine.run import Run
from rotator.errors import RefusedError
from rotator.ports import DeliveryRow, Reading, RequestRow

SHOWN_SINK: Final = SinkId("shown")


def show_token(run: Run, request: RequestRow, reading: Reading) -> None:
    """Open a workspace's current token for the person who asked, and say so in the audit. The row holds no secret."""
    workspace = WorkspaceId(str(request.arguments.get("workspace", "")))
    with run.around.store.read() as snapshot:
        state = snapshot.workspace(workspace)
        if state is None:
            raise RefusedError(f"there is no workspace {workspace!r}; `rotator tokens list` names them")
        if state.current is None or state.current_expires_at is None:
            raise RefusedError(f"workspace {workspace} has no token yet; `rotator status` says why")
        wanted = DeliveryRow(
            workspace=workspace,
            sink=SHOWN_SINK,
            jti=state.current,
            sequence=state.sequence,
            wanted_at=reading.now,
            deadline=state.current_expires_at,
        )
        parcel = open_parcel(run, snapshot, wanted)
    if parcel is None:
        raise RefusedError(f"the text of workspace {workspace}'s token is not kept any more")
    run.answers[request.id] = Secret(parcel.token.reveal())  # there before whoever waits sees the end
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
