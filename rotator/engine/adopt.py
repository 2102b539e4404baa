"""Takes over from a system, or a database, whose published set is still out: keeps its keys, or drops them.

Used by a command of its own, under the state's lock, before the first start.
"""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from rotator.core.events import Event, EventName
from rotator.core.jwks import JwksError, parse_set, publishable
from rotator.core.model import Algorithm, KeysetName, Kid, Origin, Phase, SigningKey
from rotator.core.policy import KeysetPolicy
from rotator.core.stored_policy import policy_to_json
from rotator.engine.rows import new_row
from rotator.engine.run import Run
from rotator.errors import RefusedError
from rotator.ports import FoundKey, KeysetRow, PublishedSet, Reading, Sighting

ALGORITHM_OF: Final[Mapping[tuple[str, str], Algorithm]] = {
    ("EC", "P-256"): Algorithm.ES256,
    ("RSA", ""): Algorithm.RS256,
    ("OKP", "Ed25519"): Algorithm.EDDSA,
}
"""By ``kty`` and ``crv``, for a JWK without ``alg``."""


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
    """Store the keys of every found set as public keys in grace, published until ``keep_for`` from now."""
    adopted: dict[KeysetName, tuple[Kid, ...]] = {}
    for name, published in found_sets(run).items():
        keys = _keys(name, published, reading, keep_for)
        policy = run.policy.keysets[name]
        with run.around.store.begin() as transaction:
            transaction.put_keyset(_row(policy, reading, next_sequence=len(keys) + 1))
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
    return {
        name: run.around.publisher.withdraw(name, published.content, reading.now)
        for name, published in found_sets(run).items()
    }


def _row(policy: KeysetPolicy, reading: Reading, *, next_sequence: int) -> KeysetRow:
    return KeysetRow(
        name=policy.name,
        due_at=reading.now,
        schedule_fingerprint=policy.schedule_fingerprint,
        next_sequence=next_sequence,
        policy=policy_to_json(policy),
    )


def _keys(name: KeysetName, published: PublishedSet, reading: Reading, keep_for: timedelta) -> list[SigningKey]:
    keys = []
    for sequence, (kid, text) in enumerate(parse_set(published.content) or (), start=1):
        algorithm = _algorithm(kid, text)
        found = FoundKey(kid, algorithm, _publishable(kid, text, algorithm), None)
        keys.append(adopted_key(found, name, sequence, reading.now + keep_for, reading))
    return keys


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
