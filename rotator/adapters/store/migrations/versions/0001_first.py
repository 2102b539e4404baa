"""The first schema."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

INT64 = sa.BigInteger().with_variant(sa.INTEGER(), "sqlite")
TEXT = sa.Text()
BYTES = sa.LargeBinary()


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "audit",
        sa.Column("seq", INT64, autoincrement=False, nullable=False),
        sa.Column("at", INT64, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("keyset", TEXT, nullable=True),
        sa.Column("workspace", TEXT, nullable=True),
        sa.Column("kid", TEXT, nullable=True),
        sa.Column("jti", TEXT, nullable=True),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("details", TEXT, nullable=False),
        sa.Column("hash", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit"),
        sqlite_strict=True,
    )
    op.create_index("ix_audit_kid", "audit", ["kid"], **_where("kid IS NOT NULL AND workspace IS NULL"))
    op.create_index("ix_audit_workspace", "audit", ["workspace"], **_where("workspace IS NOT NULL"))
    op.create_table(
        "audit_head",
        sa.Column("single", INT64, autoincrement=False, nullable=False),
        sa.Column("seq", INT64, nullable=False),
        sa.Column("hash", TEXT, nullable=False),
        sa.Column("anchor_seq", INT64, nullable=False),
        sa.Column("anchor_hash", TEXT, nullable=False),
        sa.Column("logged_seq", INT64, nullable=False),
        sa.CheckConstraint("single = 1", name=op.f("ck_audit_head_single")),
        sa.PrimaryKeyConstraint("single", name="pk_audit_head"),
        sqlite_strict=True,
    )
    op.create_table(
        "clock",
        sa.Column("single", INT64, autoincrement=False, nullable=False),
        sa.Column("high_water_at", INT64, nullable=False),
        sa.Column("boot_id", TEXT, nullable=False),
        sa.Column("offset_us", INT64, nullable=False),
        sa.Column("kek_id", TEXT, nullable=False),
        sa.Column("mac", BYTES, nullable=False),
        sa.CheckConstraint("single = 1", name=op.f("ck_clock_single")),
        sa.PrimaryKeyConstraint("single", name="pk_clock"),
        sqlite_strict=True,
    )
    op.create_table(
        "deliveries",
        sa.Column("workspace", TEXT, nullable=False),
        sa.Column("sink", TEXT, nullable=False),
        sa.Column("jti", TEXT, nullable=False),
        sa.Column("sequence", INT64, nullable=False),
        sa.Column("wanted_at", INT64, nullable=False),
        sa.Column("deadline", INT64, nullable=False),
        sa.Column("delivered_sequence", INT64, nullable=False),
        sa.Column("delivered_at", INT64, nullable=True),
        sa.Column("attempts", INT64, nullable=False),
        sa.Column("due_at", INT64, nullable=True),
        sa.Column("last_error", TEXT, nullable=False),
        sa.Column("kek_id", TEXT, nullable=True),
        sa.Column("mac", BYTES, nullable=True),
        sa.PrimaryKeyConstraint("workspace", "sink", name="pk_deliveries"),
        sqlite_strict=True,
    )
    op.create_index("ix_deliveries_due", "deliveries", ["due_at"], **_where("due_at IS NOT NULL"))
    op.create_index("ix_deliveries_failed", "deliveries", ["deadline"], **_where("attempts > 0"))
    op.create_table(
        "installation",
        sa.Column("single", INT64, autoincrement=False, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.CheckConstraint("single = 1", name=op.f("ck_installation_single")),
        sa.PrimaryKeyConstraint("single", name="pk_installation"),
        sqlite_strict=True,
    )
    op.create_table(
        "keks",
        sa.Column("kek_id", TEXT, nullable=False),
        sa.Column("check_value", BYTES, nullable=False),
        sa.Column("created_at", INT64, nullable=False),
        sa.Column("mac", BYTES, nullable=False),
        sa.PrimaryKeyConstraint("kek_id", name="pk_keks"),
        sqlite_strict=True,
    )
    op.create_table(
        "keysets",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("generation", INT64, nullable=False),
        sa.Column("schedule_fingerprint", TEXT, nullable=False),
        sa.Column("next_sequence", INT64, nullable=False),
        sa.Column("ever_active", INT64, nullable=False),
        sa.Column("due_at", INT64, nullable=False),
        sa.Column("next_at", INT64, nullable=False),
        sa.Column("ended_at", INT64, nullable=True),
        sa.Column("failures", INT64, nullable=False),
        sa.Column("retry_at", INT64, nullable=True),
        sa.Column("fault", TEXT, nullable=False),
        sa.Column("set_sha256", TEXT, nullable=False),
        sa.Column("policy", TEXT, nullable=False),
        sa.Column("kek_id", TEXT, nullable=False),
        sa.Column("mac", BYTES, nullable=False),
        sa.CheckConstraint("ever_active IN (0, 1)", name=op.f("ck_keysets_ever_active")),
        sa.CheckConstraint("next_at >= due_at", name=op.f("ck_keysets_next_at")),
        sa.PrimaryKeyConstraint("name", name="pk_keysets"),
        sqlite_strict=True,
    )
    op.create_index("ix_keysets_next_at", "keysets", ["next_at"])
    op.create_table(
        "replicas",
        sa.Column("replica", TEXT, nullable=False),
        sa.Column("started_at", INT64, nullable=False),
        sa.Column("seen_at", INT64, nullable=False),
        sa.Column("forgotten_at", INT64, nullable=True),
        sa.Column("kek_id", TEXT, nullable=False),
        sa.Column("mac", BYTES, nullable=False),
        sa.PrimaryKeyConstraint("replica", name="pk_replicas"),
        sqlite_strict=True,
    )
    op.create_table(
        "requests",
        sa.Column("id", INT64, autoincrement=True, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("arguments", TEXT, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("uid", INT64, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("created_at", INT64, nullable=False),
        sa.Column("nonce", TEXT, nullable=False),
        sa.Column("bound", TEXT, nullable=False),
        sa.Column("kek_id", TEXT, nullable=False),
        sa.Column("mac", BYTES, nullable=False),
        sa.Column("finished_at", INT64, nullable=True),
        sa.Column("succeeded", INT64, nullable=True),
        sa.Column("result", TEXT, nullable=False),
        sa.CheckConstraint("succeeded IN (0, 1)", name=op.f("ck_requests_succeeded")),
        sa.PrimaryKeyConstraint("id", name="pk_requests"),
        sqlite_autoincrement=True,
        sqlite_strict=True,
    )
    op.create_index("ix_requests_open", "requests", ["id"], **_where("finished_at IS NULL"))
    op.create_table(
        "tokens",
        sa.Column("jti", TEXT, nullable=False),
        sa.Column("workspace", TEXT, nullable=False),
        sa.Column("keyset", TEXT, nullable=False),
        sa.Column("kid", TEXT, nullable=False),
        sa.Column("phase", TEXT, nullable=False),
        sa.Column("sequence", INT64, nullable=False),
        sa.Column("issued_at", INT64, nullable=False),
        sa.Column("expires_at", INT64, nullable=False),
        sa.Column("rotate_at", INT64, nullable=False),
        sa.Column("superseded_at", INT64, nullable=True),
        sa.Column("revoked_at", INT64, nullable=True),
        sa.Column("retired_at", INT64, nullable=True),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("revoke_reason", TEXT, server_default=sa.text("''"), nullable=False),
        sa.Column("kek_id", TEXT, nullable=False),
        sa.Column("mac", BYTES, nullable=False),
        sa.Column("status_list", TEXT, nullable=True),
        sa.Column("status_index", INT64, nullable=True),
        sa.Column("sealed", BYTES, nullable=True),
        sa.CheckConstraint(
            "phase IN ('pending', 'active', 'grace', 'retired', 'revoked')", name=op.f("ck_tokens_phase")
        ),
        sa.PrimaryKeyConstraint("jti", name="pk_tokens"),
        sqlite_strict=True,
    )
    op.create_index("ix_tokens_ended", "tokens", ["expires_at"], **_where("phase IN ('retired', 'revoked')"))
    op.create_index("ix_tokens_live", "tokens", ["expires_at"], **_where("phase IN ('active', 'grace')"))
    op.create_index(
        "ux_tokens_status", "tokens", ["status_list", "status_index"], unique=True, **_where("status_list IS NOT NULL")
    )
    op.create_index(
        "ux_tokens_workspace_sequence",
        "tokens",
        ["workspace", "sequence"],
        unique=True,
    )
    op.create_table(
        "workspaces",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("keyset", TEXT, nullable=False),
        sa.Column("sequence", INT64, nullable=False),
        sa.Column("due_at", INT64, nullable=False),
        sa.Column("next_at", INT64, nullable=False),
        sa.Column("current", TEXT, nullable=True),
        sa.Column("current_kid", TEXT, nullable=True),
        sa.Column("current_issued_at", INT64, nullable=True),
        sa.Column("current_expires_at", INT64, nullable=True),
        sa.Column("claims_fingerprint", TEXT, nullable=False),
        sa.Column("schedule_fingerprint", TEXT, nullable=False),
        sa.Column("sinks_fingerprint", TEXT, nullable=False),
        sa.Column("due_reason", TEXT, nullable=False),
        sa.Column("removed_at", INT64, nullable=True),
        sa.Column("returned_at", INT64, nullable=True),
        sa.Column("deletes", TEXT, server_default=sa.text("''"), nullable=False),
        sa.Column("failures", INT64, server_default=sa.text("0"), nullable=False),
        sa.Column("retry_at", INT64, nullable=True),
        sa.Column("fault", TEXT, server_default=sa.text("''"), nullable=False),
        sa.Column("kek_id", TEXT, nullable=False),
        sa.Column("mac", BYTES, nullable=False),
        sa.CheckConstraint("next_at >= due_at", name=op.f("ck_workspaces_next_at")),
        sa.PrimaryKeyConstraint("id", name="pk_workspaces"),
        sqlite_strict=True,
    )
    op.create_index("ix_workspaces_due", "workspaces", ["keyset", "next_at"], **_where("removed_at IS NULL"))
    op.create_index("ix_workspaces_failing", "workspaces", ["failures"], **_where("failures > 0"))
    op.create_index(
        "ix_workspaces_removed", "workspaces", ["current_kid", "current_expires_at"], **_where("removed_at IS NOT NULL")
    )
    op.create_table(
        "publications",
        sa.Column("replica", TEXT, nullable=False),
        sa.Column("keyset", TEXT, nullable=False),
        sa.Column("generation", INT64, autoincrement=False, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("published_at", INT64, nullable=False),
        sa.ForeignKeyConstraint(["keyset"], ["keysets.name"], name="fk_publications_keyset"),
        sa.PrimaryKeyConstraint("replica", "keyset", "generation", name="pk_publications"),
        sqlite_strict=True,
    )
    op.create_table(
        "sightings",
        sa.Column("replica", TEXT, nullable=False),
        sa.Column("kid", TEXT, nullable=False),
        sa.Column("keyset", TEXT, nullable=False),
        sa.Column("seen_at", INT64, nullable=False),
        sa.Column("absent_until", INT64, nullable=True),
        sa.Column("boot_id", TEXT, nullable=False),
        sa.Column("since_boot_us", INT64, nullable=False),
        sa.Column("kek_id", TEXT, nullable=False),
        sa.Column("mac", BYTES, nullable=False),
        sa.ForeignKeyConstraint(["keyset"], ["keysets.name"], name="fk_sightings_keyset"),
        sa.PrimaryKeyConstraint("replica", "kid", name="pk_sightings"),
        sqlite_strict=True,
    )
    op.create_index("ix_sightings_keyset", "sightings", ["keyset"])
    op.create_table(
        "signing_keys",
        sa.Column("kid", TEXT, nullable=False),
        sa.Column("keyset", TEXT, nullable=False),
        sa.Column("sequence", INT64, nullable=False),
        sa.Column("algorithm", TEXT, nullable=False),
        sa.Column("origin", TEXT, nullable=False),
        sa.Column("phase", TEXT, nullable=False),
        sa.Column("public_jwk", TEXT, nullable=False),
        sa.Column("sealed", BYTES, nullable=True),
        sa.Column("kek_id", TEXT, nullable=False),
        sa.Column("mac", BYTES, nullable=False),
        sa.Column("created_at", INT64, nullable=False),
        sa.Column("proven_at", INT64, nullable=True),
        sa.Column("activated_at", INT64, nullable=True),
        sa.Column("rotate_at", INT64, nullable=True),
        sa.Column("demoted_at", INT64, nullable=True),
        sa.Column("grace_until", INT64, nullable=True),
        sa.Column("last_exp", INT64, nullable=True),
        sa.Column("retired_at", INT64, nullable=True),
        sa.Column("revoked_at", INT64, nullable=True),
        sa.Column("destroyed_at", INT64, nullable=True),
        sa.CheckConstraint("phase IN ('pending', 'active') OR sealed IS NULL", name=op.f("ck_signing_keys_private")),
        sa.CheckConstraint(
            "phase IN ('pending', 'active', 'grace', 'retired', 'revoked')", name=op.f("ck_signing_keys_phase")
        ),
        sa.ForeignKeyConstraint(["keyset"], ["keysets.name"], name="fk_signing_keys_keyset"),
        sa.PrimaryKeyConstraint("kid", name="pk_signing_keys"),
        sqlite_strict=True,
    )
    op.create_index(
        "ix_signing_keys_keyset_sequence",
        "signing_keys",
        ["keyset", "sequence"],
    )
    op.create_index("ux_signing_keys_active", "signing_keys", ["keyset"], unique=True, **_where("phase = 'active'"))
    op.create_table(
        "wishes",
        sa.Column("keyset", TEXT, nullable=False),
        sa.Column("asked_at", INT64, nullable=False),
        sa.Column("emergency", INT64, nullable=False),
        sa.Column("signed", TEXT, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("kek_id", TEXT, nullable=False),
        sa.Column("mac", BYTES, nullable=False),
        sa.CheckConstraint("emergency IN (0, 1)", name=op.f("ck_wishes_emergency")),
        sa.ForeignKeyConstraint(["keyset"], ["keysets.name"], name="fk_wishes_keyset"),
        sa.PrimaryKeyConstraint("keyset", name="pk_wishes"),
        sqlite_strict=True,
    )
    op.create_table(
        "token_overlaps",
        sa.Column("jti", TEXT, nullable=False),
        sa.Column("workspace", TEXT, nullable=False),
        sa.Column("ends_at", INT64, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("kek_id", TEXT, nullable=False),
        sa.Column("mac", BYTES, nullable=False),
        sa.PrimaryKeyConstraint("jti", name="pk_token_overlaps"),
        sqlite_strict=True,
    )
