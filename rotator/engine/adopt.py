"""Takes over from a system, or a database, whose published set is still out: keeps its keys, or drops them.

Used by a command of its own, under the state's lock, before the first start.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from rotator.core.events import Detail, Event, EventName
from rotator.core.jwks import JwksError, parse_set, publishable
from rotator.core.model import Algorithm, Jti, KeysetName, Kid, Origin, Phase, SigningKey
from rotator.core.policy import KeysetPolicy
from rotator.core.stored_policy import policy_to_json
from rotator.engine.knowledge import merge
from rotator.engine.rows import new_row
from rotator.engine.run import Run
from rotator.engine.second_witness import read_metas, report_metas
from rotator.engine.witnessing import write_witness
from rotator.errors import RefusedError
from rotator.ports import FoundKey, KeysetRow, PublishedSet, Reading, Sighting, WitnessedKey, WitnessedKeyset

ALGORITHM_OF: Final[Mapping[tuple[str, str], Algorithm]] = {
    ("EC", "P-256"): Algorithm.ES256,
    ("RSA", ""): Algorithm.RS256,
    ("OKP", "Ed25519"): Algorithm.EDDSA,
}
"""By ``kty`` and ``crv``, for a JWK without ``alg``."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a new database took over from the witnesses of one that is lost."""

    installation: str
    """The lost one."""
    revoked_kids: tuple[Kid, ...]
    revoked_jtis: tuple[Jti, ...]


def inherit(run: Run, reading: Reading) -> Inherited | None:
    """Let a new database begin with what the witness and the metas of a lost one know; None where there is no such.

    They count because the KEK of this machine made them. The witness becomes this database's own before anything is
    adopted, so that nothing is forgotten wherever that is cut off. Raises :class:`~rotator.errors.WitnessError` for a
    witness that the KEK does not open.
    """
    with run.around.store.read() as snapshot:
        installation, new = snapshot.installation(), not snapshot.keysets()
    if not new:
        return None
    record = run.around.witness.read()
    names = run.policy.keysets.keys() | (set() if record is None else record.keysets.keys())
    metas = read_metas(run.around.publisher, run.ready_sealer, sorted(names))
    report_metas(run, metas.problems)
    known = merge(record, metas.authentic)
    witnesses = [*(() if record is None else (record,)), *metas.authentic]
    lost = next((each.installation for each in witnesses if each.installation != installation), None)
    if known is None or lost is None:
        return None
    details: dict[str, Detail] = {
        "installation": lost,
        "witness_seq": known.audit_seq,
        "witness_hash": known.audit_hash,
        "revoked_kids": len(known.revoked_kids),
        "revoked_jtis": len(known.revoked_jtis),
    }
    with run.around.store.begin() as transaction:
        head = transaction.append([Event(name=EventName.STATE_INHERITED, at=reading.now, details=details)])
    run.around.witness.write(
        replace(known, installation=installation, audit_seq=head.seq, audit_hash=head.hash, replicas=frozenset())
    )
    return Inherited(lost, tuple(sorted(known.revoked_kids)), tuple(sorted(known.revoked_jtis)))


def found_sets(run: Run) -> Mapping[KeysetName, PublishedSet]:
    """Return the published sets of keysets that the database does not know."""
    with run.around.store.read() as snapshot:
        known = {row.name for row in snapshot.keysets()}
    found = {}
    for name in run.policy.keysets:
        published = run.around.publisher.found(name) if name not in known else None
        if published is not None and published.kids:
            found[name] = published
    return found


def adopt_published(run: Run, reading: Reading, keep_for: timedelta) -> Mapping[KeysetName, tuple[Kid, ...]]:
    """Store the keys of every found set as public keys in grace, published until ``keep_for`` from now.

    What the witness of a lost database knows comes with it: a key stays until the last token on it has ended, also one
    that is not in the set any more, and what was revoked is not adopted.
    """
    adopted: dict[KeysetName, tuple[Kid, ...]] = {}
    sets = found_sets(run)
    for name in sorted(sets.keys() | _needed_sets(run, reading)):
        known = run.witnessed.get(name, WitnessedKeyset(0, None, ()))
        keys = _keys(name, sets.get(name), known, run.revoked_kids, reading, keep_for)
        policy = run.policy.keysets[name]
        last = max([len(keys), *(key.sequence for key in known.published)])
        with run.around.store.begin() as transaction:
            row = _row(policy, reading, next_sequence=last + 1)
            transaction.put_keyset(replace(row, generation=known.generation))
            for key in keys:
                transaction.insert_key(new_row(run.ready_sealer, key, None))
            for sighting in _served_by_now(run, name, reading):
                transaction.put_sighting(sighting)
            details = {"algorithm": policy.algorithm, "issuer": policy.issuer}
            events = [Event(name=EventName.KEYSET_CREATED, at=reading.now, keyset=name, details=details)]
            events += [
                Event(
                    name=EventName.KEY_ADOPTED,
                    at=reading.now,
                    keyset=name,
                    kid=key.kid,
                    details={"grace_until": key.grace_until.isoformat() if key.grace_until else None},
                )
                for key in keys
            ]
            run.head = transaction.append(events)
        adopted[name] = tuple(key.kid for key in keys)
    return adopted


def replace_published(run: Run, reading: Reading) -> Mapping[KeysetName, str]:
    """Move every found set aside; the next start is a first start. Return where each one is kept now."""
    found = found_sets(run)
    for name in run.policy.keysets.keys() & run.witnessed.keys():  # what was published there is not needed any more
        run.witnessed[name] = replace(run.witnessed[name], active=None, published=())
    write_witness(run)
    events = [
        Event(EventName.KEYSET_REPLACED, reading.now, keyset=name, details={"keys": len(published.kids)})
        for name, published in found.items()
    ]
    if events:  # before they are moved: who is cut off in between does it again, and is known both times
        with run.around.store.begin() as transaction:
            run.head = transaction.append(events)
    return {
        name: run.around.publisher.withdraw(name, published.content, reading.now) for name, published in found.items()
    }


def _row(policy: KeysetPolicy, reading: Reading, *, next_sequence: int) -> KeysetRow:
    return KeysetRow(
        name=policy.name,
        due_at=reading.now,
        schedule_fingerprint=policy.schedule_fingerprint,
        next_sequence=next_sequence,
        policy=policy_to_json(policy),
    )


def _needed_sets(run: Run, reading: Reading) -> set[KeysetName]:
    """Return the keysets without a row of which the witness knows keys that live tokens need."""
    with run.around.store.read() as snapshot:
        rows = {row.name for row in snapshot.keysets()}
    needed = {name for name, known in run.witnessed.items() if any(_is_needed(key, reading) for key in known.published)}
    return (needed & run.policy.keysets.keys()) - rows


def _is_needed(key: WitnessedKey, reading: Reading) -> bool:
    return key.ends_at is not None and key.ends_at > reading.now


def _keys(
    name: KeysetName,
    published: PublishedSet | None,
    known: WitnessedKeyset,
    revoked: Collection[Kid],
    reading: Reading,
    keep_for: timedelta,
) -> list[SigningKey]:
    ends = {key.kid: key.ends_at for key in known.published if key.ends_at is not None}
    found = []
    for kid, text in () if published is None else parse_set(published.content) or ():
        if kid not in revoked:
            algorithm = _algorithm(kid, text)
            found.append(FoundKey(kid, algorithm, _publishable(kid, text, algorithm), None))
    there = {key.kid for key in found} | set(revoked)
    missing = [key for key in known.published if key.kid not in there and _is_needed(key, reading)]
    found += [FoundKey(key.kid, key.algorithm, key.public_jwk, None) for key in missing]
    asked = reading.now + keep_for
    return [
        adopted_key(key, name, sequence, max(asked, ends.get(key.kid, asked)), reading)
        for sequence, key in enumerate(found, start=1)
    ]


def adopted_key(found: FoundKey, name: KeysetName, sequence: int, until: datetime, reading: Reading) -> SigningKey:
    """Return a public key of another system, to be published until ``until`` and never to sign."""
    return SigningKey(
        kid=found.kid,
        keyset=name,
        sequence=sequence,
        algorithm=found.algorithm,
        phase=Phase.GRACE,
        created_at=reading.now,
        origin=Origin.ADOPTED,
        public_jwk=found.public_jwk,
        has_private=False,
        demoted_at=reading.now,
        grace_until=until,
        last_exp=until,
        destroyed_at=reading.now,
    )


def _served_by_now(run: Run, name: KeysetName, reading: Reading) -> list[Sighting]:
    """Return that no verifier of this tree can hold a set without the keys that were found in it.

    So one whose private half is imported later need not wait. Where the set is not the same in all its places, or is
    none to be served, this cannot be said of any.
    """
    published = run.around.publisher.read(name)
    return [
        Sighting(run.around.replica, name, kid, reading.now, None, reading.boot_id, reading.since_boot)
        for kid in (() if published is None else published.kids)
    ]


def _algorithm(kid: Kid, text: str) -> Algorithm:
    jwk = json.loads(text)
    named = jwk.get("alg")
    if named in set(Algorithm):
        return Algorithm(named)
    algorithm = ALGORITHM_OF.get((jwk["kty"], jwk.get("crv", "")))
    if named is not None or algorithm is None:
        found = named or f"{jwk['kty']} {jwk.get('crv', '')}".strip()
        raise RefusedError(
            f"the published key {kid} is of algorithm {found}, which cannot be adopted; "
            f"known are {', '.join(Algorithm)}. Remove it from the published file once no token needs it"
        )
    return algorithm


def _publishable(kid: Kid, text: str, algorithm: Algorithm) -> str:
    if "kid" not in json.loads(text):
        raise RefusedError(
            "a published key has no kid, and cannot be told from others; give it one before it is adopted"
        )
    try:
        return publishable(text, kid=kid, algorithm=algorithm)
    except JwksError as error:
        raise RefusedError(f"the published key {kid} cannot be adopted: {error}") from None
