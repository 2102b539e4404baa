"""Starts the commands of sinks, in a process of its own.

A program that lies on a dead mount cannot be started: whoever executes it waits in the kernel, cannot be killed, and
keeps what it holds. The process that starts a program at once with sharing its memory waits with it. So this one holds
nothing: no lock, no database, no socket but the one to its parent. It copies itself for each command, goes on while a
copy waits, and ends when the parent is gone.

``python -m rotator.adapters.command_helper``, one end of a socket pair as standard input. With each message come four
descriptors: a socket of the command's own, its standard input, its output, and where to say (:data:`NUMBER`) why it
could not be executed, which closes when it is. On the command's socket comes what to run, one frame, its length and
JSON; back go its process id, and once it ended its status (:data:`NUMBER`). It is not reaped before that socket is
shut: until then its number is nobody else's.
"""

import json
import os
import select
import signal
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from rotator.adapters.sink_helper import ending, ignore_signals, receive

NUMBER: Final = struct.Struct(">i")
DESCRIPTORS: Final = 4
NOT_EXECUTED: Final = 127
_WHY: Final = 3
"""The descriptor on which a copy says why it cannot become the command."""

_AS_IN_ANY_PROCESS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ)


@dataclass(frozen=True, slots=True)
class _Command:
    """A command that was started, and not reaped."""

    connection: socket.socket
    pid: int
    pidfd: int


def serve(connection: socket.socket) -> None:
    """Start what is asked for, until the parent is gone. What runs then goes on."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    awaited: dict[int, _Command] = {}
    """By the descriptor that becomes ready at the end of one, and by that of its socket."""
    while True:
        for fd, _ in poll.poll():
            if fd == connection.fileno():
                asked, fds, _, _ = socket.recv_fds(connection, 1, DESCRIPTORS)
                if not asked:
                    _reap_the_rest()
                    return
                if (command := _start(fds)) is None:
                    continue
                for each in (command.pidfd, command.connection.fileno()):
                    awaited[each] = command
                    poll.register(each, select.POLLIN)
                continue
            command = awaited.pop(fd)
            poll.unregister(fd)
            if fd == command.pidfd:
                _tell(command)
            if awaited.keys().isdisjoint((command.pidfd, command.connection.fileno())):
                os.close(command.pidfd)
                command.connection.close()
                os.waitpid(command.pid, 0)


def _reap_the_rest() -> None:
    """Reap what has ended, and whose parent had no more time to say that it knows."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _start(fds: list[int]) -> _Command | None:
    """Start one command; None where it could not be: then its socket is shut."""
    if len(fds) < DESCRIPTORS:  # there was no room for more
        for fd in fds:
            os.close(fd)
        return None
    connection_fd, stdin, output, why = fds
    connection, command = socket.socket(fileno=connection_fd), None
    try:
        frame = receive(connection)
        if not frame:
            return None
        run, environ = json.loads(frame)
        pid = os.fork()
        if not pid:
            _become(run, environ, stdin, output, why)
        command = _Command(connection, pid, os.pidfd_open(pid))
        _send(connection, pid)
    except OSError as error:
        _send(connection, -(error.errno or 1))
    finally:
        for fd in (stdin, output, why):
            os.close(fd)
        if command is None:
            connection.close()
    return command


def _send(connection: socket.socket, number: int) -> None:
    with suppress(OSError):  # nobody waits for it any more
        connection.sendall(NUMBER.pack(number))


def _become(run: list[str], environ: dict[str, str], stdin: int, output: int, why: int) -> None:
    """Become the command, with nothing of ours; never returns."""
    try:
        os.setsid()
        for number in _AS_IN_ANY_PROCESS:
            signal.signal(number, signal.SIG_DFL)
        os.dup2(stdin, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if why != _WHY:
            os.dup2(why, _WHY, inheritable=False)
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - nothing else is imported for it
            if int(name) > _WHY:
                with suppress(OSError):  # the directory's own
                    os.close(int(name))
        os.chdir("/")
        os.execvpe(run[0], run, environ)  # noqa: S606 - as the owner of the config wrote it, no shell
    except OSError as error:
        os.write(_WHY, NUMBER.pack(error.errno or 1))
    finally:
        os._exit(NOT_EXECUTED)


def _tell(command: _Command) -> None:
    """Say that a command ended, and how."""
    found = os.waitid(os.P_PID, command.pid, os.WEXITED | os.WNOWAIT)
    if found is not None:
        _send(command.connection, found.si_status if found.si_code == os.CLD_EXITED else -found.si_status)


def main() -> None:
    """Serve the parent at the other end of standard input."""
    ignore_signals()
    with ending(), socket.socket(fileno=sys.stdin.fileno()) as connection:
        serve(connection)


if __name__ == "__main__":
    main()
