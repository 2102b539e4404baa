"""The table of phases, for keys and tokens."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import product

import pytest

from rotator.core import lifecycle
from rotator.core.lifecycle import TRANSITIONS, IllegalTransitionError
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


@pytest.mark.parametrize(("before", "after"), list(product(Phase, Phase)))
def test_only_the_transitions_of_the_table_happen(before: Phase, after: Phase) -> None:
    """Every other one raises and names what was tried."""
    if (before, after) in TRANSITIONS:
        lifecycle.check("k", before, after)
    else:
        with pytest.raises(IllegalTransitionError, match=f"k is {before} and cannot become {after}"):
            lifecycle.check("k", before, after)


def test_nothing_leads_back_to_signing_and_revoked_is_final() -> None:
    assert {after for before, after in TRANSITIONS if before is Phase.REVOKED} == set()
    assert {before for before, after in TRANSITIONS if after is Phase.ACTIVE} == {Phase.PENDING}


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
