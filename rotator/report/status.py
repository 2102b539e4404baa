"""How things stand: what is wrong first, with the next step for each, then keysets, workspaces and deliveries."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from rotator.core.alarms import OVERDUE_AFTER, SILENT_AFTER
from rotator.core.model import ALWAYS, KeysetName, Origin, Phase, WorkspaceId
from rotator.core.planner import active_key, ready_at, spares
from rotator.core.policy import Policy, Verifiers
from rotator.ports import DeliveryAlarm, DeliveryRow, Snapshot
from rotator.report.known import KnownKeyset, known_keysets
from rotator.report.overdue import what_helps
from rotator.report.problems import find_problems, late_and_critical
from rotator.report.records import (
    AuditStatus,
    ClockStatus,
    DeliveryCounts,
    FailingWorkspace,
    Health,
    KekStatus,
    KeysetStatus,
    Problem,
    ReplicaStatus,
    Report,
    Standby,
    WorkspaceCounts,
)
from rotator.report.takeover import asked_for
from rotator.report.timeline import unroll
from rotator.report.unrolling import NO_WINDOWS, signs_until

FAILING_SHOWN: Final = 20
OPEN_AT_MOST: Final = 100_000
"""Open deliveries, and workspaces that wait for a keyset, are counted up to here."""

_FAR: Final = datetime(9998, 1, 1, tzinfo=UTC)
_FIVE_YEARS: Final = timedelta(days=1827)
_IN_SET: Final = (Phase.PENDING, Phase.ACTIVE, Phase.GRACE)


def status(
    snapshot: Snapshot, policy: Policy, now: datetime, faults: Mapping[str, str], *, several_replicas: bool = False
) -> Report:
    """Return how things stand at ``now``.

    ``faults`` are what the daemon, or a look from outside, found wrong, by subject. ``several_replicas``: other daemons
    may work on the same database, so that one of them can be missed.
    """
    known = known_keysets(snapshot, policy, now)
    mark, head = snapshot.clock_mark(), snapshot.audit_head()
    open_deliveries, alarms = snapshot.due_deliveries(_FAR, OPEN_AT_MOST), snapshot.delivery_alarms(now)
    adopted = [
        key for each in known for key in each.state.keys if key.origin is Origin.ADOPTED and key.phase is Phase.GRACE
    ]
    report = Report(
        state=Health.OK,
        at=now,
        installation=snapshot.installation(),
        problems=(),
        keysets=tuple(_keyset(each, policy.verifiers, now) for each in known),
        workspaces=_workspaces(snapshot, now),
        failing=_failing(snapshot),
        deliveries=_deliveries(open_deliveries, alarms, now),
        clock=ClockStatus(
            trusted="clock" not in faults,
            problem=faults.get("clock", ""),
            latest_trusted_at=None if mark is None else mark.high_water_at,
        ),
        kek=KekStatus(
            usable="kek" not in faults,
            problem=faults.get("kek", ""),
            ids=tuple(row.kek_id for row in snapshot.keks()),
        ),
        replicas=_replicas(snapshot, now) if several_replicas else (),
        adopted_kids=tuple(key.kid for key in adopted),
        adopted_until=max(
            (end for key in adopted for end in (key.grace_until, key.last_exp) if end is not None), default=None
        ),
        audit=AuditStatus(seq=head.seq, hash=head.hash, not_logged=max(0, head.seq - head.logged_seq)),
        open_requests=len(snapshot.open_requests()),
        next_due_at=snapshot.next_due(tuple(each.row.name for each in known if active_key(each.state) is not None)),
    )
    helps = {each.row.name: what_helps(each, now, faults) for each in known}
    problems = sorted(
        find_problems(report, faults, alarms, helps, _unsigned(report, snapshot)),
        key=lambda found: found.severity is not Health.CRITICAL,
    )
    return replace(report, state=_worst(problems), problems=tuple(problems))


def _worst(problems: Iterable[Problem]) -> Health:
    found = {problem.severity for problem in problems}
    return next((level for level in (Health.CRITICAL, Health.DEGRADED) if level in found), Health.OK)


# ------------------------------------------------------------------------------------------------------------ keysets


def _keyset(known: KnownKeyset, verifiers: Verifiers, now: datetime) -> KeysetStatus:
    state, policy = known.state, known.policy
    active = active_key(state)
    upcoming = unroll(known, now, now + _FIVE_YEARS, NO_WINDOWS, limit=1)
    ends_at = None
    if active is not None and active.activated_at is not None:
        ends_at = active.activated_at + policy.security_period
    return KeysetStatus(
        name=known.row.name,
        generation=known.row.generation,
        algorithm=policy.algorithm if active is None else active.algorithm,
        issuer=policy.issuer,
        ending=policy.ending,
        keys={phase.value: sum(key.phase is phase for key in state.keys) for phase in _IN_SET},
        signing_kid=None if active is None else active.kid,
        signing_since=None if active is None else active.activated_at,
        rotates_at=None if active is None else signs_until(known, active, now),
        security_period_ends_at=ends_at,
        overdue_seconds=_overdue_seconds(known, now),
        standby=_standby(known, now),
        next_event=next(upcoming, None),
        needs_signer=state.in_use and not policy.ending,
        ever_signed=state.ever_active,
        failures=known.row.failures,
        fault=known.row.fault,
        asked=None if state.wish is None else asked_for(state.wish),
        refused_until=None if active is None else _refused_until(state.out_since.get(active.kid), verifiers, now),
    )


def _refused_until(since: datetime | None, verifiers: Verifiers, now: datetime) -> datetime | None:
    """Return until when a verifier may hold a copy of the set from before a key that is in it ``since`` then."""
    if since is None or since == ALWAYS:
        return None
    until = since + verifiers.publish_lag + verifiers.max_cache
    return until if until > now else None


def _overdue_seconds(known: KnownKeyset, now: datetime) -> int:
    """Return by how much the keyset is late: its rotation, or whatever the planner was to look at."""
    active = active_key(known.state)
    dues = [known.row.due_at]
    if active is not None and active.rotate_at is not None and not known.policy.ending:
        dues.append(active.rotate_at)
    return max(0, int((now - min(dues)).total_seconds()))


def _standby(known: KnownKeyset, now: datetime) -> Standby | None:
    queue = spares(known.state, known.policy)
    if not queue:
        return None
    when = ready_at(known.state, queue[0].kid, known.policy)
    ready = when is not None and when <= now
    return Standby(kid=queue[0].kid, ready=ready, ready_at=queue[0].created_at if when == ALWAYS else when)


# ------------------------------------------------------------------------------- workspaces, deliveries and replicas


def _workspaces(snapshot: Snapshot, now: datetime) -> WorkspaceCounts:
    counts = snapshot.counts()
    return WorkspaceCounts(
        total=counts["workspaces"],
        overdue=snapshot.overdue_workspaces(now - OVERDUE_AFTER),
        failing=len(snapshot.workspace_faults()),
        tokens=counts["tokens"],
    )


def _unsigned(report: Report, snapshot: Snapshot) -> dict[KeysetName, int]:
    """Count the overdue workspaces on each keyset that has no key that signs: they wait for that and nothing else."""
    names = [keyset.name for keyset in report.keysets if keyset.signing_kid is None and keyset.needs_signer]
    return {name: len(snapshot.due_workspaces([name], report.at - OVERDUE_AFTER, OPEN_AT_MOST)) for name in names}


def _failing(snapshot: Snapshot) -> tuple[FailingWorkspace, ...]:
    shown = sorted(snapshot.workspace_faults())[:FAILING_SHOWN]
    return tuple(
        FailingWorkspace(workspace=name, failures=failures, problem=problem, expires_at=_expiry(snapshot, name))
        for name, failures, problem in shown
    )


def _expiry(snapshot: Snapshot, name: WorkspaceId) -> datetime | None:
    state = snapshot.workspace(name)
    return None if state is None else state.current_expires_at


def _deliveries(waiting: tuple[DeliveryRow, ...], alarms: tuple[DeliveryAlarm, ...], now: datetime) -> DeliveryCounts:
    late, critical = late_and_critical(alarms, now)
    return DeliveryCounts(
        open=len(waiting),
        overdue=sum(row.due_at is not None and now - row.due_at > OVERDUE_AFTER for row in waiting),
        failing=sum(alarm.attempts > 0 for alarm in alarms),
        late=late,
        critical=critical,
    )


def _replicas(snapshot: Snapshot, now: datetime) -> tuple[ReplicaStatus, ...]:
    return tuple(
        ReplicaStatus(
            replica=row.replica,
            started_at=row.started_at,
            seen_at=row.seen_at,
            silent=now - row.seen_at > SILENT_AFTER,
        )
        for row in snapshot.replicas()
    )
