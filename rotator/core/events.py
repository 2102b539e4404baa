"""The catalogue of audit events: what each one is called, when it happens, and what it carries.

Each change of state is one event, written in the same transaction and chained by hash; after the commit it reaches the
log under the same name. What each name means and which fields it carries stands in ``rotator.log_events``, beside the
events that change no state and are in the log alone.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from rotator.core.model import Jti, KeysetName, Kid, WorkspaceId

Detail = str | int | None


class EventName(StrEnum):
    """Names of audit events: ``subject.past_participle``, stable once released."""

    STATE_CREATED = "state.created"
    STATE_RESTORED = "state.restored"
    STATE_INHERITED = "state.inherited"
    BACKUP_RESTORED = "backup.restored"
    KEK_ADDED = "kek.added"
    CLOCK_ACCEPTED = "clock.accepted"
    CONFIG_APPLIED = "config.applied"
    CONFIG_ACCEPTED = "config.accepted"
    KEYSET_CREATED = "keyset.created"
    KEYSET_RESCHEDULED = "keyset.rescheduled"
    KEYSET_ROTATION_REQUESTED = "keyset.rotation_requested"
    KEYSET_ENDED = "keyset.ended"
    KEYSET_REVOKED = "keyset.revoked"
    KEYSET_PUBLISHED = "keyset.published"
    KEYSET_REPLACED = "keyset.replaced"
    KEY_MADE = "key.made"
    KEY_ADOPTED = "key.adopted"
    KEY_IMPORTED = "key.imported"
    KEY_PROVEN = "key.proven"
    KEY_ACTIVATED = "key.activated"
    KEY_DEMOTED = "key.demoted"
    KEY_DESTROYED = "key.destroyed"
    KEY_RETIRED = "key.retired"
    KEY_REVOKED = "key.revoked"
    TOKEN_REPLACEMENT_REQUESTED = "token.replacement_requested"
    TOKEN_ISSUED = "token.issued"
    TOKEN_RETIRED = "token.retired"
    TOKEN_REVOKED = "token.revoked"
    TOKENS_REVOKED = "tokens.revoked"
    WORKSPACE_REVOKED = "workspace.revoked"
    TOKEN_SHOWN = "token.shown"
    TOKEN_DELIVERED = "token.delivered"
    FILE_DELETED = "file.deleted"
    REQUEST_PUT_ASIDE = "request.put_aside"
    AUDIT_PRUNED = "audit.pruned"


class Event(NamedTuple):
    """One change of state. Holds no secret: no token, no key material."""

    name: EventName
    at: datetime
    keyset: KeysetName | None = None
    workspace: WorkspaceId | None = None
    kid: Kid | None = None
    jti: Jti | None = None
    actor: str = "rotator"
    """Who caused it: ``rotator`` for the schedule, else ``NAME(uid)`` of the person."""
    reason: str = ""
    details: Mapping[str, Detail] = MappingProxyType({})


GENESIS: Final = "0" * 64
"""The hash before the first event."""

_quoted = json.encoder.encode_basestring


def encode_details(details: Mapping[str, Detail]) -> str:
    """Return the stored form of ``details``: sorted JSON, the empty string when there are none."""
    if not details:
        return ""
    return "{" + ",".join([f"{_quoted(name)}:{_json(details[name])}" for name in sorted(details)]) + "}"


def _json(value: Detail) -> str:
    """Encode one value: an encoder for values of every kind takes most of its time to find out what they are."""
    if isinstance(value, str):
        return _quoted(value)
    return str(value) if type(value) is int else json.dumps(value)


def chain_hash(previous: str, seq: int, event: Event, at_us: int, details: str) -> str:
    """Return the link of ``event`` in the chain: SHA-256 over the previous hash and an unambiguous encoding.

    ``at_us`` is ``event.at`` in microseconds since the epoch, ``details`` its details by :func:`encode_details`.
    """
    content = (
        f"[{_quoted(previous)},{seq},{at_us},{_quoted(event.name)},{_json(event.keyset)},{_json(event.workspace)}"
        f",{_json(event.kid)},{_json(event.jti)},{_quoted(event.actor)},{_quoted(event.reason)},{_quoted(details)}]"
    )
    return hashlib.sha256(content.encode()).hexdigest()
