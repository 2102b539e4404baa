"""The audit as people look through it: the newest events first, narrowed down by the database."""

import sqlalchemy as sa

from rotator.adapters.store import schema
from rotator.adapters.store.times import to_us
from rotator.ports import AuditWanted

_AUDIT = schema.audit.c
_NEWEST = sa.select(schema.audit).order_by(_AUDIT.seq.desc())


def newest(wanted: AuditWanted) -> sa.Select[*tuple[object, ...]]:
    """Return the statement for the events that are asked for, the newest first.

    By workspace it is answered from an index, whose entries SQLite keeps in the order of the events.
    """
    found = _NEWEST
    if wanted.before is not None:
        found = found.where(_AUDIT.seq < wanted.before)
    if wanted.workspace is not None:
        found = found.where(_AUDIT.workspace == wanted.workspace)
    if wanted.key is not None:
        found = found.where(_AUDIT.kid.startswith(wanted.key, autoescape=True))
    if wanted.names is not None:
        found = found.where(_AUDIT.name.in_(sorted(wanted.names)))
    if wanted.since is not None:
        found = found.where(_AUDIT.at >= to_us(wanted.since))
    if wanted.actor is not None:  # NAME(uid), the name, or the uid
        own, name = _AUDIT.actor == wanted.actor, _AUDIT.actor.startswith(f"{wanted.actor}(", autoescape=True)
        found = found.where(own | name | _AUDIT.actor.endswith(f"({wanted.actor})", autoescape=True))
    return found
