"""The planner of keysets: each rule by example, and all of them under arbitrary histories."""

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.core import planner
from rotator.core.actions import (
    ActivateKey,
    ConfirmDestruction,
    DemoteKey,
    KeysetAction,
    MakeKey,
    ProveKey,
    PublishSet,
    Reason,
    Reschedule,
    RetireKey,
)
from rotator.core.lifecycle import revoke
from rotator.core.model import Algorithm, KeysetState, Kid, Origin, Phase, SigningKey
from rotator.core.planner import active_key, next_due, plan_keyset
from rotator.core.policy import KeysetPolicy
from rotator.core.transitions import apply
from tests.core.worlds import CALENDAR, DAY, HOUR, T0, World, fresh, keyset_policy


def kinds(plan: tuple[KeysetAction, ...]) -> list[str]:
    return [type(action).__name__ for action in plan]


def test_a_new_keyset_makes_a_key_and_its_spare_and_publishes_both() -> None:
    """The first plan ends at the publication: nothing signs before the file was read back."""
    policy = keyset_policy()

    plan = plan_keyset(fresh(policy), policy, T0, CALENDAR)

    assert kinds(plan) == ["MakeKey", "MakeKey", "PublishSet"]
    assert [action.reason for action in plan if isinstance(action, MakeKey)] == [Reason.FIRST, Reason.SPARE]


def test_the_first_key_of_a_keyset_signs_once_it_was_read_back() -> None:
    """No verifier can hold an older copy, so nobody waits."""
    world = World(keyset_policy())

    world.settle()

    assert [type(action).__name__ for _, action in world.history][-2:] == ["ProveKey", "ActivateKey"]
    assert world.phases() == [Phase.ACTIVE, Phase.PENDING]


def test_a_first_key_beside_an_older_published_set_waits() -> None:
    """Verifiers may hold the older set for as long as they cache."""
    world = World(keyset_policy())
    world.state = replace(world.state, first_publication=False)

    world.settle()
    assert active_key(world.state) is None

    world.run_until(T0 + 49 * HOUR)
    signer = active_key(world.state)
    assert signer is not None
    assert signer.activated_at == T0 + 49 * HOUR


def test_every_rotation_has_a_ready_spare_behind_it_and_keeps_the_ceiling() -> None:
    """Ten years: each activation finds the next spare out for the propagation period, and none is late."""
    policy = keyset_policy()
    world = World(policy)

    world.run_until(T0 + 3650 * DAY)

    activations = world.of_type(ActivateKey)
    assert len(activations) >= 40
    for (before, _), (at, _) in pairwise(activations):
        assert policy.security_period * 0.9 <= at - before <= policy.security_period
    published: dict[Kid, datetime] = {}
    for at, action in world.history:
        if isinstance(action, PublishSet):
            for kid in action.kids:
                published.setdefault(kid, at)
    order = list(published)
    for at, action in activations[1:]:
        assert isinstance(action, ActivateKey)
        spare = order[order.index(action.kid) + 1]
        assert published[action.kid] + policy.propagation_period <= at
        assert published[spare] + policy.propagation_period <= at


def test_the_set_stays_within_its_bound() -> None:
    """3 + ceil(grace / security period), the most that the contract allows for."""
    policy = keyset_policy(security_period=10 * DAY, grace_period=31 * DAY)
    bound = 3 + ceil(policy.grace_period / policy.security_period)
    world = World(policy)

    world.run_until(T0 + 400 * DAY)

    assert max(len(action.kids) for _, action in world.history if isinstance(action, PublishSet)) <= bound


def test_a_rotation_waits_for_the_spare_and_then_overruns() -> None:
    """After an outage past the rotation the new spare still gets its whole propagation period."""
    policy = keyset_policy()
    world = World(policy)
    world.settle()

    world.now = T0 + 100 * DAY  # down the whole time
    world.settle()
    assert len(world.of_type(ActivateKey)) == 1

    world.run_until(T0 + 100 * DAY + policy.propagation_period)
    assert world.of_type(ActivateKey)[-1][0] == T0 + 100 * DAY + policy.propagation_period


def test_a_key_stays_until_its_last_token_ended() -> None:
    """The grace period being over is not enough."""
    policy = keyset_policy(grace_period=DAY)
    world = World(policy)
    world.lifetime = 31 * DAY

    world.run_until(T0 + 400 * DAY)

    retired = [key for key in world.state.keys if key.phase is Phase.RETIRED]
    assert retired
    for key in retired:
        assert key.last_exp is not None
        assert key.grace_until is not None
        assert key.grace_until < key.last_exp
        assert key.retired_at == key.last_exp + policy.clock_skew


def test_a_demoted_key_has_no_private_half_and_its_destruction_is_confirmed() -> None:
    world = World(keyset_policy())

    world.run_until(T0 + 100 * DAY)

    graces = [key for key in world.state.keys if key.phase is Phase.GRACE]
    assert graces
    assert all(not key.has_private and key.destroyed_at is not None for key in graces)


def test_a_revoked_signer_is_replaced_at_once_by_the_standby() -> None:
    """The standby has been out for long: nobody waits, and the revoked key leaves the file first."""
    world = World(keyset_policy())
    world.run_until(T0 + 10 * DAY)
    signer = active_key(world.state)
    assert signer is not None
    world.state = replace(
        world.state, keys=tuple(revoke(key, now=world.now) if key is signer else key for key in world.state.keys)
    )

    world.settle()

    successor = active_key(world.state)
    assert successor is not None
    assert successor.activated_at == world.now
    assert signer.kid not in (world.state.published or ())
    assert world.phases().count(Phase.PENDING) >= 1


def test_a_revocation_waits_for_no_new_key() -> None:
    """The file is written without the revoked key, and the standby signs, before anything else is tried."""
    world = World(keyset_policy())
    world.run_until(T0 + 10 * DAY)
    signer = active_key(world.state)
    assert signer is not None
    state = replace(
        world.state, keys=tuple(revoke(key, now=world.now) if key is signer else key for key in world.state.keys)
    )

    first = plan_keyset(state, world.policy, world.now, CALENDAR)
    then = plan_keyset(apply(state, first[0], world.now), world.policy, world.now, CALENDAR)

    assert kinds(first) == ["PublishSet"]
    assert kinds(then)[:3] == ["ProveKey", "ActivateKey", "MakeKey"]


def test_a_standby_takes_over_although_the_revoked_key_cannot_be_taken_out_of_the_file() -> None:
    """As when the disk is full: the new tokens are on a key that every verifier knows."""
    world = World(keyset_policy())
    world.run_until(T0 + 10 * DAY)
    signer = active_key(world.state)
    assert signer is not None
    state = replace(
        world.state,
        publish_blocked=True,
        keys=tuple(revoke(key, now=world.now) if key is signer else key for key in world.state.keys),
    )

    assert kinds(plan_keyset(state, world.policy, world.now, CALENDAR))[:2] == ["ProveKey", "ActivateKey"]


def test_a_second_emergency_waits_for_propagation() -> None:
    """A spare that no verifier can know yet does not sign."""
    world = World(keyset_policy())
    world.run_until(T0 + 10 * DAY)
    for _ in range(2):
        signer = active_key(world.state)
        assert signer is not None
        world.state = replace(
            world.state, keys=tuple(revoke(key, now=world.now) if key is signer else key for key in world.state.keys)
        )
        world.settle()

    assert active_key(world.state) is None
    world.run_until(world.now + 49 * HOUR)
    assert active_key(world.state) is not None


def test_a_signer_whose_private_half_does_not_open_is_replaced_and_stays_published() -> None:
    """Its tokens still verify."""
    world = World(keyset_policy())
    world.run_until(T0 + 10 * DAY)
    world.state = replace(
        world.state,
        keys=tuple(replace(key, opens=False) if key.phase is Phase.ACTIVE else key for key in world.state.keys),
    )

    plan = plan_keyset(world.state, world.policy, world.now, CALENDAR)
    world.settle()

    assert kinds(plan) == ["ProveKey", "ActivateKey", "MakeKey", "PublishSet"]
    assert world.phases().count(Phase.ACTIVE) == 1
    assert world.phases().count(Phase.GRACE) == 1


def test_an_unusable_spare_is_replaced() -> None:
    """It never signed, so it may leave at once."""
    world = World(keyset_policy())
    world.run_until(T0 + 10 * DAY)
    broken = next(key.kid for key in world.state.keys if key.phase is Phase.PENDING)
    world.state = replace(world.state, keys=tuple(replace(key, opens=key.kid != broken) for key in world.state.keys))

    world.settle()

    assert (world.now, RetireKey(world.state.name, broken, Reason.UNUSABLE)) in world.history
    assert world.phases() == [Phase.ACTIVE, Phase.PENDING]


def test_a_key_that_is_not_ours_is_neither_published_nor_touched() -> None:
    world = World(keyset_policy())
    world.run_until(T0 + 10 * DAY)
    inserted = SigningKey(
        kid=Kid("inserted"),
        keyset=world.state.name,
        sequence=99,
        algorithm=Algorithm.ES256,
        phase=Phase.PENDING,
        created_at=T0,
        authentic=False,
    )
    world.state = replace(world.state, keys=(*world.state.keys, inserted))

    assert plan_keyset(world.state, world.policy, world.now, CALENDAR) == ()


def test_a_change_of_algorithm_is_a_planned_rotation() -> None:
    """The next key has the new algorithm, the old spare stays until the new one is ready, the signer to its time."""
    world = World(keyset_policy())
    world.run_until(T0 + 10 * DAY)
    world.policy = keyset_policy(algorithm=Algorithm.EDDSA)

    world.settle()
    assert [key.algorithm for key in world.state.keys] == [Algorithm.ES256, Algorithm.ES256, Algorithm.EDDSA]

    world.run_until(T0 + 10 * DAY + 49 * HOUR)
    retired = [action.reason for _, action in world.history if isinstance(action, RetireKey)]
    assert retired == [Reason.ALGORITHM]

    world.run_until(T0 + 95 * DAY)
    signer = active_key(world.state)
    assert signer is not None
    assert signer.algorithm is Algorithm.EDDSA


def test_an_emergency_amid_a_change_of_algorithm_takes_the_old_spare() -> None:
    """A spare of the old algorithm that verifiers know serves better than none."""
    world = World(keyset_policy())
    world.run_until(T0 + 10 * DAY)
    world.policy = keyset_policy(algorithm=Algorithm.EDDSA)
    world.settle()
    world.state = replace(
        world.state,
        keys=tuple(revoke(key, now=world.now) if key.phase is Phase.ACTIVE else key for key in world.state.keys),
    )

    world.settle()

    signer = active_key(world.state)
    assert signer is not None
    assert signer.algorithm is Algorithm.ES256


@pytest.mark.parametrize("security_period", [30 * DAY, 365 * DAY])
def test_a_changed_period_reschedules_once(security_period: timedelta) -> None:
    """Shorter or longer: the signer's deadline is counted from its activation, and the file stays valid throughout."""
    world = World(keyset_policy())
    world.run_until(T0 + 100 * DAY)
    activated = active_key(world.state)
    assert activated is not None
    assert activated.activated_at is not None
    world.policy = keyset_policy(security_period=security_period, grace_period=40 * DAY)

    plan = plan_keyset(world.state, world.policy, world.now, CALENDAR)
    world.settle()

    assert isinstance(plan[0], Reschedule)
    assert len(world.of_type(Reschedule)) == 1
    signer = active_key(world.state)
    assert signer is not None
    assert signer.rotate_at is not None
    assert signer.rotate_at - activated.activated_at <= security_period
    for key in world.state.keys:
        if key.phase is Phase.GRACE:
            assert key.last_exp is not None
            assert key.grace_until is not None
            assert key.grace_until >= key.last_exp


def test_a_longer_period_is_heeded_before_a_rotation_that_was_due_by_the_old_one() -> None:
    world = World(keyset_policy())
    world.settle()
    signer = active_key(world.state)
    assert signer is not None
    assert signer.rotate_at is not None
    world.run_until(signer.rotate_at - timedelta(microseconds=1))
    world.policy = keyset_policy(security_period=365 * DAY)

    plan = plan_keyset(world.state, world.policy, signer.rotate_at, CALENDAR)

    assert kinds(plan) == ["Reschedule"]


def test_a_deadline_that_a_wrong_clock_made_is_made_anew() -> None:
    """The clock was far ahead when the signer began, and was set right: nobody waits for that far day."""
    world = World(keyset_policy(), now=T0 + 20_000 * DAY)
    world.settle()
    world.now = T0

    world.settle()

    signer = active_key(world.state)
    assert signer is not None
    assert signer.rotate_at is not None
    assert T0 < signer.rotate_at <= T0 + world.policy.security_period
    assert len(world.of_type(Reschedule)) == 1


def test_a_reschedule_that_changes_no_deadline_lists_none() -> None:
    world = World(keyset_policy())
    world.run_until(T0 + 100 * DAY)
    world.state = replace(world.state, schedule_fingerprint="of an older policy")

    plan = plan_keyset(world.state, world.policy, world.now, CALENDAR)

    assert plan == (Reschedule(world.state.name, world.policy.schedule_fingerprint, (), ()),)


def test_an_adopted_key_keeps_the_end_that_it_came_with() -> None:
    """A changed grace period is of keys that were made here."""
    policy = keyset_policy()
    adopted = SigningKey(
        kid=Kid("old"),
        keyset=policy.name,
        sequence=1,
        algorithm=Algorithm.ES256,
        phase=Phase.GRACE,
        created_at=T0,
        origin=Origin.ADOPTED,
        has_private=False,
        grace_until=T0 + 200 * DAY,
        destroyed_at=T0,
    )
    world = World(policy)
    world.state = replace(
        world.state, keys=(adopted,), next_sequence=2, schedule_fingerprint="", published=(adopted.kid,)
    )

    world.run_until(T0 + 199 * DAY)
    assert adopted.kid in (world.state.published or ())

    world.run_until(T0 + 200 * DAY)
    assert adopted.kid not in (world.state.published or ())


def test_an_ending_keyset_keeps_its_spare_while_in_use_and_then_empties() -> None:
    world = World(keyset_policy())
    world.run_until(T0 + 10 * DAY)
    world.policy = keyset_policy(ending=True)

    world.settle()
    assert world.phases() == [Phase.ACTIVE, Phase.PENDING]

    world.state = replace(world.state, in_use=False)
    world.settle()
    assert len(world.of_type(DemoteKey)) == 1
    assert world.phases() == [Phase.GRACE]

    world.run_until(T0 + 60 * DAY)
    assert world.phases() == []
    assert world.state.published == ()
    assert next_due(world.state, world.policy, world.now) is None


def test_an_ending_keyset_that_never_signed_leaves_nothing() -> None:
    world = World(keyset_policy(ending=True))
    world.state = replace(world.state, in_use=False)

    world.settle()

    assert world.history == []


def test_an_ended_signer_without_tokens_leaves_at_once() -> None:
    world = World(keyset_policy())
    world.settle()
    world.policy = keyset_policy(ending=True)
    world.state = replace(
        world.state, in_use=False, keys=tuple(replace(key, last_exp=None) for key in world.state.keys)
    )

    world.settle()

    assert world.phases() == []


def test_what_needs_no_file_goes_on_while_publishing_fails() -> None:
    """A full disk does not hold up a successor that is out already."""
    world = World(keyset_policy(grace_period=5 * DAY))
    world.run_until(T0 + 96 * DAY)  # the second key signs, the first one is about to leave
    world.run_until(T0 + 170 * DAY)
    signer = active_key(world.state)
    assert signer is not None
    assert signer.rotate_at is not None
    world.run_until(signer.rotate_at - timedelta(seconds=1))
    world.publishing_works = False

    world.now = signer.rotate_at
    world.settle()

    successor = active_key(world.state)
    assert successor is not None
    assert successor.kid != signer.kid


def test_a_file_that_vanished_is_published_again() -> None:
    world = World(keyset_policy())
    world.run_until(T0 + 10 * DAY)
    world.state = replace(world.state, published=None)

    plan = plan_keyset(world.state, world.policy, world.now, CALENDAR)

    assert kinds(plan) == ["PublishSet"]


def test_a_key_that_left_the_file_is_not_ready_whatever_was_seen_before() -> None:
    world = World(keyset_policy())
    world.run_until(T0 + 10 * DAY)
    signer = active_key(world.state)
    assert signer is not None
    world.state = replace(
        world.state,
        publish_blocked=True,
        published=(signer.kid,),
        keys=tuple(revoke(key, now=world.now) if key is signer else key for key in world.state.keys),
    )

    assert not any(isinstance(a, ActivateKey) for a in plan_keyset(world.state, world.policy, world.now, CALENDAR))


def test_a_private_half_that_outlived_its_use_is_erased() -> None:
    """From any state: whatever left a private half in grace, the next plan removes it."""
    world = World(keyset_policy())
    world.run_until(T0 + 100 * DAY)
    world.state = replace(
        world.state,
        keys=tuple(
            replace(key, has_private=True, destroyed_at=None) if key.phase is Phase.GRACE else key
            for key in world.state.keys
        ),
    )

    plan = plan_keyset(world.state, world.policy, world.now, CALENDAR)

    assert [action.kids for action in plan if isinstance(action, ConfirmDestruction)] == [
        tuple(key.kid for key in world.state.keys if key.phase is Phase.GRACE)
    ]


# ------------------------------------------------------------------------------------------- under any history

DURATIONS = st.integers(1, 400).map(lambda hours: hours * HOUR)


@st.composite
def policies(draw: st.DrawFn) -> KeysetPolicy:
    propagation = draw(st.integers(1, 100)) * HOUR
    return keyset_policy(
        propagation_period=propagation,
        security_period=propagation + draw(DURATIONS),
        grace_period=timedelta(seconds=60) + draw(DURATIONS),
        algorithm=draw(st.sampled_from(Algorithm)),
    )


@given(
    first=policies(),
    moves=st.lists(
        st.one_of(
            st.tuples(st.just("sleep"), DURATIONS),
            st.tuples(st.just("run"), DURATIONS),
            st.tuples(st.just("policy"), policies()),
            st.tuples(st.just("revoke"), st.integers(0, 5)),
            st.tuples(st.just("break"), st.integers(0, 5)),
            st.tuples(st.just("vanish"), st.none()),
            st.tuples(st.just("disk"), st.booleans()),
            st.tuples(st.just("wish"), st.booleans()),
        ),
        max_size=14,
    ),
)
def test_no_history_breaks_an_invariant_and_each_prefix_of_a_plan_is_safe(
    first: KeysetPolicy, moves: list[tuple[str, object]]
) -> None:
    """Outages, changed policies, revocations, broken records, lost files, wishes: invariants hold, and plans resume.

    A key that signs although some verifier cannot know it is one that an operator chose.
    """
    world = World(first)
    for move, argument in moves:
        check_prefixes(world.state, world.policy, world)
        world.settle()
        match move, argument:
            case "sleep", timedelta():
                world.now += argument
            case "run", timedelta():
                world.run_until(world.now + argument)
            case "policy", KeysetPolicy():
                world.policy = argument
                world.lifetime = argument.grace_period - argument.clock_skew
            case (("revoke" | "break"), int()):
                change_key(world, move, argument)
            case "vanish", None:
                world.state = replace(
                    world.state, published=None, out_since=dict.fromkeys(world.state.out_since, world.now)
                )
            case "disk", bool():
                world.publishing_works = argument
            case "wish", bool():
                world.wish(emergency=argument)
    world.publishing_works = True
    world.run_until(world.now + 3 * world.policy.propagation_period)
    assert active_key(world.state) is not None
    assert world.state.wish is None
    assert world.too_early == []


def change_key(world: World, move: str, index: int) -> None:
    keys = list(world.state.keys)
    live = [i for i, key in enumerate(keys) if key.phase in (Phase.PENDING, Phase.ACTIVE)]
    if not live:
        return
    chosen = live[index % len(live)]
    keys[chosen] = revoke(keys[chosen], now=world.now) if move == "revoke" else replace(keys[chosen], opens=False)
    world.state = replace(world.state, keys=tuple(keys))


def check_prefixes(state: KeysetState, policy: KeysetPolicy, world: World) -> None:
    """Crash after any action of the plan: planning again yields the rest of it."""
    plan = plan_keyset(state, policy, world.now, CALENDAR)
    for done, action in enumerate(plan, start=1):
        state = apply(state, action, world.now)
        if not isinstance(action, PublishSet):
            assert plan_keyset(state, policy, world.now, CALENDAR) == plan[done:]


def test_proving_comes_before_signing_in_one_plan() -> None:
    world = World(keyset_policy())
    plan = plan_keyset(world.state, world.policy, T0, CALENDAR)
    for action in plan:
        world.state = apply(world.state, action, T0)

    following = plan_keyset(world.state, world.policy, T0, CALENDAR)

    assert isinstance(following[0], ProveKey)
    assert isinstance(following[1], ActivateKey)
    assert following[0].kid == following[1].kid


def test_a_plan_without_an_end_is_our_fault_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that asks for the same thing again and again must not hang the daemon."""
    monkeypatch.setattr(planner, "RULES", (lambda state, *_: ConfirmDestruction(state.name, ()),))

    with pytest.raises(AssertionError, match="the plan of keyset default has no end"):
        plan_keyset(fresh(keyset_policy()), keyset_policy(), T0, CALENDAR)


def test_the_grace_of_a_key_without_tokens_follows_the_policy() -> None:
    world = World(keyset_policy())
    world.run_until(T0 + 100 * DAY)
    world.state = replace(world.state, keys=tuple(replace(key, last_exp=None) for key in world.state.keys))
    world.policy = keyset_policy(grace_period=40 * DAY)

    (action,) = plan_keyset(world.state, world.policy, world.now, CALENDAR)

    assert isinstance(action, Reschedule)
    (grace,) = (key for key in world.state.keys if key.phase is Phase.GRACE)
    assert grace.demoted_at is not None
    assert action.grace_until == ((grace.kid, grace.demoted_at + 40 * DAY),)


def test_an_imported_key_leaves_unused_only_when_the_tokens_of_its_former_system_have_ended() -> None:
    """Nothing here signed with it, but its public half was taken along for tokens that are out."""
    world = World(keyset_policy())
    world.run_until(T0 + DAY)
    last_exp = world.now + 30 * DAY
    kid = world.state.keys[-1].kid
    keys = tuple(
        replace(key, origin=Origin.IMPORTED, has_private=False, last_exp=last_exp) if key.kid == kid else key
        for key in world.state.keys
    )
    world.state = replace(world.state, keys=keys)
    world.run_until(last_exp - HOUR)
    assert kid in (world.state.published or ())
    assert next(key.phase for key in world.state.keys if key.kid == kid) is Phase.PENDING
    world.run_until(last_exp + HOUR)
    assert kid not in (world.state.published or ())
    left = [(at, action) for at, action in world.history if isinstance(action, RetireKey) and action.kid == kid]
    assert [(at, action.reason) for at, action in left] == [(last_exp + world.policy.clock_skew, Reason.UNUSABLE)]
