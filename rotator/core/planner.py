"""Plans the rotation of one keyset: facts + policy + now → actions. Pure and total: safe from any state.

The database and the published file cannot change together, so a plan never assumes that a file was written: it ends at
each :class:`PublishSet`, and only a later plan, made from what was read back, lets a key sign. Whatever is carried out
of a plan before a crash, planning again from the new state gives the rest.

The goal state is one active key, one *standby* behind it that every verifier can know, and, while a rotation comes
near, the key after that. The rules below are tried in order and the first that applies acts: what widens the set
comes before what narrows it, except after a revocation, which waits for nothing.

0. What was revoked, or is none of ours, leaves the published file, and a ready spare takes over from a signer that is
   lost, or that an operator wants replaced at once: neither may depend on whether new keys can be made. What is none of
   ours waits for them where it is all that the file holds; what was revoked waits only for those that are at hand.
1. Stored deadlines follow the policy.
2. Enough spares exist: one behind the active key, two when a rotation is near or nothing signs.
3. The published file holds exactly the keys that are pending, active or in grace.
4. A spare signs only after ``propagation_period`` in public, after it proved itself from the published file, and, when
   the rotation is a planned one, with the key after it just as long in public. An operator's wish makes a rotation due
   now, by the same rule; in an emergency that the operator chose, a spare signs once it was read back and has proved
   itself.
5. A key leaves when its grace is over and the last token on it has ended.
6. Erased private halves are gone from the disk.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final

from rotator.core.actions import (
    ActivateKey,
    ConfirmDestruction,
    DemoteKey,
    KeysetAction,
    MakeKey,
    ProveKey,
    PublishSet,
    Reason,
    Reschedule,
    RetireKey,
)
from rotator.core.model import ALWAYS, KeysetState, Kid, Origin, Phase, SigningKey
from rotator.core.policy import KeysetPolicy
from rotator.core.schedule import Calendar, key_rotation_due
from rotator.core.transitions import apply

IN_SET: Final = frozenset({Phase.PENDING, Phase.ACTIVE, Phase.GRACE})

PLAN_LIMIT: Final = 64
"""More actions than any plan can have; a longer one is a loop, and our fault."""


def plan_keyset(
    state: KeysetState, policy: KeysetPolicy, now: datetime, calendar: Calendar
) -> tuple[KeysetAction, ...]:
    """Return what is to be done with the keyset at ``now``, in order, up to and including the next publication."""
    return tuple(_unroll(state, policy, now, calendar))


def _unroll(state: KeysetState, policy: KeysetPolicy, now: datetime, calendar: Calendar) -> Iterator[KeysetAction]:
    for _ in range(PLAN_LIMIT):
        action = _next_action(state, policy, now, calendar)
        if action is None:
            return
        yield action
        if isinstance(action, PublishSet):
            return
        state = apply(state, action, now)
    raise AssertionError(f"the plan of keyset {state.name} has no end")


def _next_action(state: KeysetState, policy: KeysetPolicy, now: datetime, calendar: Calendar) -> KeysetAction | None:
    for rule in RULES:
        action = rule(state, policy, now, calendar)
        if action is not None:
            return action
    return None


# ------------------------------------------------------------------------------------------------ reading a state


def active_key(state: KeysetState) -> SigningKey | None:
    """Return the key that signs, if there is one."""
    return next((key for key in state.keys if key.phase is Phase.ACTIVE), None)


def can_sign(key: SigningKey) -> bool:
    """Tell whether a key that is, or is to be, active really can sign."""
    return key.authentic and key.has_private and key.opens


def spares(state: KeysetState, policy: KeysetPolicy) -> tuple[SigningKey, ...]:
    """Return the pending keys that may be the next to sign, in the order in which they will."""
    return tuple(
        key for key in state.keys if key.phase is Phase.PENDING and can_sign(key) and key.algorithm == policy.algorithm
    )


def desired_kids(state: KeysetState) -> tuple[Kid, ...]:
    """Return the kids that the published file is to hold, in order."""
    return tuple(key.kid for key in state.keys if key.phase in IN_SET and key.authentic)


def ready_at(state: KeysetState, kid: Kid, policy: KeysetPolicy) -> datetime | None:
    """Return when every verifier can know ``kid``; None while some replica does not hold it.

    The published file is asked as well: a key that is not in it now is not ready, whatever was seen before.
    """
    since = state.out_since.get(kid)
    if since is None or kid not in (state.published or ()):
        return None
    return since + policy.propagation_period if since != ALWAYS else ALWAYS


def is_ready(state: KeysetState, key: SigningKey, policy: KeysetPolicy, now: datetime) -> bool:
    """Tell whether every verifier can know ``key`` at ``now``."""
    when = ready_at(state, key.kid, policy)
    return when is not None and when <= now


def is_emergency(state: KeysetState) -> bool:
    """Tell whether an operator chose that the next key need not be known to every verifier when it begins to sign."""
    return state.wish is not None and state.wish.emergency


def may_sign_at(state: KeysetState, kid: Kid, policy: KeysetPolicy) -> datetime | None:
    """Return when ``kid`` may begin to sign: when it is ready, in an emergency as soon as this replica publishes it."""
    if is_emergency(state):
        return ALWAYS if kid in (state.published or ()) else None
    return ready_at(state, kid, policy)


def spares_needed(state: KeysetState, reason: Reason) -> int:
    """Return how many spares must be out for one to begin to sign: a planned activation leaves one behind it."""
    return 2 if reason in (Reason.SECURITY_PERIOD, Reason.REQUESTED) and not is_emergency(state) else 1


def announce_at(key: SigningKey, policy: KeysetPolicy) -> datetime | None:
    """Return when the key after the next is to be made, given the active ``key``."""
    return None if key.rotate_at is None else key.rotate_at - policy.lead


def activation_reason(state: KeysetState, now: datetime) -> Reason | None:
    """Return why another key should begin to sign at ``now``; None: no reason."""
    active = active_key(state)
    if active is None:
        return Reason.SIGNER_LOST if state.ever_active else Reason.FIRST
    if not can_sign(active):
        return Reason.SIGNER_LOST
    if active.rotate_at is None or active.rotate_at <= now:
        return Reason.SECURITY_PERIOD
    return None if state.wish is None else Reason.REQUESTED


def next_due(state: KeysetState, policy: KeysetPolicy, now: datetime) -> datetime | None:
    """Return the earliest moment after ``now`` at which a plan may come out differently by time alone."""
    moments: list[datetime | None] = []
    for key in state.keys:
        if key.phase is Phase.ACTIVE:
            moments += [key.rotate_at, announce_at(key, policy)]
        elif key.phase is Phase.PENDING:
            moments += [ready_at(state, key.kid, policy), leaves_at(key, policy)]
        elif key.phase is Phase.GRACE:
            moments.append(leaves_at(key, policy))
    return min((moment for moment in moments if moment is not None and moment > now), default=None)


def next_set_change(state: KeysetState, policy: KeysetPolicy, now: datetime) -> datetime | None:
    """Return the moment after ``now`` before which time alone does not change the set; None: it never does.

    A key joins when it is announced, and leaves at the end of its grace. That one signs instead of another changes
    nothing: then the one before it leaves next, or the one after it is announced.
    """
    moments = [leaves_at(key, policy) for key in state.keys if key.phase in (Phase.PENDING, Phase.GRACE)]
    active = active_key(state)
    calm = policy.security_period - policy.jitter - policy.lead  # from when a key signs until the next is announced
    if active is None or active.rotate_at is None:
        moments.append(now + calm)
    elif not policy.ending:
        announced = active.rotate_at - policy.lead
        after = max(active.rotate_at, now) + min(policy.grace_period, calm)
        moments.append(announced if announced > now else after)
    return min((moment for moment in moments if moment is not None and moment > now), default=None)


def leaves_at(key: SigningKey, policy: KeysetPolicy) -> datetime | None:
    """Return when nothing needs a key in grace any more; None: nothing does now."""
    ends = [key.grace_until, None if key.last_exp is None else key.last_exp + policy.clock_skew]
    return max((end for end in ends if end is not None), default=None)


def _wanted_spares(state: KeysetState, policy: KeysetPolicy, now: datetime) -> int:
    active = active_key(state)
    if active is None or not can_sign(active) or state.wish is not None:
        return 2
    announcement = announce_at(active, policy)
    return 2 if announcement is None or announcement <= now else 1


def _over(state: KeysetState, policy: KeysetPolicy) -> bool:
    return policy.ending and not state.in_use


# ----------------------------------------------------------------------------------------------------------- rules


def _withdraw(state: KeysetState, policy: KeysetPolicy, now: datetime, calendar: Calendar) -> KeysetAction | None:
    """Let what was revoked leave the file. A key that is retired leaves it as well, for it is out of the set.

    Where no key would be left, as in a database from before the first ones, fresh ones are made before that: the file
    as it stands is better than an empty one, unless it shows what was revoked. That leaves together with the coming of
    fresh keys where these are at hand.
    """
    if state.fresh_at_hand and _make(state, policy, now, calendar) is not None:
        return None
    desired = desired_kids(state)
    if state.publish_blocked or set(state.published or ()) <= set(desired):
        return None
    if not desired and not state.shows_revoked:
        return None
    return PublishSet(state.name, desired)


def _take_over(state: KeysetState, policy: KeysetPolicy, now: datetime, calendar: Calendar) -> KeysetAction | None:
    """Let a ready spare sign at once where no key can, or where an operator would not wait."""
    if activation_reason(state, now) is not Reason.SIGNER_LOST and not is_emergency(state):
        return None
    return _activate(state, policy, now, calendar)


def _reschedule(state: KeysetState, policy: KeysetPolicy, now: datetime, calendar: Calendar) -> KeysetAction | None:
    """Let stored deadlines follow the policy; nothing gets shorter than what a live token needs.

    A deadline further ahead than a whole security period was made by a clock that was wrong, and is made anew.
    """
    active = active_key(state)
    ahead = active is not None and active.rotate_at is not None and active.rotate_at > now + policy.security_period
    if state.schedule_fingerprint == policy.schedule_fingerprint and not ahead:
        return None
    rotate_at: list[tuple[Kid, datetime]] = []
    grace_until: list[tuple[Kid, datetime]] = []
    for key in state.keys:
        if key.phase is Phase.ACTIVE:
            due = key_rotation_due(key.kid, policy, min(key.activated_at or now, now), calendar)
            if due != key.rotate_at:
                rotate_at.append((key.kid, due))
        elif key.phase is Phase.GRACE and key.origin is not Origin.ADOPTED:
            end = (key.demoted_at or now) + policy.grace_period
            if key.last_exp is not None:
                end = max(end, key.last_exp + policy.clock_skew)
            if end != key.grace_until:
                grace_until.append((key.kid, end))
    return Reschedule(state.name, policy.schedule_fingerprint, tuple(rotate_at), tuple(grace_until))


def _make(state: KeysetState, policy: KeysetPolicy, now: datetime, _: Calendar) -> KeysetAction | None:
    """Keep a standby behind the active key, and the key after it when a rotation is near."""
    queue = spares(state, policy)
    if _over(state, policy) or len(queue) >= _wanted_spares(state, policy, now):
        return None
    return MakeKey(state.name, state.next_sequence, policy.algorithm, _making_reason(state, queue))


def _making_reason(state: KeysetState, queue: Sequence[SigningKey]) -> Reason:
    active = active_key(state)
    if active is None and not state.ever_active:
        return Reason.FIRST if not queue else Reason.SPARE
    if active is None or not can_sign(active):
        return Reason.SIGNER_LOST
    return Reason.SUCCESSOR if queue else Reason.SPARE


def _publish(state: KeysetState, _policy: KeysetPolicy, _now: datetime, _: Calendar) -> KeysetAction | None:
    """Let the file hold exactly the keys that it should."""
    desired = desired_kids(state)
    standing = desired == (state.published or ()) and (state.tree_intact or not desired)
    if state.publish_blocked or standing:
        return None
    return PublishSet(state.name, desired)


def _activate(state: KeysetState, policy: KeysetPolicy, now: datetime, calendar: Calendar) -> KeysetAction | None:
    """Let a spare sign that every verifier can know and that proved itself."""
    reason = None if _over(state, policy) else activation_reason(state, now)
    if reason is None:
        return None
    ready = _fit(state, spares(state, policy), policy, now)
    if reason is Reason.SIGNER_LOST and not ready:
        # A change of algorithm is under way: a spare of the old one serves better than no signer.
        pending = [key for key in state.keys if key.phase is Phase.PENDING and can_sign(key)]
        ready = _fit(state, pending, policy, now)
    if len(ready) < spares_needed(state, reason):
        return None
    successor = ready[0]
    if successor.proven_at is None:
        return ProveKey(state.name, successor.kid)
    active = active_key(state)
    return ActivateKey(
        state.name,
        successor.kid,
        rotate_at=key_rotation_due(successor.kid, policy, now, calendar),
        reason=reason,
        prior=None if active is None else active.kid,
        prior_grace_until=None if active is None else now + policy.grace_period,
    )


def _fit(state: KeysetState, keys: Sequence[SigningKey], policy: KeysetPolicy, now: datetime) -> Sequence[SigningKey]:
    moments = ((key, may_sign_at(state, key.kid, policy)) for key in keys)
    return [key for key, moment in moments if moment is not None and moment <= now]


def _end(state: KeysetState, policy: KeysetPolicy, now: datetime, _: Calendar) -> KeysetAction | None:
    """Stop signing on a keyset that left the config, once no workspace is on it."""
    active = active_key(state)
    if active is None or not _over(state, policy):
        return None
    end = now if active.last_exp is None else max(now, active.last_exp + policy.clock_skew)
    return DemoteKey(state.name, active.kid, end, Reason.KEYSET_ENDED)


def _retire(state: KeysetState, policy: KeysetPolicy, now: datetime, _: Calendar) -> KeysetAction | None:
    """Take out what nothing needs any more."""
    for key in state.keys:
        reason = _retirement_reason(state, key, policy, now)
        if reason is not None:
            return RetireKey(state.name, key.kid, reason)
    return None


def _retirement_reason(state: KeysetState, key: SigningKey, policy: KeysetPolicy, now: datetime) -> Reason | None:
    if key.phase is Phase.GRACE:
        end = leaves_at(key, policy)
        return Reason.GRACE_OVER if end is None or end <= now else None
    if key.phase is not Phase.PENDING or not key.authentic:
        return None
    if key.last_exp is not None and key.last_exp + policy.clock_skew > now:
        return None  # imported, and tokens of the system that it comes from still need its public half
    if _over(state, policy):
        return Reason.KEYSET_ENDED
    if not can_sign(key):
        return Reason.UNUSABLE  # it never signed, so no token misses it
    if key.algorithm != policy.algorithm and any(
        is_ready(state, spare, policy, now) for spare in spares(state, policy)
    ):
        return Reason.ALGORITHM
    return None


def _confirm(state: KeysetState, _policy: KeysetPolicy, _now: datetime, _: Calendar) -> KeysetAction | None:
    """Make sure of what was erased; a private half that outlived its use goes as well."""
    kids = tuple(
        key.kid
        for key in state.keys
        if key.phase in (Phase.GRACE, Phase.RETIRED, Phase.REVOKED)
        and key.authentic
        and (key.has_private or key.destroyed_at is None)
    )
    return ConfirmDestruction(state.name, kids) if kids else None


Rule = Callable[[KeysetState, KeysetPolicy, datetime, Calendar], KeysetAction | None]

RULES: Final[tuple[Rule, ...]] = (
    _withdraw,
    _take_over,
    _reschedule,
    _make,
    _publish,
    _activate,
    _end,
    _retire,
    _confirm,
)
