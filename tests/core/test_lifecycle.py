"""The table of phases, for keys and tokens."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import product

import pytest

from rotator.core import lifecycle
from rotator.core.lifecycle import IllegalTransitionError
from rotator.core.model import Algorithm, Jti, KeysetName, Kid, Origin, Phase, SigningKey, Token, WorkspaceId
from tests.core.worlds import T0

KEY = SigningKey(
    kid=Kid("k"),
    keyset=KeysetName("default"),
    sequence=1,
    algorithm=Algorithm.ES256,
    phase=Phase.PENDING,
    created_at=T0,
)
TOKEN = Token(
    jti=Jti("t"),
    workspace=WorkspaceId("acme"),
    keyset=KeysetName("default"),
    kid=Kid("k"),
    phase=Phase.ACTIVE,
    sequence=1,
    issued_at=T0,
    expires_at=T0 + timedelta(days=9),
    rotate_at=T0 + timedelta(days=8),
)


LEADS_TO = {
    Phase.PENDING: {Phase.ACTIVE, Phase.RETIRED, Phase.REVOKED},
    Phase.ACTIVE: {Phase.GRACE, Phase.REVOKED},
    Phase.GRACE: {Phase.RETIRED, Phase.REVOKED},
    Phase.RETIRED: {Phase.REVOKED},
    Phase.REVOKED: set[Phase](),
}


@pytest.mark.parametrize(("before", "after"), list(product(Phase, Phase)))
def test_only_the_transitions_of_the_table_happen(before: Phase, after: Phase) -> None:
    """Every other one raises and names what was tried."""
    if after in LEADS_TO[before]:
        lifecycle.check("k", before, after)
    else:
        with pytest.raises(IllegalTransitionError, match=f"k is {before} and cannot become {after}"):
            lifecycle.check("k", before, after)


@pytest.mark.parametrize("phase", Phase)
def test_whatever_moves_a_key_or_a_token_goes_by_the_table(phase: Phase) -> None:
    key, token = replace(KEY, phase=phase), TOKEN._replace(phase=phase)
    moves: list[tuple[Phase, Callable[[], SigningKey | Token]]] = [
        (Phase.ACTIVE, lambda: lifecycle.activate(key, now=T0, rotate_at=T0)),
        (Phase.GRACE, lambda: lifecycle.demote(key, now=T0, grace_until=T0)),
        (Phase.RETIRED, lambda: lifecycle.retire(key, now=T0)),
        (Phase.REVOKED, lambda: lifecycle.revoke(key, now=T0)),
        (Phase.GRACE, lambda: lifecycle.supersede_token(token, now=T0)),
        (Phase.RETIRED, lambda: lifecycle.retire_token(token, now=T0)),
        (Phase.REVOKED, lambda: lifecycle.revoke_token(token, now=T0)),
    ]
    for after, move in moves:
        if after in LEADS_TO[phase]:
            assert move().phase is after
        else:
            with pytest.raises(IllegalTransitionError, match=f"is {phase} and cannot become {after}"):
                move()


def test_a_key_goes_through_its_whole_life() -> None:
    active = lifecycle.activate(KEY, now=T0, rotate_at=T0 + timedelta(days=90))
    assert (active.phase, active.activated_at, active.rotate_at) == (Phase.ACTIVE, T0, T0 + timedelta(days=90))
    grace = lifecycle.demote(active, now=T0, grace_until=T0 + timedelta(days=1))
    assert (grace.phase, grace.demoted_at, grace.has_private) == (Phase.GRACE, T0, False)
    retired = lifecycle.retire(grace, now=T0)
    assert (retired.phase, retired.retired_at) == (Phase.RETIRED, T0)
    revoked = lifecycle.revoke(retired, now=T0)
    assert (revoked.phase, revoked.revoked_at) == (Phase.REVOKED, T0)


@pytest.mark.parametrize("change", [lifecycle.retire, lifecycle.revoke])
def test_a_key_that_leaves_loses_its_private_half(change: Callable[..., SigningKey]) -> None:
    assert not change(KEY, now=T0).has_private


def test_a_retired_key_is_taken_back_for_the_tokens_that_are_out_on_it() -> None:
    retired = replace(KEY, phase=Phase.RETIRED, retired_at=T0)
    later = T0 + timedelta(days=1)
    back = lifecycle.take_back(retired, now=T0, until=later)
    assert (back.phase, back.has_private, back.retired_at) == (Phase.GRACE, False, None)
    assert (back.demoted_at, back.grace_until, back.last_exp) == (T0, later, later)
    longer = replace(retired, last_exp=later + timedelta(days=1), demoted_at=T0 - timedelta(days=1))
    kept = lifecycle.take_back(longer, now=T0, until=later)
    assert (kept.demoted_at, kept.last_exp) == (longer.demoted_at, longer.last_exp)
    with pytest.raises(IllegalTransitionError):
        lifecycle.take_back(KEY, now=T0, until=later)


def test_a_token_goes_through_the_same_phases() -> None:
    grace = lifecycle.supersede_token(TOKEN, now=T0)
    assert (grace.phase, grace.superseded_at) == (Phase.GRACE, T0)
    retired = lifecycle.retire_token(grace, now=T0)
    assert (retired.phase, retired.retired_at) == (Phase.RETIRED, T0)
    revoked = lifecycle.revoke_token(grace, now=T0)
    assert (revoked.phase, revoked.revoked_at) == (Phase.REVOKED, T0)
    with pytest.raises(IllegalTransitionError):
        lifecycle.supersede_token(TOKEN._replace(phase=Phase.REVOKED), now=T0)


@pytest.mark.parametrize("origin", list(Origin))
@pytest.mark.parametrize("phase", list(Phase))
def test_only_an_adopted_key_in_grace_is_given_a_private_half(phase: Phase, origin: Origin) -> None:
    """It is pending then, and remembers until when tokens of its former system live."""
    key = SigningKey(
        kid=Kid("k"),
        keyset=KeysetName("default"),
        sequence=1,
        algorithm=Algorithm.ES256,
        phase=phase,
        created_at=T0,
        origin=origin,
        has_private=False,
        grace_until=T0,
        last_exp=T0,
        demoted_at=T0,
        destroyed_at=T0,
    )
    if (phase, origin) != (Phase.GRACE, Origin.ADOPTED):
        with pytest.raises(IllegalTransitionError, match="cannot be given a private half"):
            lifecycle.complete(key)
        return
    assert lifecycle.complete(key) == replace(
        key,
        phase=Phase.PENDING,
        origin=Origin.IMPORTED,
        has_private=True,
        grace_until=None,
        demoted_at=None,
        destroyed_at=None,
    )
