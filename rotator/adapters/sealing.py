"""Seals private keys and tokens under a KEK, and authenticates what is public.

A sealed record is one version byte, a random 96-bit nonce, and the AES-256-GCM ciphertext with its tag. Its associated
data says what the record is and where it belongs, so that it opens in its own row only. What sealing cannot see is a
whole row put back to an earlier state: the witness and the chained audit are there for that.

Random nonces allow 2^32 records per key (NIST SP 800-38D §8.3); the key here is one per KEK and purpose.
"""

import hmac
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rotator.adapters.kek import KekMissingError, KekRing, check_value, require_known
from rotator.core.model import KekId
from rotator.core.secret import Secret
from rotator.errors import KekError, SealError
from rotator.ports import KekRow, Sealed, Sealer

VERSION: Final = b"\x01"
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
_SHORTEST: Final = len(VERSION) + NONCE_BYTES + TAG_BYTES


def associated_data(purpose: str, record_id: str, kid: str, algorithm: str, kek_id: str) -> bytes:
    """Encode what a record is bound to; each part after its length, so that no two tuples give the same bytes."""
    return f"{_before(purpose)}{_part(record_id)}{_after(kid, algorithm, kek_id)}".encode()


def _before(purpose: str) -> str:
    return f"rotator/v1/record {_part(purpose)}"


def _after(kid: str, algorithm: str, kek_id: str) -> str:
    return _part(kid) + _part(algorithm) + _part(kek_id)


def _part(text: str) -> str:
    return f"{len(text)}:{text}"


@dataclass(frozen=True, slots=True)
class AesGcmSealing:
    """A :class:`~rotator.ports.Sealing`: all that sealing of one kind needs, so that another process can do it."""

    kek_id: KekId
    key: Secret[bytes]
    """Derived from the KEK for one purpose: it opens nothing else."""
    before: str
    """The associated data before a record's id, with its length, and after it."""
    after: str
    mac_key: Secret[bytes]
    """Derived for the same purpose: it authenticates nothing else."""

    def seal_many(self, records: Iterable[tuple[str, bytes]]) -> list[Sealed]:
        """Seal the secret of each record (its id and the secret), in order, as :meth:`AesGcmSealer.seal` does.

        The MAC is that of the id, as :meth:`AesGcmSealer.mac` has it.
        """
        encrypt, mac_key = AESGCM(self.key.reveal()).encrypt, self.mac_key.reveal()
        sealed = []
        for record_id, secret in records:
            nonce = os.urandom(NONCE_BYTES)
            bound = f"{self.before}{_part(record_id)}{self.after}".encode()
            mac = hmac.digest(mac_key, record_id.encode(), "sha256")
            sealed.append(Sealed(VERSION + nonce + encrypt(nonce, secret, bound), mac))
        return sealed


class AesGcmSealer:
    """A :class:`~rotator.ports.Sealer` over a ring of KEKs; the first one seals."""

    def __init__(self, ring: KekRing) -> None:
        self._ring = ring
        self._kek_id = ring.first
        self._ciphers: dict[tuple[KekId, str], AESGCM] = {}
        self._mac_keys: dict[tuple[KekId, str], bytes] = {}

    @property
    def kek_id(self) -> KekId:
        """The id of the KEK that seals new records."""
        return self._kek_id

    def seal(self, purpose: str, record_id: str, kid: str, algorithm: str, secret: bytes) -> bytes:
        """Seal ``secret`` under :attr:`kek_id`, bound to the arguments before it."""
        bound = associated_data(purpose, record_id, kid, algorithm, self._kek_id)
        nonce = os.urandom(NONCE_BYTES)
        return VERSION + nonce + self._cipher(self._kek_id, purpose).encrypt(nonce, secret, bound)

    def sealing(self, purpose: str, kid: str, algorithm: str) -> AesGcmSealing:
        """Return what seals many records that differ in their ids alone, as :meth:`seal` does."""
        key = Secret(self._ring.derive(self._kek_id, "seal", purpose))
        mac_key = Secret(self._mac_key(self._kek_id, purpose))
        return AesGcmSealing(self._kek_id, key, _before(purpose), _after(kid, algorithm, self._kek_id), mac_key)

    def open(
        self, purpose: str, record_id: str, kid: str, algorithm: str, kek_id: KekId, sealed: bytes
    ) -> Secret[bytes]:
        """Open what :meth:`seal` made with the same arguments under the KEK ``kek_id``."""
        record = f"the sealed {purpose} {record_id!r}"
        if sealed[:1] != VERSION or len(sealed) < _SHORTEST:
            raise SealError(f"{record} is not in a format that this version reads; it is damaged or from a later one")
        bound = associated_data(purpose, record_id, kid, algorithm, kek_id)
        nonce, ciphertext = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        try:
            return Secret(self._cipher(kek_id, purpose).decrypt(nonce, ciphertext, bound))
        except InvalidTag:
            raise SealError(
                f"{record} does not open under KEK {kek_id}: it was changed, moved from another row, or sealed with "
                f"another key of that id; it must not be used"
            ) from None
        except KekError as error:
            raise SealError(f"{record} does not open: {error}") from None

    def mac(self, purpose: str, content: bytes, kek_id: KekId | None = None) -> bytes:
        """Authenticate ``content`` (HMAC-SHA256) under the KEK ``kek_id``, by default :attr:`kek_id`."""
        try:
            return hmac.digest(self._mac_key(kek_id or self._kek_id, purpose), content, "sha256")
        except KekError as error:
            raise SealError(f"a {purpose} cannot be authenticated: {error}") from None

    def verify_mac(self, purpose: str, content: bytes, mac: bytes, kek_id: KekId) -> bool:
        """Tell whether ``mac`` is that of ``content``; under a KEK that is not here, nothing is."""
        if kek_id not in self._ring.keys:
            return False
        return hmac.compare_digest(self.mac(purpose, content, kek_id), mac)

    def _cipher(self, kek_id: KekId, purpose: str) -> AESGCM:
        cipher = self._ciphers.get((kek_id, purpose))
        if cipher is None:
            cipher = AESGCM(self._ring.derive(kek_id, "seal", purpose))
            self._ciphers[kek_id, purpose] = cipher
        return cipher

    def _mac_key(self, kek_id: KekId, purpose: str) -> bytes:
        key = self._mac_keys.get((kek_id, purpose))
        if key is None:
            key = self._ring.derive(kek_id, "mac", purpose)
            self._mac_keys[kek_id, purpose] = key
        return key


class SourcedKeyring:
    """A :class:`~rotator.ports.Keyring` that asks ``source`` anew each time, so that a KEK that comes back is found."""

    def __init__(self, source: Callable[[], KekRing]) -> None:
        self._source = source
        self._last: tuple[KekRing, AesGcmSealer] | None = None

    def unlock(self, known: Sequence[KekRow]) -> Sealer:
        """Return a sealer if every KEK in ``known`` is there and right; raise :class:`KekError` otherwise."""
        try:
            ring = self._source()
        except KekMissingError as error:
            if known:
                raise
            raise error.at_first() from None
        require_known(ring, known)
        if self._last is None or self._last[0] != ring or self._last[0].first != ring.first:
            self._last = (ring, AesGcmSealer(ring))
        return self._last[1]

    def check_value(self, kek_id: KekId) -> bytes:
        """Return the check to store for a KEK; raise :class:`KekError` if it is not there."""
        return check_value(self._source(), kek_id)
