"""Touches what lies below the paths of file sinks, in a process of its own for each failure domain.

A call that waits for a dead mount cannot be ended, not even by SIGKILL, and a process whose thread is in one keeps what
it holds. So this process holds nothing: no lock, no database, no socket but the one to its parent, and of the program
it imports only how files are written. It ends when the parent is gone, and when it has been idle for a while.

``python -m rotator.adapters.sink_helper``, one end of a socket pair as standard input. A request is one frame, its
length and JSON (:class:`Request`); the tokens in it travel nowhere else. The answers are :data:`ANSWER` records, each
followed by as many bytes of text as it says: when a thread begins with an item, and what came of it (no text: it is as
it should be; or that it was left alone on purpose). When the parent has shut its end for writing, nothing
more is begun.
"""

import errno
import hashlib
import json
import os
import select
import signal
import socket
import stat
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from rotator.adapters.disk import REAL_DISK, Disk, describe, ensure_directory, read_regular, replace_file

WORKERS: Final = 4
IDLE_SECONDS: Final = 30.0
FLUSH_SECONDS: Final = 0.02
"""How long an answer may wait for others."""

LEFT_SECONDS: Final = 5.0
"""How long the work that was begun may go on when the parent is gone."""

LENGTH: Final = struct.Struct(">I")
ANSWER: Final = struct.Struct(">IBI")
"""The item's number, :data:`BEGUN`, :data:`ENDED` or :data:`KEPT`, the length of the text that follows."""
BEGUN: Final = 0
ENDED: Final = 1
KEPT: Final = 2

WRITE: Final = "write"
COMPARE: Final = "compare"
REMOVE: Final = "remove"

LONGEST_FILE: Final = 1 << 20
"""Bytes of a file that may hold a token."""

DIRECTORY_MODE: Final = 0o750
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Item(NamedTuple):
    """One file: what it holds, or should hold."""

    path: str
    mode: int
    content: str
    """Of one that is to be removed: the SHA-256 of each token that it may hold, in hex, between spaces."""


class Request(NamedTuple):
    """What the parent sends."""

    act: str
    """:data:`WRITE` the files, :data:`COMPARE` them, or :data:`REMOVE` them."""
    forbidden: Sequence[str]
    """Directories that nothing is written into."""
    items: Sequence[Item]


class RefusedPathError(Exception):
    """A path that no token may be written to; says why."""


class KeptError(Exception):
    """A file that is not to be removed; says why."""


class Files:
    """The files of one request. Each directory is resolved and opened once. Safe to use from several threads."""

    def __init__(self, request: Request, disk: Disk = REAL_DISK) -> None:
        self._request = request
        self._disk = disk
        self._opened: dict[str, int] = {}
        self._resolved: Sequence[str] | None = None

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *_: object) -> None:
        while self._opened:
            os.close(self._opened.popitem()[1])

    def do(self, number: int) -> str:
        """Do what is asked for with an item; return what is wrong, empty when nothing is.

        Raise :class:`KeptError` for a file that was to be removed, and is to stay for good.
        """
        item = self._request.items[number]
        match self._request.act:
            case "compare":
                return self._difference(item)
            case "remove":
                return self._remove(item)
            case _:
                return self._write(item)

    def _difference(self, item: Item) -> str:
        expected = item.content.encode()
        try:
            content, status = read_regular(item.path, len(expected))
        except OSError as error:
            return describe(error)  # whatever stands in the way, the delivery that follows meets it and reports it
        if content != expected:
            return "it holds something else"
        return "" if stat.S_IMODE(status.st_mode) == item.mode else f"its mode is {stat.S_IMODE(status.st_mode):04o}"

    def _write(self, item: Item) -> str:
        parent, name = os.path.split(item.path)
        try:
            _refuse_no_file(item.path, name)
            directory = self._directory(parent, item.path)
            if any(
                each.endswith(f"/{name}") for each in self._forbidden
            ):  # one of the files; of the directories it was asked when this was opened
                self._refuse_ours(f"{_path_of(directory)}/{name}", item.path)
            _refuse_irregular(item.path, name, directory)
            replace_file(directory, name, item.content.encode(), item.mode, disk=self._disk)
        except RefusedPathError as error:
            return str(error)
        except OSError as error:
            return f"cannot write the token to {item.path}: {describe(error)}"
        return ""

    def _remove(self, item: Item) -> str:
        """Delete a file that holds one of the tokens. Who puts another one there meanwhile can write there anyway."""
        parent, name = os.path.split(item.path)
        try:
            _refuse_no_file(item.path, name)
            directory = self._directory(parent, item.path, make=False)
            self._refuse_ours(f"{_path_of(directory)}/{name}", item.path)
            content, _ = read_regular(name, LONGEST_FILE, dir_fd=directory)
            if hashlib.sha256(token_inside(content)).hexdigest() not in item.content.split():
                raise KeptError("it holds something else than a token that was written there")
            self._disk.unlink(name, directory)
            self._disk.fsync_directory(directory)
        except FileNotFoundError:
            return ""
        except RefusedPathError as error:
            raise KeptError(str(error)) from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.EINVAL, errno.EFBIG, errno.ENOTDIR):
                raise KeptError("it is no file with a token any more") from None
            return f"cannot delete {item.path}: {describe(error)}"
        return ""

    def _directory(self, parent: str, shown: str, *, make: bool = True) -> int:
        """Return the opened directory, made if it was missing. Its own symlinks are followed, for they are its path."""
        known = self._opened.get(parent)
        if known is not None:
            return known
        try:
            opened = os.open(parent, _DIRECTORY)
        except FileNotFoundError:
            if not make:
                raise
            resolved = os.path.realpath(parent)
            self._refuse_ours(resolved, shown)
            ensure_directory(Path(resolved), DIRECTORY_MODE, disk=self._disk)
            opened = os.open(resolved, _DIRECTORY)
        try:
            self._refuse_ours(_path_of(opened), shown)
        except BaseException:
            os.close(opened)
            raise
        first = self._opened.setdefault(parent, opened)
        if first != opened:  # another thread was first
            os.close(opened)
        return first

    @property
    def _forbidden(self) -> Sequence[str]:
        """What no token may replace, or lie in, with its links followed."""
        if self._resolved is None:
            self._resolved = [os.path.realpath(each) for each in self._request.forbidden]
        return self._resolved

    def _refuse_ours(self, path: str, shown: str) -> None:
        for forbidden, named in zip(self._forbidden, self._request.forbidden, strict=True):
            if path == forbidden or path.startswith(f"{forbidden.rstrip('/')}/"):
                where = "is" if path == forbidden and path.endswith(shown[shown.rindex("/") :]) else "lies in"
                raise RefusedPathError(f"{shown} {where} {named}, which is rotator's own: give the token another place")


def token_inside(content: bytes) -> bytes:
    """Return the token in a file of whatever format a sink writes."""
    if content.startswith(b"TOKEN="):
        return content.removeprefix(b"TOKEN=").partition(b"\n")[0]
    if content.startswith(b"{"):
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            return content
        token = document.get("token")
        return token.encode("utf-8", "replace") if isinstance(token, str) else content
    return content.removesuffix(b"\n")


def _path_of(directory: int) -> str:
    """Return where an opened directory is: one call, where resolving a path asks about each part of it."""
    return os.readlink(f"/proc/self/fd/{directory}")  # noqa: PTH115 - half the time of pathlib's


def _refuse_no_file(path: str, name: str) -> None:
    if not path.startswith("/") or name in ("", ".", ".."):
        raise RefusedPathError(f"{path!r} cannot hold a token: a sink needs the absolute path of a file")


def _refuse_irregular(shown: str, name: str, directory: int) -> None:
    try:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):
        raise RefusedPathError(f"{shown} is a symlink, and a token goes only where its path says: remove it")
    if not stat.S_ISREG(mode):
        raise RefusedPathError(f"{shown} is there and is not a regular file: remove it, or set another path")


# ------------------------------------------------------------------------------------------------------- the process


class _Work:
    """One request under way: threads that do it, and what there is to answer."""

    def __init__(self, count: int, do: Callable[[int], str]) -> None:
        self._do = do
        self._waiting = list(reversed(range(count)))
        self._answers: list[bytes] = []
        self._threads = min(WORKERS, count)
        self._changing = threading.Lock()
        self.over = threading.Event()

    def start(self) -> None:
        if not self._threads:
            self.over.set()
        for _ in range(self._threads):
            threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Begin nothing more."""
        with self._changing:
            self._waiting.clear()

    def answers(self) -> bytes:
        """Return what was not returned yet."""
        with self._changing:
            answers, self._answers = b"".join(self._answers), []
        return answers

    def _run(self) -> None:
        while (number := self._next()) is not None:
            kind = ENDED
            try:
                problem = self._do(number)
            except KeptError as error:
                kind, problem = KEPT, str(error)
            except Exception as error:  # noqa: BLE001 - the edge of a unit of work: one item's failure is its own
                problem = f"internal error: {type(error).__name__}: {error}"
            text = problem.encode("utf-8", "backslashreplace")
            with self._changing:
                self._answers.append(ANSWER.pack(number, kind, len(text)) + text)

    def _next(self) -> int | None:
        with self._changing:
            if self._waiting:
                number = self._waiting.pop()
                self._answers.append(ANSWER.pack(number, BEGUN, 0))
                return number
            self._threads -= 1
            if not self._threads:
                self.over.set()
            return None


def serve(connection: socket.socket) -> None:
    """Answer request after request until the parent is gone or has nothing more to ask."""
    asked = select.poll()
    asked.register(connection, select.POLLIN)
    while asked.poll(IDLE_SECONDS * 1000) and (frame := receive(connection)):
        act, forbidden, items = json.loads(frame)
        request = Request(act, forbidden, [Item(*each) for each in items])
        with Files(request) as files:
            work = _Work(len(request.items), files.do)
            work.start()
            if not _answer(connection, work, asked):
                return


def _answer(connection: socket.socket, work: _Work, asked: select.poll) -> bool:
    """Send answers until the work is over; False when the parent wants no more."""
    wanted, left = True, LEFT_SECONDS
    while not work.over.wait(FLUSH_SECONDS):
        if wanted and asked.poll(0):  # nothing is sent before the answers are there: its end is shut
            wanted = False
            work.stop()
        connection.sendall(work.answers())
        left -= 0.0 if wanted else FLUSH_SECONDS
        if left <= 0:
            return False
    connection.sendall(work.answers())
    return wanted


def receive(connection: socket.socket) -> bytes:
    """Receive one frame; empty when the other end is shut."""
    length = _exactly(connection, LENGTH.size)
    return _exactly(connection, LENGTH.unpack(length)[0]) if length else b""


def _exactly(connection: socket.socket, count: int) -> bytes:
    content = bytearray()
    while len(content) < count:
        chunk = connection.recv(min(count - len(content), 1 << 20))
        if not chunk:
            return b""
        content += chunk
    return bytes(content)


@contextmanager
def ending() -> Iterator[None]:
    """End at once, whatever a thread waits for."""
    try:
        yield
    except OSError:
        pass  # the parent is gone
    finally:
        os._exit(0)


def ignore_signals() -> None:
    """Ignore what is sent to the whole service: it is the parent's to act on."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def main() -> None:
    """Serve the parent at the other end of standard input."""
    ignore_signals()
    with ending(), socket.socket(fileno=sys.stdin.fileno()) as connection:
        serve(connection)


if __name__ == "__main__":
    main()
