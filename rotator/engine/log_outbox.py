"""Brings committed audit events to the log: in order, in portions of bounded time, and revocations before their turn.

The audit table is the outbox of the log. What was written is marked only after, so that each event gets there at least
once, even when the daemon is killed in between.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from rotator.core.events import EventName
from rotator.engine.run import Run
from rotator.errors import StoreError
from rotator.ports import AuditHead, AuditRow, Snapshot

PORTION: Final = 5_000
"""How many events are written at most before the loop looks at what else there is to do."""

PORTION_TIME: Final = timedelta(milliseconds=500)
"""How long that may take: a slow disk below the log writes a smaller portion."""

PIECE: Final = 250
"""After so many events it is looked whether that time is over."""

REVOCATIONS: Final = frozenset(
    {
        EventName.KEY_REVOKED,
        EventName.KEYSET_REVOKED,
        EventName.TOKEN_REVOKED,
        EventName.TOKENS_REVOKED,
        EventName.WORKSPACE_REVOKED,
    }
)
"""What does not wait behind the hundred thousand tokens that were issued before it."""


@dataclass(slots=True)
class LogOutbox:
    """What the log has of the audit, beyond what the database says it has."""

    portion: int = PORTION
    _looked_to: int = 0
    """Up to here it was looked for revocations."""
    _ahead: set[int] = field(default_factory=set)
    """Events that were written before their turn."""

    def pump(self, run: Run) -> bool:
        """Bring the next portion to the log; tell whether more waits that the next one can bring."""
        with run.around.store.read() as snapshot:
            head = snapshot.audit_head()
            if head.seq <= head.logged_seq:
                return False
            ahead = self._revocations(snapshot, head)
            rows: list[AuditRow] = []
            foreign = None
            try:
                rows.extend(snapshot.audit(after=head.logged_seq, limit=self.portion))
            except StoreError as error:  # an event that nobody wrote: told of, and left out
                foreign = (rows[-1].seq if rows else head.logged_seq) + 1
                run.fault("row:audit", str(error), "row.changed", table="audit", row=str(foreign))
        run.around.log.audit(ahead)
        self._ahead |= {row.seq for row in ahead}
        logged = self._write(run, rows, head.logged_seq)
        if foreign == logged + 1:
            logged = foreign
        if logged == head.logged_seq:
            return False  # somebody took away what waits
        with run.around.store.begin() as transaction:
            transaction.mark_logged(logged)
        self._ahead = {seq for seq in self._ahead if seq > logged}
        return logged < head.seq

    def _revocations(self, snapshot: Snapshot, head: AuditHead) -> list[AuditRow]:
        """Return the revocations that came since the last look, where they would have to wait."""
        if head.seq < self._looked_to:  # another database was put in its place
            self._looked_to = 0
            self._ahead.clear()
        after, self._looked_to = max(head.logged_seq, self._looked_to), head.seq
        if head.seq - head.logged_seq <= PIECE:
            return []
        found: list[AuditRow] = []
        with contextlib.suppress(StoreError):  # an event that nobody wrote is told of in its turn
            found.extend(snapshot.audit(after=after, limit=self.portion, names=REVOCATIONS))
        return found

    def _write(self, run: Run, rows: Sequence[AuditRow], logged: int) -> int:
        """Write ``rows`` for as long as there is time; return the last event that the log has then."""
        clock = run.around.clock
        end = clock.read().since_boot + PORTION_TIME
        for start in range(0, len(rows), PIECE):
            if start and clock.read().since_boot >= end:
                break
            piece = rows[start : start + PIECE]
            run.around.log.audit([row for row in piece if row.seq not in self._ahead])
            logged = piece[-1].seq
        return logged
