"""Whether what the config names can be written or run on this machine: directories, the sinks' files and programs."""

import os
import pwd
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from rotator.adapters.failure_domains import MOUNTS, mounts
from rotator.config.choosing import named
from rotator.core.model import WorkspaceId
from rotator.core.policy import CommandSink, FileSink, Policy
from rotator.told import told

_KERNELS: Final = ("/proc", "/sys")
"""No files can be made there, whatever the permissions say."""

_NO_PLACE: Final = (*_KERNELS, "/dev")
"""A directory there is no advice to give."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about the machine that was looked at."""

    subject: str
    problem: str
    """Empty: it is as it should be."""
    text: str
    """What was found."""
    next_step: str = ""


def me() -> str:
    """Return the name of this user, or the number where there is none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def is_missing(path: Path) -> bool:
    """Tell whether nothing is there; what this user may not see is not missing."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, FileNotFoundError | NotADirectoryError)
    return False


def obstacle(path: Path) -> tuple[str, str]:
    """Return why this user cannot write in the directory ``path``, made if need be, and what to do; else twice ""."""
    nearest = next(each for each in (path, *path.parents) if os.path.lexists(each))
    if any(_is_in(path, place) for place in _KERNELS):
        return f"{path} is the kernel's, and no place for files", "name a path outside of it in the config"
    if not os.path.isdir(nearest):  # noqa: PTH112 - Path.is_dir raises where this user may not look
        return f"{nearest} is no directory", f"move {nearest} away, or name another path in the config"
    if os.access(nearest, os.W_OK | os.X_OK):
        return "", ""
    step = told("install", "-d", "-o", me(), path)
    if any(_is_in(path, place) for place in _NO_PLACE):
        step = "name a path in the config that this user can write"
    return f"{nearest} cannot be written by this user ({me()})", step


def _is_in(path: Path, place: str) -> bool:
    return path.is_relative_to(place)


def closed_to_others(path: Path, private: Path) -> Path | None:
    """Return the first directory on the way to ``path`` that other users cannot enter.

    ``private`` is one that will be closed to them, there yet or not. None: the way is open.
    """
    for each in (*reversed(path.parents), path):
        try:
            mode = each.stat().st_mode
        except OSError:
            mode = 0o755  # as it will be made
        if each == private or not mode & stat.S_IXOTH:
            return each
    return None


# -------------------------------------------------------------------------------------------------------------- sinks


def check_sinks(policy: Policy) -> Iterator[Finding]:
    """Look at each file, directory and program, and report what is wrong or, at the end, that all is well."""
    sinks = [(workspace.id, sink) for workspace in policy.workspaces.values() for sink in workspace.sinks]
    files = {Path(sink.path): name for name, sink in sinks if isinstance(sink, FileSink)}
    directories = {path.parent: name for path, name in files.items()}
    programs = {sink.run[0]: name for name, sink in sinks if isinstance(sink, CommandSink)}
    bad = False
    for found in (
        *_problems(files, partial(_irregular, _mounted())),
        *_problems(directories, obstacle),
        *_problems(directories, _full),
        *_problems({Path(program): name for program, name in programs.items()}, _no_program),
    ):
        bad = True
        yield found
    if not bad and sinks:
        counts = f"{len(directories)} directories can be written, {len(programs)} programs can be run"
        yield Finding("sinks", "", counts)


def _mounted() -> Collection[str]:
    """Return where something is mounted; nothing where that cannot be known."""
    try:
        return mounts(MOUNTS.read_bytes())
    except OSError:
        return ()


def _problems(paths: Mapping[Path, WorkspaceId], look: Callable[[Path], tuple[str, str]]) -> Iterator[Finding]:
    for path, workspace in paths.items():
        problem, step = look(path)
        if problem:
            yield Finding("sinks", f"workspace {workspace}: {problem}", str(path), step)


def _no_program(path: Path) -> tuple[str, str]:
    if not os.access(path, os.X_OK) or not os.path.isfile(path):  # noqa: PTH113 - as above
        return f"{path} is no program that this user ({me()}) can run", _remedy(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError:
        return "", ""  # it can be run without being readable
    if head.startswith(b"#!"):
        interpreter = os.fsdecode(head[2:].partition(b"\n")[0].strip().partition(b" ")[0])
        if not os.access(interpreter, os.X_OK):
            return f"{path} names the interpreter {interpreter}, which this user ({me()}) cannot run", _MEND_LINE
    elif b"\0" not in head:
        return f"{path} is a script without a first line that names its interpreter", _MEND_LINE
    return "", ""


_HEAD_BYTES: Final = 256
"""As far as Linux reads for the first line of a script; a program of any kind has a NUL in it."""

_MEND_LINE: Final = "begin it with a line that names its interpreter: #!/bin/sh"


def _remedy(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except OSError:
        return "install it, or mend its path"
    if not stat.S_ISREG(mode):
        return "name a program in the config"
    return told("chmod", "+x", path) if not mode & 0o111 else "let this user run it, or see whether it lies on a noexec"


def _full(directory: Path) -> tuple[str, str]:
    """Return that the file system of a directory, or of where it will be made, has no room left; else twice ""."""
    nearest = next(each for each in (directory, *directory.parents) if os.path.lexists(each))
    try:
        found = os.statvfs(nearest)
    except OSError:
        return "", ""  # told of as what cannot be written
    if not found.f_blocks or (found.f_bavail and (found.f_favail or not found.f_files)):
        return "", ""  # without blocks it is the kernel's, and counts none
    what = "space" if not found.f_bavail else "room for another file"
    return f"the file system of {nearest} has no {what} left", "free some on that file system"


def find_owners_lost(policy: Policy, service: int) -> Iterator[str]:
    """Yield which files that are there lose their owner to ``service``: a token is delivered as a new file."""
    for workspace in policy.workspaces.values():
        for sink in workspace.sinks:
            if not isinstance(sink, FileSink):
                continue
            try:
                status = os.lstat(sink.path)
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode) and status.st_uid != service:
                yield (
                    f"workspace {workspace.id}: {sink.path} belongs to {named(status.st_uid)}, and will to "
                    f"{named(service)}: each token is a new file. Let others read it by its directory's group, or "
                    "by a default ACL there"
                )


def _irregular(mounted: Collection[str], path: Path) -> tuple[str, str]:
    """Return what keeps a token from being put at ``path`` itself, and what to do; else twice ""."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return "", ""  # not there, or told of its directory
    if stat.S_ISREG(mode):
        if str(path) in mounted:
            step = f"mount {path.parent} instead"
            return f"{path} is mounted by itself, so that no new file can take its place", step
        return "", ""
    if stat.S_ISLNK(mode):
        return f"{path} is a symbolic link, and nothing is delivered through one", told("rm", path)
    if stat.S_ISDIR(mode):
        return f"{path} is a directory, and a token is a file", f"name a file in it: {path}/token"
    return f"{path} is there and is no regular file", "name another path in the config"
