"""Copies an SQLite database while others write to it, and looks into a file that is said to be such a copy.

The copy is made by SQLite itself, of one snapshot, into a single file that needs no ``-wal`` beside it. What was erased
in the database is not in it. PostgreSQL's server has its own means; :func:`dump_command` names them.
"""

import contextlib
import os
import shlex
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

import sqlalchemy as sa

from rotator.adapters.disk import REAL_DISK, Disk, fill_durably
from rotator.adapters.store.connect import BESIDE, BUSY_TIMEOUT_SECONDS
from rotator.adapters.store.migrate import HEAD, REVISIONS
from rotator.adapters.store.problems import reported
from rotator.adapters.store.times import from_us
from rotator.errors import StoreError

FILE_MODE: Final = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """What a database says of itself."""

    revision: str
    """Of its schema; one that this version knows."""
    installation: str
    audit_seq: int
    audit_hash: str
    last_event_at: datetime | None


def copy_database(database: Path, target: Path, *, disk: Disk = REAL_DISK) -> DatabaseFacts:
    """Put a copy of ``database`` at ``target``, whole and durable or not at all, mode 0600; return what is in it.

    Works beside a daemon that writes, and blocks it for no moment. What is at ``target`` is replaced: the caller knows
    that it may be. Raises :class:`StoreError` and :class:`OSError`.
    """
    facts: list[DatabaseFacts] = []

    def fill(path: Path) -> None:
        with reported(f"the database {database}"), closing(_connect(database, "mode=ro")) as source:
            source.execute("VACUUM INTO ?", (str(path),))
        facts.append(examine(path))

    fill_durably(target, FILE_MODE, fill, disk=disk)
    return facts[0]


def examine(path: Path) -> DatabaseFacts:
    """Return what is in a copy that nobody writes to; raise :class:`StoreError` if it is no sound database of ours."""
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise StoreError(
            f"{log.name} stands beside {path}: it was copied from a running database and is not whole without it. Use "
            "a copy that `rotator backup` made, or open this one once with sqlite3 to merge the two"
        )
    with _reading(path) as connection:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise StoreError(f"{path} is damaged: {' '.join(str(found).split())}. Use another backup")
        return _facts(path, connection)


def _facts(path: Path, connection: sqlite3.Connection) -> DatabaseFacts:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not {"alembic_version", "installation", "audit_head"} <= tables:
        raise StoreError(f"{path} is a database, but not one of rotator")
    (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone() or ("",)
    if revision not in REVISIONS:
        raise StoreError(
            f"{path} has the schema {revision!r}, and this version knows {HEAD} and before: a newer rotator made it. "
            "Install that version"
        )
    first = connection.execute("SELECT id FROM installation").fetchone()
    head = connection.execute("SELECT seq, hash FROM audit_head").fetchone()
    if first is None or head is None:
        raise StoreError(f"{path} was made by rotator, and nothing is in it")
    (last,) = connection.execute("SELECT max(at) FROM audit").fetchone()
    return DatabaseFacts(
        revision=revision, installation=first[0], audit_seq=head[0], audit_hash=head[1], last_event_at=from_us(last)
    )


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file that nobody writes to: ``immutable``, so that nothing is made beside it and no lock is needed."""
    if not path.is_file():
        raise StoreError(f"there is no file {path}" if not path.exists() else f"{path} is no file")
    with reported(f"the file {path}"), closing(_connect(path, "mode=ro&immutable=1")) as connection:
        yield connection


def _connect(path: Path, options: str) -> sqlite3.Connection:
    uri = f"file:{quote(str(path.absolute()))}?{options}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)


def set_aside(database: Path, directory: Path) -> tuple[Path, ...]:
    """Keep the database in ``directory``, which exists, before another one is put in its place; return the files.

    Its write-ahead log is merged into it first: left behind, it would be read into the next database. Where it is too
    damaged for that, the log is moved away with it. Nothing else may be working on it. Raises :class:`OSError`.
    """
    files = [database.with_name(f"{database.name}{end}") for end in BESIDE]
    log, kept_log = files[1], directory / files[1].name
    os.link(database, directory / database.name)
    if log.exists():
        os.link(log, kept_log)  # before SQLite sees it, which deletes a log that it takes for nothing
    # Too damaged, or somebody reads it: then it is kept as it is, with its log.
    with contextlib.suppress(sqlite3.Error), closing(_connect(database, "mode=rw")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")
    for beside in files[1:]:
        beside.unlink(missing_ok=True)
    if kept_log.exists() and not kept_log.stat().st_size:
        kept_log.unlink()
    return tuple(sorted(directory.iterdir()))


def put_in_place(prepared: Path, database: Path, *, disk: Disk = REAL_DISK) -> None:
    """Let ``database`` be a copy of the file ``prepared``, whole and durable or not at all. Raises :class:`OSError`."""

    def fill(path: Path) -> None:
        shutil.copyfile(prepared, path)

    fill_durably(database, FILE_MODE, fill, disk=disk)


def dump_command(url: str, file: Path) -> str:
    """Return what to type to back up the PostgreSQL database at ``url``."""
    return f"pg_dump --format=custom --file={shlex.quote(str(file))} {_address(url)}"


def load_command(url: str, file: Path) -> str:
    """Return what to type to put back what :func:`dump_command` made."""
    return f"pg_restore --clean --if-exists --single-transaction --dbname={_address(url)} {shlex.quote(str(file))}"


def _address(url: str) -> str:
    """Return the url for a command line, without the password: others see it in the list of processes."""
    parsed = sa.make_url(url)
    shown = sa.URL.create(
        "postgresql", parsed.username, None, parsed.host, parsed.port, parsed.database, dict(parsed.query)
    )
    return shlex.quote(shown.render_as_string())
