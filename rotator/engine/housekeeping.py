"""What is done at leisure: expired tokens, sinks held against what they should hold, late deliveries, pruning."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from rotator.core.alarms import Lateness
from rotator.core.events import Detail, Event, EventName
from rotator.core.policy import FileSink, Sink
from rotator.engine.carrying import Deliveries, Job
from rotator.engine.deliver import find_sink, open_known
from rotator.engine.run import Run
from rotator.engine.shares import begin_share
from rotator.ports import DeliveryRow, Errand, Reading, Snapshot

EXPIRED_AT_ONCE: Final = 1_000
COMPARED_AT_ONCE: Final = 250
ALARMS_AT_MOST: Final = 100
"""Late deliveries that are named; a file system with thousands of them is one fault."""

PRUNE_INTERVAL: Final = timedelta(hours=24)
PRUNED_AT_ONCE: Final = 2_000
"""Tokens, and events, that are deleted in one transaction: over in a fraction of a second."""

REVOCATIONS_KEPT: Final = timedelta(days=1)
"""How long the witness remembers a revoked token past its ``exp``: no verifier's clock is that far behind."""


@dataclass(slots=True)
class Chores:
    """Where housekeeping stands. Lost at a stop, and begun anew at the next start."""

    to_compare: list[DeliveryRow] = field(default_factory=list)
    compared_at: datetime | None = None
    expiring: bool = False
    """More expired tokens are waiting to be marked."""
    pruned_at: datetime | None = None
    pruning: bool = False
    """More of what is past its retention is waiting to be deleted."""
    retention_tokens: timedelta = timedelta(days=90)
    retention_audit: timedelta = timedelta(days=400)


def retire_expired(run: Run, reading: Reading) -> bool:
    """Mark tokens that no verifier accepts any more; tell whether more are waiting."""
    before = reading.now - run.policy.clock_skew
    with run.around.store.read() as snapshot:
        expired = snapshot.expired_tokens(before, EXPIRED_AT_ONCE)
    if not expired:
        return False
    with run.around.store.begin() as transaction:
        transaction.retire_tokens([token.jti for token in expired], reading.now)
        run.head = transaction.append(
            [
                Event(
                    name=EventName.TOKEN_RETIRED,
                    at=reading.now,
                    keyset=token.keyset,
                    workspace=token.workspace,
                    kid=token.kid,
                    jti=token.jti,
                )
                for token in expired
            ]
        )
    return len(expired) == EXPIRED_AT_ONCE


def compare_sinks(run: Run, deliveries: Deliveries, chores: Chores, reading: Reading) -> bool:
    """Have sinks held against what they should hold, at the start and hourly, as far as they have a place for it.

    Tell whether more can be begun now. What no place is free for comes with the next tick.
    """
    if chores.compared_at is None or reading.now - chores.compared_at >= run.compare_interval:
        with run.around.store.read() as snapshot:
            chores.to_compare = [row for row in snapshot.deliveries() if row.due_at is None]
        chores.compared_at = reading.now
    looked_at, rest = chores.to_compare[:COMPARED_AT_ONCE], chores.to_compare[COMPARED_AT_ONCE:]
    if not looked_at:
        return False
    left: list[DeliveryRow] = []
    with run.around.store.read() as snapshot:
        jobs = list(_comparisons(run, deliveries, snapshot, looked_at, left))
    chores.to_compare = [*rest, *left]
    deliveries.begin(jobs, run.around.courier)
    return bool(rest) and len(left) < len(looked_at)


def _comparisons(
    run: Run, deliveries: Deliveries, snapshot: Snapshot, rows: Sequence[DeliveryRow], left: list[DeliveryRow]
) -> Iterator[Job]:
    """Yield what can begin; ``left`` takes what has no place."""
    files: list[tuple[DeliveryRow, Sink]] = []
    for row in rows:
        sink = find_sink(run, row.workspace, row.sink)
        if isinstance(sink, FileSink) and (row.workspace, row.sink) not in deliveries.under_way:
            files.append((row, sink))
    domains = run.around.courier.domains([sink for _, sink in files])
    places = [
        deliveries.place((row.workspace, row.sink), domain) for (row, _), domain in zip(files, domains, strict=True)
    ]
    admitted = set(deliveries.admitted([(sink, place) for (_, sink), place in zip(files, places, strict=True)]))
    current = snapshot.current_tokens(list(dict.fromkeys(row.workspace for row, _ in files)))
    for number, (row, sink) in enumerate(files):
        if number not in admitted:
            left.append(row)
            continue
        parcel = open_known(run, snapshot, row, current.get(row.workspace))
        if parcel is not None:
            yield Job(row, Errand(sink, parcel), places[number], domains[number], compares=True)


def look_again(deliveries: Deliveries, chores: Chores) -> None:
    """Have those sinks compared anew that hung when they were; nothing else would find out that they answer."""
    known = {(row.workspace, row.sink) for row in chores.to_compare}
    with_nothing_due = [hung.row for key, hung in deliveries.hung.items() if hung.row.due_at is None]
    chores.to_compare += [row for row in with_nothing_due if (row.workspace, row.sink) not in known]


def alarm_late_deliveries(run: Run, reading: Reading) -> None:
    """Raise the level of an open delivery as the end of what its sink holds comes nearer."""
    with run.around.store.read() as snapshot:
        alarms = snapshot.delivery_alarms(reading.now)
    subjects = set()
    for alarm in alarms:
        late = alarm.lateness(reading.now)
        if late is None:
            continue
        subject = f"delivery:{alarm.workspace}:{alarm.sink}"
        subjects.add(subject)
        event = "delivery.critical" if late is Lateness.CRITICAL else "delivery.late"
        problem = f"{late}: {alarm.last_error or 'not tried yet'}"
        run.fault(subject, problem, event, workspace=alarm.workspace, sink=alarm.sink, attempts=alarm.attempts)
        if len(subjects) == ALARMS_AT_MOST:
            break
    for subject in [known for known in run.faults if known.startswith("delivery:") and known not in subjects]:
        run.healed(subject)


def prune(run: Run, chores: Chores, reading: Reading) -> bool:
    """Once a day, delete what is past its retention, and record how much of the audit went; tell whether there is more.

    A portion at a time, each with its event: what a stop leaves is found again at the next start.
    """
    if not chores.pruning:
        if chores.pruned_at is not None and reading.now - chores.pruned_at < PRUNE_INTERVAL:
            return False
        chores.pruned_at = reading.now
        ended = reading.now - REVOCATIONS_KEPT
        run.revoked_jtis = {jti: exp for jti, exp in run.revoked_jtis.items() if exp > ended}
    is_over = begin_share(run)
    chores.pruning = True
    while chores.pruning and not is_over():
        chores.pruning = _prune_some(run, chores, reading)
    return chores.pruning


def _prune_some(run: Run, chores: Chores, reading: Reading) -> bool:
    with run.around.store.begin() as transaction:
        pruned = transaction.prune(
            tokens_before=reading.now - chores.retention_tokens,
            audit_before=reading.now - chores.retention_audit,
            at_most=PRUNED_AT_ONCE,
        )
        if pruned.events:
            details: dict[str, Detail] = {
                "events": pruned.events,
                "anchor_seq": transaction.audit_head().anchor_seq,
            }
            run.head = transaction.append([Event(name=EventName.AUDIT_PRUNED, at=reading.now, details=details)])
    return pruned.more
