"""Moves of those who come from another system: its signing key joins a keyset, and its public keys stay for a while."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rotator.core.model import KeysetName
from rotator.core.secret import Secret
from rotator.engine.requests.importing import pack
from rotator.ports import FoundKey, KeyMaterial
from tests.simulation.keys import forge_key
from tests.simulation.world import World


@dataclass(frozen=True, slots=True)
class ImportSigner:
    """A signing key is imported; sometimes its public half was adopted before, and sometimes it comes twice.

    Sometimes it is said for how long tokens that it signed elsewhere live.
    """

    keyset: int
    number: int
    adopted_for: timedelta | None
    kept_for: timedelta | None

    def apply(self, world: World) -> None:
        name, material = newcomer(world, self.keyset, self.number)
        if self.adopted_for is not None:
            submit(world, name, [found(material, private=False)], until=world.clock.wall + self.adopted_for)
        until = None if self.kept_for is None else world.clock.wall + self.kept_for
        submit(world, name, [found(material, private=True)], until=until)
        world.settle()


@dataclass(frozen=True, slots=True)
class AdoptKeys:
    """Public keys of the system that one leaves are published for a while."""

    keyset: int
    number: int
    count: int
    span: timedelta

    def apply(self, world: World) -> None:
        newcomers = [newcomer(world, self.keyset, self.number + each) for each in range(self.count)]
        keys = [found(material, private=False) for _, material in newcomers]
        submit(world, newcomers[0][0], keys, until=world.clock.wall + self.span)
        world.settle()


def newcomer(world: World, keyset: int, number: int) -> tuple[KeysetName, KeyMaterial]:
    """Return a key of the other system, and the keyset that it is to join."""
    name = list(world.wanted.keysets)[keyset % len(world.wanted.keysets)]
    algorithm = world.wanted.keysets[name].algorithm
    material = forge_key(f"{world.forge.seed}/newcomer/{name}/{algorithm}/{number}", 90_000 + number, algorithm)
    world.forge.made[material.kid] = material.public_jwk
    return name, material


def found(material: KeyMaterial, *, private: bool) -> FoundKey:
    half = Secret(material.private.reveal()) if private else None
    return FoundKey(material.kid, material.algorithm, material.public_jwk, half)


def submit(world: World, name: KeysetName, keys: Sequence[FoundKey], *, until: datetime | None = None) -> None:
    """Ask for an import, as over the control socket."""
    arguments = {"keyset": name} if until is None else {"keyset": name, "until": until.isoformat()}
    world.ask("key.import", secret=pack(keys), **arguments)
