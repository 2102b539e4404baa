"""From another issuer to this one and away from it again, with the real daemon: no verifier refuses a token."""

import json
import time
from pathlib import Path

import jwt
import pytest
from joserfc.jwk import ECKey

from tests.e2e.world import ISSUER, Site, Verifier, running, wait_for

OLD = ECKey.generate_key("P-256", {"kid": "old-signer", "use": "sig", "alg": "ES256"})


@pytest.fixture
def site(tmp_path: Path) -> Site:
    found = Site(tmp_path)
    found.write_config(workspaces=3)
    return found


def old_token(lifetime_seconds: int) -> str:
    """Return a token that the other issuer signed a moment ago."""
    claims = {"iss": ISSUER, "aud": "api", "exp": int(time.time()) + lifetime_seconds, "jti": "of the old issuer"}
    return jwt.encode(claims, OLD.as_pem(private=True), algorithm="ES256", headers={"kid": "old-signer"})


def hand_over(site: Site) -> None:
    """Put the other issuer's set where it is to be published from now on."""
    for place in (site.jwks, site.state / "public" / "keysets" / "default" / "jwks.json"):
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps({"keys": [OLD.as_dict(private=False)]}))
    site.state.chmod(0o700)


@pytest.mark.parametrize("with_signing_key", [True, False], ids=["its signing key, too", "public keys alone"])
def test_tokens_of_both_issuers_verify_all_the_time(site: Site, with_signing_key: bool) -> None:
    """The old issuer's tokens to their end, and the new ones from the first on, while keys rotate."""
    hand_over(site)
    token = old_token(60)
    site.rotator("published", "adopt", "--keep-for", "60s")
    if with_signing_key:
        path = site.root / "old.jwk"
        path.write_text(json.dumps(OLD.as_dict(private=True)))
        path.chmod(0o600)
        site.rotator("import-key", "--jwk", str(path), "--offline")
    verifier = Verifier(site, max_age_seconds=1)
    verifier.check(token)
    with running(site) as process, verifier.watching():
        for _ in range(3):
            seen = len(verifier.kids)
            wait_for(lambda seen=seen: len(verifier.kids) > seen, process, "another key signs")  # type: ignore[misc]
            verifier.check(token)
    assert verifier.refused == []
    signers = [event["kid"] for event in site.events() if event["name"] == "key.activated"]
    assert (signers[0] == "old-signer") is with_signing_key
    assert "old-signer" not in signers[1:]


def test_a_backup_from_before_rotations_is_put_back_and_nothing_is_refused(site: Site) -> None:
    """Made while the daemon runs; restored after keys came that it knows nothing of."""
    site.write_config(workspaces=3, token_grace="60s")  # longer than the machine takes to restore
    verifier = Verifier(site, max_age_seconds=1)
    kept = site.root / "kept.db"
    with running(site) as process, verifier.watching():
        wait_for(lambda: len(verifier.kids) >= 1, process, "a key signs")
        site.rotator("backup", str(kept))
        wait_for(lambda: len(verifier.kids) >= 3, process, "two rotations")
    found = site.json("restore", str(kept), "--rehearse")["forecast"]
    assert found["older"]
    done = site.rotator("restore", str(kept), "--yes")
    assert "older than the witness" in done.stdout
    verifier = Verifier(site, max_age_seconds=1)
    with running(site) as process, verifier.watching():
        wait_for(lambda: len(verifier.kids) >= 3, process, "keys rotate again")
    assert verifier.refused == []
    names = [event["name"] for event in site.events()]
    assert names.count("state.restored") == names.count("backup.restored") == 1
    assert site.json("audit", "verify")["intact"]


def test_a_backup_from_before_a_revocation_refuses_nothing_but_the_revoked_key(site: Site) -> None:
    """Revoked it stays: the restore shows it first, and a verifier meets no other refusal."""
    site.write_config(workspaces=3, token_grace="60s")
    kept = site.root / "kept.db"
    verifier = Verifier(site, max_age_seconds=1)
    with running(site) as process, verifier.watching():
        wait_for(lambda: len(verifier.kids) >= 1, process, "a key signs")
        site.rotator("backup", str(kept))
        (revoked,) = [key["kid"] for key in site.json("keys", "list")["keys"] if key["phase"] == "active"]
        site.rotator("revoke", "key", revoked, "--reason", "leaked", "--yes")
        wait_for(lambda: len(verifier.kids - {revoked}) >= 2, process, "other keys sign")
    forecast = site.json("restore", str(kept), "--rehearse")["forecast"]
    assert forecast["revoked_kids"] == [revoked]
    assert [keyset["unknown"] for keyset in forecast["keysets"]] == [[]]  # what the witness knows, somebody knows
    assert f"key  {revoked}" in site.rotator("restore", str(kept), "--yes", "--reason", "a drill").stdout
    again = Verifier(site, max_age_seconds=1)
    with running(site) as process, again.watching():
        wait_for(lambda: len(again.kids) >= 3, process, "keys rotate again")
        assert revoked not in site.jwks.read_text()
    assert [line for line in verifier.refused + again.refused if revoked not in line.partition(",")[0]] == []
    assert revoked not in again.kids
    (phase,) = {key["phase"] for key in site.json("keys", "list")["keys"] if key["kid"] == revoked}
    assert phase == "revoked"
