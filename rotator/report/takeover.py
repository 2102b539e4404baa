"""What becomes of a rotation that an operator asks for: when the standby takes over, why then, and what it costs.

The cost of an emergency is told for each kind of verifier. One that fetched its copy of the set just before the new key
was published does not know it: it refuses tokens on it until its copy ends or, where it does that, until an unknown kid
makes it fetch again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from rotator.config.profiles import MAX_CACHE, REFETCHES_AFTER
from rotator.core.actions import ActivateKey
from rotator.core.model import ALWAYS, KeysetName, KeysetState, Kid, Wish
from rotator.core.planner import activation_reason, active_key, ready_at, spares, spares_needed
from rotator.core.policy import KeysetPolicy, Policy
from rotator.core.schedule import Calendar
from rotator.errors import UnknownNameError
from rotator.ports import Snapshot
from rotator.report.known import KnownKeyset, known_keyset
from rotator.report.records import Asked
from rotator.report.unrolling import Turn, turns

CONFIGURED: Final = "consumers.max_cache"
"""Names the verifier of the config that is slowest to learn, whatever it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitedFor:
    """A key that must be known to every verifier before the standby takes over."""

    kid: Kid
    published_at: datetime | None
    """None: it has been there from the start, or is not published by every replica yet."""
    known_at: datetime | None
    """From then on every verifier can know it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A kind of verifier that can refuse tokens on the new key for a while."""

    verifier: str
    max_cache_seconds: int
    refetches: bool
    """An unknown kid makes it fetch the set again."""
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """The rotation ahead of a keyset."""

    at: datetime
    keyset: KeysetName
    signing_kid: Kid | None
    signing_since: datetime | None
    asked: Asked | None
    successor_kid: Kid | None
    """None: no key will take over."""
    takes_over_at: datetime | None
    reason: str
    """Why another key is to sign then: ``requested``, ``security_period``, ``signer_lost``, ``first``; else empty."""
    waits_for: tuple[WaitedFor, ...]
    """The standby, and for all but an emergency the key after it."""
    propagation_seconds: int
    spare_known_at: datetime | None
    """From then on the next emergency costs no refusal."""
    refusals: tuple[Refusal, ...]
    """The longest first; empty: none."""
    request: int | None = None
    """The number of a request for it that is accepted and still under way; None: there is none."""


def takeover(
    snapshot: Snapshot, policy: Policy, now: datetime, calendar: Calendar, name: KeysetName, *, supposed: str = ""
) -> Takeover:
    """Return what is ahead of a keyset as things stand, or as if a rotation was asked for at ``now``.

    ``supposed``: ``rotation``, ``emergency``, or empty for what was really asked for. Raises
    :class:`UnknownNameError` for a keyset that is not there.
    """
    row = snapshot.keyset(name)
    if row is None or row.ended_at is not None:
        raise UnknownNameError(f"there is no keyset {name!r}; `rotator status` names them")
    known = known_keyset(snapshot, row, policy, now)
    asked = known.state.wish
    if supposed:
        wish = Wish(asked_at=now, actor="", emergency=supposed == "emergency")
        known = replace(known, state=replace(known.state, wish=wish))
    active = active_key(known.state)
    turn = _next(known, now, calendar)
    return Takeover(
        at=now,
        keyset=name,
        signing_kid=None if active is None else active.kid,
        signing_since=None if active is None else active.activated_at,
        asked=None if asked is None else asked_for(asked),
        successor_kid=None if turn is None else _successor(turn),
        takes_over_at=None if turn is None else turn.at,
        reason="" if turn is None or not isinstance(turn.action, ActivateKey) else turn.action.reason,
        waits_for=() if turn is None else tuple(_waits_for(turn, known.policy)),
        propagation_seconds=int(known.policy.propagation_period.total_seconds()),
        spare_known_at=None if turn is None else _spare_known_at(turn.after, known.policy, turn.at),
        refusals=() if turn is None else _refusals(turn, policy),
    )


def asked_for(wish: Wish) -> Asked:
    """Return what is told of a wish."""
    return Asked(at=wish.asked_at, actor=wish.actor, reason=wish.reason, emergency=wish.emergency)


def _next(known: KnownKeyset, now: datetime, calendar: Calendar) -> Turn | None:
    horizon = now + 2 * (known.policy.security_period + known.policy.propagation_period)
    ahead = turns(known, now, horizon, calendar)
    return next((turn for turn in ahead if isinstance(turn.action, ActivateKey)), None)


def _successor(turn: Turn) -> Kid | None:
    return turn.action.kid if isinstance(turn.action, ActivateKey) else None


def _waits_for(turn: Turn, policy: KeysetPolicy) -> Iterator[WaitedFor]:
    state = turn.before
    reason = activation_reason(state, turn.at)
    needed = 1 if reason is None else spares_needed(state, reason)
    for key in spares(state, policy)[:needed]:
        since, known_at = state.out_since.get(key.kid), ready_at(state, key.kid, policy)
        yield WaitedFor(
            kid=key.kid,
            published_at=None if since == ALWAYS else since,
            known_at=key.created_at if known_at == ALWAYS else known_at,
        )


def _spare_known_at(after: KeysetState, policy: KeysetPolicy, at: datetime) -> datetime:
    """Return from when on every verifier can know a spare; one that is yet to be made is published at ``at``."""
    moments = [when for key in spares(after, policy) if (when := ready_at(after, key.kid, policy)) is not None]
    return max(min(moments, default=at + policy.propagation_period), at)


# ----------------------------------------------------------------------------------------------------------- refusals


def _refusals(turn: Turn, policy: Policy) -> tuple[Refusal, ...]:
    kid = _successor(turn)
    published_at = turn.at if kid is None else turn.before.out_since.get(kid, turn.at)
    if published_at == ALWAYS:
        return ()
    served_at = published_at + policy.verifiers.publish_lag
    caches = {CONFIGURED: policy.verifiers.max_cache, **MAX_CACHE}
    found = (_refusal(name, cache, served_at) for name, cache in caches.items())
    return tuple(sorted((each for each in found if each.until > turn.at), key=lambda each: each.until, reverse=True))


def _refusal(verifier: str, max_cache: timedelta, served_at: datetime) -> Refusal:
    """Tell until when a verifier may hold a copy that it fetched just before the key was there for it to fetch."""
    refetches_after = REFETCHES_AFTER.get(verifier)
    blind = max_cache if refetches_after is None else min(max_cache, refetches_after)
    return Refusal(
        verifier=verifier,
        max_cache_seconds=int(max_cache.total_seconds()),
        refetches=refetches_after is not None,
        until=served_at + blind,
    )
