"""Moves of the operators: the config changes, pods come and go."""

from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random

from rotator.core.model import DEFAULT_KEYSET, Algorithm, KeysetName, ReplicaId, WorkspaceId
from tests.simulation.parts import chosen
from tests.simulation.setting import draw_workspace, longer
from tests.simulation.world import World
from tests.stand_ins import DAY

KEYSETS = (DEFAULT_KEYSET, KeysetName("partners"), KeysetName("machines"), KeysetName("robots"))


@dataclass(frozen=True, slots=True)
class ChangeKeyset:
    """A keyset is given another security period, and perhaps another algorithm."""

    keyset: int
    factor: float
    algorithm: Algorithm | None

    def apply(self, world: World) -> None:
        name = list(world.wanted.keysets)[self.keyset % len(world.wanted.keysets)]
        wanted = longer(world.wanted.keysets[name], self.factor)
        world.wanted.keysets[name] = replace(wanted, algorithm=self.algorithm or wanted.algorithm)
        world.reload()


@dataclass(frozen=True, slots=True)
class ChangeWorkspaces:
    """Some workspaces are given other periods or other roles."""

    first: int
    count: int
    factor: float
    roles: int

    def apply(self, world: World) -> None:
        for name in chosen(world, self.first, self.count):
            wanted = world.wanted.workspaces.get(name)
            if wanted is not None:
                shortest = DAY * (3 if world.setting.fine else 100)
                period = min(max(wanted.security_period * self.factor, shortest), 4 * shortest)
                world.wanted.workspaces[name] = replace(wanted, security_period=period, roles=self.roles)
        world.reload()


@dataclass(frozen=True, slots=True)
class AddWorkspaces:
    """Workspaces come, or come back."""

    first: int
    count: int
    seed: int

    def apply(self, world: World) -> None:
        random = Random(self.seed)
        fine = world.setting.fine
        for number in range(self.first, self.first + self.count):
            name = WorkspaceId(f"w{number:04}")
            if name not in world.wanted.workspaces:
                world.wanted.workspaces[name] = draw_workspace(random, tuple(world.wanted.keysets), fine=fine)
        world.reload()


@dataclass(frozen=True, slots=True)
class RemoveWorkspaces:
    """Workspaces go: a few at once, or so many that it must be accepted, or was a mistake."""

    first: int
    share: float
    accepted: bool
    span: timedelta

    def apply(self, world: World) -> None:
        count = int(len(world.wanted.workspaces) * self.share)
        removed = {
            name: world.wanted.workspaces.pop(name)
            for name in chosen(world, self.first, count)
            if name in world.wanted.workspaces
        }
        world.reload()
        if self.share <= 0.1:
            return

        def decide() -> None:
            if self.accepted:
                world.accept_config()
            else:
                missing = {name: each for name, each in removed.items() if each.keyset in world.wanted.keysets}
                world.wanted.workspaces |= {**missing, **world.wanted.workspaces}
                world.reload()

        world.during(self.span, "config", end=decide)


@dataclass(frozen=True, slots=True)
class AddKeyset:
    """A keyset comes, or comes back, and some workspaces move to it."""

    keyset: int
    like: int
    first: int
    count: int

    def apply(self, world: World) -> None:
        name = KEYSETS[self.keyset % len(KEYSETS)]
        if name not in world.wanted.keysets:
            known = list(world.wanted.keysets.values())
            world.wanted.keysets[name] = known[self.like % len(known)]
        for workspace in chosen(world, self.first, self.count):
            if workspace in world.wanted.workspaces:
                world.wanted.workspaces[workspace] = replace(world.wanted.workspaces[workspace], keyset=name)
        world.reload()


@dataclass(frozen=True, slots=True)
class RemoveKeyset:
    """A keyset goes; its workspaces move to the default one."""

    keyset: int

    def apply(self, world: World) -> None:
        name = KEYSETS[1 + self.keyset % (len(KEYSETS) - 1)]
        if world.wanted.keysets.pop(name, None) is None:
            return
        for workspace, wanted in world.wanted.workspaces.items():
            if wanted.keyset == name:
                world.wanted.workspaces[workspace] = replace(wanted, keyset=DEFAULT_KEYSET)
        world.reload()


@dataclass(frozen=True, slots=True)
class PodJoins:
    """Another replica comes, with an empty disk."""

    number: int

    def apply(self, world: World) -> None:
        name = ReplicaId(f"pod-{self.number}")
        if world.unreconciled:
            return  # it has no witness: one of those that have one must look at a restored database first
        if len(world.replicas) < 4 and name not in world.replicas and all(name != gone.name for gone in world.gone):
            world.join(name)
            world.touched("trees")


@dataclass(frozen=True, slots=True)
class PodLeaves:
    """A replica goes for good, with its disk and its web server."""

    replica: int

    def apply(self, world: World) -> None:
        replica = world.replica(self.replica)
        others = [each for each in world.running if each is not replica]
        if others and not replica.hazards.disk_full and not replica.hazards.store_locked:
            world.leave(replica)
            world.touched("trees")
