"""The tables, as the newest migration leaves them. Instants and durations are integer microseconds.

The indexes are what keeps a tick at the cost of what is due: everything that is looked for by time has one, and the
partial ones hold only the rows that can still be due. ``next_at`` is the later of ``due_at`` and ``retry_at``, kept
beside them so that one index answers. A query uses a partial index only if it repeats its condition, so the
conditions have names here.
"""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.elements import TextClause

from rotator.core.model import Phase

Int64: Final = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")  # STRICT tables know no BIGINT
Text: Final = sa.Text()
Bytes: Final = sa.LargeBinary()

NOT_REMOVED: Final = "removed_at IS NULL"
REMOVED: Final = "removed_at IS NOT NULL"
FAILING: Final = "failures > 0"
LIVE: Final = "phase IN ('active', 'grace')"
ENDED: Final = "phase IN ('retired', 'revoked')"
OPEN_DELIVERY: Final = "due_at IS NOT NULL"
FAILED_DELIVERY: Final = "attempts > 0"
OPEN_REQUEST: Final = "finished_at IS NULL"
OF_WORKSPACE: Final = "workspace IS NOT NULL"
OF_KEY_ALONE: Final = "kid IS NOT NULL AND workspace IS NULL"

metadata: Final = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def _table(name: str, *parts: sa.Column[Any] | sa.Constraint, **options: Any) -> sa.Table:
    return sa.Table(name, metadata, *parts, sqlite_strict=True, **options)


def _id(name: str, of_type: sa.types.TypeEngine[Any] = Text) -> sa.Column[Any]:
    return sa.Column(name, of_type, primary_key=True, nullable=False)


def _must(
    name: str, of_type: sa.types.TypeEngine[Any] = Text, *of: sa.ForeignKey, default: str | None = None
) -> sa.Column[Any]:
    return sa.Column(name, of_type, *of, nullable=False, server_default=None if default is None else sa.text(default))


def _may(name: str, of_type: sa.types.TypeEngine[Any] = Text) -> sa.Column[Any]:
    return sa.Column(name, of_type, nullable=True)


def _phases() -> sa.CheckConstraint:
    names = ", ".join(f"'{phase}'" for phase in Phase)
    return sa.CheckConstraint(f"phase IN ({names})", name="phase")


def _authenticated() -> tuple[sa.Column[Any], sa.Column[Any]]:
    """Return what :data:`~rotator.core.integrity.COVERED` is authenticated by: the KEK, and the MAC under it."""
    return _must("kek_id"), _must("mac", Bytes)


def _index(name: str, *columns: sa.Column[Any], unique: bool = False, where: str | None = None) -> sa.Index:
    condition: TextClause | None = None if where is None else sa.text(where)
    return sa.Index(name, *columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


installation = _table(
    "installation",
    sa.Column("single", Int64, primary_key=True, autoincrement=False),
    _must("id"),
    sa.CheckConstraint("single = 1", name="single"),
)

clock = _table(
    "clock",
    sa.Column("single", Int64, primary_key=True, autoincrement=False),
    _must("high_water_at", Int64),
    _must("boot_id"),
    _must("offset_us", Int64),
    *_authenticated(),
    sa.CheckConstraint("single = 1", name="single"),
)

keks = _table("keks", _id("kek_id"), _must("check_value", Bytes), _must("created_at", Int64), _must("mac", Bytes))

keysets = _table(
    "keysets",
    _id("name"),
    _must("generation", Int64),
    _must("schedule_fingerprint"),
    _must("next_sequence", Int64),
    _must("ever_active", Int64),
    _must("due_at", Int64),
    _must("next_at", Int64),
    _may("ended_at", Int64),
    _must("failures", Int64),
    _may("retry_at", Int64),
    _must("fault"),
    _must("set_sha256"),
    _must("policy"),
    *_authenticated(),
    sa.CheckConstraint("ever_active IN (0, 1)", name="ever_active"),
    sa.CheckConstraint("next_at >= due_at", name="next_at"),
)
_index("ix_keysets_next_at", keysets.c.next_at)

wishes = _table(
    "wishes",
    sa.Column("keyset", Text, sa.ForeignKey("keysets.name"), primary_key=True, nullable=False),
    _must("asked_at", Int64),
    _must("emergency", Int64),
    _must("signed"),
    _must("actor"),
    _must("reason"),
    *_authenticated(),
    sa.CheckConstraint("emergency IN (0, 1)", name="emergency"),
)

signing_keys = _table(
    "signing_keys",
    _id("kid"),
    _must("keyset", Text, sa.ForeignKey("keysets.name")),
    _must("sequence", Int64),
    _must("algorithm"),
    _must("origin"),
    _must("phase"),
    _must("public_jwk"),
    _may("sealed", Bytes),
    _must("kek_id"),
    _must("mac", Bytes),
    _must("created_at", Int64),
    _may("proven_at", Int64),
    _may("activated_at", Int64),
    _may("rotate_at", Int64),
    _may("demoted_at", Int64),
    _may("grace_until", Int64),
    _may("last_exp", Int64),
    _may("retired_at", Int64),
    _may("revoked_at", Int64),
    _may("destroyed_at", Int64),
    _phases(),
    # Only what signs, or is going to, has a private half (NIST SP 800-57 part 1 §7.3).
    sa.CheckConstraint("phase IN ('pending', 'active') OR sealed IS NULL", name="private"),
)
_index("ix_signing_keys_keyset_sequence", signing_keys.c.keyset, signing_keys.c.sequence)
_index("ux_signing_keys_active", signing_keys.c.keyset, unique=True, where="phase = 'active'")

sightings = _table(
    "sightings",
    _id("replica"),
    _id("kid"),
    _must("keyset", Text, sa.ForeignKey("keysets.name")),
    _must("seen_at", Int64),
    _may("absent_until", Int64),
    _must("boot_id"),
    _must("since_boot_us", Int64),
    *_authenticated(),
)
_index("ix_sightings_keyset", sightings.c.keyset)

publications = _table(
    "publications",
    _id("replica"),
    sa.Column("keyset", Text, sa.ForeignKey("keysets.name"), primary_key=True),
    sa.Column("generation", Int64, primary_key=True, autoincrement=False),
    _must("sha256"),
    _must("published_at", Int64),
)

replicas = _table(
    "replicas",
    _id("replica"),
    _must("started_at", Int64),
    _must("seen_at", Int64),
    _may("forgotten_at", Int64),
    *_authenticated(),
)

workspaces = _table(
    "workspaces",
    _id("id"),
    _must("keyset"),
    _must("sequence", Int64),
    _must("due_at", Int64),
    _must("next_at", Int64),
    _may("current"),
    _may("current_kid"),
    _may("current_issued_at", Int64),
    _may("current_expires_at", Int64),
    _must("claims_fingerprint"),
    _must("schedule_fingerprint"),
    _must("sinks_fingerprint"),
    _must("due_reason"),
    _may("removed_at", Int64),
    _may("returned_at", Int64),
    _must("deletes", default="''"),
    _must("failures", Int64, default="0"),
    _may("retry_at", Int64),
    _must("fault", default="''"),
    *_authenticated(),
    sa.CheckConstraint("next_at >= due_at", name="next_at"),
)
_index("ix_workspaces_due", workspaces.c.keyset, workspaces.c.next_at, where=NOT_REMOVED)
_index("ix_workspaces_failing", workspaces.c.failures, where=FAILING)
_index("ix_workspaces_removed", workspaces.c.current_kid, workspaces.c.current_expires_at, where=REMOVED)

tokens = _table(
    "tokens",
    _id("jti"),
    _must("workspace"),
    _must("keyset"),
    _must("kid"),
    _must("phase"),
    _must("sequence", Int64),
    _must("issued_at", Int64),
    _must("expires_at", Int64),
    _must("rotate_at", Int64),
    _may("superseded_at", Int64),
    _may("revoked_at", Int64),
    _may("retired_at", Int64),
    _must("reason"),
    _must("revoke_reason", default="''"),
    *_authenticated(),
    _may("status_list"),
    _may("status_index", Int64),
    _may("sealed", Bytes),  # last: it is the long one, and SQLite reads a row up to the column that it needs
    _phases(),
)
_index("ux_tokens_workspace_sequence", tokens.c.workspace, tokens.c.sequence, unique=True)
_index("ix_tokens_live", tokens.c.expires_at, where=LIVE)
_index("ix_tokens_ended", tokens.c.expires_at, where=ENDED)
_index("ux_tokens_status", tokens.c.status_list, tokens.c.status_index, unique=True, where="status_list IS NOT NULL")

token_overlaps = _table(
    "token_overlaps",
    _id("jti"),
    _must("workspace"),
    _must("ends_at", Int64),
    _must("actor"),
    _must("reason"),
    *_authenticated(),
)

deliveries = _table(
    "deliveries",
    _id("workspace"),
    _id("sink"),
    _must("jti"),
    _must("sequence", Int64),
    _must("wanted_at", Int64),
    _must("deadline", Int64),
    _must("delivered_sequence", Int64),
    _may("delivered_at", Int64),
    _must("attempts", Int64),
    _may("due_at", Int64),
    _must("last_error"),
    _may("kek_id"),  # what a sink holds is authenticated once it holds something
    _may("mac", Bytes),
)
_index("ix_deliveries_due", deliveries.c.due_at, where=OPEN_DELIVERY)
_index("ix_deliveries_failed", deliveries.c.deadline, where=FAILED_DELIVERY)

requests = _table(
    "requests",
    sa.Column("id", Int64, primary_key=True),
    _must("kind"),
    _must("arguments"),
    _must("actor"),
    _must("uid", Int64),
    _must("reason"),
    _must("created_at", Int64),
    _must("nonce"),
    _must("bound"),
    _must("kek_id"),
    _must("mac", Bytes),
    _may("finished_at", Int64),
    _may("succeeded", Int64),
    _must("result"),
    sa.CheckConstraint("succeeded IN (0, 1)", name="succeeded"),
    sqlite_autoincrement=True,  # an id that was pruned is never given again
)
_index("ix_requests_open", requests.c.id, where=OPEN_REQUEST)

audit = _table(
    "audit",
    sa.Column("seq", Int64, primary_key=True, autoincrement=False),
    _must("at", Int64),
    _must("name"),
    _may("keyset"),
    _may("workspace"),
    _may("kid"),
    _may("jti"),
    _must("actor"),
    _must("reason"),
    _must("details"),
    _must("hash"),
)
_index("ix_audit_workspace", audit.c.workspace, where=OF_WORKSPACE)
_index("ix_audit_kid", audit.c.kid, where=OF_KEY_ALONE)

audit_head = _table(
    "audit_head",
    sa.Column("single", Int64, primary_key=True, autoincrement=False),
    _must("seq", Int64),
    _must("hash"),
    _must("anchor_seq", Int64),
    _must("anchor_hash"),
    _must("logged_seq", Int64),
    sa.CheckConstraint("single = 1", name="single"),
)
