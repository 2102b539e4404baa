"""Copies of a database that is in use; looking into files that may be anything; putting a copy back."""

import errno
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from rotator.adapters.disk import OsDisk
from rotator.adapters.store import open_store
from rotator.adapters.store.backup import (
    DatabaseFacts,
    copy_database,
    dump_command,
    examine,
    load_command,
    put_in_place,
    set_aside,
)
from rotator.core.events import EventName
from rotator.errors import StoreError
from tests.contract.records import NOW, events


class FailingDisk(OsDisk):
    def __init__(self, fail_at: str) -> None:
        super().__init__()
        self.fail_at = fail_at

    def _step(self, name: str) -> None:
        if name == self.fail_at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def create(self, name: str, directory_fd: int) -> int:
        self._step("create")
        return super().create(name, directory_fd)

    def chmod(self, fd: int, mode: int) -> None:
        self._step("chmod")
        super().chmod(fd, mode)

    def fsync(self, fd: int) -> None:
        self._step("fsync")
        super().fsync(fd)

    def rename(self, old: str, new: str, directory_fd: int) -> None:
        self._step("rename")
        super().rename(old, new, directory_fd)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir(mode=0o700)
    path = tmp_path / "state" / "rotator.db"
    grow(path)
    return path


def grow(path: Path) -> None:
    with closing(open_store(f"sqlite:///{path}", create=True)) as store, store.begin() as transaction:
        transaction.append(events(EventName.KEY_MADE, EventName.KEY_PROVEN))


def test_a_copy_has_all_that_was_committed(database: Path, tmp_path: Path) -> None:
    """Also what is in the write-ahead log alone, while another connection keeps a transaction open."""
    with closing(open_store(f"sqlite:///{database}", create=False)) as store:
        with store.begin() as transaction:
            head = transaction.append(events(EventName.KEY_ACTIVATED))
        assert database.with_name("rotator.db-wal").stat().st_size > 0
        with store.begin() as transaction:
            transaction.append(events(EventName.KEY_RETIRED))
            facts = copy_database(database, tmp_path / "copy")
    assert (facts.audit_seq, facts.audit_hash, facts.last_event_at) == (head.seq, head.hash, NOW)
    assert examine(tmp_path / "copy") == facts
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "state"]


def test_a_copy_is_consistent_while_another_thread_writes(database: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        with closing(open_store(f"sqlite:///{database}", create=False)) as store:
            while not stop.is_set():
                with store.begin() as transaction:
                    transaction.append(events(EventName.KEY_MADE))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen = [copy_database(database, tmp_path / "copy").audit_seq for _ in range(10)]
    finally:
        stop.set()
        thread.join()
    assert seen == sorted(seen)
    with sqlite3.connect(tmp_path / "copy") as connection:
        assert connection.execute("SELECT max(seq) FROM audit").fetchone() == (seen[-1],)


def test_what_was_erased_is_not_in_a_copy(database: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE kept (text)")
        connection.execute("INSERT INTO kept VALUES ('the erased secret')")
        connection.commit()
        connection.execute("DELETE FROM kept")
        connection.commit()
    copy_database(database, tmp_path / "copy")
    assert b"the erased secret" not in (tmp_path / "copy").read_bytes()


@pytest.mark.parametrize("step", ["create", "chmod", "fsync", "rename"])
def test_a_copy_that_fails_leaves_the_one_before_it(database: Path, tmp_path: Path, step: str) -> None:
    before = copy_database(database, tmp_path / "copy")
    grow(database)
    with pytest.raises(OSError, match="Input/output error"):
        copy_database(database, tmp_path / "copy", disk=FailingDisk(step))
    assert examine(tmp_path / "copy") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "state"]


@pytest.mark.parametrize("step", ["fill", "fsync", "rename"])
def test_a_copy_that_is_killed_leaves_the_one_before_it(database: Path, tmp_path: Path, step: str) -> None:
    """And what it left goes with the next one."""
    before = copy_database(database, tmp_path / "copy")
    grow(database)
    code = (
        "import os, sys, pathlib\n"
        "from rotator.adapters.disk import OsDisk\n"
        "from rotator.adapters.store import backup\n"
        "kill = lambda *_: os.kill(os.getpid(), 9)\n"
        "disk = OsDisk()\n"
        "if sys.argv[3] == 'fill': backup.examine = kill\n"
        "else: setattr(disk, sys.argv[3], kill)\n"
        "backup.copy_database(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), disk=disk)"
    )
    arguments = [sys.executable, "-c", code, str(database), str(tmp_path / "copy"), step]
    assert subprocess.run(arguments, check=False).returncode == -9
    assert examine(tmp_path / "copy") == before
    assert len(list(tmp_path.iterdir())) == 3
    after = copy_database(database, tmp_path / "copy", disk=OsDisk())
    assert after.audit_seq == before.audit_seq + 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "state"]


# ------------------------------------------------------------------------------------------------------ looking into it


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("no database\n" * 1000)


def _foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (title)")
        connection.commit()


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()


def _with_a_log(path: Path) -> None:
    path.with_name(f"{path.name}-wal").write_bytes(b"frames")


def _hollow(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM installation")
        connection.commit()


def _scrambled(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 6] = os.urandom(4096 * 3)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Path.unlink, "there is no file"),
        (_empty, "is a database, but not one of rotator"),
        (_text, "is not an SQLite database"),
        (_foreign, "is a database, but not one of rotator"),
        (_half, "is damaged"),
        (_scrambled, "is damaged"),
        (_newer, "a newer rotator made it"),
        (_with_a_log, "it was copied from a running database"),
        (_hollow, "nothing is in it"),
    ],
)
def test_what_is_no_sound_copy_is_told_of(
    database: Path, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    copy = tmp_path / "copy"
    copy_database(database, copy)
    change(copy)
    with pytest.raises(StoreError, match=said):
        examine(copy)


def test_looking_changes_nothing(database: Path, tmp_path: Path) -> None:
    """Neither the file nor what is beside it, also where nobody may write and the file was in WAL mode."""
    (tmp_path / "kept").mkdir()
    copy = tmp_path / "kept" / "copy"
    copy.write_bytes(database.read_bytes())
    before = copy.read_bytes()
    assert isinstance(examine(copy), DatabaseFacts)
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]
    assert copy.read_bytes() == before


# ------------------------------------------------------------------------------------------------------ putting it back


def test_the_log_of_the_replaced_database_is_merged_into_it(database: Path, tmp_path: Path) -> None:
    """Left beside the next database, it would be read into it."""
    copy_database(database, tmp_path / "copy")
    with closing(open_store(f"sqlite:///{database}", create=False)) as store, store.begin() as transaction:
        head = transaction.append(events(EventName.KEY_ACTIVATED))
    log = database.with_name("rotator.db-wal")
    frames = log.read_bytes() if log.exists() else b""
    log.write_bytes(frames)
    (tmp_path / "aside").mkdir()
    kept = set_aside(database, tmp_path / "aside")
    put_in_place(tmp_path / "copy", database)
    assert [path.name for path in kept] == ["rotator.db"]
    assert examine(kept[0]).audit_seq == head.seq
    assert examine(database).audit_seq == head.seq - 1
    assert [path.name for path in database.parent.iterdir()] == ["rotator.db"]


def test_a_damaged_database_goes_aside_with_its_log(database: Path, tmp_path: Path) -> None:
    copy_database(database, tmp_path / "copy")
    database.write_bytes(b"nothing" * 5000)
    database.with_name("rotator.db-wal").write_bytes(b"frames")
    (tmp_path / "aside").mkdir()
    kept = set_aside(database, tmp_path / "aside")
    assert [path.name for path in kept] == ["rotator.db", "rotator.db-wal"]
    assert kept[1].read_bytes() == b"frames"
    put_in_place(tmp_path / "copy", database)
    assert examine(database).audit_seq == 2
    assert [path.name for path in database.parent.iterdir()] == ["rotator.db"]


@pytest.mark.parametrize("step", ["create", "fsync", "rename"])
def test_a_failed_restore_leaves_the_database(database: Path, tmp_path: Path, step: str) -> None:
    copy_database(database, tmp_path / "copy")
    grow(database)
    (tmp_path / "aside").mkdir()
    set_aside(database, tmp_path / "aside")
    with pytest.raises(OSError, match="Input/output error"):
        put_in_place(tmp_path / "copy", database, disk=FailingDisk(step))
    assert examine(database).audit_seq == 4
    with closing(open_store(f"sqlite:///{database}", create=False)) as store, store.read() as snapshot:
        assert snapshot.audit_head().seq == 4


def test_postgresql_has_its_own_commands() -> None:
    """Without the password, which others would see in the list of processes."""
    url = "postgresql+psycopg://rotator:secret@db.example.com/rotator"
    file = Path("/var/backups/a b.dump")
    assert dump_command(url, file) == (
        "pg_dump --format=custom --file='/var/backups/a b.dump' postgresql://rotator@db.example.com/rotator"
    )
    assert load_command(url, file).startswith("pg_restore --clean --if-exists --single-transaction --dbname=")
    assert "secret" not in load_command(url, file)
