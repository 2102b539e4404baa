"""The audit chain, its pruning, and the requests, on every database."""

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

import pytest

from rotator.adapters.store import SqlStore
from rotator.core.audit import Broken, Mark, verify_chain
from rotator.core.events import GENESIS, Detail, EventName
from rotator.core.model import DEFAULT_KEYSET, Phase, WorkspaceId
from rotator.errors import InvariantError, StoreError
from rotator.ports import SEALED, AuditHead, RequestRow, Snapshot
from tests.contract.records import ACME, DAY, ENDLESS, FILE, HOUR, NOW, events, issue, key, keyset, workspace

MADE, ISSUED, RESTORED = EventName.KEY_MADE, EventName.TOKEN_ISSUED, EventName.STATE_RESTORED
BEGINNING = AuditHead(0, GENESIS, 0, GENESIS, 0)


def broken(snapshot: Snapshot) -> Broken | None:
    head = snapshot.audit_head()
    return verify_chain(snapshot.audit(), Mark(head.anchor_seq, head.anchor_hash), Mark(head.seq, head.hash))


def test_events_come_back_as_they_were_chained(store: SqlStore) -> None:
    """Each event is rebuilt exactly, so that its hash can be computed again."""
    written = [*events(MADE, ISSUED), events(MADE)[0]._replace(workspace=None, kid=None, jti=None, details={})]
    with store.begin() as transaction:
        assert transaction.audit_head() == BEGINNING
        assert transaction.append([]) == BEGINNING
        head = transaction.append(written)
        assert transaction.audit_head() == head
    with store.read() as snapshot:
        rows = list(snapshot.audit())
        assert [row.event for row in rows] == written
        assert [row.seq for row in rows] == [1, 2, 3]
        assert (head.seq, head.hash) == (3, rows[-1].hash)
        assert [row.seq for row in snapshot.audit(after=1)] == [2, 3]
        assert [row.seq for row in snapshot.audit(after=1, limit=1)] == [2]
        assert [snapshot.audit_hash(seq) for seq in (0, 2, 4)] == [GENESIS, rows[1].hash, None]
        assert broken(snapshot) is None


def test_chain_goes_on_over_transactions(store: SqlStore) -> None:
    """What was rolled back leaves no gap."""
    with store.begin() as transaction:
        transaction.append(events(MADE))
    with suppress(LookupError), store.begin() as transaction:
        transaction.append(events(ISSUED))
        raise LookupError
    with store.begin() as transaction:
        transaction.append(events(*[ISSUED] * 2_500))
    with store.read() as snapshot:
        assert snapshot.audit_head().seq == 2_501
        assert broken(snapshot) is None


def test_chain_leaps_over_what_a_restore_lost(store: SqlStore) -> None:
    """The numbers that the lost events had are not given again."""
    with store.begin() as transaction:
        transaction.append(events(MADE))
        assert transaction.append(events(RESTORED, ISSUED), first_seq=40).seq == 41
        with pytest.raises(InvariantError, match="already ends at 41"):
            transaction.append(events(RESTORED), first_seq=41)
    with store.read() as snapshot:
        assert [row.seq for row in snapshot.audit()] == [1, 40, 41]
        assert broken(snapshot) is None


@pytest.mark.parametrize(
    ("change", "seq"),
    [
        ("UPDATE audit SET actor = 'mallory' WHERE seq = 2", 2),
        ("UPDATE audit SET at = at + 1 WHERE seq = 3", 3),
        ("UPDATE audit SET details = '' WHERE seq = 1", 1),
        ("DELETE FROM audit WHERE seq = 2", 3),
        ("DELETE FROM audit WHERE seq = 4", 4),
        ("UPDATE audit SET seq = 9 WHERE seq = 2", 3),
    ],
)
def test_whatever_is_done_to_the_table_is_found(store: SqlStore, change: str, seq: int) -> None:
    with store.begin() as transaction:
        transaction.append(events(MADE, ISSUED, ISSUED, MADE))
    with store._for_writing.begin() as connection:
        connection.exec_driver_sql(change)
    with store.read() as snapshot:
        found = broken(snapshot)
    assert found is not None
    assert found.seq == seq


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit SET name = 'no.event'",
        "UPDATE audit SET details = '{'",
        "UPDATE audit SET details = '[]'",
        "UPDATE audit SET at = 9000000000000000000",
    ],
)
def test_event_that_cannot_be_one_is_reported(store: SqlStore, change: str) -> None:
    with store.begin() as transaction:
        transaction.append(events(MADE))
    with store._for_writing.begin() as connection:
        connection.exec_driver_sql(change)
    with store.read() as snapshot, pytest.raises(StoreError, match="audit event 1 is not one that rotator wrote"):
        list(snapshot.audit())


def test_log_mark_never_goes_back(store: SqlStore) -> None:
    with store.begin() as transaction:
        transaction.append(events(MADE, ISSUED))
        transaction.mark_logged(2)
        transaction.mark_logged(1)
        assert transaction.audit_head().logged_seq == 2


@pytest.mark.parametrize(
    ("logged", "before", "left"),
    [
        (3, NOW + 5 * DAY, [4]),  # what the log does not have yet stays
        (4, NOW + 5 * DAY, []),
        (4, NOW + 2 * DAY, [3, 4]),
        (4, NOW, [1, 2, 3, 4]),
        (0, NOW + 5 * DAY, [1, 2, 3, 4]),
    ],
)
def test_pruned_chain_still_holds(store: SqlStore, logged: int, before: datetime, left: list[int]) -> None:
    """Old events that the log has go; the chain then begins at the last of them, and goes on as before."""
    with store.begin() as transaction:
        for day in range(4):
            transaction.append(events(ISSUED, at=NOW + day * DAY))
        transaction.mark_logged(logged)
        hashes = [transaction.audit_hash(seq) for seq in range(5)]
        head = transaction.audit_head()
        assert transaction.prune(tokens_before=NOW, audit_before=before, at_most=99).events == 4 - len(left)
        anchor = 4 - len(left)
        assert [row.seq for row in transaction.audit()] == left
        assert transaction.audit_head() == replace(head, anchor_seq=anchor, anchor_hash=hashes[anchor] or "")
        assert transaction.audit_hash(anchor) == hashes[anchor]
        assert transaction.prune(tokens_before=NOW, audit_before=before, at_most=99).events == 0
        assert broken(transaction) is None
        transaction.append(events(MADE))
        assert broken(transaction) is None


def test_pruning_stops_at_the_first_event_that_is_not_old(store: SqlStore) -> None:
    """A clock that was set back leaves older instants behind newer ones: only the chain's beginning can go."""
    with store.begin() as transaction:
        for day in (0, 9, 1):
            transaction.append(events(ISSUED, at=NOW + day * DAY))
        transaction.mark_logged(3)
        assert transaction.prune(tokens_before=NOW, audit_before=NOW + 5 * DAY, at_most=99).events == 1
        assert [row.seq for row in transaction.audit()] == [2, 3]


def test_pruning_goes_on_where_it_left_off(store: SqlStore) -> None:
    """At most so many of each kind at once, whatever numbers are missing in the chain; then it says that it is done."""
    with store.begin() as transaction:
        transaction.append(events(ISSUED, at=NOW))
        transaction.append(events(ISSUED, ISSUED, ISSUED, ISSUED, at=NOW), first_seq=1001)
        transaction.mark_logged(1004)
        for number in range(3):
            transaction.finish_request(
                transaction.add_request(asked("token.show", {}, nonce=f"{number}")), NOW, succeeded=True, result=""
            )
        seen = [transaction.prune(tokens_before=NOW, audit_before=NOW + DAY, at_most=2) for _ in range(4)]
        assert seen == [(2, True), (2, True), (1, False), (0, False)]
        assert [row.seq for row in transaction.audit()] == []
        assert transaction.answered_requests(9) == ()
        transaction.append(events(MADE))
        assert broken(transaction) is None


def test_tokens_are_pruned_in_portions_with_their_deliveries(store: SqlStore) -> None:
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.insert_key(key(phase=Phase.RETIRED, sealed=None))
        transaction.insert_workspaces([workspace()])
        jtis = [issue(transaction, at=NOW + day * DAY).jti for day in range(4)]
        transaction.retire_tokens(jtis, NOW + 19 * DAY)
        left = []
        while transaction.prune(tokens_before=NOW + 99 * DAY, audit_before=NOW, at_most=2).more:
            left.append([token.jti for token in transaction.tokens()])
        assert left == [jtis[2:]]
        assert [token.jti for token in transaction.tokens()] == jtis[3:]


def test_ended_tokens_are_pruned_and_keys_are_not(store: SqlStore) -> None:
    """Live tokens stay, and the last one of a workspace that is still configured; deliveries go with their token."""
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.insert_key(key(phase=Phase.RETIRED, sealed=None))
        transaction.insert_workspaces([workspace(), workspace("removed"), workspace("live")])
        old, last = issue(transaction), issue(transaction, at=NOW + DAY)
        gone = issue(transaction, WorkspaceId("removed"))
        live = issue(transaction, WorkspaceId("live"), at=NOW + 20 * DAY)
        transaction.retire_tokens([old.jti, last.jti], NOW + 19 * DAY)
        transaction.revoke_token(gone.jti, NOW, "leaked")
        removed = transaction.workspace(WorkspaceId("removed"))
        assert removed is not None
        transaction.update_workspaces([removed._replace(removed_at=NOW)])
        transaction.prune(tokens_before=old.expires_at, audit_before=NOW, at_most=99)
        assert {token.jti for token in transaction.tokens()} == {gone.jti, old.jti, last.jti, live.jti}
        transaction.prune(tokens_before=NOW + 99 * DAY, audit_before=NOW, at_most=99)
        assert {token.jti for token in transaction.tokens()} == {last.jti, live.jti}
        assert [(row.workspace, row.sink) for row in transaction.deliveries()] == [(ACME, FILE), ("live", FILE)]
        assert len(transaction.all_keys()) == 1


# --------------------------------------------------------------------------------------------------------- requests


def asked(
    kind: str, arguments: Mapping[str, Detail], reason: str = "", *, nonce: str = "", **bound: Detail
) -> RequestRow:
    return RequestRow(
        id=0,
        kind=kind,
        arguments=arguments,
        actor="ada(1000)",
        uid=1000,
        reason=reason,
        created_at=NOW,
        nonce=nonce or f"nonce of {kind}",
        bound=bound,
        kek_id="kek-1",
        mac=b"\x00\xff",
    )


@pytest.mark.parametrize("succeeded", [True, False])
def test_what_a_request_held_sealed_goes_when_it_is_finished(store: SqlStore, succeeded: bool) -> None:
    """Whatever became of it; its other arguments stay."""
    arguments: dict[str, Detail] = {"keyset": "default", SEALED: "kek-1 c2VhbGVk", "until": None}
    with store.begin() as transaction:
        number = transaction.add_request(asked("key.import", arguments))
    with store.begin() as transaction:
        (waiting,) = transaction.open_requests()
        assert waiting.arguments == arguments
        transaction.finish_request(number, NOW + HOUR, succeeded=succeeded, result="done")
    with store.read() as snapshot:
        finished = snapshot.request(number)
    assert finished is not None
    assert finished.arguments == {"keyset": "default", "until": None}
    assert (finished.succeeded, finished.result) == (succeeded, "done")


def test_request_is_stored_answered_and_pruned(store: SqlStore) -> None:
    """Open ones come in the order of their making; an id is not given again after pruning."""
    with store.begin() as transaction:
        drafts = asked("token.show", {"workspace": ACME}, "märz"), asked("clock.accept", {}, kids='["k1"]')
        first, second = map(transaction.add_request, drafts)
    with store.begin() as transaction:
        waiting = transaction.open_requests()
        assert waiting == (replace(drafts[0], id=first), replace(drafts[1], id=second))
        assert transaction.request(first) == waiting[0]
        assert transaction.answered_requests(9) == ()
        transaction.finish_request(first, NOW + HOUR, succeeded=False, result="no such workspace")
        transaction.finish_request(second, NOW + HOUR, succeeded=True, result="done")
        assert transaction.open_requests() == ()
        assert transaction.request(first) == replace(
            waiting[0], finished_at=NOW + HOUR, succeeded=False, result="no such workspace"
        )
        assert transaction.request(second) == replace(waiting[1], finished_at=NOW + HOUR, succeeded=True, result="done")
        assert [row.id for row in transaction.answered_requests(9)] == [second, first]
        assert [row.id for row in transaction.answered_requests(1)] == [second]
        third = transaction.add_request(asked("config.accept", {}))
        transaction.prune(tokens_before=NOW, audit_before=NOW + HOUR, at_most=99)
        assert transaction.request(first) is not None
        transaction.prune(tokens_before=NOW, audit_before=NOW + DAY, at_most=99)
        assert transaction.request(second) is None
        assert [row.id for row in transaction.open_requests()] == [third]
        transaction.finish_request(third, NOW, succeeded=True, result="")
        transaction.prune(tokens_before=NOW, audit_before=NOW + DAY, at_most=99)
        assert transaction.add_request(asked("config.accept", {})) > third


def test_removed_keyset_name_is_no_part_of_the_chain_state(store: SqlStore) -> None:
    """Events name what they are about without depending on its row."""
    with store.begin() as transaction:
        transaction.append(events(MADE))
        assert transaction.keyset(DEFAULT_KEYSET) is None


class OverError(Exception):
    """What somebody who waits for no answer raises."""


def test_a_read_ends_in_the_midst_of_a_statement_when_it_is_over(store: SqlStore) -> None:
    """With what said so; the connection serves the next read."""
    began = threading.Event()

    def check() -> None:
        if began.is_set():
            raise OverError

    def read() -> None:
        with store.read(check) as snapshot:
            began.set()
            snapshot._connection.exec_driver_sql(ENDLESS)  # type: ignore[attr-defined]  # the real one's

    with pytest.raises(OverError):
        read()
    with store.read() as snapshot:
        assert snapshot.audit_head().seq == 0


def test_a_read_ends_between_two_rows_when_it_is_over(store: SqlStore) -> None:
    """However fast the database is: what is done with each row may take its time."""
    with store.begin() as transaction:
        transaction.append(events(*[EventName.KEY_MADE] * 10))
    looks = iter([None] * 5)

    def check() -> None:
        if next(looks, "over") == "over":
            raise OverError

    read: list[int] = []
    with pytest.raises(OverError), store.read(check) as snapshot:
        read += (row.seq for row in snapshot.audit())
    assert len(read) <= 5
