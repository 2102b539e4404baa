"""The daemon: a loop that ticks when something is due, when it is woken, and at each heartbeat.

APScheduler is the alarm clock and nothing more: it wakes the loop at the moment that the last tick named. What is due
is in the database. The loop feeds the watchdog itself, so that a loop that hangs is found out.
"""

import queue
import signal
import threading
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Final, TextIO

from apscheduler.schedulers.background import BackgroundScheduler

from rotator import __version__
from rotator.adapters.clock import SystemClock
from rotator.adapters.notify import Notifier
from rotator.adapters.publish import read_set
from rotator.config import load
from rotator.config.settings import Config, Settings
from rotator.control import ControlServer
from rotator.core.counting import counted
from rotator.core.tokens import SyncSurvey
from rotator.engine.run import Outcome, backoff
from rotator.engine.sync import survey_of
from rotator.engine.tick import Engine
from rotator.errors import RefusedError, RotatorError, StoreError, StoreLostError
from rotator.log import CataloguedLog, configure, log_uncaught
from rotator.ports import EventLog, Reading
from rotator.report import Report, status
from rotator.report.restores import Beside
from rotator.signals import reload_came
from rotator.wiring import State, accept_request, open_state, settle

PATIENCE: Final = timedelta(seconds=5)
"""The longest that the loop sleeps before it feeds the watchdog and looks at the clock itself."""

BREATH: Final = timedelta(milliseconds=50)
"""The shortest sleep: whatever is found due again and again, the machine is left to others."""

RETRY_CEILING: Final = timedelta(seconds=10)
"""The longest wait after a tick that failed as a whole, as when the database is locked."""

MOMENTS_AT_ONCE: Final = 1_000
"""Wakings under way at a time, each in a worker that may be late: no moment is skipped for the one before it."""


class Alarm:
    """Wakes the loop: at a set moment, or at once from any thread or signal handler."""

    def __init__(self) -> None:
        self._wakeups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._scheduler = BackgroundScheduler(timezone=UTC)
        self._scheduler.start()

    def wake(self) -> None:
        """Wake the loop now."""
        self._wakeups.put(None)

    def set(self, at: datetime) -> None:
        """Wake the loop at ``at``, in place of the moment set before."""
        self._scheduler.add_job(
            self.wake,
            "date",
            run_date=at,
            id="due",
            replace_existing=True,
            misfire_grace_time=None,
            max_instances=MOMENTS_AT_ONCE,
        )

    def wait(self, longest: timedelta) -> bool:
        """Sleep until woken, at most ``longest``; tell whether it was woken."""
        try:
            self._wakeups.get(timeout=max(longest.total_seconds(), 0.0))
        except queue.Empty:
            return False
        while not self._wakeups.empty():
            self._wakeups.get_nowait()
        return True

    def close(self) -> None:
        """Stop the scheduler."""
        # Its thread may be amid a moment that has come, and would miss it in a scheduler that is stopped meanwhile: to
        # remove it waits for that, and leaves nothing for a look that begins after it.
        self._scheduler.pause()
        self._scheduler.remove_all_jobs()
        self._scheduler.shutdown(wait=False)


class Loading:
    """A config that is read by a thread of its own, which a stop does not wait for."""

    def __init__(self, read: Callable[[], tuple[Config, SyncSurvey]], wake: Callable[[], None]) -> None:
        self.taken: Config | None = None
        """What was read, once it is in force and only the database has to follow."""
        self._read = read
        self._wake = wake
        self._found: tuple[Config, SyncSurvey] | Exception | None = None
        threading.Thread(target=self._run, name="rotator-config", daemon=True).start()

    @property
    def is_done(self) -> bool:
        """Tell whether it was read, or could not be."""
        return self._found is not None

    def result(self) -> tuple[Config, SyncSurvey]:
        """Return what was read; raise what went wrong."""
        if self._found is None or isinstance(self._found, Exception):
            raise self._found or RuntimeError("asked before it was read")
        return self._found

    def _run(self) -> None:
        try:
            self._found = self._read()
        except Exception as error:  # noqa: BLE001 - raised where the result is asked for
            self._found = error
        self._wake()


@dataclass(slots=True)
class Daemon:
    """One running daemon."""

    config_path: Path
    environ: MutableMapping[str, str]
    alarm: Alarm = field(default_factory=Alarm)
    log: EventLog = field(default_factory=CataloguedLog)
    clock: SystemClock = field(default_factory=SystemClock)
    settings: Settings | None = None
    """Those that the daemon was started with; most of them hold until it is started again."""
    control: ControlServer | None = None
    _reload: bool = False
    _stop: bool = False
    _loading: Loading | None = None
    """A config that is being read beside the loop, or was read and is being brought in step with the database."""
    _failures: int = 0

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit code. Raises :class:`RotatorError` when it cannot start."""
        notifier = Notifier(self.environ)
        config = load(self.config_path, self.environ, now=self.clock.read().now, looks_at_sinks=False)
        configure(config.settings.log.format.value, config.settings.log.level.value, self.environ)
        log_uncaught(self.log)
        with ExitStack() as stack:
            stack.callback(self.alarm.close)
            self.settings = config.settings
            state = stack.enter_context(open_state(config, self.log))
            engine = state.engine(self.alarm.wake)
            stack.callback(engine.close)
            engine.run.stopping = lambda: self._stop
            self._handle_signals()
            for warning in config.warnings:
                self.log.event("config.warning", problem=warning)
            self.log.event("daemon.started", version=__version__, config=str(config.path), config_digest=config.digest)
            settle(engine.run)
            outcome = self._tick(engine)
            # Listens from here on: a first start with many workspaces, or many keys to make, takes some more ticks.
            self.control = stack.enter_context(self._control(state, engine))
            while outcome.more and not engine.ready and not self._stop:
                notifier.watchdog()
                outcome = self._tick(engine)
            notifier.ready(self._status(engine))
            self.log.event("daemon.ready", workspaces=len(config.policy.workspaces), faults=dict(engine.run.faults))
            self._loop(engine, notifier, outcome)
            notifier.stopping()
            self.log.event("daemon.stopping")
        return 0

    def _control(self, state: State, engine: Engine) -> ControlServer:
        return ControlServer(
            settings=state.config.settings.control,
            store=state.store,
            clock=self.clock,
            policy=lambda: engine.run.policy,
            faults=lambda: dict(engine.run.faults),
            wake=self.alarm.wake,
            accept=partial(accept_request, engine.run),
            answers=engine.run.answers,
            log=self.log,
            published_set=partial(read_set, state.config.settings.publish_directory),
            beside=lambda: Beside(
                revoked_kids=engine.run.revoked_kids,
                revoked_jtis=engine.run.revoked_jtis,
                journal=(*engine.run.journal.entries, *engine.run.latest, *engine.run.unwritten),
            ),
        )

    def _handle_signals(self) -> None:
        def stop(_number: int, _frame: FrameType | None) -> None:
            self._stop = True
            self.alarm.wake()

        def reload(_number: int, _frame: FrameType | None) -> None:
            self._reload = True
            self.alarm.wake()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGHUP, reload)
        self._reload = self._reload or reload_came()

    def _loop(self, engine: Engine, notifier: Notifier, outcome: Outcome) -> None:
        patience = min(PATIENCE, notifier.watchdog_interval or PATIENCE)
        ticked = self.clock.read()
        while not self._stop:
            notifier.watchdog()
            if self.control is not None:
                self.control.keep_listening()
            woken = outcome.more
            if not outcome.more:
                self.alarm.set(max(outcome.next_due, self.clock.read().now + BREATH))
                woken = self.alarm.wait(patience)
            if self._stop:
                break
            if self._reload and self._loading is None:
                self._reload = False
                notifier.reloading()
                self._loading = Loading(partial(self._read_anew, engine), self.alarm.wake)
            if self._loading is not None and self._loading.is_done:
                woken = True
                if self._take_over(engine, self._loading):
                    self._loading = None
                    notifier.ready(self._status(engine))
            if woken or has_come(outcome.next_due, self.clock.read(), ticked):
                outcome = self._tick(engine)
                ticked = self.clock.read()
                notifier.status(self._status(engine))

    def _tick(self, engine: Engine) -> Outcome:
        """Tick; a failure of the whole tick, such as a locked database, is logged and tried again soon."""
        try:
            outcome = engine.tick()
        except RefusedError:
            raise  # only a start is refused, and a person must decide
        except StoreLostError as error:
            engine.run.fault("store", str(error), "store.lost")
            raise  # the daemon has to end: see Engine.tick
        except RotatorError as error:
            problem, event = str(error), "store.failed"
        except Exception as error:  # noqa: BLE001 - the edge of a tick: the daemon outlives any fault of its own
            problem, event = f"{type(error).__name__}: {error}\n{traceback.format_exc()}", "tick.failed"
        else:
            self._failures = 0
            engine.run.healed("tick", "tick.recovered")
            return outcome
        self._failures += 1
        engine.run.fault("tick", problem, event)
        return Outcome(self.clock.read().now + backoff(self._failures, RETRY_CEILING, 0.0))

    def _read_anew(self, engine: Engine) -> tuple[Config, SyncSurvey]:
        """Read the config, and count what it changes. Runs beside the loop, and changes nothing."""
        config = load(self.config_path, self.environ, now=self.clock.read().now, looks_at_sinks=False)
        return config, survey_of(engine.run, config.policy)

    def _take_over(self, engine: Engine, loading: Loading) -> bool:
        """Take a config that was read into force, or say why not; tell whether that is over.

        A bad one changes nothing; one that the database did not let in is tried again.
        """
        if loading.taken is not None:
            if engine.applying:
                return False
            self._taken(engine, loading.taken)
            return True
        try:
            config, survey = loading.result()
            engine.load_policy(config.policy, self.clock.read(), doubt=_doubt(config), survey=survey)
        except StoreError as error:
            self._reload = True
            engine.run.fault("tick", str(error), "store.failed")
            return True
        except Exception as error:  # noqa: BLE001 - the edge of a reload: the daemon outlives whatever is wrong with it
            problem = str(error) if isinstance(error, RotatorError) else f"{type(error).__name__}: {error}"
            engine.run.fault("config", problem, "config.refused", again=True, config=str(self.config_path))
            return True
        loading.taken = config
        return self._take_over(engine, loading)

    def _taken(self, engine: Engine, config: Config) -> None:
        settle(engine.run)
        engine.run.healed("config")
        configure(config.settings.log.format.value, config.settings.log.level.value, self.environ)
        if self.control is not None:  # the groups; where the socket is holds until the next start
            socket = self.control.settings.socket
            self.control.settings = replace(config.settings.control, socket=socket)
        engine.chores.retention_tokens = config.settings.retention.tokens
        engine.chores.retention_audit = config.settings.retention.audit
        for warning in (*config.warnings, *_needing_a_restart(self.settings, config.settings)):
            self.log.event("config.warning", problem=warning)
        self.log.event("config.reloaded", config_digest=config.digest, workspaces=len(config.policy.workspaces))

    @staticmethod
    def _status(engine: Engine) -> str:
        faults: Mapping[str, str] = engine.run.faults
        if faults:
            subject, problem = next(iter(faults.items()))
            return f"degraded: {subject}: {problem.splitlines()[0]}"
        workspaces = counted(len(engine.run.policy.workspaces), "workspace")
        return f"{workspaces} on {counted(len(engine.run.signing), 'signing keyset')}"


def has_come(moment: datetime, reading: Reading, since: Reading) -> bool:
    """Tell whether ``moment``, which was named at ``since``, has come: by the wall clock, or by the time that passed.

    A clock that was ahead when the moment was named, and is set right, would not show it for as long as it was ahead.
    """
    return reading.now >= moment or reading.since_boot - since.since_boot >= moment - since.now


RELOADED: Final = frozenset({"log", "retention", "clock_max_gap", "control"})
"""Settings that a reload takes into force, beside the whole of the policy."""


def _needing_a_restart(started: Settings | None, loaded: Settings) -> list[str]:
    """Return a sentence for each changed setting that a running daemon does not take."""
    if started is None:
        return []
    names = [each.name for each in fields(loaded) if each.name not in RELOADED]
    changed = [name.replace("_", ".", 1) for name in names if getattr(started, name) != getattr(loaded, name)]
    if started.control.socket != loaded.control.socket:
        changed.append("control.socket")
    return [f"{name} changed; it takes effect when the daemon is started again" for name in changed]


def _doubt(config: Config) -> str:
    """Return why a config that is sound may still not be meant; empty when there is no doubt."""
    if not config.empty_includes:
        return ""
    return (
        f"{config.path}: include: {', '.join(config.empty_includes)} matches no file. "
        "If that is meant, run `rotator config accept`, or remove the pattern"
    )


def run_once(
    config_path: Path, environ: MutableMapping[str, str], *, log_to: TextIO | None = None
) -> tuple[Outcome, Report]:
    """Do all that is due now, wait for nothing but the deliveries that this begins, and return how things stand."""
    clock = SystemClock()
    config = load(config_path, environ, now=clock.read().now, looks_at_sinks=False)
    configure(config.settings.log.format.value, config.settings.log.level.value, environ, log_to)
    woken = queue.SimpleQueue[None]()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it, too, ends the commands under way
    with open_state(config) as state:
        engine = state.engine(lambda: woken.put(None))
        settle(state.run)
        try:
            outcome = engine.tick()
            while outcome.more or not engine.idle:
                if not outcome.more:
                    woken.get()
                outcome = engine.tick()
        finally:
            engine.close()
        with state.store.read() as snapshot:
            report = status(snapshot, engine.run.policy, clock.read().now, engine.run.faults)
    return outcome, report
