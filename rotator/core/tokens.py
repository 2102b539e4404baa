"""Plans the tokens of workspaces: facts + policy + now → the next token. Pure.

A workspace's token is replaced when its security period ends, and before that when it no longer says what the config
wants or when its key was revoked. The prior token is left to live to its own end, so a sink that is slow, or a reader
that has not reloaded, loses nothing.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from rotator.core.actions import IssueToken, Reason
from rotator.core.model import DueWorkspace, Jti, KeysetName, Overlap, Phase, SinkId, Token, WorkspaceId, WorkspaceState
from rotator.core.policy import Policy, WorkspacePolicy
from rotator.core.schedule import Calendar, share, token_rotation_due
from rotator.core.sinks import left_behind, to_delete

REVOKED: Final = frozenset({Reason.KEY_REVOKED, Reason.TOKEN_REVOKED})
"""Why a token is issued whose prior one was revoked in the change that made its workspace due."""

SMEAR_PER_WORKSPACE: Final = timedelta(milliseconds=50)
"""Changed workspaces are re-issued over at most this much time each, so that a thousand do not fall due at once."""


def plan_token(due: DueWorkspace, policy: WorkspacePolicy, issued_at: datetime, calendar: Calendar) -> IssueToken:
    """Return the token to issue for a workspace that is due, at ``issued_at``: a whole second, as in the token."""
    reason = _reason(due)
    return IssueToken(
        workspace=policy.id,
        keyset=policy.keyset,
        sequence=due.sequence + 1,
        rotate_at=token_rotation_due(policy, issued_at, calendar),
        expires_at=issued_at + policy.lifetime,
        reason=reason,
        prior=None if reason in REVOKED else due.current,
    )


@dataclass(frozen=True, slots=True)
class OverlapEnds:
    """What becomes of the overlaps that are over."""

    revoked: tuple[tuple[Overlap, Token], ...]
    """Their tokens count as revoked from now on."""
    dropped: tuple[Jti, ...]
    """Nothing is left to do about them."""


def plan_overlaps(found: Iterable[tuple[Overlap, Token | None]], now: datetime) -> OverlapEnds:
    """Decide on overlaps, each with its token, at ``now``.

    A token that has no successor yet is left alone, however long its overlap is over: its workspace has no other.
    """
    revoked: list[tuple[Overlap, Token]] = []
    dropped: list[Jti] = []
    for overlap, token in found:
        if token is None or token.phase in (Phase.RETIRED, Phase.REVOKED):
            dropped.append(overlap.jti)
        elif token.phase is Phase.GRACE and overlap.ends_at <= now:
            revoked.append((overlap, token))
    return OverlapEnds(tuple(revoked), tuple(dropped))


def _reason(due: DueWorkspace) -> Reason:
    if due.current is None:
        return Reason.FIRST
    return Reason(due.due_reason) if due.due_reason else Reason.SECURITY_PERIOD


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncPlan:
    """What a loaded config changes for the workspaces in the database."""

    new: tuple[WorkspaceState, ...]
    """Not there yet, or removed before: inserted, due at once."""
    updated: tuple[WorkspaceState, ...]
    """Changed claims (due early) or periods (due anew)."""
    claims_changed: int
    rescheduled: int
    sinks_changed: tuple[WorkspaceState, ...]
    """Deliveries are to be planned anew; with the fingerprint as it becomes."""
    removed: tuple[WorkspaceState, ...]
    """No longer in the config: what is out lives to its end."""
    known: int
    """Workspaces in the database that were not removed before."""

    @property
    def changes(self) -> bool:
        """Tell whether there is anything to do."""
        return bool(self.new or self.updated or self.sinks_changed or self.removed)


@dataclass(frozen=True, slots=True)
class SyncSurvey:
    """What a loaded config would change for the workspaces in the database, counted before any of it is done."""

    known: int
    """Workspaces in the database that were not removed before."""
    removed: tuple[WorkspaceId, ...]
    """Those of them that the config does not have."""
    claims_changed: int
    """Those of which the token is to say something else; they are issued anew over a time that grows with them."""
    holders: Mapping[KeysetName, int] = field(default_factory=dict)
    """How many of them have a token, by keyset."""
    last_expires_at: Mapping[KeysetName, datetime] = field(default_factory=dict)
    """When the last of those tokens ends."""
    to_delete: tuple[tuple[WorkspaceId, SinkId], ...] = ()
    """Files that the config names no more for their workspaces, and that are to go."""

    def joined(self, other: "SyncSurvey") -> "SyncSurvey":
        """Return what was counted of these workspaces and of others."""
        last = dict(self.last_expires_at)
        for name, moment in other.last_expires_at.items():
            last[name] = max(last.get(name, moment), moment)
        return SyncSurvey(
            known=self.known + other.known,
            removed=self.removed + other.removed,
            claims_changed=self.claims_changed + other.claims_changed,
            holders=Counter(self.holders) + Counter(other.holders),
            last_expires_at=last,
            to_delete=self.to_delete + other.to_delete,
        )


def survey_sync(states: Iterable[WorkspaceState], policy: Policy) -> SyncSurvey:
    """Count what ``policy`` changes, a state at a time: all of them need not be held."""
    known = claims_changed = 0
    removed: list[WorkspaceId] = []
    holders = Counter[KeysetName]()
    last: dict[KeysetName, datetime] = {}
    to_go: list[tuple[WorkspaceId, SinkId]] = []
    for state in states:
        wanted = policy.workspaces.get(state.id)
        if state.deletes:
            sinks = () if wanted is None else wanted.sinks
            to_go += [(state.id, sink) for sink in left_behind(state.deletes, sinks)]
        if state.removed_at is not None:
            continue
        known += 1
        if state.current is not None and state.current_expires_at is not None:
            holders[state.keyset] += 1
            last[state.keyset] = max(last.get(state.keyset, state.current_expires_at), state.current_expires_at)
        if wanted is None:
            removed.append(state.id)
        elif state.claims_fingerprint != wanted.claims_fingerprint(policy.keysets[wanted.keyset].issuer):
            claims_changed += 1
    return SyncSurvey(known, tuple(removed), claims_changed, holders, last, tuple(to_go))


def plan_sync(
    states: Iterable[WorkspaceState],
    policy: Policy,
    now: datetime,
    calendar: Calendar,
    *,
    among: Collection[WorkspaceId] | None = None,
    crowd: int | None = None,
) -> SyncPlan:
    """Hold the workspaces in the database against the config.

    ``among``: hold these alone, of which ``states`` are all that are there. ``crowd``: how many tokens are to say
    something else in all, where these are not all.
    """
    known: dict[WorkspaceId, WorkspaceState] = {state.id: state for state in states}
    issuers: Mapping[KeysetName, str] = {name: keyset.issuer for name, keyset in policy.keysets.items()}
    looked_at = policy.workspaces if among is None else among
    new: list[WorkspaceState] = []
    updated: list[WorkspaceState] = []
    sinks_changed: list[WorkspaceState] = []
    reissue: list[tuple[WorkspaceState, WorkspacePolicy]] = []
    rescheduled = 0
    for wanted in [policy.workspaces[name] for name in looked_at if name in policy.workspaces]:
        state = known.get(wanted.id)
        claims = wanted.claims_fingerprint(issuers[wanted.keyset])
        if state is None or state.removed_at is not None:
            new.append(_fresh(state, wanted, claims, now))
            continue
        if state.sinks_fingerprint != wanted.sinks_fingerprint:
            deletes = to_delete(state.deletes, wanted.sinks)
            sinks_changed.append(state._replace(sinks_fingerprint=wanted.sinks_fingerprint, deletes=deletes))
        if state.claims_fingerprint != claims:
            reissue.append((state._replace(keyset=wanted.keyset, claims_fingerprint=claims), wanted))
        elif state.schedule_fingerprint != wanted.schedule_fingerprint:
            updated.append(_rescheduled(state, wanted, calendar))
            rescheduled += 1
    updated += [_due_early(state, wanted, now, len(reissue) if crowd is None else crowd) for state, wanted in reissue]
    removed = tuple(
        state._replace(removed_at=now)
        for state in known.values()
        if state.removed_at is None and state.id not in policy.workspaces
    )
    return SyncPlan(
        new=tuple(new),
        updated=tuple(updated),
        claims_changed=len(reissue),
        rescheduled=rescheduled,
        sinks_changed=tuple(sinks_changed),
        removed=removed,
        known=sum(state.removed_at is None for state in known.values()),
    )


def _fresh(state: WorkspaceState | None, wanted: WorkspacePolicy, claims: str, now: datetime) -> WorkspaceState:
    base = state or WorkspaceState(id=wanted.id, keyset=wanted.keyset, sequence=0, due_at=now)
    return base._replace(
        keyset=wanted.keyset,
        due_at=now,
        claims_fingerprint=claims,
        schedule_fingerprint=wanted.schedule_fingerprint,
        sinks_fingerprint=wanted.sinks_fingerprint,
        removed_at=None,
        returned_at=None if state is None else now.replace(microsecond=0),  # tokens are issued at whole seconds
        deletes=to_delete(() if state is None else state.deletes, wanted.sinks),
    )


def _rescheduled(state: WorkspaceState, wanted: WorkspacePolicy, calendar: Calendar) -> WorkspaceState:
    """Compute ``due_at`` anew; the current token's end is fixed, so the grace period is kept free before it."""
    state = state._replace(schedule_fingerprint=wanted.schedule_fingerprint)
    if state.current_issued_at is None or state.current_expires_at is None:
        return state  # due since it was first seen
    due = token_rotation_due(wanted, state.current_issued_at, calendar)
    return state._replace(due_at=min(due, state.current_expires_at - wanted.grace_period))


def _due_early(state: WorkspaceState, wanted: WorkspacePolicy, now: datetime, crowd: int) -> WorkspaceState:
    spread = min(wanted.security_period / 10, SMEAR_PER_WORKSPACE * crowd)
    due = min(state.due_at, now + spread * share(state.id))
    return state._replace(
        due_at=due,
        schedule_fingerprint=wanted.schedule_fingerprint,
        due_reason=Reason.CLAIMS_CHANGED,
    )
