"""What replicas do in the small world, durable effect by durable effect, and what must hold in each state."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Final

from rotator.core.actions import ActivateKey, KeysetAction, MakeKey, PublishSet, Reason, RetireKey
from rotator.core.invariants import keyset_violations
from rotator.core.model import DEFAULT_KEYSET, KeysetState, Kid, Phase, ReplicaId, Wish
from rotator.core.planner import desired_kids, plan_keyset
from rotator.core.policy import KeysetPolicy
from rotator.core.transitions import apply
from rotator.engine import observe
from rotator.ports import KeysetRow, Sighting
from tests.model.states import (
    ACTIVE,
    CACHE,
    EMERGENCY,
    FINGERPRINTS,
    GRACE,
    NOW,
    PENDING,
    POLICIES,
    PRIVATE,
    READING,
    REPLICAS,
    RETIRED,
    ROUNDS,
    TOKENS,
    BrokenError,
    Copy,
    Database,
    State,
    Tree,
    Truth,
    is_revoked,
    kid_of,
    next_number,
    number_of,
    row_of,
    sightings_of,
    signing_key_of,
    since_of,
    truths_of,
    with_truth,
)


def in_use(state: State) -> bool:
    """Tell whether somebody depends on the keyset: a workspace that the config names, or a token that goes on."""
    return not POLICIES[state.policy].ending or any(truth.ours > 0 and not is_revoked(truth) for truth in state.truth)


def _row_of(database: Database) -> KeysetRow:
    return KeysetRow(
        name=DEFAULT_KEYSET,
        due_at=NOW,
        next_sequence=database.next_sequence,
        ever_active=database.ever_active,
    )


def observed(state: State, replica: int, *, publish_blocked: bool = False) -> KeysetState:
    """Return what one replica sees, put together as the engine does."""
    database, tree = state.database, state.trees[replica]
    keys = tuple(signing_key_of(key) for key in database.keys)
    kids = None if tree is None else tuple(kid_of(number) for number in tree.kids)
    sightings = sightings_of(database)
    revoked = {key.kid for key in keys if key.phase is Phase.REVOKED}
    published: Any = None if kids is None else SimpleNamespace(kids=kids)
    row = _row_of(database)
    return KeysetState(
        name=DEFAULT_KEYSET,
        keys=keys,
        next_sequence=database.next_sequence,
        schedule_fingerprint="" if database.fingerprint < 0 else FINGERPRINTS[database.fingerprint],
        ever_active=database.ever_active,
        published=kids,
        shows_revoked=kids is not None and not revoked.isdisjoint(kids),
        first_publication=observe._nothing_was_served(_NOBODY_ASKS, row, keys, sightings, published),
        publish_blocked=publish_blocked,
        out_since=observe.out_since(sightings, frozenset(REPLICAS), READING),
        in_use=in_use(state),
        wish=None if not database.wish else WISHES[database.wish],
    )


_NOBODY_ASKS: Final[Any] = SimpleNamespace(around=SimpleNamespace(served=None))
WISHES: Final = (
    None,
    Wish(asked_at=NOW, actor="ada(1000)"),
    Wish(asked_at=NOW, actor="ada(1000)", emergency=True),
)


# ---------------------------------------------------------------------------------------------------------- effects


class _Rows:
    """The part of a transaction that sightings are stored in."""

    def __init__(self, database: Database) -> None:
        self.rows = {(sighting.replica, sighting.kid): sighting for sighting in sightings_of(database)}

    def sightings(self, _: object) -> tuple[Sighting, ...]:
        return tuple(self.rows.values())

    def put_sighting(self, sighting: Sighting) -> None:
        self.rows[sighting.replica, sighting.kid] = sighting

    def delete_sightings(self, replica: ReplicaId, kids: Collection[Kid]) -> None:
        for kid in kids:
            self.rows.pop((replica, kid), None)

    def seen(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        return tuple(
            tuple(sorted((number_of(s.kid), since_of(s)) for s in self.rows.values() if s.replica == replica))
            for replica in REPLICAS
        )


def _run(state: State, replica: int) -> Any:
    tree = state.trees[replica]
    standing = None if tree is None else SimpleNamespace(kids=tuple(kid_of(number) for number in tree.kids))
    return SimpleNamespace(
        around=SimpleNamespace(
            replica=REPLICAS[replica], served=None, publisher=SimpleNamespace(found=lambda _: standing)
        ),
        revoked_kids={kid_of(truth.number) for truth in state.truth if is_revoked(truth)},
    )


def _sees(
    state: State, replica: int, seen: KeysetState, *, wrote_first_file: bool = False, stood: Sequence[Kid] = ()
) -> State:
    """Store what one replica's tree is seen to hold; while the clock is held, only that nothing new can be dated."""
    rows: Any = _Rows(state.database)
    published: Any = None if seen.published is None else SimpleNamespace(kids=seen.published)
    looked = observe.Observed(
        _row_of(state.database),
        POLICIES[state.policy],
        seen,
        {},
        published,
        sightings_of(state.database),
        frozenset(REPLICAS),
    )
    if state.held:
        observe.begin_anew(_run(state, replica), rows, looked, stood)
    else:
        observe.record_sightings(_run(state, replica), rows, looked, READING, wrote_first_file=wrote_first_file)
        state = _looked_at(state, replica)
    return state._replace(database=state.database._replace(seen=rows.seen()))


def shows(state: State, replica: int, tree: Tree | None) -> State:
    """Let a replica show something else; what it showed before stays in caches."""
    state = _looked_at(state, replica)
    before, copies = state.trees[replica], list(state.copies[replica])
    if before is not None and (tree is None or before.kids != tree.kids):
        copies.append(Copy(before.kids, CACHE, before.excused))
    trees, every = list(state.trees), list(state.copies)
    trees[replica], every[replica] = tree, tuple(copies)
    return state._replace(trees=(trees[0], trees[1]), copies=(every[0], every[1]))


def _looked_at(state: State, replica: int) -> State:
    """Let a replica know what was done to its tree by hand: from now on it can keep keys from signing for it."""
    tree, trees = state.trees[replica], list(state.trees)
    if tree is None or not tree.faulty:
        return state
    signed = {truth.number for truth in state.truth if truth.ours > 0}
    signed |= {key.number for key in state.database.keys if key.phase == ACTIVE}
    trees[replica] = Tree(tree.kids, excused=tuple(sorted(signed)))
    return state._replace(trees=(trees[0], trees[1]))


def turn(state: State, replica: int) -> Iterator[State]:
    """Let a replica take its turn; yield what is so after each durable effect, the last one with all done."""
    for _ in range(ROUNDS):
        policy = POLICIES[state.policy]
        seen = observed(state, replica)
        if not state.held:
            after = _sees(state, replica, seen)
            if after != state:
                state = after
                yield state
                seen = observed(state, replica)
        plan = plan_keyset(seen, policy, NOW, _NO_WINDOWS)
        if state.held:
            plan = plan[:1] if plan and isinstance(plan[0], PublishSet) else ()
        for action in plan:
            if isinstance(action, PublishSet):
                if desired_kids(observed(state, replica)) != action.kids:
                    break  # it names a key that was made meanwhile by what it was to be called: planned anew
                for after in _published(state, replica, action, seen):
                    state = after
                    yield state
            else:
                state = _commit(state, replica, action, policy)
                seen = observed(state, replica, publish_blocked=True)
                yield state
        if not plan or not isinstance(plan[-1], PublishSet):
            state = issued(_ended(state))
            _nothing_revoked_is_shown(state, replica)
            yield state
            return
    raise BrokenError(f"replica {REPLICAS[replica]} never comes to rest")


def _published(state: State, replica: int, action: PublishSet, seen: KeysetState) -> Iterator[State]:
    """Write a set, then store what is read back."""
    stood = state.trees[replica]
    numbers = tuple(sorted(number_of(kid) for kid in action.kids))
    _may_be_published(state, numbers)
    state = shows(state, replica, Tree(numbers))
    yield state
    written = observed(state, replica)
    first = stood is None and not state.database.served[replica]
    state = _sees(state, replica, written, wrote_first_file=first, stood=seen.published or ())
    served = (True, state.database.served[1]) if replica == 0 else (state.database.served[0], True)
    yield state._replace(database=state.database._replace(served=served))


def _commit(state: State, replica: int, action: KeysetAction, policy: KeysetPolicy) -> State:
    before = observed(state, replica)
    after = apply(before, action, NOW)
    if violations := keyset_violations(replace(after, publish_blocked=True), policy, NOW):
        raise BrokenError(f"{type(action).__name__} breaks an invariant: {violations[0]}")
    rows = {signing_key_of(key).kid: key for key in state.database.keys}
    fresh = next_number(state)
    keys = []
    for key in after.keys:
        number = rows[key.kid].number if key.kid in rows else fresh
        keys.append(row_of(key, number))
    database = state.database._replace(
        keys=tuple(keys),
        next_sequence=after.next_sequence,
        fingerprint=FINGERPRINTS.index(after.schedule_fingerprint) if after.schedule_fingerprint else -1,
        ever_active=after.ever_active,
        wish=0 if after.wish is None else state.database.wish,
    )
    changed = state._replace(database=database)
    if isinstance(action, MakeKey):
        return with_truth(changed, Truth(fresh, 0, 0))
    if isinstance(action, ActivateKey):
        return _activated(state, changed, replica, action)
    if isinstance(action, RetireKey):
        truth = truths_of(state)[number_of(action.kid)]
        if truth.any > 0 and not is_revoked(truth):
            raise BrokenError(f"promise 5: {action.kid} is retired, and a token on it goes on for {truth.any} steps")
        if action.reason is Reason.ALGORITHM and not has_known_spare(changed):
            raise BrokenError(f"promise 3: {action.kid} is retired, and no spare is out that every verifier can know")
    return changed


def _activated(before: State, state: State, replica: int, action: ActivateKey) -> State:
    """Check what a key that begins to sign needs, and begin to sign with it."""
    number, tree = number_of(action.kid), state.trees[replica]
    if tree is None or number not in tree.kids:
        raise BrokenError(f"promise 2: {action.kid} signs, and is not in the file of the replica that let it")
    emergency = before.database.wish == 2
    planned = action.reason in (Reason.SECURITY_PERIOD, Reason.REQUESTED) and not emergency
    if planned and not has_known_spare(state):
        raise BrokenError(f"promise 3: {action.kid} signs by plan, and no spare is out that every verifier can know")
    truth = truths_of(state)[number]
    return with_truth(state, truth._replace(flags=truth.flags | (EMERGENCY if emergency else 0)))


def has_known_spare(state: State) -> bool:
    waiting = [key.number for key in state.database.keys if key.phase == PENDING and key.flags & PRIVATE]
    return any(_is_known(state, number) for number in waiting)


def _is_known(state: State, number: int) -> bool:
    shown = all(tree is None or tree.faulty or tree.excused or number in tree.kids for tree in state.trees)
    return shown and all(number in copy.kids or bool(copy.excused) for copies in state.copies for copy in copies)


def _ended(state: State) -> State:
    """Forget what was asked of a keyset that has ended."""
    left = any(key.phase < RETIRED for key in state.database.keys)
    if state.held or left or not POLICIES[state.policy].ending or in_use(state):
        return state
    return state._replace(database=state.database._replace(wish=0))


def issued(state: State) -> State:
    """Let the key that signs sign a token now: it lives as long as any."""
    signs = next((key for key in state.database.keys if key.phase == ACTIVE and key.flags & PRIVATE), None)
    token = TOKENS[state.policy]
    if signs is None or state.held or not token:
        return state
    keys = tuple(
        key._replace(last=max(key.last or 0, token)) if key.number == signs.number else key
        for key in state.database.keys
    )
    truth = truths_of(state)[signs.number]
    truth = truth._replace(ours=max(truth.ours, token), any=max(truth.any, token))
    return with_truth(state._replace(database=state.database._replace(keys=keys)), truth)


class _NoWindows:
    def last_opening(self, *_: object, **__: object) -> None:
        return None


_NO_WINDOWS: Final[Any] = _NoWindows()


# --------------------------------------------------------------------------------------------------------- promises


def _may_be_published(state: State, numbers: Sequence[int]) -> None:
    keys = {key.number: key for key in state.database.keys}
    wrong = [number for number in numbers if number not in keys or keys[number].phase >= RETIRED]
    if wrong:
        raise BrokenError(f"promise 6: {kid_of(wrong[0])} is published, and has left")
    if any(is_revoked(truths_of(state).get(number)) for number in numbers):
        raise BrokenError("promise 12: what was revoked is published again")
    signs = [key.number for key in keys.values() if key.phase == ACTIVE]
    if not set(signs) <= set(numbers):
        raise BrokenError(f"promise 6: the set is published without {kid_of(signs[0])}, which signs")
    if not numbers and not any(is_revoked(truth) for truth in state.truth) and in_use(state):
        raise BrokenError("promise 6: an empty set is published")


def _nothing_revoked_is_shown(state: State, replica: int) -> None:
    tree = state.trees[replica]
    if tree is not None and any(is_revoked(truths_of(state).get(number)) for number in tree.kids):
        raise BrokenError("revocation first: a turn is over, and its tree still shows what was revoked")


def check(state: State) -> None:
    """Raise :class:`BrokenError` when a token that is good for something is refused, or two keys sign."""
    for truth in state.truth:
        if truth.ours <= 0 or truth.flags:
            continue
        number = truth.number
        for replica in (0, 1):
            tree = state.trees[replica]
            if tree is not None and not tree.faulty and number not in (*tree.kids, *tree.excused):
                raise BrokenError(f"promise 1: a token on {kid_of(number)} is refused by who fetches now")
            for copy in state.copies[replica]:
                if number not in copy.kids and number not in copy.excused:
                    raise BrokenError(f"promise 1: a token on {kid_of(number)} is refused by who holds an older set")
    if sum(key.phase == ACTIVE for key in state.database.keys) > 1:
        raise BrokenError("promise 7: two keys sign")


def is_good(state: State) -> bool:
    """Tell whether all is as it should be for good: a key signs, a spare is out, and every tree shows the set."""
    database = state.database
    wanted = tuple(sorted(key.number for key in database.keys if key.phase < RETIRED))
    ended = POLICIES[state.policy].ending and not wanted
    shown = [None if tree is None else tree.kids for tree in state.trees]
    if state.held or database.wish or any(kids != wanted and not (ended and kids is None) for kids in shown):
        return False
    if any(key.phase == GRACE and max(key.grace or 0, key.last or 0) <= 0 for key in database.keys):
        return False
    if POLICIES[state.policy].ending:
        return ended or in_use(state)
    signs = next((key for key in database.keys if key.phase == ACTIVE), None)
    if signs is None or not signs.flags & PRIVATE or (signs.rotate or 0) <= 0:
        return False
    return has_known_spare(state)
