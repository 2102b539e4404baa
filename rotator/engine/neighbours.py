"""Takes over what other replicas changed, so that this one's witness says no more than it knows.

The witness names the head of the audit chain as its time. Were it written with a head that another replica moved and
with keysets as this one last saw them, a restore would go by keys that had long changed their phase, and one that this
replica finds first would bring back what another revoked.
"""

from rotator.engine.keysets import remember
from rotator.engine.observe import observe
from rotator.engine.request_rows import recall_answered
from rotator.engine.run import Run
from rotator.engine.witnessing import recall_revoked
from rotator.errors import PublishError, SealError
from rotator.ports import Reading


def catch_up(run: Run, reading: Reading) -> None:
    """Look at every keyset again where other replicas work on this database; costs nothing where there are none."""
    if run.caught_up == run.head:
        return
    with run.around.store.read() as snapshot:
        there = {row.replica for row in snapshot.replicas()}
        run.replicas = (run.replicas | there) - snapshot.forgotten_replicas()  # no row of one is ever deleted
        if run.replicas <= {run.around.replica}:
            run.caught_up = run.head
            return
        recall_revoked(run, snapshot, reading)
        recall_answered(run, snapshot)
        for row in snapshot.keysets():
            if row.ended_at is not None:
                continue
            try:
                observed = observe(run, snapshot, row.name, reading)
            except (PublishError, SealError):
                continue  # its turn says so
            if observed is not None:
                remember(run, observed, reading)
    run.caught_up = run.head
