"""Each rule by a table: a keyset at rest, one thing in it changed, and what is done about it first."""

from dataclasses import replace
from datetime import datetime

import pytest

from rotator.core.actions import (
    ActivateKey,
    ConfirmDestruction,
    DemoteKey,
    KeysetAction,
    MakeKey,
    PublishSet,
    Reason,
    Reschedule,
    RetireKey,
)
from rotator.core.model import ALWAYS, Algorithm, KeysetState, Kid, Origin, Phase, SigningKey
from rotator.core.planner import plan_keyset
from rotator.core.policy import KeysetPolicy
from rotator.core.schedule import key_rotation_due
from tests.core.test_reading_a_state import INSTANT, LEAD, MINUTE, POLICY, SIGNER, SPARE, WISH, key, state_of
from tests.core.worlds import CALENDAR, DAY, T0, keyset_policy

FAR = replace(SIGNER, rotate_at=T0 + 60 * DAY)
PRIOR = key("prior", Phase.GRACE, has_private=False, destroyed_at=T0, demoted_at=T0 - DAY, grace_until=T0 + 30 * DAY)
ENDING = keyset_policy(ending=True)
NAME = POLICY.name


def at_rest(*more: SigningKey, signer: SigningKey | None = FAR, **members: object) -> KeysetState:
    """Return a keyset of which nothing is due: its signer, a spare that everybody knows, and ``more``."""
    keys = (*(() if signer is None else (signer,)), SPARE, *more)
    return state_of(
        *keys,
        **{
            "schedule_fingerprint": POLICY.schedule_fingerprint,
            "ever_active": True,
            "next_sequence": 9,
            "published": tuple(one.kid for one in keys if one.authentic and one.phase in (SPARE.phase, *LIVE)),
            "out_since": {SPARE.kid: ALWAYS},
        }
        | members,
    )


LIVE = (Phase.ACTIVE, Phase.GRACE)


def planned(state: KeysetState, policy: KeysetPolicy = POLICY) -> tuple[KeysetAction, ...]:
    return plan_keyset(state, policy, T0, CALENDAR)


def test_at_rest_nothing_is_done() -> None:
    assert planned(at_rest()) == ()
    assert planned(at_rest(PRIOR)) == ()


# ------------------------------------------------------------------------------------------ what is none of ours leaves


def test_a_file_that_holds_nothing_of_ours_stands_until_there_are_keys() -> None:
    """As after a restore from before the first keys: a verifier is served no empty set."""
    state = state_of(
        ever_active=True, published=(Kid("not ours: k"),), schedule_fingerprint=POLICY.schedule_fingerprint
    )
    assert [type(action) for action in planned(state)] == [MakeKey, PublishSet]


@pytest.mark.parametrize(
    ("members", "policy"), [({"shows_revoked": True}, POLICY), ({"in_use": False}, ENDING)], ids=["revoked", "ended"]
)
def test_what_must_not_be_trusted_any_more_leaves_although_nothing_is_left(
    members: dict[str, object], policy: KeysetPolicy
) -> None:
    state = state_of(
        ever_active=True,
        published=(Kid("not ours: k"),),
        schedule_fingerprint=policy.schedule_fingerprint,
        **members,
    )
    assert planned(state, policy) == (PublishSet(NAME, ()),)


def test_fresh_keys_that_are_at_hand_come_as_what_was_revoked_leaves() -> None:
    """In one publication, with the spare; where none is wanted any more, nothing waits for them."""
    lost = state_of(
        ever_active=True,
        published=(Kid("revoked"),),
        shows_revoked=True,
        fresh_at_hand=True,
        schedule_fingerprint=POLICY.schedule_fingerprint,
    )
    assert [type(action) for action in planned(lost)] == [MakeKey, MakeKey, PublishSet]
    assert planned(replace(lost, fresh_at_hand=False)) == (PublishSet(NAME, ()),)
    ended = replace(lost, in_use=False, schedule_fingerprint=ENDING.schedule_fingerprint)
    assert planned(ended, ENDING) == (PublishSet(NAME, ()),)


# ------------------------------------------------------------------------------------------------------ the schedule


@pytest.mark.parametrize(
    ("activated_at", "since"),
    [(T0 - 9 * DAY, T0 - 9 * DAY), (None, T0), (T0 + DAY, T0)],
    ids=["before", "never noted", "by a clock that was ahead"],
)
def test_a_changed_policy_counts_from_when_a_key_began_to_sign(activated_at: datetime | None, since: datetime) -> None:
    signer = replace(FAR, activated_at=activated_at)
    due = key_rotation_due(signer.kid, POLICY, since, CALENDAR)
    new = POLICY.schedule_fingerprint
    (action, *_) = planned(at_rest(signer=signer, schedule_fingerprint="old"))
    assert action == Reschedule(NAME, new, ((signer.kid, due),), ())
    (action, *_) = planned(at_rest(signer=replace(signer, rotate_at=due), schedule_fingerprint="old"))
    assert action == Reschedule(NAME, new, (), ())


@pytest.mark.parametrize("signer", [FAR, None])
def test_a_deadline_further_ahead_than_a_whole_period_is_made_anew(signer: SigningKey | None) -> None:
    assert not any(isinstance(action, Reschedule) for action in planned(at_rest(signer=signer)))
    for rotate_at, again in ((T0 + POLICY.security_period, False), (T0 + POLICY.security_period + INSTANT, True)):
        (action, *_) = (*planned(at_rest(signer=replace(FAR, rotate_at=rotate_at))), None)
        assert isinstance(action, Reschedule) is again


@pytest.mark.parametrize(
    ("members", "end"),
    [
        ({}, T0 - DAY + POLICY.grace_period),
        ({"demoted_at": None}, T0 + POLICY.grace_period),
        ({"last_exp": T0}, T0 - DAY + POLICY.grace_period),
        ({"last_exp": T0 + 90 * DAY}, T0 + 90 * DAY + MINUTE),
        ({"origin": Origin.IMPORTED}, T0 - DAY + POLICY.grace_period),
        ({"origin": Origin.ADOPTED}, None),
        ({"grace_until": T0 - DAY + POLICY.grace_period}, None),
    ],
)
def test_a_changed_policy_moves_the_end_of_a_grace_and_shortens_none_that_a_token_needs(
    members: dict[str, object], end: datetime | None
) -> None:
    """An adopted key keeps the end that it came with; what is right already is not told again."""
    prior = replace(PRIOR, **({"grace_until": T0 + DAY} | members))  # type: ignore[arg-type] # what a case is about
    (action, *_) = planned(at_rest(prior, schedule_fingerprint="old"))
    assert isinstance(action, Reschedule)
    assert action.grace_until == (() if end is None else ((prior.kid, end),))


# -------------------------------------------------------------------------------------------------------- new keys


@pytest.mark.parametrize(
    ("signer", "members", "reasons"),
    [
        (None, {}, [Reason.FIRST, Reason.SPARE]),
        (None, {"ever_active": True}, [Reason.SIGNER_LOST, Reason.SIGNER_LOST]),
        (replace(FAR, opens=False), {}, [Reason.SIGNER_LOST, Reason.SIGNER_LOST]),
        (FAR, {}, [Reason.SPARE]),
        (FAR, {"wish": WISH}, [Reason.SPARE, Reason.SUCCESSOR]),
        (replace(FAR, rotate_at=T0 + LEAD), {}, [Reason.SPARE, Reason.SUCCESSOR]),
        (replace(FAR, rotate_at=T0 + LEAD + INSTANT), {}, [Reason.SPARE]),
        (replace(FAR, rotate_at=None), {}, [Reason.SPARE, Reason.SUCCESSOR]),
    ],
    ids=["first", "no signer", "signer lost", "far", "asked for", "near", "not yet near", "without a deadline"],
)
def test_two_spares_are_made_when_another_key_is_to_sign_soon_and_else_one(
    signer: SigningKey | None, members: dict[str, object], reasons: list[Reason]
) -> None:
    state = state_of(
        *(() if signer is None else (signer,)), schedule_fingerprint=POLICY.schedule_fingerprint, **members
    )
    made = [action for action in planned(state) if isinstance(action, MakeKey)]
    assert made == [MakeKey(NAME, 1 + n, Algorithm.ES256, reason) for n, reason in enumerate(reasons)]


# ------------------------------------------------------------------------------------------------------ publishing

RIGHT = (SIGNER.kid, SPARE.kid)


@pytest.mark.parametrize(
    ("members", "written"),
    [
        ({"published": RIGHT}, False),
        ({"published": RIGHT[::-1]}, True),
        ({"published": RIGHT[:1]}, True),
        ({"published": (*RIGHT, Kid("another"))}, True),
        ({"published": None}, True),
        ({"tree_intact": False}, True),
    ],
)
def test_the_set_is_written_when_it_or_what_is_around_it_is_not_as_it_should_be(
    members: dict[str, object], written: bool
) -> None:
    state = replace(at_rest(), **members)  # type: ignore[arg-type] # what a case is about
    assert planned(state) == ((PublishSet(NAME, RIGHT),) if written else ())
    assert planned(replace(state, publish_blocked=True)) == ()


@pytest.mark.parametrize("published", [(), None])
@pytest.mark.parametrize("tree_intact", [True, False])
def test_a_keyset_that_ended_needs_no_files(published: tuple[Kid, ...] | None, tree_intact: bool) -> None:
    state = state_of(in_use=False, published=published, tree_intact=tree_intact)
    assert planned(replace(state, schedule_fingerprint=ENDING.schedule_fingerprint), ENDING) == ()


# ---------------------------------------------------------------------------------------------------------- signing


@pytest.mark.parametrize(
    ("signer", "known", "successor"),
    [
        (None, ("old", "older", "new", "newer"), "new"),
        (None, ("old", "older"), "old"),
        (replace(FAR, rotate_at=T0), ("old", "older", "new", "newer"), "new"),
        (replace(FAR, rotate_at=T0), ("old", "older", "new"), None),
        (replace(FAR, rotate_at=T0), ("old", "older"), None),
    ],
)
def test_only_a_lost_signer_is_followed_by_a_key_of_the_former_algorithm_and_only_if_no_other_is_ready(
    signer: SigningKey | None, known: tuple[str, ...], successor: str | None
) -> None:
    keys = [
        *(() if signer is None else (signer,)),
        *(key(name, Phase.PENDING, proven_at=T0, algorithm=Algorithm.EDDSA) for name in ("old", "older")),
        *(key(name, Phase.PENDING, proven_at=T0) for name in ("new", "newer")),
    ]
    state = replace(
        state_of(*keys, schedule_fingerprint=POLICY.schedule_fingerprint, ever_active=True),
        out_since={Kid(name): ALWAYS for name in known},
    )
    activated = [action for action in planned(state) if isinstance(action, ActivateKey)]
    prior = None if signer is None else signer.kid
    assert activated == (
        []
        if successor is None
        else [
            ActivateKey(
                NAME,
                Kid(successor),
                rotate_at=key_rotation_due(successor, POLICY, T0, CALENDAR),
                reason=Reason.SIGNER_LOST if signer is None else Reason.SECURITY_PERIOD,
                prior=prior,
                prior_grace_until=None if prior is None else T0 + POLICY.grace_period,
            )
        ]
    )


# ---------------------------------------------------------------------------------------------------------- the end


@pytest.mark.parametrize(
    ("last_exp", "end"),
    [(None, T0), (T0 + DAY, T0 + DAY + MINUTE), (T0 - MINUTE, T0), (T0 - MINUTE + INSTANT, T0 + INSTANT), (ALWAYS, T0)],
)
def test_a_keyset_that_nobody_uses_stops_signing_and_stays_for_its_last_token(
    last_exp: datetime | None, end: datetime
) -> None:
    state = at_rest(signer=replace(FAR, last_exp=last_exp), schedule_fingerprint=ENDING.schedule_fingerprint)
    assert planned(state, ENDING) == ()
    (action, *_) = planned(replace(state, in_use=False), ENDING)
    assert action == DemoteKey(NAME, FAR.kid, end, Reason.KEYSET_ENDED)


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (replace(PRIOR, grace_until=T0 + INSTANT), None),
        (replace(PRIOR, grace_until=T0), Reason.GRACE_OVER),
        (replace(PRIOR, grace_until=None), Reason.GRACE_OVER),
        (replace(PRIOR, grace_until=T0, last_exp=T0), None),
        (replace(PRIOR, grace_until=T0, last_exp=T0 - MINUTE), Reason.GRACE_OVER),
        (key("old", Phase.PENDING, opens=False), Reason.UNUSABLE),
        (key("old", Phase.PENDING, opens=False, authentic=False), None),
        (key("old", Phase.PENDING, opens=False, last_exp=T0 - MINUTE + INSTANT), None),
        (key("old", Phase.PENDING, opens=False, last_exp=T0 - MINUTE), Reason.UNUSABLE),
        (key("old", Phase.PENDING, algorithm=Algorithm.EDDSA), Reason.ALGORITHM),
        (key("old", Phase.PENDING), None),
        (key("old", Phase.RETIRED, has_private=False, destroyed_at=T0, grace_until=T0), None),
        (key("old", Phase.REVOKED, has_private=False, destroyed_at=T0, grace_until=T0), None),
    ],
)
def test_a_key_is_taken_out_when_nothing_needs_it(one: SigningKey, reason: Reason | None) -> None:
    plan = planned(at_rest(one))
    assert plan[:1] == (() if reason is None else (RetireKey(NAME, one.kid, reason),))


@pytest.mark.parametrize("since", [T0 - POLICY.propagation_period + INSTANT, T0 - POLICY.propagation_period])
def test_a_spare_of_the_former_algorithm_stays_until_every_verifier_knows_its_successor(since: datetime) -> None:
    one = key("old", Phase.PENDING, algorithm=Algorithm.EDDSA)
    known = since == T0 - POLICY.propagation_period
    for more in ((), (key("another", Phase.PENDING),)):
        plan = planned(at_rest(one, *more, out_since={SPARE.kid: since}))
        assert plan[:1] == ((RetireKey(NAME, one.kid, Reason.ALGORITHM),) if known else ())


def test_the_spares_of_a_keyset_that_ended_go_but_for_one_that_tokens_still_need() -> None:
    imported = key("imported", Phase.PENDING, last_exp=T0)
    state = at_rest(imported, signer=None, in_use=False, schedule_fingerprint=ENDING.schedule_fingerprint)
    assert planned(state, ENDING) == (
        RetireKey(NAME, SPARE.kid, Reason.KEYSET_ENDED),
        PublishSet(NAME, (imported.kid,)),
    )


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("authentic", [True, False])
@pytest.mark.parametrize(("has_private", "destroyed_at"), [(True, None), (True, T0), (False, None), (False, T0)])
def test_what_is_done_with_signing_has_no_private_half_and_that_is_made_sure_of(
    phase: Phase, authentic: bool, has_private: bool, destroyed_at: datetime | None
) -> None:
    one = replace(PRIOR, phase=phase, authentic=authentic, has_private=has_private, destroyed_at=destroyed_at)
    if phase is Phase.ACTIVE:
        return
    confirm = ConfirmDestruction(NAME, (one.kid,))
    wanted = phase is not Phase.PENDING and authentic and (has_private or destroyed_at is None)
    assert (confirm in planned(at_rest(one))) is wanted


# -------------------------------------------------------------------------------------------------------- the order


@pytest.mark.parametrize(
    ("state", "policy", "kinds"),
    [
        (at_rest(signer=replace(FAR, opens=False), published=(*RIGHT, Kid("x"))), POLICY, ["PublishSet"]),
        (
            at_rest(signer=replace(FAR, opens=False), schedule_fingerprint="old"),
            POLICY,
            ["ProveKey", "ActivateKey", "Reschedule", "MakeKey", "PublishSet"],
        ),
        (at_rest(schedule_fingerprint="old", wish=WISH), POLICY, ["Reschedule", "MakeKey", "PublishSet"]),
        (at_rest(published=RIGHT[::-1], wish=WISH), POLICY, ["MakeKey", "PublishSet"]),
        (
            at_rest(
                key("next", Phase.PENDING),
                signer=replace(FAR, rotate_at=T0),
                published=(*RIGHT[::-1], Kid("next")),
                out_since={SPARE.kid: ALWAYS, Kid("next"): ALWAYS},
            ),
            POLICY,
            ["PublishSet"],
        ),
        (
            at_rest(
                replace(PRIOR, grace_until=T0),
                key("next", Phase.PENDING),
                signer=replace(FAR, rotate_at=T0),
                out_since={SPARE.kid: ALWAYS, Kid("next"): ALWAYS},
            ),
            POLICY,
            ["ProveKey", "ActivateKey", "RetireKey", "PublishSet"],
        ),
        (
            at_rest(in_use=False, schedule_fingerprint=ENDING.schedule_fingerprint),
            ENDING,
            ["DemoteKey", "RetireKey", "PublishSet"],
        ),
        (at_rest(replace(PRIOR, grace_until=T0, destroyed_at=None)), POLICY, ["RetireKey", "PublishSet"]),
        (
            at_rest(PRIOR, replace(PRIOR, kid=Kid("older"), destroyed_at=None)),
            POLICY,
            ["ConfirmDestruction"],
        ),
    ],
    ids=[
        "what must not be in the file goes before a successor signs",
        "a successor signs before deadlines follow the policy",
        "deadlines follow the policy before keys are made",
        "keys are made before the file is written",
        "the file is written before a planned rotation",
        "a planned rotation happens before a key leaves",
        "an ended keyset stops signing before its spares leave",
        "a key leaves before its destruction is made sure of",
        "destruction is made sure of",
    ],
)
def test_what_comes_first(state: KeysetState, policy: KeysetPolicy, kinds: list[str]) -> None:
    assert [type(action).__name__ for action in planned(state, policy)] == kinds
