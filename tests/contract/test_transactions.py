"""Transactions: whole or not at all, apart from each other, from several threads."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa

from rotator.adapters.store import SqlStore, open_store
from rotator.core.audit import Mark, verify_chain
from rotator.core.events import GENESIS, EventName
from rotator.core.model import DEFAULT_KEYSET, Jti, Kid, Phase, WorkspaceId
from rotator.errors import StoreError
from rotator.ports import Store
from tests.contract.records import DAY, KID, NOW, events, issued, key, keyset, workspace


@pytest.fixture
def second(store: SqlStore, url: str) -> Iterator[SqlStore]:
    """Open the same database once more, as another process does."""
    opened = open_store(url, create=False)
    yield opened
    opened.close()


def test_only_the_first_open_creates(store: SqlStore, second: SqlStore) -> None:
    """The installation is named once, and keeps its name."""
    assert (store.created, second.created) == (True, False)
    with store.read() as mine, second.read() as theirs:
        assert mine.installation() == theirs.installation()
        assert UUID(mine.installation()).version == 4


def test_rollback_leaves_nothing(store: SqlStore) -> None:
    """Whatever is raised in the block, nothing of it was written, and the error is the caller's own."""
    with suppress(LookupError), store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.append(events(EventName.KEYSET_CREATED))
        raise LookupError
    with store.read() as snapshot:
        assert snapshot.keysets() == ()
        assert snapshot.audit_head().seq == 0


def test_read_sees_one_state(store: SqlStore, second: SqlStore) -> None:
    """What is committed during a read is not in it, and blocks neither side."""
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
    with store.read() as snapshot:
        before = snapshot.keyset(DEFAULT_KEYSET)
        with second.begin() as transaction:
            transaction.put_keyset(replace(keyset(), generation=1))
            transaction.append(events(EventName.KEYSET_PUBLISHED))
        assert snapshot.keyset(DEFAULT_KEYSET) == before
        assert snapshot.audit_head().seq == 0
    with store.read() as snapshot:
        assert snapshot.audit_head().seq == 1


def test_read_writes_nothing(store: SqlStore, second: SqlStore) -> None:
    """A snapshot that was left half read lets others write, and its own connection be used again."""
    with store.begin() as transaction:
        transaction.insert_workspaces([workspace(f"ws-{number:04}") for number in range(3_000)])
    with store.read() as snapshot:
        listing = snapshot.workspaces()
        assert next(listing).id == "ws-0000"  # and `listing` lives on
    with second.begin() as transaction:
        transaction.update_workspaces([workspace("ws-0001")._replace(due_at=NOW + DAY)])
    assert store.purge_erased()


def test_locked_keyset_is_worked_on_by_one(store: SqlStore, second: SqlStore) -> None:
    """The other waits, and then sees what the first one did."""
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
    order: list[str] = []
    locked = threading.Event()

    def other() -> int:
        locked.wait()
        with second.begin() as transaction:
            row = transaction.lock_keyset(DEFAULT_KEYSET)
            order.append("other")
            assert row is not None
            return row.generation

    with ThreadPoolExecutor(1) as pool:
        with store.begin() as transaction:
            row = transaction.lock_keyset(DEFAULT_KEYSET)
            assert row is not None
            waiting = pool.submit(other)
            locked.set()
            threading.Event().wait(0.1)  # time for the other to go wrong, if it can
            transaction.put_keyset(replace(row, generation=row.generation + 1))
            order.append("first")
        assert waiting.result() == 1
    assert order == ["first", "other"]


def test_two_replicas_issue_each_token_once(store: SqlStore, second: SqlStore) -> None:
    """Both plan the same batch: one commits it, the other is told, whichever comes first."""
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.insert_key(key(phase=Phase.ACTIVE))
        transaction.insert_workspaces([workspace(f"ws-{number}") for number in range(50)])
    with store.read() as snapshot:
        batch = [issued(state) for state in snapshot.workspaces()]

    def commit(at: Store, ours: str) -> bool:
        orders = [order._replace(token=order.token._replace(jti=Jti(f"{order.token.jti}-{ours}"))) for order in batch]
        with suppress(LookupError), at.begin() as transaction:
            assert transaction.raise_last_exp(KID, NOW + 9 * DAY)
            if not transaction.issue(orders):
                raise LookupError
            transaction.append(events(*[EventName.TOKEN_ISSUED] * len(batch)))
            return True
        return False

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(commit, (store, second), ("a", "b")))
    assert sorted(done) == [False, True]
    with store.read() as snapshot:
        assert snapshot.counts() == {"workspaces": 50, "tokens": 50, "events": 50}


def test_chain_holds_whoever_writes_to_it(store: SqlStore, second: SqlStore) -> None:
    """Many threads of two processes append; every event is there, in one chain."""

    def write(number: int) -> None:
        with (store, second)[number % 2].begin() as transaction:
            transaction.append(events(EventName.TOKEN_ISSUED, EventName.TOKEN_DELIVERED))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(30)))
    with store.read() as snapshot:
        rows = list(snapshot.audit())
        head = snapshot.audit_head()
    assert len(rows) == 60
    assert verify_chain(rows, Mark(0, GENESIS), Mark(head.seq, head.hash)) is None


def test_demotion_waits_for_a_batch_and_a_batch_sees_a_demotion(store: SqlStore, second: SqlStore) -> None:
    """A key is never demoted with a ``last_exp`` from before a batch that commits beside it."""
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.insert_key(key(phase=Phase.ACTIVE))
    demoted = replace(key(phase=Phase.GRACE).key, has_private=False, last_exp=NOW)

    def demote() -> None:
        with second.begin() as transaction:
            transaction.update_key(demoted)

    with ThreadPoolExecutor(1) as pool:
        with store.begin() as transaction:
            assert transaction.raise_last_exp(KID, NOW + DAY)
            waiting = pool.submit(demote)
            threading.Event().wait(0.1)  # time for the other to go wrong, if it can
        waiting.result()
    with store.begin() as transaction:
        row = transaction.key(KID)
        assert row is not None
        assert row.key.last_exp == NOW + DAY
        assert not transaction.raise_last_exp(KID, NOW + 2 * DAY)


def test_read_only_store_changes_nothing(store: SqlStore, url: str) -> None:
    """It reads beside a writer, and refuses to write."""
    reader = open_store(url, create=False, read_only=True)
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        with reader.read() as snapshot:
            assert snapshot.keysets() == ()
    with reader.read() as snapshot:
        assert snapshot.keysets() == (keyset(),)
    with pytest.raises(StoreError, match="opened to be read only"), reader.begin():
        pass
    reader.close()


def test_foreign_keys_hold(store: SqlStore) -> None:
    with pytest.raises(StoreError, match="breaks a rule"), store.begin() as transaction:
        transaction.insert_key(key())


@pytest.mark.parametrize("read_only", [False, True])
def test_empty_database_is_not_taken_for_ours(url: str, tmp_path: Path, read_only: bool) -> None:
    """Without ``create`` nothing is made, and the message says how to start."""
    (tmp_path / "rotator.db").touch()
    with pytest.raises(StoreError, match=r"is empty\. `rotator run` fills it"):
        open_store(url, create=False, read_only=read_only)


def test_half_made_database_is_made_whole(url: str, tmp_path: Path) -> None:
    """Killed between making the file and filling it, the next start goes on from there."""
    (tmp_path / "rotator.db").touch()
    opened = open_store(url, create=True)
    assert opened.created
    opened.close()


def test_tables_of_another_program_are_left_alone(url: str, tmp_path: Path) -> None:
    (tmp_path / "rotator.db").touch()
    address = url.replace("postgresql:", "postgresql+psycopg:")
    engine = sa.create_engine(address, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE tokens (theirs INTEGER)")
    with pytest.raises(StoreError, match=r"another program \(tokens\)"):
        open_store(url, create=True)


def test_many_starts_at_once_make_one_database(url: str) -> None:
    """Replicas that start together on an empty database agree on who made it.

    On SQLite the lock on the state directory lets one in at a time; the database would not be harmed without it.
    """
    together = 4
    barrier = threading.Barrier(together)

    def start(_: int) -> tuple[bool, str]:
        barrier.wait()
        opened = open_store(url, create=True)
        with opened.read() as snapshot:
            found = opened.created, snapshot.installation()
        opened.close()
        return found

    with ThreadPoolExecutor(together) as pool:
        found = list(pool.map(start, range(together)))
    assert sorted(made for made, _ in found) == [False] * (together - 1) + [True]
    assert len({name for _, name in found}) == 1


def test_table_that_is_gone_is_reported(store: SqlStore) -> None:
    """Whatever the database has against a statement is said in the words of the store."""
    with store._for_writing.begin() as connection:
        connection.exec_driver_sql("DROP TABLE clock")
    with pytest.raises(StoreError, match=r"cannot be used: .*clock"), store.read() as snapshot:
        snapshot.clock_mark()


def test_unknown_kid_is_not_there(store: SqlStore) -> None:
    with store.read() as snapshot:
        assert snapshot.key(Kid("unknown")) is None
        assert snapshot.workspace(WorkspaceId("unknown")) is None
        assert snapshot.request(1) is None
        assert snapshot.next_due([DEFAULT_KEYSET]) is None
    assert store.lost() == ""
    assert store.trusted_time() is None  # both run on this machine
