"""What seals, makes keys and signs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from rotator.core.model import Algorithm, Jti, KekId, Kid, Token
from rotator.core.policy import WorkspacePolicy
from rotator.core.secret import Secret


@dataclass(frozen=True, slots=True)
class KekRow:
    """A KEK that this installation has used."""

    kek_id: KekId
    check: bytes
    """A MAC that only the right KEK reproduces."""
    created_at: datetime
    """When it was registered."""


class Sealed(NamedTuple):
    """A sealed record, and the MAC of what it is bound to."""

    record: bytes
    mac: bytes


class Sealing(Protocol):
    """Seals records of one kind and authenticates their rows; its ``repr`` shows nothing of the keys."""

    @property
    def kek_id(self) -> KekId:
        """The id of the KEK that it seals with."""
        ...

    def seal_many(self, records: Iterable[tuple[str, bytes]]) -> list[Sealed]:
        """Seal the secret of each record (what it is bound to, and the secret), in order."""
        ...


class Sealer(Protocol):
    """Seals records under the KEK, each bound to its row, and authenticates what is public.

    Every method raises :class:`~rotator.errors.SealError` for a record that does not open or authenticate.
    """

    @property
    def kek_id(self) -> KekId:
        """The id of the KEK that seals new records."""
        ...

    def seal(self, purpose: str, record_id: str, kid: str, algorithm: str, secret: bytes) -> bytes:
        """Seal ``secret`` under :attr:`kek_id`; the arguments before it are bound to it."""
        ...

    def sealing(self, purpose: str, kid: str, algorithm: str) -> Sealing:
        """Return what seals many records that differ in their ids alone, as :meth:`seal` and :meth:`mac` do."""
        ...

    def open(
        self, purpose: str, record_id: str, kid: str, algorithm: str, kek_id: KekId, sealed: bytes
    ) -> Secret[bytes]:
        """Open what :meth:`seal` made with the same arguments under the KEK ``kek_id``."""
        ...

    def mac(self, purpose: str, content: bytes, kek_id: KekId | None = None) -> bytes:
        """Authenticate ``content`` under the KEK ``kek_id`` (default: :attr:`kek_id`)."""
        ...

    def verify_mac(self, purpose: str, content: bytes, mac: bytes, kek_id: KekId) -> bool:
        """Tell whether ``mac`` is that of ``content``, in constant time."""
        ...


class Keyring(Protocol):
    """The key-encryption keys of this machine, read anew each time: they may be gone, or be others, the next time."""

    def unlock(self, known: Sequence[KekRow]) -> Sealer:
        """Return a sealer if every KEK in ``known`` is there and right; raise :class:`KekError` otherwise."""
        ...

    def check_value(self, kek_id: KekId) -> bytes:
        """Return the check to store for a KEK; raise :class:`KekError` if it is not there."""
        ...


@dataclass(frozen=True, slots=True)
class KeyMaterial:
    """A new key pair."""

    kid: Kid
    algorithm: Algorithm
    public_jwk: str
    """Canonical JSON of the public JWK with ``kid``, ``use`` and ``alg``."""
    private: Secret[bytes]
    """PKCS #8, DER."""


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A key that was made elsewhere: sound, and of an algorithm that is known."""

    kid: Kid
    algorithm: Algorithm
    public_jwk: str
    """As it is published: canonical JSON with ``kid``, ``use`` and ``alg``."""
    private: Secret[bytes] | None
    """PKCS #8, DER; None: it is a public key."""


class KeyMaker(Protocol):
    """Makes key pairs."""

    def make(self, algorithm: Algorithm) -> KeyMaterial:
        """Make one. The kid is the RFC 7638 thumbprint."""
        ...


class MintOrder(NamedTuple):
    """One token to mint."""

    jti: Jti
    identity: str
    """What its row says of it, which it is bound to: :func:`~rotator.core.integrity.token_identity`."""
    workspace: WorkspacePolicy
    issuer: str
    not_before: int
    """``iat`` and ``nbf``, seconds since the epoch."""
    expires: int


class Signer(Protocol):
    """A loaded private key; its ``repr`` shows nothing of it."""

    @property
    def kid(self) -> Kid:
        """The key's id."""
        ...

    @property
    def algorithm(self) -> Algorithm:
        """The key's one algorithm."""
        ...


class TokenMaker(Protocol):
    """Signs tokens and probes."""

    def load(self, kid: Kid, algorithm: Algorithm, private: Secret[bytes]) -> Signer:
        """Load an opened private half (PKCS #8, DER). Raise :class:`~rotator.errors.SealError` if it is not one."""
        ...

    def mint_sealed(self, signer: Signer, orders: Sequence[MintOrder], sealing: Sealing) -> list[Sealed]:
        """Sign one JWT per order, in order, and return each one sealed, bound to its order's identity."""
        ...

    def trouble(self) -> str:
        """Return why large batches are signed slowly, and see to it; empty while they are not."""
        ...

    def probe(self, signer: Signer, issuer: str, now: datetime) -> Secret[str]:
        """Sign a JWT that expires as it is made and that no audience accepts, to prove the key."""
        ...

    def new_jtis(self, now: datetime, count: int) -> list[Jti]:
        """Draw ``count`` fresh token ids that sort by time."""
        ...

    def require_same(self, text: Secret[bytes], token: Token) -> None:
        """Raise :class:`~rotator.errors.SealError` unless the claims of a token's text are what its row says."""
        ...

    def verify_with(self, token: Secret[str], jwks: bytes) -> None:
        """Verify ``token``'s signature from the bytes of a set alone; raise :class:`SealError` if it fails."""
        ...
