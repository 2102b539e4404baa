"""The queries of a snapshot, each built once: building one costs SQLAlchemy more than SQLite takes to answer it."""

from typing import Final

import sqlalchemy as sa

from rotator.adapters.store import rows, schema
from rotator.core.alarms import WARNING_SHARE

KEYSETS: Final = schema.keysets.c
KEYS: Final = schema.signing_keys.c
SIGHTINGS: Final = schema.sightings.c
REPLICAS: Final = schema.replicas.c
WORKSPACES: Final = schema.workspaces.c
TOKENS: Final = schema.tokens.c
DELIVERIES: Final = schema.deliveries.c
REQUESTS: Final = schema.requests.c
AUDIT: Final = schema.audit.c

TOKEN_WITHOUT_TEXT: Final = [
    TOKENS[name]
    for name in (
        "jti",
        "workspace",
        "keyset",
        "kid",
        "phase",
        "sequence",
        "issued_at",
        "expires_at",
        "rotate_at",
        "superseded_at",
        "revoked_at",
        "retired_at",
        "revoke_reason",
        "status_list",
        "status_index",
        "kek_id",
        "mac",
    )
]

# A query that uses a partial index repeats its condition word for word: a parameter in it would prove nothing.
NOT_REMOVED: Final = sa.text(f"workspaces.{schema.NOT_REMOVED}")
REMOVED: Final = sa.text(f"workspaces.{schema.REMOVED}")
FAILING: Final = sa.text(f"workspaces.{schema.FAILING}")
LIVE: Final = sa.text(f"tokens.{schema.LIVE}")
FAILED_DELIVERY: Final = sa.text(f"deliveries.{schema.FAILED_DELIVERY}")

# --------------------------------------------------------------------------------------------------------------- itself

INSTALLATION: Final = sa.select(schema.installation.c.id)
CLOCK_MARK: Final = sa.select(schema.clock)
KEKS: Final = sa.select(schema.keks).order_by(schema.keks.c.kek_id)

# -------------------------------------------------------------------------------------------------------- keysets, keys

ALL_KEYSETS: Final = sa.select(schema.keysets).order_by(KEYSETS.name)
ONE_KEYSET: Final = sa.select(schema.keysets).where(KEYSETS.name == sa.bindparam("name"))

DUE_KEYSETS: Final = (
    sa.select(KEYSETS.name).where(KEYSETS.next_at <= sa.bindparam("now")).order_by(KEYSETS.due_at, KEYSETS.name)
)

KEYSET_IN_USE: Final = sa.select(
    sa.exists().where(WORKSPACES.keyset == sa.bindparam("name"), NOT_REMOVED)
    | sa.exists().where(
        KEYS.keyset == sa.bindparam("name"),
        WORKSPACES.current_kid == KEYS.kid,
        WORKSPACES.current_expires_at > sa.bindparam("now"),
        REMOVED,
    )
)

KEYS_NOT_GONE: Final = (
    sa.select(schema.signing_keys)
    .where(
        KEYS.keyset == sa.bindparam("keyset"),
        ~(KEYS.phase.in_(("retired", "revoked")) & KEYS.destroyed_at.is_not(None)),
    )
    .order_by(KEYS.sequence, KEYS.kid)
)

ALL_KEYS: Final = sa.select(schema.signing_keys).order_by(KEYS.keyset, KEYS.sequence, KEYS.kid)
ONE_KEY: Final = sa.select(schema.signing_keys).where(KEYS.kid == sa.bindparam("kid"))

SIGHTINGS_OF_KEYSET: Final = (
    sa.select(schema.sightings)
    .where(SIGHTINGS.keyset == sa.bindparam("keyset"))
    .order_by(SIGHTINGS.replica, SIGHTINGS.kid)
)

PUBLICATION_OF_REPLICA: Final = (
    sa.select(schema.publications.c.generation)
    .where(
        schema.publications.c.replica == sa.bindparam("replica"),
        schema.publications.c.keyset == sa.bindparam("keyset"),
    )
    .limit(1)
)

ALL_REPLICAS: Final = sa.select(schema.replicas).order_by(REPLICAS.replica)

# ----------------------------------------------------------------------------------------------------------- workspaces

ALL_WORKSPACES: Final = sa.select(*rows.WORKSPACE_WITH_MAC).order_by(WORKSPACES.id)
ONE_WORKSPACE: Final = sa.select(*rows.WORKSPACE_WITH_MAC).where(WORKSPACES.id == sa.bindparam("id"))
WORKSPACES_NAMED: Final = ALL_WORKSPACES.where(WORKSPACES.id.in_(sa.bindparam("workspaces", expanding=True)))

DUE_WORKSPACES: Final = (
    sa.select(*rows.DUE_WORKSPACE)
    .where(
        WORKSPACES.keyset.in_(sa.bindparam("keysets", expanding=True)),
        WORKSPACES.next_at <= sa.bindparam("now"),
        NOT_REMOVED,
    )
    .order_by(WORKSPACES.next_at)
    .limit(sa.bindparam("at_most"))
)

OVERDUE_WORKSPACES: Final = sa.select(
    # Seeks into the index once per keyset, then reads what is overdue and nothing else.
    sa.select(sa.func.count())
    .where(
        WORKSPACES.keyset.in_(sa.select(KEYSETS.name)),
        WORKSPACES.next_at < sa.bindparam("before"),
        NOT_REMOVED,
    )
    .scalar_subquery()
    + sa.select(sa.func.count())
    .where(
        WORKSPACES.next_at >= sa.bindparam("before"), WORKSPACES.due_at < sa.bindparam("before"), NOT_REMOVED, FAILING
    )
    .scalar_subquery()
)

FAILING_WORKSPACES: Final = sa.select(WORKSPACES.id, WORKSPACES.failures, WORKSPACES.fault).where(FAILING, NOT_REMOVED)

# --------------------------------------------------------------------------------------------------------------- tokens

ALL_TOKENS: Final = sa.select(*TOKEN_WITHOUT_TEXT).order_by(TOKENS.workspace, TOKENS.sequence)
TOKENS_OF_WORKSPACE: Final = ALL_TOKENS.where(TOKENS.workspace == sa.bindparam("workspace"))
TOKENS_AFTER: Final = ALL_TOKENS.where(TOKENS.workspace > sa.bindparam("after"))
TOKENS_OF_WORKSPACES: Final = ALL_TOKENS.where(TOKENS.workspace.in_(sa.bindparam("workspaces", expanding=True)))
ONE_TOKEN: Final = sa.select(schema.tokens).where(TOKENS.jti == sa.bindparam("jti"))
JTIS_BEGINNING: Final = (
    sa.select(TOKENS.jti)
    .where(sa.func.substr(TOKENS.jti, 1, sa.func.length(sa.bindparam("beginning"))) == sa.bindparam("beginning"))
    .order_by(TOKENS.jti)
    .limit(sa.bindparam("most"))
)
"""``LIKE`` would take small letters for capital ones in SQLite, and some characters for any."""

CURRENT_TOKENS: Final = (
    sa.select(schema.tokens)
    .select_from(
        # Its own: a row that names another workspace's token as its current one has none.
        schema.tokens.join(schema.workspaces, (WORKSPACES.current == TOKENS.jti) & (WORKSPACES.id == TOKENS.workspace))
    )
    .where(WORKSPACES.id.in_(sa.bindparam("workspaces", expanding=True)))
)

EXPIRED_TOKENS: Final = (
    sa.select(*TOKEN_WITHOUT_TEXT)
    .where(LIVE, TOKENS.expires_at < sa.bindparam("before"))
    .order_by(TOKENS.expires_at)
    .limit(sa.bindparam("at_most"))
)

LOAD_OF_KEY: Final = sa.select(
    sa.func.count(), sa.func.count(sa.distinct(TOKENS.workspace)), sa.func.max(TOKENS.expires_at)
).where(LIVE, TOKENS.kid == sa.bindparam("kid"), TOKENS.expires_at > sa.bindparam("after"))

HOLDERS_OF_KEY: Final = (
    sa.select(TOKENS.workspace, sa.func.count().label("number"), sa.func.max(TOKENS.expires_at).label("last"))
    .where(LIVE, TOKENS.kid == sa.bindparam("kid"), TOKENS.expires_at > sa.bindparam("after"))
    .group_by(TOKENS.workspace)
    .order_by(TOKENS.workspace)
    .limit(sa.bindparam("at_most"))
)

# ----------------------------------------------------------------------------------------------------------- deliveries

DUE_DELIVERIES: Final = (
    sa.select(schema.deliveries)
    .where(DELIVERIES.due_at <= sa.bindparam("now"))
    .order_by(DELIVERIES.due_at)
    .limit(sa.bindparam("at_most"))
    .offset(sa.bindparam("passed"))
)

ALL_DELIVERIES: Final = sa.select(schema.deliveries).order_by(DELIVERIES.workspace, DELIVERIES.sink)
DELIVERIES_OF_WORKSPACE: Final = ALL_DELIVERIES.where(DELIVERIES.workspace == sa.bindparam("workspace"))
DELIVERIES_OF_WORKSPACES: Final = ALL_DELIVERIES.where(
    DELIVERIES.workspace.in_(sa.bindparam("workspaces", expanding=True))
)

# As core.alarms.lateness has it, and a little more: what failed and is not late yet.
_OPEN_FOR: Final[sa.ColumnElement[int]] = sa.bindparam("now", type_=schema.Int64) - DELIVERIES.wanted_at
_GRACE: Final[sa.ColumnElement[int]] = DELIVERIES.deadline - DELIVERIES.wanted_at
LATE_DELIVERIES: Final = (
    sa.select(schema.deliveries)
    .where(
        DELIVERIES.due_at.is_not(None),
        sa.or_(
            FAILED_DELIVERY,
            sa.and_(_GRACE > 0, _OPEN_FOR >= _GRACE * WARNING_SHARE),
            sa.and_(_GRACE <= 0, sa.bindparam("allowed") <= _OPEN_FOR),
        ),
    )
    .order_by(DELIVERIES.deadline, DELIVERIES.workspace, DELIVERIES.sink)
)

# ------------------------------------------------------------------------------------------------------------- requests

OPEN_REQUESTS: Final = sa.select(schema.requests).where(REQUESTS.finished_at.is_(None)).order_by(REQUESTS.id)
ANSWERED_REQUESTS: Final = (
    sa.select(schema.requests)
    .where(REQUESTS.finished_at.is_not(None))
    .order_by(REQUESTS.id.desc())
    .limit(sa.bindparam("limit"))
)
NONCES: Final = sa.select(REQUESTS.nonce).where(REQUESTS.nonce.in_(sa.bindparam("nonces", expanding=True)))
ONE_REQUEST: Final = sa.select(schema.requests).where(REQUESTS.id == sa.bindparam("id"))

# ---------------------------------------------------------------------------------------------------------------- audit

AUDIT_HEAD: Final = sa.select(schema.audit_head)
AUDIT_AFTER: Final = sa.select(schema.audit).where(AUDIT.seq > sa.bindparam("after")).order_by(AUDIT.seq)
AUDIT_HASH: Final = sa.select(AUDIT.hash).where(AUDIT.seq == sa.bindparam("seq"))

# ------------------------------------------------------------------------------------------------------------ overviews

NEXT_DUE_WORKSPACE: Final = (
    sa.select(
        sa.select(WORKSPACES.next_at)
        .where(WORKSPACES.keyset == KEYSETS.name, NOT_REMOVED)
        .order_by(WORKSPACES.next_at)
        .limit(1)
        .correlate(schema.keysets)
        .scalar_subquery()
        .label("at")
    )
    .where(KEYSETS.name.in_(sa.bindparam("signing", expanding=True)))
    .subquery()
)

NEXT_DUE: Final = sa.select(
    sa.select(sa.func.min(KEYSETS.next_at)).scalar_subquery(),
    sa.select(sa.func.min(NEXT_DUE_WORKSPACE.c.at)).scalar_subquery(),
    sa.select(sa.func.min(DELIVERIES.due_at)).where(DELIVERIES.due_at.is_not(None)).scalar_subquery(),
)

COUNTS: Final = sa.select(
    sa.select(sa.func.count()).select_from(schema.workspaces).where(NOT_REMOVED).scalar_subquery(),
    sa.select(sa.func.count()).select_from(schema.tokens).where(LIVE).scalar_subquery()
    + sa.select(sa.func.count()).select_from(schema.tokens).where(TOKENS.phase == "pending").scalar_subquery(),
    sa.select(sa.func.count()).select_from(schema.audit).scalar_subquery(),
)
