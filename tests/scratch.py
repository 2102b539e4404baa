"""Where tests write: in memory where there is room, for what they write is synced again and again and wanted by nobody.

A run of pytest has one directory for everything, which goes when the run ends, with every process that still works in
it: also when the run is killed, for a process of its own waits for that. What failing tests leave is kept until the
next run.

Run as a script this is that process: ``scratch.py DIRECTORY``. It imports only the standard library.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Final

PREFIX: Final = "rotator-tests-"
_MEMORY: Final = Path("/dev/shm")
_ENOUGH_BYTES: Final = 2_000_000_000
_KEEP: Final = b"keep\n"


def place() -> Path:
    """Return where to make a directory for one purpose: in that of the run, else in memory, else where all do."""
    usual = Path(tempfile.gettempdir())
    return usual if usual.name.startswith(PREFIX) else _memory() or usual


def _memory() -> Path | None:
    """Return a directory in memory with room, where programs can be run; None where this machine has none."""
    try:
        found = os.statvfs(_MEMORY)
    except OSError:
        return None
    usable = os.access(_MEMORY, os.W_OK | os.X_OK) and not found.f_flag & os.ST_NOEXEC
    return _MEMORY if usable and found.f_bavail * found.f_frsize >= _ENOUGH_BYTES else None


class Scratch:
    """The directory of one run."""

    def __init__(self) -> None:
        above = _memory() or Path(tempfile.gettempdir())
        for former in above.glob(f"{PREFIX}*"):
            _remove_if_over(former)
        self.directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=above))
        self.directory.chmod(0o711)  # another user's process, such as a database's, finds its own in it
        self._watch = subprocess.Popen(
            [sys.executable, "-IS", __file__, str(self.directory)], stdin=subprocess.PIPE, start_new_session=True
        )
        os.environ["TMPDIR"] = str(self.directory)  # for all that the run begins, too
        tempfile.tempdir = None

    def close(self, *, keep: bool) -> None:
        """End what still runs there, and remove the directory unless somebody is to look at it."""
        self._watch.communicate(_KEEP if keep else b"")


def _remove_if_over(directory: Path) -> None:
    """Remove what an earlier run of this user left, unless it is still under way."""
    with contextlib.suppress(OSError):
        if directory.stat().st_uid == os.geteuid():
            with (directory / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)


def _watch(directory: Path, runner: IO[bytes]) -> None:
    """Wait until the run is over or its processes are gone, and clear up after it."""
    with (directory / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keep = runner.read() == _KEEP
        _end_all_in(directory)
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


def _end_all_in(directory: Path) -> None:
    """End what works in the directory: politely at first, for a database has shared memory to give back."""
    for attempt in range(100):
        working = _at_work_in(directory)
        if not working:
            return
        for pid in working:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL if attempt > 50 else signal.SIGTERM)
        time.sleep(0.1)


def _at_work_in(directory: Path) -> list[int]:
    """Return the processes, but for this one, that the run began, that name its directory, or that work in it."""
    name = os.fsencode(directory)
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            told = name in (entry / "cmdline").read_bytes() or name in (entry / "environ").read_bytes()
            if (told or (entry / "cwd").readlink().is_relative_to(directory)) and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # they are meant for the run
        signal.signal(number, signal.SIG_IGN)
    _watch(Path(sys.argv[1]), sys.stdin.buffer)
