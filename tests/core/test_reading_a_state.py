"""What the planner reads in a state: who signs, who may be next and when, and when to look again. By tables."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from rotator.core.actions import Reason
from rotator.core.model import ALWAYS, Algorithm, KeysetName, KeysetState, Kid, Phase, SigningKey, Wish
from rotator.core.planner import (
    activation_reason,
    active_key,
    announce_at,
    can_sign,
    desired_kids,
    is_ready,
    leaves_at,
    may_sign_at,
    next_due,
    ready_at,
    spares,
    spares_needed,
)
from tests.core.worlds import DAY, HOUR, T0, keyset_policy

POLICY = keyset_policy()
INSTANT = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)


def key(name: str, phase: Phase, **members: object) -> SigningKey:
    plain = SigningKey(
        kid=Kid(name),
        keyset=KeysetName("default"),
        sequence=1,
        algorithm=Algorithm.ES256,
        phase=phase,
        created_at=T0,
    )
    return replace(plain, **members)  # type: ignore[arg-type] # the members that a case is about


def state_of(*keys: SigningKey, **members: object) -> KeysetState:
    plain = KeysetState(name=KeysetName("default"), keys=keys, published=tuple(key.kid for key in keys))
    return replace(plain, **members)  # type: ignore[arg-type] # the members that a case is about


SIGNER = key("signer", Phase.ACTIVE, activated_at=T0 - DAY, rotate_at=T0 + DAY, proven_at=T0 - DAY)
SPARE = key("spare", Phase.PENDING)
WISH = Wish(asked_at=T0, actor="ada(1000)")
EMERGENCY = replace(WISH, emergency=True)


@pytest.mark.parametrize("harm", ["authentic", "has_private", "opens"])
def test_what_is_not_ours_or_cannot_be_opened_signs_nothing(harm: str) -> None:
    assert can_sign(SIGNER)
    broken = replace(SIGNER, **{harm: False})  # type: ignore[arg-type] # three flags
    assert not can_sign(broken)
    assert spares(state_of(replace(SPARE, **{harm: False})), POLICY) == ()  # type: ignore[arg-type] # the same three
    assert activation_reason(state_of(broken), T0) is Reason.SIGNER_LOST


def test_a_spare_is_pending_and_of_the_algorithm_that_is_wanted() -> None:
    other = replace(SPARE, kid=Kid("other"), algorithm=Algorithm.EDDSA)
    for phase in Phase:
        found = spares(state_of(replace(SPARE, phase=phase), other), POLICY)
        assert [one.kid for one in found] == (["spare"] if phase is Phase.PENDING else [])


@pytest.mark.parametrize("phase", Phase)
def test_what_is_pending_active_or_in_grace_is_to_be_published_if_it_is_ours(phase: Phase) -> None:
    one = key("one", phase)
    wanted = phase in (Phase.PENDING, Phase.ACTIVE, Phase.GRACE)
    assert desired_kids(state_of(one)) == (("one",) if wanted else ())
    assert desired_kids(state_of(replace(one, authentic=False))) == ()
    assert (active_key(state_of(SPARE, one)) is one) is (phase is Phase.ACTIVE)


@pytest.mark.parametrize(
    ("out_since", "published", "wish", "ready", "may_sign"),
    [
        (T0, ("spare",), None, T0 + 49 * HOUR, T0 + 49 * HOUR),
        (ALWAYS, ("spare",), None, ALWAYS, ALWAYS),
        (None, ("spare",), None, None, None),
        (T0, ("another",), None, None, None),
        (T0, None, None, None, None),
        (T0, ("spare",), WISH, T0 + 49 * HOUR, T0 + 49 * HOUR),
        (T0, ("spare",), EMERGENCY, T0 + 49 * HOUR, ALWAYS),
        (None, ("spare",), EMERGENCY, None, ALWAYS),
        (T0, ("another",), EMERGENCY, None, None),
        (T0, None, EMERGENCY, None, None),
    ],
)
def test_a_key_may_sign_when_all_can_know_it_or_in_an_emergency_once_it_is_published(
    out_since: datetime | None,
    published: tuple[Kid, ...] | None,
    wish: Wish | None,
    ready: datetime | None,
    may_sign: datetime | None,
) -> None:
    since = {} if out_since is None else {SPARE.kid: out_since}
    state = state_of(SPARE, out_since=since, published=published, wish=wish)
    assert ready_at(state, SPARE.kid, POLICY) == ready
    assert may_sign_at(state, SPARE.kid, POLICY) == may_sign
    for now in (T0, T0 + 49 * HOUR - INSTANT, T0 + 49 * HOUR):
        assert is_ready(state, SPARE, POLICY, now) is (ready is not None and ready <= now)


@pytest.mark.parametrize(
    ("keys", "members", "reason"),
    [
        ((), {}, Reason.FIRST),
        ((), {"ever_active": True}, Reason.SIGNER_LOST),
        ((SIGNER,), {}, None),
        ((SIGNER,), {"wish": WISH}, Reason.REQUESTED),
        ((replace(SIGNER, rotate_at=T0 + INSTANT),), {}, None),
        ((replace(SIGNER, rotate_at=T0),), {}, Reason.SECURITY_PERIOD),
        ((replace(SIGNER, rotate_at=None),), {}, Reason.SECURITY_PERIOD),
        ((replace(SIGNER, rotate_at=T0),), {"wish": WISH}, Reason.SECURITY_PERIOD),
    ],
)
def test_another_key_is_to_sign_for_a_reason(
    keys: tuple[SigningKey, ...], members: dict[str, object], reason: Reason | None
) -> None:
    assert activation_reason(state_of(*keys, **members), T0) is reason


@pytest.mark.parametrize("reason", Reason)
def test_a_planned_activation_leaves_a_spare_behind_it(reason: Reason) -> None:
    planned = reason in (Reason.SECURITY_PERIOD, Reason.REQUESTED)
    assert spares_needed(state_of(), reason) == (2 if planned else 1)
    assert spares_needed(state_of(wish=WISH), reason) == (2 if planned else 1)
    assert spares_needed(state_of(wish=EMERGENCY), reason) == 1


@pytest.mark.parametrize(
    ("grace_until", "last_exp", "leaves"),
    [
        (T0, None, T0),
        (None, T0, T0 + MINUTE),
        (T0, T0, T0 + MINUTE),
        (T0 + HOUR, T0, T0 + HOUR),
        (None, None, None),
    ],
)
def test_a_key_leaves_after_its_grace_and_its_last_token(
    grace_until: datetime | None, last_exp: datetime | None, leaves: datetime | None
) -> None:
    """The token's end as the slowest clock sees it."""
    assert leaves_at(key("one", Phase.GRACE, grace_until=grace_until, last_exp=last_exp), POLICY) == leaves


LEAD = POLICY.lead


@pytest.mark.parametrize(
    ("state", "due"),
    [
        (state_of(), None),
        (state_of(replace(SIGNER, rotate_at=None)), None),
        (state_of(replace(SIGNER, rotate_at=T0 + DAY)), T0 + DAY),
        (state_of(replace(SIGNER, rotate_at=T0)), None),
        (state_of(replace(SIGNER, rotate_at=T0 + LEAD)), T0 + LEAD),
        (state_of(replace(SIGNER, rotate_at=T0 + LEAD + DAY)), T0 + DAY),
        (state_of(SPARE, out_since={SPARE.kid: T0}), T0 + 49 * HOUR),
        (state_of(SPARE, out_since={SPARE.kid: T0 - 49 * HOUR}), None),
        (state_of(SPARE, out_since={SPARE.kid: ALWAYS}), None),
        (state_of(replace(SPARE, last_exp=T0)), T0 + MINUTE),
        (state_of(replace(SPARE, last_exp=T0), out_since={SPARE.kid: T0 - 2 * DAY}), T0 + MINUTE),
        (state_of(key("prior", Phase.GRACE, grace_until=T0 + DAY)), T0 + DAY),
        (state_of(SIGNER, key("prior", Phase.GRACE, grace_until=T0 + HOUR)), T0 + HOUR),
        (state_of(key("gone", Phase.RETIRED, grace_until=T0 + DAY, last_exp=T0 + DAY)), None),
        (state_of(key("gone", Phase.REVOKED, grace_until=T0 + DAY, last_exp=T0 + DAY)), None),
    ],
)
def test_the_next_look_is_when_time_alone_changes_something(state: KeysetState, due: datetime | None) -> None:
    """A key's announcement and rotation, a spare that everybody knows, the end of a grace or of a last token."""
    assert next_due(state, POLICY, T0) == due


def test_the_key_after_the_next_is_announced_a_lead_before_the_rotation() -> None:
    assert announce_at(SIGNER, POLICY) == T0 + DAY - POLICY.lead
    assert announce_at(replace(SIGNER, rotate_at=None), POLICY) is None
