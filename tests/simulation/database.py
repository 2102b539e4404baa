"""The real store on a database in memory-backed files, that can be backed up, put back, locked, and die at a commit."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from rotator.adapters.store import SqlStore, open_store
from rotator.adapters.store.integrity import Integrity
from rotator.adapters.store.snapshot import SqlSnapshot
from rotator.errors import StoreError
from rotator.ports import Sealer, Snapshot, Transaction
from tests.simulation.hazards import Hazards


class Database:
    """One database for all replicas of a world; every process has it as a :class:`HazardousStore`."""

    def __init__(self, directory: Path, installation: str) -> None:
        self.path = directory / "rotator.db"
        self.store: SqlStore = open_store(f"sqlite:///{self.path}", create=True)
        self._reads: sa.Connection | None = None
        self._raw = sqlite3.connect(self.path, isolation_level=None)
        self._raw.execute("UPDATE installation SET id = ?", (installation,))

    @contextmanager
    def reading(self) -> Iterator[Snapshot]:
        """Open a consistent read as the store does, on a connection that is kept: fetching one is dear."""
        if self._reads is None:
            self._reads = self.store._for_reading.connect()
        with self._reads.begin(), closing(SqlSnapshot(self._reads, self.store._integrity)) as snapshot:
            yield snapshot

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Read behind the back of the daemons."""
        return self._raw.execute(sql, parameters).fetchall()

    def meddle(self, sql: str, *parameters: object) -> int:
        """Change behind the back of the daemons; return how many rows."""
        return self._raw.execute(sql, parameters).rowcount

    def back_up(self) -> "Backup":
        """Copy it as it stands."""
        return Backup(self._raw)

    def put_back(self, backup: "Backup") -> None:
        """Replace all that it holds by what ``backup`` holds."""
        backup.copy_to(self._raw)

    def holds_bytes(self, needle: bytes) -> bool:
        """Tell whether the database's files hold ``needle`` anywhere, erased or not."""
        files = (self.path, self.path.with_name("rotator.db-wal"))
        return any(needle in path.read_bytes() for path in files if path.exists())

    def close(self) -> None:
        self._raw.close()
        if self._reads is not None:
            self._reads.close()
        self.store.close()


class Backup:
    """A copy of a database."""

    def __init__(self, source: sqlite3.Connection) -> None:
        self._kept = sqlite3.connect(":memory:")
        source.backup(self._kept)

    def copy_to(self, target: sqlite3.Connection) -> None:
        self._kept.backup(target)

    def head(self) -> tuple[int, str]:
        """Return the head of its audit chain."""
        with closing(self._kept.execute("SELECT seq, hash FROM audit_head")) as found:
            seq, link = found.fetchone()
        return int(seq), str(link)

    def close(self) -> None:
        self._kept.close()


class HazardousStore:
    """The store as one process has it."""

    def __init__(self, database: Database, hazards: Hazards) -> None:
        self._database = database
        self._real = database.store
        self._hazards = hazards
        self._integrity = Integrity()

    def trust(self, sealer: Sealer | None) -> None:
        self._integrity = self._integrity.without_kek() if sealer is None else Integrity(sealer)

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        if self._hazards.store_locked:
            raise StoreError("database is locked")
        self._real._integrity = self._integrity
        with self._real.begin() as transaction:
            yield transaction
            self._hazards.before("commit")
        self._hazards.done("commit")

    @contextmanager
    def read(self, check: object = None) -> Iterator[Snapshot]:
        assert check is None, "the engine asks for no bounds"
        self._real._integrity = self._integrity
        with self._database.reading() as snapshot:
            yield snapshot

    def lost(self) -> str:
        return ""

    def purge_erased(self) -> bool:
        return self._real.purge_erased()

    def trusted_time(self) -> datetime | None:
        return None

    def close(self) -> None:
        """Leave it to the world."""
