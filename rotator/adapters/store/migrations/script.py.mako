"""${message}."""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Bring a database of the revision before to this one. Add the revision to ``migrate.REVISIONS``, too."""
    ${upgrades if upgrades else "pass"}
