"""The database as it is to be read where it does not know yet what was revoked: with that as revoked.

The journal knows of a revocation that was accepted while the KEK was away, and the witness of what an older database
lacks. `rotator restore` revokes that in the database itself. One that was put in place by other means, as from a dump
of PostgreSQL, knows nothing of it, and whoever only looks must not write to it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import cast

from rotator.core import lifecycle
from rotator.core.model import Jti, KeysetName, Kid, Phase, Token, WorkspaceId
from rotator.ports import KeyRow, Reach, Sighting, Snapshot, Target, TokenRow
from rotator.report.restores import Beside

_LIVING = (Phase.PENDING, Phase.ACTIVE, Phase.GRACE)


def with_revocations(snapshot: Snapshot, beside: Beside, now: datetime, *, taken_out: bool = False) -> Snapshot:
    """Return ``snapshot`` with the keys and tokens revoked that the journal, or the witness of a newer one, knows.

    What the witness knows is dated ``now``, as a start would date it: when it was, the witness does not say.
    ``taken_out``: the published tree of this machine is known to show none of it.
    """
    if beside.ahead is None and not beside.journal:
        return snapshot
    return cast("Snapshot", _Overlaid(snapshot, beside, now, taken_out))  # what it does not define, it hands on


class _Overlaid:
    def __init__(self, snapshot: Snapshot, beside: Beside, now: datetime, taken_out: bool) -> None:  # noqa: FBT001 - private
        self._snapshot = snapshot
        self._now = now
        self._taken_out = taken_out
        self._kids: dict[Kid, datetime] = {}
        self._jtis: dict[Jti, datetime] = {}
        for entry in beside.journal:
            for kid in entry.kids:
                self._kids.setdefault(kid, entry.accepted_at)
            for jti in entry.jtis:
                self._jtis.setdefault(jti, entry.accepted_at)
        if beside.ahead is not None:
            self._kids = {**dict.fromkeys(beside.revoked_kids, now), **self._kids}
            self._jtis = {**dict.fromkeys(beside.revoked_jtis, now), **self._jtis}

    def __getattr__(self, name: str) -> object:
        return getattr(self._snapshot, name)

    def keys(self, keyset: KeysetName) -> tuple[KeyRow, ...]:
        return tuple(map(self._key, self._snapshot.keys(keyset)))

    def all_keys(self) -> tuple[KeyRow, ...]:
        return tuple(map(self._key, self._snapshot.all_keys()))

    def key(self, kid: Kid) -> KeyRow | None:
        row = self._snapshot.key(kid)
        return None if row is None else self._key(row)

    def token(self, jti: Jti) -> TokenRow | None:
        row = self._snapshot.token(jti)
        return None if row is None else replace(row, token=self._token(row.token))

    def tokens(self, workspace: WorkspaceId | None = None, *, after: WorkspaceId | None = None) -> Iterator[Token]:
        return map(self._token, self._snapshot.tokens(workspace, after=after))

    def tokens_of(self, workspaces: Sequence[WorkspaceId]) -> Iterator[Token]:
        return map(self._token, self._snapshot.tokens_of(workspaces))

    def sightings(self, keyset: KeysetName) -> tuple[Sighting, ...]:
        seen = self._snapshot.sightings(keyset)
        return tuple(each for each in seen if each.kid not in self._kids) if self._taken_out else seen

    def reach(self, target: Target, now: datetime, *, revoked_since: datetime | None, limit: int) -> Reach:
        """Count what is to be revoked with what is revoked here alone: in the database it still stands."""
        if self._only_here(target):
            revoked_since = None
        return self._snapshot.reach(target, now, revoked_since=revoked_since, limit=limit)

    def _only_here(self, target: Target) -> bool:
        if target.jti is not None:
            found = self._snapshot.token(target.jti)
            return found is not None and found.token is not self._token(found.token)
        rows = [row for kid in target.kids if (row := self._snapshot.key(kid)) is not None]
        return bool(rows) and all(row is not self._key(row) for row in rows)

    def _key(self, row: KeyRow) -> KeyRow:
        if row.key.kid not in self._kids or row.key.phase is Phase.REVOKED:
            return row
        return replace(row, key=lifecycle.revoke(row.key, now=self._kids[row.key.kid]))

    def _token(self, token: Token) -> Token:
        if token.phase not in _LIVING:
            return token
        if token.kid in self._kids and token.expires_at > self._now:
            return lifecycle.revoke_token(token, now=self._kids[token.kid])
        if token.jti in self._jtis:
            return lifecycle.revoke_token(token, now=self._jtis[token.jti])
        return token
