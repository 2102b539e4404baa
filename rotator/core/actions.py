"""What the planner can ask for: frozen values, carried out by the engine in the order given."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from rotator.core.model import Algorithm, Jti, KeysetName, Kid, WorkspaceId


class Reason(StrEnum):
    """Why something happens; recorded with it."""

    FIRST = "first"
    SPARE = "spare"  # a standby must always be out
    SUCCESSOR = "successor"  # the rotation ahead needs the key after the next
    SECURITY_PERIOD = "security_period"
    SIGNER_LOST = "signer_lost"  # no key can sign: revoked, erased or unreadable
    ALGORITHM = "algorithm_changed"
    UNUSABLE = "unusable"
    GRACE_OVER = "grace_over"
    KEYSET_ENDED = "keyset_ended"
    CLAIMS_CHANGED = "claims_changed"
    KEY_REVOKED = "key_revoked"
    TOKEN_REVOKED = "token_revoked"  # noqa: S105 - the name of a reason, no secret
    REQUESTED = "requested"
    OVERLAP_OVER = "overlap_over"  # an operator had it replaced, and said how long it stays valid
    RESTORED = "restored"
    CLOCK_SET_BACK = "clock_set_back"  # it was made by a clock that was ahead


@dataclass(frozen=True, slots=True)
class Reschedule:
    """Compute the stored deadlines of a keyset anew after its policy changed."""

    keyset: KeysetName
    schedule_fingerprint: str
    rotate_at: tuple[tuple[Kid, datetime], ...] = ()
    grace_until: tuple[tuple[Kid, datetime], ...] = ()


@dataclass(frozen=True, slots=True)
class MakeKey:
    """Make a key pair and store it as pending."""

    keyset: KeysetName
    sequence: int
    algorithm: Algorithm
    reason: Reason


@dataclass(frozen=True, slots=True)
class PublishSet:
    """Write the published files of a keyset and read them back. What comes after it needs a fresh look."""

    keyset: KeysetName
    kids: tuple[Kid, ...]


@dataclass(frozen=True, slots=True)
class ProveKey:
    """Sign a probe with a pending key and verify it from the published file alone."""

    keyset: KeysetName
    kid: Kid


@dataclass(frozen=True, slots=True)
class ActivateKey:
    """Let a pending key sign; the prior one, if any, goes to grace and loses its private half."""

    keyset: KeysetName
    kid: Kid
    rotate_at: datetime
    reason: Reason
    prior: Kid | None = None
    prior_grace_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class DemoteKey:
    """End the signing of an active key that gets no successor."""

    keyset: KeysetName
    kid: Kid
    grace_until: datetime
    reason: Reason


@dataclass(frozen=True, slots=True)
class RetireKey:
    """Take a key out of the published set."""

    keyset: KeysetName
    kid: Kid
    reason: Reason


@dataclass(frozen=True, slots=True)
class ConfirmDestruction:
    """Make sure that erased private halves are gone from the disk, and record it."""

    keyset: KeysetName
    kids: tuple[Kid, ...]


KeysetAction = Reschedule | MakeKey | PublishSet | ProveKey | ActivateKey | DemoteKey | RetireKey | ConfirmDestruction


class IssueToken(NamedTuple):
    """Issue a workspace's next token; the prior one, unless it was revoked, goes to grace and lives to its end.

    A tuple, as are the other records of which a large installation makes one for each token: they cost half as much.
    """

    workspace: WorkspaceId
    keyset: KeysetName
    sequence: int
    rotate_at: datetime
    expires_at: datetime
    reason: Reason
    prior: Jti | None = None
    """What goes to grace."""
