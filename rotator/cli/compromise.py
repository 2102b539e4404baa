"""Carries a revocation through for a person: report, question, request, and what follows until the end.

The report is the same before and after, and the same for a rehearsal. What was revoked before is told in one line.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import typer

from rotator.cli.following import goes_on, told_that_it_goes_on
from rotator.cli.output import print_json
from rotator.cli.progress import Bar
from rotator.cli.revocation_page import show_revocation
from rotator.cli.screen import Screen, tell
from rotator.cli.session import read, reader, request
from rotator.control_client import Wait
from rotator.errors import ConfigError, StoreError
from rotator.report.revocation import Revocation, Subject
from rotator.report.shape import from_json, rfc3339, to_json

ARGUMENT: Final = {Subject.KEY: "kid", Subject.KEYSET: "keyset", Subject.TOKEN: "jti", Subject.WORKSPACE: "workspace"}
POLL_SECONDS: Final = 0.5
STALLED_SECONDS: Final = 60.0
"""Nothing that is still open came on for this long: it is told as open, and the daemon goes on with it."""

_LOOK: Final = "rotator status"

Ask = Callable[[Revocation | None], Revocation]
"""Asks for the report: a first time, or of what was done since the one before."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the operator typed."""

    subject: str
    name: str
    reason: str
    choice: str = ""
    """``wait`` or ``now``, for the case that no spare is left that every verifier can know."""
    rehearse: bool = False
    yes: bool = False
    follow: bool = True
    as_json: bool = False


def carry_out(option: Path | None, wanted: Wanted, *, offline: bool) -> int:
    """Do all of it, and return the exit code: 0, or 3 when something is still open."""
    if not wanted.reason and not wanted.rehearse:
        raise ConfigError("a revocation goes into the audit: say why with --reason, or try it with --rehearse")
    ask = _asker(reader(option), wanted)
    try:
        before = ask(None)
    except StoreError as error:
        if not wanted.yes or wanted.rehearse:
            raise
        return _without_report(option, wanted, error, offline=offline)
    if wanted.rehearse:
        if wanted.as_json:
            print_json(to_json(before))
        else:
            show_revocation(Screen.of(), before)
        return 0
    return _revoke(option, wanted, before, offline=offline)


def _revoke(option: Path | None, wanted: Wanted, before: Revocation, *, offline: bool) -> int:
    """Ask, request, follow; a revocation whose rest waits for the KEK or the database is followed no further."""
    screen = Screen.of()
    choice = _decide(screen, wanted, before)
    arguments = {ARGUMENT[before.subject]: before.name} | ({"choice": choice} if choice else {})
    wait = Wait.TO_THE_END if wanted.follow else Wait.NO
    command = f"{before.subject}.revoke"
    said = request(option, command, arguments, wanted.reason, offline=offline, settle=wanted.follow, wait=wait)
    if said.request is not None:
        if wanted.as_json:
            print_json(to_json(replace(before, request=said.request)))
        else:
            screen.line(said.text, "bold")
        tell(goes_on(_LOOK))
        return 3 if wanted.follow else 0
    if not wanted.as_json:
        if not before.done:
            screen.line()
        screen.line(said.text, "bold")
    follow = wanted.follow and not said.follows
    ask = _asker(partial(read, option), wanted)  # whoever is there each time: a daemon may end and start meanwhile
    with told_that_it_goes_on(_LOOK):
        after = _follow(ask, before, quiet=wanted.as_json) if follow else ask(before)
    is_open = bool(after.waiting or after.deliveries_open or after.still_shown)
    if wanted.as_json:
        print_json(to_json(after))
    elif is_open or not before.done:
        screen.line()
        show_revocation(screen, after, known=() if before.done else before.notes)
    if follow and is_open:
        tell(f"something is still open: {goes_on(_LOOK)}")
        return 3
    return 0


def _without_report(option: Path | None, wanted: Wanted, error: StoreError, *, offline: bool) -> int:
    """Revoke what is named in full although the database cannot be read: what it takes with it nobody can say now."""
    tell(f"what this takes with it cannot be said: {error}")
    arguments = {ARGUMENT[Subject(wanted.subject)]: wanted.name} | ({"choice": wanted.choice} if wanted.choice else {})
    wait = Wait.TO_THE_END if wanted.follow else Wait.NO
    said = request(option, f"{wanted.subject}.revoke", arguments, wanted.reason, offline=offline, wait=wait)
    Screen.of().line(said.text, "bold")
    return 0


def _asker(read: Callable[[str, Any], Any], wanted: Wanted) -> Ask:
    def ask(before: Revocation | None) -> Revocation:
        arguments = {"subject": wanted.subject, "name": wanted.name}
        if before is not None:
            arguments |= {"name": before.name, "since": rfc3339(before.at)}
        return from_json(Revocation, read("revocation.show", arguments))

    return ask


# -------------------------------------------------------------------------------------------------------- the questions


def _decide(screen: Screen, wanted: Wanted, before: Revocation) -> str:
    """Show what is ahead, have it confirmed, and return the choice. Once more it only heals: nothing is to decide."""
    if before.done:
        return wanted.choice
    if not wanted.as_json:
        show_revocation(screen, before, rehearsed=False)
    choice = _choice(wanted, before)
    _confirm(wanted, before)
    return choice


def _choice(wanted: Wanted, before: Revocation) -> str:
    if not before.choice_needed or wanted.choice:
        return wanted.choice
    if not _can_ask():
        figures = next(note for note in before.notes if "--wait" in note)
        raise ConfigError(f"choose --wait or --now: {figures}")
    answer = typer.prompt("wait, or sign now?", prompt_suffix=" [wait/now] ", err=True)
    if answer not in ("wait", "now"):
        raise ConfigError(f"found {answer!r}, expected wait or now; nothing is changed")
    return str(answer)


def _confirm(wanted: Wanted, before: Revocation) -> None:
    if wanted.yes:
        return
    if not _can_ask():
        raise ConfigError("nothing is changed: there is no terminal to ask on; add --yes if it is meant")
    typer.confirm(f"Revoke {before.subject} {before.name}?", abort=True, err=True)


def _can_ask() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


# ----------------------------------------------------------------------------------------------------------- following


def _follow(ask: Ask, before: Revocation, *, quiet: bool) -> Revocation:
    """Poll until all is issued and delivered, or nothing more comes on by itself."""
    with Bar.of(sys.stderr, quiet=quiet) as bar:
        after, moved_at = ask(before), time.monotonic()
        while True:
            bar.show("tokens issued", after.reissued, after.workspaces - after.left)
            bar.show("deliveries made", after.deliveries - after.deliveries_open, after.deliveries)
            if _settled(after) or time.monotonic() - moved_at > STALLED_SECONDS:
                return after
            time.sleep(POLL_SECONDS)
            last, after = after, ask(before)
            if _came_on(after) != _came_on(last):
                moved_at = time.monotonic()


def _came_on(after: Revocation) -> tuple[int, int, int]:
    return after.reissued, after.deliveries_open, len(after.still_shown)


def _settled(after: Revocation) -> bool:
    """Tell whether all is done but for what waits for a key, for a fault to end, or for a sink that fails."""
    if any(not each.signs for each in after.successors) or any(
        note.startswith("nothing is issued") for note in after.notes
    ):
        return True
    return not after.waiting and after.deliveries_open <= after.deliveries_failing and not after.still_shown
