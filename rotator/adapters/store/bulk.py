"""Statements that run once per row of a batch, handed to the driver as they are.

SQLAlchemy's own compilation and parameter handling costs more per row than SQLite does; so what is written a thousand
rows at a time, or a thousand times per second, is SQL text in the part of the language that both databases share, with
one tuple of parameters per row.
"""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

Value = str | int | bytes | None
Values = tuple[Value, ...]


class Statement:
    """A statement that changes rows. Parameters are written ``?``."""

    def __init__(self, sql: str) -> None:
        self._by_style: Final = {"qmark": sql, "pyformat": sql.replace("?", "%s")}

    def run(self, connection: sa.Connection, rows: Sequence[Values]) -> int:
        """Run it once per tuple in ``rows``; return how many rows of the database it changed in all."""
        if not rows:
            return 0
        sql = self._by_style[connection.dialect.paramstyle]
        return connection.exec_driver_sql(sql, list(rows), {"preserve_rowcount": True}).rowcount


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
