"""A published set holds public halves and nothing else, whatever it is given."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.core.jwks import (
    PRIVATE_MEMBERS,
    PUBLIC_MEMBERS,
    JwksError,
    attested,
    canonical,
    discovery,
    jwks_uri,
    meta,
    meta_members,
    meta_without,
    meta_witness,
    parse_kids,
    parse_set,
    publishable,
    render,
    without,
)
from rotator.core.model import Algorithm, KeysetName, Kid

EC = {"alg": "ES256", "crv": "P-256", "kid": "one", "kty": "EC", "use": "sig", "x": "eA", "y": "eQ"}
RSA = {"alg": "RS256", "e": "AQAB", "kid": "two", "kty": "RSA", "n": "bg", "use": "sig"}
OKP = {"alg": "EdDSA", "crv": "Ed25519", "kid": "three", "kty": "OKP", "use": "sig", "x": "eA"}
AKP = {"alg": "ML-DSA-44", "kid": "four", "kty": "AKP", "pub": "cHVi", "use": "sig"}
ALL = [EC, RSA, OKP, AKP]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def text(jwk: object) -> str:
    return json.dumps(jwk)


def test_each_key_stands_on_a_line_of_its_own_in_the_order_given() -> None:
    assert render([text(OKP), text(EC)]).decode() == (
        '{"keys":[\n'
        '{"alg":"EdDSA","crv":"Ed25519","kid":"three","kty":"OKP","use":"sig","x":"eA"},\n'
        '{"alg":"ES256","crv":"P-256","kid":"one","kty":"EC","use":"sig","x":"eA","y":"eQ"}\n'
        "]}\n"
    )


@pytest.mark.parametrize("jwk", ALL, ids=lambda jwk: jwk["kty"])
def test_a_public_key_of_each_type_passes_unchanged(jwk: dict[str, str]) -> None:
    assert json.loads(render([text(jwk)])) == {"keys": [jwk]}


def test_the_bytes_do_not_depend_on_the_order_of_members() -> None:
    assert render([text(EC)]) == render([text(dict(reversed(EC.items())))])


def test_a_stored_key_has_sorted_members_no_white_space_and_the_characters_themselves() -> None:
    assert canonical({"b": "ü", "a": [1, 2]}) == '{"a":[1,2],"b":"ü"}'


def test_the_names_of_a_key_and_of_a_curve_are_any_text() -> None:
    """Only what is encoded is base64url."""
    jwk = EC | {"crv": "P.256", "kid": "2026/01: first"}
    assert json.loads(render([text(jwk)])) == {"keys": [jwk]}


def test_an_empty_set_is_a_set() -> None:
    """A revocation can leave no key."""
    assert render([]) == b'{"keys":[]}\n'
    assert parse_kids(render([])) == ()


def test_members_that_no_verifier_needs_do_not_pass() -> None:
    jwk = EC | {"key_ops": ["verify"], "x5u": "https://elsewhere.example", "note": "x"}
    assert render([text(jwk)]) == render([text(EC)])


def test_use_is_added_where_it_is_missing() -> None:
    assert render([text({name: value for name, value in EC.items() if name != "use"})]) == render([text(EC)])


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"])
@pytest.mark.parametrize("jwk", ALL, ids=lambda jwk: jwk["kty"])
def test_a_private_member_is_refused_and_not_repeated(jwk: dict[str, str], member: str) -> None:
    with pytest.raises(JwksError, match=f"private member {member}") as caught:
        render([text(jwk | {member: "c2VjcmV0"})])
    assert "c2VjcmV0" not in str(caught.value)
    assert parse_set(text({"keys": [jwk | {member: "c2VjcmV0"}]}).encode()) is None


@given(
    st.dictionaries(
        st.sampled_from([*PRIVATE_MEMBERS, *EC, "n", "e", "pub", "oth", "x5c"]) | st.text(max_size=4),
        st.text(max_size=4) | st.sampled_from([*PUBLIC_MEMBERS, "sig"]) | st.none() | st.lists(st.integers()),
    )
)
def test_whatever_comes_in_only_allowed_members_come_out(jwk: dict[str, object]) -> None:
    try:
        rendered = render([text(jwk | {"kid": "one", "alg": "ES256"})])
    except JwksError:
        return
    (key,) = json.loads(rendered)["keys"]
    assert set(key) == {"alg", "kid", "kty", "use", *PUBLIC_MEMBERS[key["kty"]]}


@pytest.mark.parametrize(
    ("jwks", "message"),
    [
        ([text(EC), text(RSA | {"kid": "one"})], "kid one is there 2 times"),
        ([text(EC | {"kty": "oct"})], "has kty 'oct'; known are EC, RSA, OKP, AKP"),
        ([text(EC | {"kty": ["EC"]})], "the JWK 'one' has kty"),
        ([text(EC | {"kid": ""})], "no text as its member kid"),
        (
            [text({name: value for name, value in EC.items() if name != "kid"})],
            "a JWK without a kid has no text as its member kid",
        ),
        ([text({name: value for name, value in EC.items() if name != "alg"})], "member alg"),
        ([text({name: value for name, value in EC.items() if name != "y"})], "member y"),
        ([text(EC | {"x": 5})], "member x"),
        ([text(EC | {"x": "a+b/"})], "outside base64url in its member x"),
        ([text(EC | {"use": "enc"})], "use 'enc'"),
        (["[]"], "JSON object"),
        (["{"], "not JSON"),
        (['{"kid":"one","kid":"two"}'], "a member is there twice"),
        ([text(EC | {"kid": "\ud800"})], "half a surrogate pair"),
    ],
)
def test_what_no_verifier_should_see_is_refused(jwks: list[str], message: str) -> None:
    with pytest.raises(JwksError, match=message):
        render(jwks)


def test_what_is_rendered_is_read_back_key_by_key() -> None:
    assert parse_set(render([text(EC), text(RSA)])) == ((Kid("one"), canonical(EC)), (Kid("two"), canonical(RSA)))
    assert parse_kids(render([text(key) for key in ALL])) == ("one", "two", "three", "four")


# The key of RFC 7517 A.1.
REAL = EC | {
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
}


def test_a_key_with_which_anybody_can_sign_is_not_published_for_others() -> None:
    """The identity point: a verifier that knows it takes any signature for one of that key."""
    identity = {"kty": "OKP", "crv": "Ed25519", "x": "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}
    with pytest.raises(JwksError, match="'one' is not safe: its point is of small order"):
        publishable(text(identity), kid=Kid("one"), algorithm=Algorithm.EDDSA)


def test_a_key_of_others_is_published_as_it_reads_back() -> None:
    """So that the file is not taken for someone else's for ever after."""
    bare = {name: value for name, value in REAL.items() if name not in {"kid", "alg", "use"}} | {"x5c": ["x"]}
    text_published = publishable(text(bare), kid=Kid("one"), algorithm=Algorithm.ES256)
    assert text_published == canonical(REAL)
    assert parse_set(render([text_published])) == ((Kid("one"), text_published),)


def test_a_key_of_others_keeps_the_name_and_algorithm_that_it_came_with() -> None:
    assert publishable(text(REAL), kid=Kid("other"), algorithm=Algorithm.RS256) == canonical(REAL)
    with pytest.raises(JwksError, match="private member d"):
        publishable(text(EC | {"d": "ZA"}), kid=Kid("one"), algorithm=Algorithm.ES256)


def test_reading_keeps_the_members_that_rendering_would_drop() -> None:
    """A foreign member makes the entry differ from ours: someone else wrote it."""
    assert parse_set(text({"keys": [EC | {"note": "x"}]}).encode()) == ((Kid("one"), canonical(EC | {"note": "x"})),)


def test_a_key_that_others_published_without_a_kid_is_still_seen() -> None:
    assert parse_kids(text({"keys": [{"kty": "EC", "kid": "one"}, {"kty": "EC"}]}).encode()) == (
        "one",
        "(key 2, without kid)",
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"not json",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":["one"]}',
        b'{"keys":[{"kid":"one"}]}',
        b'{"keys":[],"keys":[]}',
        b'{"keys":[{"kty":"EC","kid":"one"},{"kty":"RSA","kid":"one"}]}',
        b'{"keys":[{"kty":"EC","kid":"one","d":"ZA"}]}',
        b'{"keys":[{"kty":"EC","kid":"one"}]',
        b"[" * 100_000,
        b'{"keys":[{"kty":"EC","kid":"\\ud800"}]}',
    ],
    ids=lambda content: str(content[:40]),
)
def test_what_is_no_set_is_read_as_none(content: bytes) -> None:
    assert parse_set(content) is None
    assert parse_kids(content) is None


@given(st.binary(max_size=60))
def test_reading_never_raises(content: bytes) -> None:
    parse_set(content)
    parse_set(b'{"keys":[' + content + b"]}")


@pytest.mark.parametrize(
    ("base_url", "keyset", "uri"),
    [
        ("https://t.example", "default", "https://t.example/.well-known/jwks.json"),
        ("https://t.example/", "default", "https://t.example/.well-known/jwks.json"),
        ("https://t.example/sub/", "eu", "https://t.example/sub/keysets/eu/jwks.json"),
        ("https://t.example/X//", "eu", "https://t.example/X/keysets/eu/jwks.json"),
    ],
)
def test_the_uri_of_a_set_is_where_the_tree_serves_it(base_url: str, keyset: str, uri: str) -> None:
    assert jwks_uri(base_url, KeysetName(keyset)) == uri


def test_the_discovery_document_names_issuer_set_and_algorithms() -> None:
    document = discovery(
        "https://ü.example", "https://t.example/j", [Algorithm.RS256, Algorithm.ES256, Algorithm.RS256]
    )
    assert document.decode().startswith('{\n  "issuer": "https://ü.example",\n  "jwks_uri"')
    assert json.loads(document) == {
        "issuer": "https://ü.example",
        "jwks_uri": "https://t.example/j",
        "id_token_signing_alg_values_supported": ["ES256", "RS256"],
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
    }


@pytest.mark.parametrize(
    ("next_change_at", "shown"),
    [(None, None), (datetime(2026, 4, 1, 1, 30, 0, 999_999, tzinfo=UTC), "2026-04-01T01:30:00Z")],
)
def test_the_meta_document_tells_how_fresh_the_set_is(next_change_at: datetime | None, shown: str | None) -> None:
    document = meta(
        generation=7,
        sha256="ab" * 32,
        published_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        next_change_at=next_change_at,
        max_age=timedelta(hours=24),
    )
    assert document.endswith(b"\n")
    assert json.loads(document) == {
        "generation": 7,
        "sha256": "ab" * 32,
        "published_at": "2026-01-02T03:04:05Z",
        "next_change_at": shown,
        "max_age": 86400,
    }


def test_a_set_without_some_of_its_keys_is_the_one_that_would_be_rendered_without_them() -> None:
    """What others put beside ours stays as it stands; where there is nothing to take out, nothing is to be written."""
    whole = render([text(key) for key in ALL])
    assert without(whole, {Kid("two"), Kid("nonesuch")}) == render([text(key) for key in ALL if key["kid"] != "two"])
    assert without(whole, {Kid(key["kid"]) for key in ALL}) == render([])
    assert without(whole, {Kid("nonesuch")}) is None
    assert without(b"no set", {Kid("one")}) is None
    left = without(json.dumps({"keys": [{**EC, "note": "ours"}, OKP]}).encode(), {Kid("three")})
    assert parse_set(left or b"") == ((Kid("one"), canonical({**EC, "note": "ours"})),)


def test_the_meta_document_of_what_is_left_of_a_set_has_no_generation() -> None:
    before = meta(generation=7, sha256="aa", published_at=NOW, next_change_at=None, max_age=timedelta(hours=1))
    after = meta_without(before, sha256="bb", published_at=NOW + timedelta(seconds=1))
    assert json.loads(after or b"") == {
        "sha256": "bb",
        "published_at": "2026-01-01T00:00:01Z",
        "next_change_at": None,
        "max_age": 3600,
    }
    assert meta_without(b"[]", sha256="bb", published_at=NOW) is None
    assert meta_without(b"\xff", sha256="bb", published_at=NOW) is None


def test_the_witness_part_of_a_meta_document_is_replaced_and_nothing_else() -> None:
    described = meta(
        generation=7,
        sha256="aa",
        published_at=NOW,
        next_change_at=None,
        max_age=timedelta(hours=1),
        witness={"active": "one"},
    )
    assert meta_witness(described) == {"active": "one"}
    members = meta_members(described)
    assert members is not None
    after = attested(members, {"active": "two"})
    assert json.loads(after) == {**json.loads(described), "witness": {"active": "two"}}


@pytest.mark.parametrize(
    "content", [None, b"", b"[]", b"{}", b'{"witness": 1}', b'{"witness": {}, "witness": {}}', b"\xff"]
)
def test_what_is_no_meta_document_has_no_witness_part(content: bytes | None) -> None:
    assert not meta_witness(content)
