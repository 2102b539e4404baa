"""Makes tokens: JWTs in compact serialisation (RFC 7515 §7.1, RFC 7519), many at a time.

The serialisation is our own, because a batch shares most of its bytes: the header per key, the audience and the grants
per kind of workspace. It gives the same bytes as the library that reads it back. Signing releases the interpreter's
lock, so a few threads share a batch.
"""

import base64
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_private_key
from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import JWKRegistry

from rotator.core.jwks import parse_set
from rotator.core.model import Algorithm, Jti, Kid
from rotator.core.secret import Secret
from rotator.core.tokens import epoch_seconds
from rotator.errors import InvariantError, SealError
from rotator.ports import MintOrder, Signer

PROBE_TYPE: Final = "probe+jwt"
"""``typ`` of a probe: what checks types never takes it for a token (RFC 8725 §3.11)."""

MOST_THREADS: Final = 8
_SMALLEST_CHUNK: Final = 16
_CHUNKS_PER_THREAD: Final = 4
_RANDOM_BYTES: Final = 10

_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

try:
    _ECDSA = ec.ECDSA(SHA256(), deterministic_signing=True)  # RFC 6979: no signature depends on good randomness
except UnsupportedAlgorithm:  # pragma: no cover  # built against an OpenSSL before 3.2
    _ECDSA = ec.ECDSA(SHA256())


@dataclass(frozen=True, slots=True)
class JwtSigner:
    """A loaded private key; what is not its name does not show."""

    kid: Kid
    algorithm: Algorithm
    header: bytes = field(repr=False)
    """The encoded header of every token on this key, with the dot that follows it."""
    sign: Callable[[bytes], bytes] = field(repr=False)
    """Returns the JWS signature of its argument."""


class JwtMaker:
    """A :class:`~rotator.ports.TokenMaker`. ``threads`` sign at once; None: one per processor that is ours."""

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or min(MOST_THREADS, len(os.sched_getaffinity(0)))
        self._pool = ThreadPoolExecutor(self._threads, "sign") if self._threads > 1 else None

    def load(self, kid: Kid, algorithm: Algorithm, private: Secret[bytes]) -> JwtSigner:
        """Load an opened private half (PKCS #8, DER); raise :class:`SealError` if it is not one of ``algorithm``."""
        sign = _signing_function(kid, algorithm, private)
        return JwtSigner(kid, algorithm, _header(algorithm, kid, "JWT"), sign)

    def mint_batch(self, signer: Signer, orders: Sequence[MintOrder]) -> list[Secret[str]]:
        """Sign one JWT per order, in order."""
        loaded = _loaded(signer)
        if self._pool is None or len(orders) <= _SMALLEST_CHUNK:
            return _mint(loaded, orders)
        size = max(_SMALLEST_CHUNK, -(-len(orders) // (self._threads * _CHUNKS_PER_THREAD)))
        chunks = (orders[start : start + size] for start in range(0, len(orders), size))
        return [token for minted in self._pool.map(lambda chunk: _mint(loaded, chunk), chunks) for token in minted]

    def probe(self, signer: Signer, issuer: str, now: datetime) -> Secret[str]:
        """Sign a JWT that expires as it is made and that no audience accepts, to prove the key."""
        loaded = _loaded(signer)
        at = epoch_seconds(now)
        jti = self.new_jtis(now, 1)[0]
        # The audience is drawn afresh: a verifier that allows for skew, or asks for no audience, refuses it too.
        claims = {"iss": issuer, "aud": jti, "iat": at, "nbf": at, "exp": at, "jti": jti}
        content = _header(loaded.algorithm, loaded.kid, PROBE_TYPE) + _base64url(_json(claims).encode())
        return Secret((content + b"." + _base64url(loaded.sign(content))).decode())

    def new_jtis(self, now: datetime, count: int) -> list[Jti]:
        """Draw ``count`` fresh token ids, ascending: 48 bits of milliseconds, then 80 random bits, in 32 hex digits."""
        time = f"{int(now.timestamp() * 1000):012x}"
        drawn = os.urandom(_RANDOM_BYTES * count).hex()
        width = 2 * _RANDOM_BYTES
        return sorted(Jti(time + drawn[start : start + width]) for start in range(0, len(drawn), width))

    def verify_with(self, token: Secret[str], jwks: bytes) -> None:
        """Verify the signature of ``token`` from the bytes of a published set alone.

        Raise :class:`SealError` if it fails. The key is the one that the token names, the algorithm the one that the
        set gives for it (RFC 8725 §3.1).
        """
        try:
            _verify(token.reveal(), jwks)
        except (JoseError, ValueError) as error:
            raise SealError(
                f"a token does not verify from the published set: {error}; its key must not sign until it does"
            ) from None

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


# ------------------------------------------------------------------------------------------------------------ signing


def _loaded(signer: Signer) -> JwtSigner:
    if not isinstance(signer, JwtSigner):
        raise InvariantError(f"the signer {signer!r} was not loaded by this token maker")
    return signer


def _signing_function(kid: Kid, algorithm: Algorithm, private: Secret[bytes]) -> Callable[[bytes], bytes]:
    try:
        key = load_der_private_key(private.reveal(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it is encrypted
        raise SealError(f"the private half of {kid} is not a private key in PKCS #8; it must not be used") from None
    match algorithm, key:
        case Algorithm.ES256, ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()):
            return lambda content: _raw_signature(key.sign(content, _ECDSA))
        case Algorithm.RS256, rsa.RSAPrivateKey() if key.key_size >= 2048:  # RFC 7518 §3.3
            return lambda content: key.sign(content, PKCS1v15(), SHA256())
        case Algorithm.EDDSA, ed25519.Ed25519PrivateKey():
            return key.sign
        case _:
            raise SealError(f"the private half of {kid} is not a key for {algorithm}; it must not be used")


def _raw_signature(signature: bytes) -> bytes:
    """Turn the DER of ECDSA into R and S side by side (RFC 7518 §3.4)."""
    r, s = decode_dss_signature(signature)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _mint(signer: JwtSigner, orders: Sequence[MintOrder]) -> list[Secret[str]]:
    header, sign = signer.header, signer.sign
    tokens: list[Secret[str]] = []
    for order in orders:
        content = header + _base64url(claims_json(order).encode())
        tokens.append(Secret((content + b"." + _base64url(sign(content))).decode()))
    return tokens


def claims_json(order: MintOrder) -> str:
    """Return the claims of a token as compact JSON."""
    workspace = order.workspace
    name = _text(workspace.id)
    return (
        f'{{"iss":{_text(order.issuer)},"sub":{name},"aud":{_audience(workspace.audience)}'
        f',"iat":{order.not_before},"nbf":{order.not_before},"exp":{order.expires}'
        f',"jti":{_text(order.jti)},"workspace":{name}{_grants(workspace.roles, workspace.permissions)}}}'
    )


def _header(algorithm: Algorithm, kid: Kid, kind: str) -> bytes:
    text = json.dumps({"alg": algorithm, "kid": kid, "typ": kind}, separators=(",", ":"))
    return _base64url(text.encode()) + b"."


_text = json.encoder.encode_basestring


@lru_cache(maxsize=4096)
def _audience(audience: tuple[str, ...]) -> str:
    return _json(audience[0] if len(audience) == 1 else audience)


@lru_cache(maxsize=4096)
def _grants(roles: tuple[str, ...], permissions: tuple[str, ...]) -> str:
    return f',"roles":{_json(roles)},"scope":{_json(" ".join(permissions))}'


def _base64url(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


# ---------------------------------------------------------------------------------------------------------- verifying


class _OnlyOf(jws.JWSRegistry):
    """Takes one algorithm. EdDSA is deprecated by name only (RFC 9864), and verifiers lag: no warning for each use."""

    def get_alg(self, name: str) -> Any:  # the library does not export the type
        if name not in (self.allowed or ()):
            raise UnsupportedAlgorithmError(f"the token says alg {name!r}, its key {self.allowed}")
        return self.algorithms[name]


def _verify(token: str, jwks: bytes) -> None:
    keys = parse_set(jwks)
    if keys is None:
        raise ValueError("it is not a JWK Set")
    kid = jws.extract_compact(token.encode()).headers().get("kid")
    found = dict(keys).get(Kid(kid)) if isinstance(kid, str) else None
    if found is None:
        raise ValueError(f"it has no key {kid!r}")
    key = JWKRegistry.import_key(json.loads(found))
    algorithm = Algorithm(key.alg or "")
    jws.deserialize_compact(token, key, registry=_OnlyOf(algorithms=[algorithm]))
