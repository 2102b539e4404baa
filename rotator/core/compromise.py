"""What the revocation of keys does to a keyset: what is left, and whether that can go on without harm. Pure."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

from rotator.core import lifecycle
from rotator.core.model import KeysetState, Kid, Phase
from rotator.core.planner import active_key, is_ready, spares
from rotator.core.policy import KeysetPolicy


def without(state: KeysetState, kids: Collection[Kid], now: datetime) -> KeysetState:
    """Return ``state`` as it is when those of its keys that are named by ``kids`` are revoked, and out of its file."""
    keys = tuple(
        lifecycle.revoke(key, now=now) if key.kid in kids and key.phase is not Phase.REVOKED else key
        for key in state.keys
    )
    published = None if state.published is None else tuple(kid for kid in state.published if kid not in kids)
    return replace(state, keys=keys, published=published)


def needs_choice(state: KeysetState, policy: KeysetPolicy, now: datetime, kids: Collection[Kid]) -> bool:
    """Tell whether revoking ``kids`` leaves no signer and no spare that every verifier can know.

    Then an operator has to choose: to wait until a key is known, or to let one sign before, and some verifiers refuse.
    A keyset that no workspace uses any more has nothing to sign.
    """
    touched = any(key.kid in kids and key.phase in (Phase.PENDING, Phase.ACTIVE) for key in state.keys)
    if not touched or (policy.ending and not state.in_use):
        return False
    left = without(state, kids, now)
    ready = any(is_ready(left, spare, policy, now) for spare in spares(left, policy))
    return active_key(left) is None and not ready
