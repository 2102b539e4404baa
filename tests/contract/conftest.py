from collections.abc import Iterator
from pathlib import Path

import pytest

from rotator.adapters.store import SqlStore, open_store


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Name a database that does not exist yet, or is empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'rotator.db'}"
    made: str = request.getfixturevalue("new_postgresql_url")()
    return made


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    """Make a new store."""
    opened = open_store(url, create=True)
    yield opened
    opened.close()
