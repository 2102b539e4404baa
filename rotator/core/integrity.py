"""What the MAC of each stored record covers: all that decides in it, so that nobody without the KEK can change it.

Pure: the columns and their unambiguous encoding. Each record has a purpose with a version of its own, and a MAC key of
its own that is derived for it; a record that comes to cover something else gets the next version.

What is not covered is either a note for people (how often something failed), or follows from what is, and is compared
with it: which token of a workspace is the current one follows from its tokens, what a sink is to hold from that.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from types import MappingProxyType
from typing import Final, NamedTuple

Value = str | int | bytes | None
"""What a column holds; exactly these types, for those derived from them are written differently."""


class Covered(NamedTuple):
    """The MAC of one kind of record."""

    purpose: str
    columns: tuple[str, ...]
    digested: frozenset[str] = frozenset()
    """Columns that are long: a digest stands for them."""


COVERED: Final[Mapping[str, Covered]] = MappingProxyType(
    {
        "clock": Covered("clock/v1", ("high_water_at", "boot_id", "offset_us")),
        "keks": Covered("kek/v1", ("kek_id", "check_value", "created_at")),
        "keysets": Covered(
            "keyset/v1", ("name", "schedule_fingerprint", "next_sequence", "ever_active", "ended_at", "policy")
        ),
        "wishes": Covered("wish/v1", ("keyset", "asked_at", "emergency", "signed", "actor", "reason")),
        "signing_keys": Covered(
            "signing-key/v2",
            (
                "kid",
                "keyset",
                "sequence",
                "algorithm",
                "origin",
                "phase",
                "public_jwk",
                "sealed",
                "created_at",
                "proven_at",
                "activated_at",
                "rotate_at",
                "demoted_at",
                "grace_until",
                "last_exp",
                "retired_at",
                "revoked_at",
                "destroyed_at",
            ),
            frozenset({"sealed"}),
        ),
        "sightings": Covered(
            "sighting/v1", ("replica", "kid", "keyset", "seen_at", "absent_until", "boot_id", "since_boot_us")
        ),
        "replicas": Covered("replica/v1", ("replica", "started_at", "seen_at", "forgotten_at")),
        "workspaces": Covered(
            "workspace/v2",
            (
                "id",
                "keyset",
                "claims_fingerprint",
                "schedule_fingerprint",
                "sinks_fingerprint",
                "removed_at",
                "returned_at",
                "deletes",
            ),
        ),
        "token_overlaps": Covered("overlap/v1", ("jti", "workspace", "ends_at", "actor", "reason")),
        "deliveries": Covered("delivery/v1", ("workspace", "sink", "delivered_sequence")),
    }
)
"""By table. Of ``tokens`` see :func:`token_identity`, of ``requests`` whoever accepts them."""

TOKEN: Final = "token/v1"  # noqa: S105 - the name of a purpose, no secret
"""Purpose of the MAC of a token's row."""


def content_of(covered: Covered, values: Sequence[Value]) -> bytes:
    """Encode the values of ``covered.columns``, in that order.

    As Python writes a tuple of literals in ASCII: no two tuples give the same text, in whatever version.
    """
    if covered.digested:
        values = [
            sha256(value).digest() if name in covered.digested and isinstance(value, bytes) else value
            for name, value in zip(covered.columns, values, strict=True)
        ]
    return ascii(tuple(values)).encode("ascii")


def token_identity(
    jti: str,
    workspace: str,
    keyset: str,
    kid: str,
    sequence: int,
    issued_at: int,
    expires_at: int,
    rotate_at: int,
    status_list: str | None = None,
    status_index: int | None = None,
) -> str:
    """Encode what a token is and never ceases to be: its seal and the MAC of its row are bound to it.

    Times in microseconds since the epoch. Each text stands after its length, so that no two tuples give the same.
    """
    place = "" if status_list is None else f" {len(status_list)}:{status_list} {status_index}"
    return (
        f"{len(jti)}:{jti}{len(workspace)}:{workspace}{len(keyset)}:{keyset}{len(kid)}:{kid}"
        f"{sequence} {issued_at} {expires_at} {rotate_at}{place}"
    )


def token_content(identity: str, revoked_at: int | None = None, revoke_reason: str = "") -> bytes:
    """Return what the MAC of a token's row covers: its identity and, if it was revoked by itself, that it was.

    A token that was revoked with its key has no such mark: the key's row says so.
    """
    if revoked_at is None:
        return identity.encode()
    return f"{identity} revoked {revoked_at} {revoke_reason}".encode()
