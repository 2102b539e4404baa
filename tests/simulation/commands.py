"""Moves of those who hold the keys: revocations, also twice in a row and of everything, rotations and replacements."""

from dataclasses import dataclass

from rotator.core.model import KeysetName
from tests.simulation.parts import chosen
from tests.simulation.world import World


@dataclass(frozen=True, slots=True)
class RevokeKey:
    """A key is found compromised; perhaps its successor is, too, a moment later."""

    number: int
    phase: str
    twice: bool
    choice: str

    def apply(self, world: World) -> None:
        for _ in range(2 if self.twice else 1):
            found = world.database.query(
                "SELECT kid, keyset FROM signing_keys WHERE phase = ? ORDER BY kid", self.phase
            )
            if not found:
                return
            kid, keyset = found[self.number % len(found)]
            world.revokes(KeysetName(keyset), at_once=self.choice == "now")
            world.ask("key.revoke", kid=kid, choice=self.choice)
            world.settle()


@dataclass(frozen=True, slots=True)
class RevokeKeyset:
    """Every key of a keyset is found compromised."""

    keyset: int
    choice: str

    def apply(self, world: World) -> None:
        names = list(world.wanted.keysets)
        name = names[self.keyset % len(names)]
        world.revokes(name, at_once=self.choice == "now")
        world.ask("keyset.revoke", keyset=name, choice=self.choice)


@dataclass(frozen=True, slots=True)
class RevokeToken:
    """A workspace's current token, or all that it has, is found compromised."""

    workspace: int
    everything: bool

    def apply(self, world: World) -> None:
        for name in chosen(world, self.workspace, 1):
            current = world.chronicle.current.get(name)
            if self.everything:
                world.ask("workspace.revoke", workspace=name)
            elif current is not None:
                world.ask("token.revoke", jti=current)


@dataclass(frozen=True, slots=True)
class Rotate:
    """A keyset is to rotate before its time: as soon as that is safe, or at once."""

    keyset: int
    at_once: bool

    def apply(self, world: World) -> None:
        names = list(world.wanted.keysets)
        name = names[self.keyset % len(names)]
        if self.at_once:
            world.hurries(name)
            world.ask("keyset.rotate_at_once", keyset=name, signing=world.chronicle.active.get(name, "none"))
        else:
            world.ask("keyset.rotate", keyset=name)


@dataclass(frozen=True, slots=True)
class ReplaceToken:
    """A workspace's token is to be replaced now; the one before lives on for a while, or not at all."""

    workspace: int
    overlap: str

    def apply(self, world: World) -> None:
        for name in chosen(world, self.workspace, 1):
            world.ask("token.replace", workspace=name, overlap=self.overlap)
