"""One daemon at a time on one PostgreSQL: a lock of the server's, held by a session for as long as the daemon lives.

Replicas are not built yet, and two daemons that do not know of each other would take each other's work for their own.
"""

from contextlib import suppress
from typing import Final

import sqlalchemy as sa
from sqlalchemy import exc

from rotator.adapters.store.problems import LOCK_NOT_AVAILABLE, place, reported
from rotator.errors import RefusedError, StoreError

ALONE: Final = 0x726F7462
"""Key of the advisory lock. Another one than that under which a database is made."""

NOTICED: Final = ("tcp_keepalives_idle = 20", "tcp_keepalives_interval = 5", "tcp_keepalives_count = 4")
"""So that the server gives the lock of a machine that went down to the next one within a minute, not hours."""

_HOLDER: Final = """\
SELECT activity.pid, host(activity.client_addr), activity.backend_start
FROM pg_locks AS lock JOIN pg_stat_activity AS activity USING (pid)
WHERE lock.locktype = 'advisory' AND lock.granted AND lock.classid = 0 AND lock.objid = %s AND lock.objsubid = 1
  AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


class HeldAlone:
    """The lock, until :meth:`close` or the end of the process."""

    def __init__(self, engine: sa.Engine) -> None:
        """Take it; raise :class:`RefusedError` when another one has it for longer than this one waits."""
        self._engine = engine
        self._where = place(engine.url)
        self._connection: sa.Connection | None = None
        self._take()

    def lost(self) -> str:
        """Return why a second daemon works on the database by now; empty while none can.

        A session that ended, as when the server was restarted, is made again. Whether the server is there is told by
        whoever wants something of it.
        """
        if self._connection is not None:
            try:
                self._connection.exec_driver_sql("SELECT 1")
            except exc.SQLAlchemyError:
                self._drop()
            else:
                return ""
        try:
            self._take()
        except StoreError:
            return ""
        except RefusedError as error:
            return f"the server ended the session of this daemon, and {error}"
        return ""

    def close(self) -> None:
        """Let the next one in."""
        self._drop()

    def _take(self) -> None:
        with reported(self._where):
            connection = self._engine.execution_options(isolation_level="AUTOCOMMIT").connect()
            try:
                for setting in NOTICED:
                    connection.exec_driver_sql(f"SET {setting}")
                connection.exec_driver_sql("SELECT pg_advisory_lock(%s)", (ALONE,))
            except exc.OperationalError as error:
                taken = getattr(error.orig, "sqlstate", None) == LOCK_NOT_AVAILABLE
                holder = self._holder(connection) if taken else ""
                connection.detach()
                connection.close()
                if not taken:
                    raise
                raise RefusedError(
                    f"another rotator works on {self._where}{holder}. Several daemons on one database are not built "
                    "yet: stop that one, or give this one a database of its own"
                ) from None
        connection.detach()  # it never goes back to the pool, where the lock would live on
        self._connection = connection

    def _holder(self, connection: sa.Connection) -> str:
        row = connection.exec_driver_sql(_HOLDER, (ALONE,)).first()
        if row is None:
            return ""
        machine = "the server's own machine" if row[1] is None else row[1]
        since = "" if row[2] is None else f", since {row[2]:%Y-%m-%d %H:%M:%S %Z}"
        return f" (from {machine}{since}; process {row[0]} of the server)"

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(exc.SQLAlchemyError):
                connection.close()
