"""Real processes of `rotator` without the second that each interpreter needs to import it.

One process imports everything, and forks for each command: a process of its own, with its own arguments, environment,
working directory and streams. It ends as `python -m rotator` does, can be signalled and killed, and is killed by the
kernel when the test runner is gone. Only the interpreter's own start is not its own: a test that is about that (closed
streams, what is imported when) begins one with ``subprocess``.

Run as a script this is the process that forks, on behalf of :class:`Rotator`.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import inspect
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import rotator
from rotator.cli import main as rotator_main
from tests.surroundings import leave_them

ROOT: Final = Path(__file__).resolve().parent.parent
_LARGEST: Final = 1 << 17
_PR_SET_PDEATHSIG: Final = 1
_PARAMETERS: Final = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined] # not in the stubs


# --------------------------------------------------------------------------------------------------- the test's side


class _Forker:
    """The process that forks for this test process; begun when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._owner = 0

    def fork(self, command: Mapping[str, object], streams: Sequence[int]) -> tuple[int, int]:
        """Return the pid, and a descriptor from which the exit status can be read."""
        ours, theirs = os.pipe()
        try:
            with self._lock:
                socket.send_fds(self._reach(), [json.dumps(command).encode()], [*streams, theirs])
        finally:
            os.close(theirs)
        return _read_number(ours), ours

    def _reach(self) -> socket.socket:
        if self._channel is None or self._owner != os.getpid():  # a test that forked has no share in it
            self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._owner = os.getpid()
            atexit.register(self._channel.close)
            with theirs:
                forker = [sys.executable, "-m", "tests.forking", str(theirs.fileno())]
                # It ends when the channel does. Begun by a shell that does not wait: nobody here has to reap it.
                subprocess.run(
                    ["/bin/sh", "-c", '"$@" </dev/null &', "sh", *forker],
                    pass_fds=[theirs.fileno()],
                    cwd=ROOT,
                    check=True,
                )
        return self._channel


FORKER: Final = _Forker()


def _read_number(fd: int) -> int:
    read = b""
    while not read.endswith(b"\n"):
        part = os.read(fd, 1)  # no more: what comes next is for later
        if not part:
            raise ChildProcessError("the process that forks `rotator` for the tests has ended")
        read += part
    return int(read)


class Rotator(subprocess.Popen[Any]):
    """`rotator ARGUMENTS` as a process. All but the program is given as to ``subprocess.Popen``."""

    _ending = -1

    def __init__(self, arguments: Sequence[str], **options: Any) -> None:
        super().__init__(list(arguments), **options)

    def _execute_child(self, *given: Any) -> None:
        of = _PARAMETERS.bind(self, *given).arguments
        streams = [of["p2cread"], of["c2pwrite"], of["errwrite"]]
        command = {
            "arguments": of["args"],
            "environ": dict(os.environ if of["env"] is None else of["env"]),
            "directory": os.fspath(of["cwd"] or Path.cwd()),
            "new_session": bool(of["start_new_session"]),
        }
        self.pid, self._ending = FORKER.fork(command, [max(fd, number) for number, fd in enumerate(streams)])
        self._child_created = True
        # What subprocess opened for the child alone; what the test gave is the test's to close.
        pairs = ((of["p2cread"], of["p2cwrite"]), (of["c2pwrite"], of["c2pread"]), (of["errwrite"], of["errread"]))
        for child_end, our_end in pairs:
            if our_end != -1:
                os.close(child_end)
        devnull = getattr(self, "_devnull", None)
        if devnull is not None:
            os.close(devnull)
        self._closed_child_pipe_fds = True

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        return self._ended_within(0)

    def _wait(self, timeout: float | None) -> int:
        code = self._ended_within(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def _ended_within(self, seconds: float | None) -> int | None:
        with self._waitpid_lock:  # type: ignore[attr-defined] # not in the stubs
            if self.returncode is None and select.select([self._ending], [], [], seconds)[0]:
                self.returncode = os.waitstatus_to_exitcode(_read_number(self._ending))
                os.close(self._ending)
        return self.returncode


def run(
    arguments: Sequence[str], *, timeout: float | None = None, check: bool = False, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """Run `rotator ARGUMENTS` to its end; the options are those of ``subprocess.run``."""
    if options.pop("capture_output", False):
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    given = options.pop("input", None)
    if given is not None:
        options["stdin"] = subprocess.PIPE
    with Rotator(arguments, **options) as process:
        try:
            out, err = process.communicate(given, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


# ------------------------------------------------------------------------------------------- the process that forks


def _serve(channel: socket.socket) -> None:
    """Fork for each message until the channel is closed; the children that still run then are killed."""
    endings: dict[int, int] = {}
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([channel.fileno(), woken], [], [])
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
            _reap(endings)
        if channel.fileno() in ready:
            message, fds, _, _ = socket.recv_fds(channel, _LARGEST, 4)
            if not message:
                break
            *streams, ending = fds
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for fd in (channel.detach(), woken, wakes, ending, *endings.values()):
                    os.close(fd)
                _become(json.loads(message), streams)
            for fd in streams:
                os.close(fd)
            endings[pid] = ending
            with contextlib.suppress(BrokenPipeError):
                os.write(ending, b"%d\n" % pid)
    for pid in endings:
        os.kill(pid, signal.SIGKILL)


def _reap(endings: dict[int, int]) -> None:
    while endings:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        fd = endings.pop(pid)
        with contextlib.suppress(BrokenPipeError):  # nobody asks any more
            os.write(fd, b"%d\n" % status)
        os.close(fd)


def _become(command: Mapping[str, Any], streams: Sequence[int]) -> NoReturn:
    """Be `python -m rotator` in this process."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if command["new_session"]:
        os.setsid()
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    for fd in streams:
        if fd > 2:
            os.close(fd)
    os.chdir(command["directory"])
    os.environ.clear()
    os.environ.update(command["environ"])
    sys.argv = [str(ROOT / "rotator" / "__main__.py"), *command["arguments"]]
    unbuffered = bool(command["environ"].get("PYTHONUNBUFFERED"))
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - the standard stream
    for number, name in ((1, "stdout"), (2, "stderr")):
        terminal = os.isatty(number)
        stream = open(  # noqa: SIM115 - as above
            number,
            "w",
            encoding="utf-8",
            errors="strict" if number == 1 else "backslashreplace",
            buffering=1 if terminal or unbuffered or number == 2 else -1,
            closefd=False,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.modules["__main__"].__package__ = "rotator"  # from which the command line takes the program's name
    code = 1
    try:
        code = rotator_main()
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
    except BaseException:  # noqa: BLE001 - as an interpreter does
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined] # all that an interpreter does at its end, but for taking
    atexit._run_exitfuncs()  # everything apart that it has: that is another half second
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)


def _import_everything() -> None:
    for found in pkgutil.walk_packages(rotator.__path__, "rotator."):
        if not found.name.endswith(".__main__") and ".migrations." not in found.name:
            importlib.import_module(found.name)
    for name in ("alembic.command", "sqlalchemy.dialects.sqlite", "sqlalchemy.dialects.postgresql.psycopg"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


if __name__ == "__main__":
    leave_them()  # the shell that began it in the background made it deaf to Ctrl-C, for one
    os.setsid()  # a Ctrl-C at the terminal is for the test runner, which ends what it began
    _import_everything()
    gc.freeze()  # what is shared stays shared
    _serve(socket.socket(fileno=int(sys.argv[1])))
