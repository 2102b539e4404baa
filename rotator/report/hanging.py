"""Whose token is on which key: one key, what hangs on it, and when it can go."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rotator.core.actions import RetireKey
from rotator.core.counting import counted
from rotator.core.durations import format_duration
from rotator.core.model import Kid, Origin, Phase, SigningKey, WorkspaceId
from rotator.core.planner import leaves_at
from rotator.core.policy import KeysetPolicy, Policy
from rotator.core.schedule import Calendar
from rotator.ports import KeyLoad, Snapshot
from rotator.report.known import KnownKeyset, foreign_until, known_keyset
from rotator.report.lists import KeyEntry, key_entry
from rotator.report.naming import key_named
from rotator.report.unrolling import turns

HOLDERS_SHOWN: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A workspace with unexpired tokens on the key."""

    workspace: WorkspaceId
    tokens: int
    last_expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """When nothing needs the key any more."""

    safe_at: datetime | None
    """None: that cannot be said yet."""
    estimated: bool
    """It hangs on a rotation that is still ahead."""
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDetail:
    """One key with what hangs on it."""

    at: datetime
    key: KeyEntry
    tokens: int
    """Unexpired, current or in grace."""
    workspaces: int
    """With at least one of them."""
    foreign_until: datetime | None
    """Tokens that this database does not know may hang on it, uncounted, until then; None: none do."""
    holders: tuple[Holder, ...]
    """The first twenty by name."""
    removal: Removal


def key_detail(snapshot: Snapshot, policy: Policy, now: datetime, calendar: Calendar, wanted: str) -> KeyDetail:
    """Return all about the key whose kid is, or begins with, ``wanted``; raise :class:`UnknownNameError` else."""
    key = key_named((row.key for row in snapshot.all_keys()), wanted)
    keyset = snapshot.keyset(key.keyset)
    if keyset is None:
        raise AssertionError("a key belongs to a keyset, by its foreign key")
    known = known_keyset(snapshot, keyset, policy, now)
    load = snapshot.tokens_on_key(key.kid, now, HOLDERS_SHOWN)
    return KeyDetail(
        at=now,
        key=key_entry(key, known, now),
        tokens=load.tokens,
        workspaces=load.workspaces,
        foreign_until=foreign_until(key, now),
        holders=tuple(
            Holder(workspace=holder.workspace, tokens=holder.tokens, last_expires_at=holder.last_exp)
            for holder in load.holders
        ),
        removal=_removal(key, known, load, now, calendar),
    )


# ------------------------------------------------------------------------------------------------------------ removal


def _removal(key: SigningKey, known: KnownKeyset, load: KeyLoad, now: datetime, calendar: Calendar) -> Removal:
    match key.phase:
        case Phase.PENDING:
            return _of_spare(key, known.policy, now)
        case Phase.ACTIVE:
            return _of_signer(key.kid, known, now, calendar)
        case Phase.GRACE:
            return _of_prior(key, known.policy, now)
        case Phase.RETIRED:
            why = "the last token on it had ended, and it left the published set"
            return Removal(safe_at=key.retired_at, estimated=False, because=why)
        case _:
            on_it = counted(load.tokens, "unexpired token is", "unexpired tokens are")
            hang = f"; {on_it} on it, which nobody is to accept" if load.tokens else ""
            why = f"it was revoked, and left the published set{hang}"
            return Removal(safe_at=key.revoked_at, estimated=False, because=why)


def _of_spare(key: SigningKey, policy: KeysetPolicy, now: datetime) -> Removal:
    spare = "it is a spare, and must be out before it can sign"
    foreign = foreign_until(key, now)
    if foreign is not None:
        skew = format_duration(policy.clock_skew)
        why = f"the last token that it signed elsewhere ends by {_minute(foreign)}, and clocks may differ by {skew}"
        return Removal(safe_at=foreign + policy.clock_skew, estimated=False, because=f"{why}; but {spare}")
    signed = "nothing was ever signed with it" if key.origin is Origin.MADE else "what it signed elsewhere has ended"
    return Removal(safe_at=now, estimated=False, because=f"{signed}; but {spare}")


def _of_signer(kid: Kid, known: KnownKeyset, now: datetime, calendar: Calendar) -> Removal:
    policy = known.policy
    horizon = now + 2 * (policy.security_period + policy.propagation_period) + policy.grace_period
    ahead = turns(known, now, horizon, calendar)
    leaves = next((turn for turn in ahead if isinstance(turn.action, RetireKey) and turn.action.kid == kid), None)
    if leaves is None:
        why = "it signs, and no other key is to take over; it goes with the last token on its keyset"
        return Removal(safe_at=None, estimated=False, because=why)
    prior = next(key for key in leaves.before.keys if key.kid == kid)
    until = "" if prior.demoted_at is None else f" until {_minute(prior.demoted_at)}"
    why = f"it signs{until}; then its grace_period of {format_duration(policy.grace_period)} outlasts its last token"
    if prior.last_exp is not None and prior.grace_until is not None and prior.last_exp > prior.grace_until:
        why = f"it signs{until}; the last token on it ends by {_minute(prior.last_exp)}, after its grace"
    return Removal(safe_at=leaves.at, estimated=True, because=why)


def _of_prior(key: SigningKey, policy: KeysetPolicy, now: datetime) -> Removal:
    end = leaves_at(key, policy)
    if end is None:
        return Removal(safe_at=now, estimated=False, because="no token on it is known")
    if key.last_exp is None or (key.grace_until is not None and key.grace_until > key.last_exp + policy.clock_skew):
        tokens = "no token on it" if key.last_exp is None else f"the last token on it ends at {_minute(key.last_exp)}"
        why = f"its grace lasts until then; {tokens}"
    else:
        skew = format_duration(policy.clock_skew)
        why = f"the last token on it ends at {_minute(key.last_exp)}, and clocks may differ by {skew}"
    return Removal(safe_at=end, estimated=False, because=why)


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%MZ}"
