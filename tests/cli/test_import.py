"""`rotator import-key`, as a person and a script meet it."""

import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from joserfc.jwk import ECKey, OctKey

from rotator.schemas import load
from tests.cli.conftest import Shell
from tests.e2e.world import Site, wait_for

KEY = ECKey.generate_key("P-256", {"kid": "old", "use": "sig", "alg": "ES256"})
SECRET: str = KEY.as_dict(private=True)["d"]  # type: ignore[assignment]  # text, in a private key


def put(site: Site, document: Any, name: str = "old.jwk", mode: int = 0o600) -> Path:
    path = site.root / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    path.chmod(mode)
    return path


def test_a_private_key_through_the_daemon(daemon: Shell, site: Site) -> None:
    """Pending at once, and nowhere in the clear: neither in the output nor in the state."""
    path = put(site, KEY.as_dict(private=True), mode=0o644)
    code, out, err = daemon("import-key", "--jwk", str(path), "--reason", "we move")
    assert code == 0
    assert out.startswith("key old is pending in keyset default: it is published from now on")
    assert f"note: others can reach {path} (mode 0644)" in err
    assert f"shred -u {path}" in err
    wait_for(lambda: '"old"' in site.jwks.read_text(), None, "it is published")
    assert SECRET not in out + err
    for file in site.state.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes()
    (event,) = [event for event in site.events() if event["name"] == "key.imported"]
    assert (event["kid"], event["reason"]) == ("old", "we move")
    assert event["actor"] != "rotator"
    code, _, err = daemon("import-key", "--jwk", str(path))
    assert code == 1
    assert err == "rotator: key old is there already: pending in keyset default\n"


def test_public_keys_as_json_from_standard_input(daemon: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.dumps({"keys": [KEY.as_dict(private=False)]}).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    code, out, err = daemon("import-key", "--jwk", "-", "--keep-for", "30d", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    jsonschema.validate(found, load("import-key"), format_checker=jsonschema.FormatChecker())
    assert (found["kids"], found["private"], found["notes"]) == (["old"], False, [])


def test_pem_offline(started: Shell, site: Site) -> None:
    path = put(site, KEY.as_pem(private=True).decode(), "old.pem")
    code, out, err = started("import-key", "--pem", str(path), "--kid", "by-hand", "--offline")
    assert code == 0, err
    assert out.startswith("key by-hand is pending in keyset default")
    listed = json.loads(started("keys", "list", "--json")[1])["keys"]
    assert [key["origin"] for key in listed if key["kid"] == "by-hand"] == ["imported"]


def test_a_kid_that_begins_as_an_option_does_is_named_after_two_dashes(started: Shell, site: Site) -> None:
    path = put(site, KEY.as_pem(private=True).decode(), "old.pem")
    assert started("import-key", "--pem", str(path), "--kid=-Gone", "--offline")[0] == 0
    code, out, err = started("keys", "show", "--", "-Gone")
    assert (code, err) == (0, "")
    assert "-Gone" in out
    code, out, _ = started("revoke", "key", "--reason", "leaked", "--rehearse", "--offline", "--", "-Gone")
    assert code == 0
    assert "-Gone" in out


def test_what_a_signing_key_signed_elsewhere_is_told_as_unknown(started: Shell, site: Site) -> None:
    """Until when it may live is what was said; only afterwards is the key one that nothing hangs on."""
    path = put(site, KEY.as_dict(private=True))
    code, out, err = started("import-key", "--jwk", str(path), "--keep-for", "30d", "--offline", "--json")
    assert code == 0, err
    end = datetime.fromisoformat(json.loads(out)["until"])
    page = " ".join(started("keys", "show", "old")[1].split())
    assert "nothing was ever signed with it" not in page
    unknown = "unknown what hangs on it: tokens that this database does not know may live until"
    assert f"{unknown} {end:%Y-%m-%d %H:%MZ}" in page
    assert "the last token that it signed elsewhere ends by" in page
    found = json.loads(started("keys", "show", "old", "--json")[1])
    jsonschema.validate(found, load("keys-show"), format_checker=jsonschema.FormatChecker())
    assert (found["tokens"], datetime.fromisoformat(found["foreign_until"])) == (0, end)


def test_what_hangs_on_an_adopted_key_is_unknown_to_its_revocation(started: Shell, site: Site) -> None:
    """None that is counted is not none: the other system's tokens are refused as well, and get no successor."""
    path = put(site, KEY.as_dict(private=False))
    said = started("import-key", "--jwk", str(path), "--keep-for", "30d", "--offline", "--json")[1]
    end = datetime.fromisoformat(json.loads(said)["until"])
    found = json.loads(started("revoke", "key", "old", "--rehearse", "--json")[1])
    assert (found["tokens"], datetime.fromisoformat(found["foreign_until"])) == (0, end)
    page = " ".join(started("revoke", "key", "old", "--rehearse")[1].split())
    assert f"tokens unknown: some that this database does not know may live until {end:%Y-%m-%d %H:%MZ}" in page
    page = " ".join(started("keys", "show", "old")[1].split())
    assert "no unexpired token hangs on it" not in page
    page = " ".join(started("revoke", "keyset", "default", "--rehearse")[1].split())
    assert "tokens 2 unexpired ones, and some that this database does not know may live until" in page


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "exactly one of --jwk FILE and --pem FILE"),
        (("--jwk", "FILE", "--pem", "FILE"), 2, "exactly one of --jwk FILE and --pem FILE"),
        (("--jwk", "missing"), 1, "missing: it cannot be read: No such file"),
        (("--jwk", "PUBLIC"), 2, "PUBLIC has no private half"),
        (("--jwk", "PUBLIC", "--until", "soon"), 2, "--until: 'soon' is no moment"),
        (("--jwk", "PUBLIC", "--until", "2090-01-01T00:00:00"), 2, "write 2090-01-01T00:00:00Z for UTC"),
        (("--jwk", "PUBLIC", "--until", "2090-01-01T00:00:00Z"), 1, "is not between now and 3653 days"),
        (("--jwk", "PUBLIC", "--keep-for", "a while"), 2, "--keep-for:"),
        (("--jwk", "PUBLIC", "--keep-for", "1d", "--until", "x"), 2, "say the same"),
        (("--jwk", "FILE", "--keyset", "other"), 1, "the config has no keyset 'other'"),
        (("--jwk", "FILE", "--kid", "another"), 1, "its kid is 'old', and tokens name it so"),
        (("--jwk", "SYMMETRIC"), 1, "SYMMETRIC: a symmetric key"),
        (("--jwk", "BINARY"), 1, "BINARY: it is not text"),
        (("--jwk", "LARGE"), 1, "LARGE: it cannot be read: Larger than 49152 bytes"),
        (("--pem", "FILE"), 1, "FILE: no whole PEM block"),
    ],
)
def test_what_is_refused_is_said_with_what_would_be_right(
    started: Shell, site: Site, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, said: str
) -> None:
    put(site, KEY.as_dict(private=True), "FILE")
    put(site, KEY.as_dict(private=False), "PUBLIC")
    put(site, OctKey.generate_key(256).as_dict(private=True), "SYMMETRIC")
    (site.root / "BINARY").write_bytes(b"\xff\xfe")
    (site.root / "LARGE").write_bytes(b" " * 50_000)
    monkeypatch.chdir(site.root)
    found, out, err = started("import-key", *arguments, "--offline")
    assert (found, out) == (code, "")
    assert said in err
    assert SECRET not in err
    assert all(event["name"] != "key.imported" for event in site.events())


def test_it_is_never_the_first_start(shell: Shell, site: Site) -> None:
    """A new key would sign at once, while verifiers hold the set of the system that one leaves."""
    path = put(site, KEY.as_dict(private=True))
    code, _, err = shell("import-key", "--jwk", str(path), "--offline")
    assert code == 1
    assert "keyset default has never been published from here" in err
    assert not site.database.exists()
    code, _, err = shell("import-key", "--jwk", str(path))
    assert code == 1
    assert "start it" in err
