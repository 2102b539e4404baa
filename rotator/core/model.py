"""What exists, as the planner sees it: frozen, complete, free of secrets.

Instants are aware UTC datetimes, durations are timedeltas. Nothing here knows of a database, a file or a clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple, NewType

Kid = NewType("Kid", str)
Jti = NewType("Jti", str)
KeysetName = NewType("KeysetName", str)
WorkspaceId = NewType("WorkspaceId", str)
SinkId = NewType("SinkId", str)
FailureDomain = NewType("FailureDomain", str)
ReplicaId = NewType("ReplicaId", str)
KekId = NewType("KekId", str)

DEFAULT_KEYSET: Final = KeysetName("default")

ALWAYS: Final = datetime.min.replace(tzinfo=UTC)
"""``out_since`` of a key that was in the very first set that anyone could fetch: no older copy can exist."""


class Algorithm(StrEnum):
    """JWS algorithms (RFC 7518 §3.1, RFC 8037 §3.1) that keys are made for."""

    ES256 = "ES256"
    RS256 = "RS256"
    EDDSA = "EdDSA"


class Phase(StrEnum):
    """Where a key or a token stands; the states of NIST SP 800-57 part 1 §7 under the field's names."""

    PENDING = "pending"  # pre-activation: announced, does not sign
    ACTIVE = "active"  # signs, or is the workspace's current token
    GRACE = "grace"  # deactivated: still verifies
    RETIRED = "retired"  # destroyed: gone from every verifier's set
    REVOKED = "revoked"  # compromised: gone at once, never comes back


class Origin(StrEnum):
    """How a key came here."""

    MADE = "made"
    IMPORTED = "imported"
    ADOPTED = "adopted"  # public half only, of a system or a database that is gone; never signs


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """One key pair of a keyset, without its private half."""

    kid: Kid
    keyset: KeysetName
    sequence: int
    """Order of making within the keyset: the next to sign is the pending key with the lowest one."""
    algorithm: Algorithm
    phase: Phase
    created_at: datetime
    origin: Origin = Origin.MADE
    public_jwk: str = ""
    """The public JWK as canonical JSON (sorted members, no white space)."""
    has_private: bool = True
    """A sealed private half is stored."""
    authentic: bool = True
    """Its row carries our MAC. Observed, not stored."""
    opens: bool = True
    """Its sealed private half, where there is one, opens. Observed, not stored."""
    proven_at: datetime | None = None
    """When it last signed a probe that verified from the published file."""
    activated_at: datetime | None = None
    rotate_at: datetime | None = None
    """When its successor is to take over; set on activation."""
    demoted_at: datetime | None = None
    grace_until: datetime | None = None
    last_exp: datetime | None = None
    """The latest ``exp`` of anything signed with it."""
    retired_at: datetime | None = None
    revoked_at: datetime | None = None
    destroyed_at: datetime | None = None
    """When the private half was known to be gone from the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What an operator wants of a keyset: that another key begins to sign. The next activation fulfils it."""

    asked_at: datetime
    actor: str
    """Who asked, as the audit names people."""
    reason: str = ""
    emergency: bool = False
    """Do not wait until every verifier can know the key: it may sign once it was read back from this replica's tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysetState:
    """All that the planner knows of one keyset at one moment."""

    name: KeysetName
    keys: tuple[SigningKey, ...] = ()
    """In order of ``sequence``. Retired and revoked keys may be left out once their private half is destroyed."""
    next_sequence: int = 1
    schedule_fingerprint: str = ""
    """Of the policy that the stored deadlines were computed from."""
    ever_active: bool = False
    """Some key of this keyset has signed before."""
    published: tuple[Kid, ...] | None = None
    """The kids of this replica's published file as it was read back, in its order; None: no valid file.

    An entry that is not exactly our key of that name stands here under a name that no key has.
    """
    shows_revoked: bool = False
    """The published file shows a key that was revoked, whether or not it still is among ``keys``."""
    fresh_at_hand: bool = False
    """A new key is made already and has only to be stored: the next one that is wanted costs no time."""
    tree_intact: bool = True
    """Every file around the set, such as the discovery document, stands as it should."""
    first_publication: bool = False
    """No set of this keyset was ever served from anywhere, so no verifier can hold an older copy."""
    publish_blocked: bool = False
    """Publishing failed in this tick: plan what is safe without it."""
    out_since: Mapping[Kid, datetime] = field(default_factory=dict)
    """Since when *every* known replica has held the kid without a break, corrected for what the wall clock did.

    A kid that some replica does not hold yet is absent. :data:`ALWAYS` where no set without it was ever served.
    """
    in_use: bool = True
    """A configured workspace, or an unexpired current token, depends on this keyset."""
    wish: Wish | None = None
    """Asked for by an operator, and not fulfilled yet."""


class Token(NamedTuple):
    """One issued token, without its text. A tuple, for there are many."""

    jti: Jti
    workspace: WorkspaceId
    keyset: KeysetName
    kid: Kid
    phase: Phase
    sequence: int
    """Grows with each token of the workspace; a sink never goes back to a lower one."""
    issued_at: datetime
    expires_at: datetime
    rotate_at: datetime
    superseded_at: datetime | None = None
    revoked_at: datetime | None = None
    retired_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Overlap:
    """How long a token that an operator had replaced stays valid beside its successor, if not to its own end."""

    jti: Jti
    workspace: WorkspaceId
    ends_at: datetime
    """From then on the token counts as revoked."""
    actor: str
    """Who asked for the replacement, as the audit names people."""
    reason: str = ""


class DueWorkspace(NamedTuple):
    """What a workspace's next token is issued from, and no more: after a compromise those of all are read at once."""

    id: WorkspaceId
    sequence: int
    current: Jti | None
    current_expires_at: datetime | None
    due_reason: str


class WorkspaceState(NamedTuple):
    """All that the planner knows of one workspace at one moment. A tuple, for there are many."""

    id: WorkspaceId
    keyset: KeysetName
    sequence: int
    due_at: datetime
    """When its next token is to be issued."""
    current: Jti | None = None
    current_kid: Kid | None = None
    current_issued_at: datetime | None = None
    current_expires_at: datetime | None = None
    claims_fingerprint: str = ""
    """Of the settings that the current token's claims were made from."""
    schedule_fingerprint: str = ""
    """Of the periods and the window that ``due_at`` was computed from."""
    sinks_fingerprint: str = ""
    due_reason: str = ""
    """Why ``due_at`` was brought forward (a :class:`~rotator.core.actions.Reason`); empty: by schedule."""
    removed_at: datetime | None = None
    returned_at: datetime | None = None
    """When it was last in the config again after it had been removed: a token from before is its former holder's."""
    deletes: tuple[SinkId, ...] = ()
    """Files that go when the config names them no more for this workspace: of its sinks, and those not gone yet."""
