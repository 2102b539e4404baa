"""What holds for a database in a file: who can read it, what is left in it, and what is said when it is broken."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from rotator.adapters.store import SqlStore, connect, open_store
from rotator.core.events import EventName
from rotator.core.model import Jti, Phase, WorkspaceState
from rotator.errors import StoreError, StoreLostError
from rotator.ports import Transaction
from tests.contract.records import DAY, KID, NOW, events, issue, issued, key, keyset, workspace

PIECE = b"the sealed private half \x00\xff of a key"
SECRET = PIECE * 8  # its beginning may be written over by chance


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rotator.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqlStore]:
    opened = open_store(f"sqlite:///{path}", create=True)
    yield opened
    opened.close()


def files(path: Path) -> dict[str, Path]:
    return {found.name: found for found in path.parent.glob(f"{path.name}*")}


def on_disk(path: Path) -> bytes:
    return b"".join(found.read_bytes() for found in files(path).values())


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o277])
def test_only_the_owner_can_read_the_files(path: Path, umask: int) -> None:
    """Whatever the umask says; the log and its index too."""
    before = os.umask(umask)
    try:
        opened = open_store(f"sqlite:///{path}", create=True)
        with opened.begin() as transaction:
            transaction.put_keyset(keyset())
        modes = {name: found.stat().st_mode & 0o777 for name, found in files(path).items()}
        opened.close()
    finally:
        os.umask(before)
    assert modes == {"rotator.db": 0o600, "rotator.db-wal": 0o600, "rotator.db-shm": 0o600}


def test_settings_that_durability_and_erasure_rest_on(store: SqlStore) -> None:
    """Each connection has them; the value of `synchronous` for FULL is 2."""
    wanted = {"journal_mode": "wal", "synchronous": 2, "secure_delete": 1, "foreign_keys": 1, "busy_timeout": 5_000}
    with store._engine.connect() as one, store._engine.connect() as other:
        for connection in (one, other):
            found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in wanted}
            assert found == wanted


def test_erased_private_half_is_gone_from_the_disk(store: SqlStore, path: Path) -> None:
    """A reader of an older state holds it up; once that is gone, it is in neither the database nor its log."""
    active = replace(key(phase=Phase.ACTIVE), sealed=SECRET)
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.insert_key(active)
        for number in range(2, 6):  # so that its place in the file is not used again by chance
            transaction.insert_key(key(f"kid-{number}"))
    assert store.purge_erased()
    assert PIECE in on_disk(path)
    with store.read() as reader:
        assert reader.key(active.key.kid) is not None
        with store.begin() as transaction:
            transaction.update_key(replace(active.key, phase=Phase.GRACE, has_private=False))
        assert not store.purge_erased()
        assert PIECE in on_disk(path)
    assert store.purge_erased()
    assert PIECE not in on_disk(path)


def test_erased_token_text_is_gone_from_the_disk(store: SqlStore, path: Path) -> None:
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.insert_workspaces([workspace()])
        token = issue(transaction)
    assert b"sealed text of acme-1" in on_disk(path)
    with store.begin() as transaction:
        transaction.retire_tokens([token.jti], NOW)
    assert store.purge_erased()
    assert b"sealed text of acme-1" not in on_disk(path)


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_files_taken_away_are_noticed_and_nothing_more_is_written(
    store: SqlStore, path: Path, end: str, how: str
) -> None:
    """An unlinked file takes every write, and keeps none of them."""
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
    assert store.lost() == ""
    victim = Path(f"{path}{end}")
    content = victim.read_bytes()
    victim.unlink()
    if how == "replaced":
        victim.write_bytes(content)
    assert f"{victim} was {how}" in store.lost()
    with pytest.raises(StoreLostError, match="Nothing more is written"), store.begin():
        pass


def test_files_stay_themselves_while_others_come_and_go(path: Path) -> None:
    """Whoever reads beside the daemon, or purges, or opens a database that was closed: nothing is lost."""
    for _ in range(2):
        opened = open_store(f"sqlite:///{path}", create=True)
        beside = open_store(f"sqlite:///{path}", create=False, read_only=True)
        with beside.read() as snapshot:
            snapshot.keysets()
        beside.close()
        with opened.begin() as transaction:
            transaction.put_keyset(keyset())
        assert opened.purge_erased()
        assert opened.lost() == ""
        assert {str(found) for found in opened._files} == {f"{path}{end}" for end in ("", "-wal", "-shm")}
        opened.close()


def test_missing_database_says_how_to_start(path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no database .*rotator\.db\. `rotator run` makes it"):
        open_store(f"sqlite:///{path}", create=False)
    with pytest.raises(StoreError, match="there is no database"):
        open_store(f"sqlite:///{path}", create=True, read_only=True)
    assert files(path) == {}


def test_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot be made: No such file or directory\. Its directory must exist"):
        open_store(f"sqlite:///{tmp_path}/missing/rotator.db", create=True)


@pytest.mark.parametrize("name", ["with space.db", "#hash.db", "ü.db", "and&=.db"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    """What means something in a URI is only a name here."""
    for create in (True, False):
        opened = open_store(f"sqlite:///{tmp_path / name}", create=create)
        opened.close()
    assert (tmp_path / name).exists()


def test_read_only_works_when_no_daemon_runs(store: SqlStore, path: Path) -> None:
    """The log is gone after a clean stop; reading needs no right to change the database."""
    with store.begin() as transaction:
        transaction.append(events(EventName.KEY_MADE))
    store.close()
    assert set(files(path)) == {"rotator.db"}
    before = path.read_bytes()
    reader = open_store(f"sqlite:///{path}", create=False, read_only=True)
    with reader.read() as snapshot:
        assert snapshot.audit_head().seq == 1
    reader.close()
    assert path.read_bytes() == before


KILLED = """
import os, sys
from rotator.adapters.store import open_store
from tests.contract.records import keyset, workspace
store = open_store(sys.argv[1], create=True)
with store.begin() as transaction:
    transaction.put_keyset(keyset("committed"))
with store.begin() as transaction:
    transaction.put_keyset(keyset("not-committed"))
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("read_only", [False, True])
def test_killed_writer_leaves_what_it_committed(path: Path, read_only: bool) -> None:
    """Its log is still there, and is read by whoever comes next, reader or writer."""
    done = subprocess.run([sys.executable, "-c", KILLED, f"sqlite:///{path}"], check=False, cwd=Path.cwd())
    assert done.returncode == -9
    opened = open_store(f"sqlite:///{path}", create=False, read_only=read_only)
    with opened.read() as snapshot:
        assert [row.name for row in snapshot.keysets()] == ["committed"]
    opened.close()


# ----------------------------------------------------------------------------------------------------- broken files


@pytest.mark.parametrize("create", [False, True])
def test_file_that_is_no_database_is_refused(path: Path, create: bool) -> None:
    """Noise is neither read nor overwritten."""
    noise = bytes(range(1, 256)) * 64
    path.write_bytes(noise)
    with pytest.raises(StoreError, match="is not an SQLite database"):
        open_store(f"sqlite:///{path}", create=create)
    assert path.read_bytes() == noise


def filled(path: Path) -> None:
    opened = open_store(f"sqlite:///{path}", create=True)
    with opened.begin() as transaction:
        transaction.insert_workspaces([workspace(f"ws-{number:05}") for number in range(3_000)])
    opened.close()


def test_truncated_database_is_reported(path: Path) -> None:
    filled(path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreError, match=r"is damaged.*put the last backup back"):  # noqa: PT012 - it may show late
        opened = open_store(f"sqlite:///{path}", create=True)
        with opened.read() as snapshot:
            list(snapshot.workspaces())


def test_overwritten_pages_are_reported(path: Path) -> None:
    """Pages of noise in the middle are found when they are read, in the words of the store."""
    filled(path)
    size = path.stat().st_size // 4096 * 4096
    with path.open("r+b") as file:
        file.seek(size // 8 * 4)
        file.write(b"\xa5" * (size // 8 * 4))
    opened = open_store(f"sqlite:///{path}", create=True)
    with pytest.raises(StoreError, match="is damaged"), opened.read() as snapshot:
        list(snapshot.workspaces())
    with pytest.raises(StoreError, match="is damaged"), opened.begin() as transaction:
        transaction.update_workspaces([workspace(f"ws-{number:05}") for number in range(3_000)])
    opened.close()


def put_and_insert(transaction: Transaction, rows: list[WorkspaceState]) -> None:
    transaction.put_keyset(keyset())
    transaction.insert_workspaces(rows)


def test_full_disk_changes_nothing(store: SqlStore) -> None:
    """The transaction fails as a whole, and the next one works once there is room."""
    many = [workspace(f"ws-{number:05}") for number in range(3_000)]
    with store._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 60")  # the store's only connection so far
    with pytest.raises(StoreError, match=r"the disk or the quota is full.*Make room"), store.begin() as transaction:
        put_and_insert(transaction, many)
    with store._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    with store.begin() as transaction:
        assert transaction.keysets() == ()
        transaction.insert_workspaces([workspace()])


def test_no_page_is_copied_into_a_temporary_file(store: SqlStore) -> None:
    """Pages hold sealed tokens, and nobody erases what SQLite copied aside to be able to undo a single statement."""
    with store.begin() as transaction:
        put_and_insert(transaction, [workspace(f"ws-{number:05}") for number in range(3_000)])
        transaction.insert_key(key(phase=Phase.ACTIVE))
        assert temporary_files() == []
        assert transaction.issue([issued(state) for state in transaction.workspaces()])
        assert temporary_files() == []
    with store.begin() as transaction:
        assert transaction.revoke_tokens_of_key(KID, NOW + DAY, NOW + DAY).tokens == 3_000
        assert transaction.issue([issued(state) for state in transaction.workspaces()])
        transaction.append(events(*[EventName.TOKEN_ISSUED] * 3_000))
        assert temporary_files() == []


def temporary_files() -> list[str]:
    """Return the temporary files that SQLite has open in this process, by its name for them."""
    targets = [str(descriptor.readlink()) for descriptor in Path("/proc/self/fd").iterdir() if descriptor.is_symlink()]
    return [target for target in targets if "etilqs_" in target]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for a lock for a moment only."""
    monkeypatch.setattr(connect, "BUSY_TIMEOUT_SECONDS", 0.05)


@pytest.mark.usefixtures("impatient")
def test_lock_held_too_long_is_reported(path: Path) -> None:
    """A second writer gives up with a reason; a reader is not in anyone's way."""
    opened = open_store(f"sqlite:///{path}", create=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked by another process"), opened.begin():
            pytest.fail("two writers at once")
        with opened.read() as snapshot:
            assert snapshot.keysets() == ()
    with opened.begin() as transaction:
        transaction.put_keyset(keyset())
    opened.close()


def test_file_without_rights_is_reported(store: SqlStore, path: Path) -> None:
    """A query-only connection stands for a file that this user cannot write, which root never meets."""
    with store._engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match=r"cannot be written.*belong"), store.begin() as transaction:
        transaction.put_keyset(keyset())


def test_directory_in_place_of_the_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        open_store(f"sqlite:///{tmp_path}", create=True)


def test_too_many_readers_are_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool with nothing left says so in the words of the store."""
    monkeypatch.setattr(connect, "CONNECTIONS_KEPT", 1)
    monkeypatch.setattr(connect, "CONNECTIONS_AT_MOST", 1)
    monkeypatch.setattr(connect, "CONNECTION_TIMEOUT_SECONDS", 0.01)
    opened = open_store(f"sqlite:///{path}", create=True)
    with opened.read(), pytest.raises(StoreError, match="every connection is taken"), opened.read():
        pass
    opened.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("rotator.db", "is not a database url"),
        ("postgresql://ada:hunter2@host:port/db", "is not a database url"),
        ("mysql://ada:hunter2@host/db", "names mysql; only sqlite and postgresql are known"),
    ],
)
def test_wrong_url_is_refused_without_showing_it(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        open_store(url, create=True)
    assert "hunter2" not in str(caught.value)


def test_no_error_shows_what_was_to_be_stored(store: SqlStore) -> None:
    """Neither the message nor its causes hold a parameter of the statement."""
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
    with pytest.raises(StoreError) as caught, store.begin() as transaction:
        transaction.insert_key(replace(key(phase=Phase.GRACE), sealed=SECRET))
    cause: BaseException | None = caught.value
    while cause is not None:
        assert "private half \\x00" not in str(cause)
        assert "private half \\x00" not in repr(cause)
        cause = cause.__cause__


def test_workspace_token_can_be_found_after_a_restart(store: SqlStore, path: Path) -> None:
    with store.begin() as transaction:
        transaction.insert_workspaces([workspace()])
        issue(transaction, at=NOW + DAY)
    store.close()
    again = open_store(f"sqlite:///{path}", create=False)
    with again.read() as snapshot:
        row = snapshot.token(Jti("acme-1"))
    again.close()
    assert row is not None
    assert row.sealed == b"sealed text of acme-1"


def test_a_start_beside_one_that_is_making_the_database_waits_for_it(tmp_path: Path) -> None:
    """SQLite itself refuses at once to change the journal's mode then, however long its timeout is."""
    path = tmp_path / "new.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as first, ThreadPoolExecutor(1) as pool:
        first.execute("BEGIN IMMEDIATE")
        second = pool.submit(open_store, f"sqlite:///{path}", create=True)
        assert wait([second], timeout=0.5).done == set()
        first.execute("COMMIT")
        opened = second.result()
    assert opened.created
    opened.close()
