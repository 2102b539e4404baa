"""What restored backups left behind: which events were lost with the database of before, and what is known of them.

The audit tells of each restore; the witness beside the database tells of one that no start has seen to yet.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime

from rotator.core.events import EventName
from rotator.core.model import Jti, Kid
from rotator.ports import AuditRow, RevocationEntry, Snapshot, WitnessRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What is known beside the database, which may be an older one."""

    revoked_kids: Collection[Kid] = frozenset()
    revoked_jtis: Collection[Jti] = frozenset()
    journal: tuple[RevocationEntry, ...] = ()
    """The journal of revocations: the database learns of one that was accepted without the KEK when that is back."""
    ahead: WitnessRecord | None = None
    """The witness, where it knows what the database lacks and no start has seen to that yet."""

    def entry_of(self, name: Kid | Jti) -> RevocationEntry | None:
        """Return the first entry of the journal that revokes a key or a token."""
        return next((entry for entry in self.journal if name in entry.kids or name in entry.jtis), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """One restored backup. What came after the last event of it was lost."""

    seq: int
    """The event that tells of it last: of the person who restored it, then of the start that found it."""
    at: datetime
    actor: str
    """Who is known to have put it in place: ``rotator`` where only the start found it."""
    reason: str
    last_seq: int
    """The last event that the backup had."""
    last_at: datetime | None
    """When that was; None: it is past its retention."""
    lost_seq: int | None
    """The last event that was lost, as the witness knew it; None: there was no witness."""
    lost_hash: str | None

    @property
    def told(self) -> str:
        """Say in words what it was."""
        if self.actor == "rotator":
            return f"the start at event {self.seq} found an older database"
        why = f": {self.reason}" if self.reason else ""
        return f"{self.actor} restored a backup at event {self.seq}, {self.at:%Y-%m-%d %H:%M:%SZ}{why}"


def restores(snapshot: Snapshot) -> tuple[Restore, ...]:
    """Return every restore that the audit tells of, the oldest first."""
    found: list[Restore] = []
    for row in snapshot.audit(names={EventName.BACKUP_RESTORED, EventName.STATE_RESTORED}):
        if row.event.name is EventName.BACKUP_RESTORED:
            found.append(_restore(snapshot, row))
        elif row.event.name is EventName.STATE_RESTORED:
            fresh = _restore(snapshot, row)
            if found and fresh.lost_hash == found[-1].lost_hash:
                found[-1] = replace(found[-1], seq=row.seq)
            else:
                found.append(fresh)
    return tuple(found)


def _restore(snapshot: Snapshot, row: AuditRow) -> Restore:
    details = row.event.details
    last_seq, lost_seq, lost_hash = (details.get(name) for name in ("database_seq", "witness_seq", "witness_hash"))
    last = next(snapshot.audit(after=int(last_seq or 0) - 1, limit=1), None)
    return Restore(
        seq=row.seq,
        at=row.event.at,
        actor=row.event.actor,
        reason=row.event.reason,
        last_seq=int(last_seq or 0),
        last_at=last.event.at if last is not None and last.seq == last_seq else None,
        lost_seq=None if lost_seq is None else int(lost_seq),
        lost_hash=None if lost_hash is None else str(lost_hash),
    )
