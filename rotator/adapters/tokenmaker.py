"""Makes tokens: JWTs in compact serialisation (RFC 7515 §7.1, RFC 7519), many at a time.

The serialisation is our own, because a batch shares most of its bytes: the header per key, the audience and the grants
per kind of workspace. It gives the same bytes as the library that reads it back. Where a signature takes long, a few
threads share a batch, as signing releases the interpreter's lock; where it does not, waiting for that lock costs more
than it gains, and a large batch goes to a process of its own.
"""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Final

from joserfc import jws
from joserfc.errors import JoseError

from rotator.adapters.minting import Batch, MintingProcess
from rotator.adapters.sealing import AesGcmSealing
from rotator.adapters.signature import verify_signature
from rotator.adapters.signing import Sign, base64url, compact, signing_function
from rotator.core.compact import read_compact
from rotator.core.instants import epoch_seconds
from rotator.core.jwks import parse_set
from rotator.core.model import Algorithm, Jti, Kid, Token
from rotator.core.secret import Secret
from rotator.errors import InvariantError, SealError
from rotator.ports import MintOrder, Sealed, Sealing, Signer

PROBE_TYPE: Final = "probe+jwt"
"""``typ`` of a probe: what checks types never takes it for a token (RFC 8725 §3.11)."""

IDENTIFYING: Final = ("jti", "workspace", "sub", "exp")
"""Claims by which a token is known for that of a row."""

MOST_THREADS: Final = 8

WORTH_A_PROCESS: Final = 100
"""Tokens in a batch from which on it goes to the process, if that runs."""

WORTH_STARTING: Final = 500
"""Tokens in a batch from which on the process is started: signing them here takes a fiftieth of a second."""

WORTH_WARMING: Final = 2_000
"""Tokens that may fall due together, from which on the process is started before they do."""

_SMALLEST_CHUNK: Final = 16
_CHUNKS_PER_THREAD: Final = 4
_RANDOM_BYTES: Final = 10

_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class JwtSigner:
    """A loaded private key; what is not its name does not show."""

    kid: Kid
    algorithm: Algorithm
    header: bytes = field(repr=False)
    """The encoded header of every token on this key, with the dot that follows it."""
    sign: Sign = field(repr=False)
    private: Secret[bytes] = field(repr=False, compare=False)


class JwtMaker:
    """A :class:`~rotator.ports.TokenMaker`. ``threads`` sign at once; None: one per processor that is ours."""

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or min(MOST_THREADS, len(os.sched_getaffinity(0)))
        self._pool = ThreadPoolExecutor(self._threads, "sign") if self._threads > 1 else None
        self._process = MintingProcess()

    def load(self, kid: Kid, algorithm: Algorithm, private: Secret[bytes]) -> JwtSigner:
        """Load an opened private half (PKCS #8, DER); raise :class:`SealError` if it is not one of ``algorithm``."""
        sign = signing_function(kid, algorithm, private)
        return JwtSigner(kid, algorithm, _header(algorithm, kid, "JWT"), sign, private)

    def warm_up(self, expected: int) -> None:
        """Start the process ahead if ``expected`` tokens may fall due together, and processors are there to share."""
        if expected >= WORTH_WARMING and self._threads > 1:
            self._process.start()

    def trouble(self) -> str:
        """Return what became of the process, until another one is ready; empty where nothing did."""
        return self._process.trouble()

    def mint_sealed(self, signer: Signer, orders: Sequence[MintOrder], sealing: Sealing) -> list[Sealed]:
        """Sign one JWT per order, in order, and return each one sealed, bound to its order's identity."""
        loaded = _loaded(signer)
        if loaded.algorithm is not Algorithm.RS256 and self._pool is not None and isinstance(sealing, AesGcmSealing):
            sealed = self._mint_in_process(loaded, orders, sealing)
            if sealed is not None:
                return sealed
        tokens = self.mint_batch(loaded, orders)
        return sealing.seal_many(
            (order.identity, token.reveal().encode("ascii")) for order, token in zip(orders, tokens, strict=True)
        )

    def mint_batch(self, signer: Signer, orders: Sequence[MintOrder]) -> list[Secret[str]]:
        """Sign one JWT per order, in order, in this process."""
        loaded = _loaded(signer)
        if self._pool is None or len(orders) <= _SMALLEST_CHUNK or loaded.algorithm is not Algorithm.RS256:
            return _mint(loaded, orders)
        size = max(_SMALLEST_CHUNK, -(-len(orders) // (self._threads * _CHUNKS_PER_THREAD)))
        chunks = (orders[start : start + size] for start in range(0, len(orders), size))
        return [token for minted in self._pool.map(lambda chunk: _mint(loaded, chunk), chunks) for token in minted]

    def _mint_in_process(
        self, signer: JwtSigner, orders: Sequence[MintOrder], sealing: AesGcmSealing
    ) -> list[Sealed] | None:
        """Return None where there is no process for it; one is then being started if the batch is large."""
        if len(orders) < WORTH_A_PROCESS:
            return None
        batch = Batch(
            algorithm=signer.algorithm,
            private=signer.private,
            header=signer.header,
            sealing=sealing,
            identities=[order.identity for order in orders],
            claims=list(map(claims_json, orders)),
        )
        sealed = self._process.mint(batch)
        if sealed is None and len(orders) >= WORTH_STARTING:
            self._process.start()
        return sealed

    def probe(self, signer: Signer, issuer: str, now: datetime) -> Secret[str]:
        """Sign a JWT that expires as it is made and that no audience accepts, to prove the key."""
        loaded = _loaded(signer)
        at = epoch_seconds(now)
        jti = self.new_jtis(now, 1)[0]
        # The audience is drawn afresh: a verifier that allows for skew, or asks for no audience, refuses it too.
        claims = {"iss": issuer, "aud": jti, "iat": at, "nbf": at, "exp": at, "jti": jti}
        header = _header(loaded.algorithm, loaded.kid, PROBE_TYPE)
        return Secret(compact(header, _json(claims).encode(), loaded.sign).decode())

    def new_jtis(self, now: datetime, count: int) -> list[Jti]:
        """Draw ``count`` fresh token ids, ascending: 48 bits of milliseconds, then 80 random bits, in 32 hex digits."""
        time = f"{int(now.timestamp() * 1000):012x}"
        drawn = os.urandom(_RANDOM_BYTES * count).hex()
        width = 2 * _RANDOM_BYTES
        return sorted(Jti(time + drawn[start : start + width]) for start in range(0, len(drawn), width))

    def require_same(self, text: Secret[bytes], token: Token) -> None:
        """Raise :class:`SealError` unless the claims of a token's text are what its row says."""
        try:
            found = read_compact(text.reveal().decode())
        except ValueError:
            found = None
        said = None if found is None else (found.kid, *(found.claims.get(name) for name in IDENTIFYING))
        if said != (token.kid, token.jti, token.workspace, token.workspace, epoch_seconds(token.expires_at)):
            raise SealError(f"the text of token {token.jti} is not what its row says, and is handed to nobody")

    def verify_with(self, token: Secret[str], jwks: bytes) -> None:
        """Verify the signature of ``token`` from the bytes of a published set alone.

        Raise :class:`SealError` if it fails. The key is the one that the token names, the algorithm the one that the
        set gives for it (RFC 8725 §3.1).
        """
        try:
            _verify(token, jwks)
        except (JoseError, ValueError, SealError) as error:
            raise SealError(
                f"a token does not verify from the published set: {error}; its key must not sign until it does"
            ) from None

    def close(self) -> None:
        """End the threads and the process."""
        self._process.close()
        if self._pool is not None:
            self._pool.shutdown()


# ------------------------------------------------------------------------------------------------------------ signing


def _loaded(signer: Signer) -> JwtSigner:
    if not isinstance(signer, JwtSigner):
        raise InvariantError(f"the signer {signer!r} was not loaded by this token maker")
    return signer


def _mint(signer: JwtSigner, orders: Sequence[MintOrder]) -> list[Secret[str]]:
    header, sign = signer.header, signer.sign
    return [Secret(compact(header, claims_json(order).encode(), sign).decode()) for order in orders]


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
    return base64url(text.encode()) + b"."


_text = json.encoder.encode_basestring


@lru_cache(maxsize=4096)
def _audience(audience: tuple[str, ...]) -> str:
    return _json(audience[0] if len(audience) == 1 else audience)


@lru_cache(maxsize=4096)
def _grants(roles: tuple[str, ...], permissions: tuple[str, ...]) -> str:
    return f',"roles":{_json(roles)},"scope":{_json(" ".join(permissions))}'


# ---------------------------------------------------------------------------------------------------------- verifying


def _verify(token: Secret[str], jwks: bytes) -> None:
    keys = parse_set(jwks)
    if keys is None:
        raise ValueError("it is not a JWK Set")
    kid = jws.extract_compact(token.reveal().encode()).headers().get("kid")
    found = dict(keys).get(Kid(kid)) if isinstance(kid, str) else None
    if found is None:
        raise ValueError(f"it has no key {kid!r}")
    verify_signature(token, found)
