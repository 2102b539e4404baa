"""What is done at leisure: expired tokens, sinks held against what they should hold, late deliveries, pruning."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from rotator.core.alarms import CRITICAL_SHARE, WARNING_SHARE, share_gone
from rotator.core.events import Event, EventName
from rotator.core.policy import CommandSink
from rotator.engine.deliver import find_sink, open_stored
from rotator.engine.run import Run
from rotator.errors import SealError
from rotator.ports import DeliveryRow, Reading

EXPIRED_AT_ONCE: Final = 1_000
COMPARED_AT_ONCE: Final = 250
PRUNE_INTERVAL: Final = timedelta(hours=24)

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


def compare_sinks(run: Run, chores: Chores, reading: Reading) -> bool:
    """Hold file sinks against what they should hold, a few at a time: at the start and hourly."""
    if chores.compared_at is None or reading.now - chores.compared_at >= run.compare_interval:
        with run.around.store.read() as snapshot:
            chores.to_compare = [row for row in snapshot.deliveries() if row.due_at is None]
        chores.compared_at = reading.now
    batch, chores.to_compare = chores.to_compare[:COMPARED_AT_ONCE], chores.to_compare[COMPARED_AT_ONCE:]
    if not batch:
        return False
    again: list[DeliveryRow] = []
    with run.around.store.read() as snapshot:
        current = snapshot.current_tokens(list(dict.fromkeys(row.workspace for row in batch)))
        for row in batch:
            sink = find_sink(run, row.workspace, row.sink)
            if sink is None or isinstance(sink, CommandSink):
                continue
            try:
                parcel = open_stored(run, snapshot, row, current.get(row.workspace))
            except SealError as error:
                run.fault(f"token:{row.jti}", str(error), "delivery.failed", workspace=row.workspace, sink=row.sink)
                continue
            if parcel is not None and not run.around.courier.holds(sink, parcel):
                again.append(row)
    if again:
        with run.around.store.begin() as transaction:
            for row in again:
                transaction.redeliver(row.workspace, row.sink, row.sequence, reading.now)
    return bool(chores.to_compare)


def alarm_late_deliveries(run: Run, reading: Reading) -> None:
    """Raise the level of a failing delivery as the end of the prior token comes nearer."""
    with run.around.store.read() as snapshot:
        alarms = snapshot.delivery_alarms()
    subjects = set()
    for alarm in alarms:
        gone = share_gone(alarm.wanted_at, alarm.deadline, reading.now)
        if gone < WARNING_SHARE:
            continue
        subject = f"delivery:{alarm.workspace}:{alarm.sink}"
        subjects.add(subject)
        event = "delivery.critical" if gone >= CRITICAL_SHARE else "delivery.late"
        problem = f"{'critical' if gone >= CRITICAL_SHARE else 'late'}: {alarm.last_error}"
        run.fault(subject, problem, event, workspace=alarm.workspace, sink=alarm.sink, attempts=alarm.attempts)
    for subject in [known for known in run.faults if known.startswith("delivery:") and known not in subjects]:
        run.healed(subject)


def prune(run: Run, chores: Chores, reading: Reading) -> None:
    """Once a day, delete what is past its retention, and record how much of the audit went."""
    if chores.pruned_at is not None and reading.now - chores.pruned_at < PRUNE_INTERVAL:
        return
    chores.pruned_at = reading.now
    ended = reading.now - REVOCATIONS_KEPT
    run.revoked_jtis = {jti: exp for jti, exp in run.revoked_jtis.items() if exp > ended}
    with run.around.store.begin() as transaction:
        pruned = transaction.prune(
            tokens_before=reading.now - chores.retention_tokens, audit_before=reading.now - chores.retention_audit
        )
        if pruned:
            anchor = transaction.audit_head().anchor_seq
            event = Event(name=EventName.AUDIT_PRUNED, at=reading.now, details={"events": pruned, "anchor_seq": anchor})
            run.head = transaction.append([event])
