"""The file of revocations: JSON lines in the state directory, only ever appended to.

Rules:

- An entry counts as soon as its line is whole. A line that a killed process left half written was never answered; the
  next append closes it with a mark, so that it is no fault afterwards and spoils no other line.
- Each line is validated by itself. One that is not valid is reported, and all others count.
- It is never compacted. A line has about 400 bytes, a revocation is rare, and what was revoked must be known for good:
  a file that is never rewritten can lose nothing.
"""

import errno
import os
import stat
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from rotator.adapters.disk import (
    REAL_DISK,
    Disk,
    describe,
    describe_reading,
    open_directory,
    read_regular,
    write_durably,
)
from rotator.core.counting import counted
from rotator.core.instants import from_us, to_us
from rotator.core.jwks import canonical
from rotator.core.model import Jti, Kid
from rotator.core.strict_json import parse
from rotator.errors import JournalError
from rotator.ports import Journal, RevocationEntry, RevocationKind

FILE_NAME: Final = "revocations.jsonl"
FORMAT: Final = 1
LARGEST_BYTES: Final = 64 * 1024 * 1024
TORN: Final = b"\tTORN"
"""Ends a line that a killed process left half written. A tab stands in no line of JSON that is written here."""

LONGEST_NAME: Final = 256
LONGEST_REASON: Final = 1000

_MEMBERS: Final = frozenset(
    {"format", "id", "kind", "name", "choice", "actor", "uid", "reason", "accepted_at_us", "kids", "jtis"}
)

_Stamp = tuple[int, int, int]


class FileRevocations:
    """A :class:`~rotator.ports.RevocationJournal` in ``directory``."""

    def __init__(self, directory: Path, *, disk: Disk = REAL_DISK) -> None:
        self._directory = directory
        self._path = directory / FILE_NAME
        self._disk = disk
        self._known = Journal()
        self._seen: _Stamp | int | None = None
        """The file that ``_known`` was read from, or the error that kept it from being read; None: none was there."""

    def read(self) -> Journal:
        """Return what it says; the same object as before where nothing changed.

        What was read before stays known although the file cannot be read any more, or is gone.
        """
        try:
            seen: _Stamp | int = _stamp(self._path.lstat())
            if seen != self._seen:
                content, status = read_regular(self._path, LARGEST_BYTES)
                self._known, self._seen = self._decode(content, status), _stamp(status)
        except FileNotFoundError:
            if self._seen is not None:
                self._miss("is gone, or was moved away", errno.ENOENT)
        except OSError as error:
            self._miss(f"cannot be read: {describe_reading(error)}", error.errno or errno.EIO)
        return self._known

    def _miss(self, what: str, number: int) -> None:
        if self._seen != number:
            self._known, self._seen = Journal(self._known.entries, self._refusal(what)), number

    def append(self, entry: RevocationEntry) -> None:
        """Write ``entry`` durably, after closing what a killed process may have left."""
        line = canonical(_encode(entry)).encode()
        if not _is_entry(line):
            raise JournalError(
                self._refusal(f"takes no entry that it could not read back: {entry.kind} {entry.name!r}")
            )
        try:
            end = self._end()
            if end is None:
                write_durably(self._path, line + b"\n", 0o600, disk=self._disk)
            else:
                self._append(end + line + b"\n")
        except OSError as error:
            raise JournalError(self._refusal(f"cannot be written: {describe(error)}")) from None

    def _append(self, content: bytes) -> None:
        with open_directory(self._directory) as directory_fd:
            fd = self._disk.append(FILE_NAME, directory_fd)
            try:
                self._disk.write(fd, content)
                # A failed fsync is final: the kernel may have dropped the pages, and a second one would lie (fsync(2)).
                self._disk.fsync(fd)
            finally:
                os.close(fd)

    def _end(self) -> bytes | None:
        """Return what closes the last line as it stands, for it may be torn; None where there is no file."""
        try:
            content, _ = read_regular(self._path, LARGEST_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            return b"\n"  # an empty line is no entry, and no fault
        last = content.rpartition(b"\n")[2]
        if not last:
            return b""
        return b"\n" if _is_entry(last) else TORN + b"\n"

    def _decode(self, content: bytes, status: os.stat_result) -> Journal:
        entries: dict[str, RevocationEntry] = {}
        wrong: list[int] = []
        *whole, last = content.split(b"\n")
        for number, line in enumerate(whole, start=1):
            if not line or line.endswith(TORN):
                continue
            entry = _entry_or_none(line)
            if entry is None:
                wrong.append(number)
            else:
                entries.setdefault(entry.id, entry)
        if last and (entry := _entry_or_none(last)) is not None:
            entries.setdefault(entry.id, entry)
        problems = []
        if wrong:
            lines = counted(len(wrong), "line")
            problems.append(f"has {lines} that cannot be read ({_listed(wrong)}); what they revoked is not known by it")
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            problems.append(
                f"belongs to uid {status.st_uid} with mode {mode:04o}; it should be this user's (uid {os.geteuid()}) "
                "alone, with mode 0600"
            )
        return Journal(tuple(entries.values()), self._refusal("; it ".join(problems)) if problems else "")

    def _refusal(self, what: str) -> str:
        return f"the journal of revocations {self._path} {what}"


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_ino, status.st_ctime_ns, status.st_size


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:10])) + (", …" if len(numbers) > 10 else "")


# ----------------------------------------------------------------------------------------------------------- encoding


def _encode(entry: RevocationEntry) -> Mapping[str, object]:
    return {
        "format": FORMAT,
        "id": entry.id,
        "kind": entry.kind,
        "name": entry.name,
        "choice": entry.choice,
        "actor": entry.actor,
        "uid": entry.uid,
        "reason": entry.reason,
        "accepted_at_us": to_us(entry.accepted_at),
        "kids": list(entry.kids),
        "jtis": {jti: None if exp is None else to_us(exp) for jti, exp in entry.jtis.items()},
    }


def _is_entry(line: bytes) -> bool:
    return _entry_or_none(line) is not None


def _entry_or_none(line: bytes) -> RevocationEntry | None:
    """Return the entry of a line; None where it is anything but one."""
    try:
        return _entry(parse(line.decode()))
    except (ValueError, OverflowError, RecursionError):
        return None


def _entry(fields: object) -> RevocationEntry:
    if not isinstance(fields, dict) or fields.keys() != _MEMBERS or fields["format"] != FORMAT:
        raise ValueError("it is not an entry of this version")
    kids, jtis = fields["kids"], fields["jtis"]
    if not isinstance(kids, list) or not isinstance(jtis, dict) or fields["choice"] not in ("", "wait", "now"):
        raise ValueError("kids are a list, jtis an object, and a choice is one of two")
    return RevocationEntry(
        id=_text(fields["id"]),
        kind=RevocationKind(_text(fields["kind"])),
        name=_text(fields["name"]),
        choice=fields["choice"],
        actor=_text(fields["actor"]),
        uid=_integer(fields["uid"]),
        reason=_text(fields["reason"], LONGEST_REASON, least=0),
        accepted_at=_instant(fields["accepted_at_us"]),
        kids=tuple(Kid(_text(kid)) for kid in kids),
        jtis={Jti(_text(jti)): None if exp is None else _instant(exp) for jti, exp in jtis.items()},
    )


def _text(value: object, longest: int = LONGEST_NAME, *, least: int = 1) -> str:
    if not isinstance(value, str) or not least <= len(value) <= longest or not value.isprintable():
        raise ValueError("it is not text")
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("it is no count")
    return value


def _instant(value: object) -> datetime:
    return from_us(_integer(value))
