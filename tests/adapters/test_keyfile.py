"""Keys that others made, in every form that they come in; and files that only look like it."""

import base64
import json
import re
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OKPKey, RSAKey

from rotator.adapters.keyfile import FoundKeys, read_jwk, read_pem, to_jwk, to_pem
from rotator.adapters.keymaker import CryptographyKeyMaker, thumbprint
from rotator.adapters.signing import signing_function
from rotator.core.model import Algorithm
from rotator.core.secret import Secret
from rotator.errors import RefusedError


@cache
def made(kind: str) -> Any:
    match kind:
        case "ec":
            return ec.generate_private_key(ec.SECP256R1())
        case "ec384":
            return ec.generate_private_key(ec.SECP384R1())
        case "rsa":
            return rsa.generate_private_key(65537, 2048)
        case "weak":
            return rsa.generate_private_key(65537, 1024)  # noqa: S505 - what is to be refused
        case "ed448":
            return ed448.Ed448PrivateKey.generate()
        case "dsa":
            return dsa.generate_private_key(2048)
        case _:
            return ed25519.Ed25519PrivateKey.generate()


def jwk(kind: str = "ec", **more: object) -> dict[str, Any]:
    """Return a private JWK as another library writes it."""
    library: Any = {"ec": ECKey, "ec384": ECKey, "rsa": RSAKey}.get(kind, OKPKey)
    return {**library.import_key(made(kind)).as_dict(private=True), **more}


def public(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in ("d", "p", "q", "dp", "dq", "qi")}


def read(document: object, kid: str | None = None) -> FoundKeys:
    return read_jwk(Secret(json.dumps(document)), "FILE", kid)


def pem(kind: str, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    return str(made(kind).private_bytes(Encoding.PEM, form, NoEncryption()).decode())


def public_pem(kind: str) -> str:
    return str(made(kind).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


# --------------------------------------------------------------------------------------------------------------- sound


@pytest.mark.parametrize(
    ("kind", "algorithm"), [("ec", Algorithm.ES256), ("rsa", Algorithm.RS256), ("ed", Algorithm.EDDSA)]
)
def test_a_key_is_the_same_in_every_form(kind: str, algorithm: Algorithm) -> None:
    """JWK and PEM, private and public; it signs, and its kid is the one that it came with, else its thumbprint."""
    own = read(jwk(kind, alg=str(algorithm), kid="mine")).keys[0]
    assert (own.kid, own.algorithm) == ("mine", algorithm)
    assert own.private is not None
    signing_function("mine", algorithm, own.private)(b"content")
    assert json.loads(own.public_jwk).keys() == {*public(jwk(kind)), "kid", "use", "alg"}
    forms = [
        read(public(jwk(kind)), "mine"),
        read({"keys": [public(jwk(kind, kid="mine"))]}),
        read_pem(Secret(pem(kind)), "FILE", "mine"),
        read_pem(Secret(public_pem(kind)), "FILE", "mine"),
    ]
    assert {each.keys[0].public_jwk for each in forms} == {own.public_jwk}
    unnamed = read_pem(Secret(pem(kind)), "FILE")
    assert unnamed.keys[0].kid == thumbprint(public(jwk(kind)))
    assert "thumbprint" in unnamed.notes[-1]


@pytest.mark.parametrize("form", [PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8])
@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_the_older_forms_of_pem(kind: str, form: PrivateFormat) -> None:
    found = read_pem(Secret("Some words before it\n" + pem(kind, form)), "FILE", "mine").keys[0]
    assert found.private == read(jwk(kind, kid="mine")).keys[0].private


def test_what_openssl_makes(tmp_path: Path) -> None:
    """`ecparam -genkey` puts the parameters of the curve before the key."""
    command = ["openssl", "ecparam", "-name", "prime256v1", "-genkey"]
    made = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert "EC PARAMETERS" in made
    assert read_pem(Secret(made), "FILE").keys[0].algorithm is Algorithm.ES256


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_what_goes_over_the_socket_comes_out_as_it_went_in(algorithm: Algorithm) -> None:
    key = CryptographyKeyMaker().make(algorithm)
    there = json.dumps({**json.loads(key.public_jwk)})
    found = read_jwk(Secret(there), "FILE")
    assert read_jwk(to_jwk(found.keys), "FILE").keys == found.keys
    private = read(jwk({"ES256": "ec", "RS256": "rsa"}.get(algorithm, "ed"), kid="mine"))
    again = read_jwk(to_jwk(private.keys), "the key").keys[0]
    assert again == private.keys[0]
    assert again.private is not None
    signing_function("mine", algorithm, again.private)(b"content")


def test_nothing_but_the_key_is_kept_of_a_jwk() -> None:
    found = read(jwk(kid="mine", x5c=["MIIB"], key_ops=["sign"], ext=True, iat=12345)).keys[0]
    assert json.loads(found.public_jwk).keys() == {"kty", "crv", "x", "y", "kid", "use", "alg"}


def test_a_number_written_with_zeros_before_it_is_published_without() -> None:
    entry = public(jwk("rsa", kid="mine"))
    padded = base64.urlsafe_b64encode(b"\0" + base64.urlsafe_b64decode(entry["n"] + "==")).decode().rstrip("=")
    assert read({**entry, "n": padded}).keys == read(entry).keys


def test_a_set_leaves_out_what_is_for_encryption() -> None:
    """As the sets of identity providers have it."""
    signs, encrypts = public(jwk("rsa", kid="one")), public(jwk("rsa", kid="two", use="enc", alg="RSA-OAEP"))
    found = read({"keys": [encrypts, signs]})
    assert [key.kid for key in found.keys] == ["one"]
    assert "key 1 is for encryption" in found.notes[0]
    assert "taken as RS256" in found.notes[1]


def test_published_keys_as_pem_are_what_openssl_reads(tmp_path: Path) -> None:
    keys = [json.loads(CryptographyKeyMaker().make(algorithm).public_jwk) for algorithm in Algorithm]
    text = to_pem(json.dumps({"keys": keys}))
    assert re.findall(r"^kid: (.*)$", text, re.MULTILINE) == [key["kid"] for key in keys]
    (tmp_path / "keys.pem").write_text(text)
    command = ["openssl", "pkey", "-pubin", "-in", str(tmp_path / "keys.pem"), "-noout", "-text"]
    assert "prime256v1" in subprocess.run(command, capture_output=True, check=True, text=True).stdout


# ------------------------------------------------------------------------------------------------------------- refused


def _mixed(**others: Any) -> dict[str, Any]:
    return {**jwk(), **others}


OTHER: dict[str, Any] = ECKey.generate_key("P-256").as_dict(private=True)

JWKS: dict[str, tuple[Callable[[], object], str]] = {
    "no object": (lambda: [1], "FILE: a JWK is a JSON object"),
    "nothing": (dict, "FILE: 'NoneType' is no kty"),
    "an empty set": (lambda: {"keys": []}, "FILE: `keys` holds no key"),
    "a set of no list": (lambda: {"keys": {}}, "FILE: `keys` holds no key"),
    "a set of text": (lambda: {"keys": ["x"]}, "FILE: key 1 is no JSON object"),
    "symmetric": (lambda: {"kty": "oct", "k": "c2VjcmV0"}, "a symmetric key"),
    "of another type": (lambda: {"kty": "AKP", "pub": "AA"}, "'AKP' is no kty of a key that is known here"),
    "of another curve": (lambda: jwk("ec384"), "a key of the curve 'P-384'; of EC only P-256"),
    "of the wrong curve for its size": (lambda: {**jwk("ec384"), "crv": "P-256"}, "its numbers make no EC key"),
    "Ed448": (lambda: jwk("ed448"), "a key of the curve 'Ed448'; of OKP only Ed25519"),
    "for another algorithm": (lambda: jwk("rsa", alg="PS256"), "its alg is 'PS256'"),
    "EC with the alg of RSA": (lambda: jwk(alg="RS256"), "its alg is 'RS256'"),
    "alg of no text": (lambda: jwk(alg=["ES256"]), "its alg is 'list'"),
    "for encryption": (lambda: jwk(use="enc"), "its use is 'enc'"),
    "for wrapping": (lambda: jwk(key_ops=["wrapKey"]), "its key_ops are not for signatures"),
    "weak": (lambda: {"kty": "RSA", "e": "AQAB", "n": "_" * 171}, "an RSA key of 1024 bits is too weak; at least 2048"),
    "too large": (lambda: {"kty": "RSA", "e": "AQAB", "n": "_" * 1372}, "too large|too long"),
    "even exponent": (lambda: {**public(jwk("rsa")), "e": "AQAA"}, "its exponent e"),
    "RSA without its primes": (
        lambda: {name: value for name, value in jwk("rsa").items() if name not in ("p", "q", "dp", "dq", "qi")},
        "no text as its member p",
    ),
    "more than two primes": (lambda: jwk("rsa", oth=[{}]), "more than two primes"),
    "primes without d": (lambda: {**public(jwk("rsa")), "p": "AQAB"}, "the private member p without d"),
    "halves of two keys": (lambda: _mixed(d=OTHER["d"]), "its numbers make no EC key"),
    "halves of two Ed25519 keys": (lambda: {**jwk("ed"), "x": OTHER["x"]}, "do not belong together"),
    "off the curve": (lambda: _mixed(x=OTHER["x"]), "its numbers make no EC key"),
    "cut short": (lambda: _mixed(x=OTHER["x"][:-4]), "its numbers make no EC key"),
    "padded": (lambda: _mixed(x=OTHER["x"] + "="), "its member x is not base64url"),
    "a number for text": (lambda: _mixed(y=5), "no text as its member y"),
    "a kid of no text": (lambda: jwk(kid=7), "a kid is 1 to 200 letters, digits"),
    "a kid that steers a terminal": (lambda: jwk(kid="\x1b[2J"), "a kid is 1 to 200 letters, digits"),
    "a kid that is an option": (lambda: jwk(kid="--yes"), "does not begin with --; '--yes' is none"),
    "a kid that is markup": (lambda: jwk(kid="<script>"), "a kid is 1 to 200 letters, digits"),
    "a kid with a space": (lambda: jwk(kid="(key 1, without kid)"), "a kid is 1 to 200 letters, digits"),
    "one kid twice": (
        lambda: {"keys": [public(jwk(kid="a")), public(jwk("ed", kid="a"))]},
        "the kid a is there 2 times",
    ),
    "a private key in a set": (lambda: {"keys": [jwk(kid="a"), public(jwk("ed", kid="b"))]}, "import each private key"),
    "only for encryption": (lambda: {"keys": [public(jwk(use="enc"))]}, "no key in it is for signatures"),
    "the second is bad": (
        lambda: {"keys": [public(jwk()), {"kty": "RSA"}]},
        "FILE: key 2: it has no text as its member n",
    ),
}


def test_a_byte_order_mark_is_no_part_of_a_file() -> None:
    assert read_jwk(Secret("\ufeff" + json.dumps(public(jwk(kid="a")))), "FILE").keys[0].kid == "a"


@pytest.mark.parametrize("case", JWKS)
def test_what_is_no_key_for_us_is_refused_and_its_place_named(case: str) -> None:
    document, said = JWKS[case]
    with pytest.raises(RefusedError, match=said) as refused:
        read(document())
    assert str(refused.value).startswith("FILE")
    assert jwk()["d"] not in str(refused.value)


def test_a_kid_of_its_own_is_not_replaced() -> None:
    with pytest.raises(RefusedError, match="its kid is 'mine', and tokens name it so"):
        read(jwk(kid="mine"), "another")
    with pytest.raises(RefusedError, match="--kid names one key, and there are 2"):
        read({"keys": [public(jwk()), public(jwk("ed"))]}, "one")


@pytest.mark.parametrize("text", ["", "{", "not JSON", '{"kty": "EC", "kty": "RSA"}', "[" * 5000, '"\\ud800"', "NaN"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(RefusedError, match=r"^FILE: .*--pem"):
        read_jwk(Secret(text), "FILE")


def _encrypted(form: PrivateFormat) -> str:
    return str(made("ec").private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"word")).decode())


PEMS: dict[str, tuple[Callable[[], str], str]] = {
    "nothing": (str, "no whole PEM block"),
    "a JWK": (lambda: json.dumps(jwk()), "for a JWK say --jwk"),
    "without its end": (lambda: pem("ec")[:-10], "no whole PEM block"),
    "damaged": (lambda: pem("ec").replace("M", "N"), "FILE:1: the PEM block is damaged"),
    "damaged in line 3": (lambda: "a\nb\n" + public_pem("ec").replace("M", "N"), "FILE:3: the PEM block is damaged"),
    "two keys": (lambda: pem("ec") + pem("ed"), "2 PEM blocks are in it"),
    "encrypted": (lambda: _encrypted(PrivateFormat.PKCS8), "is encrypted; decrypt it on the way: openssl pkey"),
    "encrypted as of old": (lambda: _encrypted(PrivateFormat.TraditionalOpenSSL), "is encrypted"),
    "of OpenSSH": (lambda: pem("ed", PrivateFormat.OpenSSH), "is in the format of OpenSSH"),
    "a certificate": (lambda: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "openssl x509"),
    "something else": (lambda: "-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n", "is a x509 crl, and no key"),
    "of another curve": (lambda: pem("ec384"), "a key of the curve secp384r1"),
    "of another kind": (lambda: pem("dsa"), "of a kind that is not known"),
    "Ed448": (lambda: public_pem("ed448"), "of a kind that is not known"),
    "weak": (lambda: pem("weak"), "1024 bits is too weak"),
}


@pytest.mark.parametrize("case", PEMS)
def test_pem_that_is_no_key_for_us_is_refused_and_its_place_named(case: str) -> None:
    text, said = PEMS[case]
    with pytest.raises(RefusedError, match=said) as refused:
        read_pem(Secret(text()), "FILE")
    assert str(refused.value).startswith("FILE")


# ---------------------------------------------------------------------------------------------------------------- fuzz

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
MEMBERS = ("kty", "crv", "x", "y", "n", "e", "d", "p", "q", "dp", "dq", "qi", "oth", "k")
NAMES = st.sampled_from(["keys", *MEMBERS, "kid", "alg", "use", "key_ops"])
WORDS = st.sampled_from(["EC", "RSA", "OKP", "oct", "P-256", "Ed25519", "AQAB", "sig", "ES256", "AA", "_" * 43])
VALUES = st.recursive(
    SCALARS | WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
)


def outcome(reader: Callable[[Secret[str], str], FoundKeys], text: str) -> None:
    """Read; anything but keys or a sentence that names the place is a failure."""
    try:
        found = reader(Secret(text), "FILE")
    except RefusedError as error:
        said = str(error)
    else:
        assert all(json.loads(key.public_jwk)["kid"] == key.kid for key in found.keys)
        return
    assert said.startswith("FILE")
    assert said.isprintable()


@given(st.dictionaries(NAMES, VALUES, max_size=8))
def test_any_object_is_taken_or_refused(document: dict[str, Any]) -> None:
    outcome(read_jwk, json.dumps(document))


@given(st.sampled_from(["ec", "rsa", "ed"]), st.dictionaries(NAMES, VALUES, max_size=2), st.sets(NAMES, max_size=2))
def test_any_change_of_a_sound_key_is_taken_or_refused(kind: str, changed: dict[str, Any], gone: set[str]) -> None:
    entry = {name: value for name, value in {**jwk(kind), **changed}.items() if name not in gone}
    outcome(read_jwk, json.dumps(entry))
    outcome(read_jwk, json.dumps({"keys": [entry]}))


@given(
    st.sampled_from(["ec", "rsa", "ed", "ed448", "ec384"]), st.integers(0, 1800), st.text(max_size=4), st.integers(0, 3)
)
def test_any_edit_of_a_sound_file_is_taken_or_refused(kind: str, at: int, put: str, cut: int) -> None:
    for reader, text in ((read_pem, pem(kind)), (read_pem, public_pem(kind)), (read_jwk, json.dumps(jwk(kind)))):
        place = at % len(text)
        outcome(reader, text[:place] + put + text[place + cut :])


@given(st.text(max_size=200))
def test_any_text_is_taken_or_refused(text: str) -> None:
    outcome(read_jwk, text)
    outcome(read_pem, text)
    outcome(read_pem, f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
