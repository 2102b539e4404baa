"""`rotator revoke`, as a person and as a script use it: rehearsed first, asked about, followed to its end."""

import json
import re
from dataclasses import replace
from io import StringIO

import jsonschema
import pytest

from rotator.cli import compromise
from rotator.cli.progress import Bar
from rotator.cli.session import load_config
from rotator.core.model import DEFAULT_KEYSET, ReplicaId
from rotator.report.revocation import WHAT_IT_CAN_DO
from rotator.schemas import load
from rotator.wiring import open_state
from tests.cli.conftest import Shell
from tests.e2e.world import Site


def kids(shell: Shell, phase: str) -> list[str]:
    _, out, _ = shell("keys", "list", "--json")
    return [key["kid"] for key in json.loads(out)["keys"] if key["phase"] == phase]


def state_of(shell: Shell) -> tuple[str, str]:
    return shell("keys", "list", "--json")[1], shell("tokens", "list", "--all", "--json")[1]


def test_a_rehearsal_prints_the_report_and_changes_nothing(started: Shell) -> None:
    """Of each kind, for people and for programs; it needs no reason, for nothing goes into the audit."""
    before = state_of(started)
    (signer,) = kids(started, "active")
    jti = json.loads(before[1])["tokens"][0]["jti"]
    for command in (("key", signer[:8]), ("keyset", "default"), ("token", jti), ("workspace", "w0")):
        code, out, err = started("revoke", *command, "--rehearse")
        assert (code, err) == (0, "")
        assert out.startswith(f"REHEARSAL  of revoking {command[0]} ")
        assert WHAT_IT_CAN_DO in out
        code, out, err = started("revoke", *command, "--rehearse", "--json")
        assert (code, err) == (0, "")
        jsonschema.validate(json.loads(out), load(f"revoke-{command[0]}"), format_checker=jsonschema.FormatChecker())
        assert json.loads(out)["done"] is False
    assert state_of(started) == before


def test_a_script_must_say_why_and_that_it_is_meant(started: Shell) -> None:
    """Exit 2, with what is missing; where no spare is left, that is the choice, with its figures."""
    before = state_of(started)
    (signer,) = kids(started, "active")
    for arguments, problem in (
        (("key", signer, "--yes"), "say why with --reason"),
        (("key", signer, "--reason", "leaked"), "add --yes if it is meant"),
        (("keyset", "default", "--reason", "leaked", "--yes"), "choose --wait or --now: keyset default has no spare"),
        (("keyset", "default", "--reason", "leaked", "--wait", "--now"), "choose one"),
    ):
        code, _, err = started("revoke", *arguments, "--offline")
        assert code == 2
        assert problem in " ".join(err.split())
    assert state_of(started) == before


def test_a_key_is_revoked_without_a_daemon_to_the_last_delivery(started: Shell) -> None:
    (signer,), (spare,) = kids(started, "active"), kids(started, "pending")
    code, out, err = started("revoke", "key", signer, "--reason", "leaked", "--yes", "--offline", "--json")
    assert code == 0, err
    found = json.loads(out)
    jsonschema.validate(found, load("revoke-key"), format_checker=jsonschema.FormatChecker())
    assert (found["done"], found["workspaces"], found["reissued"], found["deliveries_open"]) == (True, 2, 2, 0)
    assert kids(started, "active") == [spare]
    _, out, _ = started("audit", "list", "--event", "key.revoked", "--json")
    assert [event["reason"] for event in json.loads(out)["events"]] == ["leaked"]


def test_a_key_is_revoked_by_the_daemon_and_followed(daemon: Shell) -> None:
    """The page before, the answer, a line for each thing that is counted, and the page after: the same but for that."""
    (signer,), (spare,) = kids(daemon, "active"), kids(daemon, "pending")
    code, out, err = daemon("revoke", "key", signer[:10], "--reason", "leaked", "--yes")
    assert code == 0
    assert err.splitlines()[-1] == "deliveries made: 2 of 2"
    assert "tokens issued: 2 of 2" in err
    before, _, after = out.partition(f"key {signer} is revoked and out of the published set; key {spare} signs")
    assert before.startswith("ABOUT TO REVOKE  key")
    assert "nothing is changed" not in out
    assert "REVOKED  key" in after
    assert out.count(WHAT_IT_CAN_DO) == before.count(WHAT_IT_CAN_DO) == 1
    assert "2 of 2 have their new token" in after
    table = before[before.index("UNTIL") : before.index("note")].split()
    assert table == after[after.index("UNTIL") :].split()
    code, out, err = daemon("revoke", "key", signer, "--reason", "leaked", "--yes")
    assert (code, err) == (0, "tokens issued: 2 of 2\ndeliveries made: 2 of 2\n")
    assert out.startswith(f"key {signer} was revoked already at 20")
    assert len(out.splitlines()) == 1
    assert len(json.loads(daemon("audit", "list", "--event", "tokens.revoked", "--json")[1])["events"]) == 1
    _, out, _ = daemon("replace", "w0", "--overlap", "now")
    assert f"revoke key {spare}" in out
    assert f"revoke key {signer}" not in out
    assert re.search(r"number 1, \S+, revoked [^,\n]+, as its key is", out)


def test_a_revocation_that_waits_for_a_key_says_so_with_its_code(started: Shell) -> None:
    """3 while something is open; who does not wait for that is not told of it by the code, as the help says."""
    arguments = ("revoke", "keyset", "default", "--wait", "--reason", "leaked", "--yes", "--offline")
    code, out, _ = started(*arguments)
    assert code == 3
    assert "0 of 2 have their new token" in out
    assert started(*arguments, "--no-wait")[0] == 0
    assert "with --no-wait it exits 0 as soon as" in " ".join(started("revoke", "keyset", "--help")[1].split())


def another_replica_shows_the_same(site: Site, name: ReplicaId) -> None:
    """Write what another daemon would, with the KEK that all of them have."""
    with open_state(load_config(site.config)) as state:
        state.run.unlock(state.run.around.keyring.unlock(()))
        with state.store.begin() as transaction:
            (own,) = transaction.replicas()
            transaction.put_replica(replace(own, replica=name))
            for sighting in transaction.sightings(DEFAULT_KEYSET):
                transaction.put_sighting(replace(sighting, replica=name))


def test_a_key_that_another_replica_still_shows_is_open(
    site: Site, started: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its web server goes on showing it, whatever this one does: exit 3, and the page names it."""
    monkeypatch.setattr(compromise, "STALLED_SECONDS", 0.0)
    (signer,) = kids(started, "active")
    another_replica_shows_the_same(site, ReplicaId("pod-9"))
    code, out, err = started("revoke", "key", signer, "--reason", "leaked", "--yes", "--offline")
    assert code == 3
    assert "the published set of pod-9 still shows it" in " ".join(out.split())
    assert "something is still open" in err


def test_progress_without_a_terminal_is_lines() -> None:
    """The first and the last at once, the rest now and then; nothing where there is nothing to do, or nobody looks."""
    stream = StringIO()
    with Bar.of(stream) as bar:
        for done in (0, 0, 1, 3, 3):
            bar.show("tokens issued", done, 3)
        bar.show("deliveries made", 0, 0)
    with Bar.of(stream, quiet=True) as bar:
        bar.show("tokens issued", 1, 3)
    assert stream.getvalue() == "tokens issued: 0 of 3\ntokens issued: 3 of 3\n"
