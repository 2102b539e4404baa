"""The same daemon on PostgreSQL."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.e2e.world import Site, Verifier, running, wait_for
from tests.postgresql import programs


def counted(url: str, name: str) -> int:
    """Return how many events of that name there are. Nothing is kept open: a test that fails leaves nothing behind."""
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    with engine.connect() as connection:
        return int(connection.scalar(sa.text("SELECT count(*) FROM audit WHERE name = :name"), {"name": name}) or 0)


def wrong(site: Site) -> set[str]:
    """Return what `status` finds wrong."""
    return {problem["subject"] for problem in site.json("status")["problems"]}


def test_keys_and_tokens_rotate_on_postgresql(tmp_path: Path, new_postgresql_url: Callable[[], str]) -> None:
    """No token is refused; what is answered comes from the server; a restart finds its state."""
    site = Site(tmp_path)
    url = new_postgresql_url()
    site.write_config(keyset_period="3s", extra=f"state: {{url: '{url}'}}\n")
    verifier = Verifier(site, max_age_seconds=1.0)
    with verifier.watching():
        with running(site) as daemon:
            wait_for(lambda: counted(url, "key.demoted") >= 3, daemon, "three keys rotated")
            wait_for(lambda: wrong(site) == set(), daemon, "all is well")
            assert url.rsplit("/", 1)[0] not in daemon.log.read_text()
        with running(site) as daemon:
            wait_for(lambda: counted(url, "key.demoted") >= 5, daemon, "two more after a restart")

    assert verifier.refused == []
    assert len(verifier.kids) >= 5
    assert site.rotator("audit", "verify").returncode == 0
    assert {token["workspace"] for token in site.json("tokens", "list")["tokens"]} == {f"w{n}" for n in range(5)}


def test_a_second_daemon_on_one_database_refuses_to_start(
    tmp_path: Path, new_postgresql_url: Callable[[], str]
) -> None:
    """With a state directory of its own, as on another machine; what is offline does, too."""
    first, second = Site(tmp_path / "first"), Site(tmp_path / "second")
    url = new_postgresql_url()
    for site in (first, second):
        site.root.mkdir()
        site.write_config(workspaces=1, extra=f"state: {{url: '{url}'}}\n")
    with running(first) as daemon:
        wait_for(lambda: counted(url, "token.issued") >= 1, daemon, "it works")
        for command in (("run", "--once"), ("replace", "w0", "--offline")):
            done = second.rotator(*command, check=False)
            assert done.returncode == 1
            assert "another rotator works on the PostgreSQL database" in done.stderr
            assert "Traceback" not in done.stderr


def test_the_commands_that_are_told_back_up_and_restore_it(
    tmp_path: Path, new_postgresql_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older dump is put back as `restore` says: the next start finds it out, no token is refused, all goes on."""
    monkeypatch.setenv("PATH", f"{programs()}:{os.environ['PATH']}")
    site = Site(tmp_path)
    url = new_postgresql_url()
    site.write_config(keyset_period="3s", extra=f"state: {{url: '{url}'}}\n")
    verifier = Verifier(site, max_age_seconds=1.0)

    def told(command: str, program: str) -> str:
        """Return the command line that `rotator` says."""
        said = site.rotator(command, str(tmp_path / "kept.dump"), check=False)
        (line,) = re.findall(rf"{program} .+", said.stderr)
        return str(line)

    with verifier.watching():
        with running(site) as daemon:
            wait_for(lambda: counted(url, "key.demoted") >= 1, daemon, "a key rotated")
            subprocess.run(told("backup", "pg_dump"), shell=True, check=True)  # noqa: S602 - what a person would paste
            dumped = counted(url, "key.demoted")
            wait_for(lambda: counted(url, "key.demoted") >= dumped + 2, daemon, "two more rotated after the dump")
        subprocess.run(told("restore", "pg_restore"), shell=True, check=True)  # noqa: S602 - as above
        assert counted(url, "key.demoted") <= dumped
        with running(site) as daemon:
            wait_for(lambda: counted(url, "state.restored") == 1, daemon, "the older database was found out")
            before = counted(url, "key.activated")
            wait_for(lambda: counted(url, "key.activated") >= before + 2, daemon, "keys rotate again")
            # A key that signed after the dump stays out for as long as tokens on it may live.
            wait_for(lambda: wrong(site) <= {"adopted"}, daemon, "all else is well")

    assert verifier.refused == []
    assert site.rotator("audit", "verify").returncode == 0
