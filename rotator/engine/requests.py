"""Carries out what people ask for: stored as rows before they were answered, handled by the one loop.

A handler does its work, records its event and the request's end in one transaction, and raises :class:`RefusedError`
with the reason when it will not.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from rotator.core.events import Event, EventName
from rotator.core.model import SinkId, WorkspaceId
from rotator.core.secret import Secret
from rotator.core.timeguard import mark_of
from rotator.engine.amend import amend_future
from rotator.engine.deliver import open_parcel
from rotator.engine.observe import shift_sightings
from rotator.engine.run import Run
from rotator.engine.sync import apply_policy
from rotator.errors import RefusedError, RotatorError, StoreError
from rotator.ports import DeliveryRow, Reading, RequestRow, Transaction

Handler = Callable[[Run, RequestRow, Reading], None]

BEFORE_THE_CLOCK: Final = frozenset({"clock.accept"})
"""What works while the clock is held."""


def handle_requests(run: Run, reading: Reading, *, clock_held: bool) -> bool:
    """Handle every open request that can be handled now; tell whether there was one."""
    with run.around.store.read() as snapshot:
        waiting = snapshot.open_requests()
    handled = False
    for request in waiting:
        if clock_held and request.kind not in BEFORE_THE_CLOCK:
            continue
        handled = True
        try:
            _handle(run, request, reading)
        except StoreError:
            raise
        except RotatorError as error:
            _refuse(run, request, reading, str(error))
        except Exception as error:  # noqa: BLE001 - the edge of a unit of work: a request that fails is answered once
            _refuse(run, request, reading, f"internal error: {type(error).__name__}: {error}")
    return handled


def _handle(run: Run, request: RequestRow, reading: Reading) -> None:
    handler = HANDLERS.get(request.kind)
    if handler is None:
        raise RefusedError(f"this version knows no request {request.kind!r}")
    handler(run, request, reading)


def _refuse(run: Run, request: RequestRow, reading: Reading, problem: str) -> None:
    run.around.log.event("request.refused", kind=request.kind, actor=request.actor, problem=problem)
    with run.around.store.begin() as transaction:
        transaction.finish_request(request.id, reading.now, succeeded=False, result=problem)


def _done(run: Run, transaction: Transaction, request: RequestRow, event: Event, result: str) -> None:
    """Record a request's event and its end together: killed before, it is done again; after, it is not."""
    transaction.finish_request(request.id, event.at, succeeded=True, result=result)
    run.head = transaction.append([event])


def _accept_clock(run: Run, request: RequestRow, reading: Reading) -> None:
    """Trust the clock as it stands now."""
    problem = run.faults.get("clock", "")
    with run.around.store.begin() as transaction:
        shift_sightings(run, transaction, transaction.clock_mark(), reading)
        amend_future(run, transaction, reading)
        transaction.set_clock_mark(mark_of(reading))
        event = Event(
            name=EventName.CLOCK_ACCEPTED, at=reading.now, actor=request.actor, reason=request.reason or problem
        )
        result = f"the clock is trusted as it stands: {reading.now:%Y-%m-%d %H:%M:%S} UTC"
        _done(run, transaction, request, event, result)
    run.healed("clock", "clock.released")


def _accept_config(run: Run, request: RequestRow, reading: Reading) -> None:
    """Apply the config that was refused for what it drops."""
    policy = run.refused_policy
    if policy is None:
        raise RefusedError("no config waits to be accepted")
    apply_policy(run, policy, reading, accepted=True)
    run.refused_policy = None
    run.healed("config")
    with run.around.store.begin() as transaction:
        event = Event(name=EventName.CONFIG_ACCEPTED, at=reading.now, actor=request.actor, reason=request.reason)
        _done(run, transaction, request, event, f"the config is in force, with {len(policy.workspaces)} workspaces")


def _show_token(run: Run, request: RequestRow, reading: Reading) -> None:
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
            actor=request.actor,
            reason=request.reason,
        )
        _done(run, transaction, request, event, parcel.jti)


SHOWN_SINK: Final = SinkId("shown")

HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {"clock.accept": _accept_clock, "config.accept": _accept_config, "token.show": _show_token}
)
