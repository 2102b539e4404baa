"""The audit trail as people and programs read it: its last events, filtered, or all of it page by page."""

import fnmatch
from collections import deque
from dataclasses import dataclass
from datetime import datetime

from rotator.core.events import Detail
from rotator.core.model import Jti, KeysetName, Kid, WorkspaceId
from rotator.ports import AuditRow, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One event of the audit."""

    seq: int
    at: datetime
    event: str
    keyset: KeysetName | None
    workspace: WorkspaceId | None
    kid: Kid | None
    jti: Jti | None
    actor: str
    reason: str
    details: dict[str, Detail]
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditList:
    """Events in the order in which they were committed, the newest last."""

    events: tuple[AuditEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which events are asked for; None: all of them."""

    workspace: WorkspaceId | None = None
    key: str | None = None
    """A kid, or its beginning."""
    event: str | None = None
    """A name, or a pattern such as ``token.*``."""
    since: datetime | None = None
    actor: str | None = None
    """As the audit names it, ``NAME(uid)``; or the name or the uid alone; or a pattern such as ``*(1000)``."""
    limit: int = 50

    @property
    def takes_all(self) -> bool:
        """Tell whether nothing but the number is limited."""
        return all(each is None for each in (self.workspace, self.key, self.event, self.since, self.actor))

    def takes(self, row: AuditRow) -> bool:
        """Tell whether ``row`` is asked for."""
        event = row.event
        return (
            (self.workspace is None or event.workspace == self.workspace)
            and (self.key is None or (event.kid or "").startswith(self.key))
            and (self.event is None or fnmatch.fnmatchcase(event.name, self.event))
            and (self.since is None or event.at >= self.since)
            and (self.actor is None or _is(event.actor, self.actor))
        )


def _is(actor: str, wanted: str) -> bool:
    name, _, uid = actor.removesuffix(")").partition("(")
    return wanted in (name, uid) or fnmatch.fnmatchcase(actor, wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """A part of the whole audit, in order."""

    events: tuple[AuditEntry, ...]
    anchor_seq: int
    """The last event that was pruned; 0: none was."""
    head_seq: int
    """The last event that there is: the page that holds it is the last one."""


def page(snapshot: Snapshot, after: int, limit: int) -> AuditPage:
    """Return the first ``limit`` events with a sequence number above ``after``."""
    head = snapshot.audit_head()
    events = tuple(_event(row) for row in snapshot.audit(after, limit))
    return AuditPage(events=events, anchor_seq=head.anchor_seq, head_seq=head.seq)


def audit(snapshot: Snapshot, wanted: AuditFilter) -> AuditList:
    """Return the last events that ``wanted`` takes."""
    after = max(0, snapshot.audit_head().seq - wanted.limit) if wanted.takes_all else 0
    rows = deque((row for row in snapshot.audit(after) if wanted.takes(row)), maxlen=wanted.limit)
    return AuditList(events=tuple(_event(row) for row in rows))


def _event(row: AuditRow) -> AuditEntry:
    event = row.event
    return AuditEntry(
        seq=row.seq,
        at=event.at,
        event=event.name.value,
        keyset=event.keyset,
        workspace=event.workspace,
        kid=event.kid,
        jti=event.jti,
        actor=event.actor,
        reason=event.reason,
        details=dict(event.details),
        hash=row.hash,
    )
