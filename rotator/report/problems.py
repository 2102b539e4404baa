"""What is wrong, and how much.

*Degraded*: anything overdue by more than a minute, a delivery past a quarter of its grace, a sink that hangs, a fault
of publishing or of one part, no ready spare, verifiers that may still refuse after an emergency, a silent replica.
*Critical*: a key past its security period, a delivery past three quarters, a sink that for a minute has had no valid
token at all, no signer, no token, a fault of the KEK, the clock, the witness or the database. What somebody adopted,
and that ends by itself, is in the report and is no problem.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from rotator.core.alarms import OVERDUE_AFTER, Lateness
from rotator.core.counting import counted
from rotator.core.durations import format_duration
from rotator.core.model import KeysetName
from rotator.ports import DeliveryAlarm
from rotator.report.overdue import what_holds_up
from rotator.report.records import FailingWorkspace, Health, KeysetStatus, Problem, ReplicaStatus, Report
from rotator.report.steps import next_step

DELIVERIES_SHOWN: Final = 100
"""Late deliveries that are named. A file system that hangs may make thousands late."""

_CRITICAL_FAULTS: Final = frozenset({"kek", "clock", "witness", "journal", "foreign", "store", "tick", "row"})


def find_problems(
    report: Report,
    faults: Mapping[str, str],
    alarms: Sequence[DeliveryAlarm],
    helps: Mapping[KeysetName, str],
    unsigned: Mapping[KeysetName, int],
) -> Iterator[Problem]:
    """Yield everything that a person should know of.

    ``helps``: what to do about each keyset, were it overdue. ``unsigned``: how many workspaces are overdue on each
    keyset that has no key that signs.
    """
    for subject, text in faults.items():
        yield from _fault(subject, text)
    for keyset in report.keysets:
        yield from _keyset(keyset, report.at, helps[keyset.name])
    yield from _workspaces(report, faults, helps, unsigned)
    late = [(alarm, found) for alarm in alarms if (found := alarm.lateness(report.at)) is not None]
    late.sort(key=lambda each: each[1] is not Lateness.CRITICAL)
    for alarm, found in late[:DELIVERIES_SHOWN]:
        yield _delivery(alarm, found, report.at)
    if more := late[DELIVERIES_SHOWN:]:
        text = f"{counted(len(more), 'more delivery is', 'more deliveries are')} late"
        severity = Health.CRITICAL if more[0][1] is Lateness.CRITICAL else Health.DEGRADED
        yield _problem("deliveries", severity, text)
    if report.deliveries.overdue:
        text = f"{counted(report.deliveries.overdue, 'delivery is', 'deliveries are')} overdue by more than a minute"
        yield _problem("deliveries", Health.DEGRADED, text)
    for replica in report.replicas:
        yield from _replica(replica, report.at)


def late_and_critical(alarms: Sequence[DeliveryAlarm], now: datetime) -> tuple[int, int]:
    """Count open deliveries that are late, and those that are critical."""
    found = [alarm.lateness(now) for alarm in alarms]
    return found.count(Lateness.LATE), found.count(Lateness.CRITICAL)


def _problem(subject: str, severity: Health, text: str, step: str = "") -> Problem:
    kind, _, name = subject.partition(":")
    return Problem(subject=subject, severity=severity, text=text, next_step=step or next_step(kind, name))


def _span(span: timedelta) -> str:
    """Return ``span`` to the second."""
    return format_duration(timedelta(seconds=int(span.total_seconds())))


def _fault(subject: str, text: str) -> Iterator[Problem]:
    kind = subject.partition(":")[0]
    if kind != "delivery":  # told from the deliveries themselves, which outlive the daemon's memory
        yield _problem(subject, Health.CRITICAL if kind in _CRITICAL_FAULTS else Health.DEGRADED, text)


# ------------------------------------------------------------------------------------------------------------ keysets


def _keyset(keyset: KeysetStatus, now: datetime, step: str) -> Iterator[Problem]:
    subject, because = f"keyset:{keyset.name}", f": {keyset.fault}" if keyset.fault else ""
    late = timedelta(seconds=keyset.overdue_seconds) > OVERDUE_AFTER
    ends_at = keyset.security_period_ends_at
    if keyset.signing_kid is None and keyset.needs_signer:
        broken = keyset.ever_signed or keyset.failures > 0 or late
        text = f"no key signs on keyset {keyset.name}, so that no token can be issued{because}"
        yield _problem(subject, Health.CRITICAL if broken else Health.DEGRADED, text, step)
    elif ends_at is not None and ends_at < now and keyset.needs_signer:
        text = f"key {keyset.signing_kid} still signs; its security period ended {_span(now - ends_at)} ago{because}"
        yield _problem(subject, Health.CRITICAL, text, step)
    elif late:
        overdue = _span(timedelta(seconds=keyset.overdue_seconds))
        yield _problem(subject, Health.DEGRADED, f"keyset {keyset.name} is overdue by {overdue}{because}", step)
    elif keyset.signing_kid is not None and keyset.needs_signer:
        yield from _spare(keyset)
    if keyset.refused_until is not None and keyset.needs_signer:
        until = f"{keyset.refused_until:%Y-%m-%d %H:%M} UTC"
        text = f"verifiers that cached the set before key {keyset.signing_kid} was in it may refuse its tokens until"
        yield _problem(subject, Health.DEGRADED, f"{text} {until}", _REFUSED.format(until=until))


def _spare(keyset: KeysetStatus) -> Iterator[Problem]:
    """Yield that an emergency would find no spare that every verifier can know."""
    subject, standby = f"keyset:{keyset.name}", keyset.standby
    if standby is None:
        text = (
            f"keyset {keyset.name} has no spare: were the key that signs revoked now, none that verifiers know is left"
        )
        yield _problem(subject, Health.DEGRADED, text, _NO_SPARE)
    elif not standby.ready:
        when = standby.ready_at
        until = "every replica publishes it" if when is None else f"{when:%Y-%m-%d %H:%M} UTC"
        text = f"keyset {keyset.name} has no ready spare: not every verifier can know key {standby.kid} until {until}"
        step = _SPARE_UNPUBLISHED if when is None else _SPARE_UNKNOWN.format(until=until)
        yield _problem(subject, Health.DEGRADED, text, step)


_REFUSED: Final = (
    "nothing: it ends by itself at {until}. Sooner, where verifiers can be made to fetch the set again, as by a restart"
)
_NO_SPARE: Final = "the daemon makes one by itself; see that it runs: systemctl status rotator"
_SPARE_UNKNOWN: Final = (
    "nothing: it is ready by itself at {until}. In an emergency before then `rotator revoke` has you choose between "
    "--wait and --now"
)
_SPARE_UNPUBLISHED: Final = "see that the daemon runs and can publish: systemctl status rotator, rotator check"


# ------------------------------------------------------------------------------ workspaces, deliveries and replicas


def _workspaces(
    report: Report, faults: Mapping[str, str], helps: Mapping[KeysetName, str], unsigned: Mapping[KeysetName, int]
) -> Iterator[Problem]:
    for each in report.failing:
        yield _failing(each, report.at)
    more = report.workspaces.failing - len(report.failing)
    if more > 0:
        yield _problem(
            "workspaces", Health.DEGRADED, f"{counted(more, 'more workspace is', 'more workspaces are')} failing"
        )
    overdue = report.workspaces.overdue - report.workspaces.failing
    cause, step = what_holds_up(faults)
    if not cause:
        for name, count in unsigned.items():
            waiting = min(count, overdue)
            overdue -= waiting
            yield from _overdue(waiting, f"no key signs on keyset {name}", helps[name])
    yield from _overdue(overdue, cause, step)


def _overdue(count: int, cause: str, step: str) -> Iterator[Problem]:
    if count > 0:
        text = f"{counted(count, 'workspace is', 'workspaces are')} overdue for the next token by more than a minute"
        yield _problem("workspaces", Health.DEGRADED, f"{text}: {cause}" if cause else text, step)


def _failing(each: FailingWorkspace, now: datetime) -> Problem:
    left = None if each.expires_at is None else each.expires_at - now
    lost = left is None or left <= timedelta(0)
    has = "it has no valid token" if left is None or lost else f"the token that it has ends in {_span(left)}"
    times = "once" if each.failures == 1 else f"{each.failures} times in a row"
    text = f"issuing a token to workspace {each.workspace} failed {times}: {each.problem}; {has}"
    return _problem(f"workspace:{each.workspace}", Health.CRITICAL if lost else Health.DEGRADED, text)


def _delivery(alarm: DeliveryAlarm, found: Lateness, now: datetime) -> Problem:
    if alarm.attempts:
        tried = f"did not get to {alarm.sink} in {counted(alarm.attempts, 'attempt')}: {alarm.last_error}"
    else:
        tried = f"is not at {alarm.sink} yet, and no attempt has ended"
    left = alarm.deadline - now
    if alarm.deadline <= alarm.wanted_at:
        holds = "which has no valid one"
    elif left > timedelta(0):
        holds = f"the one that is there ends in {_span(left)}"
    else:
        holds = "the one that is there has ended"
    since = f"it was to be there {_span(now - alarm.wanted_at)} ago"
    text = f"the token of workspace {alarm.workspace} {tried}; {holds}; {since}"
    severity = Health.CRITICAL if found is Lateness.CRITICAL else Health.DEGRADED
    return _problem(f"delivery:{alarm.workspace}:{alarm.sink}", severity, text)


def _replica(replica: ReplicaStatus, now: datetime) -> Iterator[Problem]:
    if replica.silent:
        text = f"replica {replica.replica} was last seen {_span(now - replica.seen_at)} ago; new keys wait for it"
        yield _problem(f"replica:{replica.replica}", Health.DEGRADED, text)
