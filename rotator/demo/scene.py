"""The state as lanes along one axis of time: what was, what is, and what the deadlines say will be."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby
from typing import Final

from rotator.config import Config
from rotator.core.model import Phase
from rotator.core.policy import KeysetPolicy
from rotator.demo.story import short
from rotator.ports import Snapshot
from rotator.report import keys, tokens
from rotator.report.lists import KeyEntry, TokenEntry

KEYS_SHOWN: Final = 5
TOKENS_SHOWN: Final = 2
"""Of each workspace: the current one and the one before."""


class Stage(StrEnum):
    """What a stretch of a lane stands for: a phase, with ``pending`` in its two halves."""

    ANNOUNCED = "announced"  # published, and not known to every verifier yet
    READY = "ready"  # known to every verifier
    ACTIVE = "active"
    GRACE = "grace"


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stage from one moment to another."""

    stage: Stage
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Lane:
    """One key or token."""

    name: str
    phase: Phase | None
    """None: an empty lane, kept so that the others stay where they are."""
    stretches: tuple[Stretch, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything there is to see at one moment."""

    keys: tuple[Lane, ...]
    tokens: tuple[Lane, ...]


def read_scene(snapshot: Snapshot, config: Config, now: datetime) -> Scene:
    """Read the scene from the database."""
    policy = next(iter(config.policy.keysets.values()))
    found = keys(snapshot, config.policy, now).keys
    issued = tokens(snapshot, ended=True).tokens
    key_lanes = tuple(_key_lanes(found, policy, now))[-KEYS_SHOWN:]
    token_lanes = []
    for _, group in groupby(issued, key=lambda token: token.workspace):
        newest = list(group)[: -TOKENS_SHOWN - 1 : -1]
        lanes = [_token_lane(token, now) for token in newest]
        token_lanes += lanes + [Lane("", None)] * (TOKENS_SHOWN - len(lanes))
    return Scene(key_lanes, tuple(token_lanes))


# --------------------------------------------------------------------------------------------------------------- keys


def _key_lanes(found: Sequence[KeyEntry], policy: KeysetPolicy, now: datetime) -> Iterator[Lane]:
    turn = now
    """When the next pending key takes over, as far as the deadlines tell."""
    waiting = 0
    for key in found:
        takes_over = key.activated_at or max(turn, now)
        hands_over = key.demoted_at or key.rotate_at or takes_over + policy.security_period
        leaves = key.retired_at or key.grace_until or hands_over + policy.grace_period
        ready = min(key.ready_at or key.created_at + policy.propagation_period, takes_over)
        yield Lane(
            name=short(key.kid),
            phase=key.phase,
            stretches=(
                Stretch(Stage.ANNOUNCED, key.created_at, ready),
                Stretch(Stage.READY, ready, takes_over),
                Stretch(Stage.ACTIVE, takes_over, hands_over),
                Stretch(Stage.GRACE, hands_over, leaves),
            ),
            note=_key_note(key, now, takes_over, hands_over, leaves, waiting),
        )
        waiting += key.phase is Phase.PENDING
        turn = hands_over


def _key_note(
    key: KeyEntry, now: datetime, takes_over: datetime, hands_over: datetime, leaves: datetime, waiting: int
) -> str:
    match key.phase:
        case Phase.PENDING if key.ready_at is None or key.ready_at > now:
            return f"known in {_countdown((key.ready_at or now) - now)}"
        case Phase.PENDING if waiting:
            return "spare"
        case Phase.PENDING:
            return f"signs in {_countdown(takes_over - now)}"
        case Phase.ACTIVE:
            return f"signs for {_countdown(hands_over - now)}"
        case Phase.GRACE:
            return f"retires in {_countdown(leaves - now)}"
        case Phase.RETIRED:
            return "out of the set"
        case Phase.REVOKED:
            return ""


# ------------------------------------------------------------------------------------------------------------- tokens


def _token_lane(token: TokenEntry, now: datetime) -> Lane:
    replaced = token.superseded_at or token.rotate_at
    ended = token.expires_at <= now
    phase = Phase.RETIRED if ended else token.phase
    return Lane(
        name=f"{token.workspace} #{token.sequence}",
        phase=phase,
        stretches=(
            Stretch(Stage.ACTIVE, token.issued_at, replaced),
            Stretch(Stage.GRACE, replaced, token.expires_at),
        ),
        note="expired" if ended else f"expires in {_countdown(token.expires_at - now)}",
    )


def _countdown(span: timedelta) -> str:
    """Return whole seconds, rounded up, so that a countdown ends at 1s and not with a second of 0s."""
    return f"{max(0, -(-span // timedelta(seconds=1)))}s"
