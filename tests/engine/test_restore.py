"""An old database is put back: it does no harm, whatever happened since."""

import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from rotator.adapters.store.backup import copy_database, put_in_place, set_aside
from rotator.core.actions import Reason
from rotator.core.events import EventName
from rotator.core.model import Jti, Phase
from rotator.engine.witnessing import write_witness
from tests.engine.site import (
    DAY,
    HOUR,
    MINUTE,
    PROPAGATION,
    SECOND,
    T0,
    Site,
    keyset,
    policy_of,
    tokens_in_order,
    workspace,
)


def back_up(site: Site, *, tree: bool = False) -> Path:
    """Copy the database as it stands, and the published tree with it."""
    site.main.stop()
    kept = site.root / "backup.db"
    with_log = site.database.with_name("rotator.db-wal")
    assert not with_log.exists() or with_log.stat().st_size == 0
    shutil.copy(site.database, kept)
    if tree:
        shutil.copytree(site.main.tree, site.root / "backup-tree", dirs_exist_ok=True)
    site.main.start()
    return kept


def put_back(site: Site, kept: Path) -> None:
    site.main.stop()
    for name in ("rotator.db-wal", "rotator.db-shm"):
        site.database.with_name(name).unlink(missing_ok=True)
    shutil.copy(kept, site.database)
    tree = site.root / "backup-tree"
    if tree.exists():
        shutil.rmtree(site.main.tree)
        shutil.copytree(tree, site.main.tree)


def copy_over(site: Site, kept: Path) -> None:
    """Put an old database in place under a running daemon, by SQLite's own means."""
    with closing(sqlite3.connect(kept)) as old, closing(sqlite3.connect(site.database)) as present:
        old.backup(present)


def test_a_restore_of_what_is_the_same_is_none(site: Site) -> None:
    """Nothing was issued or changed since: there is nothing to recover from."""
    site.main.start()
    site.advance(10 * DAY, pace=DAY)
    kept = back_up(site)
    site.advance(MINUTE)
    put_back(site, kept)
    site.main.start()
    assert site.events(EventName.STATE_RESTORED) == []
    site.assert_sound()


@pytest.mark.parametrize("tree", [False, True], ids=["tree kept", "tree restored"])
@pytest.mark.parametrize("later", [2, 12, 29], ids=lambda days: f"{days} days later")
def test_no_live_token_is_refused_after_a_restore(site: Site, later: int, tree: bool) -> None:
    """Every token that was issued before, and after, verifies from every copy that a verifier can hold."""
    site.main.start()
    site.advance(10 * DAY + HOUR, pace=DAY)
    kept = back_up(site, tree=tree)
    site.advance(later * DAY + 2 * HOUR, pace=DAY)
    witness = site.main.run.around.witness.read()
    assert witness is not None
    (witnessed,) = witness.keysets.values()
    before = {name: site.held_sequence(name) for name in ("acme", "umbrella")}
    held = {name: site.held(name) for name in ("acme", "umbrella")}
    head = site.audit()[-1]

    put_back(site, kept)
    site.clock.elapse(5 * MINUTE)
    site.main.start()
    restored = site.events(EventName.STATE_RESTORED)
    assert len(restored) == 1
    assert restored[0].seq == head.seq + 1
    assert len(site.log.named("restore.found")) == 1
    assert site.chain() is None
    had = {key.kid for key in site.signing_keys() if key.created_at < restored[0].event.at}
    signs = site.active()
    assert signs in (None, witnessed.active)
    assert (signs is not None) == (witnessed.active in had)
    for key in site.signing_keys():
        if key.created_at < restored[0].event.at and key.kid != signs:
            assert not key.has_private or key.phase is Phase.ACTIVE
            assert site.query("SELECT sealed FROM signing_keys WHERE kid = ?", key.kid) == [(None,)]
    if signs is None:
        assert {name: site.held(name) for name in held} == held  # nothing older was put over it
    site.advance(MINUTE)

    site.advance(40 * DAY, pace=DAY)
    assert all(site.held_sequence(name) > before[name] for name in before)
    reissued = [r for r in site.events(EventName.TOKEN_ISSUED) if r.event.reason == Reason.RESTORED]
    assert {r.event.workspace for r in reissued} == {"acme", "umbrella"}
    assert tokens_in_order(site.main.post.delivered)
    assert len(site.events(EventName.STATE_RESTORED)) == 1
    site.assert_sound()


@pytest.mark.parametrize("later", [1, 12], ids=["none ever", "expired"])
def test_who_has_no_usable_token_after_a_restore_is_not_spread(site: Site, later: int) -> None:
    """As far as the old database knows; all others are issued anew over some time."""
    names = [f"w{number:02}" for number in range(40)]
    many = policy_of([keyset(security_period=90 * DAY)], [workspace(name) for name in names])
    site.main.start(many if later > 1 else policy_of(list(many.keysets.values()), []))
    site.advance(DAY)
    kept = back_up(site)
    site.main.load(many)
    site.advance(later * DAY, pace=DAY)
    put_back(site, kept)
    site.clock.elapse(MINUTE)
    site.main.start(many)
    at_once = [row.event.workspace for row in site.events(EventName.TOKEN_ISSUED) if row.event.at == site.clock.wall]
    assert sorted(filter(None, at_once)) == names
    site.assert_sound()


def test_new_keys_wait_their_full_time_after_a_restore(site: Site) -> None:
    """Where the old database has not the key that signed last, nothing signs before the propagation period is over."""
    site.main.start()
    site.advance(DAY)
    kept = back_up(site)
    site.advance(50 * DAY, pace=DAY)
    put_back(site, kept)
    site.main.start()
    assert site.active() is None
    at = site.clock.true
    site.advance(PROPAGATION - MINUTE)
    assert site.active() is None
    site.advance(2 * MINUTE)
    fresh = site.active()
    assert fresh is not None
    assert site.announced_for(fresh) >= PROPAGATION
    assert site.clock.true - at < PROPAGATION + 2 * MINUTE
    site.assert_sound()


@pytest.mark.parametrize("later", [10 * DAY, 400 * DAY], ids=["while it is published", "long after it left"])
def test_a_row_in_a_backup_that_nobody_believes_keeps_no_other_key_from_signing(site: Site, later: timedelta) -> None:
    """The row says that its key signs, and only one of a keyset may say so."""
    site.main.start()
    site.advance(3 * DAY, pace=DAY)
    edited = site.active()
    site.meddle("UPDATE signing_keys SET rotate_at = rotate_at + 1 WHERE kid = ?", edited)
    kept = back_up(site)
    site.meddle("UPDATE signing_keys SET rotate_at = rotate_at - 1 WHERE kid = ?", edited)
    site.advance(later, pace=3 * DAY)
    published = edited in site.main.kids()
    put_back(site, kept)
    site.main.start()
    site.advance(PROPAGATION + MINUTE)
    assert site.active() not in (None, edited)
    assert site.held("acme") != ""
    assert (edited in site.main.kids()) == published
    (row,) = [key for key in site.signing_keys() if key.kid == edited]
    assert (row.authentic, row.phase) == (True, Phase.GRACE if published else Phase.REVOKED)
    site.assert_sound()


def test_a_revocation_outlives_a_restore(site: Site) -> None:
    """What the witness says is revoked is revoked, and gone from the set, before anything else is done."""
    site.main.start()
    site.advance(DAY)
    kept = back_up(site)
    site.advance(HOUR)
    revoked = site.active()
    assert revoked is not None
    site.revoked.add(revoked)
    site.main.run.revoked_kids.add(revoked)
    site.main.settle()
    put_back(site, kept)
    site.main.start()
    assert revoked not in site.main.kids()
    assert site.active() != revoked
    (row,) = [key for key in site.signing_keys() if key.kid == revoked]
    assert (row.phase, row.has_private) == (Phase.REVOKED, False)
    site.advance(10 * DAY, pace=DAY)
    assert revoked not in site.main.kids()
    site.assert_sound()


def test_a_revocation_that_only_reached_the_witness_is_finished_at_the_start(site: Site) -> None:
    """Killed between the witness and the commit: the spare that is out long enough takes over at once."""
    site.main.start()
    site.advance(4 * DAY, pace=DAY)
    revoked, spare = site.active(), site.signing_keys(Phase.PENDING)[0].kid
    assert revoked is not None
    site.revoked.add(revoked)
    site.main.run.revoked_kids.add(revoked)
    site.main.settle()
    site.main.restart()
    assert site.active() == spare
    assert revoked not in site.main.kids()
    assert len(site.events(EventName.KEY_REVOKED)) == 1
    site.advance(HOUR)
    site.main.restart()
    assert len(site.events(EventName.KEY_REVOKED)) == 1
    site.assert_sound()


def test_a_workspace_that_came_after_the_backup_goes_on_counting(site: Site) -> None:
    """Its sequence is not known to the old database, and must not go back all the same."""
    site.main.start(site.usual("acme"))
    site.advance(DAY)
    kept = back_up(site)
    site.main.load(site.usual("acme", "umbrella"))
    site.advance(9 * DAY, pace=DAY)
    before = site.held_sequence("umbrella")
    put_back(site, kept)
    site.main.start()
    site.advance(PROPAGATION + DAY, pace=DAY)
    assert site.held_sequence("umbrella") > before
    assert tokens_in_order(site.main.post.delivered)
    site.assert_sound()


def test_a_restore_twice_is_found_twice(site: Site) -> None:
    site.main.start()
    site.advance(DAY)
    kept = back_up(site)
    for number in (1, 2):
        site.advance(6 * DAY, pace=DAY)
        put_back(site, kept)
        site.main.start()
        site.advance(MINUTE)
        assert len(site.log.named("restore.found")) == number
    site.advance(10 * DAY, pace=DAY)
    assert tokens_in_order(site.main.post.delivered)
    site.assert_sound()


def test_a_restore_that_is_cut_short_before_its_witness_is_not_done_again(site: Site) -> None:
    """The database says which witness it followed: keys that were made since are not taken for those of a backup."""
    site.main.start()
    site.advance(DAY)
    kept = back_up(site)
    site.advance(6 * DAY, pace=DAY)
    witness = site.main.witness.read_bytes()
    put_back(site, kept)
    site.main.start()
    pending = {key.kid for key in site.signing_keys(Phase.PENDING)}
    site.main.stop()
    site.main.witness.write_bytes(witness)
    site.main.start()
    assert len(site.events(EventName.STATE_RESTORED)) == 1
    assert {key.kid for key in site.signing_keys(Phase.PENDING)} == pending
    site.advance(10 * DAY, pace=DAY)
    site.assert_sound()


def test_a_restore_while_the_clock_is_held_waits(site: Site) -> None:
    """No key changes its phase by a clock that is not trusted, but those that had left for good; nothing is issued."""
    site.main.start()
    site.advance(DAY)
    kept = back_up(site)
    site.advance(25 * DAY, pace=DAY)
    put_back(site, kept)
    site.clock.reboot()
    site.clock.leap(-60 * DAY)
    phases = dict(site.query("SELECT kid, phase FROM signing_keys"))
    issued, published = len(site.events(EventName.TOKEN_ISSUED)), set(site.main.kids())
    site.main.start()
    assert "clock" in site.main.run.faults
    now = dict(site.query("SELECT kid, phase FROM signing_keys"))
    assert {kid: now[kid] for kid in phases if kid in published} == {k: p for k, p in phases.items() if k in published}
    assert {now[kid] for kid in phases if kid not in published} <= {"retired"}
    assert len(site.events(EventName.TOKEN_ISSUED)) == issued
    site.clock.leap(60 * DAY)
    site.advance(31 * SECOND)
    assert len(site.events(EventName.STATE_RESTORED)) == 1
    site.advance(10 * DAY, pace=DAY)
    site.assert_sound()


@pytest.mark.parametrize("tree", [False, True], ids=["tree kept", "tree restored"])
def test_a_revocation_while_the_clock_is_held_drops_no_key_that_the_old_database_lacks(site: Site, tree: bool) -> None:
    """Nor does it bring back one that was revoked since, or a generation that another set had."""
    site.main.start()
    site.advance(DAY)
    kept = back_up(site, tree=tree)
    old = {key.kid for key in site.signing_keys()}
    while not site.signing_keys(Phase.GRACE):
        site.advance(6 * HOUR, pace=DAY)
    (revoked,) = [key.kid for key in site.signing_keys(Phase.GRACE)]
    site.revoked.add(revoked)
    site.ask("key.revoke", kid=revoked)
    while (signs := site.active()) is None or signs in old:
        site.advance(6 * HOUR, pace=DAY)
    site.advance(2 * DAY, pace=DAY)
    generation = site.query("SELECT generation FROM keysets")[0][0]
    put_back(site, kept)
    site.clock.reboot()
    site.main.start()  # after a gap longer than clock.max_gap, with nothing that speaks for the clock
    assert "clock" in site.main.run.faults
    (compromised,) = [key.kid for key in site.signing_keys() if key.kid in old - {revoked}]
    site.revoked.add(compromised)
    assert site.ask("key.revoke", kid=compromised).succeeded
    assert signs in site.main.kids()
    assert not {revoked, compromised} & set(site.main.kids())
    assert site.query("SELECT generation FROM keysets")[0][0] > generation
    assert site.ask("clock.accept").succeeded
    site.advance(31 * SECOND)
    assert len(site.events(EventName.STATE_RESTORED)) == 1
    site.advance(10 * DAY, pace=DAY)
    assert not {revoked, compromised} & set(site.main.kids())
    site.assert_sound()


def test_what_a_clock_that_is_ahead_calls_expired_is_revoked_all_the_same(site: Site) -> None:
    """The tokens of a key that was revoked since: by the time that is certain to have come they live."""
    site.main.start()
    site.advance(4 * DAY, pace=DAY)
    kept = back_up(site)
    revoked = site.active()
    assert revoked is not None
    site.revoked.add(revoked)
    assert site.ask("key.revoke", kid=revoked).succeeded
    put_back(site, kept)
    site.clock.reboot()
    site.clock.leap(60 * DAY)
    site.main.start()
    assert "clock" in site.main.run.faults
    assert ("active",) not in site.query("SELECT phase FROM tokens WHERE kid = ?", revoked)
    site.clock.leap(-60 * DAY)
    site.advance(2 * MINUTE)
    assert site.query("SELECT count(*) FROM workspaces WHERE current_kid = ?", revoked) == [(0,)]
    site.assert_sound()


def test_a_backup_made_beside_the_daemon_does_no_harm_when_it_is_put_back(site: Site) -> None:
    """From before rotations and a revocation, as `rotator backup` and `restore` do it: only the revoked one is lost."""
    site.main.start()
    site.advance(10 * DAY + HOUR, pace=DAY)
    copy_database(site.database, site.root / "backup.db")
    while not site.signing_keys(Phase.GRACE):
        site.advance(6 * HOUR, pace=DAY)
    (demoted,) = [key.kid for key in site.signing_keys(Phase.GRACE)]
    revoked = site.active()
    assert revoked is not None
    site.revoked.add(revoked)
    site.main.run.revoked_kids.add(revoked)
    site.main.settle()
    site.main.restart()
    site.advance(2 * HOUR)
    made_since = [key.kid for key in site.signing_keys() if key.created_at > T0 + 11 * DAY]
    assert made_since
    assert demoted in site.main.kids()

    site.main.stop()
    (site.root / "aside").mkdir()
    assert set_aside(site.database, site.root / "aside")
    put_in_place(site.root / "backup.db", site.database)
    site.main.start()
    assert len(site.log.named("restore.found")) == 1
    assert demoted in site.main.kids()
    assert revoked not in site.main.kids()
    assert site.active() != revoked
    site.advance(15 * DAY, pace=DAY)
    assert revoked not in site.main.kids()
    assert {row.event.workspace for row in site.events(EventName.TOKEN_ISSUED)} == {"acme", "umbrella"}
    assert tokens_in_order(site.main.post.delivered)
    site.assert_sound()


def test_a_replica_that_came_after_the_backup_is_still_waited_for(site: Site) -> None:
    """Its daemon is dead, its web server is not: no key signs before that shows it, though the database is older."""
    site.main.start()
    site.advance(DAY)
    kept = back_up(site)
    other = site.daemon("other").start()
    site.advance(50 * DAY, pace=DAY)
    other.stop()
    put_back(site, kept)
    site.main.start()
    site.advance(PROPAGATION + DAY, pace=HOUR)
    assert site.active() is None
    other.start()
    site.advance(PROPAGATION + 2 * MINUTE)
    fresh = site.active()
    assert fresh is not None
    assert site.announced_for(fresh, "other") >= PROPAGATION
    site.assert_sound()


def test_a_token_whose_revocation_only_reached_the_witness_is_revoked_once(site: Site) -> None:
    """The request that was cut off sees to it, and its event names who asked."""
    site.main.start()
    (jti,) = site.query("SELECT jti FROM tokens ORDER BY jti")[0]
    site.submit("token.revoke", jti=jti)
    run = site.main.run
    run.revoked_jtis[Jti(jti)] = site.clock.wall + 90 * DAY
    write_witness(run)
    site.main.restart()
    (told,) = site.events(EventName.TOKEN_REVOKED)
    assert (told.event.jti, told.event.actor) == (jti, "ada(1000)")


@pytest.mark.parametrize(
    "known", [False, True], ids=["keyset came after the backup", "its first keys are in the backup"]
)
def test_no_set_is_emptied_where_only_keys_that_never_signed_were_in_it(site: Site, known: bool) -> None:
    """The restored database gives them up, and the file holds nothing else: fresh ones are made before they leave."""
    one = policy_of([keyset()], [workspace("acme"), workspace("umbrella")])
    two = policy_of([keyset(), keyset("robots")], [workspace("acme"), workspace("umbrella", on="robots")])
    robots = site.main.jwks("robots")
    robots.parent.mkdir(parents=True)
    robots.write_bytes(b'{"keys":[]}')  # of a keyset of that name that ended: so the first keys wait as any others
    site.main.start(two if known else one)
    site.advance(HOUR)
    kept = back_up(site)
    site.main.load(two)
    site.advance(HOUR)
    assert site.ask("workspace.revoke", workspace="acme").succeeded
    before = site.main.kids("robots")
    assert len(before) == 2
    assert site.active("robots") is None
    put_back(site, kept)
    site.main.start(two)
    assert len(site.events(EventName.STATE_RESTORED)) == 1
    after = site.main.kids("robots")
    assert len(after) == 2
    assert set(after).isdisjoint(before)
    sizes = [row.event.details["keys"] for row in site.events(EventName.KEYSET_PUBLISHED)]
    assert 0 not in sizes
    site.advance(PROPAGATION + HOUR)
    assert site.active("robots") in after
    site.assert_sound()


@pytest.mark.parametrize("running", [False, True], ids=["at a start", "under a running daemon"])
@pytest.mark.parametrize("leap", [-2 * DAY, 2 * DAY], ids=["set back", "leapt ahead"])
def test_a_restored_database_does_not_make_a_wrong_clock_trusted(site: Site, leap: timedelta, running: bool) -> None:
    """It was made before the time that is wrong: only the witness knows, and nothing happens by that clock."""
    site.main.start()
    site.advance(DAY)
    kept = back_up(site)
    site.main.stop()
    site.clock.reboot()
    site.main.start()
    site.advance(5 * DAY, pace=DAY)
    issued = len(site.events(EventName.TOKEN_ISSUED))
    site.clock.leap(leap)
    site.advance(MINUTE)
    assert "clock" in site.main.run.faults
    if running:
        copy_over(site, kept)
    else:
        put_back(site, kept)
        site.main.start()
    site.advance(HOUR)
    assert "clock" in site.main.run.faults
    assert site.events(EventName.STATE_RESTORED) == []
    assert len(site.events(EventName.TOKEN_ISSUED)) < issued
    site.clock.leap(-leap)
    site.advance(MINUTE)
    assert dict(site.main.run.faults) == {}
    assert len(site.events(EventName.STATE_RESTORED)) == 1
    site.advance(10 * DAY, pace=DAY)
    site.assert_sound()


def test_a_clock_that_the_witness_speaks_against_is_accepted_once(site: Site) -> None:
    """As when the time that it knows was the wrong one."""
    site.main.start()
    site.advance(DAY)
    kept = back_up(site)
    site.advance(5 * DAY, pace=DAY)
    site.main.stop()
    site.clock.leap(-2 * DAY)
    put_back(site, kept)
    site.main.start()
    assert "clock" in site.main.run.faults
    assert site.ask("clock.accept").succeeded
    site.advance(MINUTE)
    assert dict(site.main.run.faults) == {}
    assert len(site.events(EventName.STATE_RESTORED)) == 1
    site.main.restart()
    site.advance(MINUTE)
    assert dict(site.main.run.faults) == {}


@pytest.mark.parametrize("held", [False, True], ids=["clock trusted", "clock held at first"])
def test_what_was_chosen_with_a_revocation_long_ago_is_not_chosen_again(site: Site, held: bool) -> None:
    """The journal knows a revocation of which the old database does not, and the fresh key waits all the same."""
    site.main.start()
    site.advance(DAY, pace=DAY)
    kept = back_up(site)
    gone = {key.kid for key in site.signing_keys(Phase.ACTIVE, Phase.PENDING)}
    site.revoked |= gone
    assert site.ask("keyset.revoke", keyset="default", choice="now").succeeded
    site.advance(30 * DAY, pace=DAY)
    site.refused.clear()  # those that were chosen then
    put_back(site, kept)
    if held:
        site.clock.leap(timedelta(days=-20))
    site.main.start()
    if held:
        site.clock.leap(timedelta(days=20))
        site.main.settle()
    assert len(site.events(EventName.STATE_RESTORED)) == 1
    assert site.active() is None
    site.main.restart()
    assert site.active() is None
    site.advance(PROPAGATION - HOUR, pace=HOUR)
    assert site.active() is None
    site.advance(2 * HOUR, pace=HOUR)
    assert site.active() not in {None, *gone}
    assert gone.isdisjoint(site.main.kids())
    assert site.refused == []
