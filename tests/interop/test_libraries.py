"""What verifiers really run: the published bytes and our tokens, read by libraries that know nothing of us."""

import json
from datetime import UTC, datetime, timedelta

import jwt as pyjwt
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from rotator.adapters.keymaker import CryptographyKeyMaker
from rotator.adapters.tokenmaker import JwtMaker
from rotator.core.instants import epoch_seconds
from rotator.core.jwks import render
from rotator.core.model import Algorithm, KeysetName, Kid, WorkspaceId
from rotator.core.policy import WorkspacePolicy
from rotator.ports import MintOrder

ISSUER = "https://tokens.example.com"
WORKSPACE = WorkspacePolicy(
    id=WorkspaceId("acme"),
    keyset=KeysetName("default"),
    security_period=timedelta(days=8),
    grace_period=timedelta(hours=24),
    audience=("api", "web"),
    roles=("admin", "Prüfer"),
    permissions=("metrics:write", "logs:write"),
)
SKEW = timedelta(seconds=60)


class World:
    """Three keys in one published set, as while a keyset changes its algorithm; a token on each."""

    def __init__(self) -> None:
        keys = CryptographyKeyMaker()
        materials = [keys.make(algorithm) for algorithm in Algorithm]
        self.jwks = render([material.public_jwk for material in materials])
        self.kids = {material.algorithm: material.kid for material in materials}
        maker = JwtMaker(threads=1)
        now = datetime.now(UTC)
        self.tokens: dict[Algorithm, str] = {}
        for material in materials:
            signer = maker.load(material.kid, material.algorithm, material.private)
            order = MintOrder(
                maker.new_jtis(now, 1)[0],
                "identity",
                WORKSPACE,
                ISSUER,
                not_before=epoch_seconds(now - SKEW),
                expires=epoch_seconds(now + WORKSPACE.lifetime),
            )
            (token,) = maker.mint_batch(signer, [order])
            self.tokens[material.algorithm] = token.reveal()


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def assert_ours(claims: dict[str, object]) -> None:
    assert claims["iss"] == ISSUER
    assert claims["sub"] == claims["workspace"] == "acme"
    assert claims["aud"] == ["api", "web"]
    assert claims["roles"] == ["admin", "Prüfer"]
    assert claims["scope"] == "metrics:write logs:write"


@pytest.mark.parametrize("algorithm", Algorithm)
def test_pyjwt_accepts_our_tokens_from_the_published_set(world: World, algorithm: Algorithm) -> None:
    token = world.tokens[algorithm]
    keys = pyjwt.PyJWKSet.from_json(world.jwks.decode())
    key = keys[pyjwt.get_unverified_header(token)["kid"]]
    assert key.algorithm_name == algorithm
    required = ["iss", "sub", "aud", "iat", "nbf", "exp", "jti"]
    assert_ours(
        pyjwt.decode(
            token, key, algorithms=[algorithm.value], audience="web", issuer=ISSUER, options={"require": required}
        )
    )


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # by name; the new one is not read widely yet (RFC 9864)
def test_joserfc_accepts_our_tokens_from_the_published_set(world: World, algorithm: Algorithm) -> None:
    keys = KeySet.import_key_set(json.loads(world.jwks))
    token = jwt.decode(world.tokens[algorithm], keys, algorithms=[algorithm.value])
    jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": ISSUER}, aud={"essential": True, "value": "api"}, exp={"essential": True}
    ).validate(token.claims)
    assert token.header == {"alg": algorithm.value, "kid": world.kids[algorithm], "typ": "JWT"}
    assert_ours(token.claims)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_no_library_accepts_a_token_under_the_key_of_another(world: World, algorithm: Algorithm) -> None:
    """The set says which algorithm each key has, so a token cannot choose."""
    _, payload, signature = world.tokens[algorithm].split(".")
    for other, token in world.tokens.items():
        if other is algorithm:
            continue
        mixed = f"{token.split('.')[0]}.{payload}.{signature}"
        key = pyjwt.PyJWKSet.from_json(world.jwks.decode())[world.kids[other]]
        with pytest.raises(pyjwt.InvalidTokenError):
            pyjwt.decode(mixed, key, algorithms=[each.value for each in Algorithm], audience="api")


def test_the_thumbprints_that_libraries_compute_are_our_kids(world: World) -> None:
    keys = KeySet.import_key_set(json.loads(world.jwks))
    assert [Kid(key.thumbprint()) for key in keys] == [key.kid for key in keys] == list(world.kids.values())
