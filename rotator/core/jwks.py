"""The bytes of a published set and of the documents beside it; one renderer for all of them.

Standard library only, pure. Two rules hold for every JWK Set (RFC 7517 §5) that leaves this module:

- members pass by an allow-list, and a key that has a private member is refused as a whole, so that no private half can
  leak by way of a member that nobody thought of;
- each key has a ``kid`` that no other has, and one ``alg``, so that a verifier never has to guess.
"""

import json
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from rotator.core.model import DEFAULT_KEYSET, Algorithm, KeysetName, Kid
from rotator.core.strict_json import parse
from rotator.core.weak_keys import jwk_weakness

PUBLIC_MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "EC": ("crv", "x", "y"),  # RFC 7518 §6.2.1
    "RSA": ("e", "n"),  # RFC 7518 §6.3.1
    "OKP": ("crv", "x"),  # RFC 8037 §2
    "AKP": ("pub",),  # RFC 9964 §3
}
"""What makes up the public half, by ``kty``. All of them are required."""

PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})

_COMMON_MEMBERS: Final = ("alg", "kid", "kty", "use")
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")


class JwksError(ValueError):
    """A set that must not be published."""


def canonical(document: Mapping[str, object]) -> str:
    """Return JSON with sorted members and no white space, the stored form of a public JWK."""
    return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def render(jwks: Sequence[str]) -> bytes:
    """Return the JWK Set of ``jwks`` (one JSON object each) in their order: one key per line, to be read in a diff.

    Raises :class:`JwksError` for a private member, a key of an unknown type, a missing or malformed member and a kid
    that is there twice.
    """
    keys = [_public_half(text) for text in jwks]
    kids = [str(key["kid"]) for key in keys]
    for kid in kids:
        if kids.count(kid) > 1:
            raise JwksError(f"kid {kid} is there {kids.count(kid)} times; a set names each key once")
    return _joined([canonical(key) for key in keys])


def _joined(keys: Sequence[str]) -> bytes:
    lines = ",\n".join(keys)
    return f'{{"keys":[\n{lines}\n]}}\n'.encode() if keys else b'{"keys":[]}\n'


def publishable(text: str, *, kid: Kid, algorithm: Algorithm) -> str:
    """Return a JWK that others made as :func:`render` would publish it; what it lacks of ``kid`` and ``alg`` is added.

    Raises :class:`JwksError` as :func:`render` does, and for a key whose private half others can find, or with which
    anybody can sign. What this returns, rendered and read back, is the same text.
    """
    public = _public_half(text, {"kid": kid, "alg": algorithm})
    if problem := jwk_weakness(public):
        raise JwksError(f"the JWK {kid!r} is not safe: {problem}")
    return canonical(public)


def _public_half(text: str, default: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    try:
        jwk = parse(text)
    except ValueError as error:
        raise JwksError(f"a public JWK cannot be read: {error}") from None
    if not isinstance(jwk, dict):
        raise JwksError("a public JWK is a JSON object, and this is not one")
    jwk = {**default, **jwk}
    kid = jwk.get("kid")
    name = f"the JWK {kid!r}" if isinstance(kid, str) else "a JWK without a kid"
    if leaking := sorted(PRIVATE_MEMBERS & jwk.keys()):
        raise JwksError(f"{name} holds the private member {', '.join(leaking)}; only public halves are published")
    kty = jwk.get("kty")
    own = PUBLIC_MEMBERS.get(kty) if isinstance(kty, str) else None
    if own is None:
        raise JwksError(f"{name} has kty {kty!r}; known are {', '.join(PUBLIC_MEMBERS)}")
    public = {"use": "sig"} | {member: jwk[member] for member in (*_COMMON_MEMBERS, *own) if member in jwk}
    for member in (*_COMMON_MEMBERS, *own):
        _require(name, member, public.get(member), encoded=member in own and member != "crv")
    if public["use"] != "sig":
        raise JwksError(f"{name} has use {public['use']!r}; a signing key has 'sig'")
    return public


def _require(name: str, member: str, value: object, *, encoded: bool) -> None:
    if not isinstance(value, str) or not value:
        raise JwksError(f"{name} has no text as its member {member}, which it needs")
    if encoded and not _BASE64URL.fullmatch(value):
        raise JwksError(f"{name} has characters outside base64url in its member {member}")


# ------------------------------------------------------------------------------------------------------------ reading


def parse_set(content: bytes) -> tuple[tuple[Kid, str], ...] | None:
    """Read a published set: each key's kid and its canonical JSON, with every member that it has.

    None for what is not a JWK Set that anyone should serve: not JSON, a member name twice, no ``keys``, a kid twice, a
    private member. An empty set is one: a revocation can leave none. A key without a kid, which others may publish and
    verifiers accept, stands under a name that no key of ours can have.
    """
    try:
        document = parse(content.decode())
        keys = document.get("keys") if isinstance(document, dict) else None
        return _entries(keys) if isinstance(keys, list) else None
    except ValueError:
        return None


def without(content: bytes, kids: Container[Kid]) -> bytes | None:
    """Return a published set without ``kids``, each other key as it stands; None where it has none of them."""
    entries = parse_set(content)
    kept = [text for kid, text in entries or () if kid not in kids]
    return None if entries is None or len(kept) == len(entries) else _joined(kept)


def _entries(keys: Sequence[object]) -> tuple[tuple[Kid, str], ...] | None:
    entries: list[tuple[Kid, str]] = []
    for place, key in enumerate(keys):
        if not isinstance(key, dict) or PRIVATE_MEMBERS & key.keys() or not isinstance(key.get("kty"), str):
            return None
        kid = key.get("kid")
        entries.append((Kid(kid if isinstance(kid, str) else f"(key {place + 1}, without kid)"), canonical(key)))
    return tuple(entries) if len({kid for kid, _ in entries}) == len(entries) else None


def parse_kids(content: bytes) -> tuple[Kid, ...] | None:
    """Return the kids of a published set in its order; None where :func:`parse_set` gives None."""
    entries = parse_set(content)
    return None if entries is None else tuple(kid for kid, _ in entries)


# ----------------------------------------------------------------------------------------------- documents beside it


def jwks_uri(base_url: str, keyset: KeysetName) -> str:
    """Return where the set of ``keyset`` is served when ``base_url`` serves the published tree."""
    base = base_url.rstrip("/")
    return f"{base}/.well-known/jwks.json" if keyset == DEFAULT_KEYSET else f"{base}/keysets/{keyset}/jwks.json"


def discovery(issuer: str, jwks_uri: str, algorithms: Iterable[Algorithm]) -> bytes:
    """Return an issuer's discovery document.

    It has the shape of OpenID Connect Discovery 1.0 §3 as far as an issuer without a login has anything to say:
    verifiers look for ``jwks_uri``, and some insist on the other members.
    """
    return _document(
        {
            "issuer": issuer,
            "jwks_uri": jwks_uri,
            "id_token_signing_alg_values_supported": sorted({str(algorithm) for algorithm in algorithms}),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
        }
    )


def meta(
    *,
    generation: int,
    sha256: str,
    published_at: datetime,
    next_change_at: datetime | None,
    max_age: timedelta,
    witness: Mapping[str, object] | None = None,
) -> bytes:
    """Return the document that says how fresh a set is; ``max_age`` is how long it may be cached.

    ``witness``: what only the issuer has a use for, should its state be lost or put back.
    """
    document = {
        "generation": generation,
        "sha256": sha256,
        "published_at": _rfc3339(published_at),
        "next_change_at": None if next_change_at is None else _rfc3339(next_change_at),
        "max_age": int(max_age.total_seconds()),
    }
    return _document(document if witness is None else {**document, "witness": witness})


def attested(members: Mapping[str, object], witness: Mapping[str, object]) -> bytes:
    """Return a meta document that was read before, with another witness part."""
    return _document({**members, "witness": witness})


def meta_members(content: bytes) -> Mapping[str, object] | None:
    """Read a meta document; None for what is none, or could be read in two ways."""
    try:
        document = parse(content.decode())
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def meta_witness(content: bytes | None) -> Mapping[str, object] | None:
    """Return the witness part of a meta document, whoever wrote it; None where there is none."""
    document = None if content is None else meta_members(content)
    part = None if document is None else document.get("witness")
    return part if isinstance(part, dict) else None


def meta_without(content: bytes, *, sha256: str, published_at: datetime) -> bytes | None:
    """Return a meta document for the set that was left when keys were taken out of the one that it describes.

    It has no ``generation``: nobody numbered what is left. None for what is no meta document.
    """
    document = meta_members(content)
    if document is None:
        return None
    kept = {name: value for name, value in document.items() if name != "generation"}
    return _document({**kept, "sha256": sha256, "published_at": _rfc3339(published_at)})


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _document(members: Mapping[str, object]) -> bytes:
    return (json.dumps(members, ensure_ascii=False, indent=2) + "\n").encode()
