"""Workspaces, their tokens and the deliveries of these, on every database."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from rotator.adapters.store import SqlStore
from rotator.core.model import DEFAULT_KEYSET, Jti, KeysetName, Phase, SinkId, WorkspaceId, WorkspaceState
from rotator.errors import StoreError
from rotator.ports import DeliveryRow, Transaction
from tests.contract.records import (
    ACME,
    COMMAND,
    DAY,
    FILE,
    HOUR,
    KEK,
    KID,
    NOW,
    issue,
    issued,
    key,
    keyset,
    workspace,
)

OTHER = KeysetName("other")
LATER = NOW + 8 * DAY


@pytest.fixture(autouse=True)
def _signing_key(store: SqlStore) -> None:
    with store.begin() as transaction:
        transaction.put_keyset(keyset(due_at=NOW + 99 * DAY))
        transaction.put_keyset(keyset(OTHER, due_at=NOW + 99 * DAY))
        transaction.insert_key(key(phase=Phase.ACTIVE))


@pytest.fixture
def transaction(store: SqlStore) -> Iterator[Transaction]:
    with store.begin() as opened:
        opened.insert_workspaces([workspace()])
        yield opened


def state_of(transaction: Transaction, name: WorkspaceId = ACME) -> WorkspaceState:
    state = transaction.workspace(name)
    assert state is not None
    return state


def text_of(transaction: Transaction, jti: str) -> bytes | None:
    row = transaction.token(Jti(jti))
    assert row is not None
    return row.sealed


# ------------------------------------------------------------------------------------------------------- workspaces


def test_workspaces_come_back_as_they_were_inserted(store: SqlStore) -> None:
    """Every field is kept, in order of the ids, however many there are."""
    rows = [
        workspace(f"ws-{number:05}")._replace(due_at=NOW + number * HOUR, due_reason="claims_changed")
        for number in range(2_500)
    ]
    with store.begin() as transaction:
        transaction.insert_workspaces(list(reversed(rows)))
        transaction.insert_workspaces([])
    with store.read() as snapshot:
        assert list(snapshot.workspaces()) == rows
        assert snapshot.workspace(rows[7].id) == rows[7]
        assert snapshot.workspace(WorkspaceId("unknown")) is None
        assert snapshot.counts() == {"workspaces": 2_500, "tokens": 0, "events": 0}


def test_removed_workspace_that_comes_back_keeps_its_sequence_and_token(transaction: Transaction) -> None:
    """Its sinks hold a token with that number, and must not refuse the next one."""
    token = issue(transaction)
    before = state_of(transaction)
    transaction.fail_workspaces([ACME], NOW + HOUR, "broken")
    transaction.update_workspaces([before._replace(removed_at=NOW)])
    back = before._replace(due_at=NOW + HOUR, claims_fingerprint="new", returned_at=NOW + HOUR, deletes=(FILE,))
    transaction.insert_workspaces([back._replace(sequence=0, current=None)])
    assert state_of(transaction) == back
    assert state_of(transaction).current == token.jti
    assert transaction.workspace_faults() == ()


def test_workspace_that_another_replica_inserted_first_is_left_alone(transaction: Transaction) -> None:
    """Two replicas that load the same config do not make a new workspace due twice."""
    issue(transaction)
    before = state_of(transaction)
    transaction.insert_workspaces([workspace()])
    assert state_of(transaction) == before


def test_update_stores_what_a_config_changes(transaction: Transaction) -> None:
    """Everything but the current token, and the sequence only upwards."""
    token = issue(transaction)
    before = state_of(transaction)
    changed = before._replace(
        keyset=OTHER,
        sequence=1_000_001,
        due_at=NOW + HOUR,
        claims_fingerprint="c",
        schedule_fingerprint="s",
        sinks_fingerprint="k",
        due_reason="restored",
        removed_at=NOW + DAY,
        returned_at=NOW - DAY,
        deletes=(COMMAND, FILE),
    )
    transaction.update_workspaces([changed._replace(current=None, current_kid=None)])
    assert state_of(transaction) == changed
    assert state_of(transaction).current == token.jti
    transaction.update_workspaces([changed._replace(sequence=2, removed_at=None)])
    assert state_of(transaction) == changed._replace(removed_at=None)


def test_due_workspaces_are_those_whose_time_has_come(store: SqlStore) -> None:
    """Most overdue first, on the keysets asked for; not the removed, nor those put off; no more than asked for."""
    rows = [
        workspace("late", due_at=NOW - DAY),
        workspace("now", due_at=NOW),
        workspace("ahead", due_at=NOW + timedelta(microseconds=1)),
        workspace("elsewhere", keyset=OTHER, due_at=NOW - HOUR),
        workspace("failed", due_at=NOW - 2 * DAY),
        workspace("removed", due_at=NOW - 3 * DAY),
    ]
    with store.begin() as transaction:
        transaction.insert_workspaces(rows)
        transaction.fail_workspaces([WorkspaceId("failed")], NOW + HOUR, "no")
        transaction.update_workspaces([rows[-1]._replace(removed_at=NOW)])
    with store.read() as snapshot:

        def due(*keysets: KeysetName, at: datetime = NOW, limit: int = 10) -> list[str]:
            return [state.id for state in snapshot.due_workspaces(keysets, at, limit)]

        assert due(DEFAULT_KEYSET) == ["late", "now"]
        assert due(DEFAULT_KEYSET, OTHER) == ["late", "elsewhere", "now"]
        assert due(DEFAULT_KEYSET, OTHER, limit=1) == ["late"]
        assert due(DEFAULT_KEYSET, at=NOW + HOUR) == ["late", "now", "ahead", "failed"]
        assert due() == []
        assert snapshot.next_due([DEFAULT_KEYSET]) == NOW - DAY
        assert snapshot.next_due([OTHER]) == NOW - HOUR
        assert snapshot.next_due([]) == NOW + 99 * DAY
        assert snapshot.overdue_workspaces(NOW) == 3  # late, elsewhere and failed
        assert snapshot.overdue_workspaces(NOW + DAY) == 5


def test_failed_workspace_waits_and_is_named_until_it_succeeds(transaction: Transaction) -> None:
    """Failures are counted in a row; a token clears them."""
    transaction.insert_workspaces([workspace("well")])
    transaction.fail_workspaces([ACME], NOW + HOUR, "first")
    transaction.fail_workspaces([ACME], NOW + 2 * HOUR, "second")
    assert transaction.workspace_faults() == ((ACME, 2, "second"),)
    assert state_of(transaction).due_at == NOW
    assert [state.id for state in transaction.due_workspaces([DEFAULT_KEYSET], NOW + HOUR, 9)] == ["well"]
    assert len(transaction.due_workspaces([DEFAULT_KEYSET], NOW + 2 * HOUR, 9)) == 2
    issue(transaction)
    assert transaction.workspace_faults() == ()


def test_retry_never_comes_before_the_time_itself(transaction: Transaction) -> None:
    """A workspace that fails before it is due, as when it is put on hold, does not become due by it."""
    transaction.insert_workspaces([workspace("ahead", due_at=NOW + DAY)])
    transaction.fail_workspaces([WorkspaceId("ahead")], NOW, "no")
    assert [state.id for state in transaction.due_workspaces([DEFAULT_KEYSET], NOW + HOUR, 9)] == [ACME]


# ------------------------------------------------------------------------------------------------------------ issue


def test_issue_moves_the_workspace_on(transaction: Transaction) -> None:
    """The new token is current; when the next is due, and from what it was made, stands with the workspace."""
    transaction.update_workspaces([state_of(transaction)._replace(due_reason="claims_changed")])
    order = issued(state_of(transaction))
    assert transaction.issue([order])
    token = order.token
    assert state_of(transaction) == workspace()._replace(
        sequence=1,
        due_at=token.rotate_at,
        current=token.jti,
        current_kid=KID,
        current_issued_at=token.issued_at,
        current_expires_at=token.expires_at,
    )
    row = transaction.token(token.jti)
    assert row is not None
    assert (row.token, row.sealed, row.kek_id, row.reason) == (token, order.sealed, KEK, "security_period")
    assert transaction.next_due([DEFAULT_KEYSET]) == NOW  # the delivery


def test_prior_token_goes_to_grace(transaction: Transaction) -> None:
    """It stays valid to its end, and says since when it has a successor; a revoked one stays revoked."""
    first = issue(transaction)
    second = issue(transaction, at=LATER)
    transaction.revoke_token(second.jti, LATER, "leaked")
    third = issue(transaction, at=LATER + DAY)
    assert list(transaction.tokens(ACME)) == [
        first._replace(phase=Phase.GRACE, superseded_at=LATER),
        second._replace(phase=Phase.REVOKED, revoked_at=LATER),
        third,
    ]


def test_issue_refuses_a_workspace_that_moved_on(store: SqlStore) -> None:
    """One that another replica was first with, or that was removed, fails the batch, and nothing of it stays."""
    with store.begin() as transaction:
        transaction.insert_workspaces([workspace(), workspace("second"), workspace("removed")])
        stale = [issued(workspace("second")), issued(workspace())]
        removed = [issued(workspace("second")), issued(workspace("removed"))]
        issue(transaction)
        transaction.update_workspaces([workspace("removed")._replace(removed_at=NOW)])
    for batch in (stale, removed):
        with suppress(LookupError), store.begin() as transaction:
            assert not transaction.issue(batch)
            raise LookupError
    with store.read() as snapshot:
        assert [token.jti for token in snapshot.tokens()] == ["acme-1"]
        assert snapshot.workspace(WorkspaceId("second")) == workspace("second")


def test_whole_batch_is_issued(store: SqlStore) -> None:
    """As many rows as a batch has are counted right by every driver."""
    states = [workspace(f"ws-{number:04}") for number in range(2_500)]
    with store.begin() as transaction:
        transaction.insert_workspaces(states)
        assert transaction.issue([issued(state, sinks=(FILE, COMMAND)) for state in states])
        assert transaction.issue([])
        assert transaction.counts() == {"workspaces": 2_500, "tokens": 2_500, "events": 0}
        assert len(transaction.due_deliveries(NOW, 10_000)) == 5_000
        names = [state.id for state in states]
        current = transaction.current_tokens([*names, WorkspaceId("unknown")])
        assert {name: row.token.jti for name, row in current.items()} == {name: f"{name}-1" for name in names}
        again = [issued(state_of(transaction, state.id), at=LATER) for state in states]
        assert transaction.issue(again)
        assert len(transaction.expired_tokens(NOW + 99 * DAY, 10_000)) == 5_000


def test_jti_is_never_used_twice(store: SqlStore) -> None:
    with store.begin() as transaction:
        transaction.insert_workspaces([workspace(), workspace("second")])
        issue(transaction)
    twice = issued(workspace("second"))
    twice = twice._replace(token=twice.token._replace(jti=Jti("acme-1")))
    with pytest.raises(StoreError, match="breaks a rule"), store.begin() as transaction:
        transaction.issue([twice])


# ----------------------------------------------------------------------------------------------------------- tokens


def test_expired_tokens_are_found_once(transaction: Transaction) -> None:
    """Oldest first, only while active or in grace; retired, their text is gone."""
    transaction.insert_workspaces([workspace("revoked"), workspace("fresh")])
    first = issue(transaction)
    second = issue(transaction, at=LATER)
    revoked = issue(transaction, WorkspaceId("revoked"))
    issue(transaction, WorkspaceId("fresh"), at=NOW + 50 * DAY)
    transaction.revoke_token(revoked.jti, NOW, "leaked")
    end = second.expires_at + timedelta(microseconds=1)
    assert [token.jti for token in transaction.expired_tokens(end, 9)] == [first.jti, second.jti]
    assert [token.jti for token in transaction.expired_tokens(end, 1)] == [first.jti]
    assert transaction.expired_tokens(first.expires_at, 9) == ()
    transaction.retire_tokens([first.jti, second.jti, revoked.jti], end)
    assert transaction.expired_tokens(end, 9) == ()
    assert [token.phase for token in transaction.tokens(ACME)] == [Phase.RETIRED, Phase.RETIRED]
    assert [token.retired_at for token in transaction.tokens(ACME)] == [end, end]
    assert [token.phase for token in transaction.tokens(WorkspaceId("revoked"))] == [Phase.REVOKED]
    assert text_of(transaction, first.jti) is None
    assert transaction.counts()["tokens"] == 1


def test_revoked_token_keeps_its_first_revocation(transaction: Transaction) -> None:
    token = issue(transaction)
    transaction.revoke_token(token.jti, NOW, "leaked")
    transaction.revoke_token(token.jti, NOW + DAY, "again")
    row = transaction.token(token.jti)
    assert row is not None
    assert row.token == token._replace(phase=Phase.REVOKED, revoked_at=NOW)
    assert row.sealed is None


def test_tokens_of_all_are_listed_by_workspace_and_sequence(transaction: Transaction) -> None:
    transaction.insert_workspaces([workspace("aaa")])
    issue(transaction)
    issue(transaction, WorkspaceId("aaa"))
    issue(transaction)
    assert [token.jti for token in transaction.tokens()] == ["aaa-1", "acme-1", "acme-2"]
    assert transaction.token(Jti("unknown")) is None
    assert transaction.current_tokens([]) == {}


# ------------------------------------------------------------------------------------------------------- deliveries


def delivery(sink: SinkId = FILE) -> DeliveryRow:
    return DeliveryRow(
        workspace=ACME,
        sink=sink,
        jti=Jti("acme-1"),
        sequence=1,
        wanted_at=NOW,
        deadline=NOW + DAY,
        delivered_sequence=0,
        delivered_at=NOW - DAY,
        attempts=2,
        due_at=NOW + HOUR,
        last_error="exit status 7",
    )


def test_delivery_comes_back_as_it_was_put(transaction: Transaction) -> None:
    """Every field is kept; a second put replaces the first; dropping takes what it names."""
    transaction.want_deliveries([delivery(), delivery(COMMAND)])
    moved = replace(delivery(), due_at=None, delivered_sequence=1, attempts=0, last_error="")
    transaction.want_deliveries([moved])
    assert transaction.deliveries(ACME) == (delivery(COMMAND), moved)
    assert transaction.deliveries(WorkspaceId("other")) == ()
    transaction.drop_deliveries([(ACME, COMMAND)])
    transaction.drop_deliveries([])
    assert transaction.deliveries() == (moved,)


def test_claim_from_an_old_look_does_not_undo_a_newer_want(transaction: Transaction) -> None:
    """Another replica issued in between: the delivery of the new token stays as it is."""
    issue(transaction)
    old = transaction.deliveries(ACME)[0]
    issue(transaction, at=LATER)
    newer = transaction.deliveries(ACME)[0]
    transaction.want_deliveries([replace(old, due_at=LATER + DAY)])
    assert transaction.deliveries(ACME) == (newer,)


def test_due_deliveries_come_longest_due_first(transaction: Transaction) -> None:
    sinks = [SinkId(f"file:{number}") for number in range(4)]
    due_at = [NOW, NOW - HOUR, None, NOW + HOUR]
    transaction.want_deliveries([replace(delivery(sink), due_at=due) for sink, due in zip(sinks, due_at, strict=True)])
    assert [row.sink for row in transaction.due_deliveries(NOW, 9)] == [sinks[1], sinks[0]]
    assert [row.sink for row in transaction.due_deliveries(NOW, 1)] == [sinks[1]]
    assert [row.sink for row in transaction.due_deliveries(NOW, 1, 1)] == [sinks[0]]
    assert transaction.next_due([]) == NOW - HOUR


def test_leases_of_a_former_process_are_void_where_there_can_be_one_only(transaction: Transaction) -> None:
    """What waits after a failure goes on waiting; a replica's own leases are its own."""
    leased = replace(delivery(SinkId("file:leased")), attempts=0, last_error="", due_at=NOW + HOUR)
    due = replace(leased, sink=SinkId("file:due"), due_at=NOW - HOUR)
    made = replace(leased, sink=SinkId("file:made"), due_at=None, delivered_sequence=1)
    failed = delivery(SinkId("file:failed"))
    transaction.want_deliveries([leased, due, made, failed])
    transaction.release_leases(NOW)
    alone = transaction._connection.dialect.name == "sqlite"  # type: ignore[attr-defined]  # what the port hides
    expected = {leased.sink: replace(leased, due_at=NOW) if alone else leased}
    expected |= {row.sink: row for row in (due, made, failed)}
    assert {row.sink: row for row in transaction.deliveries(ACME)} == expected


def test_superseded_text_is_erased_when_the_last_sink_has_its_successor(transaction: Transaction) -> None:
    """Not before: a sink that is still open may be read by someone who has the prior token only."""
    both = (FILE, COMMAND)
    first = issue(transaction, sinks=both)
    second = issue(transaction, at=LATER, sinks=both)
    assert transaction.delivered(ACME, FILE, 2, LATER)
    assert text_of(transaction, first.jti) is not None
    assert transaction.delivered(ACME, COMMAND, 2, LATER + HOUR)
    assert text_of(transaction, first.jti) is None
    assert text_of(transaction, second.jti) is not None
    rows = transaction.deliveries(ACME)
    assert [(row.delivered_sequence, row.delivered_at, row.due_at) for row in rows] == [
        (2, LATER + HOUR, None),
        (2, LATER, None),
    ]
    assert transaction.next_due([]) == NOW + 99 * DAY


def test_superseded_text_is_erased_when_the_open_sink_is_dropped(transaction: Transaction) -> None:
    first = issue(transaction, sinks=(FILE, COMMAND))
    issue(transaction, at=LATER, sinks=(FILE, COMMAND))
    transaction.delivered(ACME, FILE, 2, LATER)
    transaction.drop_deliveries([(ACME, COMMAND)])
    assert text_of(transaction, first.jti) is None


def test_workspace_without_sinks_keeps_the_current_text_only(transaction: Transaction) -> None:
    """Nobody waits for a delivery, so the prior text goes at once."""
    first = issue(transaction, sinks=())
    second = issue(transaction, sinks=())
    assert text_of(transaction, first.jti) is None
    assert text_of(transaction, second.jti) is not None
    assert transaction.deliveries() == ()


def test_delivery_never_goes_back(transaction: Transaction) -> None:
    """A second or an older delivery changes nothing, and says so; so does one to a sink that is gone."""
    issue(transaction)
    issue(transaction, at=LATER)
    assert transaction.delivered(ACME, FILE, 2, LATER)
    before = transaction.deliveries()
    assert not transaction.delivered(ACME, FILE, 2, LATER + HOUR)
    assert not transaction.delivered(ACME, FILE, 1, LATER + HOUR)
    assert not transaction.delivered(ACME, COMMAND, 2, LATER + HOUR)
    assert transaction.deliveries() == before


def test_delivery_of_an_earlier_token_leaves_the_later_one_due(transaction: Transaction) -> None:
    """The sink then holds the earlier one: its end is the deadline, and the wait counts from when it was superseded."""
    first = issue(transaction)
    second = issue(transaction, at=LATER)
    assert transaction.delivered(ACME, FILE, 1, LATER + HOUR)
    (row,) = transaction.deliveries()
    assert (row.jti, row.sequence, row.delivered_sequence, row.due_at) == (second.jti, 2, 1, LATER)
    assert (row.wanted_at, row.deadline) == (LATER, first.expires_at)
    assert text_of(transaction, first.jti) is not None


def test_unanswered_delivery_keeps_its_deadline(transaction: Transaction) -> None:
    """While a sink stays without its token, a newer one does not make the alarm start anew."""
    issue(transaction)
    (before,) = transaction.deliveries()
    transaction.delivery_failed(ACME, FILE, 1, NOW + HOUR, "no route")
    second = issue(transaction, at=LATER)
    (row,) = transaction.deliveries()
    assert row == replace(before, jti=second.jti, sequence=2, due_at=LATER)
    assert transaction.delivered(ACME, FILE, 2, LATER)
    issue(transaction, at=LATER + DAY)
    (row,) = transaction.deliveries()
    assert (row.wanted_at, row.deadline) == (LATER + DAY, second.expires_at)


def test_failed_delivery_is_put_off_and_alarms_until_it_succeeds(transaction: Transaction) -> None:
    """Attempts are counted for the wanted token alone."""
    issue(transaction, sinks=(FILE, COMMAND))
    assert transaction.delivery_alarms(NOW) == ()
    transaction.delivery_failed(ACME, FILE, 1, NOW + HOUR, "first")
    transaction.delivery_failed(ACME, FILE, 1, NOW + 2 * HOUR, "second")
    transaction.delivery_failed(ACME, FILE, 7, NOW + 9 * HOUR, "of another token")
    (alarm,) = transaction.delivery_alarms(NOW)
    assert (alarm.workspace, alarm.sink, alarm.attempts, alarm.last_error) == (ACME, FILE, 2, "second")
    assert (alarm.wanted_at, alarm.deadline) == (NOW, NOW + DAY)
    assert [row.sink for row in transaction.due_deliveries(NOW + HOUR, 9)] == [COMMAND]
    assert transaction.delivered(ACME, FILE, 1, NOW + 3 * HOUR)
    assert transaction.delivery_alarms(NOW + 3 * HOUR) == ()


@pytest.mark.parametrize(
    ("grace", "open_for", "late"),
    [
        (DAY, 5 * HOUR, False),
        (DAY, 6 * HOUR, True),
        (timedelta(0), timedelta(seconds=59), False),
        (timedelta(0), timedelta(minutes=1), True),
        (-DAY, timedelta(minutes=1), True),
    ],
)
def test_open_delivery_alarms_though_nobody_tried_it(
    transaction: Transaction, grace: timedelta, open_for: timedelta, late: bool
) -> None:
    """By what its sink holds: a quarter of the grace of that, or a minute where it holds nothing valid."""
    made = replace(delivery(COMMAND), due_at=None, delivered_sequence=1)
    transaction.want_deliveries([replace(delivery(), attempts=0, deadline=NOW + grace), made])
    assert [alarm.sink for alarm in transaction.delivery_alarms(NOW + open_for)] == [FILE] * late


def test_token_that_was_revoked_ends_the_grace_of_a_sink_that_holds_an_older_one(transaction: Transaction) -> None:
    issue(transaction)
    transaction.delivered(ACME, FILE, 1, NOW)
    issue(transaction, at=LATER)
    transaction.revoke_tokens_of_key(KID, LATER + HOUR, LATER + HOUR)
    issue(transaction, at=LATER + HOUR)
    (row,) = transaction.deliveries()
    assert (row.wanted_at, row.deadline) == (LATER, LATER + HOUR)


def test_what_is_put_off_is_due_later_and_nothing_else_of_it_changes(transaction: Transaction) -> None:
    """One that wants another token by now, or none, is left alone."""
    made = replace(delivery(COMMAND), due_at=None, delivered_sequence=1)
    transaction.want_deliveries([delivery(), made])
    transaction.put_off([replace(row, due_at=LATER, last_error="", attempts=0) for row in (delivery(), made)])
    assert transaction.deliveries() == (made, replace(delivery(), due_at=LATER))
    transaction.put_off([replace(delivery(), sequence=2, due_at=NOW)])
    assert transaction.deliveries() == (made, replace(delivery(), due_at=LATER))


def test_lost_delivery_is_made_again(transaction: Transaction) -> None:
    """Only of the wanted token, and only once it was made."""
    issue(transaction)
    transaction.redeliver(ACME, FILE, 1, LATER)
    assert transaction.due_deliveries(NOW, 9) != ()
    transaction.delivered(ACME, FILE, 1, NOW)
    transaction.redeliver(ACME, FILE, 7, LATER)
    assert transaction.due_deliveries(LATER, 9) == ()
    transaction.redeliver(ACME, FILE, 1, LATER)
    (row,) = transaction.due_deliveries(LATER, 9)
    assert (row.due_at, row.wanted_at, row.deadline) == (LATER, LATER, LATER)
    assert transaction.delivered(ACME, FILE, 1, LATER)


def test_many_deliveries_are_recorded_as_each_alone(transaction: Transaction) -> None:
    """But for what is wanted no more, which is left to be recorded by itself."""
    first = issue(transaction, sinks=(FILE, COMMAND))
    file, command = sorted(transaction.deliveries(ACME), key=lambda row: row.sink != FILE)
    assert transaction.delivered_as_wanted([file, command], NOW) == []
    assert [(row.delivered_sequence, row.due_at) for row in transaction.deliveries()] == [(1, None), (1, None)]
    issue(transaction, at=LATER, sinks=(FILE, COMMAND))
    wanted = [row for row in transaction.deliveries() if row.sink == FILE]
    assert transaction.delivered_as_wanted([*wanted, command], LATER) == [command]
    assert text_of(transaction, first.jti) is not None
    held = {row.sink: row.delivered_sequence for row in transaction.deliveries()}
    assert held == {FILE: 2, COMMAND: 1}
    assert transaction.delivered_as_wanted(wanted, LATER) == wanted
    wanted = [row for row in transaction.deliveries() if row.sink == COMMAND]
    assert transaction.delivered_as_wanted(wanted, LATER) == []
    assert text_of(transaction, first.jti) is None
