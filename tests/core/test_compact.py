"""Tokens of which nothing is known: a table of attacks, and that nothing whatever ends in anything but a reason."""

import json
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.core.compact import LONGEST_TOKEN, MalformedError, read_compact

HEADER: dict[str, object] = {"alg": "ES256", "kid": "k1", "typ": "JWT"}
CLAIMS: dict[str, object] = {"sub": "acme"}


def part(value: object) -> str:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(content).decode().rstrip("=")


def token(header: object = HEADER, claims: object = CLAIMS, signature: str = "c2lnbmF0dXJl") -> str:
    return f"{part(header)}.{part(claims)}.{signature}"


def test_a_plain_token_is_read() -> None:
    found = read_compact(token())
    assert (found.algorithm, found.kid, found.kind, found.claims) == ("ES256", "k1", "JWT", CLAIMS)
    assert read_compact(token({"alg": "ES256", "kid": "k1"})).kind is None


def test_what_is_long_and_ends_in_any_letter_is_read() -> None:
    assert len(read_compact(token(HEADER | {"kid": "k" * 256})).kid) == 256
    assert read_compact(token(signature="AAAX")).kid == "k1"
    longest = token() + "A" * (-len(token()) % 4)
    longest += "A" * (LONGEST_TOKEN - len(longest))
    assert len(longest) == 32_768
    assert read_compact(longest).claims == CLAIMS


@pytest.mark.parametrize("member", ["alg", "kid", "typ"])
@pytest.mark.parametrize("value", ["", 1])
def test_what_a_header_lacks_is_named(member: str, value: object) -> None:
    with pytest.raises(MalformedError, match=f"its header has no text as {member}$"):
        read_compact(token(HEADER | {member: value}))


ATTACKS = {
    "nothing": ("", "it is empty"),
    "one part": ("abc", "it has 1 part, and a signed token has three"),
    "two parts": ("abc.def", "it has 2 parts"),
    "an encrypted token": ("a.b.c.d.e", "five parts: it is encrypted"),
    "JSON serialisation": ('{"payload":"e30","signatures":[]}', "it is JSON"),
    "huge": ("a" * (LONGEST_TOKEN + 1), "more than 32768 characters"),
    "a huge payload": (token(claims={"a": "x" * LONGEST_TOKEN}), "more than 32768 characters"),
    "no signature": (token(signature=""), "it is not signed"),
    "alg none": (token(HEADER | {"alg": "none"}), "alg none"),
    "alg none, hidden": (token(HEADER | {"alg": "nOnE"}, signature=""), "alg none"),
    "HS256 with the public key as secret": (token(HEADER | {"alg": "HS256"}), "shared secret (alg HS256)"),
    "HS512, small": (token(HEADER | {"alg": "hs512"}), "shared secret (alg hs512)"),
    "no alg": (token({"kid": "k1"}), "no text as alg"),
    "alg is a list": (token(HEADER | {"alg": ["ES256"]}), "no text as alg"),
    "no kid": (token({"alg": "ES256"}), "no text as kid"),
    "kid is a number": (token(HEADER | {"kid": 1}), "no text as kid"),
    "kid is a path with a zero byte": (token(HEADER | {"kid": "../../dev/null\0"}), "cannot be printed"),
    "kid is huge": (token(HEADER | {"kid": "k" * 257}), "its kid has more than 256 characters"),
    "kid steers the terminal": (token(HEADER | {"kid": "\x1b[2J"}), "cannot be printed"),
    "typ is a number": (token(HEADER | {"typ": 1}), "no text as typ"),
    "jku": (token(HEADER | {"jku": "https://evil.example/jwks.json"}), "(jku); keys come from the state alone"),
    "x5u": (token(HEADER | {"x5u": "https://evil.example/x5c"}), "(x5u)"),
    "jwk": (token(HEADER | {"jwk": {"kty": "EC"}}), "brings its own key (jwk)"),
    "x5c": (token(HEADER | {"x5c": ["MII"]}), "(x5c)"),
    "crit": (token(HEADER | {"crit": ["exp"]}), "demands extensions (crit)"),
    "crit, empty": (token(HEADER | {"crit": []}), "demands extensions (crit)"),
    "b64 false": (token(HEADER | {"b64": False}), "not encoded (b64"),
    "zip": (token(HEADER | {"zip": "DEF"}), "compressed (zip)"),
    "enc": (token(HEADER | {"enc": "A256GCM"}), "encrypted (enc)"),
    "padding": (token(signature="c2lnbmF0dXI="), "its signature has padding"),
    "padding in the header": (f"{part(HEADER)}==.{part(CLAIMS)}.c2ln", "its header has padding"),
    "standard base64": (token(signature="ab+/"), "its signature has characters outside base64url"),
    "white space": (token() + "\n", "its signature has characters outside base64url"),
    "letters of other scripts": (token(signature="\u0430bcd"), "its signature has characters outside base64url"),
    "trailing bits": (token(signature="c2lnbmF0dXL"), "its signature could be written in another way"),
    "trailing bits of one byte": (token(signature="AB"), "its signature could be written in another way"),
    "cut short": (token(signature="c2lnb"), "its signature is cut short"),
    "the header is a list": (token([HEADER]), "its header is not a JSON object"),
    "the header is no JSON": (token(b"alg=none"), "its header cannot be read: it is not JSON"),
    "the header is not UTF-8": (token(b'{"alg":"\xff"}'), "its header is not UTF-8"),
    "alg twice": (token(b'{"alg":"ES256","alg":"none"}'), "its header cannot be read: a member is there twice"),
    "the payload is text": (token(claims="acme"), "its payload is not a JSON object"),
    "the payload is null": (token(claims=None), "its payload is not a JSON object"),
    "the payload is empty": (f"{part(HEADER)}..c2ln", "its payload cannot be read: it is not JSON"),
    "sub twice": (token(claims=b'{"sub":"acme","sub":"root"}'), "its payload cannot be read: a member is there twice"),
    "NaN": (token(claims=b'{"exp":NaN}'), "its payload cannot be read: NaN is no number"),
    "Infinity": (token(claims=b'{"exp":Infinity}'), "Infinity is no number"),
    "a number without end": (token(claims=b'{"exp":1e999}'), "beyond the range"),
    "deep JSON": (token(claims=b'{"a":' + b"[" * 20_000), "nested more than 16 deep"),
    "half a character": (token(claims=b'{"sub":"\\ud800"}'), "half a surrogate pair"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_each_attack_is_refused_with_its_own_reason(name: str) -> None:
    attack, reason = ATTACKS[name]
    with pytest.raises(MalformedError) as caught:
        read_compact(attack)
    assert reason in str(caught.value)


def test_no_reason_tells_what_is_in_a_token() -> None:
    """So that it can be written anywhere. An algorithm is told: it is a name, and short."""
    for attack, _ in ATTACKS.values():
        with pytest.raises(MalformedError) as caught:
            read_compact(attack)
        assert str(caught.value).isprintable()
        assert "evil" not in str(caught.value)
        assert "acme" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
MEMBERS = st.sampled_from(["alg", "kid", "typ", "jku", "x5u", "jwk", "x5c", "crit", "b64", "zip", "enc", "x"])


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    _read_or_refused(text)


@given(st.lists(st.text(alphabet="AQgw-_=+.e30"), min_size=3, max_size=3).map(".".join))
def test_any_base64_is_read_or_refused(text: str) -> None:
    _read_or_refused(text)


@given(
    st.dictionaries(MEMBERS, JSON | st.sampled_from(["ES256", "none", "k1"]), max_size=5).map(
        lambda header: HEADER | header
    )
    | JSON,
    JSON | st.binary(),
    st.text(alphabet="AQgw", max_size=6),
)
def test_any_header_and_payload_is_read_or_refused(header: object, claims: object, signature: str) -> None:
    _read_or_refused(token(header, claims, signature))


def _read_or_refused(text: str) -> None:
    reason = ""
    try:
        found = read_compact(text)
    except MalformedError as error:
        reason = str(error)
    else:
        assert text.count(".") == 2
        assert found.algorithm.lower() != "none"
        assert isinstance(found.claims, dict)
    assert reason.isprintable()
