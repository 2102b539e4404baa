"""What only a person can vouch for: the clock as it stands, a config that drops much."""

from rotator.core.counting import counted
from rotator.core.events import Event, EventName
from rotator.core.timeguard import mark_of
from rotator.engine.amend import amend_future
from rotator.engine.observe import shift_sightings
from rotator.engine.requests.binding import require_clock, require_config
from rotator.engine.requests.outcome import done
from rotator.engine.run import Run
from rotator.engine.sync import apply_policy
from rotator.engine.witnessing import vouch_for
from rotator.ports import Reading, RequestRow


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
    """Apply the config that was refused for what it drops, if a person saw that."""
    if run.refused_policy is None and run.policy.digest and run.policy.digest == request.bound.get("config"):
        policy = run.policy  # killed when it was in force, and before that was recorded
    else:
        with run.around.store.read() as snapshot:
            policy = require_config(run, snapshot, request)
        apply_policy(run, policy, reading, accepted=True, asked=request)
        run.refused_policy = None
        run.healed("config")
    with run.around.store.begin() as transaction:
        event = Event(name=EventName.CONFIG_ACCEPTED, at=reading.now)
        result = f"the config is in force, with {counted(len(policy.workspaces), 'workspace')}"
        done(run, transaction, request, event, result)
