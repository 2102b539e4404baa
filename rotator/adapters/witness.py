"""The witness file: what the state directory remembers of the database, so that an old backup of it is found out.

Two lines of JSON: the record, and its MAC under a key of the KEK. The MAC is over the bytes of the first line, so that
nothing depends on how JSON is read. The record is rewritten, durably, only when it changed.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from rotator.adapters.disk import REAL_DISK, Disk, read_regular, write_durably
from rotator.core.instants import MICROSECOND, from_us, to_us
from rotator.core.jwks import canonical
from rotator.core.model import Algorithm, Jti, KekId, KeysetName, Kid, ReplicaId
from rotator.core.timeguard import ClockMark
from rotator.errors import WitnessError
from rotator.ports import Sealer, WitnessedKey, WitnessedKeyset, WitnessRecord
from rotator.told import told

FORMAT: Final = 1
PURPOSE: Final = "witness"
_LARGEST_BYTES: Final = 64 * 1024 * 1024

_Stamp = tuple[int, int, int]
"""Inode, time of change and size of a file: it is still what was written if these are."""


class FileWitness:
    """A :class:`~rotator.ports.Witness` at ``path``; ``unlock`` gives a sealer, or raises what the caller is to see."""

    def __init__(self, path: Path, unlock: Callable[[], Sealer], *, disk: Disk = REAL_DISK) -> None:
        self._path = path
        self._disk = disk
        self._unlock = unlock
        self._known: tuple[bytes, KekId, _Stamp] | None = None
        """What the file says, as far as this process wrote or read it."""

    def read(self) -> WitnessRecord | None:
        """Read and authenticate it; None where there is none."""
        try:
            content, status = read_regular(self._path, _LARGEST_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WitnessError(f"the witness {self._path} cannot be read: {error.strerror}") from None
        body, kek_id = self._authenticate(content)
        record = self._decode(body)
        self._known = body, kek_id, _stamp(status)
        return record

    def write(self, record: WitnessRecord) -> None:
        """Write it durably; nothing is written when it already says so, under the KEK that seals now."""
        sealer = self._unlock()
        body = canonical(_encode(record)).encode()
        if self._known == (body, sealer.kek_id, self._stamp()):
            return
        seal = canonical({"kek_id": sealer.kek_id, "mac": sealer.mac(PURPOSE, body).hex()}).encode()
        try:
            write_durably(self._path, body + b"\n" + seal + b"\n", 0o600, disk=self._disk)
        except OSError as error:
            raise WitnessError(
                f"the witness {self._path} cannot be written: {error.strerror}; nothing is changed without it, "
                f"so make room or let this user (uid {os.geteuid()}) write there"
            ) from None
        stamp = self._stamp()
        self._known = None if stamp is None else (body, sealer.kek_id, stamp)

    def _stamp(self) -> _Stamp | None:
        try:
            return _stamp(self._path.lstat())
        except OSError:  # whatever it is, the write that follows says it
            return None

    def _authenticate(self, content: bytes) -> tuple[bytes, KekId]:
        body, _, seal = content.partition(b"\n")
        try:
            fields = json.loads(seal)
            kek_id, mac = KekId(str(fields["kek_id"])), bytes.fromhex(fields["mac"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._refusal("is damaged: it does not end with its MAC") from None
        if not self._unlock().verify_mac(PURPOSE, body, mac, kek_id):
            raise self._refusal(f"was changed, or was not written under the KEK {kek_id!r} of this installation")
        return body, kek_id

    def _decode(self, body: bytes) -> WitnessRecord:
        """Turn an authentic body into a record: what is wrong with it now can only be its version."""
        try:
            fields = json.loads(body)
            if fields["format"] != FORMAT:
                raise WitnessError(
                    f"the witness {self._path} has format {fields['format']}, and this version reads {FORMAT}; "
                    f"run the version of rotator that wrote it, or a later one"
                )
            return _record(fields)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise self._refusal("is authentic, but not a record of this version") from None

    def _refusal(self, what: str) -> WitnessError:
        step = told("mv", self._path, f"{self._path}.damaged")
        return WitnessError(
            f"the witness {self._path} {what}; put back the file that belongs to this state and its KEK. If it is "
            f"lost, move it away ({step}): a restored backup can then not be told "
            f"from the present state, so make sure that the database is the latest one"
        )


def _stamp(status: os.stat_result) -> _Stamp:
    return status.st_ino, status.st_mtime_ns, status.st_size


# ----------------------------------------------------------------------------------------------------------- encoding


def _encode(record: WitnessRecord) -> Mapping[str, object]:
    return {
        "format": FORMAT,
        "installation": record.installation,
        "audit_seq": record.audit_seq,
        "audit_hash": record.audit_hash,
        "keysets": {name: _encode_keyset(keyset) for name, keyset in record.keysets.items()},
        "revoked_kids": sorted(record.revoked_kids),
        "revoked_jtis": {jti: to_us(exp) for jti, exp in record.revoked_jtis.items()},
        "requests": {nonce: to_us(accepted_at) for nonce, accepted_at in record.requests.items()},
        "replicas": sorted(record.replicas),
        "clock": None if record.clock is None else _encode_clock(record.clock),
    }


def _encode_clock(mark: ClockMark) -> Mapping[str, object]:
    return {
        "high_water_us": to_us(mark.high_water_at),
        "boot_id": mark.boot_id,
        "offset_us": mark.offset // MICROSECOND,
    }


def _encode_keyset(keyset: WitnessedKeyset) -> Mapping[str, object]:
    return {
        "generation": keyset.generation,
        "active": keyset.active,
        "published": [
            {
                "kid": key.kid,
                "algorithm": key.algorithm,
                "public_jwk": key.public_jwk,
                "sequence": key.sequence,
                "ends_at_us": None if key.ends_at is None else to_us(key.ends_at),
            }
            for key in keyset.published
        ],
    }


def _record(fields: Mapping[str, Any]) -> WitnessRecord:
    return WitnessRecord(
        installation=fields["installation"],
        audit_seq=fields["audit_seq"],
        audit_hash=fields["audit_hash"],
        keysets={KeysetName(name): _keyset(keyset) for name, keyset in fields["keysets"].items()},
        revoked_kids=frozenset(Kid(kid) for kid in fields["revoked_kids"]),
        revoked_jtis={Jti(jti): from_us(exp) for jti, exp in fields["revoked_jtis"].items()},
        requests={nonce: from_us(accepted_at) for nonce, accepted_at in fields["requests"].items()},
        replicas=frozenset(ReplicaId(replica) for replica in fields.get("replicas", ())),
        clock=None if fields.get("clock") is None else _clock(fields["clock"]),
    )


def _clock(fields: Mapping[str, Any]) -> ClockMark:
    return ClockMark(
        high_water_at=from_us(fields["high_water_us"]),
        boot_id=str(fields["boot_id"]),
        offset=fields["offset_us"] * MICROSECOND,
    )


def _keyset(fields: Mapping[str, Any]) -> WitnessedKeyset:
    return WitnessedKeyset(
        generation=fields["generation"],
        active=fields["active"],
        published=tuple(
            WitnessedKey(
                kid=Kid(key["kid"]),
                algorithm=Algorithm(key["algorithm"]),
                public_jwk=key["public_jwk"],
                sequence=key["sequence"],
                ends_at=None if key["ends_at_us"] is None else from_us(key["ends_at_us"]),
            )
            for key in fields["published"]
        ),
    )
