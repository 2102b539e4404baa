"""The plan: the timeline ahead, as it stands or as it would be, from the planner that does it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

from rotator.core.model import KeysetName
from rotator.core.planner import active_key, can_sign
from rotator.core.policy import Policy
from rotator.core.schedule import Calendar
from rotator.ports import Snapshot
from rotator.report.differences import Changes, compare_events, compare_keysets, compare_workspaces
from rotator.report.known import KnownKeyset
from rotator.report.lanes import KeyLane, PublishedFile, lanes, published_file
from rotator.report.rotations import readable, rotations
from rotator.report.supposing import World, changed, in_force, standing, suppose
from rotator.report.timeline import PlanEntry, Step, tell
from rotator.report.unrolling import Turn, turns

T = TypeVar("T")

EVENTS_AT_MOST: Final = 500
"""Of one keyset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The timeline ahead."""

    from_at: datetime
    until: datetime
    events: tuple[PlanEntry, ...]
    notes: tuple[str, ...]
    """What was left out, and why."""
    keys: tuple[KeyLane, ...] = ()
    """By keyset and order of making."""
    files: tuple[PublishedFile, ...] = ()
    changes: Changes | None = None
    """What differs from the time ahead as it stands, where something was supposed."""


def plan(
    snapshot: Snapshot,
    policy: Policy,
    now: datetime,
    calendar: Calendar,
    *,
    horizon: timedelta,
    what_if: str = "",
    check: Callable[[], None] = lambda: None,
) -> Plan:
    """Return what is going to happen within ``horizon`` from ``now`` if nothing fails and nothing is changed.

    ``what_if``: after what :func:`rotator.report.supposing.suppose` knows; for anything else it raises
    :class:`ConfigError`. ``check`` is called all along, and raises when nobody waits for the plan any more.
    """
    world = replace(standing(snapshot, policy, now), check=check)
    if not what_if:
        return _plan(world, now, calendar, horizon)
    after = suppose(world, what_if, now)
    return _compared(world, after, now, calendar, horizon, supposed=what_if)


def plan_changed(
    snapshot: Snapshot,
    policy: Policy,
    now: datetime,
    calendar: Calendar,
    *,
    horizon: timedelta,
    name: str,
    refused: str = "",
) -> Plan:
    """Return the plan with ``policy`` loaded now, of a config called ``name``, against the one that is in force.

    ``refused``: why it would not be put in force as it is.
    """
    before = in_force(snapshot, policy, now)
    after, _ = changed(snapshot, before, policy, now, calendar)
    plan = _compared(before, after, now, calendar, horizon, supposed=name)
    return plan if plan.changes is None else replace(plan, changes=replace(plan.changes, refused=refused))


def _compared(
    before: World, after: World, now: datetime, calendar: Calendar, horizon: timedelta, *, supposed: str
) -> Plan:
    told_before, told_after = _plan(before, now, calendar, horizon), _plan(after, now, calendar, horizon)
    workspaces, counts = compare_workspaces(before, after, now)
    changes = Changes(
        supposed=supposed,
        keysets=compare_keysets(before, after, told_before.events, told_after.events),
        workspaces=workspaces,
        workspace_counts=counts,
        events=compare_events(told_before.events, told_after.events),
        assumed=after.assumed,
    )
    return replace(told_after, changes=changes)


def _plan(world: World, now: datetime, calendar: Calendar, horizon: timedelta) -> Plan:
    until = now + horizon
    entries: list[PlanEntry] = []
    notes: list[str] = []
    keys: list[KeyLane] = []
    files: list[PublishedFile] = []
    signing_from: dict[KeysetName, datetime] = {}
    for known in sorted(world.keysets, key=lambda each: each.row.name):
        unrolled, events, end = _unrolled(world, known, now, until, calendar)
        if end is not None:
            notes.append(f"keyset {known.row.name}: only the first {EVENTS_AT_MOST} events are shown")
        entries += events
        keys += lanes(known, unrolled, now)
        files.append(published_file(known, unrolled, now))
        signing_from |= _signing_from(known, events, now)
    states = _watched(world.workspaces.values(), world.check)
    found, note = rotations(states, world.policy, now, until, calendar, signing_from)
    if note:
        notes.append(note)
    entries += readable(found)
    entries.sort(key=lambda entry: entry.at)
    return Plan(
        from_at=now, until=until, events=tuple(entries), notes=tuple(notes), keys=tuple(keys), files=tuple(files)
    )


def _watched(found: Iterable[T], check: Callable[[], None]) -> Iterator[T]:
    for each in found:
        check()
        yield each


def _unrolled(
    world: World, known: KnownKeyset, now: datetime, until: datetime, calendar: Calendar
) -> tuple[list[Turn], list[PlanEntry], datetime | None]:
    """Return the turns of a keyset, what is told of them, and where it was cut short for its length."""
    made: list[Turn] = []
    told = [
        PlanEntry(at=now, what=Step.REVOKE, subject=key.kid, why="it leaves the set at once", keyset=known.row.name)
        for key in known.state.keys
        if key.kid in world.revoked
    ]
    ahead = turns(known, now, until, calendar, unused_from=world.unused_from(known.row.name, now))
    for turn in _watched(ahead, world.check):
        made.append(turn)
        told += tell(turn, known.policy)
        if len(told) >= EVENTS_AT_MOST:
            return made, told[:EVENTS_AT_MOST], turn.at
    return made, told, None


def _signing_from(known: KnownKeyset, events: list[PlanEntry], now: datetime) -> Mapping[KeysetName, datetime]:
    """Return from when on the keyset has a key that signs; nothing where it comes to none."""
    active = active_key(known.state)
    if active is not None and can_sign(active):
        return {known.row.name: now}
    first = next((event.at for event in events if event.what is Step.ACTIVATE), None)
    return {} if first is None else {known.row.name: first}
