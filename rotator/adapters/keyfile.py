"""Reads keys that others made: a JWK, a JWK Set or PEM, as hostile input; and writes public keys as PEM.

Whatever is wrong is said in one sentence that begins with where it stands, and never repeats what may be secret. A key
is taken apart by one library and put together again by its own numbers, so that nothing else of a file is kept.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, assert_never

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
    load_pem_public_key,
)
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from rotator.adapters.keymaker import thumbprint
from rotator.core.jwks import canonical
from rotator.core.model import Algorithm, Kid
from rotator.core.secret import Secret
from rotator.core.strict_json import parse
from rotator.core.weak_keys import jwk_weakness
from rotator.errors import RefusedError
from rotator.ports import FoundKey

LARGEST_BYTES: Final = 48 * 1024
"""Of a file: more than any set that verifiers take, and what fits through the control socket."""

RSA_LEAST_BITS: Final = 2048  # RFC 7518 §3.3
RSA_MOST_BITS: Final = 8192

KID: Final = re.compile(r"(?!--)[A-Za-z0-9._~:@+/=,#%|-]{1,200}")
"""Kids reach logs, pages, terminals and command lines: no spaces, which our own placeholders have, no quotes, brackets
or backslashes, and nothing that reads as a long option. A thumbprint may begin with a hyphen."""

_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")
_BLOCK: Final = re.compile(
    r"^-----BEGIN ([A-Z0-9 ]{1,60})-----\s*$(.*?)^-----END \1-----\s*$", re.DOTALL | re.MULTILINE
)
_MEMBERS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "EC": (("crv", "x", "y"), ("d",)),
    "OKP": (("crv", "x"), ("d",)),
    "RSA": (("n", "e"), ("d", "p", "q", "dp", "dq", "qi")),
}
"""What makes up the public and the private half, by ``kty`` (RFC 7518 §6, RFC 8037 §2)."""

_BY_TYPE: Final[Mapping[tuple[str, str], Algorithm]] = {
    ("EC", "P-256"): Algorithm.ES256,
    ("OKP", "Ed25519"): Algorithm.EDDSA,
    ("RSA", ""): Algorithm.RS256,
}
"""By ``kty`` and ``crv``."""

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
_NO_KEY: Final = (ValueError, TypeError, KeyError, OverflowError, JoseError, UnsupportedAlgorithm, InternalError)
"""What the libraries raise for numbers that make no key."""


@dataclass(frozen=True, slots=True)
class FoundKeys:
    """What a file holds."""

    keys: tuple[FoundKey, ...]
    notes: tuple[str, ...] = ()
    """What a person should know, a sentence each."""


def read_jwk(text: Secret[str], origin: str, kid: str | None = None) -> FoundKeys:
    """Read a JWK or a JWK Set; ``origin`` names it in messages, ``kid`` is for a single key that has none.

    Raises :class:`RefusedError`.
    """
    document = _document(text, origin)
    if "keys" not in document:
        notes: list[str] = []
        return FoundKeys((_from_jwk(document, origin, kid, notes),), tuple(notes))
    entries = document["keys"]
    if not isinstance(entries, list) or not entries:
        raise RefusedError(f"{origin}: `keys` holds no key; a JWK Set has a list of them (RFC 7517 §5)")
    return _from_set(entries, origin, kid)


def _document(text: Secret[str], origin: str) -> dict[str, Any]:
    try:
        document = parse(text.reveal().removeprefix("\ufeff"))  # some editors begin a file with a mark (RFC 8259 §8.1)
    except ValueError as error:
        raise RefusedError(f"{origin}: {error}; a JWK is a JSON object, and for PEM say --pem") from None
    if not isinstance(document, dict):
        raise RefusedError(f"{origin}: a JWK is a JSON object, and this is none")
    return document


def _from_set(entries: list[object], origin: str, kid: str | None) -> FoundKeys:
    if kid is not None and len(entries) > 1:
        raise RefusedError(f"{origin}: --kid names one key, and there are {len(entries)}; each has to have its own kid")
    keys: list[FoundKey] = []
    notes: list[str] = []
    for number, entry in enumerate(entries, start=1):
        place = f"{origin}: key {number}"
        if not isinstance(entry, dict):
            raise RefusedError(f"{place} is no JSON object")
        if entry.get("use") == "enc":
            notes.append(f"{place} is for encryption, and is left out")
            continue
        keys.append(_from_jwk(entry, place, kid, notes))
    if not keys:
        raise RefusedError(f"{origin}: no key in it is for signatures")
    kids = [key.kid for key in keys]
    for each in kids:
        if kids.count(each) > 1:
            raise RefusedError(f"{origin}: the kid {each} is there {kids.count(each)} times; a set names each key once")
    if len(keys) > 1 and any(key.private is not None for key in keys):
        raise RefusedError(f"{origin}: it holds private keys beside others; import each private key by itself")
    return FoundKeys(tuple(keys), tuple(notes))


# ---------------------------------------------------------------------------------------------------------- one JWK


def _from_jwk(jwk: dict[str, Any], place: str, kid: str | None, notes: list[str]) -> FoundKey:
    algorithm = _algorithm(jwk, place)
    _refuse_other_use(jwk, place)
    public, private = _MEMBERS[jwk["kty"]]
    numbers = {name: _number(jwk, name, place) for name in public if name != "crv"}
    if "d" in jwk:
        if "oth" in jwk:
            raise RefusedError(f"{place}: an RSA key of more than two primes is not supported")
        numbers |= {name: _number(jwk, name, place) for name in private}
    elif leaking := sorted(jwk.keys() & {*private, "oth", "k"}):
        raise RefusedError(f"{place}: it has the private member {', '.join(leaking)} without d: it is damaged")
    if jwk["kty"] == "RSA":
        _check_rsa(numbers, place)
    fields = {"kty": jwk["kty"], **({"crv": jwk["crv"]} if "crv" in public else {}), **numbers}
    try:
        loaded = _load(fields)
        found = _members(loaded)
    except _NO_KEY:
        raise RefusedError(f"{place}: its numbers make no {jwk['kty']} key: it is damaged") from None
    if any(_decoded(found[name]) != _decoded(numbers[name]) for name in public if name != "crv"):
        raise RefusedError(f"{place}: its private and its public half do not belong together")
    if "alg" not in jwk and algorithm is Algorithm.RS256:
        notes.append(f"{place} does not say its alg; taken as RS256, as what RSA signs by default")
    return _found(loaded, algorithm, _kid(jwk.get("kid"), kid, place), place, notes)


def _algorithm(jwk: dict[str, Any], place: str) -> Algorithm:
    """Return the one algorithm of a JWK, by its ``alg``, else by its type."""
    kty, crv, named = jwk.get("kty"), jwk.get("crv", ""), jwk.get("alg")
    if kty == "oct" or "k" in jwk:
        raise RefusedError(
            f"{place}: a symmetric key: whoever can verify with it can also sign. Only key pairs are taken"
        )
    if not isinstance(kty, str) or kty not in _MEMBERS:
        raise RefusedError(f"{place}: {_shown(kty)} is no kty of a key that is known here; known are EC, OKP and RSA")
    algorithm = _BY_TYPE.get((kty, crv if isinstance(crv, str) and kty != "RSA" else ""))
    if algorithm is None:
        needed = "P-256" if kty == "EC" else "Ed25519"
        raise RefusedError(f"{place}: a key of the curve {_shown(crv)}; of {kty} only {needed} is known")
    if named is not None and named != algorithm:
        known = ", ".join(Algorithm)
        raise RefusedError(f"{place}: its alg is {_shown(named)}; a key of this type is for {algorithm} here ({known})")
    return algorithm


def _refuse_other_use(jwk: dict[str, Any], place: str) -> None:
    use, operations = jwk.get("use", "sig"), jwk.get("key_ops", ["verify"])
    if use != "sig":
        raise RefusedError(f"{place}: its use is {_shown(use)}; a key for signatures is needed (use: sig)")
    if not isinstance(operations, list) or not {"sign", "verify"} & {
        each for each in operations if isinstance(each, str)
    }:
        raise RefusedError(f"{place}: its key_ops are not for signatures")


def _number(jwk: dict[str, Any], name: str, place: str) -> str:
    value = jwk.get(name)
    if not isinstance(value, str) or not value:
        raise RefusedError(f"{place}: it has no text as its member {name}, which it needs")
    if not _BASE64URL.fullmatch(value) or len(value) % 4 == 1:
        raise RefusedError(f"{place}: its member {name} is not base64url without padding")
    if len(value) > 4 * RSA_MOST_BITS // 24 + 8:
        raise RefusedError(f"{place}: its member {name} is too long for any key that is taken")
    return value


def _check_rsa(numbers: Mapping[str, str], place: str) -> None:
    """Refuse a weak key, and one whose arithmetic would take for ever, before anything is computed with it."""
    _check_bits(_decoded(numbers["n"]).bit_length(), place)
    exponent = _decoded(numbers["e"])
    if exponent < 3 or not exponent % 2 or exponent.bit_length() > 32:
        raise RefusedError(f"{place}: its exponent e is none of an RSA key; 65537 is usual")


def _check_bits(bits: int, place: str) -> None:
    if bits < RSA_LEAST_BITS:
        raise RefusedError(f"{place}: an RSA key of {bits} bits is too weak; at least {RSA_LEAST_BITS} are needed")
    if bits > RSA_MOST_BITS:
        raise RefusedError(f"{place}: an RSA key of {bits} bits is too large; at most {RSA_MOST_BITS} are taken")


def _decoded(value: object) -> int:
    text = str(value)
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def _kid(own: object, given: str | None, place: str) -> str | None:
    if own is None:
        own = given
    elif given is not None and own != given:
        raise RefusedError(f"{place}: its kid is {_shown(own)}, and tokens name it so; leave --kid out")
    if own is not None and not (isinstance(own, str) and KID.fullmatch(own)):
        raise RefusedError(
            f"{place}: a kid is 1 to 200 letters, digits and . _ ~ : @ + / = , # % | - and does not begin with --;"
            f" {_shown(own)} is none"
        )
    return own


def _shown(value: object) -> str:
    """Return what may be anything, fit for a message."""
    return ascii(value if isinstance(value, str) else type(value).__name__)[:60]


# ------------------------------------------------------------------------------------------------------------- PEM

_OTHER_BLOCKS: Final = {
    "ENCRYPTED PRIVATE KEY": "is encrypted; decrypt it on the way: openssl pkey -in FILE | rotator import-key --pem -",
    "CERTIFICATE": "is a certificate; take its key: openssl x509 -in FILE -noout -pubkey | rotator import-key --pem -",
    "OPENSSH PRIVATE KEY": "is in the format of OpenSSH; turn a copy into PEM: ssh-keygen -p -m PKCS8 -f COPY",
}
_PRIVATE_BLOCKS: Final = ("PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY")
_PUBLIC_BLOCKS: Final = ("PUBLIC KEY", "RSA PUBLIC KEY")


def read_pem(text: Secret[str], origin: str, kid: str | None = None) -> FoundKeys:
    """Read one key from PEM (RFC 7468): private in PKCS #8, SEC 1 or PKCS #1, public as SubjectPublicKeyInfo.

    Raises :class:`RefusedError`.
    """
    blocks = list(_blocks(text.reveal(), origin))
    if not blocks:
        raise RefusedError(f"{origin}: no whole PEM block in it (-----BEGIN …-----); for a JWK say --jwk")
    if len(blocks) > 1:
        raise RefusedError(f"{origin}: {len(blocks)} PEM blocks are in it; give one key at a time")
    ((label, place, block),) = blocks
    if "Proc-Type: 4,ENCRYPTED" in block:
        label = "ENCRYPTED PRIVATE KEY"
    if label not in (*_PRIVATE_BLOCKS, *_PUBLIC_BLOCKS):
        what = _OTHER_BLOCKS.get(label, f"is a {label.lower()}, and no key")
        raise RefusedError(f"{place}: it {what}")
    try:
        loaded: object = (
            load_pem_private_key(block.encode(), None)
            if label in _PRIVATE_BLOCKS
            else load_pem_public_key(block.encode())
        )
    except _NO_KEY:
        raise RefusedError(f"{place}: the PEM block is damaged, or of a kind of key that is not known") from None
    notes: list[str] = []
    key = _supported(loaded, place)
    return FoundKeys((_found(key, _algorithm_of(key), _kid(None, kid, place), place, notes),), tuple(notes))


def _blocks(text: str, origin: str) -> Iterator[tuple[str, str, str]]:
    for match in _BLOCK.finditer(text):
        if match[1] != "EC PARAMETERS":  # what `openssl ecparam -genkey` puts before the key
            yield match[1], f"{origin}:{text.count(chr(10), 0, match.start()) + 1}", match[0]


def _supported(loaded: object, place: str) -> PrivateKey | PublicKey:
    match loaded:
        case ec.EllipticCurvePrivateKey() | ec.EllipticCurvePublicKey():
            if not isinstance(loaded.curve, ec.SECP256R1):
                raise RefusedError(f"{place}: a key of the curve {loaded.curve.name}; of EC only P-256 is known")
            return loaded
        case rsa.RSAPrivateKey() | rsa.RSAPublicKey():
            _check_bits(loaded.key_size, place)
            return loaded
        case ed25519.Ed25519PrivateKey() | ed25519.Ed25519PublicKey():
            return loaded
        case _:
            raise RefusedError(f"{place}: a key of a kind that is not known; known are EC P-256, RSA and Ed25519")


def _algorithm_of(key: PrivateKey | PublicKey) -> Algorithm:
    match key:
        case ec.EllipticCurvePrivateKey() | ec.EllipticCurvePublicKey():
            return Algorithm.ES256
        case rsa.RSAPrivateKey() | rsa.RSAPublicKey():
            return Algorithm.RS256
        case ed25519.Ed25519PrivateKey() | ed25519.Ed25519PublicKey():
            return Algorithm.EDDSA
        case _:
            assert_never(key)


# -------------------------------------------------------------------------------------------------- the libraries


def _load(fields: dict[str, Any]) -> PrivateKey | PublicKey:
    match fields["kty"]:
        case "EC":
            key: Any = ECKey.import_key(fields)
        case "OKP":
            key = OKPKey.import_key(fields)
        case _:
            key = RSAKey.import_key(fields)
    loaded: PrivateKey | PublicKey = key.private_key if "d" in fields else key.public_key
    return loaded


def _members(key: PrivateKey | PublicKey) -> Mapping[str, Any]:
    """Return the JWK of the public half."""
    public = key if isinstance(key, PublicKey) else key.public_key()
    match public:
        case ec.EllipticCurvePublicKey():
            return ECKey.import_key(public).as_dict()
        case rsa.RSAPublicKey():
            return RSAKey.import_key(public).as_dict()
        case ed25519.Ed25519PublicKey():
            return OKPKey.import_key(public).as_dict()
        case _:
            assert_never(public)


def _found(
    key: PrivateKey | PublicKey, algorithm: Algorithm, kid: str | None, place: str, notes: list[str]
) -> FoundKey:
    members = _members(key)
    if problem := jwk_weakness(members):
        raise RefusedError(f"{place}: the key is not safe: {problem}")
    if kid is None:
        kid = thumbprint(members)
        notes.append(f"{place} has no kid; named by its thumbprint {kid}: tokens that name another are not found by it")
    private = None
    if not isinstance(key, PublicKey):
        private = Secret(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    public_jwk = canonical({**members, "kid": kid, "use": "sig", "alg": algorithm})
    return FoundKey(Kid(kid), algorithm, public_jwk, private)


# ---------------------------------------------------------------------------------------------------------- writing


def to_jwk(keys: Iterable[FoundKey]) -> Secret[str]:
    """Return keys as a JWK Set that :func:`read_jwk` takes for the same keys; private ones with their private half."""
    return Secret(canonical({"keys": [_jwk(key) for key in keys]}))


def _jwk(found: FoundKey) -> Mapping[str, Any]:
    public = json.loads(found.public_jwk)
    if found.private is None:
        return {**public}
    loaded: Any = load_der_private_key(found.private.reveal(), None)
    kind: Any = {"EC": ECKey, "OKP": OKPKey, "RSA": RSAKey}[public["kty"]]
    return {**kind.import_key(loaded).as_dict(private=True), **public}


def to_pem(jwks: str) -> str:
    """Return the public keys of a published set as PEM, each after its kid and alg as text (RFC 7468 §2)."""
    found = read_jwk(Secret(jwks), "the published set")
    return "\n".join(_pem(key) for key in found.keys)


def _pem(found: FoundKey) -> str:
    key = _load(json.loads(found.public_jwk))
    if not isinstance(key, PublicKey):
        _unreachable()
    block = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return f"kid: {found.kid}\nalg: {found.algorithm}\n{block}"


def _unreachable() -> NoReturn:
    raise AssertionError("a published set holds public keys")
