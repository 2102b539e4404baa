"""What only a person can vouch for: the clock as it stands, a config that drops much."""

from collections.abc import Iterator
from typing import Final

from rotator.core.counting import counted
from rotator.core.events import Event, EventName
from rotator.core.policy import Policy
from rotator.core.timeguard import mark_of
from rotator.engine.amend import amend_future
from rotator.engine.observe import shift_sightings
from rotator.engine.requests.binding import require_clock, require_config, require_same_drops
from rotator.engine.requests.outcome import done
from rotator.engine.run import Accepting, Run
from rotator.engine.shares import begin_share
from rotator.engine.sync import applying, surveying
from rotator.engine.witnessing import vouch_for
from rotator.errors import StoreError
from rotator.ports import Reading, RequestRow

END: Final = object()
"""What an iterator gives when it is at its end."""


def accept_clock(run: Run, request: RequestRow, reading: Reading) -> None:
    """Trust the clock as it stands now, if it is the one that a person saw."""
    with run.around.store.read() as snapshot:
        require_clock(run, snapshot, request, reading)
    problem = run.faults.get("clock", "")
    vouch_for(run, mark_of(reading))
    with run.around.store.begin() as transaction:
        shift_sightings(run, transaction, transaction.clock_mark(), reading)
        amend_future(run, transaction, reading)
        transaction.set_clock_mark(mark_of(reading))
        event = Event(name=EventName.CLOCK_ACCEPTED, at=reading.now, reason=request.reason or problem)
        result = f"the clock is trusted as it stands: {reading.now:%Y-%m-%d %H:%M:%S} UTC"
        done(run, transaction, request, event, result)
    run.healed("clock", "clock.released")


def accept_config(run: Run, request: RequestRow, reading: Reading) -> None:
    """Apply the config that was refused for what it drops, if a person saw that; it goes on from tick to tick.

    Until all of it is applied the request stays open.
    """
    accepting = run.accepting
    if accepting is None or accepting.nonce != request.nonce:
        if run.refused_policy is None and run.policy.digest and run.policy.digest == request.bound.get("config"):
            _accepted(run, request, reading, run.policy)  # killed when it was in force, and before that was recorded
            return
        accepting = run.accepting = Accepting(request.nonce, require_config(run, request))
    if accepting.steps is None:
        accepting.steps = _steps(run, request, reading, accepting)
    try:
        if not _go_on(run, accepting.steps):
            return
    except StoreError:
        accepting.steps = None  # begun anew, and what was accepted stays so although a part of it is done
        raise
    except BaseException:
        run.accepting = None
        raise
    run.accepting = None
    if run.refused_policy is accepting.policy:
        run.refused_policy = None
    run.healed("config")
    _accepted(run, request, reading, accepting.policy)


def _steps(run: Run, request: RequestRow, reading: Reading, accepting: Accepting) -> Iterator[None]:
    survey = yield from surveying(run, accepting.policy)
    if not accepting.begun:
        require_same_drops(survey, request)
        accepting.begun = True
    yield from applying(run, accepting.policy, reading, accepted=True, asked=request, survey=survey)


def _go_on(run: Run, steps: Iterator[None]) -> bool:
    """Take one step, and as many as there is time for; tell whether that is all."""
    is_over = begin_share(run)
    while next(steps, END) is not END:
        if is_over():
            return False
    return True


def _accepted(run: Run, request: RequestRow, reading: Reading, policy: Policy) -> None:
    with run.around.store.begin() as transaction:
        event = Event(name=EventName.CONFIG_ACCEPTED, at=reading.now)
        result = f"the config is in force, with {counted(len(policy.workspaces), 'workspace')}"
        done(run, transaction, request, event, result)
