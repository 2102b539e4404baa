"""Takes in keys of other systems, into a keyset that runs: a private one to sign in its turn, public ones to stay.

Tokens of those systems are on either kind, and nobody here counts them: until the last of them can have ended, a key
stays published, whether it signs here, has signed, or is not wanted any more.
"""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from rotator.core import lifecycle
from rotator.core.counting import counted
from rotator.core.durations import format_duration
from rotator.core.events import Event, EventName
from rotator.core.jwks import PUBLIC_MEMBERS
from rotator.core.model import Algorithm, KeysetName, Kid, Origin, Phase, SigningKey
from rotator.core.planner import IN_SET
from rotator.core.policy import KeysetPolicy
from rotator.core.secret import Secret
from rotator.engine.adopt import adopted_key
from rotator.engine.requests.outcome import done, done_before
from rotator.engine.requests.sealed import secret_of
from rotator.engine.rows import examine, new_row, sealed_row
from rotator.engine.run import Run
from rotator.errors import RefusedError
from rotator.ports import FoundKey, KeysetRow, Reading, RequestRow, Transaction

LONGEST_KEPT: Final = timedelta(days=3653)
"""A token that lives longer than ten years has no end that anybody waits for."""

LARGEST_SET: Final = 20
"""Keys in one set; verifiers that read no more than one page of it have long given up."""


def pack(keys: Sequence[FoundKey]) -> bytes:
    """Return keys as bytes to be sealed."""
    return json.dumps(
        [
            {
                "kid": key.kid,
                "algorithm": key.algorithm,
                "public_jwk": key.public_jwk,
                "private": None if key.private is None else base64.b64encode(key.private.reveal()).decode(),
            }
            for key in keys
        ]
    ).encode()


def _unpack(packed: Secret[bytes]) -> Iterator[FoundKey]:
    entries: list[dict[str, Any]] = json.loads(packed.reveal())  # authentic: what :func:`pack` made
    for entry in entries:
        private = entry["private"]
        yield FoundKey(
            kid=Kid(entry["kid"]),
            algorithm=Algorithm(entry["algorithm"]),
            public_jwk=entry["public_jwk"],
            private=None if private is None else Secret(base64.b64decode(private)),
        )


def import_keys(run: Run, request: RequestRow, reading: Reading) -> None:
    """Store the keys of a request: a private key as pending, public ones in grace until the moment that it names."""
    keys = tuple(_unpack(secret_of(run, request)))
    name = KeysetName(str(request.arguments.get("keyset", "")))
    until = _until(request, reading)
    policy = run.policy.keysets.get(name)
    if policy is None:
        raise RefusedError(f"the config has no keyset {name!r}; it has {', '.join(sorted(run.policy.keysets))}")
    with run.around.store.begin() as transaction:
        row = transaction.lock_keyset(name)
        if row is None or row.ended_at is not None:
            raise RefusedError(f"keyset {name} is not in the database yet; start the daemon: systemctl start rotator")
        known = tuple(stored.key for stored in transaction.all_keys())
        if any(key.private is not None for key in keys):
            (key,) = keys
            event, result = _take_private(run, transaction, row, policy, key, known, until, reading)
            events = [event]
        else:
            if until is None:
                raise RefusedError(
                    "public keys stay published until the last token on them has ended: say when, with --until or "
                    "--keep-for"
                )
            events, result = _take_public(run, transaction, row, keys, known, until, reading)
        _require_room(transaction, name)
        if not events:
            done_before(run, transaction, request, reading, result)
            return
        *before, last = events
        done(run, transaction, request, last, result, before=before)


def _until(request: RequestRow, reading: Reading) -> datetime | None:
    text = str(request.arguments.get("until") or "")
    if not text:
        return None
    try:
        until = datetime.fromisoformat(text)
    except ValueError:
        until = None
    if until is None or until.tzinfo is None:
        raise RefusedError(f"--until: {text[:40]!r} is no moment; expected RFC 3339 with a zone: 2027-03-01T00:00:00Z")
    if not reading.now < until <= reading.now + LONGEST_KEPT:
        raise RefusedError(
            f"--until: {until:%Y-%m-%d %H:%MZ} is not between now and {LONGEST_KEPT.days} days from now; it is the "
            "moment at which the last token on the keys ends"
        )
    return until


def _require_room(transaction: Transaction, name: KeysetName) -> None:
    count = sum(stored.key.phase in IN_SET for stored in transaction.keys(name))
    if count > LARGEST_SET:
        raise RefusedError(f"the set of keyset {name} would have {count} keys; more than {LARGEST_SET} are too many")


# ---------------------------------------------------------------------------------------------------------- private


def _take_private(
    run: Run,
    transaction: Transaction,
    row: KeysetRow,
    policy: KeysetPolicy,
    found: FoundKey,
    before: Sequence[SigningKey],
    until: datetime | None,
    reading: Reading,
) -> tuple[Event, str]:
    """Store the private half, and until when tokens that it signed elsewhere can live.

    Where nobody says, they are taken to live no longer than ours, which the grace_period covers; of an adopted key
    that was said when it was adopted.
    """
    if found.algorithm != policy.algorithm:
        raise RefusedError(
            f"key {found.kid} is for {found.algorithm}, and keyset {row.name} signs with {policy.algorithm}; import it "
            f"into a keyset of its own algorithm, or set keysets.{row.name}.algorithm: {found.algorithm}"
        )
    known = _known(run, found, before)
    said = [end for end in (until, None if known is None else known.last_exp) if end is not None]
    foreign_until = max(said, default=reading.now + policy.grace_period)
    if known is None:
        key = replace(_pending(found, row, reading), last_exp=foreign_until)
        transaction.insert_key(sealed_row(run.ready_sealer, key, found.private))
    else:
        key = replace(_completed(run, transaction, row, found, known), last_exp=foreign_until)
        transaction.complete_key(sealed_row(run.ready_sealer, key, found.private))
        transaction.update_key(key)
    next_sequence = max(row.next_sequence, key.sequence + 1)
    transaction.put_keyset(replace(row, next_sequence=next_sequence, due_at=reading.now, retry_at=None))
    event = Event(
        name=EventName.KEY_IMPORTED,
        at=reading.now,
        keyset=row.name,
        kid=key.kid,
        details={
            "algorithm": key.algorithm,
            "sequence": key.sequence,
            "foreign_until": foreign_until.isoformat(timespec="seconds"),
        },
    )
    queue = [each.sequence for each in before if each.keyset == row.name and each.phase is Phase.PENDING]
    waiting = sum(sequence < key.sequence for sequence in queue)
    why = "" if said else f", the keyset's grace_period of {format_duration(policy.grace_period)} from now"
    foreign = f". Tokens that it signed elsewhere are taken to end by {foreign_until:%Y-%m-%d %H:%MZ}{why}"
    return event, _told(key, policy, waiting, published=known is not None) + foreign


def _told(key: SigningKey, policy: KeysetPolicy, waiting: int, *, published: bool) -> str:
    turn = f"{counted(waiting, 'key signs', 'keys sign')} before it" if waiting else "it is the next to sign"
    how = (
        "its public half is published already"
        if published
        else f"it is published from now on, and signs not before the propagation_period of "
        f"{format_duration(policy.propagation_period)} is over"
    )
    return f"key {key.kid} is pending in keyset {key.keyset}: {how}; {turn}"


def _pending(found: FoundKey, row: KeysetRow, reading: Reading) -> SigningKey:
    return SigningKey(
        kid=found.kid,
        keyset=row.name,
        sequence=row.next_sequence,
        algorithm=found.algorithm,
        phase=Phase.PENDING,
        created_at=reading.now,
        origin=Origin.IMPORTED,
        public_jwk=found.public_jwk,
    )


def _completed(run: Run, transaction: Transaction, row: KeysetRow, found: FoundKey, known: SigningKey) -> SigningKey:
    """Return an adopted key as one that may sign; raise :class:`RefusedError` for any other that is there already."""
    if known.origin is not Origin.ADOPTED or known.phase is not Phase.GRACE or known.kid != found.kid:
        raise RefusedError(_refusal(found, known))
    if known.keyset != row.name:
        raise RefusedError(f"key {known.kid} is adopted in keyset {known.keyset}: import it there, with --keyset")
    stored = transaction.key(known.kid)
    if stored is None or not examine(run, stored)[0].authentic:
        raise RefusedError(f"the row of key {known.kid} is not authentic (rotator status); nothing is added to it")
    return lifecycle.complete(known)


# ----------------------------------------------------------------------------------------------------------- public


def _take_public(
    run: Run,
    transaction: Transaction,
    row: KeysetRow,
    keys: Sequence[FoundKey],
    before: Sequence[SigningKey],
    until: datetime,
    reading: Reading,
) -> tuple[list[Event], str]:
    new: list[SigningKey] = []
    there: list[SigningKey] = []
    for found in keys:
        known = _known(run, found, before)
        if known is None:
            new.append(adopted_key(found, row.name, row.next_sequence + len(new), until, reading))
        elif known.phase in IN_SET and known.kid == found.kid:
            there.append(known)
        else:
            raise RefusedError(_refusal(found, known))
    if not new:
        return [], f"nothing changed: already there: {_names(there)}"
    for key in new:
        transaction.insert_key(new_row(run.ready_sealer, key, None))
    transaction.put_keyset(replace(row, next_sequence=row.next_sequence + len(new), due_at=reading.now, retry_at=None))
    events = [
        Event(
            name=EventName.KEY_ADOPTED,
            at=reading.now,
            keyset=row.name,
            kid=key.kid,
            details={"grace_until": until.isoformat()},
        )
        for key in new
    ]
    keys_are = counted(len(new), "key is", "keys are")
    text = f"{keys_are} published with keyset {row.name} until {until:%Y-%m-%d %H:%MZ}: {_names(new)}; never to sign"
    return events, text + (f". Already there: {_names(there)}" if there else "")


def _names(keys: Sequence[SigningKey]) -> str:
    return ", ".join(key.kid for key in keys)


# ------------------------------------------------------------------------------------------------------- known keys


def _known(run: Run, found: FoundKey, before: Sequence[SigningKey]) -> SigningKey | None:
    """Return the key that has this kid, or this very public half under another; raise for one that was revoked."""
    if found.kid in run.revoked_kids:
        raise RefusedError(f"key {found.kid} was revoked, and never comes back")
    mine = _identity(found.public_jwk)
    same = [key for key in before if key.kid == found.kid]
    same = same or [key for key in before if _identity(key.public_jwk) == mine]
    if same and same[0].kid == found.kid and _identity(same[0].public_jwk) != mine:
        raise RefusedError(
            f"the kid {found.kid} belongs to another key, {same[0].phase} in keyset {same[0].keyset}; a kid is never "
            "used twice"
        )
    return same[0] if same else None


def _identity(public_jwk: str) -> tuple[object, ...]:
    """Return what makes two JWKs the same key: numbers, for others write them with zeros before them."""
    jwk = json.loads(public_jwk)
    return (jwk["kty"], *(_number(jwk[member]) for member in PUBLIC_MEMBERS[jwk["kty"]]))


def _number(text: str) -> object:
    try:
        return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        return text  # the name of a curve


def _refusal(found: FoundKey, known: SigningKey) -> str:
    if known.phase is Phase.REVOKED:
        return f"key {found.kid} was revoked{_under(found, known)}, and never comes back"
    if known.phase is Phase.RETIRED:
        return f"key {found.kid} was used before and is retired{_under(found, known)}; a key is never used twice"
    return f"key {found.kid} is there already: {known.phase} in keyset {known.keyset}{_under(found, known)}"


def _under(found: FoundKey, known: SigningKey) -> str:
    return "" if known.kid == found.kid else f" under the kid {known.kid}"
