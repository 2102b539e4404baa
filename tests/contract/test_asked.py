"""What operators asked for, and what hangs on a key, on every database."""

from dataclasses import replace
from datetime import timedelta

from rotator.adapters.store import SqlStore
from rotator.core.model import DEFAULT_KEYSET, Jti, KeysetName, Kid, Overlap, Phase, Wish, WorkspaceId
from rotator.ports import KeyHolder, KeyLoad, Transaction
from tests.contract.records import ACME, DAY, HOUR, KID, NOW, due_of, issue, issued, key, keyset, workspace

WISH = Wish(asked_at=NOW, actor="ada(1000)", reason="ärger", emergency=True)


def set_up(transaction: Transaction) -> None:
    transaction.put_keyset(keyset(due_at=NOW + DAY))
    transaction.insert_key(key(phase=Phase.ACTIVE))
    transaction.insert_workspaces([workspace()])


# --------------------------------------------------------------------------------------------------------------- wishes


def test_a_wish_comes_back_as_it_was_put_until_it_is_dropped(store: SqlStore) -> None:
    """One for each keyset; a second one takes the place of the first."""
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.put_keyset(keyset("payments"))
        transaction.put_wish(DEFAULT_KEYSET, replace(WISH, emergency=False))
        transaction.put_wish(DEFAULT_KEYSET, WISH)
    with store.read() as snapshot:
        assert snapshot.wish(DEFAULT_KEYSET) == WISH
        assert snapshot.wish(KeysetName("payments")) is None
    with store.begin() as transaction:
        transaction.drop_wish(DEFAULT_KEYSET)
    with store.read() as snapshot:
        assert snapshot.wish(DEFAULT_KEYSET) is None


# ------------------------------------------------------------------------------------------------------------- overlaps


def overlap(number: int, *, ends_at: timedelta) -> Overlap:
    return Overlap(Jti(f"acme-{number}"), ACME, NOW + ends_at, "ada(1000)", "leaked")


def test_the_earlier_end_of_two_overlaps_stands(store: SqlStore) -> None:
    """Whoever asked for it: what was to count as revoked does not come back to life."""
    with store.begin() as transaction:
        transaction.put_overlaps([overlap(1, ends_at=HOUR)])
        transaction.put_overlaps([replace(overlap(1, ends_at=2 * HOUR), actor="bob(1001)")])
    with store.read() as snapshot:
        assert snapshot.overlaps() == (overlap(1, ends_at=HOUR),)
    with store.begin() as transaction:
        transaction.put_overlaps([replace(overlap(1, ends_at=DAY / 48), actor="bob(1001)")])
        transaction.put_overlaps([overlap(2, ends_at=timedelta(0))])
    with store.read() as snapshot:
        assert [(each.jti, each.ends_at, each.actor) for each in snapshot.overlaps()] == [
            ("acme-2", NOW, "ada(1000)"),
            ("acme-1", NOW + DAY / 48, "bob(1001)"),
        ]


def test_an_overlap_is_over_once_its_token_has_a_successor(store: SqlStore) -> None:
    """Before that it is neither due nor waited for: the workspace has no other token."""
    with store.begin() as transaction:
        set_up(transaction)
        issue(transaction, sinks=())
        transaction.put_overlaps([overlap(1, ends_at=HOUR)])
    with store.read() as snapshot:
        assert snapshot.ended_overlaps(NOW + DAY, 9) == ()
        assert snapshot.next_due([]) == NOW + DAY  # the keyset
    with store.begin() as transaction:
        issue(transaction, sinks=())
    with store.read() as snapshot:
        assert snapshot.ended_overlaps(NOW + HOUR - timedelta(microseconds=1), 9) == ()
        assert snapshot.ended_overlaps(NOW + HOUR, 9) == (overlap(1, ends_at=HOUR),)
        assert snapshot.next_due([]) == NOW + HOUR
    with store.begin() as transaction:
        transaction.drop_overlaps([Jti("acme-1")])
    with store.read() as snapshot:
        assert snapshot.overlaps() == ()
        assert snapshot.next_due([]) == NOW + DAY


def test_an_overlap_of_a_token_that_is_gone_is_over_too(store: SqlStore) -> None:
    """It expired, was revoked, or was pruned: nothing is left to wait for."""
    with store.begin() as transaction:
        transaction.put_overlaps([overlap(7, ends_at=HOUR)])
    with store.read() as snapshot:
        assert snapshot.ended_overlaps(NOW + HOUR, 9) == (overlap(7, ends_at=HOUR),)


# ----------------------------------------------------------------------------------------------------------- workspaces


def test_a_workspace_is_made_due_and_its_token_ends_earlier(store: SqlStore) -> None:
    """A failure before is forgotten; the end of the current token is never put off."""
    with store.begin() as transaction:
        set_up(transaction)
        token = issue(transaction)
        transaction.fail_workspaces([ACME], NOW + DAY, "no")
        state = transaction.lock_workspace(ACME)
        assert state is not None
        assert transaction.make_due(ACME, NOW, "requested", None)
        unshortened = transaction.workspace(ACME)
        assert unshortened is not None
        assert unshortened.current_expires_at == state.current_expires_at
        assert transaction.make_due(ACME, NOW + HOUR, "requested", NOW + 2 * HOUR)
        assert transaction.make_due(ACME, NOW + HOUR, "requested", NOW + 3 * HOUR)
        assert not transaction.make_due(WorkspaceId("nobody"), NOW, "requested", NOW)
        assert transaction.lock_workspace(WorkspaceId("nobody")) is None
    with store.read() as snapshot:
        (due,) = snapshot.due_workspaces([DEFAULT_KEYSET], NOW + HOUR, 9)
        stored = state._replace(due_at=NOW + HOUR, due_reason="requested", current_expires_at=NOW + 2 * HOUR)
        assert snapshot.workspace(ACME) == stored
        assert due == due_of(stored)
        assert snapshot.workspace_faults() == ()
        kept = snapshot.token(token.jti)
        assert kept is not None
        assert kept.token.expires_at == token.expires_at
    with store.begin() as transaction:
        issue(transaction)
        renewed = transaction.workspace(ACME)
        assert renewed is not None
        assert (renewed.due_reason, renewed.current_expires_at) == ("", NOW + 9 * DAY)


# --------------------------------------------------------------------------------------------------------------- a key


def test_what_hangs_on_a_key_is_counted_and_its_first_holders_are_named(store: SqlStore) -> None:
    """Expired, retired and revoked tokens do not count, nor those on another key."""
    names = [WorkspaceId(name) for name in ("ant", "bee", "cat", "dog", "eel")]
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.insert_key(key(phase=Phase.ACTIVE))
        transaction.insert_key(key("kid-2", sequence=2, phase=Phase.GRACE, sealed=None))
        transaction.insert_workspaces([workspace(name) for name in names])
        for name in names:
            issue(transaction, name)
        issue(transaction, WorkspaceId("ant"), at=NOW + DAY)
        state = transaction.workspace(WorkspaceId("eel"))
        assert state is not None
        assert transaction.issue([issued(state, kid=Kid("kid-2"))])
        transaction.revoke_token(Jti("cat-1"), NOW, "leaked")
        transaction.retire_tokens([Jti("dog-1")], NOW)
    with store.read() as snapshot:
        assert snapshot.tokens_on_key(KID, NOW, 2) == KeyLoad(
            tokens=4,
            workspaces=3,
            last_exp=NOW + 10 * DAY,
            holders=(
                KeyHolder(WorkspaceId("ant"), 2, NOW + 10 * DAY),
                KeyHolder(WorkspaceId("bee"), 1, NOW + 9 * DAY),
            ),
        )
        assert snapshot.tokens_on_key(KID, NOW + 9 * DAY, 2).tokens == 1
        assert snapshot.tokens_on_key(Kid("kid-3"), NOW, 2) == KeyLoad(
            tokens=0, workspaces=0, last_exp=None, holders=()
        )
