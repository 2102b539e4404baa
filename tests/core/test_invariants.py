"""Each invariant is broken once on purpose, and found."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from rotator.core.invariants import keyset_violations
from rotator.core.model import KeysetState, Kid, Origin, Phase, SigningKey
from tests.core.worlds import DAY, T0, World, keyset_policy


def settled() -> World:
    world = World(keyset_policy())
    world.run_until(T0 + 100 * DAY)  # one key in grace, one that signs, a spare
    return world


def change(state: KeysetState, phase: Phase, how: Callable[[SigningKey], SigningKey]) -> KeysetState:
    return replace(state, keys=tuple(how(key) if key.phase is phase else key for key in state.keys))


BREAKAGES: list[tuple[str, Callable[[KeysetState], KeysetState]]] = [
    ("is there 2 times", lambda s: replace(s, keys=(*s.keys, s.keys[0]))),
    ("keys sign at once", lambda s: change(s, Phase.PENDING, lambda k: replace(k, phase=Phase.ACTIVE))),
    ("not in the published file", lambda s: replace(s, published=(Kid("another"),))),
    ("never proved itself", lambda s: change(s, Phase.ACTIVE, lambda k: replace(k, proven_at=None))),
    ("signs without a deadline", lambda s: change(s, Phase.ACTIVE, lambda k: replace(k, rotate_at=None))),
    ("signs without a deadline", lambda s: change(s, Phase.ACTIVE, lambda k: replace(k, activated_at=None))),
    ("still has a private half", lambda s: change(s, Phase.GRACE, lambda k: replace(k, has_private=True))),
    ("in grace without an end", lambda s: change(s, Phase.GRACE, lambda k: replace(k, grace_until=None))),
    ("is retired while a token", lambda s: change(s, Phase.GRACE, lambda k: replace(k, phase=Phase.RETIRED))),
    (
        "3 spares are waiting",
        lambda s: replace(
            s, keys=(*s.keys, *(replace(s.keys[-1], kid=Kid(f"more{n}"), phase=Phase.PENDING) for n in range(2)))
        ),
    ),
]


@pytest.mark.parametrize(("sentence", "breakage"), BREAKAGES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_broken_invariant_is_found(sentence: str, breakage: Callable[[KeysetState], KeysetState]) -> None:
    world = settled()
    assert keyset_violations(world.state, world.policy, world.now) == []

    violations = keyset_violations(breakage(world.state), world.policy, world.now)

    assert any(sentence in violation for violation in violations)


def test_a_key_may_be_missing_from_a_file_that_cannot_be_written() -> None:
    world = settled()
    state = replace(world.state, published=(Kid("another"),), publish_blocked=True)

    assert keyset_violations(state, world.policy, world.now) == []


def test_a_token_that_ended_for_the_slowest_clock_holds_no_key() -> None:
    world = settled()
    state = change(world.state, Phase.GRACE, lambda k: replace(k, phase=Phase.RETIRED))
    (last,) = (key.last_exp for key in state.keys if key.phase is Phase.RETIRED)
    assert last is not None

    assert keyset_violations(state, world.policy, last + timedelta(minutes=1)) == []
    assert keyset_violations(state, world.policy, last + timedelta(seconds=59)) != []


@pytest.mark.parametrize(
    "harmless",
    [
        lambda s: replace(s, published=None),
        lambda s: change(s, Phase.GRACE, lambda k: replace(k, phase=Phase.REVOKED)),
        lambda s: change(s, Phase.GRACE, lambda k: replace(k, phase=Phase.RETIRED, last_exp=None)),
        lambda s: replace(s, keys=(*s.keys, replace(s.keys[-1], kid=Kid("second"), phase=Phase.PENDING))),
    ],
    ids=["a file that vanished", "a revoked key with tokens", "a retired key without tokens", "two spares"],
)
def test_what_may_be_is_no_violation(harmless: Callable[[KeysetState], KeysetState]) -> None:
    world = settled()

    assert keyset_violations(harmless(world.state), world.policy, world.now) == []


def test_imported_keys_may_wait_beside_the_spares() -> None:
    """An operator asked for them: they are no sign of spares made without end."""
    world = settled()
    imported = [
        replace(world.state.keys[-1], kid=Kid(f"imported{n}"), origin=Origin.IMPORTED, phase=Phase.PENDING)
        for n in range(3)
    ]
    state = replace(world.state, keys=(*world.state.keys, *imported))

    assert keyset_violations(state, world.policy, world.now) == []


@pytest.mark.parametrize("phase", Phase)
def test_a_row_that_is_none_of_ours_stops_nothing(phase: Phase) -> None:
    """Whatever it says: somebody who can write a row must not be able to keep a keyset from ever making a key again."""
    world = settled()
    last = world.state.keys[-1]
    theirs = replace(last, kid=Kid("theirs"), phase=phase, authentic=False, last_exp=T0 + 9_000 * DAY, proven_at=None)

    assert keyset_violations(replace(world.state, keys=(*world.state.keys, theirs)), world.policy, world.now) == []
