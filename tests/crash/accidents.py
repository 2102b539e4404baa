"""Stories of what happens to an installation: restores, clocks, KEKs that were away, trees that others made."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from rotator.adapters.revocations import FILE_NAME
from rotator.core.events import EventName
from rotator.core.model import DEFAULT_KEYSET, Phase
from rotator.engine import adopt
from rotator.engine.recover import reconcile
from rotator.engine.register import register
from rotator.engine.second_witness import read_metas
from tests.crash.scenarios import PACE, TOKEN_GRACE, TOKEN_PERIOD, Scenario, begin, happened, start
from tests.crash.world import World
from tests.engine.site import DAY, HOUR, MINUTE


def backed_up(world: World) -> None:
    """Put an old database beside a tree and a witness that have gone on; to put it there is a person's work."""
    site = world.site
    begin(world)
    site.advance(2 * DAY, pace=PACE)
    site.main.stop()
    kept = world.root / "backup"
    shutil.copy(site.database, kept)
    start(world)
    site.advance(7 * DAY, pace=PACE)
    site.main.stop()
    for end in ("-wal", "-shm"):
        site.database.with_name(f"rotator.db{end}").unlink(missing_ok=True)
    kept.replace(site.database)
    world.notes["put back"] = "the database is older than the tree until it has been held against the witness"


def all_put_back(world: World) -> None:
    """Put the whole state directory back, witness and journal, beside a tree that has gone on, and lost a key since."""
    site = world.site
    begin(world)
    site.advance(2 * DAY, pace=PACE)
    site.main.stop()
    kept = {path: path.read_bytes() for path in (site.database, site.main.witness)}
    start(world)
    site.advance(5 * DAY, pace=PACE)
    (signer,) = site.signing_keys(Phase.ACTIVE)
    site.revoked.add(signer.kid)
    assert site.ask("key.revoke", kid=signer.kid, choice="wait").succeeded
    site.advance(2 * DAY, pace=PACE)
    site.main.stop()
    for end in ("-wal", "-shm"):
        site.database.with_name(f"rotator.db{end}").unlink(missing_ok=True)
    for path, content in kept.items():
        path.write_bytes(content)
    (site.main.state / FILE_NAME).unlink()  # of the journal, which was not begun then
    world.notes["put back"] = "the database is older than the tree until it has been held against the metas"
    world.notes["revoked"] = signer.kid


def restored_from_the_tree(world: World) -> None:
    restored(world)
    assert world.notes["revoked"] not in world.daemon.kids()
    assert world.notes["revoked"] not in {key.kid for key in world.site.signing_keys(Phase.ACTIVE, Phase.GRACE)}


def restored(world: World) -> None:
    assert happened(world, EventName.STATE_RESTORED) == 1


def metas_are_stale(world: World) -> None:
    """Let an hour come in which nothing is due: until when keys are needed is rounded to hours."""
    begin(world)
    world.site.advance(DAY, pace=PACE)
    world.notes["meta"] = _meta(world).read_bytes()


def _meta(world: World) -> Path:
    return world.daemon.jwks().with_name("jwks.meta.json")


def look_again(world: World) -> None:
    world.site.advance(2 * HOUR, pace=2 * HOUR)


def start_and_look(world: World) -> None:
    start(world)
    look_again(world)


def meta_written(world: World) -> None:
    """Hold that the meta was written anew, and says what the witness says."""
    assert _meta(world).read_bytes() != world.notes["meta"]
    run = world.daemon.run
    (attested,) = read_metas(run.around.publisher, run.ready_sealer, [DEFAULT_KEYSET]).authentic
    assert attested.known == run.witnessed[DEFAULT_KEYSET]


def clock_is_held(world: World) -> None:
    """Suspend the machine: the time is right, and nobody told the clock of this boot."""
    begin(world)
    world.site.advance(DAY, pace=PACE)
    world.notes["clock"] = "held"
    world.site.clock.leap(40 * DAY)
    world.site.clock.true += 40 * DAY
    world.daemon.settle()
    assert "clock" in world.daemon.run.faults


def accept_clock(world: World) -> None:
    assert world.site.ask("clock.accept").succeeded
    world.site.advance(MINUTE)


def start_and_accept(world: World) -> None:
    world.daemon.start()
    if "clock" in world.daemon.run.faults:
        accept_clock(world)


def clock_accepted(world: World) -> None:
    assert happened(world, EventName.CLOCK_ACCEPTED) == 1


def kek_is_away(world: World) -> None:
    """While it was, tokens fell due."""
    begin(world)
    world.site.advance(HOUR)
    world.site.kek.rename(world.root / "kek.kept")
    world.site.advance(35 * HOUR, pace=PACE)
    assert "kek" in world.daemon.run.faults


def kek_is_back(world: World) -> None:
    (world.root / "kek.kept").rename(world.site.kek)
    world.site.advance(HOUR, pace=HOUR)
    assert world.daemon.run.faults == {}


# ----------------------------------------------------------------------------------------------------- a foreign tree


def tree_without_database(world: World) -> None:
    """Lose the database for good, its witness too; the published tree is still served."""
    site = world.site
    begin(world)
    site.advance(DAY, pace=PACE)
    site.main.stop()
    for path in (site.database, site.main.witness):
        path.unlink()
    site.log.audited.clear()
    world.generations.clear()
    world.sealed.clear()
    for path in site.main.tree.rglob("jwks.meta.json"):
        path.unlink()  # generations begin anew


def witness_without_database(world: World) -> None:
    """Lose the database alone, after a key was revoked: the witness knows of it, and so does the tree."""
    site = world.site
    begin(world)
    site.advance(3 * DAY, pace=PACE)
    (signer,) = site.signing_keys(Phase.ACTIVE)
    site.revoked.add(signer.kid)
    assert site.ask("key.revoke", kid=signer.kid, choice="now").succeeded
    site.advance(HOUR, pace=HOUR)
    world.notes["revoked"] = signer.kid
    site.main.stop()
    site.database.unlink()
    site.log.audited.clear()
    world.sealed.clear()


def inherited(world: World) -> None:
    assert world.notes["revoked"] in world.daemon.run.revoked_kids
    assert world.notes["revoked"] not in world.daemon.kids()
    assert happened(world, EventName.KEY_ADOPTED) >= 1


def take_over(world: World) -> None:
    """Do what the command does, in the same order (rotator.published)."""
    world.daemon.start(settle=False)
    run = world.daemon.run
    with run.around.store.read() as snapshot:
        known = snapshot.keks()
    run.unlock(run.around.keyring.unlock(known))
    reading = run.around.clock.read()
    adopt.inherit(run, reading)
    reconcile(run, reading)
    register(run, reading)
    adopt.adopt_published(run, reading, TOKEN_PERIOD + TOKEN_GRACE + HOUR)
    world.daemon.stop()
    start(world)


def adopted(world: World) -> None:
    assert happened(world, EventName.KEY_ADOPTED) == 2


def set_aside(world: World) -> None:
    """As `published replace`: the tokens that are out are refused from here on, by choice."""
    if "replaced" not in world.notes:
        world.site.revoked |= set(world.site.tokens)
    world.daemon.start(settle=False)
    run = world.daemon.run
    with run.around.store.read() as snapshot:
        known = snapshot.keks()
    run.unlock(run.around.keyring.unlock(known))
    reading = run.around.clock.read()
    adopt.inherit(run, reading)
    reconcile(run, reading)
    register(run, reading)
    adopt.replace_published(run, reading)
    if "replaced" not in world.notes:
        world.notes["replaced"] = "whoever holds a copy of the old set is not promised anything"
        world.site.history.clear()
    world.daemon.stop()
    start(world)


def kept_aside(world: World) -> None:
    (kept,) = (world.daemon.state / "aside" / "default").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


# --------------------------------------------------------------------------------------------------------- the drawers


def tree_defaced(world: World) -> None:
    begin(world)
    world.site.advance(HOUR)
    world.daemon.jwks().unlink()
    shutil.rmtree(world.root / "delivered")


def repair(world: World) -> None:
    world.site.advance(2 * HOUR, pace=HOUR)


ACCIDENTS: Mapping[str, Scenario] = MappingProxyType(
    {
        "restore": Scenario(
            prepare=backed_up,
            act=start,
            expect=restored,
            least={"commit": 17, "checkpoint": 1, "rename": 7},
        ),
        "state put back": Scenario(
            prepare=all_put_back,
            act=start,
            expect=restored_from_the_tree,
            least={"commit": 17, "checkpoint": 1, "rename": 7},
        ),
        "meta": Scenario(
            prepare=metas_are_stale, act=look_again, resume=start_and_look, expect=meta_written, least={"rename": 2}
        ),
        "clock accept": Scenario(
            prepare=clock_is_held,
            act=accept_clock,
            resume=start_and_accept,
            expect=clock_accepted,
            least={"commit": 15, "deliver": 2, "rename": 8},
        ),
        "KEK back": Scenario(prepare=kek_is_away, act=kek_is_back, least={"commit": 8, "deliver": 2, "rename": 4}),
        "adopt": Scenario(
            prepare=tree_without_database,
            act=take_over,
            resume=take_over,
            expect=adopted,
            least={"commit": 13, "rename": 4},
        ),
        "adopt with a witness": Scenario(
            prepare=witness_without_database,
            act=take_over,
            resume=take_over,
            expect=inherited,
            least={"commit": 16, "rename": 4},
        ),
        "replace": Scenario(
            prepare=tree_without_database,
            act=set_aside,
            resume=set_aside,
            expect=kept_aside,
            least={"commit": 17, "unlink": 4, "mkdir": 2, "rename": 11},
        ),
        "repair": Scenario(
            prepare=tree_defaced, act=repair, least={"commit": 11, "mkdir": 3, "deliver": 2, "rename": 9}
        ),
    }
)
