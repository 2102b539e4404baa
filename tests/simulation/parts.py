"""What several moves are made of."""

from datetime import timedelta

from rotator.core.model import WorkspaceId
from rotator.engine.knowledge import Known, hold_against
from rotator.engine.second_witness import read_metas
from rotator.ports import Snapshot
from tests.simulation.hazards import Hazards
from tests.simulation.keys import StandInKeyring
from tests.simulation.tree import StandInPublisher
from tests.simulation.world import Replica, World


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


def known_beside(world: World, replica: Replica, snapshot: Snapshot) -> Known:
    """Return what the witness of a replica and the metas of its tree know, held against the database."""
    publisher = StandInPublisher(replica.tree, Hazards(), lambda: world.now)
    sealer = StandInKeyring(world.kek).unlock(())
    installation = snapshot.installation()
    metas = read_metas(publisher, sealer, sorted({row.name for row in snapshot.keysets()} | set(world.wanted.keysets)))
    mine = [meta for meta in metas.authentic if meta.installation == installation]
    return hold_against(snapshot, replica.witness.record, mine, world.wanted.keysets)


def attested(world: World, *, since: int) -> bool:
    """Tell whether the metas know all that happened to the keys, and of an event after ``since``.

    Else it would be two failures at once, or none that can be found out.
    """
    if world.kek.secret is None:
        return False
    sealer = StandInKeyring(world.kek).unlock(())
    rows = world.database.query("SELECT name, generation FROM keysets WHERE ended_at IS NULL")
    keys = world.database.query("SELECT keyset, kid, phase FROM signing_keys")
    ahead = {kid: world.chronicle.keyset_of[kid] for kid in world.revoked_ahead if kid in world.chronicle.keyset_of}
    for replica in world.replicas.values():
        publisher = StandInPublisher(replica.tree, Hazards(), lambda: world.now)
        metas = {meta.keyset: meta for meta in read_metas(publisher, sealer, [name for name, _ in rows]).authentic}
        if not any(meta.audit_seq > since for meta in metas.values()):
            return False
        for name, generation in rows:
            active = [kid for keyset, kid, phase in keys if (keyset, phase) == (name, "active")]
            revoked = {kid for keyset, kid, phase in keys if (keyset, phase) == (name, "revoked")}
            revoked |= {kid for kid, keyset in ahead.items() if keyset == name}
            meta = metas.get(name)
            if meta is None or meta.known.generation != generation or not revoked <= meta.revoked_kids:
                return False
            if [meta.known.active] != (active or [None]):
                return False
    return True


def witnessed(world: World) -> bool:
    """Tell whether the witness knows all that happened: without it, a restore would be two failures at once."""
    head = world.chronicle.head[0]
    return all(
        replica.witness.record is not None and replica.witness.record.audit_seq >= head
        for replica in world.replicas.values()
    )
