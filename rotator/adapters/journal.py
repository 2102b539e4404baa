"""Sends log entries with fields to systemd's journal (the native protocol, systemd.io/JOURNAL_NATIVE_PROTOCOL).

One entry is one datagram. A field whose value holds a newline goes with its length, any other as ``NAME=value``.
Entries are kept below what a datagram can hold by cutting long values, so that no file descriptor has to be passed.
"""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

SOCKET: Final = Path("/run/systemd/journal/socket")

ENTRY_LIMIT_BYTES: Final = 128 * 1024
"""Well below the kernel's default send buffer of 208 KiB (net.core.wmem_default), which is the limit of a datagram."""

SEND_TIMEOUT_SECONDS: Final = 2.0
"""A journal that does not read for this long must not hold up a rotation: the entry goes elsewhere."""

_NAME_LIMIT: Final = 64
_CUT: Final = b" [cut]"
_NOT_IN_NAMES: Final = re.compile(r"[^A-Z0-9_]")


def is_journal(environ: Mapping[str, str], stream: TextIO) -> bool:
    """Tell whether ``stream`` ends in the journal, as ``$JOURNAL_STREAM`` says (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file of the system at all
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


@dataclass(frozen=True, slots=True)
class Journal:
    """The journal of this machine."""

    address: Path = SOCKET
    timeout_seconds: float = SEND_TIMEOUT_SECONDS

    def send(self, fields: Mapping[str, str]) -> None:
        """Send one entry; raise :class:`OSError` when the journal did not take it. A later one may go through."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.settimeout(self.timeout_seconds)
            to.sendto(encode(fields), str(self.address))


def field_name(name: str, prefix: str = "") -> str:
    """Return ``name`` as the journal accepts it: capitals, digits and underscores, 64 at most, no underscore first."""
    return (prefix + _NOT_IN_NAMES.sub("_", name.upper())).lstrip("_0123456789")[:_NAME_LIMIT]


def encode(fields: Mapping[str, str]) -> bytes:
    """Return the datagram of an entry. Where it would be too long, its long values are cut."""
    values = {name.encode("ascii"): value.encode(errors="replace") for name, value in fields.items()}
    if sum(len(name) + len(value) + 10 for name, value in values.items()) > ENTRY_LIMIT_BYTES:
        share = ENTRY_LIMIT_BYTES // len(values) - _NAME_LIMIT - 10
        values = {name: _cut(value, share) for name, value in values.items()}
    return b"".join(_encode_field(name, value) for name, value in values.items())


def _cut(value: bytes, limit_bytes: int) -> bytes:
    return value if len(value) <= limit_bytes else value[: limit_bytes - len(_CUT)] + _CUT


def _encode_field(name: bytes, value: bytes) -> bytes:
    if b"\n" not in value:
        return name + b"=" + value + b"\n"
    return name + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
