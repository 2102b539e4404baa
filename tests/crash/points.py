"""Tells a scenario once, stops it at every point, and lets it go on from everything that a disk could hold then."""

import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from tests.crash.accidents import ACCIDENTS
from tests.crash.disk import Loss, kinds
from tests.crash.operators import OPERATORS
from tests.crash.oracles import at_once, in_the_end
from tests.crash.scenarios import AFTERWARDS, PACE, ROUTINE, Scenario
from tests.crash.world import Point, World
from tests.scratch import place

SCENARIOS: Mapping[str, Scenario] = MappingProxyType({**ROUTINE, **ACCIDENTS, **OPERATORS})
"""By name."""

Chosen = Callable[[int], bool]
"""Tells by its number whether a stop is gone on from; all of them are looked at."""


@dataclass
class Account:
    """What was counted of one scenario."""

    name: str
    points: list[Point]
    images: int = 0
    """What the disk could hold at any of them, each different thing counted once."""
    gone_on: int = 0
    twice: int = 0
    """Stops amid the recovery from a stop that were gone on from."""
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counted = ", ".join(f"{number} {kind}" for kind, number in kinds([point.step for point in self.points]).items())
        return (
            f"{self.name}: {len(self.points)} points, {self.images} disks, {self.gone_on} gone on from, "
            f"{self.twice} of them stopped twice; {counted}"
        )


def enumerate_points(name: str, chosen: Chosen, twice: Chosen | None = None) -> Account:
    """Stop the scenario everywhere; go on where ``chosen``.

    ``twice``: stop again amid each recovery, and go on where it says so.
    """
    scenario = SCENARIOS[name]
    # What a disk could hold is computed, so that the disk itself may be the memory.
    with tempfile.TemporaryDirectory(prefix="rotator-crash-", dir=place()) as directory:
        world = World(Path(directory))
        try:
            return _enumerate(world, name, scenario, chosen, twice)
        finally:
            world.close()


def _enumerate(world: World, name: str, scenario: Scenario, chosen: Chosen, twice: Chosen | None) -> Account:
    scenario.prepare(world)
    with world.recorded() as points:
        scenario.act(world)
    account = Account(name, list(points))
    for number, (point, loss) in enumerate(_different(points)):
        account.images += 1
        where = f"{name}: {point}, lost: {loss}"
        account.problems += [f"{where}: {problem}" for problem in at_once(point, loss)]
        if not chosen(number):
            continue
        account.gone_on += 1
        world.return_to(point, loss)
        if twice is None:
            account.problems += [f"{where}: {problem}" for problem in _go_on(world, scenario)]
            continue
        with world.recorded() as again:
            scenario.resume(world)
        for nth, (later, lost) in enumerate(_different(again)):
            if not twice(nth):
                continue
            account.twice += 1
            world.return_to(later, lost)
            account.problems += [
                f"{where}, then {later}, lost: {lost}: {problem}" for problem in _go_on(world, scenario)
            ]
    return account


def _different(points: list[Point]) -> Iterator[tuple[Point, Loss]]:
    """Yield each different disk once, at the first point that could leave it."""
    seen: set[int] = set()
    for point in points:
        for loss, image in point.images.items():
            moment = (point.memory.clock.true, frozenset(point.memory.tokens), len(point.memory.logged))
            # The tail that is torn off the log is noise, and says nothing.
            told = frozenset(
                (path, node) for path, node in image.items() if loss is not Loss.TORN or "-wal" not in path
            )
            identity = hash((moment, told))
            if identity not in seen:
                seen.add(identity)
                yield point, loss


def _go_on(world: World, scenario: Scenario) -> Iterator[str]:
    try:
        scenario.resume(world)
        world.site.advance(AFTERWARDS, pace=PACE)
        scenario.expect(world)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told with the point that it came from
        place = traceback.extract_tb(error.__traceback__)[-1]
        yield f"{type(error).__name__}: {error} ({place.name}: {place.line})"
    else:
        yield from in_the_end(world)
