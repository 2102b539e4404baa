"""The audit trail as people and programs read it: its last events, filtered, or all of it page by page."""

import fnmatch
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from rotator.core.events import Detail, EventName
from rotator.core.model import Jti, KeysetName, Kid, WorkspaceId
from rotator.ports import AuditRow, AuditWanted, Snapshot


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
    before: int | None = None
    """Those with a lower number: the next page."""
    limit: int = 50

    @property
    def wanted(self) -> AuditWanted:
        """Return what the database can tell by itself; it may give more than :meth:`takes` does, never less."""
        patterned = self.actor is not None and any(sign in self.actor for sign in "*?[")
        return AuditWanted(
            before=self.before,
            workspace=self.workspace,
            key=self.key,
            names=None
            if self.event is None
            else frozenset(name for name in EventName if fnmatch.fnmatchcase(name, self.event)),
            since=self.since,
            actor=None if patterned else self.actor,
        )

    def takes(self, row: AuditRow) -> bool:
        """Tell whether ``row``, which the database found for :attr:`wanted`, is to the letter what was asked for."""
        event = row.event
        return (self.key is None or (event.kid or "").startswith(self.key)) and (
            self.actor is None or _is(event.actor, self.actor)
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
    newest = islice(filter(wanted.takes, snapshot.newest_audit(wanted.wanted)), wanted.limit)
    return AuditList(events=tuple(map(_event, reversed(list(newest)))))


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
