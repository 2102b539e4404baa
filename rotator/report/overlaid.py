"""An older database as it is to be read before a start has seen to it: with what was revoked since as revoked.

`rotator restore` revokes that in the database itself. One that was put in place by other means, as from a dump of
PostgreSQL, knows nothing of it, and whoever only looks must not write to it.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import cast

from rotator.core import lifecycle
from rotator.core.model import KeysetName, Kid, Phase, Token, WorkspaceId
from rotator.ports import KeyRow, Snapshot
from rotator.report.restores import Beside

_LIVING = (Phase.PENDING, Phase.ACTIVE, Phase.GRACE)


def with_revocations(snapshot: Snapshot, beside: Beside, now: datetime) -> Snapshot:
    """Return ``snapshot`` with the keys and tokens revoked that the witness knows as such, where it is older than it.

    They are dated ``now``, as a start would date them: when it was, the witness does not tell.
    """
    if beside.ahead is None:
        return snapshot
    return cast("Snapshot", _Overlaid(snapshot, beside, now))  # what it does not define, it hands on


class _Overlaid:
    def __init__(self, snapshot: Snapshot, beside: Beside, now: datetime) -> None:
        self._snapshot = snapshot
        self._beside = beside
        self._now = now

    def __getattr__(self, name: str) -> object:
        return getattr(self._snapshot, name)

    def keys(self, keyset: KeysetName) -> tuple[KeyRow, ...]:
        return tuple(map(self._key, self._snapshot.keys(keyset)))

    def all_keys(self) -> tuple[KeyRow, ...]:
        return tuple(map(self._key, self._snapshot.all_keys()))

    def key(self, kid: Kid) -> KeyRow | None:
        row = self._snapshot.key(kid)
        return None if row is None else self._key(row)

    def tokens(self, workspace: WorkspaceId | None = None) -> Iterator[Token]:
        return map(self._token, self._snapshot.tokens(workspace))

    def _key(self, row: KeyRow) -> KeyRow:
        if row.key.kid not in self._beside.revoked_kids or row.key.phase is Phase.REVOKED:
            return row
        return replace(row, key=lifecycle.revoke(row.key, now=self._now))

    def _token(self, token: Token) -> Token:
        if token.phase not in _LIVING:
            return token
        with_its_key = token.kid in self._beside.revoked_kids and token.expires_at > self._now
        if with_its_key or token.jti in self._beside.revoked_jtis:
            return lifecycle.revoke_token(token, now=self._now)
        return token
