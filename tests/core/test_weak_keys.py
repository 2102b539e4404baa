"""Weak and malformed public keys, made here from what the papers say of them; and sound ones, which pass."""

import base64
import random
from collections.abc import Callable, Iterator
from math import prod

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from rotator.core import weak_keys
from rotator.core.weak_keys import ed25519_weakness, jwk_weakness, p256_weakness, rsa_weakness

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
"""The order of Ed25519's base point (RFC 8032 §5.1)."""
DRAW = random.Random(20170816)


def is_prime(number: int) -> bool:
    """Tell it by Miller and Rabin, with eight bases."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(8):
        power = pow(DRAW.randrange(2, number - 1), odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


def next_prime(number: int) -> int:
    number |= 1
    while not is_prime(number):
        number += 2
    return number


def odd_number(bits: int) -> int:
    return DRAW.getrandbits(bits) | 1 << (bits - 1) | 1


def sound_modulus(bits: int = 2048) -> int:
    return rsa.generate_private_key(65537, bits).public_key().public_numbers().n


def some_prime(bits: int = 1024) -> int:
    return next_prime(DRAW.getrandbits(bits) | 3 << (bits - 2))


def roca_prime() -> int:
    """Make a prime as the broken library did: k * M + (65537 ** a mod M), with M the product of small primes."""
    product = prod(number for number in range(2, 168) if all(number % each for each in range(2, number)))
    while True:
        candidate = (DRAW.getrandbits(1024) // product) * product + pow(65537, DRAW.getrandbits(60), product)
        if candidate.bit_length() == 1024 and is_prime(candidate):
            return candidate


MODULI: dict[str, tuple[Callable[[], int], str]] = {
    "even": (lambda: 2 * odd_number(2047), "is even"),
    "a small factor": (lambda: 65521 * odd_number(2040), "has a prime factor below 65536"),
    "a factor of three": (lambda: 3 * odd_number(2047), "has a prime factor below 65536"),
    "a square": (lambda: some_prime() ** 2, "is a square"),
    "a prime and the next one": (lambda: (prime := some_prime()) * next_prime(prime + 2), "close to each other"),
    "close primes": (lambda: (prime := some_prime()) * next_prime(prime + (1 << 516)), "close to each other"),
    "ROCA": (lambda: roca_prime() * roca_prime(), "CVE-2017-15361"),
    "sound": (sound_modulus, ""),
}


@pytest.mark.parametrize("case", MODULI)
def test_a_modulus_whose_factors_others_can_find_is_named(case: str) -> None:
    made, said = MODULI[case]
    found = rsa_weakness(made())
    assert said in found
    assert bool(said) is bool(found)


def small_order_points() -> set[bytes]:
    """Return the encodings of all eight points of small order: any point, times the order of the base point."""
    found: set[bytes] = set()
    while len(found) < 8:
        y = DRAW.randrange(P)
        x = weak_keys._recovered(y, 0)
        if x is None:
            continue
        point, step, factor = (0, 1), (x, y), L
        while factor:
            point = weak_keys._added(point, step) if factor & 1 else point
            step, factor = weak_keys._added(step, step), factor >> 1
        found.add((point[1] | (point[0] & 1) << 255).to_bytes(32, "little"))
    return found


def bad_points() -> Iterator[tuple[bytes, str]]:
    for encoded in sorted(small_order_points()):
        yield encoded, "is of small order"
    for number in (P, P + 1, 2**255 - 1, P | 1 << 255):
        yield number.to_bytes(32, "little"), "is not in its canonical form"
    yield (1 | 1 << 255).to_bytes(32, "little"), "is not in its canonical form"  # x is zero, and has a sign
    yield (P - 1 | 1 << 255).to_bytes(32, "little"), "is not in its canonical form"
    yield bytes(31), "is not in its canonical form"
    yield bytes(33), "is not in its canonical form"
    yield (2).to_bytes(32, "little"), "is not on the curve"


@pytest.mark.parametrize(
    ("encoded", "said"), list(bad_points()), ids=lambda value: value.hex() if isinstance(value, bytes) else ""
)
def test_a_point_that_lets_others_sign_or_has_two_names_is_named(encoded: bytes, said: str) -> None:
    assert said in ed25519_weakness(encoded)


def test_points_off_the_curve_or_too_long_are_named() -> None:
    numbers = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    x, y = numbers.x.to_bytes(32), numbers.y.to_bytes(32)
    assert p256_weakness(x, y) == ""
    assert "not on the curve" in p256_weakness(y, x)
    assert "not on the curve" in p256_weakness(bytes(32), bytes(32))
    assert "canonical" in p256_weakness(b"\0" + x, y)
    assert "canonical" in p256_weakness(x, (2**256 - 1).to_bytes(32))


def encoded(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(-(-number.bit_length() // 8))).decode().rstrip("=")


def test_keys_of_good_libraries_are_sound() -> None:
    for _ in range(100):
        raw = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
        point = base64.urlsafe_b64encode(raw).decode().rstrip("=")
        assert jwk_weakness({"kty": "OKP", "crv": "Ed25519", "x": point}) == ""
    modulus = 0
    for _ in range(5):
        modulus = sound_modulus()
        assert jwk_weakness({"kty": "RSA", "n": encoded(modulus), "e": "AQAB"}) == ""
    assert "1024 bits" in jwk_weakness({"kty": "RSA", "n": encoded(sound_modulus(1024)), "e": "AQAB"})
    assert "exponent" in jwk_weakness({"kty": "RSA", "n": encoded(modulus), "e": "AQ"})
    assert "its modulus is even" in jwk_weakness({"kty": "RSA", "n": encoded(2 * odd_number(2047)), "e": "AQAB"})
    assert jwk_weakness({"kty": "AKP", "pub": "AA"}) == ""
    assert "canonical" in jwk_weakness({"kty": "EC", "x": "A", "y": "AA"})
