"""Revocation in bulk: which tokens and workspaces the end of a key reaches, on both databases."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import pytest

from rotator.adapters.store import SqlStore
from rotator.core.actions import Reason
from rotator.core.model import DEFAULT_KEYSET, Kid, Phase, WorkspaceId, WorkspaceState
from rotator.ports import Reach, RevokedTokens, Target, Transaction
from tests.contract.records import ACME, DAY, FILE, HOUR, KID, NOW, due_of, issue, issued, key, keyset, workspace

OTHER = Kid("kid-2")
LATER = NOW + 2 * DAY


@pytest.fixture
def world(store: SqlStore) -> Iterator[Transaction]:
    """Two keys, and one workspace."""
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.insert_key(key(phase=Phase.GRACE, sealed=None))
        transaction.insert_key(key(OTHER, phase=Phase.ACTIVE, sequence=2))
        transaction.insert_workspaces([workspace()])
        yield transaction


def state_of(transaction: Transaction, name: WorkspaceId = ACME) -> WorkspaceState:
    state = transaction.workspace(name)
    assert state is not None
    return state


def test_the_tokens_on_a_key_are_revoked_and_their_text_is_gone(world: Transaction) -> None:
    """The current one and those that it superseded; not those on other keys."""
    first, second = issue(world), issue(world, at=NOW + HOUR)
    world.insert_workspaces([workspace("elsewhere")])
    assert world.issue([issued(state_of(world, WorkspaceId("elsewhere")), kid=OTHER)])
    assert world.revoke_tokens_of_key(KID, LATER, LATER) == RevokedTokens(tokens=2, workspaces=1)
    for token in (first, second):
        row = world.token(token.jti)
        assert row is not None
        assert (row.token.phase, row.token.revoked_at, row.sealed) == (Phase.REVOKED, LATER, None)
    (spared,) = world.tokens(WorkspaceId("elsewhere"))
    assert spared.phase is Phase.ACTIVE
    assert state_of(world, WorkspaceId("elsewhere")).due_at == spared.rotate_at


def test_what_was_revoked_by_itself_is_told_until_it_ends(world: Transaction) -> None:
    """What left with its key needs no remembering of its own."""
    by_itself, with_its_key = issue(world), issue(world, at=NOW + HOUR)
    world.revoke_token(by_itself.jti, LATER, Reason.TOKEN_REVOKED)
    world.revoke_tokens_of_key(KID, LATER, LATER)
    assert world.revoked_tokens(LATER) == {by_itself.jti: by_itself.expires_at}
    assert world.revoked_tokens(by_itself.expires_at) == {}
    row = world.token(with_its_key.jti)
    assert row is not None
    assert row.token.phase is Phase.REVOKED


def test_its_workspaces_are_due_at_once_and_say_why(world: Transaction) -> None:
    issue(world)
    world.revoke_tokens_of_key(KID, LATER, LATER)
    state = state_of(world)
    assert (state.due_at, state.due_reason) == (LATER, Reason.KEY_REVOKED)
    assert tuple(world.due_workspaces([DEFAULT_KEYSET], LATER, 9)) == (due_of(state),)
    assert world.next_due([DEFAULT_KEYSET]) == NOW  # the delivery


def test_who_was_due_before_stays_so(world: Transaction) -> None:
    issue(world)
    world.update_workspaces([state_of(world)._replace(due_at=NOW)])
    world.revoke_tokens_of_key(KID, LATER, LATER)
    assert state_of(world).due_at == NOW
    assert tuple(world.due_workspaces([DEFAULT_KEYSET], NOW, 9)) == (due_of(state_of(world)),)


def test_what_failed_keeps_its_pause(world: Transaction) -> None:
    """What it failed by is still there; it is told so, and tried again when it would have been."""
    issue(world)
    world.fail_workspaces([ACME], LATER + HOUR, "no")
    world.revoke_tokens_of_key(KID, LATER, LATER)
    assert tuple(world.due_workspaces([DEFAULT_KEYSET], LATER, 9)) == ()
    assert len(world.due_workspaces([DEFAULT_KEYSET], LATER + HOUR, 9)) == 1


def test_a_token_that_has_ended_is_not_revoked_and_a_workspace_that_left_is_not_due(world: Transaction) -> None:
    """The token of one that left is revoked all the same: it is out."""
    token = issue(world)
    world.update_workspaces([state_of(world)._replace(removed_at=NOW)])
    assert world.revoke_tokens_of_key(KID, token.expires_at, token.expires_at) == RevokedTokens(0, 0)
    assert world.revoke_tokens_of_key(KID, LATER, LATER) == RevokedTokens(tokens=1, workspaces=0)
    assert state_of(world).due_at == token.rotate_at


def test_once_more_finds_no_tokens_and_the_workspaces_that_still_wait(world: Transaction) -> None:
    """A revocation that was cut off in its middle is begun again."""
    issue(world)
    world.revoke_tokens_of_key(KID, LATER, LATER)
    assert world.revoke_tokens_of_key(KID, LATER + HOUR, LATER + HOUR) == RevokedTokens(tokens=0, workspaces=1)
    assert state_of(world).due_at == LATER
    assert world.issue([issued(state_of(world), at=LATER + HOUR, kid=OTHER)])
    assert world.revoke_tokens_of_key(KID, LATER + HOUR, LATER + HOUR) == RevokedTokens(0, 0)
    assert [token.phase for token in world.tokens(ACME)] == [Phase.REVOKED, Phase.ACTIVE]


# -------------------------------------------------------------------------------------------------------------- reach


def reach_of(transaction: Transaction, target: Target, since: datetime | None = None) -> Reach:
    return transaction.reach(target, NOW + HOUR, revoked_since=since, limit=9)


def test_reach_of_a_key_before_and_after_its_revocation(world: Transaction) -> None:
    """The same tokens and workspaces, whether or not they are replaced by now."""
    superseded, current = issue(world), issue(world, at=NOW + HOUR)
    before = reach_of(world, Target(kids=(KID,)))
    assert (before.tokens, before.workspaces, before.waiting, before.left) == (2, 1, 1, 0)
    assert before.last_exp == max(superseded.expires_at, current.expires_at)
    assert (before.deliveries, before.deliveries_open) == (1, 1)
    world.revoke_tokens_of_key(KID, LATER, LATER)
    assert reach_of(world, Target(kids=(KID,))).tokens == 0
    after = reach_of(world, Target(kids=(KID,)), LATER)
    assert replace(after, open_deliveries=()) == before
    assert world.issue([issued(state_of(world), at=LATER, kid=OTHER)])
    reissued = reach_of(world, Target(kids=(KID,)), LATER)
    assert (reissued.tokens, reissued.workspaces, reissued.waiting) == (2, 1, 0)
    assert (reissued.deliveries, reissued.deliveries_open, reissued.deliveries_failing) == (1, 1, 0)
    world.delivery_failed(ACME, FILE, 3, LATER, "no")
    failing = reach_of(world, Target(kids=(KID,)), LATER)
    assert failing.deliveries_failing == 1
    assert [row.last_error for row in failing.open_deliveries] == ["no"]
    assert world.delivered(ACME, FILE, 3, LATER)
    assert reach_of(world, Target(kids=(KID,)), LATER).deliveries_open == 0


def test_reach_leaves_out_what_was_revoked_before(world: Transaction) -> None:
    issue(world)
    world.revoke_tokens_of_key(KID, NOW + HOUR, NOW + HOUR)
    assert reach_of(world, Target(kids=(KID,)), LATER).tokens == 0


def test_reach_of_what_left_the_config_and_of_nothing(world: Transaction) -> None:
    """Its token counts, and it gets no new one."""
    issue(world)
    world.update_workspaces([state_of(world)._replace(removed_at=NOW)])
    found = reach_of(world, Target(kids=(KID,)))
    assert (found.tokens, found.workspaces, found.waiting, found.left) == (1, 1, 0, 1)
    nothing = reach_of(world, Target(kids=(OTHER,)))
    assert (nothing.tokens, nothing.last_exp, nothing.workspaces, nothing.deliveries) == (0, None, 0, 0)


def test_reach_of_a_workspace_and_of_one_token(world: Transaction) -> None:
    first, second = issue(world), issue(world, at=NOW + HOUR)
    assert reach_of(world, Target(workspace=ACME)).tokens == 2
    assert reach_of(world, Target(workspace=ACME)).workspaces == 1
    old, new = reach_of(world, Target(jti=first.jti)), reach_of(world, Target(jti=second.jti))
    assert (old.tokens, old.workspaces) == (1, 0)
    assert (new.tokens, new.workspaces) == (1, 1)
