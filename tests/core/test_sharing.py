"""Few places are shared out so that what hangs never has them all, and what never hung goes first."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rotator.core.model import FailureDomain
from rotator.core.sharing import Place, admit

PLACES = 32

places = st.builds(Place, st.sampled_from("abcdef").map(FailureDomain), st.booleans())
hung_places = st.integers(0, 99).map(lambda number: Place(FailureDomain(f"hung {number}"), hung=True))
anything = st.lists(places | hung_places, max_size=60)


def begin(waiting: list[Place], taken: list[Place], count: int) -> list[Place]:
    return [*taken, *(waiting[position] for position in admit(waiting, taken, count))]


@given(anything, anything, st.integers(1, 40))
def test_no_more_begin_than_there_are_places_and_each_once(
    waiting: list[Place], taken: list[Place], count: int
) -> None:
    positions = admit(waiting, taken, count)
    assert len(set(positions)) == len(positions) <= max(0, count - len(taken))


@given(anything, anything, st.integers(1, 40))
def test_a_domain_that_holds_nothing_never_waits_while_a_place_is_free(
    waiting: list[Place], taken: list[Place], count: int
) -> None:
    """Unless it hung before."""
    after = begin(waiting, taken, count)
    if len(after) < count:
        assert {each.domain for each in waiting if not each.hung} <= {each.domain for each in after}


@given(st.lists(anything, max_size=5), st.integers(2, 40))
def test_no_domain_ever_holds_more_than_half_and_nor_does_all_that_hung(rounds: list[list[Place]], count: int) -> None:
    """Rounded up; whatever comes while nothing of it ends."""
    taken: list[Place] = []
    for waiting in rounds:
        taken = begin(waiting, taken, count)
    assert max(Counter(each.domain for each in taken).values(), default=0) <= (count + 1) // 2
    assert sum(each.hung for each in taken) <= (count + 1) // 2


@given(anything, anything, st.integers(1, 40))
def test_what_hung_begins_only_when_what_never_did_has_its_share(
    waiting: list[Place], taken: list[Place], count: int
) -> None:
    positions = admit(waiting, taken, count)
    hung = [waiting[position].hung for position in positions]
    assert hung == sorted(hung)
    without = [each for each in waiting if not each.hung]
    assert [waiting[position] for position in positions if not waiting[position].hung] == [
        without[position] for position in admit(without, taken, count)
    ]


@given(st.lists(places | hung_places, min_size=1, max_size=60), st.integers(1, 40))
def test_something_begins_where_nothing_is_under_way(waiting: list[Place], count: int) -> None:
    assert admit(waiting, [], count)


@given(anything, anything, st.integers(1, 40))
def test_of_one_domain_the_first_begins_first(waiting: list[Place], taken: list[Place], count: int) -> None:
    """What has waited longest."""
    begun: dict[Place, list[int]] = {}
    for position in admit(waiting, taken, count):
        begun.setdefault(waiting[position], []).append(position)
    for place, positions in begun.items():
        assert positions == [n for n, each in enumerate(waiting) if each == place][: len(positions)]


def test_forty_that_hang_leave_room_for_one_that_is_healthy() -> None:
    """Also when they come back from their timeout before it is looked at, each in a domain of its own by then."""
    sleep, healthy = Place(FailureDomain("command:/bin/sleep")), Place(FailureDomain("command:/bin/true"))
    taken = begin([sleep] * 40, [], PLACES)
    assert len(taken) == PLACES // 2
    assert healthy in begin([healthy], taken, PLACES)
    again = [Place(FailureDomain(f"sleep {number}"), hung=True) for number in range(40)]
    assert begin([*again, healthy], [], PLACES)[0] == healthy
    assert healthy in begin([healthy], begin(again, [], PLACES), PLACES)
