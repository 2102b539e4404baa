"""Ends a read, in the midst of a statement, when whoever asked for it says that it is over."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, cast

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

Check = Callable[[], None]
"""Raises when a read is over; may be called from another thread than the one that reads."""

STEPS: Final = 10_000
"""Instructions of SQLite's virtual machine between two looks: about a millisecond."""

LOOK_SECONDS: Final = 0.1
"""Between two looks at a statement that a server works on."""


class _Cancellable(Protocol):
    def cancel(self) -> None: ...


@contextmanager
def bounded(connection: sa.Connection, check: Check | None) -> Iterator[None]:
    """Interrupt the statement that runs on ``connection`` when ``check`` raises, and raise that in its place."""
    if check is None:
        yield
        return
    ended: list[Exception] = []

    def is_over() -> bool:
        try:
            check()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where the read was asked for
            ended.append(error)
        return bool(ended)

    driver = connection.connection.driver_connection
    watch = _in_sqlite(driver, is_over) if isinstance(driver, sqlite3.Connection) else _on_a_server(driver, is_over)
    with watch:
        try:
            yield
        except (DBAPIError, sqlite3.Error):
            if ended:
                raise ended[0] from None
            raise


@contextmanager
def _in_sqlite(driver: sqlite3.Connection, is_over: Callable[[], bool]) -> Iterator[None]:
    driver.set_progress_handler(is_over, STEPS)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)


@contextmanager
def _on_a_server(driver: object, is_over: Callable[[], bool]) -> Iterator[None]:
    """Have a thread cancel what the server works on: the one that reads waits for the answer."""
    through = threading.Event()

    def watch() -> None:
        while not through.wait(LOOK_SECONDS):
            if is_over():
                cast("_Cancellable", driver).cancel()
                return

    watcher = threading.Thread(target=watch, name="rotator-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        through.set()
        watcher.join()  # or else it would cancel what the connection does next
