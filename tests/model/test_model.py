"""The walk: that states which are one are taken for one, that it goes on where it was stopped, and that it bites."""

from pathlib import Path

import pytest

from rotator.core import planner
from tests.model.bugs import BUGS, planted
from tests.model.moves import calm, moves
from tests.model.states import EMPTY, State, canonical, decode, encode, swapped
from tests.model.tell import explanation
from tests.model.walk import Walk, Walked, expand, trapped, undisturbed
from tests.model.world import is_good

SOON_FOUND = ("a key leaves as", "a manual", "a wish", "a restored", "keys are")


def quiet(_: str) -> None:
    pass


def states_near() -> list[State]:
    """Return what one move leads to, at any time of a life in which nothing goes wrong."""
    return [after for state in undisturbed() for _, follow in moves(state) for after in follow()]


def walked(path: Path, depth: int, *, states: int = 10**9) -> Walked:
    walk = Walk(path)
    walk.go_on(depth=depth, seconds=3600, states=states, workers=1, tell=quiet)
    result = walk.result()
    walk.close()
    return result


def test_a_life_in_which_nothing_goes_wrong_comes_round_and_is_good() -> None:
    first, *later = undisturbed()
    assert first == EMPTY
    assert all(map(is_good, later))
    assert canonical(calm(later[-1])) in later


def test_a_state_is_stored_and_read_back() -> None:
    for state in states_near():
        one = canonical(state)
        assert decode(encode(one)) == one


def test_which_replica_is_which_makes_no_difference() -> None:
    for state in states_near():
        one = canonical(state)
        assert canonical(one) == one
        assert canonical(swapped(one)) == one


def test_no_promise_is_broken_by_two_moves(tmp_path: Path) -> None:
    result = walked(tmp_path / "states", 2)
    assert result.breaches == []
    assert result.complete_to == 2
    assert result.states > 3_000


def test_a_walk_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    at_once = walked(tmp_path / "at once", 2)
    assert walked(tmp_path / "stopped", 2, states=100).complete_to < 2
    again = walked(tmp_path / "stopped", 2)
    assert (again.by_depth, again.counts) == (at_once.by_depth, at_once.counts)


@pytest.mark.parametrize("name", [name for name in BUGS if name.startswith(SOON_FOUND)])
def test_a_deliberate_bug_is_found_and_told(tmp_path: Path, name: str) -> None:
    with planted(BUGS[name]):
        walk = Walk(tmp_path / "states")
        walk.go_on(depth=3, seconds=3600, states=10**9, workers=1, tell=quiet)
        breach = walk.result().breaches[0]
        first, steps = walk.history(breach)
        told = explanation(first, steps, breach.what)
        walk.close()
    assert told.startswith(f"Broken: {breach.what}\n  at first: policy 0")
    assert told.count("\n") == 1 + 2 * len(steps)


def made(state: State, name: str, effect: int = 0) -> State:
    """Make the move of that name, up to one of its effects."""
    (follow,) = [follow for each, follow in moves(state) if each == name]
    return list(follow())[effect]


@pytest.mark.parametrize("then", ["revoke the keyset (wait)", "the config changes to policy 3"])
def test_a_first_set_that_nobody_remembers_is_no_excuse(then: str) -> None:
    """It was served, and its writer died before it could say so; then the tree was lost, and other keys came."""
    state = made(EMPTY, "replica a takes its turn, or dies in it", 3)
    assert state.trees[0] is not None
    assert state.database.seen == ((), ())
    state = made(state, "the tree of a is lost")
    state = made(state, then)
    assert trapped(canonical(state)) == ""


def test_a_replica_whose_tree_is_new_is_no_new_replica() -> None:
    """Verifiers may hold the set that it served before its disk was replaced, although no key of that set is left."""
    state = [each for each in undisturbed() if len(each.database.keys) == 3][-1]
    state = canonical(made(state, "revoke the keyset (wait)"))
    state = made(state, "replica a takes its turn, or dies in it", -1)
    state = made(state, "time passes, and nobody runs")
    state = made(state, "the tree of b is lost")
    assert trapped(canonical(state)) == ""


def test_what_raises_is_a_breach_like_any_other() -> None:
    with planted(((planner, "plan_keyset", "return tuple(", "return 1 // len(state.keys) and tuple("),)):
        found = expand([(0, encode(EMPTY))]).breaches
    assert "ZeroDivisionError" in found[0].what
