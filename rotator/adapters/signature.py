"""Verifies one signature with one public key that we hold; the algorithm is the key's, never the token's to say."""

import json
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import JWKRegistry

from rotator.core.model import Algorithm
from rotator.core.secret import Secret
from rotator.errors import SealError


class _OnlyOf(jws.JWSRegistry):
    """Takes one algorithm. EdDSA is deprecated by name only (RFC 9864), and verifiers lag: no warning for each use."""

    def get_alg(self, name: str) -> Any:  # the library does not export the type
        if name not in (self.allowed or ()):
            raise UnsupportedAlgorithmError(f"the token says alg {name!r}, its key {self.allowed}")
        return self.algorithms[name]


def verify_signature(token: Secret[str], jwk: str) -> None:
    """Verify ``token`` (a JWS in compact form) with the public ``jwk``; raise :class:`SealError` if it fails.

    The algorithm is the one that the key is for (RFC 8725 §3.1).
    """
    try:
        key = JWKRegistry.import_key(json.loads(jwk))
        algorithm = Algorithm(key.alg or "")
        jws.deserialize_compact(token.reveal(), key, registry=_OnlyOf(algorithms=[algorithm]))
    except (JoseError, ValueError) as error:
        raise SealError(f"the signature does not verify: {error}") from None
