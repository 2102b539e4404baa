"""Commit, publish, confirm: gives each keyset its turn, and lets the turns of several share their commits.

A turn is a generator: it gives each step that needs a transaction, and is sent what came of it once that is durable.
Between two steps it does what belongs in no transaction. So a set is written when its rows are durable, and a key signs
when its set was read back, however many keysets have their turn at once.
"""

from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Final

from rotator.core.actions import ConfirmDestruction, KeysetAction, MakeKey, PublishSet
from rotator.core.model import KeysetName, Kid
from rotator.core.planner import PLAN_LIMIT, active_key, can_sign, plan_keyset
from rotator.engine.doubt import Doubt, examine_rows
from rotator.engine.fresh import are_ready, leave, make_ready, material
from rotator.engine.observe import Observed, observe
from rotator.engine.publish import publish_as_known, report, take_out_revoked, try_to_publish, write
from rotator.engine.run import RETRY_CEILING, Run, Signing, backoff
from rotator.engine.steps import Step, Stepped, take
from rotator.engine.witnessing import recall_revoked, remember_keyset
from rotator.errors import InvariantError, KekError, PublishError, RotatorError, SealError, StoreError, StoreRuleError
from rotator.ports import KeyMaterial, KeysetRow, Reading

ROUNDS: Final = 8
"""Publications in one turn, beside one for each key that may leave; more would be a loop."""

TOGETHER: Final = 8
"""Keysets whose turns share their commits: between two of them their sets are written, which a slow disk draws out."""

Turn = Generator[Step, Stepped, None]


def turn_keyset(run: Run, name: KeysetName, reading: Reading) -> None:
    """Do all that is due for one keyset now; a failure is recorded on the keyset and stays there."""
    turn_keysets(run, [name], reading)


def turn_keysets(run: Run, names: Iterable[KeysetName], reading: Reading) -> None:
    """Do all that is due for some keysets now; a failure is recorded on its keyset and stays there."""
    with ExitStack() as stack:
        # In the order of their names, for so they are locked: two replicas never wait for each other.
        turns = [stack.enter_context(closing(_turn(run, name, reading))) for name in sorted(names)]
        under_way = [(turn, next(turn)) for turn in turns]
        while under_way:
            results = _commit(run, [step for _, step in under_way])
            resumed = [(turn, _resume(turn, result)) for (turn, _), result in zip(under_way, results, strict=True)]
            under_way = [(turn, step) for turn, step in resumed if step is not None]


def _resume(turn: Turn, result: Stepped | Exception) -> Step | None:
    """Return the next step of a turn; None once it is over."""
    try:
        return turn.throw(result) if isinstance(result, Exception) else turn.send(result)
    except StopIteration:
        return None


def _commit(run: Run, steps: Sequence[Step]) -> Sequence[Stepped | Exception]:
    """Make the steps durable together; where that fails each alone, so that one failure stays one failure."""
    if len(steps) > 1:
        try:
            return _commit_together(run, steps)
        except Exception:  # noqa: BLE001, S110 - whose it is shows when each goes alone
            pass
    return [_commit_alone(run, step) for step in steps]


def _commit_alone(run: Run, step: Step) -> Stepped | Exception:
    try:
        return _commit_together(run, [step])[0]
    except Exception as error:  # noqa: BLE001 - raised where the turn goes on
        return error


def _commit_together(run: Run, steps: Sequence[Step]) -> Sequence[Stepped]:
    with run.around.store.begin() as transaction:
        done = [take(run, step, transaction) for step in steps]
        events = [event for stepped in done for event in stepped.events]
        head = transaction.append(events) if events else run.head
    run.head = head
    return done


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


# ------------------------------------------------------------------------------------------------------------- turns


def _turn(run: Run, name: KeysetName, reading: Reading) -> Turn:
    try:
        yield from _carry_out(run, name, reading)
    except StoreRuleError as error:  # a row that somebody changed stands where one of this keyset is to go
        _failed(run, name, reading, str(error))
    except (KekError, StoreError):
        raise  # not this keyset's: the tick deals with them
    except RotatorError as error:
        _failed(run, name, reading, str(error))
    except Exception as error:  # noqa: BLE001 - the edge of a unit of work: one keyset's failure is not another's
        _failed(run, name, reading, f"internal error: {type(error).__name__}: {error}")
    finally:
        leave(run, name)


def _carry_out(run: Run, name: KeysetName, reading: Reading) -> Turn:
    """Take one step after the other until nothing is left to do now."""
    step, publications = Step(name=name, reading=reading, may_wait_for_keys=True), 0
    while True:
        try:
            done = yield step
        except RotatorError as error:
            step = _otherwise(run, step, error)
            continue
        if step.written is not None:
            report(run, step.written)
            run.healed(f"publish:{name}")
        if done.observed is None:
            return
        if done.doubt is not None:
            yield from _in_doubt(run, done.observed, done.doubt, reading)
        remember(run, done.observed, reading)
        if done.settled:
            if not step.problem:
                run.healed(f"keyset:{name}")
                run.healed(f"publish:{name}")
            return
        publications += done.unwritten is not None
        if publications > ROUNDS + len(done.observed.state.keys):
            raise InvariantError(f"keyset {name} was not settled after {publications} publications")
        step = _next_step(run, step, done)


def _otherwise(run: Run, step: Step, error: Exception) -> Step:
    """Return what to try in place of a step that failed; raise ``error`` where there is nothing.

    Where keys that were at hand could not be stored, it is planned again without them. Else what is seen is recorded by
    itself, and then one action at a time is carried out.
    """
    if step.at_hand:
        leave(run, step.name)
        return replace(step, materials=(), at_hand=False)
    if step.at_most == PLAN_LIMIT:
        return replace(step, at_most=0)
    raise error


def _next_step(run: Run, step: Step, done: Stepped) -> Step:
    """Prepare what the plan needs to go on, and return the step in which it does."""
    if done.failed is not None:
        step = _otherwise(run, replace(step, at_most=1), done.failed)
    if done.problem:
        _not_published(run, step.name, done.problem)
    following = replace(
        step,
        written=None,
        materials=(),
        at_hand=False,
        at_most=step.at_most if step.at_most == PLAN_LIMIT else 1,
        problem=done.problem or step.problem,
        may_wait_for_keys=False,
    )
    if done.unwritten is not None:
        try:
            return replace(following, written=write(run, done.unwritten))
        except PublishError as error:
            _not_published(run, step.name, str(error))
            return replace(following, problem=str(error))
    if done.observed is None or not done.lacks:
        return following
    match done.lacks[0]:
        case MakeKey():
            return _with_materials(run, following, done.lacks)
        case ConfirmDestruction(kids=kids):
            return _with_erased(run, following, kids)
        case _:
            make_ready(run, done.observed.policy)
            return following


def _not_published(run: Run, name: KeysetName, problem: str) -> None:
    run.fault(f"publish:{name}", problem, "publish.failed", keyset=name)


def _with_materials(run: Run, step: Step, lacks: Sequence[KeysetAction]) -> Step:
    """Make the keys that are wanted, or take them from those at hand; a slow one may come later."""
    at_hand, made = are_ready(run, step.name), list[KeyMaterial]()
    try:
        for action in lacks:
            new = material(run, step.name, action.algorithm) if isinstance(action, MakeKey) else None
            if new is None:
                break
            made.append(new)
    except RotatorError:
        if not at_hand:
            raise
        leave(run, step.name)  # it is tried again, with another key, and then it is a failure
        return step
    if not made:
        return replace(step, without=(*step.without, MakeKey))
    return replace(step, materials=tuple(made), at_hand=at_hand)


def _with_erased(run: Run, step: Step, kids: Sequence[Kid]) -> Step:
    """Let what was erased leave the disk. A reader may hold it up: tried again later."""
    if not run.around.store.purge_erased():
        return replace(step, without=(*step.without, ConfirmDestruction))
    for entry in [entry for entry in run.signers if entry[0] in kids]:
        del run.signers[entry]
    return replace(step, erased=step.erased.union(kids))


def _in_doubt(run: Run, observed: Observed, doubt: Doubt, reading: Reading) -> Turn:
    """Publish what is known of a keyset one of whose rows cannot be believed, see that a key signs, and fail."""
    publish_as_known(run, observed, doubt.seen, reading)
    _remember_doubtful(run, observed, reading)
    yield from _replace_lost_signer(run, observed.row.name, doubt, reading)
    raise SealError(doubt.problem)


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


def _replace_lost_signer(run: Run, name: KeysetName, doubt: Doubt, reading: Reading) -> Turn:
    """Let a spare sign where no key does, as after a revocation, and make one where none is: whatever a row says.

    By the same rules as ever: a spare waits until every verifier can know it, unless an operator chose otherwise.
    """
    step = Step(name=name, reading=reading, in_doubt=True)
    for _ in range(2 * ROUNDS):
        done = yield step
        step = replace(step, materials=())
        if done.acted and done.observed is not None:
            publish_as_known(run, done.observed, doubt.seen, reading)
            _remember_doubtful(run, done.observed, reading)
        if done.failed is not None:
            raise done.failed
        if done.lacks:
            step = _with_materials(run, step, done.lacks)
        if not (done.acted or step.materials):
            return


def _failed(run: Run, name: KeysetName, reading: Reading, problem: str) -> None:
    run.fault(f"keyset:{name}", problem, "keyset.failed", keyset=name)
    with run.around.store.begin() as transaction:
        row = transaction.lock_keyset(name)
        if row is not None:
            failures = row.failures + 1
            retry_at = reading.now + backoff(failures, RETRY_CEILING, 0.0)
            transaction.put_keyset(replace(row, failures=failures, fault=problem, retry_at=retry_at, due_at=retry_at))
