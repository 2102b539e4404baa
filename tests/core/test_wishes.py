"""What an operator asks of a keyset: that another key signs, soon and safely, or at once and with open eyes."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rotator.core.actions import ActivateKey, MakeKey, ProveKey, PublishSet, Reason
from rotator.core.lifecycle import revoke
from rotator.core.model import Kid, Phase, SigningKey
from rotator.core.planner import active_key, plan_keyset
from tests.core.test_planner import check_prefixes
from tests.core.worlds import CALENDAR, DAY, T0, World, keyset_policy


@pytest.fixture
def world() -> World:
    """Ten days after the first key: its standby is known to everybody, and the key after it is not made yet."""
    world = World(keyset_policy())
    world.run_until(T0 + 10 * DAY)
    return world


def signer(world: World) -> SigningKey:
    found = active_key(world.state)
    assert found is not None
    return found


def pending(world: World) -> list[Kid]:
    return [key.kid for key in world.state.keys if key.phase is Phase.PENDING]


def lose_signer(world: World) -> None:
    lost = signer(world)
    world.state = replace(
        world.state, keys=tuple(revoke(key, now=world.now) if key is lost else key for key in world.state.keys)
    )


def test_a_rotation_that_was_asked_for_waits_for_the_key_after_it(world: World) -> None:
    """The standby could sign at once, but would leave no spare that every verifier knows."""
    (standby,) = pending(world)
    asked_at = world.now
    world.wish()

    world.settle()
    assert signer(world).kid != standby
    assert len(pending(world)) == 2

    world.run_until(asked_at + world.policy.propagation_period)
    assert signer(world).kid == standby
    assert signer(world).activated_at == asked_at + world.policy.propagation_period
    assert [action.reason for _, action in world.of_type(ActivateKey) if isinstance(action, ActivateKey)] == [
        Reason.FIRST,
        Reason.REQUESTED,
    ]


def test_with_two_spares_out_it_happens_at_once() -> None:
    """As when the planned rotation was near anyway."""
    world = World(keyset_policy())
    world.settle()
    rotate_at = signer(world).rotate_at
    assert rotate_at is not None
    world.run_until(rotate_at - timedelta(hours=1))
    standby, after = pending(world)
    world.wish()

    world.settle()

    assert signer(world).kid == standby
    assert signer(world).activated_at == rotate_at - timedelta(hours=1)
    assert pending(world) == [after]


@pytest.mark.parametrize("emergency", [False, True])
def test_the_next_activation_fulfils_a_wish_whatever_it_came_from(world: World, emergency: bool) -> None:
    """The signer was lost meanwhile and replaced: nobody wants a second rotation."""
    world.wish(emergency=emergency)
    lose_signer(world)

    world.settle()

    assert world.state.wish is None
    activated = signer(world).kid
    world.run_until(world.now + 5 * world.policy.propagation_period)
    assert signer(world).kid == activated


def test_a_wish_is_no_reason_to_shorten_a_lead_after_an_outage(world: World) -> None:
    """Asked for while everything stood still for months: the key after the standby gets its whole time."""
    world.wish()
    world.now += 70 * DAY
    since = world.now

    world.run_until(since + world.policy.propagation_period - timedelta(seconds=1))
    assert len(world.of_type(ActivateKey)) == 1

    world.run_until(since + world.policy.propagation_period)
    assert len(world.of_type(ActivateKey)) == 2
    assert world.too_early == []


def test_in_an_emergency_the_standby_takes_over_at_once(world: World) -> None:
    """Every verifier knows it; only the spare after it has its wait ahead."""
    (standby,) = pending(world)
    world.wish(emergency=True)

    world.settle()

    assert signer(world).kid == standby
    assert signer(world).activated_at == world.now
    assert world.phases().count(Phase.GRACE) == 1


def test_an_emergency_waits_for_no_new_key(world: World) -> None:
    """Nor for anything else that may fail: the standby takes over before the one behind it is made."""
    world.wish(emergency=True)

    plan = plan_keyset(world.state, world.policy, world.now, CALENDAR)

    assert [type(action) for action in plan[:3]] == [ProveKey, ActivateKey, MakeKey]


def test_a_second_emergency_takes_a_key_that_was_only_just_published(world: World) -> None:
    """As the operator chose; published, read back and proven it is."""
    world.wish(emergency=True)
    world.settle()
    (fresh,) = pending(world)
    world.now += timedelta(minutes=5)
    world.wish(emergency=True)

    world.settle()

    assert signer(world).kid == fresh
    order = [type(action) for _, action in world.history if getattr(action, "kid", None) == fresh]
    assert order[:2] == [ProveKey, ActivateKey]


def test_without_any_signer_an_emergency_ends_the_wait(world: World) -> None:
    """After two losses in a row no spare is known to everybody, and no token can be issued."""
    for _ in range(2):
        lose_signer(world)
        world.settle()
    assert active_key(world.state) is None

    world.wish(emergency=True)
    world.settle()

    assert signer(world).activated_at == world.now


def test_no_emergency_lets_an_unpublished_key_sign(world: World) -> None:
    """The disk is full: the standby that is out takes over, and the next one, which is not, does not."""
    (standby,) = pending(world)
    world.publishing_works = False
    world.wish(emergency=True)
    world.settle()
    assert signer(world).kid == standby
    world.wish(emergency=True)

    world.settle()

    assert signer(world).kid == standby
    plan = plan_keyset(world.state, world.policy, world.now, CALENDAR)
    assert isinstance(plan[-1], PublishSet)


@pytest.mark.parametrize("emergency", [False, True])
def test_each_prefix_of_a_plan_made_for_a_wish_is_safe(world: World, emergency: bool) -> None:
    """A crash after any action: planning again yields the rest, and the wish is not lost before it is fulfilled."""
    world.wish(emergency=emergency)
    for _ in range(4):
        check_prefixes(world.state, world.policy, world)
        world.run_until(world.now + world.policy.propagation_period / 2)
