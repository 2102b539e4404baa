"""What is known outside the database."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from rotator.core.model import Algorithm, Jti, KekId, KeysetName, Kid, ReplicaId
from rotator.core.timeguard import ClockMark


@dataclass(frozen=True, slots=True)
class WitnessedKey:
    """A published key as the witness remembers it."""

    kid: Kid
    algorithm: Algorithm
    public_jwk: str
    sequence: int
    ends_at: datetime | None
    """The latest time at which a token on it can end; None for a key that never signed."""


@dataclass(frozen=True, slots=True)
class WitnessedKeyset:
    """A keyset as the witness remembers it."""

    generation: int
    active: Kid | None
    published: tuple[WitnessedKey, ...]


@dataclass(frozen=True, slots=True)
class WitnessRecord:
    """What is kept outside the database, to find out that an old one was put back."""

    installation: str
    audit_seq: int
    audit_hash: str
    keysets: Mapping[KeysetName, WitnessedKeyset] = field(default_factory=dict)
    revoked_kids: frozenset[Kid] = frozenset()
    revoked_jtis: Mapping[Jti, datetime] = field(default_factory=dict)
    """With the ``exp`` of each, after which it needs no remembering."""
    replicas: frozenset[ReplicaId] = frozenset()
    """Whose trees are served: an older database may know fewer, and no key signs before each of them shows it."""
    requests: Mapping[str, datetime] = field(default_factory=dict)
    """Nonces of requests that were answered, with the moment at which each was accepted. None is carried out again."""
    clock: ClockMark | None = None
    """What was known of time, to the hour: an older database may let a clock pass that is wrong."""


@dataclass(frozen=True, slots=True)
class PublishedWitness:
    """What the meta file beside a published set says under a MAC: a witness outside the state directory."""

    installation: str
    keyset: KeysetName
    kek_id: KekId
    audit_seq: int
    audit_hash: str
    known: WitnessedKeyset
    revoked_kids: frozenset[Kid] = frozenset()
    """Revoked keys of this keyset, and those of which it is not known whose they were."""


class Witness(Protocol):
    """The witness file. Raises :class:`~rotator.errors.WitnessError` when it is damaged or not ours."""

    def read(self) -> WitnessRecord | None:
        """Read and authenticate it; None where there is none."""
        ...

    def write(self, record: WitnessRecord) -> None:
        """Write it durably; nothing is written when it already says so."""
        ...
