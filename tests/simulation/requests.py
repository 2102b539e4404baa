"""Moves of those who write to the table of requests: rows that nobody asked for, changed ones, and old ones again."""

import json
from dataclasses import dataclass
from datetime import timedelta

from tests.simulation.parts import set_clock, set_right, stop_all, wipe_sinks
from tests.simulation.world import World
from tests.stand_ins import HOUR, MINUTE

INSERT = (
    "INSERT INTO requests (kind, arguments, actor, uid, reason, created_at, nonce, bound, kek_id, mac, result)"
    " VALUES (?, ?, 'mallory(0)', 0, 'because', ?, ?, ?, 'kek-1', ?, '')"
)
COPY = (
    "INSERT INTO requests (kind, arguments, actor, uid, reason, created_at, nonce, bound, kek_id, mac, result)"
    " SELECT kind, arguments, actor, uid, reason, created_at, nonce, bound, kek_id, mac, '' FROM requests WHERE id = ?"
)
REOPEN = "UPDATE requests SET finished_at = NULL, succeeded = NULL, result = '' WHERE id = ?"
WANTED = (
    ("key.revoke", '{{"kid":"{kid}","choice":"now"}}'),
    ("keyset.revoke", '{{"keyset":"default","choice":"now"}}'),
    ("keyset.rotate_at_once", '{{"keyset":"default","signing":"{kid}"}}'),
    ("token.replace", '{{"workspace":"{workspace}","overlap":"0"}}'),
    ("workspace.revoke", '{{"workspace":"{workspace}"}}'),
    ("clock.accept", ""),
    ("config.accept", ""),
    ("key.revoke", "no json"),
)
CHANGES = (
    "actor = 'mallory(0)'",
    "kind = 'keyset.revoke'",
    "reason = 'another'",
    "created_at = created_at + 1",
    "nonce = 'another'",
    "bound = ''",
    "mac = x'00'",
)


@dataclass(frozen=True, slots=True)
class ForgeRequest:
    """Someone inserts a request in the name of somebody else."""

    wanted: int
    number: int

    def apply(self, world: World) -> None:
        kind, arguments = WANTED[self.wanted % len(WANTED)]
        kid = world.chronicle.active.get(next(iter(world.wanted.keysets)), "none")
        names = [*sorted(world.policy.workspaces), "nobody"]
        text = arguments.format(kid=kid, workspace=names[self.number % len(names)])
        at = int(world.clock.wall.timestamp() * 1e6)
        bound = json.dumps({"signing": kid, "kids": json.dumps([kid])})
        world.database.meddle(INSERT, kind, text, at, f"nonce-{self.number}", bound, b"no mac")


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """Someone turns a request that was answered back to one that was not, or puts a copy of it beside it."""

    number: int
    how: str

    def apply(self, world: World) -> None:
        rows = world.database.query("SELECT id, nonce FROM requests WHERE finished_at IS NOT NULL ORDER BY id")
        answered = [number for number, nonce in rows if _known_to_all(world, nonce)]
        if answered:
            number = answered[self.number % len(answered)]
            world.database.meddle(COPY if self.how == "copy" else REOPEN, number)


def _known_to_all(world: World, nonce: str) -> bool:
    """Tell whether every replica has learnt that a request was answered: each keeps a memory of its own."""
    return all(
        replica.engine is not None and nonce in replica.engine.run.answered for replica in world.replicas.values()
    )


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """Someone changes a request before it is carried out: in what it says, or in who says it."""

    keyset: int
    change: int

    def apply(self, world: World) -> None:
        names = list(world.wanted.keysets)
        before = world.asked.total()
        world.ask("keyset.rotate", keyset=names[self.keyset % len(names)])
        if world.asked.total() > before:
            ((number,),) = world.database.query("SELECT max(id) FROM requests")
            world.database.meddle(f"UPDATE requests SET {CHANGES[self.change % len(CHANGES)]} WHERE id = ?", number)  # noqa: S608 - ours


@dataclass(frozen=True, slots=True)
class AcceptedInVain:
    """A clock that is right is accepted, and the power fails before that is done; the host starts with a wrong one."""

    error: timedelta
    span: timedelta

    def apply(self, world: World) -> None:
        if world.troubled("clock"):
            return
        world.settle()
        world.ask("clock.accept")
        stop_all(world, MINUTE)
        world.clock.reboot(HOUR)
        wipe_sinks(world)
        set_clock(world, self.error)
        world.during(self.span, "clock", end=lambda: set_right(world, self.error))
