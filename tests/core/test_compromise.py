"""What is left of a keyset when keys of it are revoked, and when an operator has to choose."""

from dataclasses import replace

import pytest

from rotator.core.compromise import needs_choice, without
from rotator.core.model import KeysetState, Kid, Phase
from rotator.core.planner import active_key
from tests.core.worlds import DAY, HOUR, T0, World, keyset_policy


def world_at(days: int) -> World:
    world = World(keyset_policy())
    world.run_until(T0 + days * DAY)
    return world


def kids(state: KeysetState, *phases: Phase) -> frozenset[Kid]:
    return frozenset(key.kid for key in state.keys if key.phase in phases)


def test_what_is_revoked_is_out_of_the_set_and_keeps_its_first_date() -> None:
    world = world_at(10)
    signer = kids(world.state, Phase.ACTIVE)
    once = without(world.state, signer, world.now)
    assert kids(once, Phase.REVOKED) == signer
    assert active_key(once) is None
    assert not signer & set(once.published or ())
    assert without(once, signer, world.now + HOUR) == once
    assert without(replace(once, published=None), signer, world.now).published is None


@pytest.mark.parametrize(
    ("phases", "needed"),
    [
        ((Phase.ACTIVE,), False),
        ((Phase.PENDING,), False),
        ((Phase.GRACE,), False),
        ((Phase.ACTIVE, Phase.PENDING), True),
        ((), False),
    ],
    ids=["the signer", "the spare", "a prior key", "all", "none"],
)
def test_the_choice_is_there_when_no_key_that_all_know_is_left(phases: tuple[Phase, ...], needed: bool) -> None:
    """A spare that is out for long takes over from a signer, and a signer goes on without its spare."""
    world = world_at(100)
    assert needs_choice(world.state, world.policy, world.now, kids(world.state, *phases)) is needed


def test_a_second_emergency_needs_the_choice_until_the_next_spare_is_known() -> None:
    world = world_at(10)
    world.state = without(world.state, kids(world.state, Phase.ACTIVE), world.now)
    world.settle()
    signer = kids(world.state, Phase.ACTIVE)
    assert needs_choice(world.state, world.policy, world.now, signer)
    assert not needs_choice(world.state, world.policy, world.now + world.policy.propagation_period, signer)


def test_a_keyset_that_nobody_uses_any_more_needs_none() -> None:
    world = world_at(10)
    state = replace(world.state, in_use=False)
    every = kids(state, Phase.ACTIVE, Phase.PENDING)
    assert needs_choice(state, world.policy, world.now, every)
    assert not needs_choice(state, replace(world.policy, ending=True), world.now, every)
    assert needs_choice(replace(state, in_use=True), replace(world.policy, ending=True), world.now, every)


def test_while_nothing_can_sign_only_what_might_have_signed_next_needs_the_choice() -> None:
    """A prior key is no loss to what comes; a spare that is not known yet is."""
    world = world_at(100)
    ready = kids(world.state, Phase.ACTIVE, Phase.PENDING)
    world.state = without(world.state, ready, world.now)
    world.settle()
    assert kids(world.state, Phase.ACTIVE) == frozenset()
    assert not needs_choice(world.state, world.policy, world.now, kids(world.state, Phase.GRACE))
    assert needs_choice(world.state, world.policy, world.now, kids(world.state, Phase.PENDING))


def test_one_spare_that_all_know_is_enough() -> None:
    """Whatever else is on its way."""
    world = world_at(10)
    world.wish()
    world.settle()
    assert len(kids(world.state, Phase.PENDING)) == 2
    assert not needs_choice(world.state, world.policy, world.now, kids(world.state, Phase.ACTIVE))
