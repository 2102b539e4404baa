"""A token in a file: desired state, which can be compared at any time and put back when it is gone.

The formats, each ended by a newline:

- ``raw``: the token alone. Most programs strip the newline, and editors and ``cat`` expect it.
- ``json``: an object with ``token workspace jti kid issued_at expires_at sequence``; times as RFC 3339 in UTC.
- ``env``: ``TOKEN=… TOKEN_EXPIRES_AT=… TOKEN_JTI=…``, one a line, for a shell or systemd's ``EnvironmentFile=``.

The owner stays the service's user (no chown: it is forbidden in the unit); other readers come in by the directory's
group or a default ACL. Readers that keep the file open, or a container that mounts the file instead of its directory,
go on seeing the old token, for a new one is a new file.
"""

import json
import os
import shlex
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rotator.adapters.disk import (
    REAL_DISK,
    Disk,
    describe,
    ensure_directory,
    open_directory,
    read_regular,
    replace_file,
)
from rotator.core.policy import FileSink
from rotator.errors import DeliveryError
from rotator.ports import Parcel

DIRECTORY_MODE: Final = 0o750


def deliver(sink: FileSink, parcel: Parcel, forbidden: Sequence[Path], *, disk: Disk = REAL_DISK) -> None:
    """Put the token at the sink's path, whole and durable.

    ``forbidden``: the state and the published directories, which no sink may write into. Raises
    :class:`~rotator.errors.DeliveryError`.
    """
    content = render(sink.format, parcel)
    path = _allowed(sink, forbidden)
    try:
        ensure_directory(path.parent, DIRECTORY_MODE, disk=disk)
        with open_directory(path.parent) as directory_fd:
            _refuse_irregular(sink.path, path.name, directory_fd)
            replace_file(directory_fd, path.name, content, sink.mode, disk=disk)
    except OSError as error:
        raise DeliveryError(f"cannot write the token to {sink.path}: {describe(error)}") from error


def holds(sink: FileSink, parcel: Parcel) -> bool:
    """Tell whether the file at the sink's path holds just this token in this format with this mode."""
    expected = render(sink.format, parcel)
    try:
        content, status = read_regular(sink.path, len(expected))
    except OSError:
        return False  # whatever stands in the way, the delivery that follows meets it and reports it
    return content == expected and stat.S_IMODE(status.st_mode) == sink.mode


def render(file_format: str, parcel: Parcel) -> bytes:
    """Return the content of the file."""
    token = parcel.token.reveal()
    match file_format:
        case "raw":
            return f"{token}\n".encode()
        case "json":
            record = {
                "token": token,
                "workspace": parcel.workspace,
                "jti": parcel.jti,
                "kid": parcel.kid,
                "issued_at": rfc3339(parcel.issued_at),
                "expires_at": rfc3339(parcel.expires_at),
                "sequence": parcel.sequence,
            }
            return (json.dumps(record, indent=2) + "\n").encode()
        case "env":
            values = {
                "TOKEN": token,
                "TOKEN_EXPIRES_AT": rfc3339(parcel.expires_at),
                "TOKEN_JTI": parcel.jti,
            }
            return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()).encode()
        case _:
            raise DeliveryError(f"the file format {file_format!r} is unknown: use raw, json or env")


def rfc3339(moment: datetime) -> str:
    """Return ``moment`` to the second, in UTC (RFC 3339 §5.6)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _allowed(sink: FileSink, forbidden: Sequence[Path]) -> Path:
    """Return the path with its directory's symlinks resolved; the last component is never followed."""
    wanted = Path(sink.path)
    if not wanted.is_absolute() or wanted.name in ("", ".."):
        raise DeliveryError(f"{sink.path!r} cannot hold a token: a sink needs the absolute path of a file")
    path = Path(os.path.realpath(wanted.parent)) / wanted.name
    for directory in forbidden:
        if path.is_relative_to(os.path.realpath(directory)):
            raise DeliveryError(
                f"{sink.path} lies in {directory}, which is rotator's own: give the token another place"
            )
    return path


def _refuse_irregular(shown: str, name: str, directory_fd: int) -> None:
    try:
        mode = os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):
        raise DeliveryError(f"{shown} is a symlink, and a token goes only where its path says: remove it")
    if not stat.S_ISREG(mode):
        raise DeliveryError(f"{shown} is there and is not a regular file: remove it, or set another path")
