"""Starts real daemons quickly: all is imported once, and each life is a fork. Run as a process of its own.

Each line of its input, ``STEP NUMBER CONFIG LOG``, begins a life: `rotator run` as it is, that kills itself by SIGKILL
before its NUMBER-th durable step of the kind STEP (``any``: of all kinds; 0: never). It answers with the pid, and, when
that life has ended, with the status. The steps are those of ``tests.crash.disk``; a write is killed half done.
"""

import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

import rotator.daemon  # noqa: F401 - so that it is there when a life begins
from rotator.adapters.disk import OsDisk
from rotator.adapters.store import SqlStore
from rotator.cli import main as rotator_main

STEPS = ("create", "append", "mkdir", "write", "chmod", "fsync", "rename", "link", "unlink", "fsync_directory")
"""Those of the disk's port; beside them there are ``commit`` and ``checkpoint``."""

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class Fate:
    """Counts the steps of this process, and ends it."""

    def __init__(self, kind: str, number: int) -> None:
        self.kind = kind
        self.left = number

    def step(self, kind: str, last: Callable[[], object] = lambda: None) -> None:
        if self.kind in ("any", kind):
            self.left -= 1
            if self.left == 0:
                last()
                os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """Come before each step of the real adapters."""
        for name in STEPS:
            setattr(OsDisk, name, self._before(name, getattr(OsDisk, name)))
        emptied = SqlStore.purge_erased
        sa.event.listen(sa.Engine, "commit", lambda _connection: self.step("commit"))

        def purge_erased(store: SqlStore) -> bool:
            self.step("checkpoint")
            return emptied(store)

        SqlStore.purge_erased = purge_erased  # type: ignore[method-assign,assignment] # this process is no test, but a victim

    def _before(self, kind: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(disk: OsDisk, *arguments: Any) -> Any:
            half = (lambda: os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])) if kind == "write" else None
            self.step(kind, half or (lambda: None))
            return method(disk, *arguments)

        return stepped


def live(config: str, kind: str, number: int, log: str) -> None:
    """Be the daemon."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if number:
        Fate(kind, number).install()
    code = 70  # whatever was not caught
    try:
        code = rotator_main(["--config", config, "run"])
    finally:
        sys.stdout.flush()
        os._exit(code)


def main() -> None:
    """Begin a life for each line, one at a time."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    gc.freeze()
    for line in sys.stdin:
        kind, number, config, log = line.rstrip("\n").split(" ")
        pid = os.fork()
        if not pid:
            live(config, kind, int(number), log)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
