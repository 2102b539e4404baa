"""The same daemon on PostgreSQL."""

from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from tests.e2e.world import Site, Verifier, running, wait_for


def test_keys_and_tokens_rotate_on_postgresql(tmp_path: Path, new_postgresql_url: Callable[[], str]) -> None:
    """No token is refused; what is answered comes from the server; a restart finds its state."""
    site = Site(tmp_path)
    url = new_postgresql_url()
    site.write_config(keyset_period="3s", extra=f"state: {{url: '{url}'}}\n")
    verifier = Verifier(site, max_age_seconds=1.0)
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))

    def demoted() -> int:
        with engine.connect() as connection:
            return int(connection.scalar(sa.text("SELECT count(*) FROM audit WHERE name = 'key.demoted'")) or 0)

    with verifier.watching():
        with running(site) as daemon:
            wait_for(lambda: demoted() >= 3, daemon, "three keys rotated")
            assert site.json("status")["state"] == "ok"
            assert url.rsplit("/", 1)[0] not in daemon.log.read_text()
        with running(site) as daemon:
            wait_for(lambda: demoted() >= 5, daemon, "two more after a restart")

    assert verifier.refused == []
    assert len(verifier.kids) >= 5
    assert site.rotator("audit", "verify").returncode == 0
    assert {token["workspace"] for token in site.json("tokens", "list")["tokens"]} == {f"w{n}" for n in range(5)}
    engine.dispose()
