"""The only place where adapters meet the engine: builds a run out of a config."""

import gc
import os
import pwd
import queue
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from rotator.adapters.calendar import CronCalendar
from rotator.adapters.clock import SystemClock
from rotator.adapters.disk import describe, ensure_directory, lock_directory, require_private
from rotator.adapters.kek import KekRing, ensure_kek_file, read_ring_file, read_ring_value
from rotator.adapters.keyfile import read_jwk
from rotator.adapters.keymaker import CryptographyKeyMaker
from rotator.adapters.process import keep_out_of_dumps
from rotator.adapters.publish import TreePublisher
from rotator.adapters.revocations import FileRevocations
from rotator.adapters.sealing import SourcedKeyring
from rotator.adapters.served import HttpServedSets
from rotator.adapters.sinks import SinkCourier
from rotator.adapters.store import SqlStore, open_store
from rotator.adapters.tokenmaker import JwtMaker
from rotator.adapters.witness import FileWitness
from rotator.config.settings import Config, KekKind, KekSource
from rotator.core.events import Detail
from rotator.core.model import ReplicaId, WorkspaceId
from rotator.core.secret import Secret
from rotator.engine.housekeeping import Chores
from rotator.engine.journal import learn
from rotator.engine.recover import look_beside
from rotator.engine.requests.accepting import accept
from rotator.engine.requests.importing import pack
from rotator.engine.run import Run, Surroundings
from rotator.engine.tick import Engine
from rotator.errors import KekError, RefusedError, WitnessError
from rotator.log import CataloguedLog
from rotator.ports import Answer, EventLog, RequestRow
from rotator.told import told

REPLICA: Final = ReplicaId("local")
"""The one replica of an embedded database. Several on one PostgreSQL will need names of their own."""

WITNESS: Final = "witness.json"

COLLECTED_EVERY: Final = (50_000, 20, 100)
"""Thresholds of the garbage collector: a batch of tokens is that many objects, and none of them is in a cycle."""

SWITCHED_EVERY_SECONDS: Final = 0.001
"""How long a thread that comes back from the database waits for one that computes. Python's own value, five times as
long, is longer than a statement takes, so that storing would stand still while the next batch is sealed."""


@dataclass(frozen=True, slots=True)
class State:
    """An opened and locked state, ready to run an engine on."""

    config: Config
    store: SqlStore
    run: Run
    served: HttpServedSets | None

    def engine(self, wake: Callable[[], None] = lambda: None, *, logs_audit: bool = True) -> Engine:
        """Return an engine on this state; it reads the policy at its first tick.

        ``wake`` is called, from any thread, when there is something to do before the moment that a tick named.
        Without ``logs_audit`` the events of the audit stay due for the log of whoever comes next.
        """
        retention = self.config.settings.retention
        chores = Chores(retention_tokens=retention.tokens, retention_audit=retention.audit)
        if self.served is not None:
            self.served.on_news = wake
        return Engine(self.run, wake=wake, chores=chores, logs_audit=logs_audit)


@contextmanager
def open_state(config: Config, log: EventLog | None = None) -> Iterator[State]:
    """Lock the state directory and open the state for writing, making what a first start needs.

    Raises :class:`RefusedError` where another process works on it or where others could read it.
    """
    settings = config.settings
    with ExitStack() as stack:
        _prepare_state_directory(settings.state_directory)
        lock = stack.enter_context(lock_directory(settings.state_directory))
        store = open_store(settings.state_url, create=True)
        stack.callback(store.close)
        another_came = stack.enter_context(store.alone())
        with store.read() as snapshot:
            new = not snapshot.keks()
        if new:
            _make_kek_if_due(settings.kek)
        served = HttpServedSets(settings.verify_urls) if settings.verify_urls else None
        if served is not None:
            stack.callback(served.close)
        log = log if log is not None else CataloguedLog()
        maker = JwtMaker()
        stack.callback(maker.close)
        runs: list[Run] = []  # the witness is sealed by what the run unlocked, and the run is made of the witness
        witness = FileWitness(settings.state_directory / WITNESS, lambda: runs[0].ready_sealer)
        run = Run(_surroundings(config, store, served, maker, witness, log), config.policy)
        runs.append(run)
        run.lock_lost = lambda: lock.lost() or another_came()
        learn(run, run.around.clock.read().now)
        yield State(config, store, run, served)


def _surroundings(
    config: Config,
    store: SqlStore,
    served: HttpServedSets | None,
    maker: JwtMaker,
    witness: FileWitness,
    log: EventLog,
) -> Surroundings:
    settings = config.settings
    keyring = SourcedKeyring(lambda: read_kek(settings.kek))

    def on_output(workspace: WorkspaceId, text: str) -> None:
        log.event("delivery.output", workspace=workspace, output=text)

    forbidden = [settings.state_directory, settings.publish_directory, config.path, settings.control.socket]
    if settings.kek.file is not None:
        forbidden.append(settings.kek.file)
    return Surroundings(
        replica=REPLICA,
        store=store,
        clock=SystemClock(),
        calendar=CronCalendar(),
        keyring=keyring,
        keymaker=CryptographyKeyMaker(),
        tokenmaker=maker,
        publisher=TreePublisher(
            settings.publish_directory,
            settings.state_directory / "aside",
            state_directory=settings.state_directory,
            max_age=settings.max_cache,
        ),
        courier=SinkCourier(forbidden, on_output),
        witness=witness,
        journal=FileRevocations(settings.state_directory),
        log=log,
        served=served,
    )


def read_kek(source: KekSource) -> KekRing:
    """Read the ring from where the config says that it is; raise :class:`KekError`.

    From then on no dump of this process is made.
    """
    keep_out_of_dumps()
    if source.value is not None:
        return read_ring_value(source.value)
    if source.file is None:
        raise KekError("no key-encryption key is configured")
    return read_ring_file(source.file, strict_mode=source.kind is not KekKind.CREDENTIAL)


def _prepare_state_directory(path: Path) -> None:
    try:
        if not path.exists():
            ensure_directory(path.parent, 0o755)
            ensure_directory(path, 0o700)
        require_private(path)
    except OSError as error:
        raise RefusedError(
            f"the state directory {path} cannot be used: {describe(error)}; make it, owned by this user: "
            + told("install", "-d", "-m", "700", path)
        ) from None


def _make_kek_if_due(source: KekSource) -> None:
    """Make the KEK of a database that has sealed nothing yet, in the one place where we may."""
    if source.may_create and source.file is not None:
        ensure_kek_file(source.file)


def settle(run: Run) -> None:
    """Make ready for the size of the policy that was just loaded.

    It stays until the next reload, so that to search it for garbage again and again is in vain: with 20,000
    workspaces that would be a third of the time that issuing takes.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTED_EVERY)
    sys.setswitchinterval(SWITCHED_EVERY_SECONDS)
    if isinstance(run.around.tokenmaker, JwtMaker):
        run.around.tokenmaker.warm_up(len(run.policy.workspaces))


@contextmanager
def open_readonly(config: Config) -> Iterator[SqlStore]:
    """Open the state for reading only, beside a daemon or without one.

    A database on a server may be there though the state directory is not, which then holds nothing to keep from others.
    """
    directory = config.settings.state_directory
    try:
        require_private(directory)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise RefusedError(f"the state directory {directory} cannot be used: {describe(error)}") from None
    store = open_store(config.settings.state_url, create=False, read_only=True)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def open_copy(config: Config, database: Path, log: EventLog) -> Iterator[Run]:
    """Give a run on a copy of an SQLite database, beside the real witness and tree: to see what a start would do.

    Whoever uses it writes to nothing but that copy.
    """
    with ExitStack() as stack:
        store = open_store(f"sqlite:///{database}", create=False)
        stack.callback(store.close)
        maker = JwtMaker()
        stack.callback(maker.close)
        runs: list[Run] = []
        witness = FileWitness(config.settings.state_directory / WITNESS, lambda: runs[0].ready_sealer)
        run = Run(_surroundings(config, store, None, maker, witness, log), config.policy)
        runs.append(run)
        learn(run, run.around.clock.read().now)
        yield run


def accept_request(run: Run, draft: RequestRow, secret: Secret[str] | None = None) -> RequestRow:
    """Store what a person asks for, with the keys that come with it sealed, and return it as stored.

    Raises :class:`RefusedError` for what is no sound key, and for what is not accepted now.
    """
    keys = None if secret is None else pack(read_jwk(secret, "the key").keys)
    return accept(run, draft, run.around.clock.read(), keys)


ALONE: Final = frozenset({"token.show", "clock.accept"})
"""Requests that need neither the config in force nor the sets published to be carried out."""


@dataclass(frozen=True, slots=True)
class Offline:
    """An engine without a daemon, for one command."""

    engine: Engine
    woken: "queue.SimpleQueue[None]"

    def settle(self) -> None:
        """Do all that is due now, and wait for the deliveries that this begins."""
        outcome = self.engine.tick()
        while outcome.more or not self.engine.idle:
            if not outcome.more:
                self.woken.get()
            outcome = self.engine.tick()

    def submit(
        self, kind: str, arguments: Mapping[str, Detail], reason: str, secret: Secret[str] | None = None
    ) -> tuple[int, Answer | None]:
        """Store a request as the daemon would and carry it out; return its number, and what came of it.

        None: it could not be carried out now. With a number it is stored, and carried out when that is possible.
        """
        run = self.engine.run
        if kind == "token.show":
            self._require_followed()
        uid = os.getuid()
        draft = RequestRow(
            id=0,
            kind=kind,
            arguments=arguments,
            actor=f"{user_name(uid)}({uid})",
            uid=uid,
            reason=reason,
            created_at=run.around.clock.read().now,
        )
        with run.around.store.read() as snapshot, suppress(KekError):  # whoever accepts says so
            run.unlock(run.around.keyring.unlock(snapshot.keks()))
        request = accept_request(run, draft, secret)
        try:
            self._carry_out(request)
            answer = run.answers.wait(request.nonce, timedelta(0))
        finally:
            run.answers.leave(request.nonce)
        return request.id, answer

    def _carry_out(self, request: RequestRow) -> None:
        """Do what was asked for and what it needs: no token is issued, and no delivery is begun only to be ended."""
        engine = self.engine
        if request.kind in ALONE:
            engine.carry_out(request.kind)
            return
        engine.hands_out = False
        try:
            while engine.tick().more and engine.run.answers.wait(request.nonce, timedelta(0)) is None:
                pass  # a start with many keysets takes more ticks than one
        finally:
            engine.hands_out = True

    def _require_followed(self) -> None:
        """Refuse to look at an older database before a start has seen to it.

        What it holds as current may have been replaced since, and to look must not do the work of a start.
        """
        run = self.engine.run
        with run.around.store.read() as snapshot:
            try:
                run.unlock(run.around.keyring.unlock(snapshot.keks()))
                record = run.around.witness.read()
            except (KekError, WitnessError):
                return  # whoever works on the state says so
            if record is not None and record.installation != snapshot.installation():
                return
            known = look_beside(run, snapshot, record)
        if known.behind:
            raise RefusedError(
                f"the database is older than the {known.by}, as a restored backup is, and no start has seen to that "
                "yet: what it has as the current token may not be the one that was issued last. Start the daemon "
                "first, or: rotator run --once"
            )


@contextmanager
def offline(config: Config) -> Iterator[Offline]:
    """Open the state for one changing command, where no daemon runs.

    The log is the daemon's, and no stream of a command is: what is done here gets there when the next one starts.
    """
    with open_state(config) as state:
        woken = queue.SimpleQueue[None]()
        engine = state.engine(lambda: woken.put(None), logs_audit=False)
        try:
            yield Offline(engine, woken)
        finally:
            engine.close()


def user_name(uid: int) -> str:
    """Return the name of a user, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
