"""Commit, publish, confirm: carries the plan of one keyset out, action by action.

Each action that changes the database is planned once more inside its transaction, under the keyset's lock; if it is no
longer what is to be done, another replica or a crash got there first, and that is a success.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Final, assert_never

from rotator.core.actions import (
    ActivateKey,
    ConfirmDestruction,
    DemoteKey,
    KeysetAction,
    MakeKey,
    ProveKey,
    PublishSet,
    Reschedule,
    RetireKey,
)
from rotator.core.events import Event, EventName
from rotator.core.invariants import keyset_violations
from rotator.core.model import KeysetName, Phase
from rotator.core.planner import active_key, can_sign, desired_kids, next_due, plan_keyset
from rotator.engine import changes
from rotator.engine.doubt import Doubt, examine_rows
from rotator.engine.fresh import are_ready, is_under_way, leave, make_ready, material
from rotator.engine.observe import Observed, observe, record_sightings
from rotator.engine.publish import publish_as_known, take_out_revoked, try_to_publish
from rotator.engine.run import RETRY_CEILING, Run, Signing, backoff
from rotator.engine.witnessing import recall_revoked, remember_keyset
from rotator.errors import InvariantError, KekError, PublishError, RotatorError, SealError, StoreError, StoreRuleError
from rotator.ports import KeysetRow, Reading, Transaction

ROUNDS: Final = 8
"""Publications in one turn, beside one for each key that may leave; more would be a loop."""

LOOK_AGAIN: Final = timedelta(seconds=5)
"""How long a keyset whose key is being made is left alone."""


class _InDoubtError(SealError):
    """The row of a published key cannot be believed."""

    def __init__(self, doubt: Doubt) -> None:
        super().__init__(doubt.problem)
        self.doubt = doubt


Change = Callable[[Transaction, Observed], Sequence[Event]]


def turn_keyset(run: Run, name: KeysetName, reading: Reading) -> None:
    """Do all that is due for one keyset now; a failure is recorded on the keyset and stays there."""
    try:
        problem = _carry_out(run, name, reading)
    except StoreRuleError as error:  # a row that somebody changed stands where one of this keyset is to go
        _failed(run, name, reading, str(error))
    except (KekError, StoreError):
        raise  # not this keyset's: the tick deals with them
    except RotatorError as error:
        _failed(run, name, reading, str(error))
    except Exception as error:  # noqa: BLE001 - the edge of a unit of work: one keyset's failure is not another's
        _failed(run, name, reading, f"internal error: {type(error).__name__}: {error}")
    else:
        _settle(run, name, reading, problem)
    finally:
        leave(run, name)


def withdraw_revoked(run: Run, reading: Reading) -> None:
    """Let what was revoked leave every set that still shows it, where a held clock or a missing KEK allows no turn.

    Another replica revoked it, the tree could not be written when it was revoked here, or an old file was put back.
    """
    with run.around.store.read() as snapshot:
        names = [row.name for row in snapshot.keysets()]
        recall_revoked(run, snapshot, reading)
    for name in names:
        if run.sealer is None:
            take_out_revoked(run, name, reading)
            continue
        try:
            standing = run.around.publisher.found(name)
            shown = standing is not None and not run.revoked_kids.isdisjoint(standing.kids)
        except PublishError:
            shown = True  # nobody can tell; looked at more closely, it says why
        if shown or f"publish:{name}" in run.faults:
            withdraw(run, name, reading)


def withdraw(run: Run, name: KeysetName, reading: Reading) -> None:
    """Publish a set that is not what it should be, and do nothing else: a clock that is not trusted allows no more."""
    try:
        _withdraw(run, name, reading)
    except PublishError as error:
        run.fault(f"publish:{name}", str(error), "publish.failed", keyset=name)


def _withdraw(run: Run, name: KeysetName, reading: Reading) -> None:
    with run.around.store.read() as snapshot:
        observed = observe(run, snapshot, name, reading)
        doubt = None if observed is None else examine_rows(run, snapshot, observed)
    if observed is None:
        return
    if doubt is not None:
        publish_as_known(run, observed, doubt.seen, reading)
        return
    plan = plan_keyset(observed.state, observed.policy, reading.now, run.around.calendar)
    if plan and isinstance(plan[0], PublishSet):
        try_to_publish(run, plan[0], reading)
    elif not any(isinstance(action, PublishSet) for action in plan):
        run.healed(f"publish:{name}")


def remove_ended(run: Run, rows: Iterable[KeysetRow], reading: Reading) -> None:
    """Remove the documents of keysets that ended so long ago that no verifier can hold a set with a key of theirs."""
    verifiers = run.policy.verifiers
    held_for = verifiers.max_cache + verifiers.publish_lag + 2 * run.policy.clock_skew
    for row in rows:
        if row.ended_at is None or row.ended_at + held_for > reading.now:
            continue
        try:
            removed = run.around.publisher.remove(row.name)
        except PublishError as error:
            run.fault(f"publish:{row.name}", str(error), "publish.failed", keyset=row.name)
            continue
        if removed:
            run.around.log.event("publish.removed", keyset=row.name)


def needs_a_look(run: Run, row: KeysetRow, reading: Reading) -> bool:
    """Tell, cheaply, whether a keyset that is not due needs a turn: its set was changed, or is seen from outside.

    One that ended needs it where this tree shows keys of it: it stood still meanwhile, or an old tree was put in place.
    """
    if f"keyset:{row.name}" in run.faults or f"publish:{row.name}" in run.faults:
        return True
    if row.ended_at is None and max(row.due_at, row.retry_at or row.due_at) > reading.now + 2 * run.compare_interval:
        return True  # nobody puts it off for that long
    try:
        if row.ended_at is not None:
            standing = run.around.publisher.read(row.name)
            return standing is not None and bool(standing.kids)
        if run.around.served is not None or row.name not in run.signing:  # not signing, as when the KEK was away
            return True
        if not run.around.publisher.unchanged(row.name):
            return True
        published = run.around.publisher.read(row.name)
    except PublishError:
        return True
    return published is None or published.sha256 != row.set_sha256


def _carry_out(run: Run, name: KeysetName, reading: Reading) -> str:
    """Return what went wrong with publishing, or the empty string."""
    problem = ""
    for publications in count():
        try:
            observed = _look(run, name, reading, publish_blocked=bool(problem))
        except _InDoubtError as error:
            _replace_lost_signer(run, name, error.doubt, reading)
            raise
        if observed is None or _waits_for_served(run, observed):
            return problem
        if publications >= ROUNDS + len(observed.state.keys):
            break
        plan = plan_keyset(observed.state, observed.policy, reading.now, run.around.calendar)
        if not publications and _empties_the_set(plan) and make_ready(run, observed.policy):
            continue
        problem = _follow(run, plan, reading) or problem
        if not plan:
            return problem
        if not isinstance(plan[-1], PublishSet) or is_under_way(run, name):
            _look(run, name, reading, publish_blocked=bool(problem))  # tokens and the witness go by what signs now
            return problem
    raise InvariantError(f"keyset {name} was not settled after {publications} publications")


def _follow(run: Run, plan: Sequence[KeysetAction], reading: Reading) -> str:
    """Carry out what still is to be done of a plan; return what went wrong with publishing, or the empty string."""
    for action in plan:
        if isinstance(action, PublishSet):
            return try_to_publish(run, action, reading)
        if not _execute_or_do_without(run, action, reading):
            break
    return ""


def _empties_the_set(plan: Sequence[KeysetAction]) -> bool:
    return bool(plan) and isinstance(plan[0], PublishSet) and not plan[0].kids


def _execute_or_do_without(run: Run, action: KeysetAction, reading: Reading) -> bool:
    """Carry out one action; where a key that is at hand cannot be stored, plan again without those that are."""
    if not are_ready(run, action.keyset):
        return _execute(run, action, reading)
    try:
        done = _execute(run, action, reading)
    except RotatorError:  # it is tried again, with another key, and then it is a failure
        done = False
    if not done:
        leave(run, action.keyset)
    return done


def _look(run: Run, name: KeysetName, reading: Reading, *, publish_blocked: bool = False) -> Observed | None:
    """Observe, store the sightings that are news, report what is not ours, and observe again if anything was stored."""
    with run.around.store.read() as snapshot:
        observed = observe(run, snapshot, name, reading, publish_blocked=publish_blocked)
        doubt = None if observed is None else examine_rows(run, snapshot, observed)
    if observed is None:
        return None
    if doubt is not None:
        publish_as_known(run, observed, doubt.seen, reading)
        _remember_doubtful(run, observed, reading)
        raise _InDoubtError(doubt)
    with run.around.store.begin() as transaction:
        news = record_sightings(run, transaction, observed, reading)
    if news:
        with run.around.store.read() as snapshot:
            observed = observe(run, snapshot, name, reading, publish_blocked=publish_blocked)
    if observed is not None:
        remember(run, observed, reading)
    return observed


def _waits_for_served(run: Run, observed: Observed) -> bool:
    """Tell whether the first set must wait until the served URL was asked once what it shows."""
    served = run.around.served
    return served is not None and not observed.row.ever_active and served.latest(observed.row.name) is None


def remember(run: Run, observed: Observed, reading: Reading) -> None:
    """Keep what issuing tokens and the witness need to know of this keyset."""
    active = active_key(observed.state)
    over = observed.policy.ending and not observed.state.in_use
    signing = run.signing.get(observed.row.name)
    if active is not None and can_sign(active) and not over:
        run.signing[observed.row.name] = Signing(active.kid, observed.signers[active.kid], observed.policy)
    elif over or active is None or active.authentic or signing is None or signing.kid != active.kid:
        run.signing.pop(observed.row.name, None)
    # What was opened before its row was changed goes on: it is published as it was, and workspaces need tokens.
    remember_keyset(run, observed, reading)


def _remember_doubtful(run: Run, observed: Observed, reading: Reading) -> None:
    """Let the key that signs go on although another row cannot be believed: tokens are issued after a start, too."""
    active = active_key(observed.state)
    if active is not None and can_sign(active) and active.kid in (observed.state.published or ()):
        remember(run, observed, reading)
    else:
        remember_keyset(run, observed, reading)


def _replace_lost_signer(run: Run, name: KeysetName, doubt: Doubt, reading: Reading) -> None:
    """Let a spare sign where no key does, as after a revocation, and make one where none is: whatever a row says.

    By the same rules as ever: a spare waits until every verifier can know it, unless an operator chose otherwise.
    """
    for _ in range(ROUNDS):
        with run.around.store.read() as snapshot:
            observed = observe(run, snapshot, name, reading, publish_blocked=True)
        if observed is None or active_key(observed.state) is not None:
            return
        done = 0
        for action in plan_keyset(observed.state, observed.policy, reading.now, run.around.calendar):
            if not isinstance(action, MakeKey | ProveKey | ActivateKey) or not _execute(run, action, reading):
                break
            done += 1
        with run.around.store.read() as snapshot:
            observed = observe(run, snapshot, name, reading)
        if observed is None or not done:
            return
        publish_as_known(run, observed, doubt.seen, reading)
        _remember_doubtful(run, observed, reading)


# ---------------------------------------------------------------------------------------------------------- commit


def _execute(run: Run, action: KeysetAction, reading: Reading) -> bool:
    """Carry out one action; False if it is no longer what is to be done."""
    now = reading.now
    match action:
        case Reschedule():
            return _commit(run, action, reading, lambda tx, seen: changes.reschedule(tx, seen, action, now))
        case MakeKey():
            new = material(run, action.keyset, action.algorithm)
            return new is not None and _commit(
                run, action, reading, lambda tx, seen: changes.make(run.ready_sealer, tx, seen, action, new, now)
            )
        case ProveKey():
            _prove(run, action, reading)
            return _commit(run, action, reading, lambda tx, seen: changes.proven(tx, seen, action, now))
        case ActivateKey():
            return _commit(run, action, reading, lambda tx, seen: changes.activate(tx, seen, action, now))
        case DemoteKey():
            return _commit(run, action, reading, lambda tx, seen: changes.demote(tx, seen, action, now))
        case RetireKey():
            return _commit(run, action, reading, lambda tx, seen: changes.retire(tx, seen, action, now))
        case ConfirmDestruction():
            return _confirm(run, action, reading)
        case PublishSet():
            raise AssertionError("publications are not database changes")
        case _:
            assert_never(action)


def _commit(run: Run, action: KeysetAction, reading: Reading, change: Change) -> bool:
    """Make ``change`` and its events durable together, if ``action`` still is the next thing to do."""
    with run.around.store.begin() as transaction:
        transaction.lock_keyset(action.keyset)
        observed = observe(run, transaction, action.keyset, reading)
        if observed is None:
            return False
        plan = plan_keyset(observed.state, observed.policy, reading.now, run.around.calendar)
        if action not in plan:
            blocked = replace(observed.state, publish_blocked=True)
            if action not in plan_keyset(blocked, observed.policy, reading.now, run.around.calendar):
                return False
        events = change(transaction, observed)
        after = observe(run, transaction, action.keyset, reading, publish_blocked=True)
        if after is not None:
            violations = keyset_violations(after.state, after.policy, reading.now)
            if violations:
                raise InvariantError(
                    f"{type(action).__name__} would leave keyset {action.keyset} broken: {violations[0]}"
                )
        run.head = transaction.append(events)
    return True


def _prove(run: Run, action: ProveKey, reading: Reading) -> None:
    """Sign a probe and verify it from the bytes that stand in the published file now."""
    with run.around.store.read() as snapshot:
        observed = observe(run, snapshot, action.keyset, reading)
    published = None if observed is None else run.around.publisher.read(action.keyset)
    if observed is None or published is None:
        raise PublishError(f"keyset {action.keyset}: the published file vanished before key {action.kid} was proven")
    probe = run.around.tokenmaker.probe(observed.signers[action.kid], observed.policy.issuer, reading.now)
    try:
        run.around.tokenmaker.verify_with(probe, published.content)
    except SealError as error:
        run.around.log.event("probe.failed", keyset=action.keyset, kid=action.kid, problem=str(error))
        raise


def _confirm(run: Run, action: ConfirmDestruction, reading: Reading) -> bool:
    """Erase what is left, let it leave the disk, and only then say so. A reader may hold it up: tried again later."""
    with run.around.store.begin() as transaction:
        observed = observe(run, transaction, action.keyset, reading)
        for key in () if observed is None else observed.state.keys:
            if key.kid in action.kids and key.has_private:
                transaction.update_key(replace(key, has_private=False))
    if not run.around.store.purge_erased():
        return False
    for kid in action.kids:
        for entry in [entry for entry in run.signers if entry[0] == kid]:
            del run.signers[entry]

    return _commit(run, action, reading, lambda tx, seen: changes.destroyed(tx, seen, action, reading.now))


# ---------------------------------------------------------------------------------------------------------- settle


def _settle(run: Run, name: KeysetName, reading: Reading, problem: str) -> None:
    """Store when to look at the keyset again, and what is wrong with it."""
    with run.around.store.begin() as transaction:
        observed = observe(run, transaction, name, reading, publish_blocked=bool(problem))
        if observed is None:
            return
        row, now = observed.row, reading.now
        following = next_due(observed.state, observed.policy, now)
        undestroyed = any(
            key.phase not in (Phase.PENDING, Phase.ACTIVE) and not key.destroyed_at for key in observed.state.keys
        )
        latest = now + (RETRY_CEILING if undestroyed else run.compare_interval)
        due_at = latest if following is None else min(following, latest)
        if is_under_way(run, name):
            due_at = max(due_at, now + LOOK_AGAIN)  # the key that is made wakes the loop before
        failures = row.failures + 1 if problem else 0
        settled = replace(
            row,
            due_at=due_at,
            failures=failures,
            fault=problem,
            retry_at=now + backoff(failures, RETRY_CEILING, 0.0) if problem else None,
        )
        ended = observed.policy.ending and not desired_kids(observed.state) and not observed.state.in_use
        if ended and row.ended_at is None and not problem:
            settled = replace(settled, ended_at=now)
            transaction.drop_wish(name)  # else it would be fulfilled when the keyset comes back, years later
            run.head = transaction.append([Event(name=EventName.KEYSET_ENDED, at=now, keyset=name)])
        if settled != row:
            transaction.put_keyset(settled)
    if not problem:
        run.healed(f"keyset:{name}")
        run.healed(f"publish:{name}")


def _failed(run: Run, name: KeysetName, reading: Reading, problem: str) -> None:
    run.fault(f"keyset:{name}", problem, "keyset.failed", keyset=name)
    with run.around.store.begin() as transaction:
        row = transaction.lock_keyset(name)
        if row is not None:
            failures = row.failures + 1
            retry_at = reading.now + backoff(failures, RETRY_CEILING, 0.0)
            transaction.put_keyset(replace(row, failures=failures, fault=problem, retry_at=retry_at, due_at=retry_at))
