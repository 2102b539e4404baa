"""The rotations of tokens in the time ahead, told so that a thousand workspaces can be read."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import Final

from rotator.core.durations import format_duration
from rotator.core.model import KeysetName, WorkspaceState
from rotator.core.policy import Policy, WorkspacePolicy
from rotator.core.schedule import Calendar, token_rotation_due
from rotator.report.timeline import PlanEntry, Step

SINGLY: Final = 50
"""More token rotations than this are told by the day."""

FREQUENT: Final = 20
"""A workspace that rotates more often than this in the time ahead is told in one line."""

ROTATIONS_AT_MOST: Final = 20_000
"""More token rotations than this are not computed: then only the next one of each workspace is told."""


def rotations(
    states: Iterable[WorkspaceState],
    policy: Policy,
    now: datetime,
    until: datetime,
    calendar: Calendar,
    signing_from: Mapping[KeysetName, datetime],
) -> tuple[list[PlanEntry], str]:
    """Return the token rotations by time, and a note where later ones were left out.

    ``signing_from``: from when on a keyset has a key that signs.
    """
    entries: list[PlanEntry] = []
    later: list[tuple[WorkspacePolicy, datetime]] = []
    for state in states:
        wanted = policy.workspaces.get(state.id)
        if wanted is None or state.removed_at is not None:
            continue
        due = max(state.due_at, signing_from.get(wanted.keyset, until + timedelta(days=1)), now)
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


def readable(rotations: list[PlanEntry]) -> list[PlanEntry]:
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
