"""The journal of revocations: what was revoked, written down before anything else is done about it.

It needs no key-encryption key, for it can only revoke: whoever can write it as the service's user could stop the
service as well. It only ever grows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from rotator.core.model import Jti, Kid


class RevocationKind(StrEnum):
    """What a person can have revoked; the names of the requests."""

    KEY = "key.revoke"
    KEYSET = "keyset.revoke"
    TOKEN = "token.revoke"  # noqa: S105 - the name of a kind, no secret
    WORKSPACE = "workspace.revoke"


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationEntry:
    """A revocation as it was accepted."""

    id: str
    """That of the request; no two have the same."""
    kind: RevocationKind
    name: str
    """What the operator named: a kid, keyset, jti or workspace."""
    choice: str = ""
    """``wait`` or ``now``, for the case that no spare is left that every verifier can know."""
    actor: str
    uid: int
    reason: str
    accepted_at: datetime
    kids: tuple[Kid, ...] = ()
    """The keys that were meant."""
    jtis: Mapping[Jti, datetime | None] = field(default_factory=dict)
    """The tokens that were meant, with the ``exp`` of each; None: the database could not be asked for it."""


@dataclass(frozen=True, slots=True)
class Journal:
    """What the journal says."""

    entries: tuple[RevocationEntry, ...] = ()
    problem: str = ""
    """What is wrong with the file, or with lines of it; the other lines count."""


class RevocationJournal(Protocol):
    """The journal in the state directory. For one thread at a time."""

    def read(self) -> Journal:
        """Return what it says. It never fails, and costs little where nothing changed: then it is the same object."""
        ...

    def append(self, entry: RevocationEntry) -> None:
        """Write ``entry`` durably. Raise :class:`~rotator.errors.JournalError` where that is not possible."""
        ...
