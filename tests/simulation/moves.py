"""What may happen to a world: frozen values, each drawn without looking at the world, each safe in any.

A move that has nothing to act on does nothing, so that a history stays one when any part of it is left out. Whatever is
random in a move was drawn with it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Protocol

from tests.simulation.commands import ReplaceToken, RevokeKey, RevokeKeyset, RevokeToken, Rotate
from tests.simulation.machines import (
    Blackout,
    ClockStep,
    Crash,
    DiskFull,
    Drift,
    Frozen,
    KekAway,
    MintFails,
    Outage,
    Signalled,
    SinkFails,
    SinkLoses,
    StoreLocked,
    WrongAtBoot,
)
from tests.simulation.newcomers import AdoptKeys, ImportSigner
from tests.simulation.operators import (
    AddKeyset,
    AddWorkspaces,
    ChangeKeyset,
    ChangeWorkspaces,
    PodJoins,
    PodLeaves,
    RemoveKeyset,
    RemoveWorkspaces,
)
from tests.simulation.requests import AcceptedInVain, ChangeRequest, ForgeRequest, ReplayRequest
from tests.simulation.setting import ALGORITHMS, Setting
from tests.simulation.vandals import BackUp, Deface, InsertKeyRow, PutAllBack, PutBack, Restore, TamperKeyRow
from tests.simulation.world import World
from tests.stand_ins import DAY, HOUR, MINUTE


class Move(Protocol):
    """Something that happens."""

    def apply(self, world: World) -> None:
        """Let it happen."""
        ...


@dataclass(frozen=True, slots=True)
class Nothing:
    """Nothing happens for a while."""

    def apply(self, world: World) -> None:
        pass


Draw = Callable[[Random, Setting], Move]


def spell(random: Random, setting: Setting) -> timedelta:
    """Return how long a trouble lasts: mostly short, sometimes long."""
    return setting.grain / (1 if setting.fine else 10) * random.choice((1, 1, 2, 3, 5, 10, 20, 40))


def phase(random: Random) -> str:
    """Return the phase of a key that is found compromised: mostly the one that signs."""
    return random.choice(("active", "active", "active", "pending", "grace"))


def foreign_life(random: Random) -> timedelta | None:
    """Return for how long tokens of another system are said to live, if anybody says so."""
    return random.choice((None, None, 3 * DAY, 60 * DAY))


def far_off(random: Random) -> timedelta:
    """Return an error of a clock that nobody could miss."""
    return random.choice((-1, 1)) * random.choice((5 * MINUTE, 3 * HOUR, 2 * DAY, 40 * DAY, 400 * DAY))


TABLE: tuple[tuple[int, Draw], ...] = (
    (8, lambda _r, _s: Nothing()),
    (12, lambda r, _s: Crash(r.randrange(3), r.randint(1, 40), r.random() < 0.5)),
    (8, lambda r, _s: Signalled(r.randrange(3), r.choice(("HUP", "TERM")), r.randrange(60))),
    (6, lambda r, s: Outage(r.randrange(3), spell(r, s))),
    (3, lambda r, _s: Blackout(r.choice((HOUR, DAY, 5 * DAY, 20 * DAY, 45 * DAY)), 12 * HOUR)),
    (3, lambda r, s: WrongAtBoot(r.choice((-4000, -400, -40, 40, 400)) * DAY, spell(r, s))),
    (4, lambda r, s: ClockStep(far_off(r), spell(r, s))),
    (4, lambda r, _s: Drift(timedelta(seconds=r.uniform(-25, 25)))),
    (3, lambda r, s: Frozen(r.choice((HOUR, DAY, 5 * DAY)), spell(r, s), r.random() < 0.5)),
    (5, lambda r, s: DiskFull(r.randrange(3), r.randrange(4), spell(r, s))),
    (3, lambda r, s: StoreLocked(r.randrange(3), spell(r, s))),
    (5, lambda r, s: SinkFails(r.randrange(500), r.choice((1, 5, 100)), spell(r, s))),
    (3, lambda r, _s: SinkLoses(r.randrange(500), r.choice((1, 100)))),
    (3, lambda r, s: MintFails(r.randrange(500), r.choice((1, 5, 100)), spell(r, s))),
    (5, lambda r, s: KekAway(r.random() < 0.5, spell(r, s))),
    (5, lambda r, _s: ChangeKeyset(r.randrange(3), r.uniform(0.5, 1.8), r.choice((None, *ALGORITHMS)))),
    (5, lambda r, _s: ChangeWorkspaces(r.randrange(500), r.choice((1, 30)), r.uniform(0.6, 1.6), r.randrange(5))),
    (4, lambda r, _s: AddWorkspaces(r.randrange(500), r.choice((1, 20)), r.randrange(1000))),
    (4, lambda r, s: RemoveWorkspaces(r.randrange(500), r.choice((0.05, 0.1, 0.3)), r.random() < 0.5, spell(r, s))),
    (3, lambda r, _s: AddKeyset(r.randrange(4), r.randrange(3), r.randrange(500), r.choice((1, 40)))),
    (2, lambda r, _s: RemoveKeyset(r.randrange(3))),
    (2, lambda r, _s: PodJoins(r.randrange(6))),
    (4, lambda r, _s: PodLeaves(r.randrange(3))),
    (3, lambda r, _s: ImportSigner(r.randrange(3), r.randrange(40), foreign_life(r), foreign_life(r))),
    (2, lambda r, _s: AdoptKeys(r.randrange(3), r.randrange(40), r.randint(1, 3), r.choice((HOUR, DAY, 40 * DAY)))),
    (6, lambda _r, _s: BackUp()),
    (3, lambda r, _s: PutBack(r.randrange(3), r.random() < 0.5, r.random() < 0.4)),
    (2, lambda r, _s: Restore(r.randrange(3), r.randrange(3))),
    (3, lambda r, _s: PutAllBack(r.randrange(3))),
    (4, lambda r, _s: RevokeKey(r.randrange(9), phase(r), r.random() < 0.3, r.choice(("wait", "wait", "now")))),
    (1, lambda r, _s: RevokeKeyset(r.randrange(3), r.choice(("wait", "now")))),
    (3, lambda r, _s: RevokeToken(r.randrange(500), r.random() < 0.5)),
    (4, lambda r, _s: Rotate(r.randrange(3), r.random() < 0.4)),
    (3, lambda r, _s: ReplaceToken(r.randrange(500), r.choice(("end", "0", "3600", "864000")))),
    (2, lambda r, _s: InsertKeyRow(r.randrange(3), r.randrange(1000), r.choice(("pending", "grace")))),
    (2, lambda r, s: TamperKeyRow(r.randrange(3), spell(r, s))),
    (2, lambda r, _s: ForgeRequest(r.randrange(8), r.randrange(1000))),
    (2, lambda r, _s: ReplayRequest(r.randrange(1000), r.choice(("copy", "reopen")))),
    (1, lambda r, _s: ChangeRequest(r.randrange(3), r.randrange(7))),
    (1, lambda r, s: AcceptedInVain(r.choice((-40, 40, 400)) * DAY, spell(r, s))),
    (4, lambda r, _s: Deface(r.randrange(3), r.randrange(3), r.randrange(2), r.choice(("remove", "cut", "insert")))),
)
"""How often each kind of move is drawn, and how."""


def draw_move(random: Random, setting: Setting) -> Move:
    """Draw one move."""
    weights = [weight for weight, _ in TABLE]
    (_, draw) = random.choices(TABLE, weights)[0]
    return draw(random, setting)
