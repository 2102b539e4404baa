"""The first step: facts. What the database, the published tree and the served URL say of one keyset right now."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from rotator.core.jwks import jwks_uri, parse_set
from rotator.core.model import ALWAYS, KeysetName, KeysetState, Kid, Origin, Phase, ReplicaId, SigningKey
from rotator.core.planner import IN_SET, can_sign, desired_kids, next_set_change
from rotator.core.policy import KeysetPolicy
from rotator.core.timeguard import ClockMark, mark_of
from rotator.engine.belief import held_against_witness
from rotator.engine.fresh import are_ready
from rotator.engine.rows import examine
from rotator.engine.run import Run
from rotator.ports import (
    KeyRow,
    KeysetRow,
    Publication,
    PublishedSet,
    Reading,
    Sighting,
    Signer,
    Snapshot,
    Transaction,
    WitnessedKey,
)

SERVED: Final = ReplicaId("@served")
"""The replica that stands for what ``publish.verify_url`` serves: a tree like any other, seen from outside."""


FIRST_KEYS: Final = 2
"""Keys of a first set: the one that is to sign, and its standby."""


@dataclass(frozen=True, slots=True)
class Observed:
    """One keyset with all that is known of it."""

    row: KeysetRow
    policy: KeysetPolicy
    state: KeysetState
    signers: Mapping[Kid, Signer]
    published: PublishedSet | None
    sightings: tuple[Sighting, ...] = ()
    replicas: frozenset[ReplicaId] = frozenset()
    """Those that have to hold a key before it may sign."""
    lost: tuple[WitnessedKey, ...] = ()
    """Published keys, as the witness knows them, that tokens may need and that have no row in this keyset."""


def observe(
    run: Run,
    snapshot: Snapshot,
    name: KeysetName,
    reading: Reading,
    *,
    row: KeysetRow | None = None,
    publish_blocked: bool = False,
) -> Observed | None:
    """Gather the facts about one keyset; None if it is not in the database. Without the KEK no row is authentic.

    ``row``: that of the keyset, if it was read already.
    """
    row = row or snapshot.keyset(name)
    if row is None:
        return None
    witnessed = run.witnessed.get(name)
    if witnessed is not None and row.generation < witnessed.generation:
        row = replace(row, generation=witnessed.generation)  # no two sets share one
    policy = run.keyset_policy(row)
    keys: list[SigningKey] = []
    signers: dict[Kid, Signer] = {}
    for stored in snapshot.keys(name):
        key, signer = examine(run, stored)
        key = key if run.sealer is None else held_against_witness(run, name, key)
        keys.append(key)
        if signer is not None and can_sign(key):
            signers[key.kid] = signer
    published = run.around.publisher.read(name)
    sightings, replicas = snapshot.sightings(name), _replicas(run, snapshot)
    state = KeysetState(
        name=name,
        keys=tuple(keys),
        next_sequence=row.next_sequence,
        schedule_fingerprint=row.schedule_fingerprint,
        ever_active=row.ever_active,
        published=None if published is None else names_in_file(published, keys),
        fresh_at_hand=are_ready(run, name),
        shows_revoked=published is not None and not revoked_kids(run, keys).isdisjoint(published.kids),
        first_publication=_nothing_was_served(run, row, keys, sightings, published),
        publish_blocked=publish_blocked,
        out_since=out_since(sightings, replicas, reading),
        in_use=not policy.ending or snapshot.keyset_in_use(name, reading.now),
        wish=snapshot.wish(name),
    )
    if published is not None and state.published == desired_kids(state):
        intact = run.around.publisher.intact(publication(run, row, policy, state, reading.now))
        state = replace(state, tree_intact=intact)
    missing = _lost(run, snapshot, name, keys, reading.now)
    return Observed(row, policy, state, signers, published, sightings, replicas, missing)


def _lost(
    run: Run, snapshot: Snapshot, name: KeysetName, keys: Iterable[SigningKey], now: datetime
) -> tuple[WitnessedKey, ...]:
    """Return the published keys without a row: rows are never deleted, and a key never changes its keyset."""
    witnessed = run.witnessed.get(name)
    there = {key.kid for key in keys} | run.revoked_kids
    published = () if witnessed is None else witnessed.published
    missing = [known for known in published if known.kid not in there]
    needed = [known for known in missing if known.ends_at is not None and known.ends_at > now]
    rows = {known.kid: snapshot.key(known.kid) for known in needed}  # what has left for good is not among ``keys``
    return tuple(known for known in needed if not _is_of(rows[known.kid], name))


def _is_of(row: KeyRow | None, keyset: KeysetName) -> bool:
    return row is not None and row.key.authentic and row.key.keyset == keyset


def publication(run: Run, row: KeysetRow, policy: KeysetPolicy, state: KeysetState, now: datetime) -> Publication:
    """Return what is to be published of a keyset in ``state``."""
    wanted = frozenset(desired_kids(state))
    return Publication(
        policy=policy,
        generation=row.generation,
        jwks_uri=jwks_uri(run.policy.base_url, row.name),
        jwks=tuple(key.public_jwk for key in state.keys if key.kid in wanted),
        published_at=now,
        next_change_at=next_set_change(state, policy, now),
    )


def names_in_file(published: PublishedSet, keys: Iterable[SigningKey]) -> tuple[Kid, ...]:
    """Return the kids in the file, each that is not exactly our key under a name that no key has."""
    ours = {key.kid: key.public_jwk for key in keys if key.authentic}
    found = dict(parse_set(published.content) or ())
    return tuple(kid if found.get(kid) == ours.get(kid, "") else Kid(f"not ours: {kid}") for kid in published.kids)


def revoked_kids(run: Run, keys: Iterable[SigningKey]) -> set[Kid]:
    """Return every kid that is known to be revoked, in memory or among ``keys``."""
    return run.revoked_kids | {key.kid for key in keys if key.phase is Phase.REVOKED and key.authentic}


def _replicas(run: Run, snapshot: Snapshot) -> frozenset[ReplicaId]:
    known = {row.replica for row in snapshot.replicas()} | {run.around.replica}
    known.discard(SERVED)
    return frozenset(known | {SERVED}) if run.around.served is not None else frozenset(known)


def out_since(
    sightings: Iterable[Sighting], replicas: frozenset[ReplicaId], reading: Reading
) -> Mapping[Kid, datetime]:
    """Return since when every replica has held each kid, in time that really passed.

    Wall time counts, downtime included; within this boot it is capped by what CLOCK_BOOTTIME measured, so that a leap
    of the wall clock makes no key older than it is.
    """
    holders: dict[Kid, dict[ReplicaId, datetime]] = {}
    for sighting in sightings:
        if lost(sighting):
            continue
        since = ALWAYS
        if sighting.absent_until is not None:
            since = reading.now - elapsed(sighting, sighting.absent_until, reading)
        holders.setdefault(sighting.kid, {})[sighting.replica] = since
    return {
        kid: max(by_replica[replica] for replica in replicas)
        for kid, by_replica in holders.items()
        if replicas <= by_replica.keys()
    }


def elapsed(sighting: Sighting, since: datetime, reading: Reading) -> timedelta:
    """Return how much time has really passed since the sighting's ``since``; never negative."""
    passed = max(reading.now - since, timedelta(0))
    if sighting.boot_id == reading.boot_id:
        passed = min(passed, max(reading.since_boot - sighting.since_boot, timedelta(0)))
    return passed


def _nothing_was_served(
    run: Run,
    row: KeysetRow,
    keys: Iterable[SigningKey],
    sightings: Iterable[Sighting],
    published: PublishedSet | None,
) -> bool:
    """Tell whether no verifier can hold any set of this keyset yet.

    A file that holds nothing but our own new keys is the first one, written just before a crash. That file may be gone
    as well: where a key has left already, or more have come than the two that it began with, it held other ones.
    """
    if row.ever_active or any(sightings):
        return False
    keys = tuple(keys)
    if any(key.origin is not Origin.MADE for key in keys):
        return False
    new = frozenset(key.kid for key in keys if key.phase is Phase.PENDING)
    if row.next_sequence > len(new) + 1 or len(new) > FIRST_KEYS:
        return False
    if published is not None and not frozenset(published.kids) <= new:
        return False
    if run.around.served is None:
        return True
    latest = run.around.served.latest(row.name)
    return latest is not None and latest.anywhere <= new


def record_sightings(
    run: Run,
    transaction: Transaction,
    observed: Observed,
    reading: Reading,
    *,
    seen: Reading | None = None,
    wrote_first_file: bool = False,
) -> Observed:
    """Store what this replica's tree, and the served URL, are seen to hold now, where that is news; return what is so.

    ``seen``: when that was looked at, if not at ``reading``. ``wrote_first_file``: the tree never held a set of this
    keyset, and was just given one.
    """
    news = False
    name = observed.row.name
    wanted = desired_kids(observed.state)
    # What some tree held stays known to have been published while its row cannot be believed.
    doubtful = {key.kid for key in observed.state.keys if not key.authentic and key.phase in IN_SET}
    after = {(sighting.replica, sighting.kid): sighting for sighting in observed.sightings}
    held = frozenset(observed.state.published or ())
    views = {run.around.replica: held}
    latest = None if run.around.served is None else run.around.served.latest(name)
    if latest is not None and latest.everywhere is not None:
        views[SERVED] = latest.everywhere
    for replica, kids in views.items():
        known = {sighting.kid: sighting for sighting in observed.sightings if sighting.replica == replica}
        for kid in wanted:
            others = [s for s in observed.sightings if s.kid == kid and s.replica != replica]
            if replica == SERVED:
                no_wait = not known and bool(others) and all(s.absent_until is None for s in others)
            else:
                newcomer = wrote_first_file and not known and any(s.replica != SERVED for s in others)
                no_wait = observed.state.first_publication or newcomer
            sighting = _sight(known.get(kid), replica, name, kid, seen or reading, held=kid in kids, no_wait=no_wait)
            if sighting is not None:
                transaction.put_sighting(sighting)
                after[replica, kid], news = sighting, True
        gone = [kid for kid in known if kid not in wanted and kid not in doubtful]
        if gone:  # what left the set is seen for as long as the tree shows it: a revocation is not over before
            shown = latest.anywhere if replica == SERVED and latest is not None else _shown(run, name)
            gone = [kid for kid in gone if kid not in shown]
        if gone:
            transaction.delete_sightings(replica, gone)
            after = {pair: sighting for pair, sighting in after.items() if pair not in {(replica, kid) for kid in gone}}
            news = True
    return _with_sightings(run, observed, tuple(after.values()), reading) if news else observed


def _with_sightings(run: Run, observed: Observed, sightings: tuple[Sighting, ...], reading: Reading) -> Observed:
    """Return ``observed`` with what follows from other sightings."""
    keys, published = observed.state.keys, observed.published
    state = replace(
        observed.state,
        first_publication=_nothing_was_served(run, observed.row, keys, sightings, published),
        out_since=out_since(sightings, observed.replicas, reading),
    )
    return replace(observed, state=state, sightings=sightings)


def _shown(run: Run, name: KeysetName) -> Collection[Kid]:
    """Return every kid that stands in any place of this replica's tree."""
    standing = run.around.publisher.found(name)
    return () if standing is None else standing.kids


def begin_anew(run: Run, transaction: Transaction, observed: Observed, stood: Collection[Kid]) -> None:
    """Let the wait of each key begin anew that this tree did not hold until now, when the clock is trusted again.

    ``stood``: what it held before. A clock that is not trusted dates nothing: one that is behind would make a key look
    older in public than it is, as soon as the machine was booted again. What was revoked is seen no more.
    """
    shown, revoked = _shown(run, observed.row.name), revoked_kids(run, observed.state.keys)
    for sighting in transaction.sightings(observed.row.name):
        if sighting.replica != run.around.replica:
            continue
        if sighting.kid in revoked and sighting.kid not in shown:
            transaction.delete_sightings(sighting.replica, [sighting.kid])
        elif sighting.kid not in stood and not lost(sighting):
            transaction.put_sighting(replace(sighting, absent_until=sighting.seen_at + timedelta.resolution))


def _sight(
    before: Sighting | None,
    replica: ReplicaId,
    name: KeysetName,
    kid: Kid,
    reading: Reading,
    *,
    held: bool,
    no_wait: bool,
) -> Sighting | None:
    """Return the sighting to store; None where it says nothing new."""
    absent_until: datetime | None = reading.now
    seen_at = reading.now
    if held and before is None:
        absent_until = None if no_wait else reading.now
    elif held and before is not None and (lost(before) or _of_the_future(before, reading)):
        pass  # back again: the wait begins anew
    elif not held and before is not None:
        seen_at = min(before.seen_at, reading.now)
    else:
        return None
    return Sighting(replica, name, kid, seen_at, absent_until, reading.boot_id, reading.since_boot)


def shift_sightings(run: Run, transaction: Transaction, before: ClockMark | None, reading: Reading) -> None:
    """Move what this replica saw by the step that the wall clock was found, or said, to have made in this boot.

    Without it, the step would count as time in public from the next boot on.
    """
    step = timedelta(0) if before is None else mark_of(reading).offset - before.offset
    if before is None or before.boot_id != reading.boot_id or abs(step) <= run.policy.clock_skew:
        return
    for row in transaction.keysets():
        for sighting in transaction.sightings(row.name):
            if sighting.replica in (run.around.replica, SERVED) and sighting.absent_until is not None:
                transaction.put_sighting(
                    replace(sighting, seen_at=sighting.seen_at + step, absent_until=sighting.absent_until + step)
                )


def _of_the_future(sighting: Sighting, reading: Reading) -> bool:
    """Tell whether it was recorded by a clock that was ahead: how long ago that was, nobody can say.

    What was recorded later in this boot than ``reading`` was taken is none: a publication is dated when it stands, and
    the tick goes on by the moment at which it began.
    """
    if sighting.boot_id == reading.boot_id and sighting.since_boot > reading.since_boot:
        return False
    return sighting.absent_until is not None and sighting.absent_until > reading.now


def lost(sighting: Sighting) -> bool:
    """Tell whether the replica was seen without the kid, and not yet with it again."""
    return sighting.absent_until is not None and sighting.seen_at < sighting.absent_until
