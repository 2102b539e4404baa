"""A world that can be stopped before any durable step, and goes on from what a disk could hold then.

One telling of a story is recorded: before each durable step, an image of the disk is kept for each :class:`Loss`, with
what the oracles know at that moment. Each image is then put back, the daemon starts on it, and the story goes on as
people would let it. A key that is made anew in each telling makes no difference, for no telling is compared to another.
"""

import contextlib
import copy
import json
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import sqlalchemy as sa

from rotator.core.model import FailureDomain
from rotator.core.policy import Policy
from rotator.engine.carrying import Deliveries
from rotator.engine.run import Outcome
from rotator.ports import AuditRow, Bring, Errand, Parcel, Store
from tests.crash.disk import CrashingDisk, Image, Loss, write_image
from tests.engine.site import MINUTE, SECOND, Daemon, FakeClock, Post, RecordingLog, Site, Version

Answer = TypeVar("Answer")


class AtOnce(ThreadPoolExecutor):
    """Does each piece of work when it is given, so that the order of steps is that of the program."""

    def submit(self, fn: Callable[..., Answer], /, *args: Any, **kwargs: Any) -> Future[Answer]:
        future: Future[Answer] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class WatchedStore:
    """A store whose emptying of the log is a step. Its commits are seen where they are made, by SQLAlchemy."""

    def __init__(self, store: Store, step: Callable[[str, str], None]) -> None:
        self._store = store
        self._step = step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def purge_erased(self) -> bool:
        self._step("checkpoint", "")
        return self._store.purge_erased()


@dataclass
class WatchedPost(Post):
    """A courier that tells when a delivery begins: from then on somebody may use the token."""

    begins: Callable[[Parcel], None] = lambda _parcel: None

    def take(self, domain: FailureDomain, errand: Errand, bring: Bring) -> None:
        self.begins(errand.parcel)
        super().take(domain, errand, bring)


@dataclass
class WatchedLog(RecordingLog):
    begins: Callable[[], None] = lambda: None

    def audit(self, rows: Sequence[AuditRow]) -> None:
        self.begins()
        super().audit(rows)


@dataclass
class WatchedDaemon(Daemon):
    """A daemon whose every durable step is seen."""

    step: Callable[[str, str], None] = lambda _kind, _path: None
    begins: Callable[[Parcel], None] = lambda _parcel: None
    ticked: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.post = WatchedPost(self.post.real, begins=self.begins)

    def start(self, policy: Policy | None = None, *, settle: bool = True) -> Daemon:
        super().start(policy, settle=False)
        assert self.engine is not None
        assert self.store is not None
        self.run.key_makers = lambda: AtOnce(1)
        self.engine.deliveries = Deliveries(self._wake.set, files=AtOnce(1), commands=AtOnce(1))
        self.run.around = replace(self.run.around, store=cast("Store", WatchedStore(self.store, self.step)))
        if settle:
            self.settle()
        return self

    def tick(self) -> Outcome:
        outcome = super().tick()
        self.ticked()
        return outcome


@dataclass(frozen=True)
class Memory:
    """What the oracles know, and where time stands."""

    clock: FakeClock
    policy: Policy
    history: dict[tuple[str, str], list[Version]]
    tokens: dict[str, Parcel]
    revoked: set[str]
    logged: list[AuditRow]
    sealed: dict[str, bytes]
    generations: dict[tuple[str, int], set[str]]
    active: frozenset[str]
    """The keys that sign; none is known while the database is older than the tree."""
    notes: dict[str, object]


@dataclass(frozen=True)
class Point:
    """A moment at which the machine may stop: before a durable step."""

    number: int
    step: tuple[str, str]
    images: dict[Loss, Image]
    memory: Memory

    def __str__(self) -> str:
        kind, path = self.step
        return f"#{self.number} before {kind} {path}".rstrip()


@dataclass
class World:
    """A site with one daemon, whose durable steps can be recorded."""

    root: Path
    site: Site = field(init=False)
    points: list[Point] | None = None
    """Those recorded; None while nothing is."""
    sealed: dict[str, bytes] = field(default_factory=dict)
    """Every sealed private half that was ever seen, by kid."""
    generations: dict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    """The digests that were published under each generation of a keyset: never two."""
    notes: dict[str, object] = field(default_factory=dict)
    """What a story remembers."""
    _disk: CrashingDisk = field(init=False)
    _before: tuple[int, str] | None = None
    _watcher: sqlite3.Connection | None = None

    def __post_init__(self) -> None:
        self.site = Site(self.root)
        self.site.log = WatchedLog(begins=lambda: self.step("log", ""))
        self._fresh()
        sa.event.listen(sa.Engine, "commit", self._commits)

    def close(self) -> None:
        sa.event.remove(sa.Engine, "commit", self._commits)
        self.site.close()
        self._forget_database()
        self._disk.close()

    def _fresh(self) -> None:
        self._disk = CrashingDisk(self.root, self.step)
        self.site.daemons = {
            "local": WatchedDaemon(
                self.site,
                "local",
                tree_disk=self._disk,
                disk=self._disk,
                step=self.step,
                begins=self._token_is_out,
                ticked=self.note,
            )
        }
        self.site._held = {}

    @property
    def disk(self) -> CrashingDisk:
        return self._disk

    @property
    def daemon(self) -> Daemon:
        return self.site.main

    # -------------------------------------------------------------------------------------------------------- the steps

    def _commits(self, _connection: sa.Connection) -> None:
        self.step("commit", "")

    def _token_is_out(self, parcel: Parcel) -> None:
        self.step("deliver", parcel.workspace)
        if parcel.jti not in self.site.tokens:
            self.site.tokens[parcel.jti] = parcel
            self.site._verify(self.daemon, parcel)

    def step(self, kind: str, path: str) -> None:
        """Look at the world before a durable step; keep an image if they are recorded."""
        if self.points is None:
            return
        self.look()
        self._only_commits_change_the_database(kind)
        self.points.append(
            Point(
                len(self.points) + 1,
                (kind, path.removeprefix(f"{self.root}/")),
                {loss: self._disk.image(loss) for loss in Loss},
                self._memory(),
            )
        )

    def _only_commits_change_the_database(self, kind: str) -> None:
        """Notice a commit that was no step: SQLite counts those of others for each connection."""
        if self._watcher is None:
            if not self.site.database.exists():
                return
            self._watcher = sqlite3.connect(self.site.database, isolation_level=None)
        (version,) = self._watcher.execute("PRAGMA data_version").fetchone()
        if self._before is not None and self._before[0] != version:
            assert self._before[1] in ("commit", "checkpoint"), f"before {kind}: the database changed without a step"
        self._before = version, kind

    def _forget_database(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
        self._watcher = self._before = None

    def look(self) -> None:
        """Hold every live token against every copy of the set in use, and note what is out."""
        self.site.observe(self.daemon)
        self.note()

    def note(self) -> None:
        """Note what is published and sealed."""
        for path in self.daemon.tree.glob("keysets/*/jwks.meta.json"):
            document = json.loads(path.read_bytes())
            if "generation" in document:  # what is left of a set that keys were taken out of has no number
                self.generations[path.parent.name, document["generation"]].add(document["sha256"])
        self.sealed |= dict(self._query("SELECT kid, sealed FROM signing_keys WHERE sealed IS NOT NULL"))

    def _active(self) -> frozenset[str]:
        return frozenset(kid for (kid,) in self._query("SELECT kid FROM signing_keys WHERE phase = 'active'"))

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask a database that may not be there yet."""
        try:
            return self.site.query(sql) if self.site.database.exists() else []
        except sqlite3.OperationalError:
            return []

    def _memory(self) -> Memory:
        site = self.site
        return Memory(
            clock=copy.copy(site.clock),
            policy=site.policy,
            history={key: list(versions) for key, versions in site.history.items()},
            tokens=dict(site.tokens),
            revoked=set(site.revoked),
            logged=list(site.log.audited),
            sealed=dict(self.sealed),
            generations={key: set(digests) for key, digests in self.generations.items()},
            active=frozenset() if "put back" in self.notes else self._active(),
            notes=dict(self.notes),
        )

    @contextlib.contextmanager
    def recorded(self) -> Iterator[list[Point]]:
        """Keep an image before each durable step in the block, and one after the last."""
        points: list[Point] = []
        self.points = points
        try:
            yield points
            self.step("end", "")
        finally:
            self.points = None
            self._forget_database()

    # -------------------------------------------------------------------------------------------------------- crashing

    def return_to(self, point: Point, loss: Loss) -> None:
        """Let the machine have stopped at ``point``; the daemon does not run yet."""
        site, memory = self.site, point.memory
        site.close()
        self._forget_database()
        self._disk.close()
        for path in self.root.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        write_image(self.root, point.images[loss])
        site.clock = copy.copy(memory.clock)
        site.policy = memory.policy
        site.history = {key: list(versions) for key, versions in memory.history.items()}
        site.tokens, site.revoked, site.refused = dict(memory.tokens), set(memory.revoked), []
        site.log.audited, site.log.events = list(memory.logged), []
        self.sealed = dict(memory.sealed)
        self.generations = defaultdict(set, {key: set(digests) for key, digests in memory.generations.items()})
        self.notes = dict(memory.notes)
        self._fresh()
        if loss is Loss.NONE:
            site.clock.elapse(SECOND)
        else:
            site.clock.reboot(MINUTE)
        self.look()  # the web server went on, or came back before the daemon

    def advance_until(self, moment: timedelta, *, pace: timedelta) -> None:
        """Go on until ``moment`` after the beginning of all."""
        left = self.since_the_beginning(moment)
        if left > timedelta(0):
            self.site.advance(left, pace=pace)

    def since_the_beginning(self, moment: timedelta) -> timedelta:
        return moment - (self.site.clock.true - FakeClock().true)
