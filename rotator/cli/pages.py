"""The pages: what each report looks like to a person."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from rotator.cli.plan_pages import subject_of
from rotator.cli.screen import KID_SHOWN, Screen, short
from rotator.cli.times import absolute, both, relative
from rotator.core.alarms import OVERDUE_AFTER
from rotator.core.counting import counted
from rotator.core.durations import format_duration
from rotator.core.events import Detail
from rotator.core.model import Phase
from rotator.report.lists import DeliveryState, KeyEntry, KeyList, TokenEntry, TokenList
from rotator.report.proof import ChainProof, Proven
from rotator.report.records import Health, KeysetStatus, Report
from rotator.report.shape import rfc3339
from rotator.report.trail import AuditEntry, AuditList

_STYLES: Final = {Health.OK: "bold green", Health.DEGRADED: "bold yellow", Health.CRITICAL: "bold red"}


# ------------------------------------------------------------------------------------------------------------- status


def show_status(screen: Screen, report: Report) -> None:
    """Show the state first, then each problem with its next step, then keysets, then what comes next."""
    screen.line(f"{report.state.upper()}  {_headline(report)}", _STYLES[report.state])
    for problem in report.problems:
        screen.line()
        screen.line(f"{problem.severity.upper()}  {problem.subject}", _STYLES[problem.severity])
        screen.facts([("what", problem.text), ("do", problem.next_step)])
    for keyset in report.keysets:
        screen.line()
        note = ", leaving: it is no longer in the config" if keyset.ending else ""
        screen.line(f"keyset {keyset.name}  {keyset.algorithm}, generation {keyset.generation}{note}", "bold")
        screen.facts(_keyset(keyset, report.at))
    screen.line()
    screen.line("everything else", "bold")
    screen.facts(_rest(report))


def _headline(report: Report) -> str:
    if report.state is Health.OK:
        return f"nothing is overdue, at {absolute(report.at)}"
    critical = sum(problem.severity is Health.CRITICAL for problem in report.problems)
    degraded = len(report.problems) - critical
    counts = [f"{critical} critical"] * bool(critical) + [f"{degraded} degraded"] * bool(degraded)
    return f"{', '.join(counts)}, at {absolute(report.at)}"


def _keyset(keyset: KeysetStatus, now: datetime) -> Iterator[tuple[str, str]]:
    if keyset.signing_kid is None:
        yield "signs", "no key"
    else:
        since = "" if keyset.signing_since is None else f" since {both(keyset.signing_since, now)}"
        yield "signs", short(keyset.signing_kid) + since
    if keyset.rotates_at is not None and not keyset.ending:
        overdue = timedelta(seconds=keyset.overdue_seconds)
        late = f", overdue by {format_duration(overdue)}" if overdue > OVERDUE_AFTER else ""
        yield "rotates", both(keyset.rotates_at, now) + late
    if keyset.asked is not None:
        asked = keyset.asked
        yield "asked", f"{asked.actor} asked for a rotation at {absolute(asked.at)}, which is under way"
    if keyset.standby is not None:
        yield "standby", f"{short(keyset.standby.kid)} {_readiness(keyset.standby.ready_at, now)}"
    elif not keyset.ending:
        yield "standby", "none"
    yield "in the set", ", ".join(f"{count} {_PHASE_WORDS[phase]}" for phase, count in keyset.keys.items())
    if keyset.next_event is not None:
        event = keyset.next_event
        yield "next", f"{both(event.at, now)}: {event.what} {subject_of(event)}"
    if keyset.fault:
        failures = "once" if keyset.failures == 1 else f"{keyset.failures} times in a row"
        yield "failed", f"{failures}: {keyset.fault}"


_PHASE_WORDS: Final = {"pending": "pending", "active": "active", "grace": "in grace"}


def _readiness(ready_at: datetime | None, now: datetime) -> str:
    if ready_at is None:
        return "not published by every replica yet"
    return f"ready since {absolute(ready_at)}" if ready_at <= now else f"ready {both(ready_at, now)}"


def _rest(report: Report) -> Iterator[tuple[str, str]]:
    counts, deliveries = report.workspaces, report.deliveries
    yield (
        "workspaces",
        f"{counts.total}, with {counted(counts.tokens, 'token')}; {counts.overdue} overdue, {counts.failing} failing",
    )
    yield (
        "deliveries",
        f"{deliveries.open} open; {deliveries.failing} failing, {deliveries.late} late, {deliveries.critical} critical",
    )
    yield "clock", "trusted" if report.clock.trusted else "not trusted"
    yield "KEK", f"{'usable' if report.kek.usable else 'not usable'}: {', '.join(report.kek.ids) or 'none in use yet'}"
    if report.adopted_kids:
        until = (
            "" if report.adopted_until is None else f"; the last leaves the set {both(report.adopted_until, report.at)}"
        )
        kids = ", ".join(map(short, report.adopted_kids))
        yield "adopted", f"{counted(len(report.adopted_kids), 'key')}, which never sign: {kids}{until}"
    for replica in report.replicas:
        yield "replica", f"{replica.replica}, seen {relative(replica.seen_at, report.at)}"
    if report.open_requests:
        yield "requests", f"{report.open_requests} being worked on"
    yield "audit", f"event {report.audit.seq}, head {short(report.audit.hash)}"
    yield "next due", "nothing" if report.next_due_at is None else both(report.next_due_at, report.at)


# -------------------------------------------------------------------------------------------------------------- lists


def show_keys(screen: Screen, listed: KeyList, now: datetime) -> None:
    """Show every key with what comes next for it."""
    if not listed.keys:
        screen.line("no key has been made yet")
        return
    rows = [(short(key.kid), key.keyset, key.algorithm, key.phase, _key_outlook(key, now)) for key in listed.keys]
    screen.table(("KID", "KEYSET", "ALG", "PHASE", "OUTLOOK"), rows, wrapped="OUTLOOK")


def _key_outlook(key: KeyEntry, now: datetime) -> str:
    adopted = f"{key.origin}, " if key.origin != "made" else ""
    match key.phase:
        case Phase.PENDING:
            return adopted + _readiness(key.ready_at, now)
        case Phase.ACTIVE if key.rotate_at is not None:
            return f"{adopted}signs until {_day(key.rotate_at, now)}"
        case Phase.GRACE:
            ends = max((end for end in (key.grace_until, key.last_exp) if end is not None), default=None)
            return adopted + ("leaves the set soon" if ends is None else f"leaves the set {_day(ends, now)}")
        case Phase.RETIRED if key.retired_at is not None:
            return f"{adopted}left the set {_day(key.retired_at, now)}"
        case Phase.REVOKED if key.revoked_at is not None:
            return f"{adopted}revoked {_day(key.revoked_at, now)}"
        case _:
            return adopted


def _day(moment: datetime, now: datetime) -> str:
    if abs(moment - now) < timedelta(days=2):  # the day alone does not tell when
        return both(moment, now)
    return f"{moment.astimezone(UTC):%Y-%m-%d} ({relative(moment, now)})"


KIDS_BESIDE_JTIS: Final = 8
"""Characters of a kid that are shown where a line has to have room for a jti as well."""


def show_tokens(screen: Screen, listed: TokenList, now: datetime) -> None:
    """Show tokens with their ends and where they stand with their sinks."""
    if not listed.tokens:
        screen.line("no token has been issued yet")
        return
    shown = _telling_apart([token.jti for token in listed.tokens])
    rows = [
        (
            token.workspace,
            str(token.sequence),
            token.phase,
            short(token.jti, shown),
            short(token.kid, KIDS_BESIDE_JTIS),
            _token_end(token, now),
            _where(token),
        )
        for token in listed.tokens
    ]
    screen.table(("WORKSPACE", "NO", "PHASE", "JTI", "KID", "ENDS", "SINKS"), rows, wrapped="SINKS")


def _telling_apart(names: Sequence[str]) -> int:
    """Return how many characters of each name tell it from all others: tokens of one batch begin alike."""
    shown, longest = KID_SHOWN, max(map(len, names))
    while shown < longest and len({name[:shown] for name in names}) < len(names):
        shown += 1
    return shown


def _token_end(token: TokenEntry, now: datetime) -> str:
    if token.revoked_at is not None:
        return f"revoked {relative(token.revoked_at, now)}"
    if token.revoke_at is not None:
        return f"revoked {relative(token.revoke_at, now)}"
    return f"{token.expires_at:%Y-%m-%d} {relative(token.expires_at, now)}"


def _where(token: TokenEntry) -> str:
    """Return where it stands with its sinks, and whom else it may be with."""
    if token.workspace_returned_at is None or token.phase not in (Phase.ACTIVE, Phase.GRACE):
        return _sinks(token)
    former = f"from before its workspace left the config (back since {token.workspace_returned_at:%Y-%m-%d %H:%MZ})"
    return ", ".join(filter(None, (_sinks(token), former)))


def _sinks(token: TokenEntry) -> str:
    found: dict[DeliveryState, int] = {}
    for delivery in token.deliveries:
        found[delivery.state] = found.get(delivery.state, 0) + 1
    return ", ".join(f"{count} {state}" for state, count in found.items())


def show_audit(screen: Screen, listed: AuditList) -> None:
    """Show events, the newest last."""
    if not listed.events:
        screen.line("no such event")
        return
    rows = [(str(each.seq), f"{each.at:%Y-%m-%d %H:%M:%SZ}", each.event, _told(each)) for each in listed.events]
    screen.table(("SEQ", "AT", "EVENT", "WHAT"), rows, wrapped="WHAT")


def _told(each: AuditEntry) -> str:
    parts = [str(name) for name in (each.workspace, each.keyset) if name is not None]
    parts += [short(each.kid)] if each.kid is not None else []
    parts += [f"{key}={_detail(key, value)}" for key, value in each.details.items() if value is not None]
    parts += [f"by {each.actor}"] if each.actor != "rotator" else []
    parts += [f"({each.reason})"] if each.reason else []
    return " ".join(parts)


def _detail(key: str, value: Detail) -> str:
    """Return a detail: a hash by its beginning, as a kid is, and each moment in one way, however it is stored."""
    if key.endswith(("_at", "_until")) and value is not None:
        return rfc3339(datetime.fromtimestamp(value, UTC) if isinstance(value, int) else _moment(value))
    return short(value) if isinstance(value, str) and _HASH.fullmatch(value) else str(value)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(microsecond=0)


_HASH: Final = re.compile(r"[0-9a-f]{64}")


def show_proof(screen: Screen, proof: ChainProof) -> None:
    """Show what became of the proof, and the head to note."""
    if proof.intact:
        screen.line(f"intact: {counted(proof.events, 'event')}, each follows from the one before it", "green")
    elif proof.verdict is Proven.RESTORED:
        screen.line(f"RESTORED: {proof.problem}", "bold yellow")
    else:
        screen.line(f"BROKEN: {proof.problem}", "bold red")
    facts = [("head", f"event {proof.head_seq}  {proof.head_hash}")]
    if proof.anchor_seq:
        facts.append(("begins", f"after event {proof.anchor_seq}; what was before is past its retention"))
    screen.facts(facts)
    if proof.intact and proof.compared_with is None:
        screen.line("note the head where this machine cannot change it, and prove against it: --head HASH", "dim")


def show_pass(screen: Screen, report: Report, next_due: datetime) -> None:
    """Show what a single pass leaves: how things stand, and when the next one is needed."""
    screen.line(f"{report.state.upper()}  {_headline(report)}", _STYLES[report.state])
    for problem in report.problems:
        screen.facts([(problem.severity, problem.text), ("do", problem.next_step)])
    due = report.next_due_at if report.next_due_at is not None else next_due
    screen.line(f"next due {both(due, report.at)}")
