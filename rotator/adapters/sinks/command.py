"""A token for a command: on its standard input, never in its arguments or environment.

A command is as trusted as the daemon and still kept on a short lead: no shell, a scrubbed environment, a process group
of its own that ends when the command does (what it leaves running there is killed; a daemon that it starts has to call
setsid), output that is drained to its end, of which only the last part is kept, escaped and masked.
"""

import base64
import contextlib
import errno
import fcntl
import os
import re
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final

from rotator.adapters.sinks.file import rfc3339
from rotator.core.model import SinkId, WorkspaceId
from rotator.core.policy import CommandSink
from rotator.core.secret import MASK, Secret
from rotator.core.sinks import sink_id
from rotator.errors import DeliveryError, SinkHungError
from rotator.ports import Parcel

TERMINATION_GRACE: Final = timedelta(seconds=2)
"""Between SIGTERM and SIGKILL."""

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
        self._told: dict[tuple[WorkspaceId, SinkId], int] = {}
        """Hashes of what each sink printed last."""

    def __del__(self) -> None:
        os.close(self._cancelled)

    def cancel(self) -> None:
        """End commands that are running now, and each later one at once."""
        os.eventfd_write(self._cancelled, 1)

    def deliver(self, sink: CommandSink, parcel: Parcel) -> None:
        """Run the command and wait for it; exit status 0 within the timeout means that it took the token.

        Raises :class:`~rotator.errors.DeliveryError` otherwise, of the kind :class:`~rotator.errors.SinkHungError` when
        it had to be killed.
        """
        process, pidfd, output = _start(sink, parcel)
        try:
            problem, hung = self._finish(process, pidfd, sink.timeout)
        finally:
            content, cut = output.finish()
            text = printable(content, parcel.token, cut=cut)
        self._tell(sink, parcel.workspace, text)
        if problem:
            raise (SinkHungError if hung else DeliveryError)(f"{sink.run[0]} {problem}")

    def _tell(self, sink: CommandSink, workspace: WorkspaceId, text: str) -> None:
        """Report what was printed, unless it is what the same sink printed the last time."""
        key = workspace, sink_id(sink)
        before = self._told.get(key)
        self._told[key] = hash(text)
        if text and before != hash(text):
            self._on_output(workspace, text)

    def _finish(self, process: "subprocess.Popen[bytes]", pidfd: int, timeout: timedelta) -> tuple[str, bool]:
        """Wait for the end of the command and of its group; return what is wrong, if anything, and whether it hung."""
        problem, hung = "", False
        try:
            ready = _wait((pidfd, self._cancelled), timeout)
            if pidfd not in ready:
                problem, hung = (_STOPPED, False) if ready else (_timed_out(timeout), True)
                _signal_group(process, signal.SIGTERM)
                _wait((pidfd,), self._termination_grace)
        finally:
            _signal_group(process, signal.SIGKILL)
            ended = _wait((pidfd,), self._termination_grace)
            os.close(pidfd)
        if not ended:
            # Stuck in the kernel, or another user's by setuid: the loop must not wait for it, nor leave a zombie.
            threading.Thread(target=process.wait, name="command-reaper", daemon=True).start()
            return f"{problem}; it cannot be killed (pid {process.pid}), look at it with ps", True
        status = process.wait()
        return problem or _status_problem(status), hung


def _start(sink: CommandSink, parcel: Parcel) -> "tuple[subprocess.Popen[bytes], int, _Output]":
    """Start the command; return it with a descriptor that becomes ready at its end, and its output."""
    try:
        output = _Output()
        try:
            with _filled_pipe(parcel.token.reveal().encode()) as stdin:
                process = subprocess.Popen(  # noqa: S603  # argv as the owner of the config wrote it, no shell
                    sink.run,
                    stdin=stdin,
                    stdout=output.write_fd,
                    stderr=output.write_fd,
                    cwd="/",
                    env=_environment(parcel),
                    start_new_session=True,
                )
            output.close_writer()
            try:
                return process, os.pidfd_open(process.pid), output
            except OSError:
                _signal_group(process, signal.SIGKILL)
                process.wait()
                raise
        except BaseException:
            output.finish()
            raise
    except OSError as error:
        raise DeliveryError(_not_started(sink, error)) from error


_STOPPED: Final = "was ended because rotator stops; the delivery stays due"


def _timed_out(timeout: timedelta) -> str:
    return f"did not end within {timeout.total_seconds():g} s and was killed: make it faster, or raise its timeout"


def _signal_group(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Signal the command's group. Its leader is not reaped yet, so the number cannot mean another group."""
    with contextlib.suppress(PermissionError):  # a member that changed its user; the wait that follows finds out
        os.killpg(process.pid, number)


def _environment(parcel: Parcel) -> dict[str, str]:
    return _ENVIRONMENT | {
        "ROTATOR_WORKSPACE": parcel.workspace,
        "ROTATOR_JTI": parcel.jti,
        "ROTATOR_KID": parcel.kid,
        "ROTATOR_SEQUENCE": str(parcel.sequence),
        "ROTATOR_EXPIRES_AT": rfc3339(parcel.expires_at),
    }


def _status_problem(status: int) -> str:
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


def _wait(fds: tuple[int, ...], timeout: timedelta) -> frozenset[int]:
    """Return the descriptors that became ready; none at the timeout."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return frozenset(fd for fd, _ in poll.poll(timeout.total_seconds() * 1000))


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
