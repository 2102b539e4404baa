"""Keys are what their algorithm says, and their kid is the thumbprint that everyone computes."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_der_private_key
from joserfc.jwk import JWKRegistry

from rotator.adapters.keymaker import CryptographyKeyMaker, thumbprint
from rotator.core.jwks import PRIVATE_MEMBERS, canonical, render
from rotator.core.model import Algorithm
from rotator.ports import KeyMaker

MEMBERS = {
    Algorithm.ES256: {"kty": "EC", "crv": "P-256"},
    Algorithm.RS256: {"kty": "RSA", "e": "AQAB"},
    Algorithm.EDDSA: {"kty": "OKP", "crv": "Ed25519"},
}


@pytest.fixture(scope="module")
def maker() -> KeyMaker:
    return CryptographyKeyMaker()


@pytest.mark.parametrize("algorithm", Algorithm)
def test_the_public_jwk_is_canonical_complete_and_public(maker: KeyMaker, algorithm: Algorithm) -> None:
    made = maker.make(algorithm)
    jwk = json.loads(made.public_jwk)
    assert canonical(jwk) == made.public_jwk
    assert jwk.items() >= {"kid": made.kid, "use": "sig", "alg": algorithm.value, **MEMBERS[algorithm]}.items()
    assert not PRIVATE_MEMBERS & jwk.keys()
    assert json.loads(render([made.public_jwk])) == {"keys": [jwk]}
    assert made.algorithm is algorithm


@pytest.mark.parametrize("algorithm", Algorithm)
def test_the_kid_is_the_thumbprint_that_the_library_computes(maker: KeyMaker, algorithm: Algorithm) -> None:
    made = maker.make(algorithm)
    assert made.kid == JWKRegistry.import_key(json.loads(made.public_jwk)).thumbprint()


def test_no_kid_begins_as_an_option_does(maker: KeyMaker) -> None:
    """One thumbprint of 64 would; of 700 that are left as they are, all but one run of 60,000 hold one."""
    assert not [kid for kid in (maker.make(Algorithm.EDDSA).kid for _ in range(700)) if kid.startswith("-")]


@pytest.mark.parametrize("algorithm", Algorithm)
def test_the_private_half_belongs_to_the_public_one(maker: KeyMaker, algorithm: Algorithm) -> None:
    made = maker.make(algorithm)
    private = load_der_private_key(made.private.reveal(), None)
    public = JWKRegistry.import_key(json.loads(made.public_jwk)).public_key
    assert private.public_key() == public
    match private:
        case ec.EllipticCurvePrivateKey():
            assert (algorithm, private.curve.name) == (Algorithm.ES256, "secp256r1")
        case rsa.RSAPrivateKey():
            assert (algorithm, private.key_size) == (Algorithm.RS256, 2048)
        case _:
            assert isinstance(private, ed25519.Ed25519PrivateKey)
            assert algorithm is Algorithm.EDDSA


def test_no_two_keys_are_the_same(maker: KeyMaker) -> None:
    assert len({maker.make(Algorithm.ES256).kid for _ in range(20)}) == 20


def test_new_key_material_does_not_show_its_private_half(maker: KeyMaker) -> None:
    made = maker.make(Algorithm.EDDSA)
    assert "private=[secret]" in repr(made)


def base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


RFC_7638_3_1 = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB"
    "ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8"
    "KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_"
    "xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}
RFC_8037_A_2 = {
    "kty": "OKP",
    "crv": "Ed25519",
    "x": base64url(bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")),
}


@pytest.mark.parametrize(
    ("jwk", "kid"),
    [
        pytest.param(RFC_7638_3_1, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", id="RFC 7638 §3.1"),
        pytest.param(RFC_8037_A_2, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", id="RFC 8037 A.3"),
    ],
)
def test_thumbprints_are_those_of_the_standards(jwk: dict[str, object], kid: str) -> None:
    assert thumbprint(jwk) == kid


def test_the_thumbprint_of_a_post_quantum_key_has_its_algorithm_in_it() -> None:
    """ML-DSA-44 from a seed of zeros (RFC 9964)."""
    mldsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa")
    public = mldsa.MLDSA44PrivateKey.from_seed_bytes(bytes(32)).public_key().public_bytes_raw()
    jwk = {"kty": "AKP", "alg": "ML-DSA-44", "pub": base64url(public)}
    assert thumbprint(jwk) == "T4xl70S7MT6Zeq6r9V9fPJGVn76wfnXJ21-gyo0Gu6o"


@pytest.mark.parametrize("jwk", [{"kty": "EC", "crv": "P-256", "x": "eA"}, {"kty": "oct", "k": "aw"}, {}])
def test_a_key_without_its_required_members_has_no_thumbprint(jwk: dict[str, object]) -> None:
    with pytest.raises(KeyError):
        thumbprint(jwk)
