"""Moves of the machines: processes die, hosts go down, clocks are wrong, disks, sinks and keys fail for a while."""

from dataclasses import dataclass
from datetime import timedelta

from tests.simulation.parts import accept_later, chosen, set_clock, set_right, stop_all, wipe_sinks
from tests.simulation.setting import MAX_GAP
from tests.simulation.world import World
from tests.stand_ins import HOUR, MINUTE


@dataclass(frozen=True, slots=True)
class Crash:
    """A process is killed at its n-th durable step from now, before the step or after it."""

    replica: int
    steps: int
    after: bool

    def apply(self, world: World) -> None:
        world.replica(self.replica).hazards.arm(self.steps, after=self.after)


@dataclass(frozen=True, slots=True)
class Signalled:
    """A process is told to end, or to load its config, amid a tick: between any two of the pieces that it works in."""

    replica: int
    signal: str
    pieces: int

    def apply(self, world: World) -> None:
        world.replica(self.replica).hazards.send(self.signal, self.pieces)


@dataclass(frozen=True, slots=True)
class Outage:
    """One process is down; its web server goes on."""

    replica: int
    span: timedelta

    def apply(self, world: World) -> None:
        world.stop(world.replica(self.replica), self.span)


@dataclass(frozen=True, slots=True)
class Blackout:
    """The host is off; after a long one its clock is believed only when somebody says so."""

    span: timedelta
    accepted_after: timedelta

    def apply(self, world: World) -> None:
        if world.troubled("clock"):
            return
        world.settle()
        stop_all(world, MINUTE)
        world.clock.reboot(self.span)
        wipe_sinks(world)
        if self.span > MAX_GAP:
            world.leapt = True
            accept_later(world, self.accepted_after)


@dataclass(frozen=True, slots=True)
class WrongAtBoot:
    """The host starts with a clock that is far off, until it is set right."""

    error: timedelta
    span: timedelta

    def apply(self, world: World) -> None:
        if world.troubled("clock"):
            return
        world.settle()
        stop_all(world, MINUTE)
        world.clock.reboot(HOUR)
        wipe_sinks(world)
        set_clock(world, self.error)
        world.during(self.span, "clock", end=lambda: set_right(world, self.error))


@dataclass(frozen=True, slots=True)
class ClockStep:
    """The clock jumps, and jumps back after a while."""

    error: timedelta
    span: timedelta

    def apply(self, world: World) -> None:
        if world.troubled("clock"):
            return
        world.settle()
        set_clock(world, self.error)
        world.during(self.span, "clock", end=lambda: set_right(world, self.error))


@dataclass(frozen=True, slots=True)
class Drift:
    """The clock is a little off, less than anybody minds."""

    offset: timedelta

    def apply(self, world: World) -> None:
        if not world.troubled("clock"):
            world.clock.leap(world.now + self.offset - world.clock.wall)


@dataclass(frozen=True, slots=True)
class Frozen:
    """The machine is paused: its clocks stand still. Then the wall clock is set right, with evidence or without."""

    span: timedelta
    noticed_after: timedelta
    evidence: bool

    def apply(self, world: World) -> None:
        if world.troubled("clock"):
            return
        world.clock.freeze(self.span)

        def notice() -> None:
            world.settle()
            world.clock.leap(self.span)
            if self.evidence:
                world.clock.synchronise()
                return
            world.leapt = True
            accept_later(world, 6 * HOUR)

        world.during(self.noticed_after, "clock", end=notice)


@dataclass(frozen=True, slots=True)
class DiskFull:
    """A pod's disk takes nothing any more, perhaps in the middle of a set."""

    replica: int
    files: int
    span: timedelta

    def apply(self, world: World) -> None:
        replica = world.replica(self.replica)

        def fill() -> None:
            replica.hazards.disk_full, replica.hazards.files_until_full = True, self.files

        def clean() -> None:
            replica.hazards.disk_full = False

        world.during(self.span, f"disk:{replica.name}", "elsewhere", begin=fill, end=clean)


@dataclass(frozen=True, slots=True)
class StoreLocked:
    """Somebody holds the database's lock."""

    replica: int
    span: timedelta

    def apply(self, world: World) -> None:
        hazards = world.replica(self.replica).hazards

        def lock() -> None:
            hazards.store_locked = True

        def release() -> None:
            for replica in world.replicas.values():
                replica.hazards.store_locked = False

        world.during(self.span, "store", begin=lock, end=release)


@dataclass(frozen=True, slots=True)
class SinkFails:
    """The sinks of some workspaces take nothing: they fail, or hang."""

    first: int
    count: int
    span: timedelta

    def apply(self, world: World) -> None:
        out_of_order = world.sinks.hanging if self.first % 2 else world.sinks.failing
        for name in chosen(world, self.first, self.count):
            world.during(
                self.span,
                f"sink:{name}",
                f"workspace:{name}",
                "elsewhere",
                begin=lambda name=name: out_of_order.add(name),  # type: ignore[misc]
                end=lambda name=name: out_of_order.discard(name),  # type: ignore[misc]
            )


@dataclass(frozen=True, slots=True)
class SinkLoses:
    """Files with tokens vanish."""

    first: int
    count: int

    def apply(self, world: World) -> None:
        for name in chosen(world, self.first, self.count):
            world.sinks.held.pop((name, f"file:/run/{name}/token"), None)
            world.during(world.setting.compare, f"lost:{name}", f"workspace:{name}", "elsewhere")


@dataclass(frozen=True, slots=True)
class MintFails:
    """The tokens of some workspaces cannot be made."""

    first: int
    count: int
    span: timedelta

    def apply(self, world: World) -> None:
        for name in chosen(world, self.first, self.count):
            world.during(
                self.span,
                f"mint:{name}",
                f"workspace:{name}",
                "elsewhere",
                begin=lambda name=name: world.forge.failing.add(name),  # type: ignore[misc]
                end=lambda name=name: world.forge.failing.discard(name),  # type: ignore[misc]
            )


@dataclass(frozen=True, slots=True)
class KekAway:
    """The key-encryption key is gone, or another one stands in its place."""

    wrong: bool
    span: timedelta

    def apply(self, world: World) -> None:
        def take() -> None:
            if world.kek.secret == b"kek":
                world.kek_taken_at = world.now
            world.kek.secret = b"another" if self.wrong else None

        def bring() -> None:
            world.kek.secret = b"kek"

        world.during(self.span, "kek", begin=take, end=bring)
