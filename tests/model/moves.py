"""What may happen next in the small world."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

from rotator.core import lifecycle
from rotator.core.model import Algorithm, Origin, Phase, SigningKey
from rotator.engine import recover
from rotator.ports import WitnessedKey, WitnessedKeyset
from tests.model.states import (
    ACTIVE,
    DESTROYED,
    FROM_THE_FIRST,
    GRACE,
    KEYS,
    NOW,
    ORIGINS,
    PENDING,
    POLICIES,
    PRIVATE,
    READING,
    REPLICAS,
    RETIRED,
    TAKEN_BACK,
    TOKENS,
    Database,
    Key,
    State,
    Tree,
    Truth,
    is_revoked,
    kid_of,
    moment_of,
    next_number,
    row_of,
    signing_key_of,
    truths_of,
    with_truth,
)
from tests.model.world import issued, shows, turn


def passed(state: State) -> State:
    """Let a step of time pass."""

    def later(one: Database) -> Database:
        keys = tuple(
            key._replace(
                **{
                    name: value - 1
                    for name in ("activated", "rotate", "demoted", "grace", "last")
                    if (value := getattr(key, name)) is not None
                }
            )
            for key in one.keys
        )
        seen = tuple(
            tuple((n, since - 1 if since > FROM_THE_FIRST + 1 else since) for n, since in row) for row in one.seen
        )
        return one._replace(keys=keys, seen=seen)

    copies = tuple(tuple(copy._replace(left=copy.left - 1) for copy in row if copy.left > 1) for row in state.copies)
    truth = tuple(t._replace(ours=max(t.ours - 1, 0), any=max(t.any - 1, 0)) for t in state.truth)
    snapshot = None if state.snapshot is None else later(state.snapshot)
    later_state = state._replace(database=later(state.database), copies=copies, truth=truth, snapshot=snapshot)  # type: ignore[arg-type]
    return issued(later_state)


def whole_turn(state: State, replica: int) -> State:
    for after in turn(state, replica):
        state = after
    return state


def calm(state: State) -> State:
    """Let nothing go wrong for a step: an operator accepts the clock, time passes, and each replica takes its turn."""
    return _step(state._replace(held=False))


def _revoked(state: State, numbers: Collection[int], *, at_once: bool) -> State:
    keys = tuple(
        row_of(lifecycle.revoke(signing_key_of(key), now=NOW), key.number) if key.number in numbers else key
        for key in state.database.keys
    )
    signs = any(key.phase == ACTIVE for key in keys)
    wish = state.database.wish if signs else (2 if at_once else 0)
    truths = truths_of(state)
    state = with_truth(state, *(truths[n]._replace(flags=truths[n].flags | TAKEN_BACK) for n in numbers))
    return state._replace(database=state.database._replace(keys=keys, wish=wish))


def _imported(state: State, *, elsewhere: int, private: bool) -> State:
    number, sequence = next_number(state), state.database.next_sequence
    algorithm = int(POLICIES[state.policy].algorithm is Algorithm.EDDSA)
    if private:
        key = Key(number, sequence, algorithm, PENDING, ORIGINS.index(Origin.IMPORTED), PRIVATE, last=elsewhere or None)
    else:
        key = Key(
            number,
            sequence,
            algorithm,
            GRACE,
            ORIGINS.index(Origin.ADOPTED),
            DESTROYED,
            demoted=0,
            grace=elsewhere,
            last=elsewhere,
        )
    database = state.database._replace(keys=(*state.database.keys, key), next_sequence=sequence + 1)
    return with_truth(state._replace(database=database), Truth(number, 0, elsewhere))


class _Restored:
    """The part of a transaction that a restored key is stored in."""

    def __init__(self) -> None:
        self.key: SigningKey | None = None

    def update_key(self, key: SigningKey) -> None:
        self.key = key


def _put_back(state: State) -> State:
    """Put the snapshot in place of the database; the witness, or the meta in a tree, knows what was so until now."""
    assert state.snapshot is not None
    truths = truths_of(state)
    published = tuple(
        WitnessedKey(kid_of(key.number), signing_key_of(key).algorithm, "", key.sequence, moment_of(_end_of(key)))
        for key in state.database.keys
        if key.phase < RETIRED
    )
    active = next((kid_of(key.number) for key in state.database.keys if key.phase == ACTIVE), None)
    witnessed = WitnessedKeyset(0, active, published)
    known = {each.kid: each for each in published}
    keys: list[Key] = []
    for row in state.snapshot.keys:
        key = signing_key_of(row)
        if is_revoked(truths.get(row.number)):
            if key.phase is not Phase.REVOKED:
                key = lifecycle.revoke(key, now=NOW)
            keys.append(row_of(key, row.number))
            continue
        stored: Any = _Restored()
        for _ in recover._restore_key(stored, key, witnessed, known.get(key.kid), READING, NOW):
            pass
        keys.append(row_of(stored.key or key, row.number))
    there = {key.number for key in keys}
    for lost in state.database.keys:
        if lost.number in there or lost.phase >= RETIRED or (end := _end_of(lost)) is None:
            continue
        keys.append(
            Key(
                lost.number,
                lost.sequence,
                lost.algorithm,
                GRACE,
                ORIGINS.index(Origin.ADOPTED),
                DESTROYED,
                demoted=0,
                grace=end,
                last=end,
            )
        )
    sequences = [state.snapshot.next_sequence - 1, *(each.sequence for each in published)]
    database = state.snapshot._replace(
        keys=tuple(sorted(keys, key=lambda key: (key.sequence, key.number))),
        next_sequence=max(sequences) + 1,
        ever_active=True,
        wish=0,
    )
    truth = tuple(t for t in state.truth if t.number in {key.number for key in keys} or t.any > 0 or t.flags)
    missing = [Truth(key.number, 0, 0) for key in keys if key.number not in truths]
    return with_truth(state._replace(database=database, truth=truth, snapshot=None), *missing)


def _end_of(key: Key) -> int | None:
    """Return until when the witness says that tokens on a key can live; None of one that never signed."""
    if key.phase == ACTIVE:
        return max(key.last or 0, *TOKENS)
    return key.last


Move = tuple[str, Callable[[], Iterator[State]]]
"""What happens, and what computes the states that it leads to: one after each durable effect."""


def moves(state: State) -> Iterator[Move]:
    """Yield what may happen next."""
    yield "time passes, and each replica takes its turn", lambda: iter((_step(state),))
    yield "time passes, and nobody runs", lambda: iter((passed(state),))
    for replica in (0, 1):
        yield from _moves_of(state, replica)
    yield from _revocations(state)
    if not POLICIES[state.policy].ending:
        yield from _wishes(state)
    for number in range(len(POLICIES)):
        if number != state.policy and not (state.policy and number):  # from the usual one, and back to it
            yield f"the config changes to policy {number}", _leads_to(state._replace(policy=number))
    if state.held:
        yield "the clock is accepted", _leads_to(state._replace(held=False))
    else:
        yield "the clock is held", _leads_to(state._replace(held=True))
    if state.snapshot is None:
        yield "a backup is made", _leads_to(state._replace(snapshot=state.database))
    elif not state.held:
        yield "the backup is put back", lambda: iter((_put_back(state),))


def _leads_to(state: State) -> Callable[[], Iterator[State]]:
    return lambda: iter((state,))


def _moves_of(state: State, replica: int) -> Iterator[Move]:
    name, tree, copies = REPLICAS[replica], state.trees[replica], state.copies[replica]
    yield f"replica {name} takes its turn, or dies in it", lambda: turn(state, replica)
    if tree is None:
        return
    yield f"the tree of {name} is lost", _leads_to(shows(state, replica, None))
    if copies and not tree.faulty:
        old = min(copies, key=lambda copy: copy.left)
        yield (
            f"the tree of {name} gets back an older set",
            _leads_to(shows(state, replica, Tree(old.kids, faulty=True))),
        )


def _revocations(state: State) -> Iterator[Move]:
    keys = state.database.keys
    signs = [key.number for key in keys if key.phase == ACTIVE]
    waiting = [key.number for key in keys if key.phase == PENDING]
    in_set = [key.number for key in keys if key.phase < RETIRED]
    for at_once in (False, True):
        how = "now" if at_once else "wait"
        if signs:
            yield f"revoke the key that signs ({how})", _leads_to(_revoked(state, signs, at_once=at_once))
        if in_set:
            yield f"revoke the keyset ({how})", _leads_to(_revoked(state, in_set, at_once=at_once))
    if waiting:
        yield "revoke the spare", _leads_to(_revoked(state, waiting[:1], at_once=False))


def _wishes(state: State) -> Iterator[Move]:
    database = state.database
    for wish, how in ((1, "rotate"), (2, "rotate in an emergency")):
        if database.wish < wish:
            yield how, _leads_to(state._replace(database=database._replace(wish=wish)))
    yield "import a key", _leads_to(_imported(state, elsewhere=0, private=True))
    yield "import a key that signed elsewhere", _leads_to(_imported(state, elsewhere=3, private=True))
    yield "adopt a key", _leads_to(_imported(state, elsewhere=3, private=False))


def _step(state: State) -> State:
    state = passed(state)
    return whole_turn(whole_turn(state, 0), 1)


def is_beyond(state: State) -> bool:
    """Tell whether a state has more keys in its set than are looked at."""
    return sum(key.phase < RETIRED for key in state.database.keys) > KEYS
