"""A disk that stops before each durable step, and knows what a real one could hold then.

Nothing is durable but what was synced: a file's content and mode by ``fsync`` of the file, its name by ``fsync`` of its
directory. What was not may be there all the same, or in part: after a power cut a disk holds anything in between. Three
cases stand for all: the kernel lived on and wrote everything, nothing unsynced was written, and names were written
while of the contents only a half was.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.engine.site import Disk

DATABASE = ("rotator.db", "rotator.db-wal")
FORGOTTEN = ("rotator.db-shm", "rotator.lock")
"""What a process maps or locks; it means nothing to the next one."""


class Loss(StrEnum):
    """What of the unsynced is gone."""

    NONE = "none"
    """The process was killed; the machine runs on."""
    ALL = "all"
    TORN = "torn"


@dataclass(frozen=True, slots=True)
class Node:
    """A file, or a directory (without content)."""

    mode: int
    content: bytes | None


Image = Mapping[str, Node]
"""What a disk holds, by path below the root; parents come first."""

Step = Callable[[str, str], None]
"""Called before a durable step, with its kind and the path that it is about."""


class CrashingDisk(Disk):
    """The real disk; ``step`` may look at :meth:`image` before anything is done."""

    def __init__(self, root: Path, step: Step) -> None:
        super().__init__()
        self._root = root
        self._step = step
        self._unsynced: dict[tuple[int, int], Node] = {}
        """What is sure of files and directories whose content or mode was not synced."""
        self._unsettled: dict[Path, dict[str, Node | None]] = {}
        """By directory and name: what stands there if the names that changed since its last fsync are lost."""
        self._nodes: dict[Node, Node] = {}
        """So that images share what they have in common."""
        self._database: dict[tuple[int, int], int] = {}
        """Descriptors: to close one of its own would take SQLite's locks away."""

    def close(self) -> None:
        for fd in self._database.values():
            os.close(fd)

    # ------------------------------------------------------------------------------------------------------- the port

    def unlink(self, name: str, directory_fd: int) -> None:
        path = _path(directory_fd) / name
        self._step("unlink", str(path))
        self._name_changes(path)
        super().unlink(name, directory_fd)

    def rmdir(self, name: str, directory_fd: int) -> None:
        path = _path(directory_fd) / name
        self._step("rmdir", str(path))
        self._name_changes(path)
        super().rmdir(name, directory_fd)

    def create(self, name: str, directory_fd: int) -> int:
        path = _path(directory_fd) / name
        self._step("create", str(path))
        self._name_changes(path)
        fd = super().create(name, directory_fd)
        self._unsynced[_identity(os.fstat(fd))] = Node(0o600, b"")
        return fd

    def append(self, name: str, directory_fd: int) -> int:
        self._step("append", str(_path(directory_fd) / name))
        return super().append(name, directory_fd)

    def mkdir(self, name: str, directory_fd: int) -> None:
        path = _path(directory_fd) / name
        self._step("mkdir", str(path))
        self._name_changes(path)
        super().mkdir(name, directory_fd)
        self._unsynced[_identity(path.lstat())] = Node(0o700, None)

    def write(self, fd: int, content: bytes) -> None:
        self._step("write", str(_path(fd)))
        self._content_changes(fd)
        super().write(fd, content)

    def chmod(self, fd: int, mode: int) -> None:
        self._step("chmod", str(_path(fd)))
        self._content_changes(fd)
        super().chmod(fd, mode)

    def fsync(self, fd: int) -> None:
        self._step("fsync", str(_path(fd)))
        super().fsync(fd)
        self._unsynced.pop(_identity(os.fstat(fd)), None)

    def link(self, old: str, new: str, directory_fd: int) -> None:
        path = _path(directory_fd) / new
        self._step("link", str(path))
        self._name_changes(path)
        super().link(old, new, directory_fd)

    def rename(self, old: str, new: str, directory_fd: int) -> None:
        directory = _path(directory_fd)
        self._step("rename", str(directory / new))
        self._name_changes(directory / old)
        self._name_changes(directory / new)
        super().rename(old, new, directory_fd)

    def fsync_directory(self, directory_fd: int) -> None:
        directory = _path(directory_fd)
        self._step("fsync_directory", str(directory))
        super().fsync_directory(directory_fd)
        self._unsettled.pop(directory, None)

    # ---------------------------------------------------------------------------------------------------- what is sure

    def _content_changes(self, fd: int) -> None:
        status = os.fstat(fd)
        if _identity(status) not in self._unsynced:
            self._unsynced[_identity(status)] = _node(_path(fd), status)

    def _name_changes(self, path: Path) -> None:
        try:
            status = path.lstat()
        except FileNotFoundError:
            sure = None
        else:
            sure = self._unsynced.get(_identity(status)) or _node(path, status)
        self._unsettled.setdefault(path.parent, {}).setdefault(path.name, sure)

    def image(self, loss: Loss) -> Image:
        """Return what the disk could hold if the machine stopped now."""
        held: dict[str, Node] = {}
        for path in _below(self._root):
            name = str(path.relative_to(self._root))
            if path.name in FORGOTTEN:
                continue
            if path.name in DATABASE:
                # Committed is durable with synchronous=FULL, and what is not committed is not found again.
                tail = os.urandom(1000) if loss is Loss.TORN and name.endswith("-wal") else b""
                held[name] = Node(0o600, self._of_database(path) + tail)
            else:
                held[name] = self._held(path, loss)
        if loss is Loss.ALL:
            self._lose_names(held)
        return {path: self._nodes.setdefault(node, node) for path, node in held.items()}

    def _held(self, path: Path, loss: Loss) -> Node:
        status = path.lstat()
        node = _node(path, status)
        sure = None if loss is Loss.NONE else self._unsynced.get(_identity(status))
        if sure is None:
            return node
        if loss is Loss.ALL or node.content is None:
            return sure
        kept = len(sure.content or b"") if node.content.startswith(sure.content or b"") else 0  # it was appended to
        return Node(sure.mode, node.content[: kept + (len(node.content) - kept) // 2])

    def _lose_names(self, held: dict[str, Node]) -> None:
        for directory, names in self._unsettled.items():
            for name, sure in names.items():
                path = str((directory / name).relative_to(self._root))
                for lost in [each for each in held if each == path or each.startswith(f"{path}/")]:
                    del held[lost]
                if sure is not None:
                    held[path] = sure

    def _of_database(self, path: Path) -> bytes:
        identity = _identity(path.stat())
        if identity not in self._database:
            self._database[identity] = os.open(path, os.O_RDONLY)
        return _read(self._database[identity])


def write_image(root: Path, image: Image) -> None:
    """Let the disk below ``root``, which must be empty, hold ``image``."""
    for name, node in sorted(image.items()):
        path = root / name
        if node.content is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(node.content)
        path.chmod(node.mode)


def _below(root: Path) -> Iterator[Path]:
    return iter(sorted(root.rglob("*")))


def _node(path: Path, status: os.stat_result) -> Node:
    mode = stat.S_IMODE(status.st_mode)
    return Node(mode, None) if stat.S_ISDIR(status.st_mode) else Node(mode, path.read_bytes())


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _path(fd: int) -> Path:
    return Path(f"/proc/self/fd/{fd}").readlink()


def _read(fd: int) -> bytes:
    chunks: list[bytes] = []
    while chunk := os.pread(fd, 1 << 20, sum(map(len, chunks))):
        chunks.append(chunk)
    return b"".join(chunks)


def kinds(steps: Sequence[tuple[str, str]]) -> Mapping[str, int]:
    """Count steps by kind."""
    counted: dict[str, int] = {}
    for kind, _ in steps:
        counted[kind] = counted.get(kind, 0) + 1
    return dict(sorted(counted.items()))
