"""A token for a command: on its standard input, never in its arguments or environment.

A command is as trusted as the daemon and still kept on a short lead: no shell, a scrubbed environment, a process group
of its own that ends when the command does (what it leaves running there is killed; a daemon that it starts has to call
setsid), output that is drained to its end, of which only the last part is kept, escaped and masked.
"""

import base64
import contextlib
import errno
import fcntl
import json
import os
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import timedelta
from enum import Enum, auto
from typing import Final

from rotator.adapters.command_helper import NOT_EXECUTED, NUMBER
from rotator.adapters.isolated import start_isolated
from rotator.adapters.sink_helper import LENGTH
from rotator.adapters.sinks.file import rfc3339
from rotator.adapters.sinks.helpers import LEFT_BEHIND_AT_MOST
from rotator.core.model import SinkId, WorkspaceId
from rotator.core.policy import CommandSink
from rotator.core.secret import MASK, Secret
from rotator.core.sinks import sink_id
from rotator.errors import DeliveryError, SinkHungError
from rotator.ports import Parcel

TERMINATION_GRACE: Final = timedelta(seconds=2)
"""Between SIGTERM and SIGKILL."""

CLOSING: Final = timedelta(seconds=2)
"""How long the process that starts commands may take to end by itself."""

WINDOW_BYTES: Final = 64 * 1024
"""How much of the end of the output is masked, …"""
KEPT_CHARACTERS: Final = 2048
"""… and how much of that is shown."""

_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/nonexistent",  # so that nothing reads or leaves dotfiles
}


class CommandRunner:
    """Runs command sinks. Safe to use from several threads."""

    def __init__(
        self,
        on_output: Callable[[WorkspaceId, str], None],
        *,
        termination_grace: timedelta = TERMINATION_GRACE,
    ) -> None:
        self._on_output = on_output
        self._termination_grace = termination_grace
        self._cancelled = os.eventfd(0, os.EFD_CLOEXEC)
        self._starter: Final = _Starter()
        self._told: dict[tuple[WorkspaceId, SinkId], int] = {}
        """Hashes of what each sink printed last."""
        self._left: Final = Counter[str]()
        """How many processes that cannot be killed wait in the kernel, by program."""
        self._changing: Final = threading.Lock()

    def __del__(self) -> None:
        os.close(self._cancelled)

    def cancel(self) -> None:
        """End commands that are running now, and each later one at once."""
        os.eventfd_write(self._cancelled, 1)

    def close(self) -> None:
        """End the process that starts commands, and wait for its end."""
        self._starter.close()

    def deliver(self, sink: CommandSink, parcel: Parcel) -> None:
        """Run the command and wait for it; exit status 0 within the timeout means that it took the token.

        Raises :class:`~rotator.errors.DeliveryError` otherwise, of the kind :class:`~rotator.errors.SinkHungError` when
        it had to be killed.
        """
        program = sink.run[0]
        with self._changing:
            left = self._left[program]
        if left >= LEFT_BEHIND_AT_MOST:
            raise SinkHungError(
                f"{program} hangs: {left} processes wait in the kernel and cannot be killed. Nothing more is "
                "tried before they are let go: look at them with ps, and at the file systems that the program needs"
            )
        command, output = self._start(sink, parcel)
        try:
            problem, hung = self._finish(command, sink)
        finally:
            content, cut = output.finish()
            text = printable(content, parcel.token, cut=cut)
        self._tell(sink, parcel.workspace, text)
        if problem:
            raise (SinkHungError if hung else DeliveryError)(f"{program} {problem}")

    def _tell(self, sink: CommandSink, workspace: WorkspaceId, text: str) -> None:
        """Report what was printed, unless it is what the same sink printed the last time."""
        key = workspace, sink_id(sink)
        before = self._told.get(key)
        self._told[key] = hash(text)
        if text and before != hash(text):
            self._on_output(workspace, text)

    def _start(self, sink: CommandSink, parcel: Parcel) -> "tuple[_Command, _Output]":
        """Begin to start the command; return it with its output."""
        try:
            output = _Output()
            try:
                with _filled_pipe(parcel.token.reveal().encode()) as stdin:
                    command = self._starter.start(sink.run, _environment(parcel), stdin, output.write_fd)
                output.close_writer()
            except BaseException:
                output.finish()
                raise
        except OSError as error:
            raise DeliveryError(_not_started(sink, error)) from error
        return command, output

    def _finish(self, command: "_Command", sink: CommandSink) -> tuple[str, bool]:
        """Wait for the end of the command and of its group; return what is wrong, if anything, and whether it hung."""
        give_up_at = time.monotonic() + sink.timeout.total_seconds()
        problem, hung = "", False
        try:
            found = command.wait(self._cancelled, give_up_at)
            if found is not Found.ENDED:
                stopped = found is Found.CANCELLED
                problem, hung = (_STOPPED, False) if stopped else (_timed_out(sink, executed=command.executed), True)
                command.signal(signal.SIGTERM)
                command.wait(None, time.monotonic() + self._termination_grace.total_seconds())
        finally:
            command.signal(signal.SIGKILL)
            found = command.wait(None, time.monotonic() + self._termination_grace.total_seconds())
            if found is not Found.ENDED:
                self._leave(command, sink.run[0])
            else:
                command.close()
        if found is not Found.ENDED:
            return f"{problem}; it cannot be killed (pid {command.pid}), look at it with ps", True
        if command.error is not None:
            return problem or _not_started(sink, command.error).removeprefix(f"{sink.run[0]} "), hung
        return problem or _status_problem(command.status), hung

    def _leave(self, command: "_Command", program: str) -> None:
        """Leave a command behind that is stuck in the kernel, or another user's by setuid: nobody waits for it."""
        with self._changing:
            self._left[program] += 1

        def reap() -> None:
            command.wait(None, None)
            command.close()
            with self._changing:
                self._left[program] -= 1

        threading.Thread(target=reap, name="command-reaper", daemon=True).start()


class _Starter:
    """The process that starts commands: whoever executes a program that lies on a dead mount hangs with it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._changing: Final = threading.Lock()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """End it. What it started goes on."""
        with self._changing:
            self._end()

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            try:
                self._process.wait(CLOSING.total_seconds())
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()  # it touches nothing that it could wait for
        self._socket = self._process = None

    def start(self, run: Sequence[str], environ: Mapping[str, str], stdin: int, output: int) -> "_Command":
        """Have a command started; what comes of that is found by waiting for it."""
        frame = json.dumps([list(run), dict(environ)]).encode()
        with ExitStack() as stack:
            ours, theirs = socket.socketpair()
            stack.callback(theirs.close)
            undone = stack.enter_context(ExitStack())
            undone.callback(ours.close)
            why, to_say = os.pipe()
            stack.callback(os.close, to_say)
            undone.callback(os.close, why)
            self._hand_over([theirs.fileno(), stdin, output, to_say])
            theirs.close()
            with suppress(BrokenPipeError, ConnectionResetError):  # waiting for it finds out
                ours.sendall(LENGTH.pack(len(frame)) + frame)
            undone.pop_all()
            return _Command(ours, why)

    def _hand_over(self, descriptors: Sequence[int]) -> None:
        with self._changing:
            if self._socket is not None:
                try:
                    socket.send_fds(self._socket, [b"+"], descriptors)
                except (BrokenPipeError, ConnectionResetError):
                    self._end()
                else:
                    return
            self._process, self._socket = start_isolated(HELPER)
            socket.send_fds(self._socket, [b"+"], descriptors)


class Found(Enum):
    """What came first."""

    ENDED = auto()
    CANCELLED = auto()
    NOTHING = auto()


class _Command:
    """A command that is being started, or runs, or ended."""

    def __init__(self, connection: socket.socket, why: int) -> None:
        self._socket = connection
        self._why = why
        self.pid = 0
        """Zero before it is known."""
        self.executed = False
        """The program itself runs, or ran."""
        self.error: OSError | None = None
        """Why it does not."""
        self.status: int | None = None
        """With which it ended; None before."""

    def wait(self, cancelled: int | None, until: float | None) -> Found:
        """Wait for its end, until a moment of the monotonic clock, or until ``cancelled`` becomes ready."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not (self.executed or self.error):
            poll.register(self._why, select.POLLIN)
        if cancelled is not None:
            poll.register(cancelled, select.POLLIN)
        while self.status is None or not (self.executed or self.error):
            left = None if until is None else max(0.0, until - time.monotonic()) * 1000
            ready = dict(poll.poll(left))
            if not ready:
                return Found.NOTHING
            if self._why in ready:
                poll.unregister(self._why)
                self._take_why(os.read(self._why, NUMBER.size))
            if self._socket.fileno() in ready:
                self._take_number(self._socket.recv(NUMBER.size, socket.MSG_WAITALL))
                if self.status is not None:
                    poll.unregister(self._socket)
            elif cancelled is not None and cancelled in ready:
                return Found.CANCELLED
        return Found.ENDED

    def _take_why(self, said: bytes) -> None:
        if said:
            number = NUMBER.unpack(said)[0]
            self.error = OSError(number, os.strerror(number))
        else:
            self.executed = True

    def _take_number(self, said: bytes) -> None:
        """Take in its process id, why there is none, or its status."""
        number = NUMBER.unpack(said)[0] if len(said) == NUMBER.size else None
        if number is None:
            self.error = OSError(errno.EMFILE, _NOT_TAKEN)
            self.status = NOT_EXECUTED
        elif self.pid:
            self.status = number
        elif number > 0:
            self.pid = number
        else:
            self.error = OSError(-number, os.strerror(-number))
            self.status = NOT_EXECUTED

    def signal(self, number: signal.Signals) -> None:
        """Signal its group. Its leader is not reaped before :meth:`close`, so the number cannot mean another group."""
        if not self.pid:
            return
        with suppress(PermissionError):  # a member that changed its user; the wait that follows finds out
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:  # it has no group of its own yet, and a program that hangs never gets that far
                with suppress(ProcessLookupError):
                    os.kill(self.pid, number)

    def close(self) -> None:
        """Have it reaped."""
        self._socket.close()
        os.close(self._why)


HELPER: Final = "rotator.adapters.command_helper"
_NOT_TAKEN: Final = "the process that starts commands ended, or has too many open files"

_STOPPED: Final = "was ended because rotator stops; the delivery stays due"


def _timed_out(sink: CommandSink, *, executed: bool) -> str:
    seconds = f"{sink.timeout.total_seconds():g} s"
    if not executed:
        return f"could not be started within {seconds}: see to the file system that it, or its interpreter, lies on"
    return f"did not end within {seconds} and was killed: make it faster, or raise its timeout"


def _environment(parcel: Parcel) -> dict[str, str]:
    return _ENVIRONMENT | {
        "ROTATOR_WORKSPACE": parcel.workspace,
        "ROTATOR_JTI": parcel.jti,
        "ROTATOR_KID": parcel.kid,
        "ROTATOR_SEQUENCE": str(parcel.sequence),
        "ROTATOR_EXPIRES_AT": rfc3339(parcel.expires_at),
    }


def _status_problem(status: int | None) -> str:
    if status is None:
        return ""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name} before it took the token"
    if status:
        return f"exited with status {status}: see its output in the log"
    return ""


def _not_started(sink: CommandSink, error: OSError) -> str:
    program = sink.run[0]
    match error:
        case FileNotFoundError():
            return f"{program} (or the interpreter in its first line) is not there: install it, or mend the path"
        case PermissionError():
            return f"{program} may not be run by this user: check its mode (chmod +x) and that of its directories"
        case OSError(errno=errno.ENOEXEC):
            return f"{program} is no program and has no first line that names its interpreter: begin it with #!/bin/sh"
        case _:
            return f"{program} cannot be run: {error.strerror or error}; see that it is a program of this machine"


@contextlib.contextmanager
def _filled_pipe(content: bytes) -> Iterator[int]:
    """Yield the reading end of a pipe that holds all of ``content``.

    Filled before the command starts, so that it may read when, as much and as slowly as it likes: nothing waits for
    it, and nothing breaks when it closes the pipe unread.
    """
    read_fd, write_fd = os.pipe()
    try:
        try:
            if len(content) > select.PIPE_BUF:  # which is the least that an empty pipe takes
                fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, len(content))
            os.set_blocking(write_fd, False)
            os.write(write_fd, content)
        except OSError as error:
            raise DeliveryError(
                f"a token of {len(content)} bytes does not fit into a pipe ({error.strerror}): "
                "give the workspace fewer roles and permissions"
            ) from error
        finally:
            os.close(write_fd)
        yield read_fd
    finally:
        os.close(read_fd)


class _Output:
    """Drains a pipe in a thread of its own, so that the command never waits for us, and keeps the end of what came."""

    def __init__(self) -> None:
        self._tail = b""
        self._cut = False
        with contextlib.ExitStack() as opened:
            self._read_fd, self.write_fd = os.pipe()
            opened.callback(os.close, self._read_fd)
            opened.callback(self.close_writer)
            self._stop = os.eventfd(0, os.EFD_CLOEXEC)
            opened.callback(os.close, self._stop)
            self._thread = threading.Thread(target=self._drain, name="command-output", daemon=True)
            self._thread.start()
            self._opened = opened.pop_all()

    def close_writer(self) -> None:
        """Leave the writing end to the command alone."""
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def finish(self) -> tuple[bytes, bool]:
        """Return the end of the output and whether there was more, even if a process out of reach still writes."""
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        self._opened.close()
        return self._tail, self._cut

    def _drain(self) -> None:
        os.set_blocking(self._read_fd, False)
        poll = select.poll()
        poll.register(self._read_fd, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        stopping = False
        while not stopping:
            stopping = self._stop in (fd for fd, _ in poll.poll())
            try:
                chunk = os.read(self._read_fd, WINDOW_BYTES)
            except BlockingIOError:
                continue
            if not chunk:
                return
            window = self._tail + chunk
            self._cut = self._cut or len(window) > WINDOW_BYTES
            self._tail = window[-WINDOW_BYTES:]


def printable(output: bytes, token: Secret[str], *, cut: bool = False) -> str:
    """Return the end of ``output`` as one line that is safe to log.

    Whatever shares nine characters in a row with the token, or with the token in base64, in hexadecimal digits or
    backwards, is masked, up to the next character that none of these has. So is whatever is long enough to be a secret
    in an encoding of another kind. Control characters are escaped. ``cut``: ``output`` is itself the end of something
    longer.
    """
    if not output:
        return ""
    secret = token.reveal()
    shreds = {shred for form in _forms(secret) for shred in _shreds(form)}

    def mask(run: re.Match[str]) -> str:
        text = run[0]
        return MASK if len(text) >= _LONG or not shreds.isdisjoint(_shreds(text)) else text

    # Where the output was cut, the first run may be the rest of a token too short to be known as one.
    start = len(secret) if cut else 0
    masked = _RUN.sub(mask, output[start:].decode("utf-8", "backslashreplace"))
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in masked.strip())
    return escaped if len(escaped) <= KEPT_CHARACTERS else f"…{escaped[-KEPT_CHARACTERS:]}"


_SHRED: Final = 9
_LONG: Final = 64
_RUN: Final = re.compile(rf"[A-Za-z0-9_+/-]{{{_SHRED},}}")


def _shreds(text: str) -> Iterator[str]:
    return (text[at : at + _SHRED] for at in range(len(text) - _SHRED + 1))


def _forms(secret: str) -> Iterator[str]:
    """Yield what a secret looks like when tools print it."""
    yield secret
    yield secret[::-1]
    content = secret.encode()
    yield content.hex()
    yield content.hex().upper()
    # Three bytes are four characters, so there are three ways to come out, by how many bytes stand before it. A
    # character that holds bits of these as well belongs to none (RFC 4648 §4). No token has the bits that the two
    # alphabets write differently.
    for before, mixed in ((0, 0), (1, 2), (2, 3)):
        yield base64.b64encode(bytes(before) + content).rstrip(b"=")[mixed:].decode()
