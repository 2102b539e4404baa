"""Authenticates rows: the keyed part of what :mod:`rotator.core.integrity` says that their MACs cover."""

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa

from rotator.adapters.store import schema
from rotator.core.integrity import COVERED, TOKEN, Value, content_of, token_content, token_identity
from rotator.core.model import KekId, Phase
from rotator.core.secret import Secret
from rotator.errors import KekError, SealError
from rotator.ports import Sealer

REVOKED_WITH_KEY: Final = "key_revoked"
"""Why a token is revoked that needs no MAC of its own for it."""

Columns = Mapping[str, Any] | sa.RowMapping
"""A row by the names of its columns."""


class Integrity:
    """Writes and verifies MACs under the KEKs of ``sealer``.

    Without one, as where only a report is made and no KEK is at hand, nothing is verified, and what is written is
    authentic for nobody. ``writes``: false while the KEK is away, so that only what was authenticated before is known.
    """

    def __init__(self, sealer: Sealer | None = None, *, writes: bool = True) -> None:
        self._sealer: Final = sealer
        self.writes: Final = writes

    @property
    def verifies(self) -> bool:
        """Tell whether rows are verified at all."""
        return self._sealer is not None

    def without_kek(self) -> "Integrity":
        """Return one that verifies as this one does, and writes nothing."""
        return Integrity(self._sealer, writes=False)

    def seal(self, table: str, values: Columns, kek_id: KekId | None = None) -> dict[str, Value]:
        """Return ``kek_id`` and ``mac`` of a row with ``values``; by default under the KEK that seals."""
        covered = COVERED[table]
        content = content_of(covered, [_plain(values[column]) for column in covered.columns])
        return self._mac(covered.purpose, content, kek_id)

    def holds(self, table: str, row: Columns) -> bool:
        """Tell whether the MAC of a row is that of its content."""
        covered = COVERED[table]
        if self._sealer is None:
            return True
        content = content_of(covered, [row[column] for column in covered.columns])
        return self._verify(covered.purpose, content, row)

    def seal_token(self, row: Columns) -> dict[str, Value]:
        """Return ``kek_id`` and ``mac`` of a row of ``tokens``."""
        return self._mac(TOKEN, _token(row), None)

    def token_holds(self, row: Columns) -> bool:
        """Tell whether the MAC of a row of ``tokens`` is that of its content."""
        return self._sealer is None or self._verify(TOKEN, _token(row), row)

    def open_token(self, row: Columns, algorithm: str) -> Secret[bytes] | None:
        """Open the sealed text of a row of ``tokens``; None where it was erased, or does not open here."""
        if self._sealer is None or row["sealed"] is None:
            return None
        try:
            return self._sealer.open(
                TOKEN, _identity(row), row["kid"], algorithm, KekId(row["kek_id"]), bytes(row["sealed"])
            )
        except SealError:
            return None

    def _mac(self, purpose: str, content: bytes, kek_id: KekId | None) -> dict[str, Value]:
        if not self.writes:
            raise KekError(f"a {purpose.partition('/')[0]} cannot be changed while the key-encryption key is away")
        if self._sealer is None:
            return {"kek_id": kek_id or "", "mac": b""}
        kek_id = kek_id or self._sealer.kek_id
        return {"kek_id": kek_id, "mac": self._sealer.mac(purpose, content, kek_id)}

    def _verify(self, purpose: str, content: bytes, row: Columns) -> bool:
        mac, kek_id = row["mac"], row["kek_id"]
        if self._sealer is None or mac is None or kek_id is None:
            return False
        return self._sealer.verify_mac(purpose, content, mac, KekId(kek_id))


def _plain(value: object) -> Value:
    """Return a value as the database gives it back."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    return None if value is None else int(value)  # type: ignore[call-overload]


def _identity(row: Columns) -> str:
    return token_identity(
        row["jti"],
        row["workspace"],
        row["keyset"],
        row["kid"],
        row["sequence"],
        row["issued_at"],
        row["expires_at"],
        row["rotate_at"],
        row["status_list"],
        row["status_index"],
    )


def _token(row: Columns) -> bytes:
    identity = _identity(row)
    if row["phase"] == Phase.REVOKED and row["revoke_reason"] != REVOKED_WITH_KEY:
        return token_content(identity, row["revoked_at"] or 0, row["revoke_reason"])
    return token_content(identity)


class AuthenticatedTable:
    """One table whose rows bear a MAC: each row is read, verified, changed and authenticated anew, one at a time."""

    def __init__(self, table: sa.Table) -> None:
        self._table: Final = table
        self._name: Final = table.name
        self._covered: Final = frozenset(COVERED[table.name].columns)
        self._keys: Final = tuple(column for column in table.primary_key)
        of_key = [column == sa.bindparam(f"key_{column.name}") for column in self._keys]
        self._locked: Final = sa.select(table).where(*of_key).with_for_update()
        self._update: Final = sa.update(table).where(*of_key)

    def lock(self, connection: sa.Connection, values: Columns) -> Columns | None:
        """Return the row that the primary key in ``values`` names, locked until the end of the transaction."""
        row = connection.execute(self._locked, self._named(values)).mappings().first()
        return None if row is None else dict(row)

    def put(self, connection: sa.Connection, integrity: Integrity, values: Columns, *, anew: bool = False) -> bool:
        """Insert or change a row; return False where what is there is not authentic: then only notes are changed.

        ``anew``: all of ``values`` is known to be so whatever the row said, and replaces one that is not authentic.
        """
        before = self.lock(connection, values)
        if before is None:
            sealed = integrity.seal(self._name, values, self._kek_of(values))
            connection.execute(sa.insert(self._table).values({**values, **sealed}))
            return True
        after = {**before, **values}
        same = all(_plain(after[column]) == before[column] for column in self._covered)
        believed = integrity.holds(self._name, before)
        if (not same and believed) or (anew and not believed):
            after |= integrity.seal(self._name, after, self._kek_of(after))
        else:
            after = {name: value for name, value in after.items() if name not in self._covered}
        changed = {name: value for name, value in after.items() if value != before[name]}
        if changed:
            connection.execute(self._update.values(changed), self._named(values))
        return same or believed or anew

    def _kek_of(self, row: Columns) -> KekId | None:
        """Return the KEK that a sealed half is under, whose MAC has to be under the same one."""
        return KekId(row["kek_id"]) if row.get("sealed") is not None and row["kek_id"] else None

    def _named(self, values: Columns) -> dict[str, Any]:
        return {f"key_{column.name}": values[column.name] for column in self._keys}


CLOCK: Final = AuthenticatedTable(schema.clock)
KEYSETS: Final = AuthenticatedTable(schema.keysets)
WISHES: Final = AuthenticatedTable(schema.wishes)
SIGNING_KEYS: Final = AuthenticatedTable(schema.signing_keys)
SIGHTINGS: Final = AuthenticatedTable(schema.sightings)
REPLICAS: Final = AuthenticatedTable(schema.replicas)
OVERLAPS: Final = AuthenticatedTable(schema.token_overlaps)
