"""Real daemons without a process: engine, database, tree, sealing and sinks are those of production; time is not.

A :class:`Site` is one installation: a database, a clock that a test turns, and one or more daemons on it, each with a
state directory and a published tree of its own. ``advance`` ticks at each moment that a tick named, so that weeks pass
in a second. After each tick an oracle looks at what verifiers could hold: it remembers every set that was ever
published, and checks that each live token is known in all copies that are not older than ``max_cache``.
"""

import errno
import json
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jwt

from rotator.adapters.calendar import CronCalendar
from rotator.adapters.disk import OsDisk
from rotator.adapters.kek import make_kek_file, read_ring_file
from rotator.adapters.keymaker import CryptographyKeyMaker
from rotator.adapters.publish import TreePublisher
from rotator.adapters.revocations import FileRevocations
from rotator.adapters.sealing import SourcedKeyring
from rotator.adapters.sinks import SinkCourier
from rotator.adapters.store import SqlStore, open_store
from rotator.adapters.store.integrity import Integrity
from rotator.adapters.tokenmaker import JwtMaker
from rotator.adapters.witness import FileWitness
from rotator.core.audit import Broken, Mark, verify_chain
from rotator.core.events import Detail, EventName
from rotator.core.model import (
    DEFAULT_KEYSET,
    Algorithm,
    FailureDomain,
    KeysetName,
    Kid,
    Phase,
    ReplicaId,
    SigningKey,
    WorkspaceId,
)
from rotator.core.policy import FileSink, KeysetPolicy, Policy, Sink, WorkspacePolicy
from rotator.engine.requests.accepting import accept
from rotator.engine.run import Outcome, Run, Surroundings
from rotator.engine.tick import HEARTBEAT, Engine
from rotator.errors import DeliveryError, SinkHungError
from rotator.ports import (
    AuditRow,
    Bring,
    Courier,
    Ending,
    Errand,
    KeyMaker,
    Leftover,
    Parcel,
    RequestRow,
    ServedSet,
    ServedSets,
)
from tests.patience import HANG_SECONDS
from tests.stand_ins import DAY, HOUR, MINUTE, SECOND, T0, FakeClock, RecordingLog

__all__ = ["DAY", "HOUR", "MINUTE", "SECOND", "T0", "FakeClock", "RecordingLog"]  # for the tests on a site

SKEW = timedelta(seconds=60)
MAX_CACHE = 24 * HOUR
PROPAGATION = 49 * HOUR
ISSUER = "https://tokens.example.com"
URL = "https://cdn.example.com/jwks.json"
TICKS_AT_ONE_MOMENT = 300


# ----------------------------------------------------------------------------------------------------------- policy


def keyset(
    name: str = "default",
    *,
    security_period: timedelta = 20 * DAY,
    propagation_period: timedelta = PROPAGATION,
    grace_period: timedelta = 4 * DAY + SKEW,
    algorithm: Algorithm = Algorithm.ES256,
) -> KeysetPolicy:
    return KeysetPolicy(
        name=KeysetName(name),
        issuer=ISSUER if name == DEFAULT_KEYSET else f"{ISSUER}/keysets/{name}",
        algorithm=algorithm,
        security_period=security_period,
        propagation_period=propagation_period,
        grace_period=grace_period,
        clock_skew=SKEW,
    )


def workspace(
    name: str,
    *sinks: Sink,
    on: str = "default",
    security_period: timedelta = 3 * DAY,
    grace_period: timedelta = DAY,
    roles: tuple[str, ...] = ("admin",),
) -> WorkspacePolicy:
    return WorkspacePolicy(
        id=WorkspaceId(name),
        keyset=KeysetName(on),
        security_period=security_period,
        grace_period=grace_period,
        audience=("api",),
        roles=roles,
        permissions=("metrics:write",),
        sinks=sinks,
    )


def policy_of(keysets: Sequence[KeysetPolicy], workspaces: Sequence[WorkspacePolicy]) -> Policy:
    return Policy(
        keysets={each.name: each for each in keysets},
        workspaces={each.id: each for each in workspaces},
        clock_skew=SKEW,
        base_url=ISSUER,
    )


def without(policy: Policy, *names: str) -> Policy:
    return replace(policy, workspaces={name: each for name, each in policy.workspaces.items() if name not in names})


# ------------------------------------------------------------------------------------------------------------ fakes


@dataclass
class Post:
    """The real courier with a record, whose sinks can be made to fail or to hang."""

    real: Courier
    failing: set[str] = field(default_factory=set)
    hanging: set[str] = field(default_factory=set)
    gates: dict[str, threading.Event] = field(default_factory=dict)
    arrived: threading.Event = field(default_factory=threading.Event)
    """Set when a delivery stands before a gate."""
    attempts: list[tuple[str, int]] = field(default_factory=list)
    delivered: list[Parcel] = field(default_factory=list)

    def domains(self, sinks: Sequence[Sink]) -> Sequence[FailureDomain]:
        return self.real.domains(sinks)

    def deliver(self, domain: FailureDomain, errands: Sequence[Errand], bring: Bring) -> None:
        for number, errand in enumerate(errands):
            try:
                self.take(domain, errand, lambda _, ending, number=number: bring(number, ending))  # type: ignore[misc]
            except DeliveryError as error:
                bring(number, Ending(str(error), hung=isinstance(error, SinkHungError)))

    def take(self, domain: FailureDomain, errand: Errand, bring: Bring) -> None:
        sink, parcel = errand
        assert isinstance(sink, FileSink)
        self.attempts.append((sink.path, parcel.sequence))
        gate = self.gates.pop(sink.path, None)
        if gate is not None:
            self.arrived.set()
            assert gate.wait(HANG_SECONDS)
        if sink.path in self.hanging:
            raise SinkHungError("the sink says nothing")
        if sink.path in self.failing:
            raise DeliveryError("the sink is out of order")
        self.real.deliver(domain, [errand], bring)
        self.delivered.append(parcel)

    def compare(self, domain: FailureDomain, errands: Sequence[Errand], bring: Bring) -> None:
        for number, errand in enumerate(errands):
            if isinstance(errand.sink, FileSink) and errand.sink.path in self.hanging:
                bring(number, Ending("the sink says nothing", hung=True))
            else:
                self.real.compare(domain, [errand], lambda _, ending, number=number: bring(number, ending))  # type: ignore[misc]

    def remove(self, domain: FailureDomain, leftovers: Sequence[Leftover], bring: Bring) -> None:
        for number, leftover in enumerate(leftovers):
            if leftover.sink.path in self.hanging:
                bring(number, Ending("the sink says nothing", hung=True))
            elif leftover.sink.path in self.failing:
                bring(number, Ending("the sink is out of order"))
            else:
                self.real.remove(domain, [leftover], lambda _, ending, number=number: bring(number, ending))  # type: ignore[misc]

    def cancel(self) -> None:
        """Nothing here hangs for good."""


class Disk(OsDisk):
    """The disk of this machine, until it is full or slow."""

    full = False
    before_write: Callable[[], None] = staticmethod(lambda: None)

    def write(self, fd: int, content: bytes) -> None:
        self.before_write()
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(fd, content)


@dataclass
class Served:
    """What ``publish.verify_url`` shows: by default the tree itself, seen by each refresh."""

    look: Callable[[KeysetName], frozenset[Kid] | None]
    seen: dict[KeysetName, ServedSet] = field(default_factory=dict)

    def latest(self, keyset: KeysetName) -> ServedSet | None:
        return self.seen.get(keyset)

    def refresh(self, keysets: Sequence[KeysetName], now: datetime) -> None:
        for name in keysets:
            kids = self.look(name)
            self.seen[name] = ServedSet(now, {URL: kids}, "" if kids is not None else f"{URL}: it is down")


# ----------------------------------------------------------------------------------------------------------- daemons


@dataclass
class Daemon:
    """One replica: what `rotator run` is made of, ticked by hand."""

    site: "Site"
    name: str
    served: ServedSets | None = None
    post: Post = field(init=False)
    store: SqlStore | None = None
    engine: Engine | None = None
    outcome: Outcome | None = None
    keymaker: KeyMaker = field(default_factory=CryptographyKeyMaker)
    tree_disk: Disk = field(default_factory=Disk)
    disk: OsDisk = field(default_factory=OsDisk)
    """Of the witness and the file sinks."""
    _maker: JwtMaker | None = None
    _wake: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.state.mkdir(mode=0o700, exist_ok=True)
        forbidden = (self.state, self.tree)
        self.post = Post(
            SinkCourier(forbidden, lambda _workspace, _text: None, disk=self.disk)
        )  # files: never cancelled

    @property
    def state(self) -> Path:
        return self.site.root / f"state-{self.name}"

    @property
    def tree(self) -> Path:
        return self.site.root / f"public-{self.name}"

    @property
    def witness(self) -> Path:
        return self.state / "witness.json"

    @property
    def run(self) -> Run:
        assert self.engine is not None, "it does not run"
        return self.engine.run

    def start(self, policy: Policy | None = None, *, settle: bool = True) -> "Daemon":
        site = self.site
        self.store = open_store(f"sqlite:///{site.database}", create=True)
        self._maker = JwtMaker()
        keyring = SourcedKeyring(lambda: read_ring_file(site.kek))
        around = Surroundings(
            replica=ReplicaId(self.name),
            store=self.store,
            clock=site.clock,
            calendar=CronCalendar(),
            keyring=keyring,
            keymaker=self.keymaker,
            tokenmaker=self._maker,
            publisher=TreePublisher(
                self.tree,
                self.state / "aside",
                state_directory=self.state,
                max_age=MAX_CACHE,
                disk=self.tree_disk,
            ),
            courier=self.post,
            witness=FileWitness(self.witness, lambda: keyring.unlock(()), disk=self.disk),
            journal=FileRevocations(self.state, disk=self.disk),
            log=site.log,
            served=self.served,
        )
        site.policy = policy or site.policy
        self.engine = Engine(Run(around, site.policy), wake=self._wake.set, heartbeat=site.heartbeat)
        if settle:
            self.settle()
        return self

    def stop(self) -> None:
        """Stop between two ticks; as far as the state goes, a kill at that moment."""
        if self.engine is not None and self.store is not None and self._maker is not None:
            self.engine.close()
            self.store.close()
            self._maker.close()
        self.engine = self.store = self._maker = self.outcome = None

    def restart(self, policy: Policy | None = None) -> "Daemon":
        self.stop()
        return self.start(policy)

    def tick(self) -> Outcome:
        assert self.engine is not None
        self.outcome = self.engine.tick()
        self.site.observe(self)
        return self.outcome

    def settle(self, *, wait: bool = True) -> None:
        """Tick until nothing is left to do at this moment. ``wait``: for the workers, too."""
        assert self.engine is not None
        outcome = None
        for _ in range(TICKS_AT_ONE_MOMENT):
            outcome = self.tick()
            deliveries = self.engine.deliveries
            if wait and deliveries.under_way:
                while deliveries.done.qsize() + deliveries.gone.qsize() < len(deliveries.under_way):
                    assert self._wake.wait(HANG_SECONDS), "a delivery hangs"
                    self._wake.clear()
                continue
            if not outcome.more and outcome.next_due > self.site.clock.wall:
                return
        raise AssertionError(f"it spins: {outcome}, faults {dict(self.run.faults)}")

    def load(self, policy: Policy) -> None:
        """Reload the config, as on SIGHUP."""
        assert self.engine is not None
        self.engine.load_policy(policy, self.site.clock.read())
        self.site.policy = policy
        self.settle()

    def jwks(self, name: str = "default") -> Path:
        return self.tree / "keysets" / name / "jwks.json"

    def kids(self, name: str = "default") -> list[str]:
        """Return the kids that a verifier finds published now."""
        if not self.jwks(name).exists():
            return []
        return [key["kid"] for key in json.loads(self.jwks(name).read_bytes())["keys"]]


@dataclass(frozen=True)
class Version:
    """A published set, from ``since`` (true time) on."""

    since: datetime
    kids: frozenset[str]


@dataclass
class Site:
    """One installation."""

    root: Path
    policy: Policy = field(init=False)
    clock: FakeClock = field(default_factory=FakeClock)
    log: RecordingLog = field(default_factory=RecordingLog)
    heartbeat: timedelta = HEARTBEAT
    daemons: dict[str, Daemon] = field(default_factory=dict)
    history: dict[tuple[str, str], list[Version]] = field(default_factory=dict)
    """By replica and keyset."""
    tokens: dict[str, Parcel] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    revoked: set[str] = field(default_factory=set)
    """Kids and jtis of which nothing is promised any more."""
    checked: int = 0
    _held: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        make_kek_file(self.kek)
        self.policy = self.usual()

    # ---------------------------------------------------------------------------------------------------- surroundings

    @property
    def database(self) -> Path:
        return self.root / "rotator.db"

    @property
    def kek(self) -> Path:
        return self.root / "kek"

    @property
    def main(self) -> Daemon:
        return self.daemon("local")

    def daemon(self, name: str) -> Daemon:
        if name not in self.daemons:
            self.daemons[name] = Daemon(self, name)
        return self.daemons[name]

    def sink(self, name: str) -> FileSink:
        return FileSink(str(self.root / "delivered" / name / "token"))

    def usual(self, *names: str) -> Policy:
        """Return one keyset and two workspaces (or those named), each with a file sink."""
        return policy_of([keyset()], [workspace(name, self.sink(name)) for name in names or ("acme", "umbrella")])

    def running(self) -> Iterator[Daemon]:
        return (daemon for daemon in self.daemons.values() if daemon.engine is not None)

    def close(self) -> None:
        for daemon in self.daemons.values():
            daemon.stop()

    # ------------------------------------------------------------------------------------------------------------ time

    def advance(self, span: timedelta, *, pace: timedelta | None = None) -> None:
        """Let ``span`` pass, ticking whenever something is due, but no oftener than ``pace``, and at the end."""
        pace = span / 20 if pace is None else pace
        end = self.clock.true + span
        while self.clock.true < end:
            dues = [daemon.outcome.next_due for daemon in self.running() if daemon.outcome is not None]
            wait = max(min(dues, default=self.clock.wall + span) - self.clock.wall, pace, timedelta(microseconds=1))
            self.clock.elapse(min(wait, end - self.clock.true))
            for daemon in list(self.running()):
                daemon.settle()

    # ---------------------------------------------------------------------------------------------------------- oracle

    def observe(self, daemon: Daemon) -> None:
        """Note what is published and delivered now, and check every live token against every copy still in use."""
        for path in daemon.tree.glob("keysets/*/jwks.json"):
            versions = self.history.setdefault((daemon.name, path.parent.name), [])
            kids = frozenset(key["kid"] for key in json.loads(path.read_bytes())["keys"])
            if not versions or versions[-1].kids != kids:
                versions.append(Version(self.clock.true, kids))
        new = daemon.post.delivered[self._held.get(daemon.name, 0) :]
        self._held[daemon.name] = len(daemon.post.delivered)
        for parcel in new:
            if parcel.jti not in self.tokens:
                self.tokens[parcel.jti] = parcel
                self._verify(daemon, parcel)
        self._check(daemon)

    def _check(self, daemon: Daemon) -> None:
        now = self.clock.true
        known = {
            keyset: frozenset.intersection(*copies)
            for (replica, keyset) in self.history
            if replica == daemon.name and (copies := self.copies(replica, keyset))
        }
        for jti, parcel in list(self.tokens.items()):
            if parcel.expires_at <= now or {jti, parcel.kid} & self.revoked:
                del self.tokens[jti]
                continue
            self.checked += 1
            if not any(parcel.kid in kids for kids in known.values()):
                self.refused.append(f"{now}: {parcel.workspace} #{parcel.sequence} on {parcel.kid}, known {known}")

    def copies(self, replica: str, keyset: str) -> list[frozenset[str]]:
        """Return the sets that a verifier of this tree may hold now: none that ended more than its cache ago."""
        versions = self.history[replica, keyset]
        ends = [*(version.since for version in versions[1:]), None]
        oldest = self.clock.true - MAX_CACHE
        return [version.kids for version, end in zip(versions, ends, strict=True) if end is None or end > oldest]

    def _verify(self, daemon: Daemon, parcel: Parcel) -> None:
        """Verify a fresh token as a verifier would, from what is published now."""
        text = parcel.token.reveal()
        kid = jwt.get_unverified_header(text)["kid"]
        for path in daemon.tree.glob("**/jwks.json"):
            for key in json.loads(path.read_bytes())["keys"]:
                if key["kid"] == kid:
                    claims = jwt.decode(
                        text,
                        jwt.PyJWK(key),
                        algorithms=["ES256", "EdDSA", "RS256"],
                        audience="api",
                        options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
                    )
                    assert claims["jti"] == parcel.jti
                    return
        if kid not in self.revoked:
            self.refused.append(f"{parcel.workspace} #{parcel.sequence}: {kid} is not published")

    def announced_for(self, kid: str, replica: str = "local", keyset: str = "default") -> timedelta:
        """Return for how long (true time) ``kid`` has been in the tree without a break, until now."""
        since = None
        for version in self.history[replica, keyset]:
            since = (since or version.since) if kid in version.kids else None
        return timedelta(0) if since is None else self.clock.true - since

    # ------------------------------------------------------------------------------------------------------- the state

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database, timeout=HANG_SECONDS)) as connection:
            return connection.execute(sql, parameters).fetchall()

    def meddle(self, sql: str, *parameters: object) -> None:
        """Change the database behind the back of the daemon, as a vandal: the MACs of the rows stay what they were."""
        with closing(sqlite3.connect(self.database, timeout=HANG_SECONDS)) as connection, connection:
            assert connection.execute(sql, parameters).rowcount > 0

    def rewrite(self, table: str, where: str, /, *parameters: object, **values: object) -> None:
        """Change rows as a rightful writer: their MACs hold afterwards, as nobody without the KEK can make them."""
        integrity = Integrity(SourcedKeyring(lambda: read_ring_file(self.kek)).unlock(()))
        with closing(sqlite3.connect(self.database, timeout=HANG_SECONDS)) as connection, connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute(f"SELECT rowid, * FROM {table} WHERE {where}", parameters).fetchall()  # noqa: S608 - our own names
            assert rows
            for row in rows:
                after = {**row, **values}
                sealed = integrity.seal_token(after) if table == "tokens" else integrity.seal(table, after)
                new = {**values, **sealed}
                changes = ", ".join(f"{column} = ?" for column in new)
                connection.execute(f"UPDATE {table} SET {changes} WHERE rowid = ?", (*new.values(), row["rowid"]))  # noqa: S608

    @contextmanager
    def reader(self) -> Iterator[SqlStore]:
        store = open_store(f"sqlite:///{self.database}", create=False, read_only=True)
        try:
            yield store
        finally:
            store.close()

    def audit(self) -> list[AuditRow]:
        with self.reader() as store, store.read() as snapshot:
            return list(snapshot.audit())

    def events(self, *names: EventName) -> list[AuditRow]:
        return [row for row in self.audit() if row.event.name in names]

    def signing_keys(self, *phases: Phase) -> list[SigningKey]:
        with self.reader() as store, store.read() as snapshot:
            return [row.key for row in snapshot.all_keys() if not phases or row.key.phase in phases]

    def active(self, name: str = "default") -> Kid | None:
        found = [key.kid for key in self.signing_keys(Phase.ACTIVE) if key.keyset == name]
        assert len(found) <= 1
        return found[0] if found else None

    def chain(self) -> Broken | None:
        """Return where the audit chain is broken, if it is."""
        with self.reader() as store, store.read() as snapshot:
            head = snapshot.audit_head()
            return verify_chain(snapshot.audit(), Mark(head.anchor_seq, head.anchor_hash), Mark(head.seq, head.hash))

    def ask(
        self, kind: str, daemon: Daemon | None = None, secret: bytes | None = None, /, **arguments: Detail
    ) -> RequestRow:
        """Store a request as the control socket does, let the daemon tick, and return what became of it."""
        number = self.accept(kind, daemon, secret, **arguments).id
        (daemon or self.main).settle()
        return self.answer(number)

    def submit(self, kind: str, daemon: Daemon | None = None, /, **arguments: Detail) -> int:
        return self.accept(kind, daemon, **arguments).id

    def accept(
        self, kind: str, daemon: Daemon | None = None, secret: bytes | None = None, /, **arguments: Detail
    ) -> RequestRow:
        """Store a request as the control socket does: by a daemon that runs, whoever carries it out.

        Where none does, it is stored as by one that is killed before its first tick.
        """
        by = daemon or next(self.running(), None)
        if by is None:
            request = self.accept(kind, self.main.start(settle=False), secret, **arguments)
            self.main.stop()
            return request
        draft = RequestRow(
            id=0,
            kind=kind,
            arguments=arguments,
            actor="ada(1000)",
            uid=1000,
            reason="because",
            created_at=self.clock.wall,
        )
        return accept(by.run, draft, self.clock.read(), secret)

    def answer(self, number: int) -> RequestRow:
        with self.reader() as store, store.read() as snapshot:
            request = snapshot.request(number)
        assert request is not None
        return request

    def held(self, name: str) -> str:
        """Return the token that the sink of workspace ``name`` holds now."""
        return Path(self.sink(name).path).read_text().strip()

    def held_sequence(self, name: str) -> int:
        jti = jwt.decode(self.held(name), options={"verify_signature": False})["jti"]
        return int(self.query("SELECT sequence FROM tokens WHERE jti = ?", jti)[0][0])

    def assert_sound(self) -> None:
        """Hold what must hold at the end of every story."""
        assert self.refused == []
        assert self.chain() is None
        anonymous = [row for row in self.audit() if (row.event.actor == "rotator") == ("command" in row.event.details)]
        assert anonymous == [], "what a person caused names the command, and nothing else does"
        twice = {subject: number for subject, number in self.once().items() if number > 1}
        assert twice == {}

    def once(self) -> Mapping[tuple[str, str], int]:
        """Count the events that one key, token or keyset can have but once."""
        counted: Counter[tuple[str, str]] = Counter()
        for row in self.audit():
            event = row.event
            if event.name.startswith("key.") and event.kid:
                counted[event.name, event.kid] += 1
            elif event.name in (EventName.TOKEN_ISSUED, EventName.TOKEN_RETIRED, EventName.TOKEN_REVOKED):
                counted[event.name, event.jti or ""] += 1
        return counted


def tokens_in_order(parcels: Sequence[Parcel]) -> bool:
    """Tell whether each workspace's sequence only ever grew."""
    last: dict[str, int] = {}
    for parcel in parcels:
        if parcel.sequence < last.get(parcel.workspace, 0):
            return False
        last[parcel.workspace] = parcel.sequence
    return True
