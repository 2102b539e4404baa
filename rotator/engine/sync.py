"""Brings the database in step with a loaded config: keysets, workspaces, deliveries; audited, in bulk."""

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from rotator.core.counting import counted
from rotator.core.events import Event, EventName
from rotator.core.model import DEFAULT_KEYSET, KeysetName, SinkId, WorkspaceId, WorkspaceState
from rotator.core.policy import Policy
from rotator.core.sinks import path_of, sink_id
from rotator.core.stored_policy import policy_from_json, policy_to_json
from rotator.core.tokens import SyncPlan, SyncSurvey, plan_sync, survey_sync
from rotator.engine.attribution import caused_by
from rotator.engine.run import Pending, Run
from rotator.errors import RefusedError
from rotator.ports import DeliveryRow, KeysetRow, Reading, RequestRow, Transaction

PIECE: Final = 1_000
"""Workspaces that are brought in step in one transaction: over in a fraction of a second."""

LARGEST_LOSS: Final = 0.1
"""A reload that drops a larger share of the workspaces needs ``config accept``."""

NEVER: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""When to try again what only a changed config can mend."""

MISSING: Final = (
    "it is not in the config any more; nothing is issued for it until `rotator config accept` or its return"
)


def too_many_dropped(survey: SyncSurvey) -> str:
    """Return why a config is refused until it is accepted; empty when it is not."""
    lost = len(survey.removed)
    if lost <= survey.known * LARGEST_LOSS:
        return ""
    return (
        f"the config drops {lost} of {survey.known} workspaces ({survey.removed[0]} among them), more than a tenth. "
        "If that is meant, run `rotator config accept`"
    )


def changed_issuers(
    stored: Iterable[KeysetRow], policy: Policy, survey: SyncSurvey, now: datetime
) -> Mapping[KeysetName, str]:
    """Return the issuer that tokens which live still name, by keyset, where ``policy`` has another one."""
    found: dict[KeysetName, str] = {}
    for row in stored:
        wanted = policy.keysets.get(row.name)
        if wanted is None or not row.authentic or row.ended_at is not None or not survey.holders.get(row.name):
            continue
        before = policy_from_json(row.policy).issuer
        if before != wanted.issuer and survey.last_expires_at[row.name] > now:
            found[row.name] = before
    return found


def _issuer_refusal(changed: Mapping[KeysetName, str], policy: Policy, survey: SyncSurvey) -> str:
    if not changed:
        return ""
    name, before = next(iter(changed.items()))
    tokens, last = counted(survey.holders[name], "token"), survey.last_expires_at[name]
    return (
        f"the issuer of keyset {name} changes from {before} to {policy.keysets[name].issuer}: a verifier that checks "
        f"`iss` refuses every new token until its own config follows, and then {tokens} that may live until "
        f"{last:%Y-%m-%d %H:%M:%S} UTC. If that is meant, run `rotator config accept`"
    )


def refusal_of(stored: Iterable[KeysetRow], policy: Policy, survey: SyncSurvey, now: datetime) -> str:
    """Return why a config is refused until it is accepted; empty when it is not."""
    changed = changed_issuers(stored, policy, survey, now)
    return "; ".join(filter(None, (too_many_dropped(survey), _issuer_refusal(changed, policy, survey))))


def _with_issuers(policy: Policy, issuers: Mapping[KeysetName, str]) -> Policy:
    """Return a policy with other issuers, and its tree served where it was, if that follows from the issuer."""
    keysets = {name: replace(policy.keysets[name], issuer=issuer) for name, issuer in issuers.items()}
    default = policy.keysets.get(DEFAULT_KEYSET)
    follows = default is not None and policy.base_url == default.issuer.rstrip("/")
    base_url = issuers.get(DEFAULT_KEYSET, policy.base_url).rstrip("/") if follows else policy.base_url
    return replace(policy, keysets={**policy.keysets, **keysets}, base_url=base_url)


def survey_of(run: Run, policy: Policy) -> SyncSurvey:
    """Count what ``policy`` would change; may be called beside the loop."""
    with run.around.store.read() as snapshot:
        return survey_sync(snapshot.workspaces(), policy)


def surveying(run: Run, policy: Policy) -> Generator[None, None, SyncSurvey]:
    """Count what ``policy`` would change, a bounded number of workspaces from one step to the next."""
    survey, after = survey_sync((), policy), WorkspaceId("")
    while True:
        with run.around.store.read() as snapshot:
            states = [seen.state for seen in snapshot.workspaces_after(after, PIECE)]
        if not states:
            return survey
        survey, after = survey.joined(survey_sync(states, policy)), states[-1].id
        yield


def applying(
    run: Run,
    policy: Policy,
    reading: Reading,
    *,
    accepted: bool,
    starting: bool = False,
    asked: RequestRow | None = None,
    survey: SyncSurvey | None = None,
) -> Iterator[None]:
    """Make ``policy`` the one in force, a bounded number of workspaces from one step to the next.

    Raises :class:`RefusedError` in the first step, with nothing changed, when it would drop too many workspaces and is
    not ``accepted``; at a start it is applied without the removals instead, for the others must go on. ``asked``: who
    accepted it. ``survey``: what was counted before, if it was. Begun anew after a crash, it does what is left.
    """
    survey = survey if survey is not None else survey_of(run, policy)
    with run.around.store.read() as snapshot:
        rows = () if accepted else snapshot.keysets()
    refusal = "" if accepted else refusal_of(rows, policy, survey, reading.now)
    if refusal and not starting:
        raise RefusedError(refusal)
    too_many = bool(refusal) and bool(too_many_dropped(survey))
    if refusal and (issuers := changed_issuers(rows, policy, survey, reading.now)):
        policy = _with_issuers(policy, issuers)
    served, foreign = _found_sets(run, policy, starting=starting)
    moved = policy.base_url != run.policy.base_url
    run.policy = policy
    counts = Counter[str]()
    pieces = [*_pieces(tuple(policy.workspaces)), *_pieces(survey.removed)]
    for number, piece in enumerate(pieces or [()]):
        if number:
            yield
        with run.around.store.begin() as transaction:
            events: list[Event] = []
            if not number:
                events += _sync_keysets(transaction, policy, served, foreign, reading, moved=moved)
                counts["keysets"] = len(events)
            states = transaction.workspaces_named(piece)
            plan = plan_sync(states, policy, reading.now, run.around.calendar, among=piece, crowd=survey.claims_changed)
            held = plan.removed if too_many else ()
            # What is held is told of when that begins, and not anew at each start until somebody decides.
            newly_held = _not_held_yet(transaction, held)
            plan = replace(plan, removed=() if too_many else plan.removed)
            left = _sync_workspaces(transaction, plan, policy, reading, newly_held, first=not number)
            counts.update(
                new=len(plan.new),
                claims_changed=plan.claims_changed,
                rescheduled=plan.rescheduled,
                sinks_changed=len(plan.sinks_changed),
                removed=len(plan.removed),
                held=len(held),
                newly_held=len(newly_held),
                files_left=left,
            )
            if number >= len(pieces) - 1 and (said := _applied(counts, reading)) is not None:
                events.append(said)
            if events:
                run.head = transaction.append(events if asked is None else [caused_by(asked, each) for each in events])
    if refusal:
        run.fault("config", refusal, "config.refused")
    elif run.refused_policy is None or not starting:
        run.healed("config")
    run.leftovers = {key: Pending(reading.now) for key in survey.to_delete} | run.leftovers


def _pieces(names: Sequence[WorkspaceId]) -> list[Sequence[WorkspaceId]]:
    return [names[first : first + PIECE] for first in range(0, len(names), PIECE)]


def _applied(counts: Counter[str], reading: Reading) -> Event | None:
    """Return the event that says what a config changed; None where it changed nothing."""
    said = ("new", "claims_changed", "rescheduled", "sinks_changed", "removed", "held")
    if not any(counts[name] for name in (*said, "newly_held", "keysets") if name != "held"):
        return None
    details = {name: counts[name] for name in (*said, "files_left")}
    return Event(name=EventName.CONFIG_APPLIED, at=reading.now, details=details)


def _found_sets(run: Run, policy: Policy, *, starting: bool) -> tuple[frozenset[KeysetName], frozenset[KeysetName]]:
    """Return the keysets, new here, that find an empty set, and those that find one with keys and are held for it.

    An empty one is what a keyset that ended leaves: verifiers may hold it. One with keys is refused, for that is no
    first start. Where other keysets have been at work, a start does not hang on it: the new one waits until somebody
    has decided, and they go on.
    """
    with run.around.store.read() as snapshot:
        known = {row.name for row in snapshot.keysets()}
    served: set[KeysetName] = set()
    foreign: set[KeysetName] = set()
    for subject in [each for each in run.faults if each.startswith("foreign:")]:
        if subject.removeprefix("foreign:") not in policy.keysets:
            run.healed(subject)
    for name in (each for each in policy.keysets if each not in known):
        published = run.around.publisher.found(name)
        if published is None or not published.kids:
            run.healed(f"foreign:{name}")
            if published is not None:
                served.add(name)
            continue
        problem = (
            f"keyset {name} is new to this database, but a set of {counted(len(published.kids), 'key')} is published "
            f"for it already ({published.kids[0]}, …). `rotator published adopt --keep-for PERIOD` keeps those keys "
            "published beside new ones until their tokens have ended (PERIOD: the longest that one of them can still "
            "live); `rotator published replace` drops them, and tokens on them are refused from then on"
        )
        if not (known and (starting or f"foreign:{name}" in run.faults)):
            raise RefusedError(problem)
        run.fault(f"foreign:{name}", problem, "keyset.failed", keyset=name)
        foreign.add(name)
    return frozenset(served), frozenset(foreign)


def _sync_keysets(
    transaction: Transaction,
    policy: Policy,
    served: frozenset[KeysetName],
    foreign: frozenset[KeysetName],
    reading: Reading,
    *,
    moved: bool,
) -> list[Event]:
    """Store the policies of keysets. ``moved``: their sets are served elsewhere, which their discovery is to say."""
    now = reading.now
    known = {row.name: row for row in transaction.keysets()}
    events: list[Event] = []
    for name, wanted in policy.keysets.items():
        if name in foreign:
            continue
        row = known.get(name)
        stored = policy_to_json(wanted)
        if row is None:
            transaction.put_keyset(
                KeysetRow(
                    name=name,
                    due_at=now,
                    schedule_fingerprint=wanted.schedule_fingerprint,
                    policy=stored,
                    ever_active=name in served,  # then its first key waits as any other
                )
            )
            details = {"algorithm": wanted.algorithm, "issuer": wanted.issuer}
            events.append(Event(name=EventName.KEYSET_CREATED, at=now, keyset=name, details=details))
        elif (
            moved
            or row.policy != stored
            or row.ended_at is not None
            or row.schedule_fingerprint != wanted.schedule_fingerprint
        ):
            transaction.put_keyset(replace(row, policy=stored, ended_at=None, due_at=now, retry_at=None))
    for name, row in known.items():
        if name not in policy.keysets and row.ended_at is None and row.authentic:
            # Its own last policy, ending, has another fingerprint: the planner reschedules it once.
            ending = replace(policy_from_json(row.policy), ending=True)
            if row.schedule_fingerprint != ending.schedule_fingerprint:
                transaction.put_keyset(replace(row, due_at=now, retry_at=None))
    return events


def _sync_workspaces(
    transaction: Transaction,
    plan: SyncPlan,
    policy: Policy,
    reading: Reading,
    newly_held: Sequence[WorkspaceState],
    *,
    first: bool,
) -> int:
    """Store what a config changes; return how many files it leaves behind that stay where they are."""
    if plan.new:
        transaction.insert_workspaces(plan.new)
    back = _back_from_hold(transaction, policy) if first else []
    changed = {state.id: state for state in (*back, *plan.updated)}
    for state in plan.sinks_changed:
        base = changed.get(state.id, state)
        changed[state.id] = base._replace(sinks_fingerprint=state.sinks_fingerprint, deletes=state.deletes)
    if changed:
        transaction.update_workspaces(list(changed.values()))
    left = _sync_sinks(transaction, plan.sinks_changed, policy, reading.now)
    if newly_held:
        transaction.fail_workspaces([state.id for state in newly_held], NEVER, MISSING)
    if plan.removed:
        transaction.update_workspaces(plan.removed)
        rows = transaction.deliveries_of([state.id for state in plan.removed])
        left += _drop(transaction, [(row.workspace, row.sink) for row in rows], plan.removed)
    return left


def _drop(
    transaction: Transaction, pairs: Sequence[tuple[WorkspaceId, SinkId]], states: Sequence[WorkspaceState]
) -> int:
    """Forget the deliveries of sinks that are gone; return how many of them are files that stay."""
    transaction.drop_deliveries(pairs)
    going = {(state.id, sink) for state in states for sink in state.deletes}
    return sum(path_of(pair[1]) is not None and pair not in going for pair in pairs)


def _not_held_yet(transaction: Transaction, held: Sequence[WorkspaceState]) -> list[WorkspaceState]:
    """Return those of ``held`` for which it is not noted yet that nothing is to be issued."""
    noted = {name for name, _, fault in transaction.workspace_faults() if fault == MISSING} if held else set()
    return [state for state in held if state.id not in noted]


def _back_from_hold(transaction: Transaction, policy: Policy) -> list[WorkspaceState]:
    """Return workspaces that were missing and are there again: storing them forgets that nothing was to be issued."""
    held = [name for name, _, fault in transaction.workspace_faults() if fault == MISSING]
    states = [transaction.workspace(name) for name in held if name in policy.workspaces]
    return [state for state in states if state is not None]


def _sync_sinks(transaction: Transaction, states: Sequence[WorkspaceState], policy: Policy, now: datetime) -> int:
    """Want the current token at sinks that are new, and forget those that are gone; return how many files stay."""
    if not states:
        return 0
    present = {(row.workspace, row.sink) for row in transaction.deliveries_of([state.id for state in states])}
    wanted = {(state.id, sink_id(sink)): state for state in states for sink in policy.workspaces[state.id].sinks}
    left = _drop(transaction, sorted(present - wanted.keys()), states)
    transaction.want_deliveries(
        [
            _wanted(workspace, sink, state, now)
            for (workspace, sink), state in sorted(wanted.items(), key=lambda each: each[0])
            if (workspace, sink) not in present and state.current is not None and state.current_expires_at is not None
        ]
    )
    return left


def _wanted(workspace: WorkspaceId, sink: SinkId, state: WorkspaceState, now: datetime) -> DeliveryRow:
    if state.current is None or state.current_expires_at is None:
        raise AssertionError("asked for by the caller")
    return DeliveryRow(
        workspace=workspace,
        sink=sink,
        jti=state.current,
        sequence=state.sequence,
        wanted_at=now,
        deadline=now,  # it holds nothing yet
        due_at=now,
    )
