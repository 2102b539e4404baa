"""From any state at all a plan comes to an end, asks for nothing illegal and lets no key sign before its time.

A crash, a restore or somebody's hand in the database may leave any of these states. What a plan may ask for is judged
here by the promises' words, not by the planner's own functions.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from rotator.core.actions import (
    ActivateKey,
    ConfirmDestruction,
    DemoteKey,
    KeysetAction,
    MakeKey,
    ProveKey,
    PublishSet,
    Reason,
    RetireKey,
)
from rotator.core.model import ALWAYS, Algorithm, KeysetName, KeysetState, Kid, Origin, Phase, SigningKey, Wish
from rotator.core.planner import PLAN_LIMIT, next_due, plan_keyset
from rotator.core.policy import KeysetPolicy
from rotator.core.transitions import apply
from tests.core.worlds import CALENDAR, DAY, T0, keyset_policy

NOW = T0 + 200 * DAY
MOMENTS = st.integers(-400, 400).map(lambda half_days: NOW + half_days * DAY / 2)
MAYBE = st.none() | MOMENTS
IN_SET = (Phase.PENDING, Phase.ACTIVE, Phase.GRACE)


@st.composite
def keys(draw: st.DrawFn, number: int) -> SigningKey:
    phase = draw(st.sampled_from(Phase))
    return SigningKey(
        kid=Kid(f"k{number}"),
        keyset=KeysetName("default"),
        sequence=number,
        algorithm=draw(st.sampled_from([Algorithm.ES256, Algorithm.ES256, Algorithm.EDDSA])),
        phase=phase,
        created_at=draw(MOMENTS),
        origin=draw(st.sampled_from(Origin)),
        public_jwk=f'{{"kid":"k{number}"}}',
        has_private=draw(st.booleans()) if phase not in (Phase.PENDING, Phase.ACTIVE) else draw(st.integers(0, 4)) > 0,
        authentic=draw(st.integers(0, 4)) > 0,
        opens=draw(st.integers(0, 4)) > 0,
        proven_at=draw(MAYBE),
        activated_at=draw(MAYBE),
        rotate_at=draw(MAYBE),
        demoted_at=draw(MAYBE),
        grace_until=draw(MAYBE),
        last_exp=draw(MAYBE),
        destroyed_at=draw(MAYBE),
    )


@st.composite
def states(draw: st.DrawFn, policy: KeysetPolicy) -> KeysetState:
    found = tuple(draw(keys(number)) for number in range(1, draw(st.integers(0, 6)) + 1))
    active = [key for key in found if key.phase is Phase.ACTIVE]
    found = tuple(replace(key, phase=Phase.GRACE) if key in active[1:] else key for key in found)  # the database's rule
    kids = [key.kid for key in found]
    right = tuple(key.kid for key in found if key.phase in IN_SET and key.authentic)
    some = st.lists(st.sampled_from([*kids, Kid("another")]), unique=True).map(tuple)
    return KeysetState(
        name=KeysetName("default"),
        keys=found,
        next_sequence=len(found) + 1,
        schedule_fingerprint=draw(st.sampled_from([policy.schedule_fingerprint, "of another policy"])),
        ever_active=draw(st.booleans()),
        published=draw(st.sampled_from([right, right, None]) | some),
        tree_intact=draw(st.booleans()),
        first_publication=draw(st.booleans()),
        publish_blocked=draw(st.booleans()),
        out_since={kid: draw(MOMENTS | st.just(ALWAYS)) for kid in kids if draw(st.booleans())},
        in_use=draw(st.booleans()),
        wish=draw(st.none() | st.builds(Wish, asked_at=MOMENTS, actor=st.just("ada(1000)"), emergency=st.booleans())),
    )


POLICIES = st.sampled_from([keyset_policy(), keyset_policy(ending=True), keyset_policy(security_period=5 * DAY)])


@given(st.data(), POLICIES)
def test_whatever_was_found_the_plan_ends_and_asks_for_nothing_that_must_not_be(
    data: st.DataObject, policy: KeysetPolicy
) -> None:
    state = data.draw(states(policy))
    plan = plan_keyset(state, policy, NOW, CALENDAR)
    assert len(plan) < PLAN_LIMIT
    assert not any(isinstance(action, PublishSet) for action in plan[:-1])
    for action in plan:
        judge(action, state, policy)
        state = apply(state, action, NOW)
    if not plan or not isinstance(plan[-1], PublishSet):
        assert plan_keyset(state, policy, NOW, CALENDAR) == ()
    due = next_due(state, policy, NOW)
    assert due is None or due > NOW


def judge(action: KeysetAction, state: KeysetState, policy: KeysetPolicy) -> None:
    """Fail where ``action`` must not be carried out in ``state``."""
    known = {key.kid: key for key in state.keys}
    match action:
        case ProveKey():
            assert may_sign(state, known[action.kid], policy)
        case ActivateKey():
            key = known[action.kid]
            assert may_sign(state, key, policy)
            assert key.proven_at is not None
            assert action.prior == next((key.kid for key in state.keys if key.phase is Phase.ACTIVE), None)
            assert NOW < action.rotate_at <= NOW + policy.security_period
            if action.reason in (Reason.SECURITY_PERIOD, Reason.REQUESTED) and not hurried(state):
                assert any(may_sign(state, other, policy) for other in state.keys if other is not key)
            earlier = [other for other in state.keys if other.sequence < key.sequence]
            alike = [other for other in earlier if other.algorithm == key.algorithm]
            assert not any(may_sign(state, other, policy) for other in alike)
            assert not policy.ending or state.in_use
        case MakeKey():
            assert (action.sequence, action.algorithm) == (state.next_sequence, policy.algorithm)
            assert not policy.ending or state.in_use
        case PublishSet():
            assert not state.publish_blocked
            right = tuple(key.kid for key in state.keys if key.phase in IN_SET and key.authentic)
            assert action.kids == right
            assert right != (state.published or ()) or not state.tree_intact
        case DemoteKey():
            assert known[action.kid].phase is Phase.ACTIVE
            assert policy.ending
            assert not state.in_use
            last_exp = known[action.kid].last_exp
            assert last_exp is None or action.grace_until >= last_exp + policy.clock_skew
        case RetireKey():
            key = known[action.kid]
            assert key.phase in (Phase.PENDING, Phase.GRACE)
            assert key.last_exp is None or key.last_exp + policy.clock_skew <= NOW
            assert key.phase is Phase.PENDING or key.grace_until is None or key.grace_until <= NOW
        case ConfirmDestruction():
            assert all(known[kid].phase in (Phase.GRACE, Phase.RETIRED, Phase.REVOKED) for kid in action.kids)


def hurried(state: KeysetState) -> bool:
    return state.wish is not None and state.wish.emergency


def may_sign(state: KeysetState, key: SigningKey, policy: KeysetPolicy) -> bool:
    """Tell whether promise 2 lets ``key`` sign."""
    usable = key.phase is Phase.PENDING and key.authentic and key.has_private and key.opens
    if not usable or key.kid not in (state.published or ()):
        return False
    since: datetime | None = state.out_since.get(key.kid)
    waited = since is not None and (since == ALWAYS or NOW - since >= timedelta(0) + policy.propagation_period)
    return waited or hurried(state)
