"""What a revocation does, before and after it: what it takes with it, who takes over, and who may still accept it.

The same report is made for a rehearsal and for what was done, from the same facts: before, of what would be revoked
now; after, of what was revoked since, and how much of that is replaced.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from rotator.config.profiles import MAX_CACHE
from rotator.core.compromise import needs_choice, without
from rotator.core.durations import format_duration
from rotator.core.model import ALWAYS, Jti, KeysetName, Kid, Phase, ReplicaId, SigningKey, SinkId, WorkspaceId
from rotator.core.planner import IN_SET, active_key, is_ready, ready_at, spares
from rotator.core.policy import Policy
from rotator.engine.observe import SERVED
from rotator.engine.observe import lost as lost_sighting
from rotator.errors import UnknownNameError
from rotator.ports import Reach, Snapshot, Target
from rotator.report.known import KnownKeyset, foreign_until, known_keyset
from rotator.report.naming import key_named, token_named

SHOWN: Final = 20
"""Open deliveries that are named."""

CONFIGURED: Final = "consumers.max_cache"

WHAT_IT_CAN_DO: Final = (
    "a signed token ends at its exp. A verifier learns of a revocation before that only when the key has left the set:"
    " within its cache, and some keep a key until they meet an unknown kid. There are no status lists yet, so a revoked"
    " token whose key stays is accepted to its end, by all that do not ask elsewhere"
)


class Subject(StrEnum):
    """What can be revoked."""

    KEY = "key"
    TOKEN = "token"  # noqa: S105 - the name of a kind, no secret
    WORKSPACE = "workspace"
    KEYSET = "keyset"


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedKey:
    """A key that is, or would be, revoked."""

    kid: Kid
    keyset: KeysetName
    phase: Phase
    """As it stands now."""
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Successor:
    """Which key signs in place of one that is revoked."""

    keyset: KeysetName
    kid: Kid | None
    """None: a fresh one, which is not made yet."""
    signs: bool
    """It does by now."""
    ready: bool
    """Every verifier can know it."""
    known_at: datetime
    """From when on every verifier can know it."""
    spare_known_at: datetime
    """From when on that holds for the key after it: another emergency before that is a choice with figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """Until when a kind of verifier may still accept tokens on a revoked key."""

    verifier: str
    cache_seconds: int
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDelivery:
    """A sink that does not hold its new token yet."""

    workspace: WorkspaceId
    sink: SinkId
    attempts: int
    """Failed in a row."""
    last_error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """A revocation, rehearsed or done."""

    subject: Subject
    name: str
    """In full, where the beginning of a kid or jti was given."""
    done: bool
    """False: nothing is changed, this is what would be."""
    at: datetime
    """When it was done, or the moment of the rehearsal."""
    keys: tuple[RevokedKey, ...]
    tokens: int
    """Unexpired, current and superseded, as far as this database knows them."""
    foreign_until: datetime | None
    """Tokens that this database does not know may hang on the keys, uncounted, until then; None: none do."""
    workspaces: int
    """Whose current token it is; each gets a new one."""
    reissued: int
    """Of these, with a new token by now."""
    left: int
    """Of these, no longer in the config: they get none."""
    deliveries: int
    """Sinks of these workspaces."""
    deliveries_open: int
    """Of these sinks, without the new token yet."""
    deliveries_failing: int
    open_deliveries: tuple[OpenDelivery, ...]
    """The first twenty that could be made, the failing ones before others."""
    successors: tuple[Successor, ...]
    choice_needed: bool
    """No key that every verifier can know is left: the operator chooses between waiting and refusals."""
    still_shown: tuple[ReplicaId, ...]
    """Replicas whose published tree showed a key that was revoked when they looked last: verifiers go on with it."""
    verifiers: tuple[Acceptance, ...]
    """By how long they cache; counted from ``at``, or from now while ``still_shown``."""
    notes: tuple[str, ...]
    request: int | None = None
    """The number of a request for it that is accepted and still under way; None: there is none."""

    @property
    def waiting(self) -> int:
        """Workspaces that are to get a new token and have none."""
        return self.workspaces - self.left - self.reissued


def revocation(
    snapshot: Snapshot,
    policy: Policy,
    now: datetime,
    faults: Mapping[str, str],
    subject: Subject,
    name: str,
    since: datetime | None = None,
) -> Revocation:
    """Return what revoking ``name`` does; with ``since``, what was revoked then or later, and how far it is replaced.

    What is revoked already is told as done. Raise :class:`UnknownNameError` if there is no such thing.
    """
    found = _find(snapshot, subject, name, since)
    reach = snapshot.reach(found.target, now, revoked_since=found.since, limit=SHOWN)
    known = _keysets(snapshot, policy, now, found)
    successors = tuple(_successors(known, found, now))
    # Else nobody can tell who is known, or nothing can sign, until that is over.
    trusted = "clock" not in faults and "kek" not in faults
    lost = [each for each in successors if trusted and not each.signs and not each.ready]
    still_shown = tuple(sorted(_still_shown(snapshot, found)))
    return Revocation(
        subject=subject,
        name=found.name,
        done=found.since is not None,
        at=found.at or now,
        keys=tuple(
            RevokedKey(kid=key.kid, keyset=key.keyset, phase=key.phase, revoked_at=key.revoked_at) for key in found.keys
        ),
        tokens=reach.tokens,
        foreign_until=max((end for key in found.keys if (end := foreign_until(key, now)) is not None), default=None),
        workspaces=reach.workspaces,
        reissued=reach.workspaces - reach.left - reach.waiting,
        left=reach.left,
        deliveries=reach.deliveries,
        deliveries_open=reach.deliveries_open,
        deliveries_failing=reach.deliveries_failing,
        open_deliveries=tuple(
            OpenDelivery(workspace=row.workspace, sink=row.sink, attempts=row.attempts, last_error=row.last_error)
            for row in reach.open_deliveries
        ),
        successors=successors,
        choice_needed=bool(lost),
        still_shown=still_shown,
        verifiers=tuple(_verifiers(policy, found, now if still_shown else found.at or now)),
        notes=tuple(_notes(policy, found, reach, lost, faults, still_shown, now)),
    )


# ------------------------------------------------------------------------------------------------------- what is meant


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What the operator means."""

    subject: Subject
    name: str
    target: Target
    keys: tuple[SigningKey, ...] = ()
    since: datetime | None = None
    """It was revoked then or later; None: it is not yet."""
    at: datetime | None = None
    """When it was."""


def _find(snapshot: Snapshot, subject: Subject, name: str, since: datetime | None) -> _Found:
    match subject:
        case Subject.KEY:
            return _find_key(snapshot, name, since)
        case Subject.KEYSET:
            return _find_keyset(snapshot, KeysetName(name), since)
        case Subject.TOKEN:
            return _find_token(snapshot, Jti(name), since)
        case Subject.WORKSPACE:
            return _find_workspace(snapshot, WorkspaceId(name), since)


def _find_key(snapshot: Snapshot, name: str, since: datetime | None) -> _Found:
    key = key_named((row.key for row in snapshot.all_keys()), name)
    if key.revoked_at is not None:  # before or after this was asked for: what it took with it is the same
        since = key.revoked_at if since is None else min(since, key.revoked_at)
    return _Found(
        subject=Subject.KEY,
        name=key.kid,
        target=Target(kids=(key.kid,)),
        keys=(key,),
        since=since if key.revoked_at is not None else None,
        at=key.revoked_at,
    )


def _find_keyset(snapshot: Snapshot, name: KeysetName, since: datetime | None) -> _Found:
    if snapshot.keyset(name) is None:
        names = ", ".join(row.name for row in snapshot.keysets())
        raise UnknownNameError(f"there is no keyset {name!r}; there are: {names}")
    if since is None:
        keys = tuple(row.key for row in snapshot.keys(name) if row.key.phase in IN_SET)
    else:
        every = (row.key for row in snapshot.all_keys() if row.key.keyset == name)
        keys = tuple(key for key in every if key.revoked_at is not None and key.revoked_at >= since)
    return _Found(
        subject=Subject.KEYSET,
        name=name,
        target=Target(kids=tuple(key.kid for key in keys)),
        keys=keys,
        since=since,
        at=min((key.revoked_at for key in keys if key.revoked_at is not None), default=since),
    )


def _find_token(snapshot: Snapshot, wanted: str, since: datetime | None) -> _Found:
    row = token_named(snapshot, wanted)
    jti = row.token.jti
    revoked_at = row.token.revoked_at
    if revoked_at is not None:
        since = revoked_at if since is None else min(since, revoked_at)
    return _Found(
        subject=Subject.TOKEN,
        name=jti,
        target=Target(jti=jti),
        since=since if revoked_at is not None else None,
        at=revoked_at,
    )


def _find_workspace(snapshot: Snapshot, workspace: WorkspaceId, since: datetime | None) -> _Found:
    if snapshot.workspace(workspace) is None:
        raise UnknownNameError(f"there is no workspace {workspace!r}; `rotator tokens list` names them")
    return _Found(subject=Subject.WORKSPACE, name=workspace, target=Target(workspace=workspace), since=since, at=since)


# ----------------------------------------------------------------------------------------------------- who takes over


def _keysets(snapshot: Snapshot, policy: Policy, now: datetime, found: _Found) -> tuple[KnownKeyset, ...]:
    """Return the keysets that lose a key."""
    names = dict.fromkeys(key.keyset for key in found.keys)
    rows = [row for name in names if (row := snapshot.keyset(name)) is not None and row.ended_at is None]
    return tuple(known_keyset(snapshot, row, policy, now) for row in rows)


def _successors(known: tuple[KnownKeyset, ...], found: _Found, now: datetime) -> Iterator[Successor]:
    """Yield, for each keyset that loses its signer, the key that signs after it."""
    kids = frozenset(key.kid for key in found.keys)
    for each in known:
        state, policy = each.state, each.policy
        active = active_key(state)
        if policy.ending and not state.in_use:
            continue
        if found.since is None:
            if (active is None or active.kid not in kids) and not needs_choice(state, policy, now, kids):
                continue
            state = without(state, kids, now)
        elif active is not None and (active.activated_at is None or active.activated_at < found.since):
            continue  # it signed before, and still does
        signer = active_key(state)
        queue = spares(state, policy)
        ready = [key for key in queue if is_ready(state, key, policy, now)]
        chosen = signer or next(iter(ready or queue), None)
        when = None if chosen is None else ready_at(state, chosen.kid, policy)
        behind = [ready_at(state, key.kid, policy) for key in queue if key is not chosen]
        spare_at = min((at for at in behind if at is not None), default=now + policy.propagation_period)
        yield Successor(
            keyset=each.row.name,
            kid=None if chosen is None else chosen.kid,
            signs=signer is not None,
            ready=when is not None and when <= now,
            known_at=now if when == ALWAYS else when or now + policy.propagation_period,
            spare_known_at=max(now, spare_at),
        )


# ----------------------------------------------------------------------------------------------- who still accepts it


def _still_shown(snapshot: Snapshot, found: _Found) -> set[ReplicaId]:
    """Return the replicas whose trees have shown a revoked key ever since."""
    if found.since is None:
        return set()
    kids = {key.kid for key in found.keys}
    seen = [each for name in {key.keyset for key in found.keys} for each in snapshot.sightings(name)]
    return {each.replica for each in seen if each.kid in kids and each.replica != SERVED and not lost_sighting(each)}


def _verifiers(policy: Policy, found: _Found, left_at: datetime) -> Iterator[Acceptance]:
    """Yield until when each kind of verifier may hold a set with the key: as long as it spreads, and is then cached."""
    if all(key.retired_at is not None for key in found.keys):
        return  # tokens alone, or a key that left the set long ago
    caches = {**MAX_CACHE, CONFIGURED: policy.verifiers.max_cache}
    for name, cache in sorted(caches.items(), key=lambda pair: (pair[1], pair[0])):
        until = left_at + policy.verifiers.publish_lag + cache
        yield Acceptance(verifier=name, cache_seconds=int(cache.total_seconds()), until=until)


def _notes(
    policy: Policy,
    found: _Found,
    reach: Reach,
    lost: list[Successor],
    faults: Mapping[str, str],
    still_shown: tuple[ReplicaId, ...],
    now: datetime,
) -> Iterator[str]:
    yield WHAT_IT_CAN_DO
    if still_shown:
        yield (
            f"the published set of {', '.join(still_shown)} still shows it, as far as is known: verifiers go on with"
            " it, and their times count from when it is gone there. See that the daemon there runs and can write its"
            " set (rotator status)"
        )
    if found.subject in (Subject.TOKEN, Subject.WORKSPACE) and reach.last_exp is not None and reach.last_exp > now:
        yield f"the last of these tokens ends at {reach.last_exp:%Y-%m-%d %H:%M:%S} UTC"
    for successor in lost:
        yield choice(policy, successor, now)
    for keyset in dict.fromkeys(key.keyset for key in found.keys):
        problem = faults.get(f"publish:{keyset}")
        if problem:
            yield f"the published set of keyset {keyset} could not be written, and is tried again: {problem}"
    for subject in ("clock", "kek"):
        if subject in faults:
            yield f"nothing is issued for now: {faults[subject]}"


def choice(policy: Policy, lost: Successor, now: datetime) -> str:
    """Return the sentence about what to choose between where no key that every verifier can know is left."""
    wait = format_duration(timedelta(seconds=max(0, int((lost.known_at - now).total_seconds()))))
    cache = format_duration(policy.verifiers.max_cache + policy.verifiers.publish_lag)
    return (
        f"keyset {lost.keyset} has no spare that every verifier can know. With --wait the next key signs at"
        f" {lost.known_at:%Y-%m-%d %H:%M} UTC, in {wait}: no new token is refused, and there is none until then. With"
        f" --now it signs at once, and verifiers that cache may refuse the new tokens for up to {cache}"
    )
