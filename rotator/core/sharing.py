"""Who gets the next free places where there are few, and some of those who hold one never give it back. Pure.

- Nobody that hung before goes in front of anybody that never did.
- A domain takes another place only while it holds fewer than are free: so none ever holds more than half of them, two
  no more than three quarters, and whoever comes next still finds one (Choudhury and Hahne call it a dynamic threshold).
- All that hung before count as one domain here, so that what hangs for the second time holds half at the most.
- Else in turn: the first of each domain before the second of any, and within a domain in the order given.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rotator.core.model import FailureDomain


@dataclass(frozen=True, slots=True)
class Place:
    """What one piece of work needs while it is done."""

    domain: FailureDomain
    hung: bool = False
    """Its last attempt hung."""


def admit(waiting: Sequence[Place], taken: Sequence[Place], places: int) -> list[int]:
    """Return which of ``waiting`` may begin now, by their positions, the first first."""
    held = Counter(each.domain for each in taken)
    held_by_hung = sum(each.hung for each in taken)
    free = places - len(taken)
    turns = Counter(held)
    in_turn: list[tuple[bool, int, int]] = []
    for position in sorted(range(len(waiting)), key=lambda number: waiting[number].hung):
        each = waiting[position]
        in_turn.append((each.hung, turns[each.domain], position))
        turns[each.domain] += 1
    admitted: list[int] = []
    for hung, _, position in sorted(in_turn):
        domain = waiting[position].domain
        if free <= 0:
            break
        if held[domain] >= free or (hung and held_by_hung >= free):
            continue
        admitted.append(position)
        held[domain] += 1
        held_by_hung += hung
        free -= 1
    return admitted
