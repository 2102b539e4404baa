"""What can hang or fail as one: the file system below a path, or a command.

A path is never touched to find out, for that is what may hang: the kernel's table of mounts says where it would lead
if no part of it were a symlink. Where one is, the path counts as of another file system than it is on, and a sink that
hangs becomes a domain of its own all the same.
"""

import posixpath
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from rotator.core.model import FailureDomain
from rotator.core.policy import CommandSink, FileSink, Sink

MOUNTS: Final = Path("/proc/self/mountinfo")
_ROOT: Final = "/"


class FailureDomains:
    """The domains of sinks, by the mounts of now."""

    def __init__(self, read: Callable[[], bytes] = MOUNTS.read_bytes) -> None:
        self._read = read
        self._text = b""
        self._mounts: Mapping[str, FailureDomain] = {}

    def look(self) -> None:
        """Read the table of mounts anew. One that cannot be read makes one domain of all files."""
        try:
            text = self._read()
        except OSError:
            text = b""
        if text != self._text:
            self._text, self._mounts = text, mounts(text)

    def of(self, sink: Sink) -> FailureDomain:
        """Return the domain of ``sink`` as of the last look."""
        match sink:
            case FileSink():
                return file_system(sink.path, self._mounts)
            case CommandSink():
                return FailureDomain(f"command:{sink.run[0]}")


def mounts(mountinfo: bytes) -> Mapping[str, FailureDomain]:
    """Return the file system at each mount point, from the text of ``/proc/PID/mountinfo`` (proc_pid_mountinfo(5)).

    What is mounted in several places, as by a bind mount, is one file system, named by the place that is listed
    first. The device is part of its name: a mount that hangs and the new one in its place are not the same.
    """
    names: dict[bytes, FailureDomain] = {}
    found: dict[str, FailureDomain] = {}
    for line in mountinfo.splitlines():
        fields = line.split(b" ", 5)
        if len(fields) < 6:
            continue
        device, point = fields[2], _unescaped(fields[4])
        name = names.setdefault(device, FailureDomain(f"filesystem:{point}#{device.decode('ascii', 'replace')}"))
        found[point] = name  # of several at one point, the last is on top
    return found


def file_system(path: str, mounted: Mapping[str, FailureDomain]) -> FailureDomain:
    """Return the file system that ``path`` lies on: that of the longest mount point above it.

    A relative path, which no sink can have, is taken to begin at the root.
    """
    point = posixpath.normpath(f"/{path}").replace("//", "/", 1)  # POSIX leaves two leading slashes alone
    while point not in mounted and point != _ROOT:
        point = posixpath.dirname(point)
    return mounted.get(point, FailureDomain("filesystem:/"))


def _unescaped(field: bytes) -> str:
    """Return a path as the kernel has it: it writes space, tab, newline, backslash and # as three octal digits."""
    first, *rest = field.split(b"\\")
    parts = [first]
    for part in rest:
        try:
            parts.append(bytes([int(part[:3], 8)]) + part[3:])
        except ValueError:
            parts.append(b"\\" + part)
    return b"".join(parts).decode("utf-8", "surrogateescape")
