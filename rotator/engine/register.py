"""Enters what works on this state into the database: its KEK and its replica."""

from rotator.core.events import Event, EventName
from rotator.engine.run import Run
from rotator.ports import KekRow, Reading, ReplicaRow


def register(run: Run, reading: Reading) -> None:
    """Register the KEK that seals, if it is new, and this replica."""
    kek_id = run.ready_sealer.kek_id
    events = []
    with run.around.store.begin() as transaction:
        known = {row.kek_id for row in transaction.keks()}
        if not known:
            details = {"installation": run.installation}
            events.append(Event(name=EventName.STATE_CREATED, at=reading.now, details=details))
        if kek_id not in known:
            transaction.add_kek(KekRow(kek_id, run.around.keyring.check_value(kek_id)))
            events.append(Event(name=EventName.KEK_ADDED, at=reading.now, details={"kek_id": kek_id}))
        transaction.put_replica(ReplicaRow(replica=run.around.replica, started_at=reading.now, seen_at=reading.now))
        if events:
            run.head = transaction.append(events)
