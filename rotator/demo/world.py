"""A directory with a config of short periods, and the daemon that runs on it.

Neither outlives the demonstration: the daemon is told to stop when the demonstration ends and, by the kernel, when it
is killed.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from rotator.adapters.clock import wall_time
from rotator.config import Config, load
from rotator.errors import RefusedError, RotatorError

MAX_CACHE: Final = timedelta(seconds=2)
"""How long the verifier of the demonstration keeps a copy of the set."""

CONFIG: Final = f"""\
# Made by `rotator demo`. Periods are seconds here; a day, a month or a quarter is what they are meant to be.
issuer: http://localhost:8000
consumers: {{max_cache: {MAX_CACHE.seconds}s}}
clock_skew: 0s
publish: {{lag: 0s}}
log: {{format: json}}
keysets:
  default: {{security_period: 12s, propagation_period: 4s}}
defaults: {{grace_period: 5s, audience: [api]}}
workspaces:
  acme:
    security_period: 5s
    roles: [admin]
    permissions: [metrics:write, logs:write]
    deliver: [file: {{path: delivered/acme/token}}]
  globex:
    security_period: 6s
    permissions: [metrics:read]
    deliver: [file: {{path: delivered/globex/token}}]
  initech:
    security_period: 7s
    roles: [clerk, auditor]
    deliver: [file: {{path: delivered/initech/token}}]
"""

STOP_SECONDS: Final = 10.0

_NOT_OURS: Final = (
    "CREDENTIALS_DIRECTORY",
    "JOURNAL_STREAM",
    "NOTIFY_SOCKET",
    "ROTATOR_CONFIG",
    "ROTATOR_KEK",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
)
"""What would lead the daemon out of its directory, into the state or the KEK of a real one."""

_PR_SET_PDEATHSIG: Final = 1
REMOVED_SECONDS: Final = 0.1
"""After this long a directory that was removed has not come back."""
REMOVALS: Final = 50


@dataclass(frozen=True, slots=True)
class World:
    """A running daemon and where it works."""

    config: Config
    daemon: subprocess.Popen[bytes]
    log: Path

    @property
    def published_set(self) -> Path:
        """Return the path of the set that verifiers fetch."""
        return self.config.settings.publish_directory / ".well-known" / "jwks.json"

    @property
    def token_files(self) -> Mapping[str, Path]:
        """Return where the token of each workspace is delivered."""
        directory = self.config.path.parent / "delivered"
        return {workspace: directory / workspace / "token" for workspace in self.config.policy.workspaces}

    def require_running(self) -> None:
        """Raise :class:`RotatorError` with the end of the log when the daemon is gone."""
        code = self.daemon.poll()
        if code is not None:
            tail = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
            raise RotatorError("\n".join([f"the daemon of the demonstration ended with {code}:", *tail]))


@contextmanager
def open_world(keep: Path | None) -> Iterator[World]:
    """Start a daemon in a directory of its own, which is removed afterwards unless it is ``keep``.

    Raise :class:`RefusedError` where ``keep`` holds something already.
    """
    environ = {name: value for name, value in os.environ.items() if name not in _NOT_OURS}
    with _directory(keep) as directory:
        path, log = directory / "config.yaml", directory / "daemon.log"
        path.write_text(CONFIG, encoding="utf-8")
        config = load(path, environ, now=wall_time())
        with log.open("wb") as output:
            daemon = subprocess.Popen(  # noqa: S603 - this interpreter, with a path that we made
                [sys.executable, "-m", "rotator", "--config", str(path), "run"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environ,
                process_group=0,  # Ctrl-C is for the demonstration, which then stops the daemon
                preexec_fn=_end_with_parent(),  # noqa: PLW1509 - no thread has been started yet
            )
        try:
            yield World(config, daemon, log)
        finally:
            stop(daemon)


def stop(daemon: "subprocess.Popen[bytes]") -> None:
    """Tell the daemon to stop, and see to it that it did."""
    daemon.terminate()
    try:
        daemon.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


@contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        made = Path(tempfile.mkdtemp(prefix="rotator-demo-")).resolve()
        try:
            yield made
        finally:
            _remove(made)
        return
    try:
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        empty = not any(keep.iterdir())
    except OSError as error:
        raise RefusedError(f"--keep: {keep} cannot be used: {error.strerror}; name a directory to be made") from None
    if not empty:
        raise RefusedError(f"--keep: {keep} is not empty; name a directory that is, or one to be made")
    yield keep.resolve()


def _remove(directory: Path) -> None:
    """Remove a directory for good: what a daemon that was killed had write to its sinks ends a moment after it."""
    for _ in range(REMOVALS):
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(REMOVED_SECONDS)
        if not directory.exists():
            return


def _end_with_parent() -> Callable[[], None]:
    """Return what makes a child be told to stop when this process ends, however it does (prctl(2))."""
    libc, parent = ctypes.CDLL(None), os.getpid()

    def bind() -> None:
        with contextlib.suppress(AttributeError):  # a libc without it: the demonstration then ends on its own terms
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)  # it ended before the line above

    return bind
