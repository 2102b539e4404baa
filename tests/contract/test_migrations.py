"""The schema: what the migrations make is what the code expects, and a database of another version is handled."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from rotator.adapters.store import SqlStore, migrate, open_store
from rotator.adapters.store.schema import metadata
from rotator.errors import StoreError


@pytest.fixture
def empty(url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
    yield engine
    engine.dispose()


SCHEMA_QUERIES = {
    "sqlite": "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name",
    "postgresql": "SELECT 'column', table_name || '.' || column_name, data_type || is_nullable || is_identity"
    " || coalesce(column_default, '') FROM information_schema.columns WHERE table_schema = 'public'"
    " UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    " UNION ALL SELECT 'constraint', conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2",
}


def schema_of(engine: sa.Engine) -> set[tuple[str, str, frozenset[str]]]:
    """Return every object with the lines of its definition, in whatever order a generator wrote them."""
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(SCHEMA_QUERIES[engine.dialect.name]).all()
    return {(kind, name, frozenset(line.strip(" \t,") for line in sql.splitlines())) for kind, name, sql in rows}


def migrated(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        migrate.upgrade(connection, migrate.HEAD)


def test_migrations_make_what_the_code_expects(empty: sa.Engine) -> None:
    """Alembic finds nothing to add to what the migrations made."""
    migrated(empty)
    with empty.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_new_database_is_the_migrated_one(empty: sa.Engine, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A new database skips the migrations, and is the same to the last constraint and condition."""
    migrated(empty)
    if empty.dialect.name == "sqlite":
        url = f"sqlite:///{tmp_path / 'new.db'}"
    else:
        new: Callable[[], str] = request.getfixturevalue("new_postgresql_url")
        url = new()
    opened = open_store(url, create=True)
    assert schema_of(opened._engine) == schema_of(empty)
    opened.close()


def test_revisions_are_the_migrations_in_the_package() -> None:
    """None is forgotten, and they follow each other in one line."""
    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    scripts = ScriptDirectory.from_config(config)
    assert tuple(reversed([script.revision for script in scripts.walk_revisions()])) == migrate.REVISIONS
    assert scripts.get_heads() == [migrate.HEAD]


def stamp(engine: sa.Engine, revision: str) -> None:
    with engine.begin() as connection:
        connection.execute(sa.update(migrate.version_table).values(version_num=revision))


@pytest.mark.parametrize("read_only", [False, True])
def test_database_of_a_newer_version_is_refused(store: SqlStore, url: str, read_only: bool) -> None:
    """Nothing is done to it, and the message says what to install."""
    store.close()
    stamp(store._engine, "0999")
    store.close()
    with pytest.raises(StoreError, match=r"made by a newer rotator: its schema is 0999, this version knows 0001"):
        open_store(url, create=True, read_only=read_only)


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Be the version after the next: two migrations more, one of which adds a column."""
    scripts = tmp_path / "migrations"
    (scripts / "versions").mkdir(parents=True)
    for found in migrate.SCRIPTS.rglob("*.py"):
        (scripts / found.relative_to(migrate.SCRIPTS)).write_text(found.read_text())
    step = (
        "import sqlalchemy as sa\nfrom alembic import op\nrevision = '{}'\ndown_revision = '{}'\n"
        "def upgrade():\n    op.add_column('replicas', sa.Column('note_{}', sa.Text()))\n"
    )
    for before, after in (("0001", "0002"), ("0002", "0003")):
        (scripts / "versions" / f"{after}_next.py").write_text(step.format(after, before, after))
    monkeypatch.setattr(migrate, "SCRIPTS", scripts)
    monkeypatch.setattr(migrate, "REVISIONS", ("0001", "0002", "0003"))
    monkeypatch.setattr(migrate, "HEAD", "0003")


@pytest.mark.usefixtures("next_version")
def test_older_database_is_migrated_at_open(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All migrations run, the installation stays, and the second open finds nothing to do."""
    with monkeypatch.context() as older:
        older.setattr(migrate, "HEAD", "0001")
        first = open_store(url, create=True)
        with first.read() as snapshot:
            name = snapshot.installation()
        first.close()
    for _ in range(2):
        opened = open_store(url, create=False)
        with opened.read() as snapshot:
            assert snapshot.installation() == name
        assert not opened.created
        columns = {column["name"] for column in sa.inspect(opened._engine).get_columns("replicas")}
        opened.close()
        assert {"note_0002", "note_0003"} <= columns


@pytest.mark.usefixtures("next_version")
@pytest.mark.parametrize(("stamped", "readable"), [("0001", False), ("0002", True), ("0003", True)])
def test_one_version_back_is_read(url: str, stamped: str, readable: bool) -> None:
    """Commands that only read work until the daemon is restarted after an upgrade, and never migrate."""
    opened = open_store(url, create=True)
    stamp(opened._engine, stamped)
    opened.close()
    if not readable:
        with pytest.raises(StoreError, match=r"has schema 0001, this version needs 0003\. Start the daemon"):
            open_store(url, create=False, read_only=True)
        return
    reader = open_store(url, create=False, read_only=True)
    with reader._engine.connect() as connection:
        assert connection.execute(sa.select(migrate.version_table.c.version_num)).scalar() == stamped
    reader.close()


@pytest.mark.parametrize("stamped", ["0001", "0002"])
@pytest.mark.parametrize("read_only", [False, True])
def test_database_of_an_unreleased_version_is_refused(
    empty: sa.Engine, url: str, stamped: str, read_only: bool
) -> None:
    """Its rows bear no MAC that this version could verify: it is named, and left as it is."""
    migrated(empty)
    with empty.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE keks DROP COLUMN mac")
    stamp(empty, stamped)
    with pytest.raises(StoreError, match="was made by an unreleased version of rotator"):
        open_store(url, create=True, read_only=read_only)


def test_alembic_is_not_loaded_for_a_database_at_head(tmp_path: Path) -> None:
    """Its import takes half a second, which no command has to spend."""
    program = (
        "import sys\nfrom rotator.adapters.store import open_store\n"
        f"for create in (True, False): open_store('sqlite:///{tmp_path}/rotator.db', create=create).close()\n"
        "sys.exit('alembic' in sys.modules or 'psycopg' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
