"""The other end of the control socket: asks a running daemon. Light, for every command of the CLI begins with it."""

import contextlib
import json
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from rotator.core.secret import Secret
from rotator.errors import ConfigError, RefusedError, RotatorError, StoreError

ANSWER_TIMEOUT: Final = timedelta(seconds=60)
"""How long the daemon may be silent."""


REASON_LIMIT: Final = 1000
REASON_RULE: Final = f"a reason is one line of at most {REASON_LIMIT} characters, without control characters"


class Wait(StrEnum):
    """How long a changing command is waited for, once it is accepted."""

    NO = "no"
    """Not at all: the answer is its number."""
    SHORTLY = "shortly"
    """For as long as most take; then the answer is its number."""
    TO_THE_END = "end"
    """Until it is over, or the daemon stops."""


class NoDaemonError(RotatorError):
    """Nothing listens on the control socket."""


class HungUpError(RotatorError):
    """The daemon went away, or fell silent, after it was asked: that may be stored, and done, or not."""


def ask(
    path: Path,
    command: str,
    arguments: Mapping[str, str | int | bool | None] | None = None,
    reason: str = "",
    *,
    secret: Secret[str] | None = None,
    wait: Wait = Wait.SHORTLY,
    longest: timedelta | None = None,
    timeout: timedelta = ANSWER_TIMEOUT,
) -> Any:
    """Return the result of ``command``, as JSON. Whoever waits to the end does so for ``longest``; None: for ever.

    Raise :class:`NoDaemonError` where no daemon listens, :class:`HungUpError` where one did and gave no answer, and for
    a refusal the error that it stands for.
    """
    message: dict[str, object] = {"command": command, "arguments": dict(arguments or {}), "reason": reason}
    if secret is not None:
        message["secret"] = secret.reveal()
    if wait is not Wait.SHORTLY:
        message["wait"] = wait.value
    with _reached(path, timeout) as connection, connection.makefile("rb") as stream:
        try:
            connection.sendall(json.dumps(message).encode() + b"\n")
            silence = timeout if wait is not Wait.TO_THE_END else longest
            connection.settimeout(None if silence is None else silence.total_seconds())
            reply = stream.readline()
        except TimeoutError:
            raise HungUpError(
                f"the daemon on {path} did not answer within {(longest or timeout).total_seconds():.0f} seconds"
            ) from None
        except OSError as error:
            raise HungUpError(f"the daemon on {path} hung up: {os.strerror(error.errno or 0)}; see its log") from None
    return _result(path, reply)


def _reached(path: Path, timeout: timedelta) -> socket.socket:
    try:
        connection = connect(path, timeout)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise NoDaemonError(f"no daemon listens on {path}") from None
    except PermissionError:
        raise NoDaemonError(f"the control socket {path} is out of reach for this user") from None
    except TimeoutError:
        raise RotatorError(
            f"the daemon on {path} took no question within {timeout.total_seconds():.0f} seconds"
        ) from None
    except OSError as error:
        raise RotatorError(f"the daemon on {path} cannot be talked to: {os.strerror(error.errno or 0)}") from None
    try:
        _require_daemon(path, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _require_daemon(path: Path, connection: socket.socket) -> None:
    """Raise :class:`RefusedError` unless root, this user, or who alone can make files beside the socket listens there.

    Anybody else could have put a socket in its place, and would be told what is meant for the daemon: a key, a reason.
    """
    if problem := open_to_others(path.parent):
        raise RefusedError(f"{problem}; nothing was sent")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    owner = path.parent.stat().st_uid
    if uid not in {0, os.geteuid(), owner}:
        raise RefusedError(
            f"whoever listens on {path} (user id {uid}) is neither root nor the owner of {path.parent} (user id "
            f"{owner}), and so not the daemon: nothing was sent. Find out who that is, or set control.socket to a "
            "directory of the service's user"
        )


def open_to_others(directory: Path) -> str:
    """Return why anybody but its owner could put a socket into ``directory``; empty when nobody can."""
    mode = directory.stat().st_mode
    if not mode & 0o022:
        return ""
    return (
        f"{directory}, where the control socket is, can be written by others (mode {stat.S_IMODE(mode):04o}), who "
        f"could stand in for the daemon: chmod go-w {directory}, or set control.socket to another directory"
    )


def _result(path: Path, reply: bytes) -> Any:
    try:
        answer = json.loads(reply)
        if answer["ok"] is True:
            return answer["result"]
        problem, exit_code, unreadable = str(answer["error"]), answer["exit_code"], answer.get("unreadable")
    except (ValueError, TypeError, KeyError):
        raise HungUpError(f"the daemon on {path} hung up in the middle of its answer; see its log") from None
    if unreadable is True:
        raise StoreError(problem)
    raise ConfigError(problem) if exit_code == ConfigError.exit_code else RefusedError(problem)


# ---------------------------------------------------------------------------------------------------------- addresses


@contextlib.contextmanager
def address_of(path: Path) -> Iterator[str]:
    """Give an address for ``path`` that fits: the kernel takes 107 bytes (unix(7)), a path may have more."""
    if len(os.fsencode(path)) <= 107:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_DIRECTORY | os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def connect(path: Path, timeout: timedelta) -> socket.socket:
    """Connect to ``path``; each step after may take ``timeout``. Raises :class:`OSError`."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout.total_seconds())
        with address_of(path) as address:
            _connect(connection, address, time.monotonic() + timeout.total_seconds())
    except OSError:
        connection.close()
        raise
    return connection


def _connect(connection: socket.socket, address: str, give_up_at: float) -> None:
    """Connect, waiting while the queue is full: a socket with a timeout is told EAGAIN at once (connect(2))."""
    while True:
        try:
            connection.connect(address)
        except BlockingIOError:
            if time.monotonic() >= give_up_at:
                raise TimeoutError from None
            time.sleep(0.02)
        else:
            return
