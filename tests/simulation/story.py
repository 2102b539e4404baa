"""A history: the moves that a seed draws, told to a world, and shortened where it breaks a promise."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random

from rotator.engine.run import Surroundings
from tests.scratch import place
from tests.simulation.moves import Move, draw_move
from tests.simulation.promises import check_all
from tests.simulation.setting import Setting, draw_setting
from tests.simulation.world import BrokenPromiseError, Replica, World
from tests.stand_ins import T0

MOVES = 120
Check = Callable[[World, Replica | None], None]
Surround = Callable[[Surroundings], Surroundings]


@dataclass(frozen=True, slots=True)
class Step:
    """A move, and how long the world goes on before it."""

    number: int
    after: timedelta
    move: Move


def draw_steps(setting: Setting, count: int = MOVES) -> tuple[Step, ...]:
    """Return the history of a seed; a longer one begins as a shorter one does."""
    random = Random(f"moves {setting.seed}")
    steps = []
    for number in range(count):
        after = setting.pace * random.choice((0.02, 0.1, 0.3, 0.7, 1.0, 1.6))
        steps.append(Step(number, after, draw_move(random, setting)))
    return tuple(steps)


@dataclass(slots=True)
class Told:
    """What came of a history."""

    seed: int
    steps: int
    lived: timedelta
    keys: int
    tokens: int
    ticks: int
    looks: int
    injected: Counter[str]
    killed: Counter[str]
    events: Counter[str]
    digest: str
    broken: str = ""
    what: str = ""
    at_step: int = -1


@contextmanager
def world_of(setting: Setting, check: Check = check_all, surround: Surround = lambda around: around) -> Iterator[World]:
    """Make a world, on a directory in memory where there is one."""
    with tempfile.TemporaryDirectory(dir=place(), prefix="rotator-simulation-") as directory:
        world = World(setting, Path(directory), check, surround)
        try:
            yield world
        finally:
            world.close()


def tell(
    setting: Setting,
    steps: Sequence[Step],
    *,
    check: Check = check_all,
    surround: Surround = lambda around: around,
    watch: Callable[[World], None] = lambda _: None,
) -> Told:
    """Let a history happen; it ends at the first promise that is broken."""
    broken, what, at_step = "", "", -1
    killed: Counter[str] = Counter()
    with world_of(setting, check, surround) as world:
        try:
            for at_step, step in enumerate(steps):  # noqa: B007 - where it broke is told
                world.pass_time(step.after)
                world.injected[type(step.move).__name__] += 1
                step.move.apply(world)
                world.look()
                world.settle()
                if step.number % 20 == 0:
                    world.chronicle.expire(world.now)
                watch(world)
            at_step = len(steps)
            world.pass_time(4 * setting.patience)
        except BrokenPromiseError as error:
            broken, what = error.promise, error.what
        for replica in (*world.replicas.values(), *world.gone):
            killed += replica.hazards.killed
        counted = world.chronicle.counted
        return Told(
            seed=setting.seed,
            steps=len(steps),
            lived=world.now - T0,
            keys=counted["key.activated"],
            tokens=counted["token.issued"],
            ticks=world.ticks,
            looks=world.looks,
            injected=world.injected,
            killed=killed,
            events=counted,
            digest=world.chronicle.digest.hexdigest(),
            broken=broken,
            what=what,
            at_step=at_step,
        )


@dataclass(slots=True)
class Shrinker:
    """Finds a shorter history that breaks the same promise: leaves out ever smaller parts for as long as it does."""

    setting: Setting
    promise: str
    check: Check = check_all
    surround: Surround = lambda around: around
    budget: int = 60
    """Histories to try."""
    tried: int = field(default=0, init=False)

    def shrink(self, steps: Sequence[Step]) -> Sequence[Step]:
        """Return the shortest found."""
        chunk = max(1, len(steps) // 2)
        while self.tried < self.budget:
            shorter = self._without_a_chunk(steps, chunk)
            if shorter is not None:
                steps = shorter
            elif chunk == 1:
                break
            else:
                chunk = max(1, chunk // 2)
        return steps

    def _without_a_chunk(self, steps: Sequence[Step], chunk: int) -> Sequence[Step] | None:
        for start in range(0, len(steps), chunk):
            if self.tried >= self.budget:
                return None
            candidate = [*steps[:start], *steps[start + chunk :]]
            self.tried += 1
            told = tell(self.setting, candidate, check=self.check, surround=self.surround)
            if told.broken == self.promise:
                return candidate[: told.at_step + 1]
        return None


def tell_seed(seed: int, count: int = MOVES) -> Told:
    """Tell the history of a seed."""
    setting = draw_setting(seed)
    return tell(setting, draw_steps(setting, count))
