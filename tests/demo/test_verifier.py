"""The verifier of the demonstration refuses what a real one would refuse."""

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from rotator.adapters.clock import wall_time
from rotator.demo.verifier import Verifier

ISSUER = "http://localhost:8000"
KEYS = {kid: ECKey.generate_key("P-256", {"kid": kid, "alg": "ES256", "use": "sig"}) for kid in ("first", "second")}


def sign(kid: str, *, by: str | None = None, seconds: int = 60, **changed: object) -> str:
    expires = int(wall_time().timestamp()) + seconds
    claims = {"iss": ISSUER, "aud": "api", "exp": expires, **changed}
    return jwt.encode({"alg": "ES256", "kid": kid}, claims, KEYS[by or kid])


def publish(path: Path, *kids: str) -> None:
    path.write_text(json.dumps({"keys": [KEYS[kid].as_dict(private=False) for kid in kids]}))


def verifier_in(directory: Path, tokens: Mapping[str, str], *, max_cache: timedelta) -> Verifier:
    files = {}
    for workspace, token in tokens.items():
        files[workspace] = directory / workspace
        files[workspace].write_text(token + "\n")
    return Verifier(directory / "jwks.json", files, ISSUER, max_cache)


def test_a_valid_token_is_accepted(tmp_path: Path) -> None:
    publish(tmp_path / "jwks.json", "first", "second")
    verifier = verifier_in(tmp_path, {"acme": sign("first"), "globex": sign("second")}, max_cache=timedelta(hours=1))
    verifier.check_all()
    assert (verifier.checks, verifier.refusals, verifier.reasons) == (2, 0, [])


@pytest.mark.parametrize(
    "token",
    [
        sign("second"),
        sign("first", by="second"),
        sign("first", seconds=-1),
        sign("first", iss="https://elsewhere.example.com"),
        sign("first", aud="others"),
        "no token",
        "",
    ],
    ids=["unknown kid", "another key's signature", "expired", "issuer", "audience", "no token", "empty"],
)
def test_a_wrong_token_is_refused(tmp_path: Path, token: str) -> None:
    """And counted, with the reason."""
    publish(tmp_path / "jwks.json", "first")
    verifier = verifier_in(tmp_path, {"acme": token}, max_cache=timedelta(hours=1))
    verifier.check_all()
    assert (verifier.checks, verifier.refusals) == (1, 1)
    assert verifier.reasons[0].startswith("acme: ")


def test_a_missing_token_or_set_is_a_refusal(tmp_path: Path) -> None:
    """Files are replaced whole: a gap would be the daemon's fault."""
    verifier = verifier_in(tmp_path, {"acme": sign("first")}, max_cache=timedelta(hours=1))
    verifier.check_all()
    publish(tmp_path / "jwks.json", "first")
    (tmp_path / "acme").unlink()
    verifier.check_all()
    assert (verifier.checks, verifier.refusals) == (2, 2)


@pytest.mark.parametrize(("max_cache", "refusals"), [(timedelta(hours=1), 1), (timedelta(0), 0)])
def test_a_copy_of_the_set_is_kept_for_its_time_and_no_longer(
    tmp_path: Path, max_cache: timedelta, refusals: int
) -> None:
    """It is not fetched anew because a kid is unknown: a key that signs before everybody can know it is found out."""
    publish(tmp_path / "jwks.json", "first")
    verifier = verifier_in(tmp_path, {"acme": sign("first")}, max_cache=max_cache)
    verifier.check_all()
    publish(tmp_path / "jwks.json", "first", "second")
    (tmp_path / "acme").write_text(sign("second"))
    verifier.check_all()
    assert verifier.refusals == refusals


def test_only_the_first_reasons_are_kept(tmp_path: Path) -> None:
    publish(tmp_path / "jwks.json", "first")
    verifier = verifier_in(tmp_path, {"acme": sign("second")}, max_cache=timedelta(hours=1))
    for _ in range(9):
        verifier.check_all()
    assert (verifier.refusals, len(verifier.reasons)) == (9, 5)
