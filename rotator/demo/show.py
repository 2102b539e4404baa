"""The demonstration from its start to its summary: a live picture on a terminal, a line for each event elsewhere."""

import os
import queue
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Final, TextIO

from rich.console import Console
from rich.live import Live

from rotator.adapters.clock import monotonic_microseconds, wall_time
from rotator.adapters.store import SqlStore
from rotator.demo.picture import Picture
from rotator.demo.scene import Scene, read_scene
from rotator.demo.story import Story
from rotator.demo.summary import Outcome, write_summary
from rotator.demo.verifier import Verifier
from rotator.demo.world import MAX_CACHE, World, open_world, stop
from rotator.errors import RotatorError
from rotator.report.proof import prove
from rotator.wiring import open_readonly

FRAME: Final = timedelta(milliseconds=250)
START_AT_MOST: Final = timedelta(seconds=30)
ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_demo(seconds: int = 60, keep: Path | None = None, stream: TextIO | None = None) -> int:
    """Run a daemon with short periods and show it on ``stream`` (default: stdout) for ``seconds``.

    Its directory is ``keep``, else a temporary one. Return 0 if no token was refused and, where there was the time for
    it, a key was seen from its announcement to its retirement. Raise :class:`RotatorError` when the daemon does not
    start or ends by itself, :class:`KeyboardInterrupt` when the end was asked for before there was anything to see.
    """
    stream = sys.stdout if stream is None else stream
    with _interruptible() as interruption, open_world(keep) as world:
        outcome = _Showing(world, stream, seconds, interruption).run()
        write_summary(stream, outcome, None if keep is None else world.config.path)
    return 0 if not outcome.problems else 1


class _Interruption:
    """That someone asked for an early end. A queue, for it may be set from within a signal handler at any moment."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()

    def ask(self, _number: int, _frame: FrameType | None) -> None:
        """Ask for it; a signal handler."""
        self._asked.put(None)

    def wait(self, longest: timedelta) -> bool:
        """Sleep for ``longest``; return True at once when the end was asked for."""
        try:
            self._asked.get(timeout=max(0.0, longest.total_seconds()))
        except queue.Empty:
            return False
        return True


@contextmanager
def _interruptible() -> Iterator[_Interruption]:
    interruption = _Interruption()
    before = {number: signal.signal(number, interruption.ask) for number in ENDING_SIGNALS}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(slots=True)
class _Showing:
    """One showing."""

    world: World
    stream: TextIO
    seconds: int
    interruption: _Interruption
    story: Story = field(init=False)
    verifier: Verifier = field(init=False)
    _began_us: int = field(default_factory=monotonic_microseconds)

    def __post_init__(self) -> None:
        self.story = Story(self.world.log)
        self.verifier = Verifier.of(self.world, MAX_CACHE)

    def run(self) -> Outcome:
        """Show the daemon until time is up or someone has seen enough, stop it, and say what was seen."""
        interrupted = self._wait_until_ready()
        if interrupted and not self.story.announced:
            raise KeyboardInterrupt  # there is nothing yet to sum up
        self._began_us = monotonic_microseconds()
        if not interrupted:
            with open_readonly(self.world.config) as store, self.verifier.watching():
                interrupted = self._animate(store) if _draws(self.stream) else self._narrate()
        stop(self.world.daemon)
        self.story.follow()
        with open_readonly(self.world.config) as store, store.read() as snapshot:
            proof = prove(snapshot)
        return Outcome(self.story, self.verifier, proof, self._elapsed, self.seconds, interrupted=interrupted)

    @property
    def _elapsed(self) -> timedelta:
        return timedelta(microseconds=monotonic_microseconds() - self._began_us)

    def _wait_until_ready(self) -> bool:
        """Wait for the first tick and its deliveries; return True when the end was asked for before."""
        while True:
            self.world.require_running()
            self._tell()
            if self.story.ready and all(path.exists() for path in self.world.token_files.values()):
                return False
            if self._elapsed > START_AT_MOST:
                raise RotatorError(f"the daemon of the demonstration was not ready within {START_AT_MOST.seconds}s")
            if self.interruption.wait(FRAME / 5):
                return True

    def _tell(self) -> None:
        """Write a line for each event that is new, where there is no picture."""
        for line, sentence in self.story.follow():
            if sentence and not _draws(self.stream):
                self.stream.write(f"{line.at:%H:%M:%S}  {sentence}\n")
        self.stream.flush()

    def _narrate(self) -> bool:
        while (left := timedelta(seconds=self.seconds) - self._elapsed) > timedelta(0):
            if self.interruption.wait(min(FRAME, left)):
                return True
            self.world.require_running()
            self._tell()
        return False

    def _animate(self, store: SqlStore) -> bool:
        console = Console(file=self.stream, highlight=False, markup=False, emoji=False)
        with ExitStack() as stack:
            live = stack.enter_context(Live(console=console, screen=True, auto_refresh=False))
            while (left := timedelta(seconds=self.seconds) - self._elapsed) > timedelta(0):
                self.world.require_running()
                self.story.follow()
                live.update(self._frame(self._scene(store)), refresh=True)
                if self.interruption.wait(min(FRAME, left)):
                    return True
        return False

    def _scene(self, store: SqlStore) -> Scene:
        with store.read() as snapshot:
            return read_scene(snapshot, self.world.config, wall_time())

    def _frame(self, scene: Scene) -> Picture:
        return Picture(
            scene=scene,
            now=wall_time(),
            elapsed=self._elapsed.seconds,
            seconds=self.seconds,
            checks=self.verifier.checks,
            refusals=self.verifier.refusals,
            max_cache=MAX_CACHE,
            log=self.story.lines,
        )


def _draws(stream: TextIO) -> bool:
    """Tell whether ``stream`` is a terminal on which a picture can be drawn."""
    speaks_unicode = (stream.encoding or "").lower().startswith("utf")
    return stream.isatty() and speaks_unicode and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")
