"""Key-encryption keys: where they come from, and what they are made into.

A KEK is 32 random bytes with an id. It is never used itself: each purpose has a key of its own, derived from it
(HKDF-SHA256, RFC 5869), so that what is sealed or authenticated for one purpose means nothing for another.

A ring is text, one key per line: ``ID BASE64URL(32 bytes)``. The first one seals; the others still open what was sealed
under them. No message from here ever repeats a line, for it may hold a key.
"""

import base64
import binascii
import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from rotator.adapters.disk import (
    REAL_DISK,
    Disk,
    create_durably,
    describe,
    open_directory,
    read_regular,
    remove_leftovers,
)
from rotator.core.model import KekId
from rotator.core.secret import Secret
from rotator.errors import KekError
from rotator.ports import KekRow
from rotator.told import told

KEY_BYTES: Final = 32
_LARGEST_RING_BYTES: Final = 64 * 1024
_LINE: Final = "ID BASE64URL(32 bytes)"
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*={0,2}")

Use = Literal["seal", "mac"]


class KekMissingError(KekError):
    """There is no file where the KEK is looked for. The message is for a state that was sealed with one."""

    _OR: Final = "or give it as the systemd credential kek, as $ROTATOR_KEK or as kek.file in the config"

    def __init__(self, path: Path) -> None:
        super().__init__(f"there is no KEK at {path}; put the one back that this state was sealed with, {self._OR}")
        self.path = path

    def at_first(self) -> KekError:
        """Return the error for a database that nothing was sealed in yet."""
        step = told("rotator", "kek", "generate", self.path)
        return KekError(f"there is no KEK at {self.path}; make one: {step}, {self._OR}")


@dataclass(frozen=True, slots=True)
class KekRing:
    """KEKs by id, in order; the first one seals."""

    keys: Mapping[KekId, Secret[bytes]]
    origin: str = "the KEK ring"
    """Where it was read from, for messages."""

    def __post_init__(self) -> None:
        if not self.keys:
            raise KekError(f"{self.origin} holds no key; expected at least one line: {_LINE}")
        object.__setattr__(self, "keys", MappingProxyType(dict(self.keys)))

    @property
    def first(self) -> KekId:
        """The id of the KEK that seals."""
        return next(iter(self.keys))

    def derive(self, kek_id: KekId, use: Use, purpose: str) -> bytes:
        """Return the 32-byte key for ``use`` and ``purpose``; raise :class:`KekError` if the ring lacks ``kek_id``."""
        kek = self.keys.get(kek_id)
        if kek is None:
            raise KekError(
                f"KEK {kek_id} is needed and {self.origin} does not hold it (it has {', '.join(self.keys)}); "
                f"put its line back there, after the one that is to seal"
            )
        info = f"rotator/v1/{use}/{purpose}".encode()
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(kek.reveal())


# ------------------------------------------------------------------------------------------------------------ reading


def parse_ring(text: str, origin: str = "the KEK ring") -> KekRing:
    """Read the lines of a ring; blank lines and those that begin with ``#`` say nothing.

    ``origin`` names where it came from in messages. Raises :class:`KekError` with the number of the line.
    """
    keys: dict[KekId, Secret[bytes]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        kek_id, key = _parse_line(line, f"{origin}, line {number}")
        if kek_id in keys:
            raise KekError(f"{origin}, line {number}: the id {kek_id} is there twice; each KEK has an id of its own")
        if key in keys.values():
            raise KekError(f"{origin}, line {number}: {kek_id} is the same key as one above; each KEK is made anew")
        keys[kek_id] = key
    return KekRing(keys, origin)


def _parse_line(line: str, place: str) -> tuple[KekId, Secret[bytes]]:
    fields = line.split()
    if len(fields) != 2:
        raise KekError(f"{place}: found {len(fields)} fields, expected two: {_LINE}")
    if not _ID.fullmatch(fields[0]):
        # An id that is wrong may well be a key in the wrong place: it is not repeated either.
        raise KekError(f"{place}: the id must be 1 to 64 of the characters A-Z a-z 0-9 . _ -")
    encoded = fields[1].rstrip("=")
    if not _BASE64URL.fullmatch(fields[1]):
        raise KekError(f"{place}: the key has characters outside base64url (A-Z a-z 0-9 - _)")
    try:
        key = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except binascii.Error:
        raise KekError(f"{place}: the key is cut short; {KEY_BYTES} bytes are 43 characters of base64url") from None
    if len(key) != KEY_BYTES:
        raise KekError(f"{place}: the key has {len(key)} bytes, expected {KEY_BYTES} (43 characters of base64url)")
    return KekId(fields[0]), Secret(key)


def read_ring_value(value: Secret[str], variable: str = "ROTATOR_KEK") -> KekRing:
    """Read a ring from the environment; ``variable`` names it in messages."""
    return parse_ring(value.reveal(), f"${variable}")


def read_ring_file(path: Path, *, strict_mode: bool = True) -> KekRing:
    """Read a ring from a file; a symlink is followed, for credentials are often mounted as one.

    ``strict_mode`` refuses a file that anyone but its owner can reach, or that another user owns; one of root's may be
    read by a group of this process, as a secret of Kubernetes is. A credential of systemd needs it off: systemd guards
    the directory, and lets the service in by an ACL that shows as a group's. Raises :class:`KekMissingError` where
    there is none.
    """
    try:
        content, status = read_regular(path, _LARGEST_RING_BYTES, follow_symlinks=True)
    except FileNotFoundError:
        raise KekMissingError(path) from None
    except OSError as error:
        raise KekError(
            f"the KEK at {path} cannot be read: {error.strerror}; let this user (uid {os.geteuid()}) read it"
        ) from None
    if strict_mode:
        _require_private(path, status)
    try:
        return parse_ring(content.decode("ascii"), str(path))
    except UnicodeDecodeError:
        raise KekError(f"{path} is not text; a KEK file has lines of the form {_LINE}") from None


def _require_private(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in {0, os.geteuid()}:
        raise KekError(
            f"the KEK at {path} belongs to uid {status.st_uid}, who can replace it, and this process runs as uid "
            f"{os.geteuid()}; give it to the service's user: {told('chown', str(os.geteuid()), path)}"
        )
    mode = stat.S_IMODE(status.st_mode)
    shared = status.st_uid == 0 and status.st_gid in {os.getegid(), *os.getgroups()}
    if mode & (0o037 if shared else 0o077):
        step = told("chmod", "600", path)
        raise KekError(
            f"the KEK at {path} has mode {mode:04o}, which lets others reach it; close it: {step} (for a "
            "secret of Kubernetes: defaultMode: 0440, and fsGroup in the securityContext of the pod)"
        )


# ------------------------------------------------------------------------------------------------------------- making


def make_kek_file(path: Path, *, disk: Disk = REAL_DISK) -> KekRing:
    """Make a new KEK and store it durably at ``path``, mode 0600; a file that is there already is never replaced."""
    kek_id = KekId(f"k1-{secrets.token_hex(4)}")
    key = secrets.token_bytes(KEY_BYTES)
    content = f"{kek_id} {base64.urlsafe_b64encode(key).decode().rstrip('=')}\n".encode()
    try:
        create_durably(path, content, 0o600, disk=disk)
    except FileExistsError:
        raise KekError(f"{path} is there already; a KEK is never replaced, for the state is sealed with it") from None
    except OSError as error:
        raise KekError(f"no KEK can be stored at {path}: {describe(error)}") from None
    return KekRing({kek_id: Secret(key)}, str(path))


def ensure_kek_file(path: Path, *, disk: Disk = REAL_DISK) -> None:
    """Make a KEK at ``path`` unless there is one; no copy stays behind of one that a killed process was making."""
    if not path.exists():
        make_kek_file(path, disk=disk)
        return
    with open_directory(path.parent) as directory_fd:
        remove_leftovers(directory_fd, path.name, disk=disk)


# ----------------------------------------------------------------------------------------------------------- checking


def check_value(ring: KekRing, kek_id: KekId) -> bytes:
    """Return what tells later whether the key named ``kek_id`` is still the same; it gives nothing of the key away."""
    return hmac.digest(ring.derive(kek_id, "mac", "kek-check"), kek_id.encode(), "sha256")


def require_known(ring: KekRing, known: Iterable[KekRow]) -> None:
    """Raise :class:`KekError` unless ``ring`` holds every KEK in ``known``, and holds it unchanged."""
    for row in known:
        if not hmac.compare_digest(check_value(ring, row.kek_id), row.check):
            raise KekError(
                f"the KEK {row.kek_id} in {ring.origin} is not the one that this state was sealed with; "
                f"put the right key back under that id"
            )
