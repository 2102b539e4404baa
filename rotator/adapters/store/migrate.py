"""Brings a database to the schema of this version when it is opened.

A new database is made from the metadata and stamped; an older one goes through the migrations. Both happen in one
transaction, so whoever is killed in it leaves the database as it was. Reading the stamp is one query, and Alembic,
which takes half a second to import, is loaded only when there is something to migrate.

Each version reads, without changing it, a database that is one revision behind: so that the commands which read work
between the upgrade of the package and the restart of the daemon. A database of an unknown revision is a newer one's,
and is refused.
"""

import uuid
from pathlib import Path
from typing import Final, NamedTuple

import sqlalchemy as sa

from rotator.adapters.store.schema import audit_head, installation, metadata
from rotator.core.events import GENESIS
from rotator.errors import StoreEmptyError, StoreError

REVISIONS: Final = ("0001",)
"""Every migration in ``migrations/versions``, oldest first."""

HEAD: Final = REVISIONS[-1]
SCRIPTS: Final = Path(__file__).parent / "migrations"

version_table: Final = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),  # as Alembic makes it
)

ONE_AT_A_TIME: Final = 0x726F7461
"""Key of the advisory lock under which a PostgreSQL database is made or migrated."""


class Prepared(NamedTuple):
    """A database that can be used."""

    made: bool
    """It was not there before."""
    revision: str
    """Of its schema: the newest, or, where it may only be read, the one before."""


def prepare(engine: sa.Engine, for_writing: sa.Engine, where: str, *, create: bool, read_only: bool) -> Prepared:
    """Make or migrate the database as needed. Raise :class:`StoreError` if it is unusable.

    ``for_writing`` is ``engine``, with transactions that take the write lock when they begin.
    """
    with engine.connect() as connection:
        found = _revision(connection)
    if found is None and (read_only or not create):
        raise StoreEmptyError(f"{where} is empty. `rotator run` fills it at its first start; start the daemon first")
    if found is not None:
        with engine.connect() as connection:
            _refuse_unreleased(connection, where)
    if found is not None and found not in REVISIONS:
        raise StoreError(_newer(found, where))
    if read_only:
        return Prepared(made=False, revision=_readable(found, where))
    if found == HEAD:
        return Prepared(made=False, revision=HEAD)
    with for_writing.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (ONE_AT_A_TIME,))
        return Prepared(_bring_to_head(connection, where), HEAD)


def _bring_to_head(connection: sa.Connection, where: str) -> bool:
    """Look again, now that no other process can be at it, and do what is left to do."""
    found = _revision(connection)
    if found is None:
        _refuse_foreign(connection, where)
        _make(connection)
        return True
    if found not in REVISIONS:
        raise StoreError(_newer(found, where))
    if found != HEAD:
        upgrade(connection, HEAD)
    return False


def _readable(found: str | None, where: str) -> str:
    if found is None or found not in REVISIONS[-2:]:
        raise StoreError(
            f"{where} has schema {found}, this version needs {HEAD}. Start the daemon of this version: it migrates"
        )
    return found


def _newer(found: str, where: str) -> str:
    return (
        f"{where} was made by a newer rotator: its schema is {found}, this version knows {HEAD} and before. Install "
        "the version that made it, or put back a backup from before the upgrade"
    )


def _refuse_unreleased(connection: sa.Connection, where: str) -> None:
    """Refuse a database from before the first release: its rows bear no MAC that anybody could believe."""
    inspector = sa.inspect(connection)
    if not inspector.has_table("keks") or "mac" not in {column["name"] for column in inspector.get_columns("keks")}:
        raise StoreError(
            f"{where} was made by an unreleased version of rotator, whose rows this one cannot authenticate. Begin a "
            "new state: move the database and the witness away, then `rotator published adopt` keeps the keys that are "
            "published until the tokens on them have ended"
        )


def _revision(connection: sa.Connection) -> str | None:
    """Return the stamped revision; None for a database without one."""
    if not sa.inspect(connection).has_table(version_table.name):
        return None
    return connection.execute(sa.select(version_table.c.version_num)).scalar()


def _refuse_foreign(connection: sa.Connection, where: str) -> None:
    others = set(sa.inspect(connection).get_table_names()) & set(metadata.tables)
    if others:
        raise StoreError(
            f"{where} holds tables of another program ({', '.join(sorted(others))}). Give rotator a database of its own"
        )


def _make(connection: sa.Connection) -> None:
    metadata.create_all(connection)
    version_table.create(connection)
    connection.execute(sa.insert(version_table).values(version_num=HEAD))
    first_rows(connection)


def first_rows(connection: sa.Connection) -> None:
    """Name the installation, and begin the audit chain."""
    connection.execute(sa.insert(installation).values(single=1, id=str(uuid.uuid4())))
    connection.execute(
        sa.insert(audit_head).values(single=1, seq=0, hash=GENESIS, anchor_seq=0, anchor_hash=GENESIS, logged_seq=0)
    )


def upgrade(connection: sa.Connection, to: str) -> None:
    """Run the migrations up to revision ``to`` in the transaction of ``connection``."""
    from alembic import command  # noqa: PLC0415 - half a second that almost no start needs
    from alembic.config import Config  # noqa: PLC0415 - as above

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)
