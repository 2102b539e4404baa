"""Finds public keys whose private half others know or can compute, and points that make a verifier accept forgeries.

Pure arithmetic on the numbers of a key, and cheap: what a large effort alone can find is not looked for.
"""

import base64
from collections.abc import Mapping
from functools import lru_cache
from math import gcd, isqrt, prod
from typing import Final

LEAST_RSA_BITS: Final = 2048  # RFC 7518 §3.3

FERMAT_STEPS: Final = 1_000
"""Primes that are so close that a thousand steps of Fermat's method find them (as by CVE-2022-26320)."""

SMALL_PRIMES_BELOW: Final = 1 << 16
"""No key generator leaves a factor that small."""

ROCA_PRIMES_UP_TO: Final = 167
"""CVE-2017-15361 (Nemec et al., CCS 2017): the primes are powers of 65537 modulo the product of these primes."""

_P256: Final = 2**256 - 2**224 + 2**192 + 2**96 - 1
_P256_B: Final = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
"""Of NIST P-256 (FIPS 186-4 D.1.2.3): y² = x³ - 3x + b."""

_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _P) % _P
_Point = tuple[int, int]


def jwk_weakness(jwk: Mapping[str, str]) -> str:
    """Return why a public JWK with all of its members is unsafe: "its modulus is even"; empty when nothing is found."""
    match jwk["kty"]:
        case "RSA":
            modulus, exponent = (int.from_bytes(_bytes(jwk[member])) for member in ("n", "e"))
            if modulus.bit_length() < LEAST_RSA_BITS:
                return f"it has {modulus.bit_length()} bits, and {LEAST_RSA_BITS} are the least that is safe"
            if exponent < 3 or exponent % 2 == 0:
                return "its exponent is none of an RSA key"
            problem = rsa_weakness(modulus)
            return f"its modulus {problem}" if problem else ""
        case "OKP":
            problem = ed25519_weakness(_bytes(jwk["x"]))
        case "EC":
            problem = p256_weakness(_bytes(jwk["x"]), _bytes(jwk["y"]))
        case _:
            return ""
    return f"its point {problem}" if problem else ""


def _bytes(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""


def p256_weakness(x_encoded: bytes, y_encoded: bytes) -> str:
    """Return why a point of P-256 is none, as the end of "its point …"; empty when it is one (SEC 1 §2.3.4)."""
    x, y = int.from_bytes(x_encoded), int.from_bytes(y_encoded)
    if len(x_encoded) != 32 or len(y_encoded) != 32 or x >= _P256 or y >= _P256:
        return "is not in its canonical form"
    if (y * y - (x * x * x - 3 * x + _P256_B)) % _P256:
        return "is not on the curve"
    return ""


def rsa_weakness(modulus: int) -> str:
    """Return why an RSA key is unsafe, as the end of "its modulus …"; empty when nothing is found."""
    if modulus % 2 == 0:
        return "is even"
    if gcd(modulus, _small_primes_product()) != 1:
        return f"has a prime factor below {SMALL_PRIMES_BELOW}"
    if _is_roca(modulus):
        return "has the fingerprint of CVE-2017-15361 (ROCA), whose private keys can be computed"
    root = isqrt(modulus)
    if root * root == modulus:
        return "is a square"
    if _has_close_primes(modulus, root):
        return "is of two primes so close to each other that they are found at once (CVE-2022-26320)"
    return ""


def ed25519_weakness(encoded: bytes) -> str:
    """Return why an Ed25519 point is unsafe, as the end of "its point …"; empty when it is not (RFC 8032 §5.1)."""
    number = int.from_bytes(encoded, "little")
    y, sign = number & ((1 << 255) - 1), number >> 255
    if len(encoded) != 32 or y >= _P:
        return "is not in its canonical form"
    x = _recovered(y, sign)
    if x is None:
        return "is not on the curve"
    if x == 0 and sign:
        return "is not in its canonical form"
    point = (x, y)
    for _ in range(3):
        point = _added(point, point)
    if point == (0, 1):
        return "is of small order: anybody can make signatures that verify with it"
    return ""


# ------------------------------------------------------------------------------------------------------------- RSA


def _primes(below: int) -> list[int]:
    sieve = bytearray([1]) * below
    sieve[:2] = b"\0\0"
    for number in range(2, isqrt(below - 1) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, below, number)))
    return [number for number in range(below) if sieve[number]]


@lru_cache(maxsize=1)
def _small_primes_product() -> int:
    return prod(_primes(SMALL_PRIMES_BELOW)[1:])


@lru_cache(maxsize=1)
def _roca_residues() -> tuple[tuple[int, frozenset[int]], ...]:
    found = []
    for prime in _primes(ROCA_PRIMES_UP_TO + 1)[1:]:
        residues, power = set(), 1
        while power not in residues:
            residues.add(power)
            power = power * 65537 % prime
        found.append((prime, frozenset(residues)))
    return tuple(found)


def _is_roca(modulus: int) -> bool:
    return all(modulus % prime in residues for prime, residues in _roca_residues())


def _has_close_primes(modulus: int, root: int) -> bool:
    for candidate in range(root + 1, root + 1 + FERMAT_STEPS):
        rest = candidate * candidate - modulus
        if isqrt(rest) ** 2 == rest:
            return True
    return False


# --------------------------------------------------------------------------------------------------------- Ed25519


def _recovered(y: int, sign: int) -> int | None:
    """Return x of a point by its y and the sign of x; None where no point has it (RFC 8032 §5.1.3)."""
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    root = pow(square, (_P + 3) // 8, _P)
    if root * root % _P != square:
        root = root * pow(2, (_P - 1) // 4, _P) % _P
    if root * root % _P != square:
        return None
    return root if root % 2 == sign else -root % _P


def _added(first: _Point, second: _Point) -> _Point:
    """Add two points of the twisted Edwards curve -x² + y² = 1 + d x² y²."""
    (x1, y1), (x2, y2) = first, second
    both = _D * x1 * x2 * y1 * y2 % _P
    x = (x1 * y2 + x2 * y1) * pow(1 + both, -1, _P) % _P
    y = (y1 * y2 + x1 * x2) * pow(1 - both, -1, _P) % _P
    return x, y
