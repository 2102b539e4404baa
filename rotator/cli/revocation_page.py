"""The page of a revocation: what it touches, what takes over, and who may still accept what was revoked."""

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta
from itertools import groupby

from rotator.cli.screen import Screen, short
from rotator.cli.times import absolute, both
from rotator.core.counting import counted
from rotator.core.durations import format_duration
from rotator.report.revocation import Acceptance, Revocation, Successor


def show_revocation(screen: Screen, report: Revocation, *, rehearsed: bool = True, known: Collection[str] = ()) -> None:
    """Show it; what is still open comes last but for what revocation can do.

    ``rehearsed``: what is not done is not about to be done either. ``known``: notes that were shown a moment ago.
    """
    screen.line(_headline(report, rehearsed=rehearsed), "bold red" if report.done else "bold yellow")
    screen.facts(_touched(report))
    if report.verifiers:
        screen.line()
        screen.line("verifiers that may still accept the old key", "bold")
        screen.table(("UNTIL", "CACHE", "VERIFIERS"), list(_verifiers(report.verifiers)), wrapped="VERIFIERS")
    if report.open_deliveries:
        screen.line()
        screen.line(f"still open: {counted(report.deliveries_open, 'delivery', 'deliveries')}", "bold")
        rows = [(each.workspace, each.sink, str(each.attempts), each.last_error) for each in report.open_deliveries]
        screen.table(("WORKSPACE", "SINK", "FAILED", "WHY"), rows, wrapped="WHY")
    notes = [("note", note) for note in report.notes if note not in known]
    if notes:
        screen.line()
        screen.facts(notes)


def _headline(report: Revocation, *, rehearsed: bool) -> str:
    name = f"{report.subject} {short(report.name) if report.subject == 'key' else report.name}"
    if report.done:
        return f"REVOKED  {name} at {absolute(report.at)}"
    return f"REHEARSAL  of revoking {name}: nothing is changed" if rehearsed else f"ABOUT TO REVOKE  {name}"


def _touched(report: Revocation) -> Iterator[tuple[str, str]]:
    for key in report.keys:
        yield "key", f"{short(key.kid)} of keyset {key.keyset}, {key.phase}"
    yield "tokens", _tokens(report)
    configured = report.workspaces - report.left
    left = f"; {report.left} left the config, and get none" if report.left else ""
    if report.done:
        yield "workspaces", f"{report.reissued} of {configured} have their new token{left}"
        made = report.deliveries - report.deliveries_open
        failing = f", {report.deliveries_failing} failing" if report.deliveries_failing else ""
        yield "deliveries", f"{made} of {report.deliveries} made{failing}"
    else:
        yield "workspaces", f"{counted(configured, 'gets a new token', 'get a new token')}{left}"
        yield "deliveries", f"{report.deliveries} to make"
    for each in report.successors:
        yield "takes over", _successor(each, report.at, several=len(report.successors) > 1)
        if each.spare_known_at > report.at:
            when = both(each.spare_known_at, report.at)
            yield (
                "after that",
                f"the next spare is known to all from {when} on; before that, revoking again is a choice",
            )


def _tokens(report: Revocation) -> str:
    ours = counted(report.tokens, "unexpired one", "unexpired ones")
    if report.foreign_until is None:
        return ours
    unknown = f"some that this database does not know may live until {both(report.foreign_until, report.at)}"
    return f"{ours}, and {unknown}" if report.tokens else f"unknown: {unknown}"


def _successor(each: Successor, now: datetime, *, several: bool) -> str:
    where = f"keyset {each.keyset}: " if several else ""
    kid = "a fresh key" if each.kid is None else short(each.kid)
    if each.ready:
        return f"{where}{kid}, {'which signs' if each.signs else 'at once'}; every verifier can know it"
    known = f"every verifier can know it from {both(each.known_at, now)} on"
    return f"{where}{kid}{', which signs' if each.signs else ''}; {known}"


def _verifiers(verifiers: tuple[Acceptance, ...]) -> Iterator[tuple[str, str, str]]:
    for until, group in groupby(verifiers, key=lambda each: each.until):
        alike = list(group)
        cache = format_duration(timedelta(seconds=alike[0].cache_seconds))
        yield absolute(until), cache, ", ".join(each.verifier for each in alike)
