"""Numbers of things as people read them."""

import pytest

from rotator.core.counting import counted


@pytest.mark.parametrize(
    ("number", "words", "told"),
    [
        (0, ("key",), "0 keys"),
        (1, ("key",), "1 key"),
        (2, ("key",), "2 keys"),
        (1, ("delivery", "deliveries"), "1 delivery"),
        (12, ("delivery", "deliveries"), "12 deliveries"),
        (0, ("key is", "keys are"), "0 keys are"),
    ],
)
def test_one_thing_and_several(number: int, words: tuple[str, ...], told: str) -> None:
    assert counted(number, *words) == told
