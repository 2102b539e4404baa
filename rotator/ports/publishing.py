"""The published tree, and how it is seen from outside."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from rotator.core.model import KeysetName, Kid
from rotator.core.policy import KeysetPolicy


@dataclass(frozen=True, slots=True)
class PublishedSet:
    """A published set as it was read back from the tree."""

    kids: tuple[Kid, ...]
    sha256: str
    """Hex, of the bytes of ``jwks.json``."""
    content: bytes


@dataclass(frozen=True, slots=True)
class Publication:
    """A set to publish."""

    policy: KeysetPolicy
    generation: int
    jwks_uri: str
    """Where verifiers find the set: what its discovery document says."""
    jwks: Sequence[str]
    """Public JWKs as canonical JSON, in order of the keys' sequence."""
    published_at: datetime
    next_change_at: datetime | None
    witness: Mapping[str, object] | None = None
    """The witness part of the meta file; None: nobody can authenticate one now, and the one that stands is kept."""


class Publisher(Protocol):
    """One published tree. Every method raises :class:`~rotator.errors.PublishError` when the tree cannot serve it."""

    def read(self, keyset: KeysetName, *, fully: bool = False) -> PublishedSet | None:
        """Read the keyset's published set; None where there is none or it is not a JWK Set.

        For ``default`` both of its places are read, and differing or missing ones count as none. A file whose status
        did not change since it was read need not be read again, unless ``fully``.
        """
        ...

    def found(self, keyset: KeysetName) -> PublishedSet | None:
        """Read every set that stands in any of the keyset's places, as one, and empty if they are; None without any."""
        ...

    def publish(self, publication: Publication) -> PublishedSet:
        """Write every file of the keyset durably, read them back, and return what stands there now."""
        ...

    def take_out(self, keyset: KeysetName, kids: Collection[Kid], now: datetime) -> bool:
        """Let ``kids`` leave every set that stands in the keyset's places, durably; return whether one was there.

        Nothing else changes, but that the tree says that the set is another one, whose number nobody knows.
        """
        ...

    def intact(self, publication: Publication, *, fully: bool = False) -> bool:
        """Tell whether every file of the keyset stands as :meth:`publish` would write it.

        ``published_at``, ``next_change_at``, the generation and the witness in the meta file are not compared.
        """
        ...

    def meta(self, keyset: KeysetName) -> bytes | None:
        """Return the keyset's meta file as it stands; None where there is none."""
        ...

    def attest(self, keyset: KeysetName, witness: Mapping[str, object]) -> bool:
        """Replace the witness part of the meta file, durably, and touch nothing else.

        False where no meta file describes the set that stands: publishing it puts that right.
        """
        ...

    def unchanged(self, keyset: KeysetName) -> bool:
        """Tell, by the status of its files alone, whether all of them are those that were last read; costs little."""
        ...

    def keep_aside(self, keyset: KeysetName, content: bytes, now: datetime) -> str:
        """Keep a set that someone else put into the tree, outside it, for a person to look at; return the path."""
        ...

    def remove(self, keyset: KeysetName) -> bool:
        """Remove the set and what points to it from the tree; the meta file stays. Return whether one was there."""
        ...

    def withdraw(self, keyset: KeysetName, content: bytes, now: datetime) -> str:
        """Keep the set aside and remove it from the tree; return the path where it is kept."""
        ...


@dataclass(frozen=True, slots=True)
class ServedSet:
    """What was served of one keyset when that was looked at last."""

    at: datetime
    """The earliest moment at which any of it can have been so."""
    shown: Mapping[str, frozenset[Kid] | None]
    """The kids by URL; None: it did not answer, or not with a set."""
    problem: str = ""
    """Why one of them could not be read; empty when all were."""

    @property
    def everywhere(self) -> frozenset[Kid] | None:
        """Return the kids that every URL shows; None when one could not be read."""
        found = [kids for kids in self.shown.values() if kids is not None]
        return frozenset.intersection(*found) if found and len(found) == len(self.shown) else None

    @property
    def anywhere(self) -> frozenset[Kid]:
        """Return the kids that some URL shows."""
        return frozenset().union(*(kids for kids in self.shown.values() if kids is not None))


class ServedSets(Protocol):
    """The published tree as verifiers see it through ``publish.verify_url``; fetched beside the loop, never in it."""

    def latest(self, keyset: KeysetName) -> ServedSet | None:
        """Return what was seen last; None before the first look."""
        ...

    def refresh(self, keysets: Sequence[KeysetName], now: datetime) -> None:
        """Start fetching in the background; a fetch under way is not started twice."""
        ...
