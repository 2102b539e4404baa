"""Opens the database and hands out transactions on it.

Each transaction and each read has a pooled connection of its own, so a store may be used from several threads and
processes at once. On SQLite a writing transaction takes the write lock when it begins (it can then neither fail for it
later, nor decide on what another is changing), and a read sees one snapshot. On PostgreSQL rows are locked as needed.
"""

import ipaddress
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry

from rotator.adapters.store.alone import HeldAlone
from rotator.adapters.store.bounds import Check, bounded
from rotator.adapters.store.integrity import Integrity
from rotator.adapters.store.migrate import Prepared, prepare
from rotator.adapters.store.problems import place, reported
from rotator.adapters.store.snapshot import SqlSnapshot
from rotator.adapters.store.transaction import SqlTransaction
from rotator.errors import StoreDriverError, StoreError, StoreLostError
from rotator.ports import Sealer, Snapshot, Transaction
from rotator.told import told

BUSY_TIMEOUT_SECONDS: Final = 5.0
ASK_AGAIN_SECONDS: Final = 0.01
CONNECTIONS_KEPT: Final = 5
CONNECTIONS_AT_MOST: Final = 20

CONNECTION_TIMEOUT_SECONDS: Final = 10.0
"""How long to wait for one of them."""

CACHE_KIB: Final = 16_000
LOG_PAGES: Final = 4_000
"""16 MB of log: a batch of tokens is a few MB, and one batch after the other rewrites the same index pages."""

_text: Final = partial(str, encoding="utf-8", errors="replace")
"""Decodes text, whoever wrote it: one value that is no text must not make a whole query fail; its row has no valid MAC.

A partial, for it is called for each value, and stays out of the interpreter.
"""

BESIDE: Final = ("", "-wal", "-shm")
"""What the names of an SQLite database's files end in. The log and its index live as long as a connection does."""

POSTGRESQL_DRIVER: Final = "psycopg[binary]>=3.2.3"
"""What the extra ``postgres`` asks for."""

WRITES: Final = "rotator_writes"
"""Execution option of a connection whose transaction will write."""


class SqlStore:
    """A :class:`~rotator.ports.Store` over SQLAlchemy."""

    def __init__(self, engine: sa.Engine, prepared: Prepared, *, read_only: bool) -> None:
        self._engine = engine
        self._where = place(engine.url)
        self._read_only = read_only
        self._sqlite = engine.dialect.name == "sqlite"
        reading: dict[str, Any] = {} if self._sqlite else {"isolation_level": "REPEATABLE READ"}
        if not self._sqlite:
            reading["postgresql_readonly"] = True
        self._for_reading = engine.execution_options(**reading)
        self._for_writing = engine.execution_options(**{WRITES: True})
        self._files: Final = _files(engine.url) if self._sqlite and not read_only else {}
        self._integrity = Integrity()
        self.created: Final = prepared.made
        """This open made the database."""

    def trust(self, sealer: Sealer | None) -> None:
        """Verify and authenticate rows under the KEKs of ``sealer`` from now on.

        None: the KEK is away. Rows are still verified by what was derived from it, and none is authenticated.
        """
        self._integrity = self._integrity.without_kek() if sealer is None else Integrity(sealer)

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """Open a writing transaction: committed durably at the end of the block, rolled back on an exception."""
        if self._read_only:
            raise StoreError(f"{self._where} was opened to be read only; nothing can be changed here")
        if problem := self.lost():
            raise StoreLostError(problem)
        with (
            reported(self._where),
            self._for_writing.begin() as connection,
            closing(SqlTransaction(connection, self._integrity)) as transaction,
        ):
            yield transaction

    @contextmanager
    def read(self, check: Check | None = None) -> Iterator[Snapshot]:
        """Open a consistent read that blocks no writer, and ends with what ``check`` raises when that is called."""
        with (
            reported(self._where),
            self._for_reading.connect() as connection,
            closing(SqlSnapshot(connection, self._integrity, check)) as snapshot,
            bounded(connection, check),
        ):
            yield snapshot

    def lost(self) -> str:
        """Return what became of the open database's files, if others took them away or replaced them; else empty.

        An unlinked file works as ever for those who have it open, and is gone when they end. PostgreSQL's files are
        its server's own affair: always empty.
        """
        for path, identity in self._files.items():
            found = _identity(path)
            if found != identity:
                became = "was deleted" if found is None else "was replaced by another file"
                return f"{path} {became} while the daemon worked on it. {WHEN_LOST}"
        return ""

    @contextmanager
    def alone(self) -> Iterator[Callable[[], str]]:
        """Keep other daemons away from the database for as long as the block lasts; give what tells why one came in.

        Raises :class:`~rotator.errors.RefusedError` when one is there. Of SQLite that is the affair of who locks the
        directory.
        """
        if self._sqlite:
            yield lambda: ""
            return
        with closing(HeldAlone(self._engine)) as held:
            yield held.lost

    def purge_erased(self) -> bool:
        """Move the write-ahead log into the database file and empty it; False: a reader holds it up, try again.

        PostgreSQL has no such means: what it keeps of an erased value is sealed, and opens no more without its KEK.
        """
        if not self._sqlite:
            return True
        with reported(self._where), closing(_Raw(self._engine)) as raw:
            return raw.one("PRAGMA wal_checkpoint(TRUNCATE)") == 0  # the first column: busy

    def trusted_time(self) -> datetime | None:
        """Return the time of a database server that is not this machine, as evidence; None without one."""
        if self._sqlite:
            return None
        with reported(self._where), self._for_reading.connect() as connection:
            row = connection.exec_driver_sql(
                "SELECT clock_timestamp(), host(inet_server_addr()), host(inet_client_addr())"
            ).one()
            dialled = connection.connection.driver_connection
            reached = getattr(getattr(dialled, "info", None), "hostaddr", "")
            now: datetime = row[0]
            return now.astimezone(UTC) if is_elsewhere(reached, row[1], row[2]) else None

    def close(self) -> None:
        """Release everything."""
        self._engine.dispose()


WHEN_LOST: Final = (
    "Nothing more is written, for nothing would be kept. Put the database back (the daemon must not run while it is "
    "replaced), or start without it: the witness beside it then says what is still out"
)


def _files(url: URL) -> dict[Path, tuple[int, int]]:
    """Return the files of an open SQLite database and which they are. Never opened: SQLite's locks would go with it."""
    paths = (Path(f"{url.database}{end}").absolute() for end in BESIDE)
    return {path: identity for path in paths if (identity := _identity(path)) is not None}


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


class _Raw:
    """A pooled connection outside any transaction."""

    def __init__(self, engine: sa.Engine) -> None:
        self._pooled = engine.raw_connection()

    def one(self, statement: str) -> int:
        """Run ``statement`` and return the first value of its first row."""
        cursor = self._pooled.cursor()
        try:
            cursor.execute(statement)
            row: tuple[int, ...] = cursor.fetchone() or ()
            return row[0]
        finally:
            cursor.close()

    def close(self) -> None:
        """Give the connection back."""
        self._pooled.close()


def is_elsewhere(reached: str, server: str | None, client: str | None) -> bool:
    """Tell whether a server is another machine, from the address dialled and the connection's two ends as it sees them.

    No address: a Unix socket. Equal ends: this machine under its own name.
    """
    if server is None or not reached or server == client:
        return False
    return not any(ipaddress.ip_address(address).is_loopback for address in (reached, server))


def open_store(url: str, *, create: bool, read_only: bool = False) -> SqlStore:
    """Open the database at ``url`` and bring its schema up to date.

    ``create``: make what is not there yet; an SQLite file's directory must exist, and the file can be read by its owner
    alone. ``read_only``: change nothing; works while a daemon writes, and when none runs.
    Raise :class:`StoreError` when the database is missing, damaged, locked, or made by a newer version.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        _make_file(parsed, create=create and not read_only)
        engine = _sqlite_engine(parsed, read_only=read_only)
    else:
        engine = _postgresql_engine(parsed)
    where = place(engine.url)
    try:
        with reported(where):
            for_writing = engine.execution_options(**{WRITES: True})
            prepared = prepare(engine, for_writing, where, create=create, read_only=read_only)
    except BaseException:
        engine.dispose()
        raise
    return SqlStore(engine, prepared, read_only=read_only)


def _parse(url: str) -> URL:
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        raise StoreError(  # from None: the cause repeats the url, and there may be a password in it
            "state.url is not a database url. Expected sqlite:///PATH or postgresql://USER@HOST/DATABASE"
        ) from None
    match parsed.get_backend_name():
        case "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise StoreError("state.url names no file: a database in memory would be lost. Set sqlite:///PATH")
            return parsed.set(drivername="sqlite")
        case "postgresql" | "postgres":
            return parsed.set(drivername="postgresql+psycopg")
        case other:
            raise StoreError(f"state.url names {other}; only sqlite and postgresql are known")


# ----------------------------------------------------------------------------------------------------------- SQLite


def _make_file(url: URL, *, create: bool) -> None:
    path = Path(url.database or "")
    if path.exists():
        return
    if not create:
        raise StoreError(
            f"there is no database {path}. `rotator run` makes it at its first start; start the daemon first"
        )
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return  # another process was first
    except OSError as error:
        raise StoreError(
            f"the database {path} cannot be made: {error.strerror}. Its directory must exist, with mode "
            "0700, and belong to the user that runs this"
        ) from error
    try:
        os.fchmod(descriptor, 0o600)  # whatever the umask says; SQLite gives its -wal and -shm files the same mode
    finally:
        os.close(descriptor)


def _sqlite_engine(url: URL, *, read_only: bool) -> sa.Engine:
    mode = "ro" if read_only else "rw"
    uri = f"file:{quote(str(Path(url.database or '').absolute()))}?mode={mode}"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_SECONDS, check_same_thread=False)
        try:
            _set_up(connection, read_only=read_only)
        except BaseException:
            connection.close()
            raise
        return connection

    engine = sa.create_engine(
        url,
        creator=connect,
        poolclass=sa.QueuePool,
        pool_size=CONNECTIONS_KEPT,
        max_overflow=CONNECTIONS_AT_MOST - CONNECTIONS_KEPT,
        pool_timeout=CONNECTION_TIMEOUT_SECONDS,
        hide_parameters=True,
    )
    sa.event.listen(engine, "begin", _begin)
    return engine


def _set_up(connection: sqlite3.Connection, *, read_only: bool) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself: _begin does
    connection.text_factory = _text
    connection.execute("PRAGMA foreign_keys = ON")
    if read_only:
        connection.execute("PRAGMA query_only = ON")
        return
    connection.execute("PRAGMA secure_delete = ON")  # explicitly, for the default depends on the build
    _write_log_ahead(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")


def _write_log_ahead(connection: sqlite3.Connection) -> None:
    """Put the database into WAL mode, where it is not yet, though others may be at the same.

    Two that raise their locks at once on a new database could wait for each other for ever. SQLite then refuses one of
    them at once, whatever its timeout (https://www.sqlite.org/c3ref/busy_handler.html): that one has to ask again.
    """
    give_up_at = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up_at:
                raise
            time.sleep(ASK_AGAIN_SECONDS)
        else:
            return


def _begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get(WRITES)
    driver: Any = connection.connection.driver_connection  # by itself: half of what a short read costs went into this
    driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN")


# ------------------------------------------------------------------------------------------------------- PostgreSQL


def _postgresql_engine(url: URL) -> sa.Engine:
    try:
        engine = sa.create_engine(
            url,
            pool_size=CONNECTIONS_KEPT,
            max_overflow=CONNECTIONS_AT_MOST - CONNECTIONS_KEPT,
            pool_timeout=CONNECTION_TIMEOUT_SECONDS,
            pool_pre_ping=True,  # a server that was restarted costs no failed tick
            hide_parameters=True,
            connect_args={"connect_timeout": 10, "application_name": "rotator"},
        )
    except ModuleNotFoundError as error:
        raise StoreDriverError(
            "state.url names PostgreSQL, whose driver is not installed; install it, as the extra `postgres` does",
            told(sys.executable, "-m", "pip", "install", POSTGRESQL_DRIVER),
        ) from error
    sa.event.listen(engine, "connect", _on_postgresql_connect)
    return engine


def _on_postgresql_connect(connection: Any, _entry: ConnectionPoolEntry) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = on")
        cursor.execute(f"SET lock_timeout = {int(BUSY_TIMEOUT_SECONDS * 1000)}")
    connection.commit()
