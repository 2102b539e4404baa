"""The catalogue of everything that the log says by name: level, meaning and fields of each event.

Two kinds: audit events record a change of state (:class:`~rotator.core.events.EventName`) and are in the database too;
:class:`LogEvent` tells of what changes no state. ``docs/events.md`` is made from here by ``rotator.log_catalogue``.
Names, message ids and fields are stable once released: alerts stand on them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from uuid import UUID, uuid5

from rotator.core.events import EventName

_NAMESPACE: Final = UUID("6f4a2d6e-5d0c-4d0e-9c55-2f1f0f8c7a31")
"""Drawn once, for this program alone; never changed, for every message id hangs on it."""


class LogEvent(StrEnum):
    """Names of log events that change no state: ``subject.what_happened``."""

    DAEMON_STARTED = "daemon.started"
    DAEMON_READY = "daemon.ready"
    DAEMON_STOPPING = "daemon.stopping"
    DAEMON_FAILED = "daemon.failed"
    THREAD_DIED = "thread.died"
    MINTING_FAILED = "minting.failed"
    CONFIG_RELOADED = "config.reloaded"
    CONFIG_REFUSED = "config.refused"
    CONFIG_WARNING = "config.warning"
    CLOCK_HELD = "clock.held"
    CLOCK_RELEASED = "clock.released"
    KEK_MISSING = "kek.missing"
    KEK_RESTORED = "kek.restored"
    WITNESS_REFUSED = "witness.refused"
    JOURNAL_FAULTY = "journal.faulty"
    REVOCATION_AHEAD = "revocation.ahead"
    RESTORE_FOUND = "restore.found"
    STORE_FAILED = "store.failed"
    STORE_LOST = "store.lost"
    PUBLISH_FAILED = "publish.failed"
    PUBLISH_REPAIRED = "publish.repaired"
    PUBLISH_REMOVED = "publish.removed"
    SERVED_BEHIND = "served.behind"
    PUBLISH_META_REFUSED = "publish.meta_refused"
    PUBLISH_FOREIGN_KEY = "publish.foreign_key"
    KEY_UNAUTHENTIC = "key.unauthentic"
    KEY_UNUSABLE = "key.unusable"
    ROW_CHANGED = "row.changed"
    PROBE_FAILED = "probe.failed"
    KEYSET_FAILED = "keyset.failed"
    WORKSPACE_FAILED = "workspace.failed"
    DELIVERY_FAILED = "delivery.failed"
    DELIVERY_OUTPUT = "delivery.output"
    DELIVERY_LATE = "delivery.late"
    DELIVERY_CRITICAL = "delivery.critical"
    FILE_LEFT = "file.left"
    SINK_HUNG = "sink.hung"
    REQUEST_REFUSED = "request.refused"
    CONTROL_DENIED = "control.denied"
    CONTROL_RENEWED = "control.renewed"
    CONTROL_FAILED = "control.failed"
    TICK_FAILED = "tick.failed"
    TICK_RECOVERED = "tick.recovered"
    FAULT_HEALED = "fault.healed"
    LOG_LOST = "log.lost"
    LIBRARY_REPORTED = "library.reported"


class Level(StrEnum):
    """How much an event asks of people, in the words of Python's ``logging``."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"  # look at it in working hours
    ERROR = "error"  # something was not done; it is being tried again
    CRITICAL = "critical"  # a person must act, or tokens will be refused


@dataclass(frozen=True, slots=True)
class Entry:
    """What the catalogue says of an event."""

    level: Level
    meaning: str
    """One sentence, which is also what the journal shows as the message."""
    fields: tuple[str, ...] = ()


def _entry(level: Level, meaning: str, fields: str = "") -> Entry:
    return Entry(level, meaning, tuple(fields.split()))


LOG_EVENTS: Final[Mapping[LogEvent, Entry]] = MappingProxyType(
    {
        LogEvent.DAEMON_STARTED: _entry(
            Level.INFO, "The daemon has started and reads its state.", "version config config_digest"
        ),
        LogEvent.DAEMON_READY: _entry(
            Level.INFO, "The first tick is over: everything that could be done was done.", "workspaces faults"
        ),
        LogEvent.DAEMON_STOPPING: _entry(
            Level.INFO, "The daemon was told to stop, and has, between two durable steps."
        ),
        LogEvent.DAEMON_FAILED: _entry(
            Level.CRITICAL, "The daemon ended by a fault of its own: please report it.", "problem exception"
        ),
        LogEvent.THREAD_DIED: _entry(
            Level.ERROR,
            "A thread ended by a fault of its own: please report it; a restart brings back what it did.",
            "thread problem exception",
        ),
        LogEvent.MINTING_FAILED: _entry(
            Level.WARNING,
            "The process that signs large batches of tokens ended; the daemon signs them itself, and starts another.",
            "problem",
        ),
        LogEvent.CONFIG_RELOADED: _entry(
            Level.INFO, "The config was read again and is in force.", "config_digest workspaces"
        ),
        LogEvent.CONFIG_REFUSED: _entry(
            Level.ERROR,
            "A reloaded config is wrong, or drops too much; the former one stays in force.",
            "config problem",
        ),
        LogEvent.CONFIG_WARNING: _entry(
            Level.WARNING, "The config is valid, and has something that is seldom meant.", "problem"
        ),
        LogEvent.CLOCK_HELD: _entry(
            Level.CRITICAL,
            "The clock is not trusted: nothing is minted, delivered, activated, retired or destroyed.",
            "problem",
        ),
        LogEvent.CLOCK_RELEASED: _entry(Level.INFO, "The clock is trusted again.", "subject"),
        LogEvent.KEK_MISSING: _entry(
            Level.CRITICAL,
            "The key-encryption key is missing, or not the one that sealed this state: nothing is minted.",
            "problem",
        ),
        LogEvent.KEK_RESTORED: _entry(Level.INFO, "The right key-encryption key is back.", "subject"),
        LogEvent.WITNESS_REFUSED: _entry(
            Level.CRITICAL, "The witness file is damaged, of another installation, or cannot be written.", "problem"
        ),
        LogEvent.JOURNAL_FAULTY: _entry(
            Level.CRITICAL,
            "The journal of revocations cannot be read in full, or cannot be written; all that could be read counts.",
            "problem",
        ),
        LogEvent.REVOCATION_AHEAD: _entry(
            Level.WARNING,
            "A revocation was accepted while the key-encryption key or the database was away: it is in the journal and "
            "out of the published set; its audit events and new tokens follow.",
            "kind revoked kids jtis actor reason problem",
        ),
        LogEvent.RESTORE_FOUND: _entry(
            Level.CRITICAL,
            "The database is older than the witness or a published meta: a backup was restored, and brought in line.",
            "database_seq witness_seq missing found_by",
        ),
        LogEvent.STORE_FAILED: _entry(Level.CRITICAL, "The database cannot be used; it is tried again.", "problem"),
        LogEvent.STORE_LOST: _entry(
            Level.CRITICAL,
            "The database was deleted or replaced while the daemon worked on it: it writes nothing more, and ends.",
            "problem",
        ),
        LogEvent.PUBLISH_FAILED: _entry(
            Level.ERROR,
            "A published set could not be written or read back; the last good one stays, and no new key signs.",
            "keyset problem",
        ),
        LogEvent.PUBLISH_REMOVED: _entry(
            Level.INFO,
            "The set of a keyset that ended was removed, with its discovery: no verifier can need them any more.",
            "keyset",
        ),
        LogEvent.SERVED_BEHIND: _entry(
            Level.WARNING,
            "A URL of `publish.verify_url` cannot be read, or lacks a published key for longer than `publish.lag`.",
            "keyset problem",
        ),
        LogEvent.PUBLISH_REPAIRED: _entry(
            Level.WARNING,
            "A published file was missing or changed by someone else, and was written again.",
            "keyset generation",
        ),
        LogEvent.PUBLISH_META_REFUSED: _entry(
            Level.WARNING,
            "A jwks.meta.json was not written by this installation, or was changed: it is written again.",
            "keyset problem",
        ),
        LogEvent.PUBLISH_FOREIGN_KEY: _entry(
            Level.ERROR,
            "A published file held keys that nobody here knows; it was kept aside and replaced.",
            "keyset kids kept_at",
        ),
        LogEvent.KEY_UNAUTHENTIC: _entry(
            Level.CRITICAL,
            "A key's row in the database was changed by somebody else; what is known besides stands.",
            "keyset kid problem",
        ),
        LogEvent.KEY_UNUSABLE: _entry(
            Level.ERROR, "The private half of a key does not open; a spare takes its place.", "keyset kid problem"
        ),
        LogEvent.ROW_CHANGED: _entry(
            Level.CRITICAL,
            "A row of the database was written, changed or taken away by somebody else; what it says is not believed.",
            "table row problem",
        ),
        LogEvent.PROBE_FAILED: _entry(
            Level.ERROR,
            "A probe signed by a key does not verify from the published file; the key does not sign.",
            "keyset kid problem",
        ),
        LogEvent.KEYSET_FAILED: _entry(
            Level.ERROR, "The work on one keyset failed; it is tried again, all others go on.", "keyset problem"
        ),
        LogEvent.WORKSPACE_FAILED: _entry(
            Level.ERROR,
            "A workspace's token could not be issued; it is tried again, all others go on.",
            "workspace problem",
        ),
        LogEvent.DELIVERY_FAILED: _entry(
            Level.WARNING,
            "A sink did not take a token; it is tried again.",
            "workspace sink sequence attempts problem",
        ),
        LogEvent.DELIVERY_OUTPUT: _entry(
            Level.INFO, "A command that takes tokens wrote something.", "workspace output"
        ),
        LogEvent.DELIVERY_LATE: _entry(
            Level.ERROR,
            "A sink has waited for its token for more than 25 % of the grace of the one it holds, or holds none.",
            "workspace sink attempts problem",
        ),
        LogEvent.DELIVERY_CRITICAL: _entry(
            Level.CRITICAL,
            "A sink has waited for its token for more than 75 % of the grace of the one it holds, or holds none.",
            "workspace sink attempts problem",
        ),
        LogEvent.FILE_LEFT: _entry(
            Level.WARNING,
            "A file that the config has no more was to be deleted, and is still there.",
            "workspace sink problem",
        ),
        LogEvent.SINK_HUNG: _entry(
            Level.ERROR,
            "A sink hangs: a file system or a command does not answer. Other deliveries go on.",
            "domain problem",
        ),
        LogEvent.REQUEST_REFUSED: _entry(Level.WARNING, "What a person asked for was not done.", "kind actor problem"),
        LogEvent.CONTROL_DENIED: _entry(
            Level.WARNING,
            "Someone asked for what their groups do not allow; `before`: how often more since the last such line.",
            "actor command problem before",
        ),
        LogEvent.CONTROL_RENEWED: _entry(
            Level.WARNING, "Somebody had taken the control socket away: it was made again.", "socket"
        ),
        LogEvent.CONTROL_FAILED: _entry(Level.ERROR, "A call to the control socket could not be answered.", "problem"),
        LogEvent.TICK_FAILED: _entry(
            Level.ERROR, "A tick ended before it was through; the next one starts afresh.", "problem"
        ),
        LogEvent.TICK_RECOVERED: _entry(Level.INFO, "A tick went through again.", "subject"),
        LogEvent.FAULT_HEALED: _entry(Level.INFO, "What was wrong with the subject is over.", "subject"),
        LogEvent.LOG_LOST: _entry(Level.ERROR, "Log lines could not be written anywhere and are lost.", "lines"),
        LogEvent.LIBRARY_REPORTED: _entry(
            Level.WARNING,
            "A library that rotator uses said this; its name is the logger, and the level its own.",
            "problem exception",
        ),
    }
)

AUDIT_EVENTS: Final[Mapping[EventName, Entry]] = MappingProxyType(
    {
        EventName.STATE_CREATED: _entry(Level.INFO, "A new database was set up.", "installation"),
        EventName.STATE_RESTORED: _entry(
            Level.CRITICAL,
            "An older database was found and brought in line with the witness or a published meta.",
            "database_seq witness_seq witness_hash found_by",
        ),
        EventName.STATE_INHERITED: _entry(
            Level.WARNING,
            "A new database took over what is known beside one that is lost: what was revoked there stays so.",
            "installation witness_seq witness_hash revoked_kids revoked_jtis",
        ),
        EventName.BACKUP_RESTORED: _entry(
            Level.WARNING,
            "A person put a backup in the place of the database.",
            "file database_seq witness_seq witness_hash",
        ),
        EventName.KEYSET_REPLACED: _entry(
            Level.WARNING,
            "A person had a published set that the database did not know moved aside: tokens on its keys are refused.",
            "keyset keys command",
        ),
        EventName.KEK_ADDED: _entry(Level.INFO, "A key-encryption key came into use.", "kek_id"),
        EventName.CLOCK_ACCEPTED: _entry(Level.WARNING, "An operator vouched for the clock."),
        EventName.CONFIG_APPLIED: _entry(
            Level.INFO,
            "A changed config took effect on the workspaces.",
            "new claims_changed rescheduled sinks_changed removed held files_left",
        ),
        EventName.CONFIG_ACCEPTED: _entry(Level.WARNING, "An operator accepted a config that drops many workspaces."),
        EventName.KEYSET_CREATED: _entry(Level.INFO, "A keyset appeared in the config.", "keyset algorithm issuer"),
        EventName.KEYSET_RESCHEDULED: _entry(
            Level.INFO,
            "The deadlines of a keyset follow a changed policy.",
            "keyset algorithm rotate_at:KID grace_until:KID",
        ),
        EventName.KEYSET_ROTATION_REQUESTED: _entry(
            Level.WARNING,
            "An operator asked for another signing key; kid is the one that signs until then.",
            "keyset kid emergency",
        ),
        EventName.KEYSET_ENDED: _entry(
            Level.INFO, "The last key of a keyset that left the config is out of its set.", "keyset"
        ),
        EventName.KEYSET_REVOKED: _entry(
            Level.CRITICAL, "Every key of a keyset was revoked, its spares included; it gets fresh ones.", "keyset keys"
        ),
        EventName.KEYSET_PUBLISHED: _entry(
            Level.INFO,
            "A published set was written, and read back as it should be.",
            "keyset generation keys sha256 replica",
        ),
        EventName.KEY_MADE: _entry(Level.INFO, "A signing key was made; it does not sign yet.", "keyset kid algorithm"),
        EventName.KEY_ADOPTED: _entry(
            Level.WARNING,
            "A published key of a system or database that is gone stays published.",
            "keyset kid grace_until",
        ),
        EventName.KEY_IMPORTED: _entry(
            Level.WARNING,
            "A signing key of another system was imported: it is pending, and keeps its kid.",
            "keyset kid algorithm sequence foreign_until",
        ),
        EventName.KEY_PROVEN: _entry(
            Level.INFO, "A probe signed by a key verified from the published file.", "keyset kid"
        ),
        EventName.KEY_ACTIVATED: _entry(Level.INFO, "A key began to sign.", "keyset kid rotate_at cause"),
        EventName.KEY_DEMOTED: _entry(
            Level.INFO,
            "A key stopped signing; it stays published through its grace period.",
            "keyset kid grace_until cause",
        ),
        EventName.KEY_DESTROYED: _entry(Level.INFO, "The private half of a key is gone from the disk.", "keyset kid"),
        EventName.KEY_RETIRED: _entry(Level.INFO, "A key has left the published set for good.", "keyset kid"),
        EventName.KEY_REVOKED: _entry(Level.WARNING, "A key was revoked and leaves the set at once.", "keyset kid"),
        EventName.TOKEN_REPLACEMENT_REQUESTED: _entry(
            Level.WARNING,
            "An operator asked for a new token; from overlap_ends_at on the prior one counts as revoked.",
            "workspace keyset kid jti overlap_ends_at",
        ),
        EventName.TOKEN_ISSUED: _entry(
            Level.INFO, "A workspace has a new current token.", "workspace keyset kid jti sequence expires_at"
        ),
        EventName.TOKEN_RETIRED: _entry(Level.INFO, "A token has expired.", "workspace keyset kid jti"),
        EventName.TOKEN_REVOKED: _entry(
            Level.WARNING, "A token was revoked before its end.", "workspace keyset kid jti"
        ),
        EventName.TOKENS_REVOKED: _entry(
            Level.WARNING,
            "The unexpired tokens on a revoked key were revoked with it. One event for all of them: each workspace has "
            "one of its own when its next token is issued, with the reason key_revoked.",
            "keyset kid tokens workspaces",
        ),
        EventName.WORKSPACE_REVOKED: _entry(
            Level.WARNING, "Every token of a workspace was revoked; it gets a new one.", "workspace keyset tokens"
        ),
        EventName.TOKEN_SHOWN: _entry(Level.WARNING, "A token was shown to a person.", "workspace keyset kid jti"),
        EventName.TOKEN_DELIVERED: _entry(
            Level.INFO, "A sink holds a workspace's token.", "workspace jti sink sequence attempts"
        ),
        EventName.FILE_DELETED: _entry(
            Level.INFO,
            "A file is gone that held a token of a workspace, and that the config has no more (`on_removal: delete`).",
            "workspace sink",
        ),
        EventName.REQUEST_PUT_ASIDE: _entry(
            Level.CRITICAL,
            "Rows of the table requests that rotator did not accept, or that it had answered before, were not carried "
            "out: somebody else writes to the database, or an older one was put back.",
            "requests rows",
        ),
        EventName.AUDIT_PRUNED: _entry(
            Level.INFO, "Old audit events were deleted; an anchor keeps the chain.", "events anchor_seq"
        ),
    }
)

AUDIT_FIELDS: Final = ("seq", "hash", "actor", "reason", "command")
"""What every audit event carries beside its own fields; ``command`` where a person caused it."""

_ENTRIES: Final[Mapping[str, Entry]] = MappingProxyType(
    {str(name): entry for name, entry in (*LOG_EVENTS.items(), *AUDIT_EVENTS.items())}
)


def find(name: str) -> Entry | None:
    """Return the entry of an event; None for a line that is no event, as libraries write them."""
    return _ENTRIES.get(name)


def message_id(name: str) -> str:
    """Return the journal's MESSAGE_ID of an event: 128 bits in hex, the same in every version and installation."""
    return uuid5(_NAMESPACE, name).hex
