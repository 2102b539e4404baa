"""What a supposed change does to the time ahead: two plans held against each other."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from rotator.core.model import KeysetName, WorkspaceId, WorkspaceState
from rotator.report.known import KnownKeyset
from rotator.report.supposing import World
from rotator.report.timeline import PlanEntry, Step

SHOWN_AT_MOST: Final = 50
"""Workspaces that are told one by one."""

SOON: Final = timedelta(hours=1)
"""A workspace that is due within this time counts as due."""


class Change(StrEnum):
    """What becomes of a keyset or a workspace."""

    NEW = "new"
    REMOVED = "removed"
    RESCHEDULED = "rescheduled"  # its deadlines move
    REISSUED = "reissued"  # its token no longer says what it should, or its key is revoked
    SAME = "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class EventChange:
    """Something that would happen at another time, only then, or no more."""

    what: Step
    subject: str
    keyset: KeysetName | None
    before_at: datetime | None
    after_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysetChange:
    """What becomes of one keyset."""

    keyset: KeysetName
    change: Change
    rotates_before: datetime | None
    """When its active key hands over next."""
    rotates_after: datetime | None
    keys_made_before: int
    """In the time ahead."""
    keys_made_after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceChange:
    """What becomes of one workspace."""

    workspace: WorkspaceId
    change: Change
    due_before: datetime | None
    """When its next token is issued."""
    due_after: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What differs from the time ahead as it stands."""

    supposed: str
    keysets: tuple[KeysetChange, ...]
    workspaces: tuple[WorkspaceChange, ...]
    """The first fifty by name."""
    workspace_counts: dict[str, int] = field(default_factory=dict)
    """By kind of change; and ``due``: how many become due at once or within the hour."""
    events: tuple[EventChange, ...] = ()
    """Of keys, by time."""
    assumed: str = ""
    """What is assumed where an operator would have to choose; empty: there is no choice."""
    refused: str = ""
    """Why the config would not be put in force without `config accept`; empty: it would."""

    @property
    def nothing(self) -> bool:
        """Tell whether there is no difference at all."""
        return not (
            self.workspace_counts or self.events or any(each.change is not Change.SAME for each in self.keysets)
        )


def compare_events(before: Iterable[PlanEntry], after: Iterable[PlanEntry]) -> tuple[EventChange, ...]:
    """Return what of keys happens at another moment, or in one of the two alone."""
    first, second = _by_subject(before), _by_subject(after)
    found = [
        EventChange(
            what=what,
            subject=subject,
            keyset=keyset,
            before_at=first.get((what, subject, keyset)),
            after_at=second.get((what, subject, keyset)),
        )
        for what, subject, keyset in {**first, **second}
        if first.get((what, subject, keyset)) != second.get((what, subject, keyset))
    ]
    return tuple(sorted(found, key=lambda each: (_moment(each), each.subject)))


def _moment(change: EventChange) -> datetime:
    return min(at for at in (change.before_at, change.after_at) if at is not None)


def _by_subject(entries: Iterable[PlanEntry]) -> Mapping[tuple[Step, str, KeysetName | None], datetime]:
    return {(each.what, each.subject, each.keyset): each.at for each in entries if each.what is not Step.ROTATE}


def compare_keysets(
    before: World, after: World, told_before: Iterable[PlanEntry], told_after: Iterable[PlanEntry]
) -> tuple[KeysetChange, ...]:
    """Return what becomes of each keyset, given what is told of the time ahead."""
    first = {known.row.name: known for known in before.keysets}
    second = {known.row.name: known for known in after.keysets}
    activations = _activations(told_before), _activations(told_after)
    made = _made(told_before), _made(told_after)
    return tuple(
        KeysetChange(
            keyset=name,
            change=_keyset_change(first.get(name), second.get(name)),
            rotates_before=activations[0].get(name),
            rotates_after=activations[1].get(name),
            keys_made_before=made[0][name],
            keys_made_after=made[1][name],
        )
        for name in sorted({*first, *second})
    )


def _keyset_change(before: KnownKeyset | None, after: KnownKeyset | None) -> Change:
    if before is None:
        return Change.NEW
    if after is None or (after.policy.ending and not before.policy.ending):
        return Change.REMOVED
    return Change.SAME if (before.policy, before.state) == (after.policy, after.state) else Change.RESCHEDULED


def _activations(told: Iterable[PlanEntry]) -> Mapping[KeysetName, datetime]:
    found: dict[KeysetName, datetime] = {}
    for entry in told:
        if entry.what is Step.ACTIVATE and entry.keyset is not None:
            found.setdefault(entry.keyset, entry.at)
    return found


def _made(told: Iterable[PlanEntry]) -> Counter[KeysetName]:
    return Counter(
        entry.keyset
        for entry in told
        if entry.what is Step.PUBLISH and entry.keyset is not None
        for _ in entry.subject.split(", ")
    )


def compare_workspaces(
    before: World, after: World, now: datetime
) -> tuple[tuple[WorkspaceChange, ...], dict[str, int]]:
    """Return the first changed workspaces by name, and how many there are of each kind."""
    counts: Counter[str] = Counter()
    shown: list[WorkspaceChange] = []
    for name in sorted({*before.workspaces, *after.workspaces}):
        first, second = before.workspaces.get(name), after.workspaces.get(name)
        change = _workspace_change(first, second)
        if change is Change.SAME or second is None:
            continue
        counts[change] += 1
        removed = change is Change.REMOVED
        counts["due"] += not removed and second.due_at <= now + SOON
        if len(shown) < SHOWN_AT_MOST:
            due_before = None if first is None or first.removed_at is not None else first.due_at
            due_after = None if removed else second.due_at
            shown.append(WorkspaceChange(workspace=name, change=change, due_before=due_before, due_after=due_after))
    return tuple(shown), {name: count for name, count in counts.items() if count}


def _workspace_change(before: WorkspaceState | None, after: WorkspaceState | None) -> Change:
    if before == after or after is None:
        return Change.SAME
    if before is None or (before.removed_at is not None and after.removed_at is None):
        return Change.NEW
    if after.removed_at is not None:
        return Change.REMOVED
    return Change.REISSUED if after.due_reason and after.due_reason != before.due_reason else Change.RESCHEDULED
