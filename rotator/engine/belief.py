"""Holds what a key's row says against what is known besides: whole rows can be turned back, each with its valid MAC.

The witness, as this run remembers it, knows which keys were revoked, which one signs, and until when tokens on each can
live. What it knows better stands; what it does not know of, the row says.
"""

from dataclasses import replace

from rotator.core.model import KeysetName, Origin, Phase, SigningKey
from rotator.engine.run import Run
from rotator.ports import WitnessedKey, WitnessedKeyset


def held_against_witness(run: Run, keyset: KeysetName, key: SigningKey) -> SigningKey:
    """Return ``key`` as far as its row is to be believed."""
    if key.kid in run.revoked_kids:
        return _revoked(key)
    witnessed = run.witnessed.get(keyset)
    if witnessed is None or not key.authentic:
        return key
    known = next((each for each in witnessed.published if each.kid == key.kid), None)
    if known is None:
        return _unbelievable(key) if keyset not in run.partly_known and _has_left(key, witnessed) else key
    if _turned_back(key, known, signs=witnessed.active == key.kid):
        return _unbelievable(key)
    if witnessed.active == key.kid and key.activated_at is not None:
        # It was superseded since this run looked. Of a key that signs the witness has an end with room above the last
        # token's, and were that taken for what is known, the key would stay in the set for as much too long.
        return key
    return _not_below(key, known)


def _revoked(key: SigningKey) -> SigningKey:
    """Return a key that was revoked as such, whatever its row says. What is left of its private half is to go."""
    if key.phase is Phase.REVOKED and key.authentic:
        return key
    gone = None if key.has_private else key.destroyed_at or key.created_at
    return replace(key, phase=Phase.REVOKED, authentic=True, revoked_at=key.created_at, destroyed_at=gone)


def _unbelievable(key: SigningKey) -> SigningKey:
    """Return a key of which only that is known that somebody turned its row back."""
    return replace(key, phase=Phase.GRACE, authentic=False, has_private=False)


def _has_left(key: SigningKey, witnessed: WitnessedKeyset) -> bool:
    """Tell whether a key was published once, and has left the set for good, although its row says that it may sign.

    Keys that are made here are published in the order of their numbers, so that the witness has seen it come and go.
    A row that says that the key is kept for its tokens is believed: it says itself until when, and then the key leaves.
    """
    last = max((each.sequence for each in witnessed.published), default=0)
    return key.origin is Origin.MADE and key.phase in (Phase.PENDING, Phase.ACTIVE) and key.sequence < last


def _turned_back(key: SigningKey, known: WitnessedKey, *, signs: bool) -> bool:
    """Tell whether the row is an older one than the witness has seen.

    A key that was made here has no end of its tokens before it signs: one that has is signing, or has signed.
    """
    if key.origin is not Origin.MADE or known.ends_at is None:
        return False
    return key.phase is Phase.PENDING or (key.phase is Phase.ACTIVE and not signs)


def _not_below(key: SigningKey, known: WitnessedKey) -> SigningKey:
    """Return a key that signs no more with the end of its tokens as the witness knows it, if that is later."""
    if key.phase is not Phase.GRACE or known.ends_at is None:
        return key
    ends = [end for end in (key.last_exp, key.grace_until) if end is not None]
    return replace(key, last_exp=known.ends_at) if not ends or known.ends_at > max(ends) else key
