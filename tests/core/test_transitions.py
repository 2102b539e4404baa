"""What each action leaves behind, to the last field: the planner builds on it before anything is written."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest

from rotator.core.actions import (
    ActivateKey,
    ConfirmDestruction,
    DemoteKey,
    MakeKey,
    ProveKey,
    PublishSet,
    Reason,
    Reschedule,
    RetireKey,
)
from rotator.core.model import ALWAYS, Algorithm, KeysetState, Kid, Phase, SigningKey, Wish
from rotator.core.transitions import apply
from tests.core.test_reading_a_state import SIGNER, SPARE, key, state_of
from tests.core.worlds import DAY, T0

NAME = SIGNER.keyset
PRIOR = key("prior", Phase.GRACE, has_private=False, grace_until=T0 + DAY)
STATE = state_of(
    SIGNER,
    SPARE,
    PRIOR,
    next_sequence=4,
    schedule_fingerprint="old",
    tree_intact=False,
    out_since={SIGNER.kid: T0 - DAY},
    wish=Wish(asked_at=T0, actor="ada(1000)"),
)


def changed(name: Kid, how: Callable[[SigningKey], SigningKey]) -> tuple[SigningKey, ...]:
    return tuple(how(one) if one.kid == name else one for one in STATE.keys)


def test_a_schedule_moves_what_it_names() -> None:
    action = Reschedule(NAME, "new", ((SIGNER.kid, T0 + 9 * DAY),), ((PRIOR.kid, T0 + 8 * DAY),))
    assert apply(STATE, action, T0) == replace(
        STATE,
        schedule_fingerprint="new",
        keys=(replace(SIGNER, rotate_at=T0 + 9 * DAY), SPARE, replace(PRIOR, grace_until=T0 + 8 * DAY)),
    )
    assert apply(STATE, Reschedule(NAME, "new"), T0) == replace(STATE, schedule_fingerprint="new")


def test_a_key_that_is_made_waits_behind_the_others() -> None:
    made = SigningKey(
        kid=Kid("(default #4)"),
        keyset=NAME,
        sequence=4,
        algorithm=Algorithm.EDDSA,
        phase=Phase.PENDING,
        created_at=T0,
    )
    action = MakeKey(NAME, 4, Algorithm.EDDSA, Reason.SPARE)
    assert apply(STATE, action, T0) == replace(STATE, keys=(*STATE.keys, made), next_sequence=5)


@pytest.mark.parametrize(
    ("published", "first", "since"),
    [
        ((SIGNER.kid,), False, {SIGNER.kid: T0 - DAY, SPARE.kid: T0}),
        ((SIGNER.kid, SPARE.kid), False, {SIGNER.kid: T0 - DAY, SPARE.kid: T0}),
        ((SPARE.kid,), False, {SIGNER.kid: T0, SPARE.kid: T0}),
        ((), False, {SIGNER.kid: T0, SPARE.kid: T0}),
        (None, False, {SIGNER.kid: T0, SPARE.kid: T0}),
        (None, True, {SIGNER.kid: ALWAYS, SPARE.kid: ALWAYS}),
    ],
    ids=["a new one", "not seen by all", "left and came back", "emptied", "vanished", "the first set"],
)
def test_a_key_is_out_since_the_set_that_it_never_left(
    published: tuple[Kid, ...] | None, first: bool, since: dict[Kid, datetime]
) -> None:
    before = replace(STATE, published=published, first_publication=first)
    kids = (SIGNER.kid, SPARE.kid)
    assert apply(before, PublishSet(NAME, kids), T0) == replace(
        before, published=kids, tree_intact=True, out_since=since, first_publication=False
    )


def test_a_key_that_proved_itself_is_noted() -> None:
    after = apply(STATE, ProveKey(NAME, SPARE.kid), T0)
    assert after == replace(STATE, keys=changed(SPARE.kid, lambda one: replace(one, proven_at=T0)))


@pytest.mark.parametrize(
    ("prior", "prior_grace_until", "keys"),
    [
        (
            SIGNER.kid,
            T0 + DAY,
            changed(
                SIGNER.kid,
                lambda one: replace(one, phase=Phase.GRACE, demoted_at=T0, grace_until=T0 + DAY, has_private=False),
            ),
        ),
        (
            SIGNER.kid,
            None,
            changed(
                SIGNER.kid,
                lambda one: replace(one, phase=Phase.GRACE, demoted_at=T0, grace_until=T0, has_private=False),
            ),
        ),
        (None, None, STATE.keys),
    ],
)
def test_a_key_that_begins_to_sign_sends_the_prior_one_to_grace_and_fulfils_a_wish(
    prior: Kid | None, prior_grace_until: datetime | None, keys: tuple[SigningKey, ...]
) -> None:
    action = ActivateKey(NAME, SPARE.kid, T0 + 90 * DAY, Reason.REQUESTED, prior, prior_grace_until)
    signs = replace(SPARE, phase=Phase.ACTIVE, activated_at=T0, rotate_at=T0 + 90 * DAY)
    assert apply(STATE, action, T0) == replace(
        STATE, keys=tuple(signs if one is SPARE else one for one in keys), ever_active=True, wish=None
    )


@pytest.mark.parametrize(
    ("action", "keys"),
    [
        (
            DemoteKey(NAME, SIGNER.kid, T0 + DAY, Reason.KEYSET_ENDED),
            changed(
                SIGNER.kid,
                lambda one: replace(one, phase=Phase.GRACE, demoted_at=T0, grace_until=T0 + DAY, has_private=False),
            ),
        ),
        (
            RetireKey(NAME, PRIOR.kid, Reason.GRACE_OVER),
            changed(PRIOR.kid, lambda one: replace(one, phase=Phase.RETIRED, retired_at=T0)),
        ),
        (
            ConfirmDestruction(NAME, (PRIOR.kid,)),
            changed(PRIOR.kid, lambda one: replace(one, destroyed_at=T0)),
        ),
    ],
)
def test_a_key_that_goes_changes_nothing_else(
    action: DemoteKey | RetireKey | ConfirmDestruction, keys: tuple[SigningKey, ...]
) -> None:
    before: KeysetState = STATE
    assert apply(before, action, T0) == replace(before, keys=keys)


def test_a_destruction_takes_the_private_half_with_it() -> None:
    before = replace(STATE, keys=(SIGNER, replace(PRIOR, has_private=True)))
    after = apply(before, ConfirmDestruction(NAME, (PRIOR.kid,)), T0)
    assert after == replace(before, keys=(SIGNER, replace(PRIOR, destroyed_at=T0)))
