"""The effect of each action on what the planner knows: how a plan is unrolled, previewed and tested without a world."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import assert_never

from rotator.core import lifecycle
from rotator.core.actions import (
    ActivateKey,
    ConfirmDestruction,
    DemoteKey,
    KeysetAction,
    MakeKey,
    ProveKey,
    PublishSet,
    Reschedule,
    RetireKey,
)
from rotator.core.model import ALWAYS, KeysetState, Kid, Phase, SigningKey


def kid_to_be(action: MakeKey) -> Kid:
    """Return the placeholder for the kid of a key that is yet to be made."""
    return Kid(f"({action.keyset} #{action.sequence})")


def apply(state: KeysetState, action: KeysetAction, now: datetime) -> KeysetState:
    """Return ``state`` as it is when ``action`` has been carried out at ``now`` and all went well."""
    match action:
        case Reschedule():
            return _reschedule(state, action)
        case MakeKey():
            return _make(state, action, now)
        case PublishSet():
            return _publish(state, action, now)
        case ProveKey():
            return _with_key(state, action.kid, lambda key: replace(key, proven_at=now))
        case ActivateKey():
            return _activate(state, action, now)
        case DemoteKey():
            return _with_key(
                state, action.kid, lambda key: lifecycle.demote(key, now=now, grace_until=action.grace_until)
            )
        case RetireKey():
            return _with_key(state, action.kid, lambda key: lifecycle.retire(key, now=now))
        case ConfirmDestruction():
            gone = set(action.kids)
            return replace(
                state,
                keys=tuple(
                    replace(key, has_private=False, destroyed_at=now) if key.kid in gone else key for key in state.keys
                ),
            )
        case _:
            assert_never(action)


def _with_key(state: KeysetState, kid: Kid, change: Callable[[SigningKey], SigningKey]) -> KeysetState:
    return replace(state, keys=tuple(change(key) if key.kid == kid else key for key in state.keys))


def _reschedule(state: KeysetState, action: Reschedule) -> KeysetState:
    rotate_at: Mapping[Kid, datetime] = dict(action.rotate_at)
    grace_until: Mapping[Kid, datetime] = dict(action.grace_until)
    keys = tuple(
        replace(
            key,
            rotate_at=rotate_at.get(key.kid, key.rotate_at),
            grace_until=grace_until.get(key.kid, key.grace_until),
        )
        for key in state.keys
    )
    return replace(state, keys=keys, schedule_fingerprint=action.schedule_fingerprint)


def _make(state: KeysetState, action: MakeKey, now: datetime) -> KeysetState:
    key = SigningKey(
        kid=kid_to_be(action),
        keyset=action.keyset,
        sequence=action.sequence,
        algorithm=action.algorithm,
        phase=Phase.PENDING,
        created_at=now,
    )
    return replace(state, keys=(*state.keys, key), next_sequence=action.sequence + 1)


def _publish(state: KeysetState, action: PublishSet, now: datetime) -> KeysetState:
    first = state.first_publication
    before = frozenset(state.published or ())
    since = {
        kid: state.out_since[kid] if kid in before and kid in state.out_since else (ALWAYS if first else now)
        for kid in action.kids
    }
    return replace(state, published=action.kids, tree_intact=True, out_since=since, first_publication=False)


def _activate(state: KeysetState, action: ActivateKey, now: datetime) -> KeysetState:
    def change(key: SigningKey) -> SigningKey:
        if key.kid == action.kid:
            return lifecycle.activate(key, now=now, rotate_at=action.rotate_at)
        if key.kid == action.prior:
            return lifecycle.demote(key, now=now, grace_until=action.prior_grace_until or now)
        return key

    return replace(state, keys=tuple(change(key) for key in state.keys), ever_active=True, wish=None)
