"""The phases of each key along the time, and how large the published sets become: what a picture is drawn from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rotator.core.actions import PublishSet
from rotator.core.contract import JWK_BYTES
from rotator.core.model import ALWAYS, Algorithm, KeysetName, KeysetState, Kid, Phase, SigningKey
from rotator.core.planner import ready_at
from rotator.core.policy import KeysetPolicy
from rotator.report.known import KnownKeyset
from rotator.report.unrolling import Turn


class LanePhase(StrEnum):
    """Where a key stands, as far as one sees it from outside."""

    PENDING = "pending"  # published, and not every verifier can know it yet
    STANDBY = "standby"  # published for the propagation_period: ready to sign
    ACTIVE = "active"
    GRACE = "grace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """One phase of a key."""

    phase: LanePhase
    from_at: datetime
    until: datetime | None
    """None: it goes on beyond the time that was looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLane:
    """One key along the time."""

    kid: Kid
    keyset: KeysetName
    algorithm: Algorithm
    stretches: tuple[Stretch, ...]
    ended: Phase | None = None
    """``retired`` or ``revoked``, where it leaves the set in the time ahead."""
    estimated: bool = False
    """It is yet to be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSize:
    """How large a published file is from one moment on."""

    at: datetime
    keys: int
    bytes: int
    estimated: bool = False
    """Keys that are yet to be made are in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFile:
    """A published file along the time."""

    keyset: KeysetName
    path: str
    """In the published tree."""
    sizes: tuple[SetSize, ...]


def lanes(known: KnownKeyset, turns: Sequence[Turn], now: datetime) -> Iterator[KeyLane]:
    """Yield the lane of each key that is, or comes to be, in the set, in order of making."""
    latest: dict[Kid, SigningKey] = {}
    ready: dict[Kid, datetime] = {}
    for state in (known.state, *(turn.after for turn in turns)):
        for key in state.keys:
            latest[key.kid] = key
            when = _ready(state, key, known.policy)
            if when is not None:
                ready[key.kid] = when
    for key in latest.values():
        ended_at = key.revoked_at or key.retired_at
        if ended_at is not None and ended_at < now:
            continue
        yield KeyLane(
            kid=key.kid,
            keyset=key.keyset,
            algorithm=key.algorithm,
            stretches=tuple(_stretches(key, ready.get(key.kid), ended_at)),
            ended=None if ended_at is None else key.phase,
            estimated=not key.public_jwk,
        )


def _ready(state: KeysetState, key: SigningKey, policy: KeysetPolicy) -> datetime | None:
    """Return since when, or from when on, every verifier can know a key."""
    if key.phase is Phase.PENDING:
        when = ready_at(state, key.kid, policy)
    else:
        since = state.out_since.get(key.kid)
        when = since if since is None or since == ALWAYS else since + policy.propagation_period
    return key.created_at if when == ALWAYS else when


def _stretches(key: SigningKey, ready: datetime | None, ended_at: datetime | None) -> Iterator[Stretch]:
    never_signed_here = key.activated_at is None and key.phase is Phase.GRACE  # adopted from elsewhere
    marks: list[tuple[LanePhase, datetime | None]] = [
        (LanePhase.PENDING, None if never_signed_here else key.created_at),
        (LanePhase.STANDBY, None if never_signed_here else ready),
        (LanePhase.ACTIVE, key.activated_at),
        (LanePhase.GRACE, key.demoted_at or (key.created_at if never_signed_here else None)),
    ]
    known = [(phase, at) for phase, at in marks if at is not None]
    for place, (phase, from_at) in enumerate(known):
        later = [at for _, at in known[place + 1 :]] + ([] if ended_at is None else [ended_at])
        until = min(later, default=None)
        if until is None or from_at < until:
            yield Stretch(phase=phase, from_at=from_at, until=until)


# ----------------------------------------------------------------------------------------------------------- the file


def published_file(known: KnownKeyset, turns: Sequence[Turn], now: datetime) -> PublishedFile:
    """Return how large the keyset's file is now and after each change of it."""
    sizes: dict[datetime, SetSize] = {}
    if known.state.published is not None:
        sizes[now] = _size(known.state, now)
    for turn in turns:
        if isinstance(turn.action, PublishSet):
            sizes[turn.at] = _size(turn.after, turn.at)
    return PublishedFile(keyset=known.row.name, path=f"keysets/{known.row.name}/jwks.json", sizes=tuple(sizes.values()))


def _size(state: KeysetState, at: datetime) -> SetSize:
    published = [key for key in state.keys if key.kid in (state.published or ())]
    return SetSize(
        at=at,
        keys=len(published),
        bytes=set_bytes([_jwk_bytes(key, state) for key in published]),
        estimated=any(not key.public_jwk for key in published),
    )


def _jwk_bytes(key: SigningKey, state: KeysetState) -> int:
    """Return the size of a key's public JWK; of one that is yet to be made, that of another of its kind."""
    like = (other for other in state.keys if other.public_jwk and other.algorithm == key.algorithm)
    known = key if key.public_jwk else next(like, None)
    return JWK_BYTES[key.algorithm] if known is None else len(known.public_jwk.encode())


def set_bytes(jwk_bytes: Sequence[int]) -> int:
    """Return the size of a set with JWKs of these sizes, as :func:`rotator.core.jwks.render` writes it."""
    if not jwk_bytes:
        return len('{"keys":[]}\n')
    return len('{"keys":[\n') + sum(jwk_bytes) + len(",\n") * (len(jwk_bytes) - 1) + len("\n]}\n")
