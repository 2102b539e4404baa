"""Signs, and puts into the compact serialisation of a JWS (RFC 7515 §7.1)."""

from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_private_key

from rotator.core.model import Algorithm
from rotator.core.secret import Secret
from rotator.errors import SealError

Sign = Callable[[bytes], bytes]
"""Returns the JWS signature of its argument."""

try:
    _ECDSA: Final = ec.ECDSA(SHA256(), deterministic_signing=True)  # RFC 6979: no signature depends on good randomness
except UnsupportedAlgorithm:  # pragma: no cover  # built against an OpenSSL before 3.2
    _ECDSA: Final = ec.ECDSA(SHA256())  # type: ignore[misc]  # the other of two branches


def signing_function(kid: str, algorithm: Algorithm, private: Secret[bytes]) -> Sign:
    """Load a private key (PKCS #8, DER); raise :class:`SealError` if it is not one of ``algorithm``."""
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


def base64url(content: bytes) -> bytes:
    """Encode without padding (RFC 7515 §2)."""
    return urlsafe_b64encode(content).rstrip(b"=")


def compact(header: bytes, payload: bytes, sign: Sign) -> bytes:
    """Return the signed ``payload``; ``header`` is encoded already, with the dot that follows it."""
    content = header + base64url(payload)
    return content + b"." + base64url(sign(content))
