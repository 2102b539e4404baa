"""Moves of those who put old or foreign things in place: backups of the database, rows and files of somebody else."""

from dataclasses import dataclass, replace
from datetime import timedelta

from rotator.core.events import Event, EventName
from rotator.core.model import Algorithm
from rotator.engine.recover import carry_over_revocations
from tests.simulation.around import JournalFile, WitnessFile
from tests.simulation.database import Backup
from tests.simulation.keys import forge_key
from tests.simulation.parts import attested, known_beside, stop_all, witnessed
from tests.simulation.tree import places
from tests.simulation.world import BrokenPromiseError, World

PROMISE_12 = "promise 12, A restored backup does no harm"


@dataclass(frozen=True, slots=True)
class BackUp:
    """The database is backed up, and the published tree with it."""

    def apply(self, world: World) -> None:
        world.backups.append(world.database.back_up())
        world.old_trees.append(dict(world.replica(0).tree.files))
        world.old_states.append(
            {name: (replace(each.witness), replace(each.journal)) for name, each in world.replicas.items()}
        )
        while len(world.backups) > 3:
            world.backups.pop(0).close()
            world.old_trees.pop(0)
            world.old_states.pop(0)


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
        _now_older(world, backup)
        if self.with_tree:
            for replica in world.replicas.values():
                for path in {*replica.tree.files, *world.old_trees[number]}:
                    replica.tree.put(path, world.old_trees[number].get(path), world.now, by_hand=True)


@dataclass(frozen=True, slots=True)
class PutAllBack:
    """The whole state directory of each replica is put back from a snapshot, and the published trees stay newer.

    With the database go the witness and the journal of revocations: what is left to know better are the metas. They are
    written once an hour: of tokens that were issued since, as in a snapshot that is younger still, nobody can know.
    """

    which: int

    def apply(self, world: World) -> None:
        if not world.backups:
            return
        number = self.which % len(world.backups)
        if not attested(world, since=world.backups[number].head()[0]):
            return
        stop_all(world, world.setting.grain)
        world.database.put_back(world.backups[number])
        for name, replica in world.replicas.items():
            witness, journal = world.old_states[number].get(name, (WitnessFile(), JournalFile()))
            replica.witness, replica.journal = replace(witness), replace(journal)
        _now_older(world, world.backups[number])
        world.chronicle.forget_tokens_revoked()


@dataclass(frozen=True, slots=True)
class Restore:
    """An old database is put back by `rotator restore`, on the machine of one replica, with all daemons stopped."""

    which: int
    replica: int

    def apply(self, world: World) -> None:
        if not world.backups or not witnessed(world) or world.kek.secret != b"kek":
            return
        stop_all(world, world.setting.grain)
        backup = world.backups[self.which % len(world.backups)]
        replica = world.replica(self.replica)
        world.database.put_back(backup)
        with world.database.store.begin() as transaction:
            known = known_beside(world, replica, transaction)
            event = Event(name=EventName.BACKUP_RESTORED, at=world.clock.wall, actor="ada(1000)", reason="because")
            journal = replica.journal.journal.entries
            transaction.append([event, *carry_over_revocations(transaction, known, journal, world.clock.wall)])
        _now_older(world, backup)
        _refuse_what_is_revoked(world)


def _now_older(world: World, backup: Backup) -> None:
    """Take note that the database is an older one, until a daemon has found that out."""
    world.chronicle.forget_after(backup.head())
    world.unreconciled = True
    if world.behind is not None:  # what the database forgets the witness knows, to the hour
        world.behind = world.behind.replace(minute=0, second=0, microsecond=0)
    world.touched("config", "trees")
    _put_right(world)


CHANGE_PUBLIC_HALF = "UPDATE signing_keys SET public_jwk = ? WHERE kid = ? AND mac = ?"
"""A row that was written anew meanwhile is another one: to put right what it no longer says would be one more edit."""


def _put_right(world: World) -> None:
    """Let the operator see to a row that had been changed when the backup was made."""
    made = world.forge.made
    rows = world.database.query("SELECT kid, public_jwk, mac FROM signing_keys")
    changed = [(kid, mac) for kid, jwk, mac in rows if made.get(kid, jwk) != jwk]

    def mend() -> None:
        for kid, mac in changed:
            world.meddle(CHANGE_PUBLIC_HALF, made[kid], kid, mac)

    if changed:
        world.during(2 * world.setting.heartbeat, "rows put right", "row", "config", "elsewhere", end=mend)


def _refuse_what_is_revoked(world: World) -> None:
    """Make sure that whoever reads the restored database is told what was revoked, before any daemon was started."""
    chronicle = world.chronicle
    keys = world.database.query("SELECT kid FROM signing_keys WHERE phase <> 'revoked'")
    now = int(world.now.timestamp() * 1e6)  # of one that has ended the witness need not know
    tokens = world.database.query("SELECT jti FROM tokens WHERE phase IN ('active', 'grace') AND expires_at > ?", now)
    alive = [kid for (kid,) in keys if kid in chronicle.revoked]
    alive += [jti for (jti,) in tokens if jti in chronicle.revoked_jtis]
    if alive:
        raise BrokenPromiseError(PROMISE_12, f"{alive[0]} was revoked, and `rotator restore` put it back as it was")


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
        row = (
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
        world.during(  # while it stands, its keyset is out of order, and keys leave late
            6 * world.setting.heartbeat,
            f"row of {foreign.kid}",
            "row",
            "config",
            "elsewhere",
            begin=lambda: world.database.meddle(*row),
            end=lambda: world.meddle("DELETE FROM signing_keys WHERE kid = ?", foreign.kid),
        )


@dataclass(frozen=True, slots=True)
class TamperKeyRow:
    """Someone changes the public half of the key that signs; it is put right later."""

    keyset: int
    span: timedelta

    def apply(self, world: World) -> None:
        rows = world.database.query("SELECT kid, public_jwk, mac FROM signing_keys WHERE phase = 'active' ORDER BY kid")
        if not rows or world.troubled("row"):
            return
        kid, jwk, mac = rows[self.keyset % len(rows)]
        if kid not in world.forge.made:
            return
        world.during(
            self.span,
            f"row of {kid}",
            "row",
            "config",
            "elsewhere",
            begin=lambda: world.database.meddle(CHANGE_PUBLIC_HALF, jwk.replace("A", "B"), kid, mac),
            end=lambda: world.database.meddle(CHANGE_PUBLIC_HALF, world.forge.made[kid], kid, mac),
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
