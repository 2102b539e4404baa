"""The timeline ahead: the planner unrolled over virtual time, and the rotations of tokens."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from itertools import groupby
from typing import Final

from rotator.core.actions import ActivateKey, DemoteKey, KeysetAction, PublishSet, RetireKey
from rotator.core.durations import format_duration
from rotator.core.model import KeysetName, KeysetState, Kid, Phase, SigningKey, WorkspaceId, WorkspaceState
from rotator.core.planner import next_due, plan_keyset
from rotator.core.policy import KeysetPolicy, Policy, WorkspacePolicy
from rotator.core.schedule import Calendar, token_rotation_due
from rotator.core.transitions import apply
from rotator.ports import Snapshot
from rotator.report.known import KnownKeyset, known_keysets

SINGLY: Final = 50
"""More token rotations than this are told by the day."""

FREQUENT: Final = 20
"""A workspace that rotates more often than this in the time ahead is told in one line."""

ROTATIONS_AT_MOST: Final = 20_000
"""More token rotations than this are not computed: then only the next one of each workspace is told."""

EVENTS_AT_MOST: Final = 500
"""Of one keyset."""

_ROUNDS: Final = 8
"""Publications that one moment can need, and more."""


class Step(StrEnum):
    """What happens."""

    PUBLISH = "publish"  # a new key is made and joins the set
    ACTIVATE = "activate"  # a key begins to sign, the prior one goes to grace
    RETIRE = "retire"  # a key leaves the set
    END = "end"  # a key stops signing and has no successor
    ROTATE = "rotate"  # a workspace gets its next token


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEntry:
    """Something that is going to happen."""

    at: datetime
    what: Step
    subject: str
    """The kid, or a placeholder for one that is yet to be made; the workspace, or how many of them."""
    why: str
    keyset: KeysetName | None = None
    workspace: WorkspaceId | None = None
    count: int = 1
    last_at: datetime | None = None
    """Of the last one where several are told together."""
    estimated: bool = False
    """It hangs on a key or token that is yet to be made, so that it may come a little earlier or later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The timeline ahead."""

    from_at: datetime
    until: datetime
    events: tuple[PlanEntry, ...]
    notes: tuple[str, ...]
    """What was left out, and why."""


def plan(snapshot: Snapshot, policy: Policy, now: datetime, calendar: Calendar, *, horizon: timedelta) -> Plan:
    """Return what is going to happen within ``horizon`` from ``now`` if nothing fails and nothing is changed."""
    until = now + horizon
    entries: list[PlanEntry] = []
    notes: list[str] = []
    for known in known_keysets(snapshot, policy, now):
        events = list(unroll(known, now, until, calendar, limit=EVENTS_AT_MOST))
        if len(events) == EVENTS_AT_MOST:
            notes.append(f"keyset {known.row.name}: only the first {EVENTS_AT_MOST} events are shown")
        entries += events
    rotations, note = _rotations(snapshot.workspaces(), policy, now, until, calendar)
    if note:
        notes.append(note)
    entries += _readable(rotations)
    entries.sort(key=lambda entry: entry.at)
    return Plan(from_at=now, until=until, events=tuple(entries), notes=tuple(notes))


# ------------------------------------------------------------------------------------------------------------ keysets


def unroll(
    known: KnownKeyset, now: datetime, until: datetime, calendar: Calendar, *, limit: int
) -> Iterator[PlanEntry]:
    """Yield what happens to a keyset, at most ``limit`` events, each at the moment at which the planner asks for it."""
    state, policy, moment, told = known.state, known.policy, now, 0
    while moment <= until:
        for before, action in _settle(state, policy, moment, calendar):
            state = apply(before, action, moment)
            entry = _tell(before, action, policy, moment)
            if entry is not None:
                yield entry
                told += 1
                if told == limit:
                    return
        due = next_due(state, policy, moment)
        if due is None:
            return
        moment = due


def _settle(
    state: KeysetState, policy: KeysetPolicy, moment: datetime, calendar: Calendar
) -> Iterator[tuple[KeysetState, KeysetAction]]:
    """Yield the actions at one moment, each with the state before it."""
    for _ in range(_ROUNDS):
        actions = plan_keyset(state, policy, moment, calendar)
        for action in actions:
            yield state, action
            state = apply(state, action, moment)
        if not actions or not isinstance(actions[-1], PublishSet):
            return


def _tell(state: KeysetState, action: KeysetAction, policy: KeysetPolicy, at: datetime) -> PlanEntry | None:
    keys = {key.kid: key for key in state.keys}
    match action:
        case PublishSet():
            new = [kid for kid in action.kids if kid not in (state.published or ())]
            if not new:
                return None
            from_at = at + policy.propagation_period
            wait = "at once" if state.first_publication else f"from {from_at:%Y-%m-%d %H:%M} on"
            return _entry(
                Step.PUBLISH,
                ", ".join(new),
                f"a spare, ready to sign {wait}",
                action.keyset,
                at,
                estimated=_unborn(keys[new[0]]),
            )
        case ActivateKey():
            why = _REASONS.get(action.reason, str(action.reason))
            if action.prior is not None and action.prior_grace_until is not None:
                why += f"; the prior key stays until {action.prior_grace_until:%Y-%m-%d}"
            return _entry(Step.ACTIVATE, action.kid, why, action.keyset, at, estimated=_hangs(state, action, keys))
        case RetireKey():
            why = _REASONS.get(action.reason, str(action.reason))
            return _entry(Step.RETIRE, action.kid, why, action.keyset, at, estimated=_unborn(keys[action.kid]))
        case DemoteKey():
            return _entry(Step.END, action.kid, "the keyset left the config", action.keyset, at)
        case _:
            return None


_REASONS: Final[dict[str, str]] = {
    "first": "the first key",
    "security_period": "the security period ends",
    "signer_lost": "no key can sign",
    "grace_over": "its grace is over",
    "keyset_ended": "the keyset left the config",
    "algorithm_changed": "its algorithm is no longer wanted",
    "unusable": "its private half cannot be used",
}


def _entry(
    what: Step, subject: str, why: str, keyset: KeysetName, at: datetime, *, estimated: bool = False
) -> PlanEntry:
    return PlanEntry(at=at, what=what, subject=subject, why=why, keyset=keyset, estimated=estimated)


def _unborn(key: SigningKey) -> bool:
    return not key.public_jwk


def _hangs(state: KeysetState, action: ActivateKey, keys: Mapping[Kid, SigningKey]) -> bool:
    prior = next((key for key in state.keys if key.phase is Phase.ACTIVE), None)
    return _unborn(keys[action.kid]) or (prior is not None and _unborn(prior))


# ------------------------------------------------------------------------------------------------------------- tokens


def _rotations(
    states: Iterable[WorkspaceState], policy: Policy, now: datetime, until: datetime, calendar: Calendar
) -> tuple[list[PlanEntry], str]:
    """Return the token rotations by time, and a note where later ones were left out."""
    entries: list[PlanEntry] = []
    later: list[tuple[WorkspacePolicy, datetime]] = []
    for state in states:
        wanted = policy.workspaces.get(state.id)
        if wanted is None or state.removed_at is not None:
            continue
        due = max(state.due_at, now)
        if due <= until:
            entries.append(_rotation(wanted, due, _why(state), estimated=False))
            later.append((wanted, due))
    note = ""
    while later:
        later = [(wanted, _after(wanted, due, calendar)) for wanted, due in later]
        later = [(wanted, due) for wanted, due in later if due <= until]
        if len(entries) + len(later) > ROTATIONS_AT_MOST:
            note = "of each workspace only the next rotations are shown: there are too many to look further"
            break
        entries += [_rotation(wanted, due, "the security period ends", estimated=True) for wanted, due in later]
    entries.sort(key=lambda entry: (entry.at, entry.subject))
    return entries, note


def _why(state: WorkspaceState) -> str:
    if state.current is None:
        return "the first token"
    return state.due_reason.replace("_", " ") or "the security period ends"


def _after(wanted: WorkspacePolicy, issued_at: datetime, calendar: Calendar) -> datetime:
    """Return the rotation after the one at ``issued_at``; always later, so that the timeline moves on."""
    return max(token_rotation_due(wanted, issued_at, calendar), issued_at + timedelta(seconds=1))


def _rotation(wanted: WorkspacePolicy, at: datetime, why: str, *, estimated: bool) -> PlanEntry:
    return PlanEntry(
        at=at,
        what=Step.ROTATE,
        subject=wanted.id,
        why=why,
        keyset=wanted.keyset,
        workspace=wanted.id,
        estimated=estimated,
    )


def _readable(rotations: list[PlanEntry]) -> list[PlanEntry]:
    """Tell what is frequent once a workspace, the rest singly, and by the day what is still too much."""
    by_workspace: dict[str, list[PlanEntry]] = {}
    for entry in rotations:
        by_workspace.setdefault(entry.subject, []).append(entry)
    frequent = [found for found in by_workspace.values() if len(found) > FREQUENT]
    if len(frequent) > SINGLY:
        return _by_day(rotations)
    rest = [entry for entry in rotations if len(by_workspace[entry.subject]) <= FREQUENT]
    return [*map(_once, frequent), *(rest if len(rest) <= SINGLY else _by_day(rest))]


def _once(entries: list[PlanEntry]) -> PlanEntry:
    first, last = entries[0], entries[-1]
    every = (last.at - first.at) / (len(entries) - 1)
    unit = timedelta(minutes=1) if every > timedelta(minutes=1) else timedelta(seconds=1)
    shown = format_duration(max(1, round(every / unit)) * unit)
    return replace(first, count=len(entries), last_at=last.at, why=f"about every {shown}")


def _by_day(entries: list[PlanEntry]) -> list[PlanEntry]:
    def day(entry: PlanEntry) -> date:
        return entry.at.date()

    told: list[PlanEntry] = []
    for _, group in groupby(entries, key=day):
        first, *rest = group
        if not rest:
            told.append(first)
            continue
        workspaces = len({entry.subject for entry in (first, *rest)})
        subject = f"{workspaces} workspaces" if workspaces > 1 else first.subject
        told.append(
            replace(
                first,
                subject=subject,
                keyset=None,
                workspace=first.workspace if workspaces == 1 else None,
                count=1 + len(rest),
                last_at=rest[-1].at,
                why="the security period ends" if any(entry.estimated for entry in rest) else first.why,
                estimated=any(entry.estimated for entry in rest),
            )
        )
    return told
