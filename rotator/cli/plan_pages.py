"""What a plan looks like to a person: what a supposed change changes, the timeline, and the size of the files."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from rotator.cli.screen import Screen, short
from rotator.cli.times import absolute, relative
from rotator.core.counting import counted
from rotator.report.differences import Change, Changes, EventChange, KeysetChange
from rotator.report.lanes import PublishedFile
from rotator.report.plans import Plan
from rotator.report.timeline import PlanEntry


def show_plan(screen: Screen, plan: Plan) -> None:
    """Show what differs first, then the timeline, then the files."""
    if plan.changes is not None:
        _show_changes(screen, plan.changes, plan)
        screen.line()
        screen.line("the timeline then", "bold")
    _show_events(screen, plan)
    changing = [file for file in plan.files if len(file.sizes) > 1]
    if changing:
        screen.line()
        screen.table(("PUBLISHED SET", "FROM", "", "KEYS", "BYTES"), _sizes(changing, plan.from_at))
    for note in plan.notes:
        screen.line(note, "yellow")


def _show_events(screen: Screen, plan: Plan) -> None:
    if not plan.events:
        screen.line(f"nothing is due until {absolute(plan.until)}")
        return
    rows = [
        (
            ("~" if event.estimated else "") + absolute(event.at),
            relative(event.at, plan.from_at),
            event.what,
            subject_of(event),
            _why(event, several_keysets=len(plan.files) > 1),
        )
        for event in plan.events
    ]
    screen.table(("AT", "", "WHAT", "SUBJECT", "WHY"), rows, wrapped="WHY")
    if any(event.estimated for event in plan.events):
        screen.line()
        screen.line("~ hangs on a key or token that is yet to be made: it may come a little earlier or later", "dim")


def _why(event: PlanEntry, *, several_keysets: bool) -> str:
    """Return why; for a key, with the keyset that it is of, which its kid does not tell."""
    told = event.workspace is not None or event.keyset is None or event.subject.startswith("(")
    return event.why if told or not several_keysets else f"{event.keyset}: {event.why}"


def subject_of(event: PlanEntry) -> str:
    """Return what an event is about, kids by their beginning."""
    if event.workspace is not None or event.count > 1:
        return (
            event.subject if event.count == 1 or event.workspace is None else f"{event.subject} ({event.count} times)"
        )
    return _kids(event.subject)


def _kids(text: str) -> str:
    return ", ".join(short(kid) for kid in text.split(", "))


def _sizes(files: list[PublishedFile], now: datetime) -> Iterator[tuple[str, ...]]:
    for file in files:
        for place, size in enumerate(file.sizes):
            yield (
                file.path if place == 0 else "",
                absolute(size.at),
                relative(size.at, now),
                str(size.keys),
                f"{'~' * size.estimated}{size.bytes}",
            )


# ------------------------------------------------------------------------------------------------------ what differs


def _show_changes(screen: Screen, changes: Changes, plan: Plan) -> None:
    if changes.nothing:
        screen.line(f"{changes.supposed} changes nothing")
        return
    screen.line(f"what {changes.supposed} changes", "bold")
    if changes.assumed:
        screen.line(changes.assumed, "yellow")
    if changes.refused:
        screen.line(f"it would be refused: {changes.refused}", "bold red")
    screen.facts([*_keysets(changes, plan.from_at), *_workspaces(changes)])
    if changes.events:
        screen.line()
        screen.table(("", "NOW", "THEN", "WHAT", "SUBJECT"), map(_event, changes.events), wrapped="SUBJECT")
    if changes.workspaces:
        screen.line()
        rows = [(each.workspace, each.change, _at(each.due_before), _at(each.due_after)) for each in changes.workspaces]
        screen.table(("WORKSPACE", "", "NEXT TOKEN NOW", "NEXT TOKEN THEN"), rows)
        more = sum(count for name, count in changes.workspace_counts.items() if name != "due") - len(rows)
        if more:
            screen.line(f"and {counted(more, 'more workspace')}")


_WORDS: Final = {
    Change.NEW: "is new",
    Change.REMOVED: "leaves: it makes no more keys, and ends when the last token on it has",
    Change.RESCHEDULED: "has other deadlines",
    Change.REISSUED: "has other deadlines",
    Change.SAME: "stays as it is",
}


def _keysets(changes: Changes, now: datetime) -> Iterator[tuple[str, str]]:
    for each in changes.keysets:
        yield f"keyset {each.keyset}", "; ".join(_keyset(each, now))


def _keyset(each: KeysetChange, now: datetime) -> Iterator[str]:
    yield _WORDS[each.change]
    if each.rotates_before != each.rotates_after:
        then = "none in this time" if each.rotates_after is None else _soon(each.rotates_after, now)
        before = "" if each.rotates_before is None else f" instead of {_soon(each.rotates_before, now)}"
        yield f"next activation {then}{before}"
    if each.keys_made_before != each.keys_made_after:
        yield f"{counted(each.keys_made_after, 'key')} made in this time instead of {each.keys_made_before}"


def _soon(moment: datetime, now: datetime) -> str:
    return "at once" if moment <= now else absolute(moment)


_COUNTED: Final = {
    "due": ("becomes due within the hour", "become due within the hour"),
    "new": ("new", "new"),
    "removed": ("removed: what is out lives to its end", "removed: what is out lives to its end"),
    "reissued": ("gets a new token before its time", "get a new token before their time"),
    "rescheduled": ("has another deadline", "have other deadlines"),
}


def _workspaces(changes: Changes) -> Iterator[tuple[str, str]]:
    for name, (one, many) in _COUNTED.items():
        count = changes.workspace_counts.get(name, 0)
        if count:
            yield "workspaces", counted(count, one, many)


def _event(change: EventChange) -> tuple[str, ...]:
    sign = "+" if change.before_at is None else "-" if change.after_at is None else "~"
    return sign, _at(change.before_at), _at(change.after_at), change.what, _kids(change.subject)


def _at(moment: datetime | None) -> str:
    return "" if moment is None else absolute(moment)
