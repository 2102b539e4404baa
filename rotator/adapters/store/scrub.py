"""Looks for rows that somebody else wrote: all of the small tables, and the large ones a page at a time."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from rotator.adapters.store import chain, queries, rows, schema
from rotator.adapters.store.integrity import REVOKED_WITH_KEY, Columns, Integrity
from rotator.adapters.store.times import noted, to_us
from rotator.core.model import Jti, Phase, WorkspaceId
from rotator.ports import RowProblem, WorkspaceSeen

SMALL: Final = ("clock", "keks", "keysets", "wishes", "signing_keys", "sightings", "replicas", "token_overlaps")

WITH_ONE_ROW: Final = ("installation", "audit_head")

CHANGED: Final = "it was not written by this installation, or was changed since"
GONE: Final = "it is gone"

TOKENS: Final = schema.tokens.c
WORKSPACES: Final = schema.workspaces.c
EVERY: Final = {name: sa.select(schema.metadata.tables[name]) for name in SMALL}
COUNT: Final = {name: sa.select(sa.func.count()).select_from(schema.metadata.tables[name]) for name in WITH_ONE_ROW}

FIRST_TOKENS: Final = sa.select(*queries.TOKEN_WITHOUT_TEXT).order_by(TOKENS.jti).limit(sa.bindparam("at_most"))
MORE_TOKENS: Final = FIRST_TOKENS.where(TOKENS.jti > sa.bindparam("after"))
FIRST_WORKSPACES: Final = (
    sa.select(*rows.WORKSPACE_WITH_MAC, WORKSPACES.next_at, WORKSPACES.retry_at, WORKSPACES.failures)
    .order_by(WORKSPACES.id)
    .limit(sa.bindparam("at_most"))
)
MORE_WORKSPACES: Final = FIRST_WORKSPACES.where(WORKSPACES.id > sa.bindparam("after"))


def small_tables(connection: sa.Connection, integrity: Integrity) -> Iterator[RowProblem]:
    """Yield every row that is not authentic, and those that have to be there and are not."""
    for name in WITH_ONE_ROW:
        if not connection.execute(COUNT[name]).scalar():
            yield RowProblem(name, "", GONE)
    if not chain.is_head(connection):
        yield RowProblem("audit_head", "", "it does not say how the chain of events ends")
    for name in SMALL:
        keys = [column.name for column in schema.metadata.tables[name].primary_key]
        for row in connection.execute(EVERY[name]).mappings():
            if not integrity.holds(name, row):
                yield RowProblem(name, " ".join(str(row[key]) for key in keys if key != "single"), CHANGED)


def token_page(
    connection: sa.Connection, integrity: Integrity, after: Jti, limit: int, now: datetime
) -> tuple[tuple[RowProblem, ...], Jti | None]:
    """Return what is wrong with the next ``limit`` tokens, and the last of them; None when there are no more."""
    page, named = (MORE_TOKENS, {"after": after}) if after else (FIRST_TOKENS, {})
    found = connection.execute(page, {**named, "at_most": limit}).mappings().all()
    problems = []
    for row in found:
        problem = _token_problem(connection, integrity, row, to_us(now))
        if problem:
            problems.append(RowProblem("tokens", row["jti"], problem))
    return tuple(problems), Jti(found[-1]["jti"]) if len(found) == limit else None


def _token_problem(connection: sa.Connection, integrity: Integrity, row: Columns, now_us: int) -> str:
    if not integrity.token_holds(row):
        return CHANGED
    if row["phase"] == Phase.RETIRED and row["expires_at"] > now_us:
        return "it says that the token has ended, which it has not"
    if row["phase"] == Phase.REVOKED and row["revoke_reason"] == REVOKED_WITH_KEY:
        key = connection.execute(queries.ONE_KEY, {"kid": row["kid"]}).first()
        if key is None or rows.key(key, integrity).key.phase is not Phase.REVOKED:
            return "it says that the token was revoked with its key, which was not"
    return ""


def workspace_page(
    connection: sa.Connection, integrity: Integrity, after: WorkspaceId, limit: int
) -> tuple[WorkspaceSeen, ...]:
    """Return the next ``limit`` workspaces, each with whether its row is authentic."""
    page, named = (MORE_WORKSPACES, {"after": after}) if after else (FIRST_WORKSPACES, {})
    found = connection.execute(page, {**named, "at_most": limit}).all()
    seen = []
    for row in found:
        *values, next_at, retry_at, failures = tuple(row)
        authentic = integrity.holds("workspaces", row._mapping)  # noqa: SLF001 - public by its documentation
        state = rows.workspace_of(tuple(values), authentic=authentic)
        seen.append(WorkspaceSeen(state, authentic, noted(next_at), noted(retry_at), failures))
    return tuple(seen)
