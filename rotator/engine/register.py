"""Enters what works on this state into the database: its KEK and its replica."""

from rotator.core.events import Event, EventName
from rotator.engine.run import Run
from rotator.engine.scrub import tampered
from rotator.ports import KekRow, Reading, ReplicaRow, Transaction


def register(run: Run, reading: Reading) -> None:
    """Register the KEK that seals, if it is new, and this replica."""
    kek_id = run.ready_sealer.kek_id
    events = []
    with run.around.store.begin() as transaction:
        known = {row.kek_id for row in transaction.keks()}
        created = transaction.audit_head().seq == 0 or not transaction.keysets()
        if not known and not created:
            tampered(run, "keks", kek_id, "it is gone, and was registered again", reading)
        if not known and created:
            details = {"installation": run.installation}
            events.append(Event(name=EventName.STATE_CREATED, at=reading.now, details=details))
        if kek_id not in known:
            transaction.add_kek(KekRow(kek_id, run.around.keyring.check_value(kek_id), reading.now))
            events.append(Event(name=EventName.KEK_ADDED, at=reading.now, details={"kek_id": kek_id}))
        run.started_at = reading.now
        sign_of_life(run, transaction, reading)
        if events:
            run.head = transaction.append(events)


def sign_of_life(run: Run, transaction: Transaction, reading: Reading) -> None:
    """Enter that this replica lives, once it is registered."""
    if run.started_at is not None:
        transaction.put_replica(ReplicaRow(replica=run.around.replica, started_at=run.started_at, seen_at=reading.now))
