"""Tokens are what the library would have made, byte for byte, and verify from the published bytes alone."""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws, jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey

from rotator.adapters.keymaker import CryptographyKeyMaker
from rotator.adapters.tokenmaker import JwtMaker, JwtSigner
from rotator.core.contract import token_characters
from rotator.core.jwks import canonical, render
from rotator.core.model import Algorithm, Jti, KeysetName, Kid, WorkspaceId
from rotator.core.policy import KeysetPolicy, WorkspacePolicy
from rotator.core.secret import Secret
from rotator.errors import InvariantError, SealError
from rotator.ports import KeyMaterial, MintOrder, Signer, TokenMaker

NOW = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
ISSUER = "https://tokens.example.com"
MATERIAL = {algorithm: CryptographyKeyMaker().make(algorithm) for algorithm in Algorithm}
LIBRARY_KEY: dict[Algorithm, type[ECKey] | type[RSAKey] | type[OKPKey]] = {
    Algorithm.ES256: ECKey,
    Algorithm.RS256: RSAKey,
    Algorithm.EDDSA: OKPKey,
}


@pytest.fixture(scope="module")
def maker() -> JwtMaker:
    return JwtMaker(threads=1)


def loaded(maker: TokenMaker, algorithm: Algorithm = Algorithm.ES256) -> Signer:
    material = MATERIAL[algorithm]
    return maker.load(material.kid, algorithm, material.private)


def order(
    jti: str = "0123",
    workspace: str = "acme",
    audience: Sequence[str] = ("api",),
    roles: Sequence[str] = ("admin",),
    permissions: Sequence[str] = ("metrics:write", "logs:write"),
    issuer: str = ISSUER,
) -> MintOrder:
    policy = WorkspacePolicy(
        id=WorkspaceId(workspace),
        keyset=KeysetName("default"),
        security_period=timedelta(days=8),
        grace_period=timedelta(hours=24),
        audience=tuple(audience),
        roles=tuple(roles),
        permissions=tuple(permissions),
    )
    return MintOrder(Jti(jti), f"identity of {jti}", policy, issuer, not_before=1_767_268_740, expires=1_768_046_400)


def expected_claims(wanted: MintOrder) -> dict[str, object]:
    workspace = wanted.workspace
    audience = list(workspace.audience)
    return {
        "iss": wanted.issuer,
        "sub": workspace.id,
        "aud": audience[0] if len(audience) == 1 else audience,
        "iat": wanted.not_before,
        "nbf": wanted.not_before,
        "exp": wanted.expires,
        "jti": wanted.jti,
        "workspace": workspace.id,
        "roles": list(workspace.roles),
        "scope": " ".join(workspace.permissions),
    }


def decode_part(token: str, part: int) -> object:
    text = token.split(".")[part]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


# ------------------------------------------------------------------------------------------------------------ minting


def test_a_token_says_what_the_contract_says(maker: JwtMaker) -> None:
    (token,) = maker.mint_batch(loaded(maker), [order()])
    header, claims = decode_part(token.reveal(), 0), decode_part(token.reveal(), 1)
    assert header == {"alg": "ES256", "kid": MATERIAL[Algorithm.ES256].kid, "typ": "JWT"}
    assert claims == {
        "iss": "https://tokens.example.com",
        "sub": "acme",
        "aud": "api",
        "iat": 1_767_268_740,
        "nbf": 1_767_268_740,
        "exp": 1_768_046_400,
        "jti": "0123",
        "workspace": "acme",
        "roles": ["admin"],
        "scope": "metrics:write logs:write",
    }


@pytest.mark.parametrize(
    ("audience", "claim"), [((), []), (("api",), "api"), (("api", "web"), ["api", "web"])], ids=str
)
def test_one_audience_is_text_and_others_are_a_list(maker: JwtMaker, audience: Sequence[str], claim: object) -> None:
    """RFC 7519 §4.1.3 allows both, and some verifiers know the text only."""
    (token,) = maker.mint_batch(loaded(maker), [order(audience=audience)])
    claims = decode_part(token.reveal(), 1)
    assert isinstance(claims, dict)
    assert claims["aud"] == claim


TEXT = st.text(max_size=12)
NAMES = st.lists(TEXT, max_size=4)


@given(
    st.sampled_from(Algorithm),
    st.builds(order, jti=TEXT, workspace=TEXT, audience=NAMES, roles=NAMES, permissions=NAMES, issuer=TEXT),
)
def test_a_token_is_what_the_library_makes_of_the_same_claims(algorithm: Algorithm, wanted: MintOrder) -> None:
    """Header and payload byte for byte; the signature too where it does not depend on the signer's randomness."""
    maker = JwtMaker(threads=1)
    material = MATERIAL[algorithm]
    (token,) = maker.mint_batch(loaded(maker, algorithm), [wanted])
    key = LIBRARY_KEY[algorithm].import_key(json.loads(material.public_jwk))
    private = LIBRARY_KEY[algorithm].import_key(pem(material))
    header = {"alg": algorithm.value, "kid": material.kid, "typ": "JWT"}
    registry = LenientRegistry(algorithms=[algorithm])
    theirs = jwt.encode(header, expected_claims(wanted), private, registry=registry, default_type=None)

    decoded = jwt.decode(token.reveal(), key, registry=registry)
    assert decoded.header == header
    assert decoded.claims == expected_claims(wanted)
    if algorithm is Algorithm.ES256:
        assert token.reveal().rpartition(".")[0] == theirs.rpartition(".")[0]
    else:
        assert token.reveal() == theirs


def pem(material: KeyMaterial) -> bytes:
    key = load_der_private_key(material.private.reveal(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class LenientRegistry(jws.JWSRegistry):
    """The library's, without its warning that EdDSA has a new name."""

    def get_alg(self, name: str) -> Any:
        return self.algorithms[name]


def test_a_batch_comes_back_in_order_however_many_sign_it(maker: JwtMaker) -> None:
    orders = [order(jti=f"{number:03}", workspace=f"w{number}") for number in range(150)]
    expected = maker.mint_batch(loaded(maker), orders)
    many = JwtMaker(threads=3)
    try:
        assert many.mint_batch(loaded(many), orders) == expected
        assert many.mint_batch(loaded(many), orders[:5]) == expected[:5]
    finally:
        many.close()
    assert [decode_part(token.reveal(), 1) for token in expected] == [expected_claims(wanted) for wanted in orders]


def test_an_empty_batch_is_empty(maker: JwtMaker) -> None:
    assert maker.mint_batch(loaded(maker), []) == []


def test_threads_default_to_the_processors_that_are_ours() -> None:
    maker = JwtMaker()
    try:
        assert len(maker.mint_batch(loaded(maker), [order()] * 40)) == 40
    finally:
        maker.close()


@pytest.mark.parametrize("algorithm", Algorithm)
def test_signatures_do_not_depend_on_randomness(maker: JwtMaker, algorithm: Algorithm) -> None:
    """RFC 6979 for ECDSA; the others are so by nature."""
    signer = loaded(maker, algorithm)
    assert maker.mint_batch(signer, [order()]) == maker.mint_batch(signer, [order()])


def test_neither_tokens_nor_signers_show_themselves(maker: JwtMaker) -> None:
    signer = loaded(maker)
    assert repr(signer) == f"JwtSigner(kid={signer.kid!r}, algorithm={signer.algorithm!r})"
    assert repr(maker.mint_batch(signer, [order()])) == "[[secret]]"


class ForeignSigner:
    """Satisfies the port, and is not ours."""

    kid = Kid("k")
    algorithm = Algorithm.ES256


def test_a_signer_of_another_maker_is_our_fault(maker: JwtMaker) -> None:
    with pytest.raises(InvariantError, match="was not loaded by this token maker"):
        maker.mint_batch(ForeignSigner(), [order()])
    with pytest.raises(InvariantError):
        maker.probe(ForeignSigner(), ISSUER, NOW)


# ------------------------------------------------------------------------------------------------------------ loading


def der(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes = b"") -> Secret[bytes]:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return Secret(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, encryption))


WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505  # to be refused


@pytest.mark.parametrize(
    ("algorithm", "private", "message"),
    [
        (Algorithm.ES256, Secret(b"not a key"), "not a private key in PKCS #8"),
        (Algorithm.ES256, Secret(b""), "not a private key in PKCS #8"),
        (Algorithm.ES256, der(ec.generate_private_key(ec.SECP256R1()), b"pass"), "not a private key in PKCS #8"),
        (Algorithm.ES256, der(ec.generate_private_key(ec.SECP384R1())), "not a key for ES256"),
        (Algorithm.ES256, MATERIAL[Algorithm.EDDSA].private, "not a key for ES256"),
        (Algorithm.EDDSA, MATERIAL[Algorithm.RS256].private, "not a key for EdDSA"),
        (Algorithm.RS256, MATERIAL[Algorithm.ES256].private, "not a key for RS256"),
        (Algorithm.RS256, der(WEAK), "not a key for RS256"),
    ],
)
def test_what_is_not_a_key_of_its_algorithm_does_not_load(
    maker: JwtMaker, algorithm: Algorithm, private: Secret[bytes], message: str
) -> None:
    with pytest.raises(SealError, match=f"the private half of kid-1 is {message}"):
        maker.load(Kid("kid-1"), algorithm, private)


# ------------------------------------------------------------------------------------------------------------- probes


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a_probe_proves_the_key_and_is_worth_nothing(maker: JwtMaker, algorithm: Algorithm) -> None:
    material = MATERIAL[algorithm]
    probe = maker.probe(loaded(maker, algorithm), ISSUER, NOW)
    maker.verify_with(probe, render([material.public_jwk]))

    key = pyjwt.PyJWK.from_json(material.public_jwk)
    with pytest.raises(pyjwt.ExpiredSignatureError):
        pyjwt.decode(probe.reveal(), key, algorithms=[algorithm.value])
    for audience in (None, "api"):
        with pytest.raises(pyjwt.InvalidAudienceError):
            pyjwt.decode(
                probe.reveal(), key, algorithms=[algorithm.value], audience=audience, options={"verify_exp": False}
            )
    header, claims = decode_part(probe.reveal(), 0), decode_part(probe.reveal(), 1)
    assert isinstance(header, dict)
    assert isinstance(claims, dict)
    assert header["typ"] == "probe+jwt"
    assert (claims["exp"], claims["iat"], claims["aud"]) == (1_767_268_800, 1_767_268_800, claims["jti"])
    assert "workspace" not in claims


# ---------------------------------------------------------------------------------------------------------- verifying


def jwk(algorithm: Algorithm = Algorithm.ES256, **changed: str) -> str:
    return canonical(json.loads(MATERIAL[algorithm].public_jwk) | changed)


def as_set(*jwks: str) -> bytes:
    return b'{"keys":[' + ",".join(jwks).encode() + b"]}"


KID = MATERIAL[Algorithm.ES256].kid
OTHER = CryptographyKeyMaker().make(Algorithm.ES256)


@pytest.mark.parametrize(
    ("jwks", "reason"),
    [
        (b"", "not a JWK Set"),
        (as_set(jwk(), jwk()), "not a JWK Set"),
        (render([]), f"it has no key '{KID}'"),
        (render([MATERIAL[Algorithm.EDDSA].public_jwk]), "it has no key"),
        (as_set(jwk(Algorithm.EDDSA, kid=KID)), "the token says alg 'ES256'"),
        (as_set(jwk(alg="RS256")), "the token says alg 'ES256'"),
        (as_set(jwk(alg="HS256")), "HS256"),
        (as_set(jwk(alg="none")), "none"),
        (as_set(jwk(use="enc")), "designed to be used for 'enc'"),
        (as_set(jwk(x="AAAA")), "does not verify"),
        (as_set(jwk(kty="AKP")), "does not verify"),
        (as_set(canonical(json.loads(OTHER.public_jwk) | {"kid": KID})), "bad_signature"),
    ],
    ids=count(),  # the keys are new each time, and names must be the same in every process
)
def test_a_set_that_is_not_ours_does_not_verify_our_token(maker: JwtMaker, jwks: bytes, reason: str) -> None:
    (token,) = maker.mint_batch(loaded(maker), [order()])
    with pytest.raises(SealError, match=reason):
        maker.verify_with(token, jwks)


def unsigned(header: dict[str, object]) -> str:
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, {"sub": "acme"})
    )


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b",
        "a.b.c",
        "é.b.c",
        unsigned({"alg": "none", "kid": KID}) + ".",
        unsigned({"alg": "ES256"}) + ".AAAA",
        unsigned({"alg": "ES256", "kid": [KID]}) + ".AAAA",
        unsigned({"alg": "ES256", "kid": KID}) + "." + "A" * 86,
        unsigned({"alg": "ES256", "kid": KID, "crit": ["b64"], "b64": False}) + "." + "A" * 86,
        unsigned({"kid": KID}) + ".AAAA",
    ],
    ids=count(),
)
def test_a_token_that_is_not_ours_does_not_verify(maker: JwtMaker, token: str) -> None:
    with pytest.raises(SealError, match="does not verify from the published set"):
        maker.verify_with(Secret(token), render([jwk()]))


def test_a_changed_token_does_not_verify(maker: JwtMaker) -> None:
    mine, other = maker.mint_batch(loaded(maker), [order(), order(workspace="globex")])
    head, _, signature = mine.reveal().split(".")
    swapped = Secret(f"{head}.{other.reveal().split('.')[1]}.{signature}")
    with pytest.raises(SealError) as caught:
        maker.verify_with(swapped, render([jwk()]))
    assert signature not in str(caught.value)


# ---------------------------------------------------------------------------------------------------------- token ids


def test_token_ids_are_fresh_and_ascend(maker: JwtMaker) -> None:
    first = maker.new_jtis(NOW, 1000)
    later = maker.new_jtis(NOW + timedelta(milliseconds=1), 10)
    assert first + later == sorted({*first, *later})
    assert all(len(jti) == 32 and int(jti[:12], 16) == 1_767_268_800_250 for jti in first)


def test_no_token_ids_are_none(maker: JwtMaker) -> None:
    assert maker.new_jtis(NOW, 0) == []


def test_two_draws_at_one_moment_share_nothing(maker: JwtMaker) -> None:
    assert not set(maker.new_jtis(NOW, 100)) & set(maker.new_jtis(NOW, 100))


def test_a_signer_is_what_was_loaded(maker: JwtMaker) -> None:
    signer = loaded(maker, Algorithm.EDDSA)
    assert isinstance(signer, JwtSigner)
    assert (signer.kid, signer.algorithm) == (MATERIAL[Algorithm.EDDSA].kid, Algorithm.EDDSA)


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("grants", [0, 3, 200])
def test_the_size_that_is_reckoned_with_is_that_of_the_token(
    maker: JwtMaker, algorithm: Algorithm, grants: int
) -> None:
    """The config is checked by it: never a smaller one, and hardly a larger one."""
    (jti,) = maker.new_jtis(NOW, 1)
    wanted = order(jti, roles=("admin", "ops"), permissions=[f"metrics:{number}" for number in range(grants)])
    (token,) = maker.mint_batch(loaded(maker, algorithm), [wanted])
    keyset = KeysetPolicy(
        name=KeysetName("default"),
        issuer=ISSUER,
        algorithm=algorithm,
        security_period=timedelta(days=90),
        propagation_period=timedelta(days=2),
        grace_period=timedelta(days=31),
        clock_skew=timedelta(seconds=60),
    )
    size = len(token.reveal())
    assert size <= token_characters(wanted.workspace, keyset) <= size + 60 + size / 20
