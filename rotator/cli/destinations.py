"""Whether what the config names can be written or run on this machine: directories, the sinks' files and programs."""

import os
import pwd
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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
        *_problems(files, _irregular),
        *_problems(directories, obstacle),
        *_problems({Path(program): name for program, name in programs.items()}, _no_program),
    ):
        bad = True
        yield found
    if not bad and sinks:
        counts = f"{len(directories)} directories can be written, {len(programs)} programs can be run"
        yield Finding("sinks", "", counts)


def _problems(paths: Mapping[Path, WorkspaceId], look: Callable[[Path], tuple[str, str]]) -> Iterator[Finding]:
    for path, workspace in paths.items():
        problem, step = look(path)
        if problem:
            yield Finding("sinks", f"workspace {workspace}: {problem}", str(path), step)


def _no_program(path: Path) -> tuple[str, str]:
    if os.access(path, os.X_OK) and not os.path.isdir(path):  # noqa: PTH112 - as above
        return "", ""
    return f"{path} is no program that this user ({me()}) can run", "install it, or mend its path or mode"


def _irregular(path: Path) -> tuple[str, str]:
    """Return what keeps a token from being put at ``path`` itself, and what to do; else twice ""."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return "", ""  # not there, or told of its directory
    if stat.S_ISREG(mode):
        return "", ""
    if stat.S_ISLNK(mode):
        return f"{path} is a symbolic link, and nothing is delivered through one", told("rm", path)
    if stat.S_ISDIR(mode):
        return f"{path} is a directory, and a token is a file", f"name a file in it: {path}/token"
    return f"{path} is there and is no regular file", "name another path in the config"
