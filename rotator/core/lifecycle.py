"""The one table of phases, for keys and for tokens.

Everything that may move a key or a token from one phase to another is here; a transition that is not in the table
raises and changes nothing (NIST SP 800-57 part 1 §7.2).
"""

from dataclasses import replace
from datetime import datetime
from typing import Final

from rotator.core.model import Origin, Phase, SigningKey, Token

TRANSITIONS: Final[frozenset[tuple[Phase, Phase]]] = frozenset(
    {
        (Phase.PENDING, Phase.ACTIVE),
        (Phase.PENDING, Phase.RETIRED),  # announced, never signed, no longer wanted
        (Phase.ACTIVE, Phase.GRACE),
        (Phase.GRACE, Phase.RETIRED),
        (Phase.PENDING, Phase.REVOKED),
        (Phase.ACTIVE, Phase.REVOKED),
        (Phase.GRACE, Phase.REVOKED),
        (Phase.RETIRED, Phase.REVOKED),  # found compromised later: recorded, so that it is never taken back
    }
)


class IllegalTransitionError(Exception):
    """Our fault: something tried to move a key or token where its phase does not lead."""


def check(subject: str, before: Phase, after: Phase) -> None:
    """Raise :class:`IllegalTransitionError` unless ``before`` leads to ``after``."""
    if (before, after) not in TRANSITIONS:
        raise IllegalTransitionError(f"{subject} is {before} and cannot become {after}")


def activate(key: SigningKey, *, now: datetime, rotate_at: datetime) -> SigningKey:
    """Let ``key`` sign from ``now`` until its successor takes over at ``rotate_at``."""
    check(key.kid, key.phase, Phase.ACTIVE)
    return replace(key, phase=Phase.ACTIVE, activated_at=now, rotate_at=rotate_at)


def complete(key: SigningKey) -> SigningKey:
    """Make an adopted public key, whose private half has come after it, one that may sign.

    It is no transition of one life: what was the record of another system's key becomes a key of ours, before it has
    signed anything here. ``last_exp`` stays, for tokens of that system are out.
    """
    if key.origin is not Origin.ADOPTED or key.phase is not Phase.GRACE:
        raise IllegalTransitionError(f"{key.kid} is {key.origin} and {key.phase}, and cannot be given a private half")
    return replace(
        key,
        origin=Origin.IMPORTED,
        phase=Phase.PENDING,
        has_private=True,
        proven_at=None,
        demoted_at=None,
        grace_until=None,
        destroyed_at=None,
    )


def demote(key: SigningKey, *, now: datetime, grace_until: datetime) -> SigningKey:
    """End the signing of ``key``: its public half stays until ``grace_until``, its private half goes."""
    check(key.kid, key.phase, Phase.GRACE)
    return replace(key, phase=Phase.GRACE, demoted_at=now, grace_until=grace_until, has_private=False)


def retire(key: SigningKey, *, now: datetime) -> SigningKey:
    """Take ``key`` out of the published set."""
    check(key.kid, key.phase, Phase.RETIRED)
    return replace(key, phase=Phase.RETIRED, retired_at=now, has_private=False)


def take_back(key: SigningKey, *, now: datetime, until: datetime) -> SigningKey:
    """Publish a retired key again until ``until``, never to sign: its row knows nothing of tokens that are out on it.

    It is no transition of one life: the row is of an earlier one, in an older database.
    """
    if key.phase is not Phase.RETIRED:
        raise IllegalTransitionError(f"{key.kid} is {key.phase}, and cannot be taken back")
    return replace(
        key,
        phase=Phase.GRACE,
        has_private=False,
        demoted_at=key.demoted_at or now,
        grace_until=until,
        last_exp=max(until, key.last_exp or until),
        retired_at=None,
    )


def revoke(key: SigningKey, *, now: datetime) -> SigningKey:
    """Take ``key`` out of the published set at once and for good."""
    check(key.kid, key.phase, Phase.REVOKED)
    return replace(key, phase=Phase.REVOKED, revoked_at=now, has_private=False)


def supersede_token(token: Token, *, now: datetime) -> Token:
    """Record that ``token`` has a successor; it stays valid until its ``exp``."""
    check(token.jti, token.phase, Phase.GRACE)
    return token._replace(phase=Phase.GRACE, superseded_at=now)


def retire_token(token: Token, *, now: datetime) -> Token:
    """Record that ``token`` is past its ``exp`` for every verifier."""
    check(token.jti, token.phase, Phase.RETIRED)
    return token._replace(phase=Phase.RETIRED, retired_at=now)


def revoke_token(token: Token, *, now: datetime) -> Token:
    """Record that ``token`` must no longer be accepted."""
    check(token.jti, token.phase, Phase.REVOKED)
    return token._replace(phase=Phase.REVOKED, revoked_at=now)
