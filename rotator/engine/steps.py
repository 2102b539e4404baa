"""One step of a keyset's turn: all that one transaction changes of it, from one look at it, under its lock.

What takes long, or must not happen in a transaction, is done between two steps: key material is made, the set is
written, what was erased leaves the disk. A step ends where its plan needs that, and the next one plans anew.
"""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from rotator.core.actions import ActivateKey, ConfirmDestruction, KeysetAction, MakeKey, ProveKey, PublishSet
from rotator.core.events import Event, EventName
from rotator.core.invariants import keyset_violations
from rotator.core.model import KeysetName, Kid, Phase
from rotator.core.planner import PLAN_LIMIT, active_key, desired_kids, next_due, plan_keyset
from rotator.engine import changes
from rotator.engine.doubt import Doubt, examine_rows
from rotator.engine.fresh import is_under_way
from rotator.engine.observe import Observed, observe, publication, record_sightings
from rotator.engine.publish import Unwritten, Written, confirm, prepare
from rotator.engine.run import RETRY_CEILING, Run, backoff
from rotator.errors import InvariantError, PublishError, SealError
from rotator.ports import KeyMaterial, Reading, Transaction

LOOK_AGAIN: Final = timedelta(seconds=5)
"""How long a keyset whose key is being made is left alone."""

TAKES_OVER: Final = (MakeKey, ProveKey, ActivateKey)
"""What is done for a keyset without a signer, one of whose rows cannot be believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is known before a step begins."""

    name: KeysetName
    reading: Reading
    written: Written | None = None
    """A set that was written, and is to be recorded."""
    materials: tuple[KeyMaterial, ...] = ()
    """Keys that were made for it."""
    at_hand: bool = False
    """Those were made before they were asked for: it can do without them."""
    erased: frozenset[Kid] = frozenset()
    """Keys whose erased private halves have left the disk."""
    without: tuple[type[KeysetAction], ...] = ()
    """What cannot be prepared now: the plan ends before it."""
    at_most: int = PLAN_LIMIT
    """How many actions may share the transaction; where it failed as a whole each goes alone."""
    problem: str = ""
    """What went wrong with publishing in this turn."""
    may_wait_for_keys: bool = False
    """Before the set is emptied, keys may be made that come into it in the same moment."""
    in_doubt: bool = False
    """Not all rows can be believed: no more is done than to let a key sign."""


@dataclass(slots=True)
class Stepped:
    """What a step did, once its transaction is durable."""

    observed: Observed | None
    """As it is now; None: there is no such keyset."""
    doubt: Doubt | None = None
    events: list[Event] = field(default_factory=list)
    acted: int = 0
    lacks: tuple[KeysetAction, ...] = ()
    """What the plan goes on with, and what has to be prepared for it."""
    unwritten: Unwritten | None = None
    problem: str = ""
    """Why the set cannot be published."""
    failed: Exception | None = None
    """Why the next action could not be carried out, after those that were."""
    settled: bool = False
    """Nothing more is to be done now."""


def take(run: Run, step: Step, transaction: Transaction) -> Stepped:
    """Observe, record what is seen, and carry out what is planned as far as it is prepared.

    The caller chains the events, last of all.
    """
    row, reading = transaction.lock_keyset(step.name), step.reading
    blocked = bool(step.problem) or step.in_doubt
    before = None if row is None else observe(run, transaction, step.name, reading, row=row, publish_blocked=blocked)
    done = Stepped(before)
    if step.written is not None:
        before, event = confirm(run, transaction, before, step.written, reading)
        done.events.append(event)
    if before is None:
        return done
    if not step.in_doubt:
        done.doubt = examine_rows(run, transaction, before)
        if done.doubt is not None:
            done.observed = before
            return done
        if step.written is None:
            before = record_sightings(run, transaction, before, reading)
    if step.materials:
        before = replace(before, state=replace(before.state, fresh_at_hand=True))
    after = _carry_out(run, step, transaction, before, done)
    if done.settled:
        after = _settled(run, step, transaction, after, done)
    changes.store(run, transaction, before, after, step.materials)
    done.observed = after
    return done


def _waits_for_served(run: Run, observed: Observed) -> bool:
    """Tell whether the first set must wait until the served URL was asked once what it shows."""
    served = run.around.served
    return served is not None and not observed.row.ever_active and served.latest(observed.row.name) is None


def _carry_out(run: Run, step: Step, transaction: Transaction, observed: Observed, done: Stepped) -> Observed:
    """Carry out what is planned, in memory, and say in ``done`` how far that came."""
    now = step.reading.now
    signs = active_key(observed.state) is not None
    if (step.in_doubt and signs and not step.materials) or _waits_for_served(run, observed):
        done.settled = not step.in_doubt
        return observed
    plan = plan_keyset(observed.state, observed.policy, now, run.around.calendar)
    if step.may_wait_for_keys and plan and isinstance(plan[0], PublishSet) and not plan[0].kids:
        done.lacks = plan
        return observed
    materials = iter(step.materials)
    for number, action in enumerate(plan):
        if number >= step.at_most or (step.in_doubt and not isinstance(action, TAKES_OVER)):
            return observed
        made = next(materials, None) if isinstance(action, MakeKey) else None
        if isinstance(action, PublishSet):
            return _with_set(run, step, transaction, observed, done)
        if (isinstance(action, MakeKey) and made is None) or (
            isinstance(action, ConfirmDestruction) and not step.erased.issuperset(action.kids)
        ):
            if isinstance(action, step.without):
                break
            done.lacks = plan[number:]
            if isinstance(action, ConfirmDestruction):
                _erase(transaction, observed, action)
            return observed
        try:
            after = _after(run, step, observed, action, made)
        except Exception as error:  # noqa: BLE001 - what was done before it stays done; raised by whoever is told
            done.failed = error
            return observed
        done.events += changes.events_of(observed, after, action, now)
        done.acted += 1
        observed = after
    done.settled = not step.in_doubt
    return observed


def _after(run: Run, step: Step, observed: Observed, action: KeysetAction, made: KeyMaterial | None) -> Observed:
    """Return what is so after one action."""
    if isinstance(action, ProveKey):
        _prove(run, observed, action, step.reading)
    after = changes.carried_out(observed, action, made, step.reading.now)
    blocked = replace(after.state, publish_blocked=True)
    violations = keyset_violations(blocked, after.policy, step.reading.now)
    if violations:
        raise InvariantError(f"{type(action).__name__} would leave keyset {step.name} broken: {violations[0]}")
    return after


def _prove(run: Run, observed: Observed, action: ProveKey, reading: Reading) -> None:
    """Sign a probe and verify it from the bytes that stand in the published file now."""
    published = run.around.publisher.read(action.keyset)
    if published is None:
        raise PublishError(f"keyset {action.keyset}: the published file vanished before key {action.kid} was proven")
    probe = run.around.tokenmaker.probe(observed.signers[action.kid], observed.policy.issuer, reading.now)
    try:
        run.around.tokenmaker.verify_with(probe, published.content)
    except SealError as error:
        run.around.log.event("probe.failed", keyset=action.keyset, kid=action.kid, problem=str(error))
        raise


def _erase(transaction: Transaction, observed: Observed, action: ConfirmDestruction) -> None:
    """Erase what is left of private halves. That they are gone is said once they have left the disk as well."""
    for key in observed.state.keys:
        if key.kid in action.kids and key.has_private:
            transaction.update_key(replace(key, has_private=False))


def _with_set(run: Run, step: Step, transaction: Transaction, observed: Observed, done: Stepped) -> Observed:
    """Make the set ready that is to be written once this step is durable."""
    content = publication(run, observed.row, observed.policy, observed.state, step.reading.now)
    try:
        done.unwritten = prepare(run, transaction, observed, content, step.reading)
    except PublishError as error:
        done.problem = str(error)
        return observed
    return replace(observed, row=done.unwritten.row)


def _settled(run: Run, step: Step, transaction: Transaction, observed: Observed, done: Stepped) -> Observed:
    """Say when to look at the keyset again, and what is wrong with it."""
    row, now, problem = observed.row, step.reading.now, step.problem
    following = next_due(observed.state, observed.policy, now)
    undestroyed = any(
        key.phase not in (Phase.PENDING, Phase.ACTIVE) and not key.destroyed_at for key in observed.state.keys
    )
    latest = now + (RETRY_CEILING if undestroyed else run.compare_interval)
    due_at = latest if following is None else min(following, latest)
    if is_under_way(run, step.name):
        due_at = max(due_at, now + LOOK_AGAIN)  # the key that is made wakes the loop before
    failures = row.failures + 1 if problem else 0
    row = replace(
        row,
        due_at=due_at,
        failures=failures,
        fault=problem,
        retry_at=now + backoff(failures, RETRY_CEILING, 0.0) if problem else None,
    )
    ended = observed.policy.ending and not desired_kids(observed.state) and not observed.state.in_use
    if ended and row.ended_at is None and not problem:
        row = replace(row, ended_at=now)
        transaction.drop_wish(step.name)  # else it would be fulfilled when the keyset comes back, years later
        done.events.append(Event(name=EventName.KEYSET_ENDED, at=now, keyset=step.name))
    return replace(observed, row=row)
