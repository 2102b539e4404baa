import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwe, jwk

from rotator.core.redaction import DEPTH_LIMIT, ITEM_LIMIT, TEXT_LIMIT, redact, redact_text
from rotator.core.secret import Secret

KEY = ec.derive_private_key(7, ec.SECP256R1())
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
TOKEN = jwt.encode({"sub": "acme"}, KEY, algorithm="ES256", headers={"kid": "k1"})
SIGNATURE = TOKEN.rpartition(".")[2]
KID = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"

UNSPACED = json.dumps({"alg": "ES256"}, indent=2)
PRETTY_TOKEN = base64.urlsafe_b64encode(UNSPACED.encode()).decode().rstrip("=") + ".eyJhIjoxfQ." + SIGNATURE


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f"the sink said: {TOKEN}",
        f"Authorization: Bearer {TOKEN}\n",
        f'{{"token":"{TOKEN}"}}',
        f"url?access_token={TOKEN}&x=1",
        f"prefix-{TOKEN}-suffix",
        f"{TOKEN} and {TOKEN}",
        repr(TOKEN),
        str(TOKEN.encode()),
        PRETTY_TOKEN,
        f"x.y.{TOKEN}",
        TOKEN[:-5],
    ],
)
def test_a_token_is_masked_wherever_it_stands(text: str) -> None:
    assert SIGNATURE[:20] not in redact_text(text)
    assert "[" in redact_text(text)


@pytest.mark.parametrize("begin", ['{"', '{ "', '{\n"', '{\t"', '{\r\n"'])
def test_a_token_is_known_by_the_white_space_that_its_header_may_begin_with(begin: str) -> None:
    header = base64.urlsafe_b64encode(f'{begin}alg":"ES256"}}'.encode()).decode().rstrip("=")
    assert redact_text(f"got {header}.eyJhIjoxfQ.{SIGNATURE}") == "got [secret]"


def test_what_has_no_signature_is_no_token() -> None:
    header = TOKEN.split(".")[0]
    for text in (header, f"{header}.{header}", f"a.b.c.{header}", f"{'x' * 20}.{header}.y"):
        assert redact_text(text) == text


def test_an_encrypted_token_is_masked() -> None:
    key = jwk.OctKey.generate_key(256)
    token = jwe.encrypt_compact({"alg": "dir", "enc": "A256GCM"}, b"secret", key)
    assert token.rpartition(".")[2] not in redact_text(f"got {token}")


@pytest.mark.parametrize(
    "encoding", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
)
@pytest.mark.parametrize("key", [KEY, rsa.generate_private_key(65537, 2048)])
def test_a_private_key_in_pem_is_masked(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, encoding: serialization.PrivateFormat
) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, encoding, serialization.NoEncryption()).decode()
    inside = pem.splitlines()[1]
    for text in (f"before {pem} after", repr(pem), json.dumps({"file": pem}), pem[: len(pem) // 2]):
        assert inside[:20] not in redact_text(text)
    assert redact_text(f"before {pem}after") == "before [secret]\nafter"


def test_a_public_key_in_pem_is_shown() -> None:
    pem = (
        KEY.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
    assert redact_text(pem) == pem


JWKS: list[dict[str, str]] = [
    dict(jwk.ECKey.import_key(PEM).as_dict(private=True)),  # type: ignore[arg-type]  # members of these are text
    dict(jwk.RSAKey.generate_key(2048, private=True).as_dict(private=True)),  # type: ignore[arg-type]  # as above
    dict(jwk.OKPKey.generate_key("Ed25519").as_dict(private=True)),  # type: ignore[arg-type]  # as above
    dict(jwk.OctKey.generate_key(256).as_dict(private=True)),  # type: ignore[arg-type]  # as above
    {"kty": "AKP", "alg": "ML-DSA-65", "pub": "p" * 40, "priv": "s" * 43},
]
PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "k", "priv"}


@pytest.mark.parametrize("key", JWKS, ids=lambda key: key["kty"])
def test_private_members_of_a_jwk_are_masked_and_public_ones_shown(key: dict[str, str]) -> None:
    shown = redact({"jwk": key})
    assert isinstance(shown, dict)
    assert shown["jwk"] == {name: "[secret]" if name in PRIVATE else value for name, value in key.items()}


@pytest.mark.parametrize("key", JWKS, ids=lambda key: key["kty"])
def test_private_members_of_a_jwk_in_text_are_masked(key: dict[str, str]) -> None:
    once = json.dumps(key)
    for text in (once, json.dumps(key, indent=2), repr(key), json.dumps({"body": once})):
        shown = redact_text(text)
        for name, value in key.items():
            assert (value in shown) == (name not in PRIVATE), name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://rotator:hunter2@db:5432/r", "postgresql://rotator:[secret]@db:5432/r"),
        ("postgresql://:hunter2@db/r", "postgresql://:[secret]@db/r"),
        ("(postgresql+psycopg://u:p@ss@db/r) failed", "(postgresql+psycopg://u:[secret]@db/r) failed"),
        ("https://tokens.example.com:8443/a@b", "https://tokens.example.com:8443/a@b"),
    ],
)
def test_a_password_in_a_url_is_masked(text: str, expected: str) -> None:
    assert redact_text(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        KID,
        "key.activated",
        "tokens.example.com/.well-known/jwks.json",
        "a sentence. With stops. And more.",
        "/run/rotator-tokens/acme/token",
        "3.11.7-final.0+local.build",
        'd = "x"',
        "Bob's house, the dog's bone",
    ],
)
def test_what_is_no_secret_is_shown_as_it_is(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize("quoted", [b"\x00secret'bytes", b'\\"secret', b"secret"])
def test_bytes_quoted_in_text_are_masked(quoted: bytes) -> None:
    assert "secret" not in redact_text(f"cannot read {quoted!r} here")
    assert redact_text(f"cannot read {quoted!r} here") == "cannot read [bytes] here"


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Row:
    kid: str
    sealed: bytes
    private: Secret[bytes]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Secret("x"), "[secret]"),
        (Secret(b"x"), "[secret]"),
        ([Secret("x"), {"a": (Secret("y"),)}], ["[secret]", {"a": ["[secret]"]}]),
        (b"\x00\x01", "[2 bytes]"),
        (bytearray(3), "[3 bytes]"),
        (Row("k", b"\x00\x01", Secret(b"z")), {"kid": "k", "sealed": "[2 bytes]", "private": "[secret]"}),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
        (timedelta(minutes=1), 60.0),
        (Colour.RED, "red"),
        ({"b", "a"}, ["a", "b"]),
        ({1: None, "x": True, "f": 1.5}, {"1": None, "x": True, "f": 1.5}),
        (Path("/a/b"), "/a/b"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Row, str(Row)),
        (ValueError(f"bad {TOKEN}"), "ValueError: bad [secret]"),
        (
            {"token": "abc", "Password": "p", "secret": b"x"},
            {"token": "[secret]", "Password": "[secret]", "secret": "[secret]"},
        ),
        ({"token": 3}, {"token": 3}),
        ({"authorization": "a", "private_key": bytearray(1)}, {"authorization": "[secret]", "private_key": "[secret]"}),
        ({"oth": [{"r": "x"}]}, {"oth": "[secret]"}),
        ({"d": "10 days", "k": "v", "q": 7}, {"d": "10 days", "k": "v", "q": 7}),
        ({TOKEN: 1}, {"[secret]": 1}),
    ],
)
def test_values_become_plain_and_lose_their_secrets(value: object, expected: object) -> None:
    assert redact(value) == expected
    assert isinstance(json.dumps(redact(value)), str)


def test_what_contains_itself_ends() -> None:
    loop: dict[str, object] = {}
    loop["again"] = loop
    shown = json.dumps(redact(loop))
    assert shown.count("again") == DEPTH_LIMIT
    assert "[too deep]" in shown


@pytest.mark.parametrize("value", [list(range(10_000)), {str(n): n for n in range(10_000)}, [[[0] * 100] * 100] * 100])
def test_what_is_wide_is_cut(value: list[object] | Mapping[str, object]) -> None:
    shown = json.dumps(redact(value))
    assert len(shown) < ITEM_LIMIT * 30
    assert "[cut]" in shown


def test_what_is_too_much_is_cut_and_says_so() -> None:
    assert redact(list(range(500))) == list(range(500))
    assert redact(list(range(501))) == [*range(500), "… [cut]"]
    assert redact({str(n): n for n in range(500)}) == {str(n): n for n in range(500)}
    assert redact({str(n): n for n in range(501)}) == {str(n): n for n in range(500)} | {"…": "[cut]"}
    assert redact([[[[[[1]]]]]]) == [[[[[[1]]]]]]
    assert redact([[[[[[[1]]]]]]]) == [[[[[["[too deep]"]]]]]]
    assert redact_text("x" * 16_384) == "x" * 16_384
    assert redact_text("x" * 16_385) == "x" * 16_384 + "… [1 characters cut]"


def test_long_text_is_cut_after_it_was_masked() -> None:
    """Else a secret across the cut would lose the shape that it is known by."""
    shown = redact_text("x" * (TEXT_LIMIT - 40) + PEM + "y" * 100)
    assert PEM.splitlines()[1][:10] not in shown
    assert redact_text("x" * (TEXT_LIMIT + 7)) == "x" * TEXT_LIMIT + "… [7 characters cut]"


@given(st.text(), st.text())
def test_no_surrounding_text_saves_a_token_from_the_mask(before: str, after: str) -> None:
    assert SIGNATURE not in redact_text(f"{before} {TOKEN}{after}")


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_whatever_comes_can_be_written_as_json(value: object) -> None:
    json.dumps(redact(value))


def test_ed25519_seeds_hide_in_pem_as_well() -> None:
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    assert redact_text(pem.decode().strip()) == "[secret]"
