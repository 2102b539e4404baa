"""Files that a command writes where a person said: one rule for all of them.

Nothing is written through a symlink, into a pipe or a device, or into a file of another user; nor into a directory in
which anybody else could put another file in its place, or a link, between one look and the next.
"""

import os
import stat
from pathlib import Path
from typing import Final

from rotator.config.choosing import named, writers
from rotator.errors import RefusedError

_APPEND: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def require_own_place(path: Path) -> None:
    """Raise :class:`RefusedError` where a file at ``path`` is not for this user to write.

    What is missing, and what cannot be looked at, is left to whoever writes it. Root writes into directories of others.
    """
    path = path.absolute()
    me = os.geteuid()
    try:
        directory = path.parent.stat()
    except OSError:
        return
    if others := writers(directory, {me} if me else {directory.st_uid}):
        raise RefusedError(
            f"{path.parent} can be written by {others}, who could put something else in the place of {path.name}; "
            "name a file in a directory of your own"
        )
    try:
        _require_own(path, path.lstat())
    except OSError:
        return


def open_own(path: Path) -> int:
    """Open a file to read and write it where it stands, made private if it was missing; return its descriptor.

    Raises :class:`OSError`, and :class:`RefusedError` as :func:`require_own_place` does.
    """
    require_own_place(path)
    descriptor = os.open(path, _APPEND, 0o600)
    try:
        _require_own(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _require_own(path: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise RefusedError(f"{path} is a symlink, and nothing is written through one; name the file itself")
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError(f"{path} is there and is no regular file; name another one")
    if status.st_uid != os.geteuid():
        raise RefusedError(f"{path} belongs to {named(status.st_uid)}, and is left as it is; name another file")
    if status.st_nlink > 1:
        raise RefusedError(f"{path} has other names (hard links), and is left as it is; name another file")
