"""Statements that run once per row of a batch, handed to the driver as they are.

SQLAlchemy's own compilation and parameter handling costs more per row than SQLite does; so what is written a thousand
rows at a time, or a thousand times per second, is SQL text in the part of the language that both databases share, with
one tuple of parameters per row. Where it counts, they are exactly ``str``, ``int`` or ``bytearray``: for any other type
(an enumeration, ``bytes``, None) the driver first looks for an adapter, and takes four times as long.
"""

import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final

import sqlalchemy as sa

Value = str | int | bytes | bytearray | None
Values = tuple[Value, ...]


ROWS_AT_ONCE: Final = 400
"""Rows in one statement on SQLite: as many as are minted together. Each statement lets other threads at the interpreter
lock and waits to get it back, which costs as much as several rows."""


class Statement:
    """A statement that changes rows. Parameters are written ``?``; an insert has one group of them after VALUES.

    ``of_many`` is the same for :data:`ROWS_AT_ONCE` rows in one statement, where SQLite has one; an insert's is its own
    text with more groups.
    """

    def __init__(self, sql: str, of_many: str = "") -> None:
        self._by_style: Final = {"qmark": _or_fail(sql), "pyformat": sql.replace("?", "%s")}
        self._of_many: Final = _or_fail(of_many or _of_many(sql))

    def run(self, connection: sa.Connection, rows: Sequence[Values]) -> int:
        """Run it once per tuple in ``rows``; return how many rows of the database it changed in all."""
        if not rows:
            return 0
        changed, done = 0, 0
        if self._of_many and connection.dialect.paramstyle == "qmark":
            for done in range(ROWS_AT_ONCE, len(rows) + 1, ROWS_AT_ONCE):
                flat = tuple(chain.from_iterable(rows[done - ROWS_AT_ONCE : done]))
                changed += connection.exec_driver_sql(self._of_many, flat, _COUNTED).rowcount
            done = len(rows) // ROWS_AT_ONCE * ROWS_AT_ONCE
        if done < len(rows):
            sql = self._by_style[connection.dialect.paramstyle]
            changed += connection.exec_driver_sql(sql, list(rows[done:]), _COUNTED).rowcount
        return changed


_COUNTED: Final = {"preserve_rowcount": True}


def _or_fail(sql: str) -> str:
    """Return ``sql`` as SQLite runs it here: what it changed before it failed is for the transaction to undo.

    A transaction in which a statement failed is rolled back in any case. By default SQLite could undo that statement
    alone, and to this end first copies each page that it changes into a temporary file: as sealed tokens, which nobody
    erases there (https://www.sqlite.org/tempfiles.html#statement_journal_files).
    """
    return re.sub(r"^(INSERT|UPDATE)\b(?! OR )", r"\1 OR FAIL", sql)


def _of_many(sql: str) -> str:
    """Return an insert of :data:`ROWS_AT_ONCE` rows; empty where ``sql`` is no insert of one."""
    found = re.search(r"VALUES (\([?, ]+\))", sql)
    if found is None:
        return ""
    return sql[: found.end()] + f", {found[1]}" * (ROWS_AT_ONCE - 1) + sql[found.end() :]


def update(
    table: sa.Table, columns: Sequence[str], keys: Sequence[str], *, always: str = "", only_where: str
) -> Statement:
    """Return an update of ``columns`` in the row that ``keys`` name, if ``only_where`` holds; ``always`` is set, too.

    A row's parameters are its columns', then its keys'. SQLite takes many rows as a table of values that it goes
    through, seeking the row of each; PostgreSQL would have to be told the types, and pipelines single statements.
    """
    names = [table.c[column].name for column in columns]
    fixed = f", {always}" if always else ""

    def sql(value: Callable[[int], str], source: str) -> str:
        sets = ", ".join(f"{name} = {value(number)}" for number, name in enumerate(names, 1))
        found = [
            f"{table.name}.{table.c[key].name} = {value(number)}" for number, key in enumerate(keys, len(names) + 1)
        ]
        where = " AND ".join([*found, only_where])
        return f"UPDATE {table.name} SET {sets}{fixed}{source} WHERE {where}"  # noqa: S608 - names of our own schema

    group = f"({', '.join('?' * (len(columns) + len(keys)))})"
    values = f" FROM (VALUES {', '.join([group] * ROWS_AT_ONCE)}) AS given"
    return Statement(sql(lambda _: "?", ""), sql(lambda number: f"given.column{number}", values))


def insert(table: sa.Table, columns: Sequence[str]) -> str:
    """Return the text of an insert into ``columns``, in that order."""
    names = ", ".join(table.c[column].name for column in columns)  # a name that is not in the schema fails here
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table.name} ({names}) VALUES ({marks})"  # noqa: S608 - names of our own schema


def upsert(table: sa.Table, columns: Sequence[str], *, only_where: str = "") -> str:
    """Return the text of an insert that replaces the row with the same primary key, if ``only_where`` holds."""
    keys = [column.name for column in table.primary_key]
    changes = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in keys)
    condition = f" WHERE {only_where}" if only_where else ""
    return f"{insert(table, columns)} ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changes}{condition}"
