"""What really happened, read from the audit after each event, and put together without asking the code under test.

The chronicle survives what the database does not: a database that is put back forgets, and what was issued and
revoked before is still out there.
"""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from rotator.core.model import Jti, KeysetName, Kid, WorkspaceId
from tests.simulation.database import Database
from tests.simulation.keys import Forge

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ONCE = {
    "key.made",
    "key.adopted",
    "key.activated",
    "key.demoted",
    "key.retired",
    "key.revoked",
    "token.issued",
    "token.retired",
    "token.revoked",
}
"""What one key or token can have but once in the life of one database."""


class Entry(NamedTuple):
    """One event of the audit."""

    seq: int
    at: int
    name: str
    keyset: KeysetName | None
    workspace: WorkspaceId | None
    kid: Kid | None
    jti: Jti | None
    actor: str
    reason: str
    details: str
    hash: str


class KeyFacts(NamedTuple):
    """A key's row as it stands."""

    kid: Kid
    keyset: KeysetName
    phase: str
    private: int
    grace_until: int | None
    origin: str
    created_at: int
    last_exp: int | None


@dataclass(slots=True)
class Chronicle:
    """All that happened until now."""

    database: Database
    forge: Forge
    head: tuple[int, str] = (0, "0" * 64)
    version: int = -1
    news: list[Entry] = field(default_factory=list)
    """What happened since the last look."""
    broken: list[str] = field(default_factory=list)
    """Where the chain of ``news`` does not hold."""
    keys: list[KeyFacts] = field(default_factory=list)
    last_exp: dict[Kid, int] = field(default_factory=dict)
    """The latest ``exp`` of a committed token, in seconds, by kid."""
    foreign_until: dict[Kid, int] = field(default_factory=dict)
    """Until when tokens that other systems signed with a key may live, in seconds, as it was said at its import."""
    keyset_of: dict[Kid, KeysetName] = field(default_factory=dict)
    began: dict[Kid, datetime] = field(default_factory=dict)
    """When (true time) a key first signed."""
    active: dict[KeysetName, Kid] = field(default_factory=dict)
    stopped: set[Kid] = field(default_factory=set)
    """Kids that do not sign any more, whatever an old database says."""
    proven: set[Kid] = field(default_factory=set)
    gone: dict[Kid, datetime] = field(default_factory=dict)
    """Kids that have left for good, retired or revoked, since when."""
    revoked: dict[Kid, datetime] = field(default_factory=dict)
    revoked_jtis: dict[Jti, datetime] = field(default_factory=dict)
    sequences: dict[WorkspaceId, int] = field(default_factory=dict)
    may_jump: set[WorkspaceId] = field(default_factory=set)
    """Workspaces whose sequence goes on far above the one before, for the database was put back."""
    issued_at: dict[WorkspaceId, int] = field(default_factory=dict)
    """When the last one was issued, by the clock of that time."""
    current: dict[WorkspaceId, Jti] = field(default_factory=dict)
    once: Counter[tuple[str, str]] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)
    """Events by name, over the life of the world."""
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    """Over every event: the same seed gives the same."""

    def read(self, now: datetime) -> bool:
        """Read what is new; tell whether the database changed."""
        (version,) = self.database.query("PRAGMA data_version")[0]
        self.news, self.broken = [], []
        if version == self.version:
            return False
        self.version = version
        rows = self.database.query(
            "SELECT seq, at, name, keyset, workspace, kid, jti, actor, reason, details, hash FROM audit"
            " WHERE seq > ? ORDER BY seq",
            self.head[0],
        )
        self.news = [Entry(*row) for row in rows]
        self.keys = [
            KeyFacts(*row)
            for row in self.database.query(
                "SELECT kid, keyset, phase, sealed IS NOT NULL, grace_until, origin, created_at, last_exp"
                " FROM signing_keys ORDER BY kid"
            )
        ]
        for entry in self.news:
            self._chain(entry)
            self._take(entry, now)
        return True

    def forget_after(self, head: tuple[int, str]) -> None:
        """Take note that a database was put back that ends at ``head``."""
        self.head = head
        self.version = -1
        self.once.clear()

    def forget_tokens_revoked(self) -> None:
        """Take note that no witness of single tokens is left: those that the database has as revoked stay so."""
        rows = self.database.query("SELECT jti FROM tokens WHERE phase = 'revoked'")
        known = {jti for (jti,) in rows}
        self.revoked_jtis = {jti: at for jti, at in self.revoked_jtis.items() if jti in known}

    def _chain(self, entry: Entry) -> None:
        seq, link = self.head
        if entry.seq != seq + 1 and entry.name != "state.restored":
            self.broken.append(f"event {entry.seq} follows event {seq}")
        content = json.dumps([link, *entry[:-1]], ensure_ascii=False, separators=(",", ":"))
        if hashlib.sha256(content.encode()).hexdigest() != entry.hash:
            self.broken.append(f"event {entry.seq} ({entry.name}) is not chained to the one before")
        self.head = entry.seq, entry.hash
        self.digest.update(entry.hash.encode())

    def _take(self, entry: Entry, now: datetime) -> None:
        self.counted[entry.name] += 1
        asked = entry.name.endswith(".revoked") and entry.actor != "rotator"  # who asks twice is answered twice
        if entry.name in ONCE and not asked:
            self.once[entry.name, entry.jti or entry.kid or ""] += 1
        if entry.name == "state.restored":
            self.may_jump = set(self.sequences)
        if entry.name == "token.issued":
            self._issued(entry)
        elif entry.name == "token.revoked" and entry.jti is not None:
            self.revoked_jtis.setdefault(entry.jti, now)
        elif entry.kid is not None and entry.keyset is not None:
            self._foreign(entry)
            if entry.name == "key.adopted" and entry.actor != "rotator" and entry.kid not in self.revoked:
                self.gone.pop(entry.kid, None)  # imported again, as an old database forgot that it left
            self._key(entry.name, entry.kid, entry.keyset, now)

    def _issued(self, entry: Entry) -> None:
        assert entry.jti is not None
        assert entry.kid is not None
        assert entry.workspace is not None
        token = self.forge.minted[entry.jti]
        self.last_exp[entry.kid] = max(self.last_exp.get(entry.kid, 0), token.expires)
        self.current[entry.workspace] = entry.jti

    def _foreign(self, entry: Entry) -> None:
        """Take note of until when a key that came from elsewhere is needed; what was said once stands."""
        said = {"key.imported": "foreign_until", "key.adopted": "grace_until"}.get(entry.name, "")
        until = json.loads(entry.details or "{}").get(said)
        if until is not None and entry.kid is not None:
            ends = int(datetime.fromisoformat(until).timestamp())
            self.foreign_until[entry.kid] = max(self.foreign_until.get(entry.kid, 0), ends)

    def _key(self, name: str, kid: Kid, keyset: KeysetName, now: datetime) -> None:
        self.keyset_of[kid] = keyset
        match name:
            case "key.imported" if kid not in self.began and kid not in self.revoked:
                # Its public half had come and gone before, and an old database forgot that: it never signed here.
                self.stopped.discard(kid)
                self.gone.pop(kid, None)
            case "key.proven":
                self.proven.add(kid)
            case "key.activated":
                self.began.setdefault(kid, now)
                self.active[keyset] = kid
            case "key.demoted":
                self._stop(kid, keyset)
            case "key.retired":
                self._stop(kid, keyset)
                self.gone.setdefault(kid, now)
            case "key.revoked":
                self._stop(kid, keyset)
                self.gone.setdefault(kid, now)
                self.revoked.setdefault(kid, now)

    def _stop(self, kid: Kid, keyset: KeysetName) -> None:
        self.stopped.add(kid)
        if self.active.get(keyset) == kid:
            del self.active[keyset]

    def live(self, now: datetime) -> dict[KeysetName, list[Kid]]:
        """Return the kids on which an unexpired token may be out, by keyset."""
        seconds = (now - EPOCH) / timedelta(seconds=1)
        found: dict[KeysetName, list[Kid]] = {}
        for kid, exp in self.last_exp.items():
            if exp > seconds and kid not in self.revoked:
                found.setdefault(self.keyset_of[kid], []).append(kid)
        return found

    def expire(self, now: datetime) -> None:
        """Forget tokens that have ended long ago: only what is out matters."""
        before = (now - EPOCH) / timedelta(seconds=1) - 86_400 * 40
        current = set(self.current.values())
        minted = self.forge.minted
        for jti in [jti for jti, token in minted.items() if token.expires < before and jti not in current]:
            del minted[jti]
