"""Which config is read where none is named, and who besides its owner could write one.

A config names commands that the daemon runs: whoever can write it, or put another one in its place, acts as the daemon.
"""

import errno
import grp
import os
import pwd
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rotator.config.settings import DEFAULT_PATH

HERE: Final = Path("config.yaml")
"""The config of one's own, in the directory of the shell."""


@dataclass(frozen=True, slots=True)
class Own:
    """The config of the current directory, and whether it is to be read."""

    path: Path | None
    """None: it is not read."""
    said: str
    """What a person is told; empty where there is none."""


def config_here(default: Path = DEFAULT_PATH) -> Own:
    """Return the config of the current directory, for a command that was named none.

    It is read where there is none at ``default``, and only by an owner who is not root and who alone can write both
    file and directory: nobody is to run what a stranger left where they happen to stand.
    """
    if not _is_absent(default):
        return Own(None, "")
    try:
        status, directory = HERE.lstat(), Path().stat()
    except OSError:
        return Own(None, "")
    problem = _not_ones_own(status, directory)
    if problem:
        return Own(None, f"./{HERE} is not read by itself, for {problem}; if it is meant, name it: --config {HERE}")
    path = HERE.absolute()
    return Own(path, f"the config is {path}, for no other one is named")


def _is_absent(path: Path) -> bool:
    try:
        path.lstat()
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR)
    return False


def _not_ones_own(status: os.stat_result, directory: os.stat_result) -> str:
    user = os.geteuid()
    if user == 0:
        return "this is root"
    if not stat.S_ISREG(status.st_mode):
        return "it is no regular file"
    for what, found in (("it", status), ("its directory", directory)):
        if found.st_uid != user:
            return f"{what} belongs to {named(found.st_uid)}"
        others = writers(found, {user})
        if others:
            return f"{what} can be written by {others}"
    return ""


def writers(status: os.stat_result, owners: Collection[int]) -> str:
    """Return who besides root and the users ``owners`` can write a file, or replace one in a directory; empty: nobody.

    A group that nobody else is in is as good as its user; in a directory like ``/tmp`` nobody replaces others' files.
    """
    if status.st_uid not in {0, *owners}:
        return f"its owner {named(status.st_uid)}"
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        return ""
    if status.st_mode & stat.S_IWOTH:
        return "everybody"
    if status.st_mode & stat.S_IWGRP and not _is_private(status.st_gid, {0, *owners}):
        return f"the group {_group(status.st_gid)}"
    return ""


def _is_private(group: int, owners: Collection[int]) -> bool:
    """Tell whether no user but ``owners`` is in a group, as far as this machine lists its users."""
    if group == 0:
        return True
    users = {entry.pw_name: entry for entry in pwd.getpwall()}
    try:
        members = set(grp.getgrgid(group).gr_mem)
    except KeyError:
        return False
    members |= {name for name, entry in users.items() if entry.pw_gid == group}
    return all(name in users and users[name].pw_uid in owners for name in members)


def named(user: int) -> str:
    """Return the name of a user with the number, or the number where there is none."""
    try:
        return f"{pwd.getpwuid(user).pw_name} (uid {user})"
    except KeyError:
        return f"uid {user}"


def _group(group: int) -> str:
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return f"gid {group}"
