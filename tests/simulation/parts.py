"""What several moves are made of."""

from datetime import timedelta

from rotator.core.model import WorkspaceId
from tests.simulation.world import World


def stop_all(world: World, down_for: timedelta) -> None:
    for replica in world.running:
        world.stop(replica, down_for)


def wipe_sinks(world: World) -> None:
    """Empty `/run`, as a boot does."""
    world.sinks.held = {key: held for key, held in world.sinks.held.items() if not key[1].startswith("file:")}


def set_clock(world: World, error: timedelta) -> None:
    if error > timedelta(0):
        world.leapt = True
    else:
        world.behind = world.ticked_at
    world.clock.lose()
    world.clock.leap(error)


def set_right(world: World, error: timedelta) -> None:
    world.clock.leap(-error)
    world.leapt, world.behind = False, None


def accept_later(world: World, span: timedelta) -> None:
    """Let the operator look at the clock after ``span``, and say that it is right."""

    def accept() -> None:
        world.ask("clock.accept")
        world.leapt, world.behind = False, None

    world.during(span, "clock", end=accept)


def chosen(world: World, first: int, count: int) -> list[WorkspaceId]:
    """Return ``count`` of the workspaces, from the ``first`` on."""
    names = sorted(world.policy.workspaces)
    return [names[number % len(names)] for number in range(first, first + min(count, len(names)))] if names else []


def witnessed(world: World) -> bool:
    """Tell whether the witness knows all that happened: without it, a restore would be two failures at once."""
    head = world.chronicle.head[0]
    return all(
        replica.witness.record is not None and replica.witness.record.audit_seq >= head
        for replica in world.replicas.values()
    )
