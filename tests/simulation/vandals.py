"""Moves of those who put old or foreign things in place: backups of the database, rows and files of somebody else."""

from dataclasses import dataclass
from datetime import timedelta

from rotator.core.model import Algorithm
from tests.simulation.keys import forge_key
from tests.simulation.parts import stop_all, witnessed
from tests.simulation.tree import places
from tests.simulation.world import World


@dataclass(frozen=True, slots=True)
class BackUp:
    """The database is backed up, and the published tree with it."""

    def apply(self, world: World) -> None:
        world.backups.append(world.database.back_up())
        world.old_trees.append(dict(world.replica(0).tree.files))
        while len(world.backups) > 3:
            world.backups.pop(0).close()
            world.old_trees.pop(0)


@dataclass(frozen=True, slots=True)
class PutBack:
    """An old database is put back, with its published tree or without, under running daemons or stopped ones."""

    which: int
    with_tree: bool
    running: bool

    def apply(self, world: World) -> None:
        if not world.backups or not witnessed(world):
            return
        number = self.which % len(world.backups)
        backup = world.backups[number]
        if not self.running:
            stop_all(world, world.setting.grain)
        world.database.put_back(backup)
        world.chronicle.forget_after(backup.head())
        world.unreconciled = True
        if world.behind is not None:  # what the database forgets the witness knows, to the hour
            world.behind = world.behind.replace(minute=0, second=0, microsecond=0)
        world.touched("config", "trees")
        self._put_right(world)
        if self.with_tree:
            for replica in world.replicas.values():
                for path in {*replica.tree.files, *world.old_trees[number]}:
                    replica.tree.put(path, world.old_trees[number].get(path), world.now, by_hand=True)

    @staticmethod
    def _put_right(world: World) -> None:
        """Let the operator see to a row that had been changed when the backup was made."""
        made = world.forge.made
        rows = world.database.query("SELECT kid, public_jwk FROM signing_keys")
        changed = [kid for kid, jwk in rows if made.get(kid, jwk) != jwk]

        def mend() -> None:
            for kid in changed:
                world.meddle("UPDATE signing_keys SET public_jwk = ? WHERE kid = ?", made[kid], kid)

        if changed:
            world.during(2 * world.setting.heartbeat, "row", "config", "elsewhere", end=mend)


@dataclass(frozen=True, slots=True)
class InsertKeyRow:
    """Someone puts a key of their own into the database, to have it published; it is found and removed later."""

    keyset: int
    number: int
    phase: str

    def apply(self, world: World) -> None:
        names = [name for (name,) in world.database.query("SELECT name FROM keysets ORDER BY name")]
        if not names:
            return
        foreign = forge_key(f"vandal/{self.number}", 90_000 + self.number, Algorithm.ES256)
        far = int(world.now.timestamp() * 1e6) + 10**15
        world.database.meddle(
            "INSERT OR IGNORE INTO signing_keys (kid, keyset, sequence, algorithm, origin, phase, public_jwk, sealed,"
            " kek_id, mac, created_at, grace_until, last_exp) VALUES (?, ?, 1, 'ES256', 'made', ?, ?, ?, 'kek-1', ?, 0,"
            " ?, ?)",
            foreign.kid,
            names[self.keyset % len(names)],
            self.phase,
            foreign.public_jwk,
            b"nothing" if self.phase == "pending" else None,
            b"no mac",
            far,
            far,
        )
        remove = "DELETE FROM signing_keys WHERE kid = ?"
        world.later(6 * world.setting.heartbeat, lambda: world.meddle(remove, foreign.kid))


@dataclass(frozen=True, slots=True)
class TamperKeyRow:
    """Someone changes the public half of the key that signs; it is put right later."""

    keyset: int
    span: timedelta

    def apply(self, world: World) -> None:
        rows = world.database.query("SELECT kid, public_jwk FROM signing_keys WHERE phase = 'active' ORDER BY kid")
        if not rows or world.troubled("row"):
            return
        kid, jwk = rows[self.keyset % len(rows)]
        if kid not in world.forge.made:
            return
        change = "UPDATE signing_keys SET public_jwk = ? WHERE kid = ?"
        world.during(
            self.span,
            "row",
            "config",
            "elsewhere",
            begin=lambda: world.database.meddle(change, jwk.replace("A", "B"), kid),
            end=lambda: world.database.meddle(change, world.forge.made[kid], kid),
        )


@dataclass(frozen=True, slots=True)
class Deface:
    """Someone puts a key of their own into a published file, cuts the file short, or removes it."""

    replica: int
    keyset: int
    place: int
    how: str

    def apply(self, world: World) -> None:
        tree = world.replica(self.replica).tree
        name = list(world.wanted.keysets)[self.keyset % len(world.wanted.keysets)]
        path = places(name)[self.place % len(places(name))]
        content = tree.files.get(path)
        if content is None:
            return
        foreign = forge_key(f"vandal/{self.how}", 99_999, Algorithm.ES256).public_jwk
        defaced = {
            "remove": None,
            "cut": content[: len(content) // 2],
            "insert": content.replace(b'{"keys":[', b'{"keys":[' + foreign.encode() + b","),
        }
        tree.put(path, defaced[self.how], world.now, by_hand=True)
        world.touched("trees")
