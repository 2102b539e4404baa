"""What operators ask of keysets, and how long replaced tokens stay valid."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

INT64 = sa.BigInteger().with_variant(sa.INTEGER(), "sqlite")
TEXT = sa.Text()


def upgrade() -> None:
    """Make two tables."""
    op.create_table(
        "wishes",
        sa.Column("keyset", TEXT, nullable=False),
        sa.Column("asked_at", INT64, nullable=False),
        sa.Column("emergency", INT64, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
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
        sa.PrimaryKeyConstraint("jti", name="pk_token_overlaps"),
        sqlite_strict=True,
    )
