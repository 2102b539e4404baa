"""Without a daemon: a database that is lost, older or another one is found out by what lies beside it."""

import json
import shutil
import sqlite3
from collections.abc import Callable

import pytest

from tests.cli.conftest import Shell
from tests.e2e.world import Site


def _delete(site: Site) -> None:
    for file in site.state.glob("rotator.db*"):
        file.unlink()


def _empty(site: Site) -> None:
    _delete(site)
    site.database.touch(mode=0o600)


def _begin_anew(site: Site) -> None:
    """Leave what a start without the database leaves: tables, and nothing in them."""
    _delete(site)
    site.rotator("run", "--once", check=False)


def _put_back_an_older_one(site: Site) -> None:
    with sqlite3.connect(site.database) as connection:
        connection.execute("DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)")
        connection.execute("UPDATE audit_head SET seq = seq - 1, hash = (SELECT hash FROM audit ORDER BY seq DESC)")


def _put_another_history_there(site: Site) -> None:
    with sqlite3.connect(site.database) as connection:
        connection.execute("UPDATE audit SET hash = ? WHERE seq = (SELECT max(seq) FROM audit)", ["f" * 64])


def files(site: Site) -> list[str]:
    """Return what is in the state directory, but for what SQLite needs to read a log."""
    return sorted(path.name for path in site.state.iterdir() if path.suffix not in (".db-wal", ".db-shm"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_delete, "rotator.db is missing or empty, and the witness"),
        (_empty, "rotator.db is missing or empty, and the witness"),
        (_begin_anew, "knows another one"),
        (_put_back_an_older_one, "it ends at event 12, and event 13 is known there"),
        (_put_back_an_older_one, "takes it for a restored backup"),
        (_put_another_history_there, "its event 13 has the hash ffff"),
    ],
)
def test_a_database_that_does_not_fit_the_witness_is_critical(
    started: Shell, site: Site, change: Callable[[Site], None], said: str
) -> None:
    """Status exits 3 and says what `run` does about it; check is not ready. Nothing is changed by looking."""
    change(site)
    before = files(site)
    code, out, err = started("status", "--json")
    assert (code, err) == (3, "")
    (problem,) = [found for found in json.loads(out)["problems"] if found["subject"] == "witness"]
    assert problem["severity"] == "critical"
    assert said in problem["text"]
    assert "`rotator run` " in problem["text"]
    assert "compare the database with your backups" in problem["next_step"]
    code, out, _ = started("check")
    assert (code, said in out) == (1, True)
    assert "compare the database with your backups" in out.partition("not ready; next:")[2]
    assert files(site) == before


@pytest.mark.parametrize("nothing_else", [True, False])
def test_a_foreign_set_that_waits_is_critical(started: Shell, site: Site, *, nothing_else: bool) -> None:
    """A first start is refused beside it, later the keyset waits: all cannot be well, and the next step is there."""
    public = site.state / "public"
    if nothing_else:
        kept = shutil.move(public, site.root / "kept")
        shutil.rmtree(site.state)
        site.state.mkdir(mode=0o700)
        shutil.move(kept, public)
    else:
        shutil.copytree(public / "keysets/default", public / "keysets/other")
        text = site.config.read_text().replace("keysets:\n", "keysets:\n  other: {security_period: 90d}\n")
        site.config.write_text(text)
    name = "default" if nothing_else else "other"
    code, out, _ = started("status", "--json")
    problems = {found["subject"]: found for found in json.loads(out)["problems"]}
    assert (code, problems[f"foreign:{name}"]["severity"]) == (3, "critical")
    waits = "`rotator run` refuses to start" if nothing_else else "the keyset waits"
    assert f"Until it is adopted or replaced, {waits}" in problems[f"foreign:{name}"]["text"]
    code, out, _ = started("check")
    assert code == 1
    assert "rotator published adopt --keep-for PERIOD" in out.partition("not ready; next:")[2]
    assert started("run", "--once")[0] == (1 if nothing_else else 3)


def test_workspaces_that_the_state_does_not_know_yet(started: Shell, site: Site) -> None:
    """Nobody issues their tokens: not well, and the next step is to start the daemon."""
    site.config.write_text(site.config.read_text() + "  new: {roles: [admin]}\n")
    code, out, _ = started("status")
    assert code == 3
    assert out.startswith("DEGRADED  1 degraded")
    assert "the config has 1 workspace that the state does not know yet" in out
    assert "  do    start the daemon: systemctl start rotator" in out


def test_other_commands_on_a_lost_database_say_so(started: Shell, site: Site) -> None:
    """One sentence, exit 1."""
    _delete(site)
    code, out, err = started("keys", "list")
    assert (code, out) == (1, "")
    assert "there is no database" in err


def test_a_witness_that_cannot_be_read(started: Shell, site: Site) -> None:
    """Damaged: critical. Under a KEK that is gone: the KEK is the problem, told once."""
    witness = site.state / "witness.json"
    sound = witness.read_bytes()
    witness.write_text("nothing\n")
    subjects = [found["subject"] for found in json.loads(started("status", "--json")[1])["problems"]]
    assert subjects == ["witness"]
    witness.write_bytes(sound)
    (site.state / "kek").unlink()
    subjects = [found["subject"] for found in json.loads(started("status", "--json")[1])["problems"]]
    assert subjects == ["kek"]


def test_a_state_directory_that_was_put_back_beside_a_newer_tree(started: Shell, site: Site) -> None:
    """Neither the database nor the witness knows better: the published meta does, and what was revoked is shown so."""
    kept = site.root / "kept"
    shutil.copytree(site.state, kept, ignore=shutil.ignore_patterns("public", "*.sock", "*-wal", "*-shm"))
    keys = json.loads(started("keys", "list", "--json")[1])["keys"]
    signs = next(key["kid"] for key in keys if key["phase"] == "active")
    assert started("revoke", "key", signs, "--now", "--offline", "--yes", "--reason", "leaked")[0] == 0
    for name in ("rotator.db", "witness.json"):
        shutil.copy(kept / name, site.state / name)
    for file in site.state.glob("rotator.db-*"):
        file.unlink()
    code, out, _ = started("status", "--json")
    (problem,) = [found for found in json.loads(out)["problems"] if found["subject"] == "witness"]
    assert (code, problem["severity"]) == (3, "critical")
    assert "older than the published jwks.meta.json of keyset default" in problem["text"]
    assert "takes it for a restored backup" in problem["text"]
    code, out, _ = started("check")
    assert (code, "older than the published jwks.meta.json" in out) == (1, True)
    phases = {key["kid"]: key["phase"] for key in json.loads(started("keys", "list", "--json")[1])["keys"]}
    assert phases[signs] == "revoked"
    started("run", "--once")
    assert signs not in site.jwks.read_text()
    assert started("check")[0] == 0


def test_a_meta_that_somebody_changed_is_told(started: Shell, site: Site) -> None:
    path = site.state / "public/keysets/default/jwks.meta.json"
    document = json.loads(path.read_text())
    document["witness"]["generation"] += 5
    path.write_text(json.dumps(document))
    code, out, _ = started("status", "--json")
    subjects = {found["subject"]: found for found in json.loads(out)["problems"]}
    assert (code, subjects["meta:default"]["severity"]) == (3, "degraded")
    assert "does not count: it was changed" in subjects["meta:default"]["text"]
    started("run", "--once")
    assert "meta:default" not in [found["subject"] for found in json.loads(started("status", "--json")[1])["problems"]]
