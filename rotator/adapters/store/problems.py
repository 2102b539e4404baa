"""Turns what a driver reports into a :class:`StoreError` that says what to do. Never shows parameters or a password."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

from sqlalchemy import exc
from sqlalchemy.engine import URL

from rotator.errors import StoreError, StoreRuleError

ADVICE: Final[Mapping[int, str]] = MappingProxyType(
    {
        sqlite3.SQLITE_BUSY: "is locked by another process for longer than this one waits. If no other daemon, backup "
        "or sqlite3 shell should be at it, find who holds it with `fuser`; what was to be written is tried again",
        sqlite3.SQLITE_FULL: "cannot grow: the disk or the quota is full. Nothing was changed. Make room; no restart "
        "is needed",
        sqlite3.SQLITE_CORRUPT: "is damaged. Nothing was changed. Stop the daemon, keep a copy of the file with its "
        "-wal file, and put the last backup back",
        sqlite3.SQLITE_NOTADB: "is not an SQLite database, or its beginning was overwritten. Nothing was changed. "
        "Check state.url; if it names the right file, put the last backup back",
        sqlite3.SQLITE_READONLY: "cannot be written. Check that the file, its -wal and -shm files and their directory "
        "belong to the user that runs this, and that the file system is mounted writable",
        sqlite3.SQLITE_CANTOPEN: "cannot be opened. Check that its directory exists and belongs to the user that runs "
        "this",
        sqlite3.SQLITE_IOERR: "cannot be read or written: the disk reports an error. Check the kernel's log, then put "
        "the last backup back on a sound disk",
    }
)
"""What to say for a primary result code of SQLite (https://sqlite.org/rescode.html)."""

LOCK_NOT_AVAILABLE: Final = "55P03"
"""SQLSTATE of PostgreSQL when lock_timeout has passed."""

NETWORK: Final = (
    "Check that the server runs, that state.url is right, and that this user may connect; it is tried again"
)


def place(url: URL) -> str:
    """Return where the database is, for people: no user, password or option."""
    if url.get_backend_name() == "sqlite":
        return f"the database {url.database}"
    host = url.query.get("host", url.host) or "the local socket"
    return f"the PostgreSQL database {url.database or ''} on {host if isinstance(host, str) else ', '.join(host)}"


@contextmanager
def reported(where: str) -> Iterator[None]:
    """Raise a :class:`StoreError` in place of whatever the driver or SQLAlchemy raises inside the block."""
    try:
        yield
    except (exc.IntegrityError, sqlite3.IntegrityError) as error:
        raise StoreRuleError(explain(where, error)) from error
    except (exc.SQLAlchemyError, sqlite3.Error) as error:
        raise StoreError(explain(where, error)) from error


def explain(where: str, error: Exception) -> str:
    """Return the sentence for ``error``."""
    cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    if isinstance(cause, sqlite3.Error):
        return _explain_sqlite(where, cause)
    if isinstance(error, exc.IntegrityError):
        return f"{where} refused a change that breaks a rule of its schema: {_primary(cause)}. Nothing was changed"
    if isinstance(error, exc.TimeoutError):
        return f"{where}: every connection is taken for too long. Nothing was changed; it is tried again"
    if getattr(cause, "sqlstate", None) == LOCK_NOT_AVAILABLE:
        return (
            f"{where}: what was to be changed is locked by another replica for too long. Nothing was changed; it is "
            "tried again"
        )
    if isinstance(error, exc.OperationalError | exc.InterfaceError):
        return f"{where} cannot be reached or used: {_primary(cause)}. {NETWORK}"
    return f"{where} cannot be used: {_primary(cause)}"


def _explain_sqlite(where: str, cause: sqlite3.Error) -> str:
    code: int | None = getattr(cause, "sqlite_errorcode", None)
    advice = ADVICE.get((code or 0) & 0xFF)  # the low byte of an extended code is the primary one
    if advice is not None:
        return f"{where} {advice} ({cause})"
    if isinstance(cause, sqlite3.IntegrityError):
        return f"{where} refused a change that breaks a rule of its schema: {cause}. Nothing was changed"
    return f"{where} cannot be used: {cause}"


def _primary(cause: BaseException) -> str:
    """Return the message on one line, without a server's DETAIL, which may hold a whole row."""
    message: str | None = getattr(getattr(cause, "diag", None), "message_primary", None)
    return " ".join((message or str(cause)).split()).rstrip(".?")
