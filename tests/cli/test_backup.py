"""`rotator backup` and `rotator restore`, as a person and a script meet them."""

import getpass
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from rotator.schemas import load
from tests.cli.conftest import Shell
from tests.e2e.world import Site
from tests.patience import HANG_SECONDS


def events_in(database: Path) -> list[str]:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        return [row[0] for row in connection.execute("SELECT name FROM audit ORDER BY seq")]


def sealed_with(site: Site) -> bytes:
    return (site.state / "kek").read_text().split()[1].encode()


def test_a_backup_beside_a_running_daemon(daemon: Shell, site: Site) -> None:
    """It is private, holds no KEK, and what belongs with it is said."""
    target = site.root / "kept.db"
    code, out, err = daemon("backup", str(target))
    assert (code, err) == (0, "")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sealed_with(site) not in target.read_bytes()
    assert str(site.state / "kek") in out
    assert str(site.config) in out
    assert f"rotator restore {target}" in out
    code, out, _ = daemon("backup", str(target), "--json")
    made = json.loads(out)
    jsonschema.validate(made, load("backup"))
    assert made["audit_seq"] == len(events_in(target))


def test_a_workspace_that_is_wrong_keeps_no_backup_from_being_made(started: Shell, site: Site) -> None:
    """Nor a state that is not there yet from being told of."""
    (site.root / "more.yaml").write_text("workspaces: {acme: {security_period: soon}}\n")
    site.config.write_text(site.config.read_text() + "include: [more.yaml]\n")
    assert started("check")[0] == 2
    assert started("backup", str(site.root / "kept.db"))[0] == 0
    shutil.rmtree(site.state)
    code, _, err = started("backup", str(site.root / "kept.db"))
    assert (code, "Traceback" in err) == (1, False)
    assert str(site.state) in err


@pytest.mark.parametrize("place", ["database", "published", "other"])
def test_a_backup_goes_over_nothing_else(started: Shell, site: Site, place: str) -> None:
    targets = {
        "database": site.database,
        "published": site.state / "public" / "kept.db",
        "other": site.root / "notes.txt",
    }
    (site.root / "notes.txt").write_text("notes")
    before = site.database.read_bytes()
    code, out, err = started("backup", str(targets[place]))
    assert (code, out) == (1, "")
    assert "name another" in err
    assert (site.root / "notes.txt").read_text() == "notes"
    assert site.database.read_bytes() == before
    assert not targets["published"].exists()


def test_a_backup_of_another_installation_is_not_replaced(started: Shell, site: Site) -> None:
    target = site.root / "kept.db"
    assert started("backup", str(target))[0] == 0
    with sqlite3.connect(target) as connection:
        connection.execute("UPDATE installation SET id = 'another'")
    code, _, err = started("backup", str(target))
    assert code == 1
    assert "a backup of another installation (another)" in err


def test_a_place_that_is_not_there(started: Shell, site: Site) -> None:
    code, _, err = started("backup", str(site.root / "missing" / "kept.db"))
    assert code == 1
    assert "no backup was made" in err
    assert "create the directory" in err


def test_postgresql_is_told_how(site: Site, shell: Shell) -> None:
    url = "postgresql://rotator@db.example.com/rotator"
    site.config.write_text(site.config.read_text() + f"state: {{url: '{url}'}}\n")
    code, _, err = shell("backup", str(site.root / "kept.dump"))
    assert code == 1
    assert f"pg_dump --format=custom --file={site.root / 'kept.dump'} {url}" in err
    code, _, err = shell("restore", str(site.root / "kept.dump"))
    assert code == 1
    assert "pg_restore --clean" in err


# ------------------------------------------------------------------------------------------------------------- restore


def test_a_restore_and_what_it_leaves(started: Shell, site: Site) -> None:
    """The database of before is kept, the person and the reason are in the audit, and the daemon finds all well."""
    target = site.root / "kept.db"
    started("backup", str(target))
    assert started("token", "show", "w0", "--offline")[0] == 0
    assert "token.shown" in events_in(site.database)
    code, out, err = started("restore", str(target), "--yes", "--reason", "the wrong disk was wiped")
    assert (code, err) == (0, "")
    assert "older than the witness, which knows of 1 later event\n" in out
    assert "2 workspaces get a fresh one" in out
    (kept,) = (site.state / "replaced").glob("*/rotator.db")
    assert str(kept) in out
    assert "token.shown" in events_in(kept)
    assert events_in(site.database)[-1] == "backup.restored"
    assert not list(site.state.glob(".restore-*"))
    assert stat.S_IMODE(site.database.stat().st_mode) == 0o600
    site.rotator("run", "--once", check=False)  # exits 3 while no spare is ready again
    last = [event for event in site.events() if event["name"] in ("backup.restored", "state.restored")]
    assert [event["name"] for event in last] == ["backup.restored", "state.restored"]
    put, found = (json.loads(event["details"]) for event in last)
    assert found.pop("found_by") == "witness"
    assert found == {name: put[name] for name in ("database_seq", "witness_seq", "witness_hash")}
    assert found["witness_seq"] == found["database_seq"] + 1
    assert last[0]["reason"] == "the wrong disk was wiped"
    assert last[0]["actor"] != "rotator"
    assert json.loads(started("audit", "verify", "--json")[1])["intact"]


def test_what_was_revoked_is_revoked_in_what_is_put_in_place(started: Shell, site: Site) -> None:
    """Before any start: whoever reads the restored database in between must not be told that it is alive."""
    target, token = site.root / "kept.db", site.root / "delivered" / "w0" / "token"
    shutil.copy(token, site.root / "revoked")
    started("backup", str(target))
    kid = json.loads(started("keys", "list", "--json")[1])["keys"][0]["kid"]
    listed = json.loads(started("tokens", "list", "--json")[1])["tokens"]
    jti = next(entry["jti"] for entry in listed if entry["workspace"] == "w0")

    site.rotator("revoke", "token", jti, "--reason", "leaked", "--yes", "--offline")
    assert started("restore", str(target), "--yes")[0] == 0
    code, out, _ = started("verify", "--file", str(site.root / "revoked"))
    assert (code, "the token was revoked" in out) == (1, True)
    listed = json.loads(started("tokens", "list", "--all", "--json")[1])["tokens"]
    assert {entry["workspace"]: entry["phase"] for entry in listed} == {"w0": "revoked", "w1": "active"}
    assert events_in(site.database)[-2:] == ["backup.restored", "token.revoked"]

    site.rotator("revoke", "key", kid, "--reason", "leaked", "--yes", "--now", "--offline")
    assert started("restore", str(target), "--yes")[0] == 0
    code, out, _ = started("verify", "--file", str(site.root / "revoked"))
    assert code == 1
    assert "its key was revoked" in out
    assert "the token was revoked" in out
    assert json.loads(started("keys", "show", kid, "--json")[1])["key"]["phase"] == "revoked"
    phases = {key["kid"]: key["phase"] for key in json.loads(started("keys", "list", "--json")[1])["keys"]}
    assert phases.get(kid) in (None, "revoked")
    listed = json.loads(started("tokens", "list", "--all", "--json")[1])["tokens"]
    assert {entry["phase"] for entry in listed} == {"revoked"}
    assert (kid, None) in site.query("SELECT kid, sealed FROM signing_keys")
    assert events_in(site.database)[-3:] == ["backup.restored", "key.revoked", "tokens.revoked"]

    assert site.rotator("run", "--once", check=False).returncode == 3  # no key signs yet
    told = events_in(site.database)
    assert (told.count("key.revoked"), told.count("state.restored")) == (1, 1)
    assert json.loads(started("audit", "verify", "--json")[1])["intact"]
    assert kid not in site.jwks.read_text()


def test_what_was_lost_in_a_restore_is_called_so(started: Shell, site: Site) -> None:
    """A noted head was not cut off by a stranger, and a token that was issued since was forged by nobody."""
    target, token = site.root / "kept.db", site.root / "delivered" / "w0" / "token"
    started("backup", str(target))
    last = len(events_in(target))
    lost, revoked = site.root / "lost", site.root / "revoked"
    for kept in (lost, revoked):
        site.rotator("replace", "w0", "--offline")
        shutil.copy(token, kept)
    jti = json.loads(started("verify", "--file", str(revoked), "--json")[1])["jti"]
    site.rotator("revoke", "token", jti, "--reason", "leaked", "--yes", "--offline")
    head = json.loads(started("audit", "verify", "--json")[1])["head_hash"]
    before, between = (event["hash"] for event in site.events() if event["seq"] in (5, last + 1))
    site.rotator("restore", str(target), "--yes", "--reason", "disk broke")

    for _ in ("until the next start", "after it"):
        code, out, _ = started("audit", "verify", "--head", head)
        assert (code, out.startswith("RESTORED: ")) == (3, True)
        assert f"events {last + 1} to " in out
        assert f"{getpass.getuser()}({os.geteuid()}) restored a backup" in out
        assert "disk broke" in out
        assert "its end was cut off" not in out
        found = json.loads(started("audit", "verify", "--head", head, "--json")[1])
        jsonschema.validate(found, load("audit-verify"))
        assert (found["verdict"], found["intact"]) == ("restored", False)
        names = {event["seq"]: event["name"] for event in site.events()}
        assert names[found["restored_seq"]] in ("backup.restored", "state.restored")
        assert started("audit", "verify", "--head", before)[0] == 0
        code, out, _ = started("audit", "verify", "--head", between)
        assert (code, out.startswith("BROKEN: ")) == (1, True)
        assert f"or it is of the events {last + 1} to " in " ".join(out.split())

        code, out, _ = started("verify", "--file", str(revoked))
        assert code == 1
        assert "as the journal of revocations says" in out
        code, out, _ = started("verify", "--file", str(lost))
        assert code == 1
        assert "was lost with the database of before" in out
        assert "not revoked as far as the witness knows" in out
        assert "sign" not in out.split("token:")[-1]
        site.rotator("run", "--once", check=False)  # exits 3 while no spare is ready again


def test_an_older_database_that_was_copied_into_place_brings_nothing_back(started: Shell, site: Site) -> None:
    """Without a restore that could see to it: whoever looks before the start asks the witness, too."""
    token, kept = site.root / "delivered" / "w0" / "token", site.root / "kept.db"
    started("backup", str(kept))
    shutil.copy(token, site.root / "old")
    old = json.loads(started("verify", "--file", str(token), "--json")[1])
    site.rotator("replace", "w0", "--offline")
    shutil.copy(token, site.root / "lost")
    site.rotator("revoke", "key", old["kid"], "--reason", "leaked", "--yes", "--now", "--offline")
    shutil.copy(token, site.root / "newest")
    head = json.loads(started("audit", "verify", "--json")[1])["head_hash"]
    for name in ("-wal", "-shm"):
        site.database.with_name(f"rotator.db{name}").unlink(missing_ok=True)
    shutil.copy(kept, site.database)
    code, out, _ = started("verify", "--file", str(site.root / "old"))
    assert (code, "as the journal of revocations says" in out) == (1, True)
    code, out, _ = started("verify", "--file", str(site.root / "lost"))
    assert (code, "this database is older than the witness" in out) == (1, True)
    code, out, _ = started("audit", "verify", "--head", head)
    assert (code, out.startswith("RESTORED: ")) == (3, True)
    assert "older database" in out
    keys = json.loads(started("keys", "list", "--json")[1])["keys"]
    assert {key["kid"]: key["phase"] for key in keys}[old["kid"]] == "revoked"
    assert json.loads(started("keys", "show", old["kid"], "--json")[1])["key"]["phase"] == "revoked"
    listed = json.loads(started("tokens", "list", "--all", "--json")[1])["tokens"]
    assert {entry["phase"] for entry in listed} == {"revoked"}
    assert json.loads(started("status", "--json")[1])["keysets"][0]["signing_kid"] is None
    assert started("plan", "--json")[0] == 0


def test_a_rehearsal_changes_nothing_and_works_beside_a_daemon(daemon: Shell, site: Site) -> None:
    target = site.root / "kept.db"
    daemon("backup", str(target))
    before = sorted(path.name for path in site.state.iterdir())
    code, out, _ = daemon("restore", str(target), "--rehearse", "--json")
    assert code == 0
    found = json.loads(out)
    jsonschema.validate(found, load("restore"), format_checker=jsonschema.FormatChecker())
    assert (found["rehearsed"], found["replaced"]) == (True, [])
    assert found["forecast"]["keysets"][0]["signs"] in daemon("keys", "list", "--json")[1]
    assert sorted(path.name for path in site.state.iterdir()) == before
    code, _, err = daemon("restore", str(target), "--yes")
    assert code == 1
    assert "stop it first" in err


def test_a_restore_asks_and_without_a_terminal_wants_to_be_told(started: Shell, site: Site) -> None:
    target = site.root / "kept.db"
    started("backup", str(target))
    before = site.database.stat().st_ino
    code, out, err = started("restore", str(target))
    assert code == 1
    assert "say --yes" in err
    assert "keyset default" in out
    assert site.database.stat().st_ino == before


def test_a_backup_of_another_installation_is_refused(started: Shell, site: Site) -> None:
    target = site.root / "kept.db"
    started("backup", str(target))
    with sqlite3.connect(target) as connection:
        connection.execute("UPDATE installation SET id = 'another'")
    code, _, err = started("restore", str(target), "--yes")
    assert code == 1
    assert "the backup is of installation another, and the witness beside the state is of" in err


def test_a_backup_that_the_kek_does_not_open_is_refused(started: Shell, site: Site) -> None:
    target = site.root / "kept.db"
    started("backup", str(target))
    name = (site.state / "kek").read_text().split()[0]
    (site.state / "kek").write_text(f"{name} {'A' * 43}\n")
    code, _, err = started("restore", str(target), "--yes")
    assert code == 1
    assert "the KEK of this machine does not open the backup" in err


def test_a_file_that_is_no_backup_is_refused(started: Shell, site: Site) -> None:
    code, _, err = started("restore", str(site.config), "--yes")
    assert code == 1
    assert "is not an SQLite database" in err


def test_a_database_that_is_damaged_or_gone_makes_room(started: Shell, site: Site) -> None:
    """The very case that backups are for; also on a new disk, where not even the directory is there."""
    target = site.root / "kept.db"
    started("backup", str(target))
    site.database.write_bytes(b"nothing" * 4000)
    code, out, err = started("restore", str(target), "--yes")
    assert (code, err) == (0, "")
    site.rotator("run", "--once", check=False)  # exits 3 while no spare is ready again
    kek = (site.state / "kek").read_bytes()
    shutil.rmtree(site.state)
    site.state.mkdir(mode=0o700)
    (site.state / "kek").write_bytes(kek)
    (site.state / "kek").chmod(0o600)
    code, out, err = started("restore", str(target), "--yes")
    assert (code, err) == (0, "")
    assert "warning: there is no witness" in out
    site.rotator("run", "--once", check=False)  # exits 3 while no spare is ready again


def test_a_key_in_the_published_file_that_nobody_knows_is_named(started: Shell, site: Site) -> None:
    target = site.root / "kept.db"
    started("backup", str(target))
    path = site.state / "public" / "keysets" / "default" / "jwks.json"
    document = json.loads(path.read_text())
    signs = json.loads(started("restore", str(target), "--rehearse", "--json")[1])["forecast"]["keysets"][0]["signs"]
    kept = [key for key in document["keys"] if key["kid"] != signs]
    path.write_text(json.dumps({"keys": [*kept, {**document["keys"][0], "kid": "a-stranger"}]}))
    (site.state / "public" / ".well-known" / "jwks.json").unlink()
    code, out, _ = started("restore", str(target), "--rehearse")
    assert code == 0
    assert "it is not in the published set: its tokens are refused until verifiers fetch" in out
    assert "a-stranger is in the published file and known to nobody" in out


def test_public_keys_are_exported(started: Shell, site: Site) -> None:
    """As the set that is published, and as PEM that others' tools read."""
    code, out, _ = started("export")
    assert (code, out) == (0, site.jwks.read_text())
    code, out, _ = started("export", "--format", "pem", "--keyset", "default")
    assert code == 0
    assert out.count("-----BEGIN PUBLIC KEY-----") == 2
    for key in json.loads(site.jwks.read_text())["keys"]:
        assert f"kid: {key['kid']}\nalg: ES256\n-----BEGIN" in out
    assert started("export", "--keyset", "no/such")[0] == 2


KILLED = """\
import os, sys
from pathlib import Path
from rotator.adapters.clock import wall_time
from rotator.adapters.disk import OsDisk
from rotator.cli.session import load_config
from rotator.restoring import preparing

def kill(*_, **__):
    os.kill(os.getpid(), 9)

config, file, step = sys.argv[1:]
disk = OsDisk()
with preparing(load_config(Path(config)), Path(file), rehearse=False, disk=disk) as restoration:
    if step == "link":
        os.link = kill
    elif step == "unlink":
        Path.unlink = kill
    else:
        setattr(disk, step, kill)
    restoration.put_in_place("", wall_time())
"""


@pytest.mark.parametrize("step", ["link", "unlink", "fsync_directory", "create", "fsync", "rename"])
def test_a_restore_that_is_killed_leaves_one_whole_database(started: Shell, site: Site, step: str) -> None:
    """The old one, or the new one; and it can be begun again, and the daemon goes on either way."""
    target = site.root / "kept.db"
    started("backup", str(target))
    started("token", "show", "w0", "--offline")
    command = [sys.executable, "-c", KILLED, str(site.config), str(target), step]
    assert subprocess.run(command, check=False, timeout=HANG_SECONDS).returncode == -9
    assert "token.shown" in events_in(site.database)
    assert started("status", "--json")[0] == 0
    site.rotator("restore", str(target), "--yes")
    assert "token.shown" not in events_in(site.database)
    assert not [path for path in site.state.iterdir() if path.name.startswith((".restore-", ".rotator.db"))]
    site.rotator("run", "--once", check=False)  # exits 3 while no spare is ready again


def test_no_token_is_shown_from_a_restored_database_that_no_start_has_seen_to(started: Shell, site: Site) -> None:
    """Nor does that look do the work of a start: what it holds as current is older than what is delivered."""
    target = site.root / "kept.db"
    started("backup", str(target))
    site.rotator("replace", "w0", "--offline")
    site.rotator("restore", str(target), "--yes")
    before = events_in(site.database)
    code, out, err = started("token", "show", "w0", "--offline")
    assert (code, out) == (1, "")
    assert "older than the witness" in err
    assert "rotator run" in err
    assert events_in(site.database) == before
    site.rotator("run", "--once", check=False)  # exits 3 while no spare is ready again
    assert started("token", "show", "w0", "--offline")[0] == 0
