"""A small world around the real planner: one keyset, two replicas, and a clock of whole steps.

What decides is the real code: :func:`~rotator.core.planner.plan_keyset`, :func:`~rotator.core.transitions.apply`, the
invariants, the sightings (:mod:`rotator.engine.observe`), and what a restore makes of a key
(:mod:`rotator.engine.recover`).
Around it stand in a few lines what the engine does with files and database: a turn observes, stores sightings, plans,
and carries the plan out, one durable effect after the other.

A state is a tuple of small numbers, so that it can be compared, hashed and stored. Two states that differ only in the
following are one:

- **The time.** Every moment is kept as steps from now, which is always :data:`NOW`. Nothing in the planner knows an
  absolute time, but for rotation windows and jitter, which only ever move a rotation earlier: the world has neither.
- **What lies far back.** A moment that is past stays past: how long ago a token ended, or a key came into the set once
  every verifier can know it, changes no decision (:func:`_past`, :func:`_sunk`).
- **Names.** Kids are numbers in the order of making, and are counted anew from 1 (:func:`canonical`). Nothing compares
  kids, and sequences are compared with each other alone.
- **Which replica is which.** The one of two orders is kept that sorts first.
- **What is gone.** A key that has left, is destroyed, and that no token, tree or backup knows of: nothing asks for it.
"""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple

from rotator.core.model import DEFAULT_KEYSET, Algorithm, Kid, Origin, Phase, ReplicaId, SigningKey
from rotator.core.policy import KeysetPolicy
from rotator.engine import observe
from rotator.ports import Reading, Sighting

NOW: Final = datetime(2026, 3, 2, 12, tzinfo=UTC)
"""The time in every state; what passes is everything else."""

STEP: Final = timedelta(hours=24)
PROPAGATION: Final = 2
CACHE: Final = 2
"""The longest that a verifier keeps a set. The propagation_period is no longer, which the time contract just allows."""
TOKENS: Final = (2, 4, 2, 2, 0)
"""From issue to ``exp``, by policy; they are issued all the time, the latest one a moment before each step ends."""
LONG_AGO: Final = -7
"""Further back than the longest security period: how far makes no difference."""
FROM_THE_FIRST: Final = -8
"""In the very first set that anyone could fetch (:data:`~rotator.core.model.ALWAYS`)."""
LOST: Final = -9
"""Seen once, and not in the tree at the last look."""
KEYS: Final = 4
"""Keys in the set of a state that is looked at. The time contract allows no more without imports and revocations: a
state with more is counted, and not gone on from."""
ROUNDS: Final = 14
"""Publications in a turn; more would be a loop."""
REPLICAS: Final = (ReplicaId("a"), ReplicaId("b"))


class Policy(KeysetPolicy):
    """One without jitter: a rotation at its latest."""

    jitter = timedelta(0)


def _policy(security: int, grace: int, algorithm: Algorithm = Algorithm.ES256, *, ending: bool = False) -> KeysetPolicy:
    return Policy(
        name=DEFAULT_KEYSET,
        issuer="https://issuer.example",
        algorithm=algorithm,
        security_period=security * STEP,
        propagation_period=PROPAGATION * STEP,
        grace_period=grace * STEP,
        clock_skew=timedelta(0),
        ending=ending,
    )


POLICIES: Final = (
    _policy(4, 2),
    _policy(6, 4),
    _policy(3, 2),
    _policy(4, 2, Algorithm.EDDSA),
    _policy(4, 2, ending=True),
)
"""The usual one; longer and shorter periods; another algorithm; the keyset left the config."""

FINGERPRINTS: Final = tuple(policy.schedule_fingerprint for policy in POLICIES)
PHASES: Final = tuple(Phase)
ORIGINS: Final = tuple(Origin)
PENDING, ACTIVE, GRACE, RETIRED, REVOKED = range(5)
PRIVATE, PROVEN, DESTROYED = 1, 2, 4
EMERGENCY, TAKEN_BACK = 1, 2


class Key(NamedTuple):
    """One row of a key. Moments are steps from now."""

    number: int
    sequence: int
    algorithm: int
    phase: int
    origin: int
    flags: int
    activated: int | None = None
    rotate: int | None = None
    demoted: int | None = None
    grace: int | None = None
    last: int | None = None


class Database(NamedTuple):
    """What the replicas share."""

    keys: tuple[Key, ...]
    next_sequence: int
    fingerprint: int
    """Of which policy the deadlines are; -1: of none."""
    ever_active: bool
    wish: int
    """0: none, 1: rotate, 2: at once."""
    seen: tuple[tuple[tuple[int, int], ...], ...]
    """By replica, the keys that its tree was seen to hold, and since when."""
    served: tuple[bool, bool] = (False, False)
    """Whether each replica ever published a set."""


class Tree(NamedTuple):
    """What one replica shows."""

    kids: tuple[int, ...]
    faulty: bool = False
    """Put there by hand, and not looked at since."""
    excused: tuple[int, ...] = ()
    """Keys that had signed when it was found to have been put there by hand: no daemon could prevent that."""


class Copy(NamedTuple):
    """A set that a verifier may still hold."""

    kids: tuple[int, ...]
    left: int
    """For how many steps more."""
    excused: tuple[int, ...] = ()
    """As of the tree that showed it."""


class Truth(NamedTuple):
    """What is so of a key, whatever a database says."""

    number: int
    ours: int
    """For how many steps the last token that we signed with it goes on."""
    any: int
    """The same, tokens of another system included."""
    flags: int = 0


class State(NamedTuple):
    """All that decides."""

    policy: int
    held: bool
    database: Database
    trees: tuple[Tree | None, Tree | None]
    copies: tuple[tuple[Copy, ...], tuple[Copy, ...]]
    truth: tuple[Truth, ...]
    snapshot: Database | None = None


class BrokenError(Exception):
    """A promise does not hold."""


EMPTY: Final = State(0, False, Database((), 1, -1, False, 0, ((), ())), (None, None), ((), ()), ())


# ------------------------------------------------------------------------------------------------------- in and out


def moment_of(steps: int | None) -> datetime | None:
    return None if steps is None else NOW + steps * STEP


def _steps(moment: datetime | None) -> int | None:
    return None if moment is None else (moment - NOW) // STEP


def kid_of(number: int) -> Kid:
    """Return a name that shows which key is meant."""
    return Kid(f"k{number}")


def number_of(kid: Kid) -> int:
    return int(kid[1:])


@lru_cache(maxsize=500_000)
def signing_key_of(key: Key) -> SigningKey:
    return SigningKey(
        kid=kid_of(key.number),
        keyset=DEFAULT_KEYSET,
        sequence=key.sequence,
        algorithm=(Algorithm.ES256, Algorithm.EDDSA)[key.algorithm],
        phase=PHASES[key.phase],
        created_at=NOW,
        origin=ORIGINS[key.origin],
        has_private=bool(key.flags & PRIVATE),
        proven_at=NOW if key.flags & PROVEN else None,
        activated_at=moment_of(key.activated),
        rotate_at=moment_of(key.rotate),
        demoted_at=moment_of(key.demoted),
        grace_until=moment_of(key.grace),
        last_exp=moment_of(key.last),
        destroyed_at=NOW if key.flags & DESTROYED else None,
    )


@lru_cache(maxsize=500_000)
def row_of(key: SigningKey, number: int) -> Key:
    flags = (key.has_private and PRIVATE) | (key.proven_at is not None and PROVEN)
    return Key(
        number=number,
        sequence=key.sequence,
        algorithm=int(key.algorithm is Algorithm.EDDSA),
        phase=PHASES.index(key.phase),
        origin=ORIGINS.index(key.origin),
        flags=flags | (key.destroyed_at is not None and DESTROYED),
        activated=_steps(key.activated_at),
        rotate=_steps(key.rotate_at),
        demoted=_steps(key.demoted_at),
        grace=_steps(key.grace_until),
        last=_steps(key.last_exp),
    )


@lru_cache(maxsize=100_000)
def _sighting(replica: int, number: int, since: int) -> Sighting:
    absent_until: datetime | None = None
    seen_at = recorded_at = NOW
    if since != FROM_THE_FIRST:
        absent_until = NOW if since == LOST else NOW + since * STEP
        seen_at = NOW - STEP if since == LOST else absent_until
        recorded_at = absent_until
    return Sighting(
        REPLICAS[replica], DEFAULT_KEYSET, kid_of(number), seen_at, absent_until, "boot", recorded_at - NOW + BOOTED
    )


BOOTED: Final = timedelta(days=1_000)
READING: Final = Reading(NOW, "boot", BOOTED, None)


def sightings_of(database: Database) -> tuple[Sighting, ...]:
    return tuple(
        _sighting(replica, number, since) for replica, seen in enumerate(database.seen) for number, since in seen
    )


def since_of(sighting: Sighting) -> int:
    if observe.lost(sighting):
        return LOST
    return FROM_THE_FIRST if sighting.absent_until is None else (sighting.absent_until - NOW) // STEP


# --------------------------------------------------------------------------------------------------------- symmetry


def _past(moment: int | None) -> int | None:
    """Return the end of something: once it is over it stays over."""
    return None if moment is None else max(moment, 0)


def _sunk(moment: int | None) -> int | None:
    """Return the beginning of something: further back than any period makes no difference."""
    return None if moment is None else max(moment, LONG_AGO)


def _settled(key: Key) -> Key:
    """Return a key with what nobody asks for any more left out."""
    if key.phase in (RETIRED, REVOKED):
        return key._replace(
            activated=None, rotate=None, demoted=None, grace=None, last=_past(key.last), flags=key.flags & ~PROVEN
        )
    activated, rotate = (_sunk(key.activated), _past(key.rotate)) if key.phase == ACTIVE else (None, None)
    demoted, grace = (_sunk(key.demoted), _past(key.grace)) if key.phase == GRACE else (None, None)
    flags = key.flags if key.phase in (PENDING, ACTIVE) else key.flags & ~PROVEN
    return key._replace(
        flags=flags, activated=activated, rotate=rotate, demoted=demoted, grace=grace, last=_past(key.last)
    )


def _needed(database: Database, known: Collection[int]) -> Database:
    keys = tuple(
        _settled(key)
        for key in database.keys
        if key.phase < RETIRED or not key.flags & DESTROYED or key.number in known
    )
    there = {key.number for key in keys}
    seen = tuple(
        tuple(
            (number, max(since, -PROPAGATION) if since > FROM_THE_FIRST else since)
            for number, since in one
            if number in there
        )
        for one in database.seen
    )
    return database._replace(keys=keys, seen=seen)


def canonical(state: State) -> State:
    """Return the one of all states that are the same as ``state`` that stands for them."""
    shown = {number for tree in state.trees if tree is not None for number in tree.kids}
    living = {truth.number for truth in state.truth if truth.any > 0}
    kept = set() if state.snapshot is None else {key.number for key in state.snapshot.keys}
    database = _needed(state.database, shown | living | kept)
    snapshot = None if state.snapshot is None else _needed(state.snapshot, ())
    in_set = {key.number for key in database.keys if key.phase < RETIRED}
    copies = tuple(
        tuple(
            sorted(
                {
                    (
                        tuple(n for n in copy.kids if n in in_set),
                        copy.left,
                        tuple(n for n in copy.excused if n in in_set),
                    )
                    for copy in one
                }
            )
        )
        for one in state.copies
    )
    numbers = sorted(
        {key.number for key in database.keys}
        | shown
        | living
        | (set() if snapshot is None else {key.number for key in snapshot.keys})
    )
    name = {number: place for place, number in enumerate(numbers, 1)}
    sequences = {key.sequence for key in database.keys} | (
        set() if snapshot is None else {key.sequence for key in snapshot.keys}
    )
    order = {sequence: place for place, sequence in enumerate(sorted(sequences), 1)}

    def renamed(one: Database) -> Database:
        return Database(
            tuple(key._replace(number=name[key.number], sequence=order[key.sequence]) for key in one.keys),
            len(order) + 1 + has_lost_a_key(one),
            one.fingerprint,
            one.ever_active,
            one.wish,
            tuple(tuple(sorted((name[number], since) for number, since in seen)) for seen in one.seen),
            one.served,
        )

    database, snapshot = renamed(database), None if snapshot is None else renamed(snapshot)
    trees = tuple(
        None
        if tree is None
        else Tree(
            tuple(sorted(name[n] for n in tree.kids)),
            tree.faulty,
            tuple(sorted(name[n] for n in tree.excused if n in in_set)),
        )
        for tree in state.trees
    )
    copied = tuple(
        tuple(
            Copy(tuple(sorted(name[n] for n in kids)), left, tuple(sorted(name[n] for n in excused)))
            for kids, left, excused in one
        )
        for one in copies
    )
    truth = tuple(sorted(Truth(name[t.number], *t[1:]) for t in state.truth if t.number in name))
    result = State(state.policy, state.held, database, trees, copied, truth, snapshot)  # type: ignore[arg-type]
    other = swapped(result)
    return min(result, other, key=encode)


def has_lost_a_key(database: Database) -> bool:
    """Tell whether a key left before the first one signed: a set that nobody knows of may have been served then."""
    there = sum(key.phase == PENDING for key in database.keys)
    return not database.ever_active and database.next_sequence > there + 1


def swapped(state: State) -> State:
    """Return the same world with the two replicas named the other way round."""

    def turned(one: Database) -> Database:
        return one._replace(seen=one.seen[::-1], served=one.served[::-1])

    return state._replace(
        database=turned(state.database),
        trees=state.trees[::-1],
        copies=state.copies[::-1],
        snapshot=None if state.snapshot is None else turned(state.snapshot),
    )


# ----------------------------------------------------------------------------------------------------------- stored

NOTHING: Final = 0
"""A number that is none: :data:`None`. All others are small, and written with 100 added."""


def encode(state: State) -> bytes:
    """Return a state as bytes, about a hundred of them."""
    out: list[int | None] = [state.policy, state.held]
    _put_database(out, state.database)
    out.append(state.snapshot is not None)
    if state.snapshot is not None:
        _put_database(out, state.snapshot)
    for tree in state.trees:
        out.append(0 if tree is None else 1 + tree.faulty)
        if tree is not None:
            out += [len(tree.kids), *tree.kids, len(tree.excused), *tree.excused]
    for copies in state.copies:
        out.append(len(copies))
        for copy in copies:
            out += [copy.left, len(copy.kids), *copy.kids, len(copy.excused), *copy.excused]
    out.append(len(state.truth))
    for truth in state.truth:
        out += truth
    return bytes([NOTHING if number is None else number + 100 for number in out])


def _put_database(out: list[int | None], database: Database) -> None:
    out += [database.next_sequence, database.fingerprint, database.ever_active, database.wish, len(database.keys)]
    for key in database.keys:
        out += key
    out += database.served
    for seen in database.seen:
        out.append(len(seen))
        for each in seen:
            out += each


def decode(stored: bytes) -> State:
    """Return the state that :func:`encode` stored."""
    numbers = (None if byte == NOTHING else byte - 100 for byte in stored)

    def one() -> Any:
        return next(numbers)

    def some(count: int) -> tuple[Any, ...]:
        return tuple(one() for _ in range(count))

    def database() -> Database:
        after, fingerprint, ever, wish, count = some(5)
        keys = tuple(Key(*some(len(Key._fields))) for _ in range(count))
        first, second = some(2)
        seen = tuple(tuple(some(2) for _ in range(one())) for _ in REPLICAS)
        return Database(keys, after, fingerprint, bool(ever), wish, seen, (bool(first), bool(second)))

    policy, held = some(2)
    current = database()
    snapshot = database() if one() else None
    trees = []
    for _ in REPLICAS:
        kind = one()
        trees.append(Tree(some(one()), kind == 2, some(one())) if kind else None)
    copies = []
    for _ in REPLICAS:
        row = []
        for _ in range(one()):
            left = one()
            row.append(Copy(some(one()), left, some(one())))
        copies.append(tuple(row))
    truth = tuple(Truth(*some(len(Truth._fields))) for _ in range(one()))
    return State(policy, bool(held), current, tuple(trees), tuple(copies), truth, snapshot)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------------------- what is so


def truths_of(state: State) -> dict[int, Truth]:
    """Return what is so of each key, by its number."""
    return {truth.number: truth for truth in state.truth}


def with_truth(state: State, *changed: Truth) -> State:
    """Return a state in which something else is so of some keys."""
    truths = truths_of(state) | {truth.number: truth for truth in changed}
    return state._replace(truth=tuple(truths[number] for number in sorted(truths)))


def is_revoked(truth: Truth | None) -> bool:
    """Tell whether a key was revoked, whatever a database says."""
    return truth is not None and bool(truth.flags & TAKEN_BACK)


def next_number(state: State) -> int:
    """Return a number that no key has, or had."""
    numbers = {truth.number for truth in state.truth} | {key.number for key in state.database.keys}
    numbers |= set() if state.snapshot is None else {key.number for key in state.snapshot.keys}
    return max(numbers.union(*(tree.kids for tree in state.trees if tree is not None)), default=0) + 1
