"""Files that are either whole or not there, however and whenever the machine stops.

A durable write goes: temporary file beside the target, write, chmod, fsync, rename, fsync of the directory. A reader
sees the old file or the new one; a failed step leaves the old one. Every step goes through a :class:`Disk`, so that a
test can stop the machine between any two of them.

Functions here raise :class:`OSError`; callers say in their own errors what the file was for. The two checks that a
person has to act on (:func:`require_private`, :func:`lock_directory`) raise :class:`~rotator.errors.RefusedError`.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

from rotator.errors import RefusedError
from rotator.told import told

LOCK_NAME: Final = "rotator.lock"

_LEFTOVER: Final = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?:tmp|new)", re.DOTALL)
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPENDING: Final = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_READ_ONLY: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # O_NONBLOCK: opening a FIFO must not hang
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Disk(Protocol):
    """The steps of a durable write, in the order in which they are taken. Each raises :class:`OSError`."""

    def leftovers(self, directory_fd: int, name: str) -> Sequence[str]:
        """Return what a killed process left while it was writing the file ``name``, or making that directory."""
        ...

    def unlink(self, name: str, directory_fd: int) -> None:
        """Remove a file; one that is gone already is no failure."""
        ...

    def create(self, name: str, directory_fd: int) -> int:
        """Create a file that must not exist, private until :meth:`chmod`; return its descriptor."""
        ...

    def append(self, name: str, directory_fd: int) -> int:
        """Open a file that must exist, and be no symlink, to write at its end; return its descriptor."""
        ...

    def mkdir(self, name: str, directory_fd: int) -> None:
        """Make a directory that must not exist, private until :meth:`chmod`."""
        ...

    def rmdir(self, name: str, directory_fd: int) -> None:
        """Remove an empty directory."""
        ...

    def write(self, fd: int, content: bytes) -> None:
        """Write all of ``content``."""
        ...

    def chmod(self, fd: int, mode: int) -> None:
        """Set exactly ``mode``, whatever the umask."""
        ...

    def fsync(self, fd: int) -> None:
        """Return when the file is on the disk."""
        ...

    def link(self, old: str, new: str, directory_fd: int) -> None:
        """Give the file the name ``new`` as well, atomically; raise :class:`FileExistsError` if that is taken."""
        ...

    def rename(self, old: str, new: str, directory_fd: int) -> None:
        """Put the file in the place of ``new``, atomically."""
        ...

    def fsync_directory(self, directory_fd: int) -> None:
        """Return when the rename is on the disk."""
        ...


class OsDisk:
    """The disk of this machine."""

    def __init__(self) -> None:
        self._left: dict[tuple[int, int], Mapping[str, Sequence[str]]] = {}

    def leftovers(self, directory_fd: int, name: str) -> Sequence[str]:
        """Return what a killed process left while it was writing the file ``name``, or making that directory.

        Each directory is listed once per process: what this one fails to finish it removes itself, and a directory of
        100,000 tokens must not be listed for each of them.
        """
        status = os.fstat(directory_fd)
        identity = (status.st_dev, status.st_ino)
        if identity not in self._left:
            left: dict[str, list[str]] = defaultdict(list)
            for entry in os.listdir(directory_fd):
                if match := _LEFTOVER.fullmatch(entry):
                    left[match["name"]].append(entry)
            self._left[identity] = dict(left)
        return self._left[identity].get(name, ())

    def unlink(self, name: str, directory_fd: int) -> None:
        """Remove a file; one that is gone already is no failure."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory_fd)

    def create(self, name: str, directory_fd: int) -> int:
        """Create a file that must not exist, private until :meth:`chmod`; return its descriptor."""
        return os.open(name, _NEW_FILE, 0o600, dir_fd=directory_fd)

    def append(self, name: str, directory_fd: int) -> int:
        """Open a file that must exist, and be no symlink, to write at its end; return its descriptor."""
        return os.open(name, _APPENDING, dir_fd=directory_fd)

    def mkdir(self, name: str, directory_fd: int) -> None:
        """Make a directory that must not exist, private until :meth:`chmod`."""
        os.mkdir(name, 0o700, dir_fd=directory_fd)

    def rmdir(self, name: str, directory_fd: int) -> None:
        """Remove an empty directory."""
        os.rmdir(name, dir_fd=directory_fd)

    def write(self, fd: int, content: bytes) -> None:
        """Write all of ``content``."""
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]

    def chmod(self, fd: int, mode: int) -> None:
        """Set exactly ``mode``, whatever the umask."""
        os.fchmod(fd, mode)

    def fsync(self, fd: int) -> None:
        """Return when the file is on the disk."""
        os.fsync(fd)

    def link(self, old: str, new: str, directory_fd: int) -> None:
        """Give the file the name ``new`` as well, atomically; raise :class:`FileExistsError` if that is taken."""
        os.link(old, new, src_dir_fd=directory_fd, dst_dir_fd=directory_fd, follow_symlinks=False)

    def rename(self, old: str, new: str, directory_fd: int) -> None:
        """Put the file in the place of ``new``, atomically."""
        os.rename(old, new, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)

    def fsync_directory(self, directory_fd: int) -> None:
        """Return when the rename is on the disk."""
        os.fsync(directory_fd)


REAL_DISK: Final[Disk] = OsDisk()


# ------------------------------------------------------------------------------------------------------------ writing


def write_durably(path: Path, content: bytes, mode: int, *, disk: Disk = REAL_DISK) -> None:
    """Put ``content`` at ``path`` with exactly ``mode``: when this returns, it outlives a power cut.

    The directory must exist. A symlink at ``path`` itself is replaced, not followed.
    """
    with open_directory(path.parent) as directory_fd:
        replace_file(directory_fd, path.name, content, mode, disk=disk)


def replace_file(directory_fd: int, name: str, content: bytes, mode: int, *, disk: Disk = REAL_DISK) -> None:
    """Do what :func:`write_durably` does for ``name`` in an opened directory."""

    def write(fd: int, _temporary: str) -> None:
        disk.write(fd, content)

    _replace(directory_fd, name, mode, write, disk)


def fill_durably(path: Path, mode: int, fill: Callable[[Path], None], *, disk: Disk = REAL_DISK) -> None:
    """Do what :func:`write_durably` does where another program's code writes the content.

    ``fill`` is given an empty file of mode 0600 beside ``path`` and must have closed it when it returns; whatever it
    raises leaves what is at ``path`` as it was.
    """
    with open_directory(path.parent) as directory_fd:
        _replace(directory_fd, path.name, mode, lambda _fd, temporary: fill(path.with_name(temporary)), disk)


def _replace(directory_fd: int, name: str, mode: int, fill: Callable[[int, str], None], disk: Disk) -> None:
    remove_leftovers(directory_fd, name, disk=disk)
    temporary = f".{name}.{os.urandom(4).hex()}.tmp"
    try:
        fd = disk.create(temporary, directory_fd)
        try:
            fill(fd, temporary)
            disk.chmod(fd, mode)
            # A failed fsync is final: the kernel may have dropped the pages, and a second one would lie (fsync(2)).
            disk.fsync(fd)
        finally:
            os.close(fd)
        disk.rename(temporary, name, directory_fd)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one that says what is wrong
            disk.unlink(temporary, directory_fd)
        raise
    disk.fsync_directory(directory_fd)


def create_durably(path: Path, content: bytes, mode: int, *, disk: Disk = REAL_DISK) -> None:
    """Write a file that must not exist, whole or not at all: a hard link, unlike a rename, replaces nothing."""
    with open_directory(path.parent) as directory_fd:
        remove_leftovers(directory_fd, path.name, disk=disk)
        temporary = f".{path.name}.{os.urandom(4).hex()}.tmp"
        fd = disk.create(temporary, directory_fd)
        try:
            try:
                disk.write(fd, content)
                disk.chmod(fd, mode)
                disk.fsync(fd)
            finally:
                os.close(fd)
            disk.link(temporary, path.name, directory_fd)
        finally:
            with contextlib.suppress(OSError):  # an error before this one says more
                disk.unlink(temporary, directory_fd)
        disk.fsync_directory(directory_fd)


def remove_leftovers(directory_fd: int, name: str, *, disk: Disk = REAL_DISK) -> None:
    """Remove what a killed process left while it was writing the file ``name``."""
    for leftover in disk.leftovers(directory_fd, name):
        if leftover.endswith(".tmp"):
            disk.unlink(leftover, directory_fd)


def sync_file(directory_fd: int, name: str, *, disk: Disk = REAL_DISK) -> None:
    """Make a file durable that another run wrote and may have been killed before it synced."""
    fd = os.open(name, _READ_ONLY | os.O_NOFOLLOW, dir_fd=directory_fd)
    try:
        disk.fsync(fd)
    finally:
        os.close(fd)
    disk.fsync_directory(directory_fd)


# -------------------------------------------------------------------------------------------------------- directories


@contextlib.contextmanager
def open_directory(path: Path | str, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> Iterator[int]:
    """Open a directory to work relative to its descriptor, so that a later rename of it cannot lead astray."""
    fd = os.open(path, _DIRECTORY if follow_symlinks else _DIRECTORY | os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def ensure_directory(path: Path, mode: int, *, disk: Disk = REAL_DISK) -> None:
    """Create ``path`` and its missing parents durably with exactly ``mode``; leave those that exist as they are."""
    if path.is_dir():
        return
    ensure_directory(path.parent, mode, disk=disk)
    with open_directory(path.parent) as parent_fd:
        make_directory(parent_fd, path.name, mode, disk=disk)


def make_directory(parent_fd: int, name: str, mode: int, *, disk: Disk = REAL_DISK) -> None:
    """Create one directory durably with exactly ``mode`` unless something of that name is there.

    It gets its mode under another name: killed in between, no directory stands there that only its owner can enter.
    """
    with _MAKING_DIRECTORIES:
        try:
            os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            return
        for leftover in disk.leftovers(parent_fd, name):
            if not leftover.endswith(".new"):
                continue
            with contextlib.suppress(OSError):  # whatever it is now, it does not stand in the way
                disk.rmdir(leftover, parent_fd)
        new = f".{name}.{os.urandom(4).hex()}.new"
        disk.mkdir(new, parent_fd)
        with open_directory(new, dir_fd=parent_fd, follow_symlinks=False) as fd:
            disk.chmod(fd, mode)
            disk.fsync(fd)  # its mode, which the fsync of its parent says nothing of
        disk.rename(new, name, parent_fd)
        disk.fsync_directory(parent_fd)


_MAKING_DIRECTORIES: Final = threading.Lock()
"""A rename replaces an empty directory, in which another thread may be about to write."""


def require_private(path: Path) -> None:
    """Refuse a state directory that others can enter or that is another user's."""
    status = path.stat()
    if not stat.S_ISDIR(status.st_mode):
        raise RefusedError(f"{path} is not a directory; the state needs one of its own")
    if status.st_uid != os.geteuid():
        raise RefusedError(
            f"{path} belongs to uid {status.st_uid} and this process runs as uid {os.geteuid()}; "
            f"run it as the owner (sudo -u '#{status.st_uid}' rotator …)"
        )
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise RefusedError(
            f"{path} holds private keys and has mode {mode:04o}, which lets others in; "
            f"close it to them: {told('chmod', '700', path)}"
        )


class DirectoryLock:
    """Held until :meth:`close`, the end of the ``with`` block, or the end of the process."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd: int | None = fd
        self._path = path

    def lost(self) -> str:
        """Return why a second process could get this lock, too; empty while none can."""
        if self._fd is None:
            return ""
        ours = os.fstat(self._fd)
        try:
            found: os.stat_result | None = self._path.stat(follow_symlinks=False)
        except OSError:
            found = None
        if found is not None and (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino):
            return ""
        became = "was deleted" if found is None else "was replaced by another file"
        return (
            f"{self._path} {became} while the daemon held it, so that a second one could work on the same state. "
            "Nothing more is written; start again, and leave that file where it is"
        )

    def close(self) -> None:
        """Let the next one in."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> "DirectoryLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def lock_directory(path: Path) -> DirectoryLock:
    """Make sure that no second process works on the state in ``path``; refuse, naming the one that does."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path / LOCK_NAME, flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        os.close(fd)
        who = f"another rotator (pid {holder})" if holder.isdecimal() else "another rotator"
        raise RefusedError(f"{who} runs on this state ({path}); use its control socket, or stop it first") from None
    except OSError:
        os.close(fd)
        raise
    return DirectoryLock(fd, path / LOCK_NAME)


# ------------------------------------------------------------------------------------------------------------ reading


def read_bounded(path: Path | str, limit: int, *, dir_fd: int | None = None, follow_symlinks: bool = False) -> bytes:
    """Read a regular file of at most ``limit`` bytes.

    Anything else raises :class:`OSError` without waiting or filling the memory: a symlink ELOOP (unless followed), a
    directory EISDIR, a FIFO or device EINVAL, a larger file EFBIG.
    """
    return read_regular(path, limit, dir_fd=dir_fd, follow_symlinks=follow_symlinks)[0]


def read_regular(
    path: Path | str, limit: int, *, dir_fd: int | None = None, follow_symlinks: bool = False
) -> tuple[bytes, os.stat_result]:
    """Read as :func:`read_bounded` does; return with it the status that the file had before the read."""
    flags = _READ_ONLY if follow_symlinks else _READ_ONLY | os.O_NOFOLLOW
    fd = os.open(path, flags, dir_fd=dir_fd)
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        return _read_at_most(fd, limit, str(path)), status
    finally:
        os.close(fd)


def _read_at_most(fd: int, limit: int, name: str) -> bytes:
    chunks: list[bytes] = []
    left = limit + 1
    while left and (chunk := os.read(fd, min(left, 1 << 16))):
        chunks.append(chunk)
        left -= len(chunk)
    if not left:
        raise OSError(errno.EFBIG, f"Larger than {limit} bytes", name)
    return b"".join(chunks)


# ------------------------------------------------------------------------------------------------------------- errors

_REMEDIES: Final[Mapping[int, str]] = {
    errno.EACCES: "give the service's user write access there",
    errno.EPERM: "give the service's user write access there",
    errno.EROFS: "remount it, or add the directory to ReadWritePaths= of the unit",
    errno.ENOSPC: "free some on that file system",
    errno.EDQUOT: "raise the quota, or free some space",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f, LimitFSIZE=)",
    errno.ENOENT: "create the directory",
    errno.ENOTDIR: "a directory is needed there",
    errno.ELOOP: "replace the symlink by what it points to",
    errno.EISDIR: "move the directory away",
    errno.EIO: "look at the disk: journalctl -k",
    errno.EBUSY: "a file that is mounted by itself cannot be replaced; mount its directory instead",
}


_READING: Final[Mapping[int, str]] = {
    errno.EACCES: "run this as a user who may read it",
    errno.EPERM: "run this as a user who may read it",
    errno.ENOENT: "see that its path is right",
    errno.ENOTDIR: "see that its path is right",
    errno.ELOOP: "see that its path is right",
    errno.EISDIR: "name a file in it",
    errno.EIO: _REMEDIES[errno.EIO],
}


def describe_reading(error: OSError) -> str:
    """Return what the system said of a file that was to be read, and what to do about it."""
    said = error.strerror or str(error)
    remedy = _READING.get(error.errno or 0)
    return f"{said}: {remedy}" if remedy else said


def describe(error: OSError) -> str:
    """Return what the system said of what was to be written, and what to do about it."""
    said = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{said}: {remedy}" if remedy else said
