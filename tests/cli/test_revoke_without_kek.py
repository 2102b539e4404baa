"""`rotator revoke` while the key-encryption key is away: answered within a second, and the rest follows by itself."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Shell
from tests.cli.test_revoke import kids
from tests.e2e.world import Site
from tests.patience import wait_until


def kek_of(site: Site) -> Path:
    (path,) = [each for each in site.config.parent.rglob("*kek*") if each.is_file()]
    return path


def published(site: Site) -> list[list[str]]:
    paths = [site.state / "public/.well-known/jwks.json", site.state / "public/keysets/default/jwks.json"]
    return [[key["kid"] for key in json.loads(path.read_text())["keys"]] for path in paths]


def problems(shell: Shell) -> set[str]:
    return {each["subject"] for each in json.loads(shell("status", "--json")[1])["problems"]}


def test_a_key_is_revoked_by_a_daemon_without_its_kek(daemon: Shell, site: Site) -> None:
    """Exit 0; lists and verdicts know it; the audit has it, with who and why, when the KEK is back."""
    (signer,), (spare, *_) = kids(daemon, "active"), kids(daemon, "pending")
    token = next(iter(site.token_files())).read_text().strip()
    kek = kek_of(site)
    kek.rename(kek.with_name("kept"))
    wait_until(lambda: "kek" in problems(daemon), "the daemon notices")
    code, out, err = daemon("revoke", "key", signer, "--reason", "leaked", "--yes")
    assert (code, err) == (0, "")
    said = " ".join(out.split())
    assert f"key {signer} is revoked and out of the published set. The database, and new tokens, follow" in said
    assert published(site) == [[spare]] * 2
    assert kids(daemon, "revoked") == [signer]
    code, out, _ = daemon("verify", token)
    assert code == 1
    assert "as the journal of revocations says; the database is to follow" in out
    assert not any(
        "still shows it" in note
        for note in json.loads(daemon("revoke", "key", signer, "--rehearse", "--json")[1])["notes"]
    )
    kek.with_name("kept").rename(kek)
    wait_until(lambda: "kek" not in problems(daemon), "the daemon has its KEK back")
    wait_until(lambda: kids(daemon, "active") == [spare], "the spare signs")
    events = json.loads(daemon("audit", "list", "--json")[1])["events"]
    (event,) = [each for each in events if each["event"] == "key.revoked"]
    assert (event["kid"], event["reason"]) == (signer, "leaked")
    assert "accepted_at" in event["details"]
    wait_until(lambda: next(iter(site.token_files())).read_text().strip() != token, "a new token is delivered")


def test_a_key_is_revoked_offline_without_the_kek(started: Shell, site: Site) -> None:
    """As with a daemon; whoever reads the state afterwards is told."""
    (signer,), (spare, *_) = kids(started, "active"), kids(started, "pending")
    kek = kek_of(site)
    kek.rename(kek.with_name("kept"))
    code, out, _ = started("revoke", "key", signer, "--reason", "leaked", "--yes", "--offline")
    assert code == 0
    assert "is revoked and out of the published set" in " ".join(out.split())
    assert published(site) == [[spare]] * 2
    assert kids(started, "revoked") == [signer]
    assert kids(started, "active") == []
    kek.with_name("kept").rename(kek)
    started("run", "--once")
    assert published(site)[0][0] == spare
    assert signer not in published(site)[0]
    assert kids(started, "revoked") == [signer]


def test_a_journal_with_a_line_that_cannot_be_read_is_a_problem(started: Shell, site: Site) -> None:
    journal = site.state / "revocations.jsonl"
    journal.write_text("rubbish\n")
    journal.chmod(0o600)
    code, out, _ = started("status", "--json")
    assert code == 3
    (problem,) = [each for each in json.loads(out)["problems"] if each["subject"] == "journal"]
    assert problem["severity"] == "critical"
    assert "1 line that cannot be read (1)" in problem["text"]


@pytest.mark.parametrize("subject", ["token", "workspace"])
def test_a_token_that_was_revoked_without_the_kek_is_listed_and_refused(
    started: Shell, site: Site, subject: str
) -> None:
    tokens = json.loads(started("tokens", "list", "--json")[1])["tokens"]
    jti = next(each["jti"] for each in tokens if each["workspace"] == "w0")
    kek_of(site).rename(site.config.parent / "kept")
    name = jti if subject == "token" else "w0"
    assert started("revoke", subject, name, "--reason", "leaked", "--yes", "--offline")[0] == 0
    tokens = json.loads(started("tokens", "list", "--all", "--json")[1])["tokens"]
    assert [each["phase"] for each in tokens if each["jti"] == jti] == ["revoked"]
    (text,) = [path.read_text().strip() for path in site.token_files() if path.parent.name == "w0" or path.stem == "w0"]
    code, out, _ = started("verify", text)
    assert code == 1
    assert "the token was revoked" in out
    assert "journal of revocations" in out
