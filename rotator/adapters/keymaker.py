"""Makes signing keys."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Final, assert_never

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import ECKey, OKPKey, RSAKey

from rotator.core.jwks import canonical
from rotator.core.model import Algorithm, Kid
from rotator.core.secret import Secret
from rotator.ports import KeyMaterial

RSA_BITS: Final = 2048
RSA_EXPONENT: Final = 65537

_REQUIRED_MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "EC": ("crv", "kty", "x", "y"),  # RFC 7638 §3.2
    "RSA": ("e", "kty", "n"),  # RFC 7638 §3.2
    "OKP": ("crv", "kty", "x"),  # RFC 8037 §2
    "AKP": ("alg", "kty", "pub"),  # RFC 9964 §6
}

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def thumbprint(jwk: Mapping[str, object]) -> Kid:
    """Return the SHA-256 thumbprint of a JWK (RFC 7638); raise ``KeyError`` if it lacks what its ``kty`` requires."""
    required = {member: jwk[member] for member in _REQUIRED_MEMBERS[str(jwk["kty"])]}
    return Kid(_base64url(hashlib.sha256(canonical(required).encode()).digest()))


class CryptographyKeyMaker:
    """A :class:`~rotator.ports.KeyMaker`: the randomness and the arithmetic are OpenSSL's."""

    def make(self, algorithm: Algorithm) -> KeyMaterial:
        """Make a key pair for ``algorithm``; its kid is the RFC 7638 thumbprint.

        A thumbprint that begins with ``-`` would be read as an option where a person gives it to a command, in haste at
        that: such a pair, one of 64, is thrown away and another one made.
        """
        while True:
            private = _generate(algorithm)
            public = _public_members(private)
            kid = thumbprint(public)
            if not kid.startswith("-"):
                break
        return KeyMaterial(
            kid=kid,
            algorithm=algorithm,
            public_jwk=canonical({**public, "kid": kid, "use": "sig", "alg": algorithm}),
            private=Secret(private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())),
        )


def _generate(algorithm: Algorithm) -> PrivateKey:
    match algorithm:
        case Algorithm.ES256:
            return ec.generate_private_key(ec.SECP256R1())
        case Algorithm.RS256:
            return rsa.generate_private_key(RSA_EXPONENT, RSA_BITS)
        case Algorithm.EDDSA:
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            assert_never(algorithm)


def _public_members(private: PrivateKey) -> Mapping[str, object]:
    """Return the JWK of the public half; only that half is ever handed to the library."""
    match private:
        case ec.EllipticCurvePrivateKey():
            return ECKey.import_key(private.public_key()).as_dict()
        case rsa.RSAPrivateKey():
            return RSAKey.import_key(private.public_key()).as_dict()
        case ed25519.Ed25519PrivateKey():
            return OKPKey.import_key(private.public_key()).as_dict()
        case _:
            assert_never(private)


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
