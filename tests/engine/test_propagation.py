"""Publish before use: time that really passed, in every tree and at the served URL."""

import shutil

import pytest

from rotator.core.events import EventName
from rotator.core.model import KeysetName, Kid, Phase
from tests.engine.site import DAY, HOUR, MINUTE, PROPAGATION, SECOND, URL, Served, Site, keyset, policy_of, workspace


def lose_signer(site: Site) -> str:
    """Make the active key and the spare unusable, so that a fresh key is needed; return the kid of the fresh one."""
    site.main.stop()
    site.rewrite("signing_keys", "sealed IS NOT NULL", sealed=b"\0")
    site.main.start()
    (kid, _) = (key.kid for key in site.signing_keys(Phase.PENDING))
    return kid


def activated(site: Site, kid: str) -> bool:
    return any(row.event.kid == kid for row in site.events(EventName.KEY_ACTIVATED))


def test_a_fresh_key_waits_to_the_minute(site: Site) -> None:
    """Even when no key can sign, the successor does not before its time, and does right at it."""
    site.main.start()
    site.advance(HOUR)
    fresh = lose_signer(site)
    site.advance(PROPAGATION - MINUTE)
    assert not activated(site, fresh)
    site.advance(2 * MINUTE)
    assert activated(site, fresh)


def test_a_slow_disk_makes_no_key_look_older_in_public(site: Site) -> None:
    """It counts from when the set stood there, not from when the tick began that wrote it."""
    site.main.start()
    site.advance(HOUR)
    began = site.clock.wall
    site.main.tree_disk.before_write = lambda: site.clock.elapse(10 * SECOND)  # a publication is three files
    fresh = lose_signer(site)
    site.main.tree_disk.before_write = lambda: None
    site.advance(began + PROPAGATION + 25 * SECOND - site.clock.wall)
    assert not activated(site, fresh)
    site.advance(10 * SECOND)
    assert activated(site, fresh)


def test_downtime_counts_while_the_file_still_held_the_key(site: Site) -> None:
    site.main.start()
    fresh = lose_signer(site)
    site.advance(HOUR)
    site.main.stop()
    site.clock.reboot(PROPAGATION - 2 * HOUR)
    site.main.start()
    assert not activated(site, fresh)
    site.advance(HOUR)
    assert activated(site, fresh)


@pytest.mark.parametrize("damage", ["delete", "delete all", "alter", "garbage"])
def test_a_file_that_was_lost_while_nobody_looked_begins_the_wait_anew(site: Site, damage: str) -> None:
    """Whoever fetched meanwhile may hold a copy without the key: the whole wait is due again."""
    site.main.start()
    fresh = lose_signer(site)
    site.advance(HOUR)
    site.main.stop()
    site.clock.reboot(2 * DAY)
    paths = [site.main.jwks(), site.main.tree / ".well-known" / "jwks.json"]
    for path in paths[:1] if damage == "delete" else paths:
        if damage.startswith("delete"):
            path.unlink()
        else:
            path.write_text('{"keys": []}' if damage == "alter" else "nonsense")
    site.main.start()
    assert fresh in site.main.kids()
    site.advance(PROPAGATION - MINUTE)
    assert not activated(site, fresh)
    site.advance(2 * MINUTE)
    assert activated(site, fresh)


def test_a_leap_of_the_wall_clock_ages_no_sighting(site: Site) -> None:
    """Even where the leap is accepted, a key is as old in public as CLOCK_BOOTTIME says."""
    site.main.start()
    fresh = lose_signer(site)
    site.advance(HOUR)
    site.clock.leap(10 * DAY)
    site.main.settle()
    assert "clock" in site.main.run.faults
    assert site.ask("clock.accept").succeeded
    assert not activated(site, fresh)
    site.advance(PROPAGATION - HOUR - MINUTE)
    assert not activated(site, fresh)
    site.advance(2 * MINUTE)
    assert activated(site, fresh)


def test_a_leap_ages_no_sighting_after_a_restart_of_the_machine(site: Site) -> None:
    """What the leap added is not counted as time in public in the next boot either."""
    site.main.start()
    fresh = lose_signer(site)
    site.advance(HOUR)
    site.clock.leap(10 * DAY)
    site.ask("clock.accept")
    site.main.stop()
    site.clock.reboot()
    site.main.start()
    assert not activated(site, fresh)
    site.advance(PROPAGATION - HOUR - 5 * MINUTE)
    assert not activated(site, fresh)
    site.advance(10 * MINUTE)
    assert activated(site, fresh)


# -------------------------------------------------------------------------------------------------------- verify_url


def test_a_first_start_whose_url_shows_nothing_yet_signs_as_soon_as_it_does(site: Site) -> None:
    """Nobody can hold an older set: there is nothing to wait for but the file being served."""
    shown: list[frozenset[Kid] | None] = [None]
    site.main.served = Served(lambda _name: shown[0])
    site.main.start()
    shown[0] = frozenset(map(Kid, site.main.kids()))
    site.advance(MINUTE)
    assert site.active() is not None


def test_a_first_start_beside_a_served_foreign_set_waits(site: Site) -> None:
    """Verifiers may hold the set of whoever was there before."""
    shown = [frozenset({Kid("theirs")})]
    site.main.served = Served(lambda _name: shown[0])
    site.main.start()
    site.advance(HOUR)
    assert site.active() is None
    shown[0] = frozenset(map(Kid, site.main.kids()))
    site.advance(31 * SECOND)
    site.advance(PROPAGATION - MINUTE, pace=HOUR)
    assert site.active() is None
    site.advance(5 * MINUTE)
    assert site.active() is not None


def test_a_key_waits_from_when_the_url_first_shows_it(site: Site) -> None:
    """A file server that lags behind the tree holds the activation up, and for the whole period."""
    frozen: list[frozenset[Kid]] = []
    site.main.served = Served(lambda name: frozen[0] if frozen else frozenset(map(Kid, site.main.kids(name))))
    site.main.start()
    site.advance(2 * MINUTE)
    first = site.active()
    assert first is not None
    frozen.append(frozenset(map(Kid, site.main.kids())))
    fresh = lose_signer(site)
    site.advance(PROPAGATION + HOUR, pace=HOUR)
    assert not activated(site, fresh)
    frozen.clear()
    site.advance(31 * SECOND)
    site.advance(PROPAGATION - MINUTE, pace=HOUR)
    assert not activated(site, fresh)
    site.advance(20 * MINUTE, pace=2 * MINUTE)
    assert activated(site, fresh)


def test_status_names_the_url_that_stays_behind_and_the_one_that_does_not_answer(site: Site) -> None:
    """Not before `publish.lag` is over, for a cache may keep the older set for so long; and no key signs meanwhile."""
    shown: list[frozenset[Kid] | None] = []
    site.main.served = Served(lambda name: shown[0] if shown else frozenset(map(Kid, site.main.kids(name))))
    site.main.start()
    site.advance(2 * MINUTE)
    shown.append(frozenset(map(Kid, site.main.kids())))
    fresh = lose_signer(site)
    site.advance(MINUTE, pace=15 * SECOND)
    assert "served:default" not in site.main.run.faults
    site.advance(2 * MINUTE, pace=30 * SECOND)
    problem = site.main.run.faults["served:default"]
    assert problem.startswith(f"{URL} still lacks key {fresh}, later than publish.lag (1m) allows")
    site.advance(HOUR, pace=10 * MINUTE)
    assert len(site.log.named("served.behind")) == 1
    shown[0] = None
    site.advance(2 * MINUTE, pace=30 * SECOND)
    assert site.main.run.faults["served:default"].startswith(f"{URL}: it is down; no new key of keyset default signs")
    shown.clear()
    site.advance(2 * MINUTE, pace=30 * SECOND)
    assert "served:default" not in site.main.run.faults


# ----------------------------------------------------------------------------------------------------------- replicas


def two(site: Site) -> None:
    site.main.start()
    site.daemon("other").start()


def test_two_replicas_do_everything_once(site: Site) -> None:
    """On one database they share every key and token, and neither doubles an event."""
    two(site)
    site.advance(45 * DAY, pace=12 * HOUR)
    assert site.daemon("other").kids() == site.main.kids()
    assert len(site.events(EventName.KEY_ACTIVATED)) >= 3
    site.assert_sound()


def test_both_trees_must_have_held_the_key(site: Site) -> None:
    """A tree that lost the file begins the wait anew for both."""
    two(site)
    fresh = lose_signer(site)
    site.advance(PROPAGATION - HOUR, pace=HOUR)
    other = site.daemon("other")
    assert fresh in other.kids()
    other.stop()
    for path in (other.jwks(), other.tree / ".well-known" / "jwks.json"):
        path.unlink()
    site.clock.elapse(MINUTE)
    other.start()
    site.advance(PROPAGATION - 2 * MINUTE, pace=HOUR)
    assert not activated(site, fresh)
    site.advance(20 * MINUTE, pace=2 * MINUTE)
    assert activated(site, fresh)


def test_a_replica_that_died_after_publishing_holds_nothing_up(site: Site) -> None:
    two(site)
    fresh = lose_signer(site)
    site.daemon("other").settle()
    site.advance(MINUTE)
    site.daemon("other").stop()
    site.advance(PROPAGATION, pace=HOUR)
    assert activated(site, fresh)


def test_a_replica_that_died_before_publishing_holds_it_up(site: Site) -> None:
    """Its tree may still be served, and does not hold the key."""
    two(site)
    site.daemon("other").stop()
    fresh = lose_signer(site)
    site.advance(PROPAGATION + DAY, pace=HOUR)
    assert not activated(site, fresh)
    site.daemon("other").start()
    site.advance(PROPAGATION - MINUTE, pace=HOUR)
    assert not activated(site, fresh)
    site.advance(2 * HOUR, pace=5 * MINUTE)
    assert activated(site, fresh)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_replica_whose_row_somebody_deletes_is_waited_for_all_the_same(site: Site, restarted: bool) -> None:
    two(site)
    site.daemon("other").stop()
    fresh = lose_signer(site)
    site.advance(HOUR, pace=HOUR)
    site.meddle("DELETE FROM replicas WHERE replica = 'other'")
    site.clock.elapse(MINUTE)
    if restarted:
        site.main.restart()
    site.main.settle()
    assert "row:replicas other" in site.main.run.faults
    site.advance(PROPAGATION + DAY, pace=HOUR)
    assert not activated(site, fresh)


def test_a_replica_that_was_forgotten_is_waited_for_no_more(site: Site) -> None:
    two(site)
    site.daemon("other").stop()
    fresh = lose_signer(site)
    site.advance(HOUR, pace=HOUR)
    site.rewrite("replicas", "replica = 'other'", forgotten_at=1)
    site.advance(PROPAGATION + DAY, pace=HOUR)
    assert activated(site, fresh)
    site.main.restart()
    assert dict(site.main.run.faults) == {}
    assert site.main.run.replicas == {"local"}


def test_a_replica_with_an_empty_tree_adds_no_wait(site: Site) -> None:
    """Nobody fetched from it before its first file, which has the key."""
    site.main.start()
    fresh = lose_signer(site)
    site.advance(PROPAGATION - HOUR)
    site.daemon("other").start()
    site.advance(HOUR + MINUTE)
    assert activated(site, fresh)


@pytest.mark.parametrize("place", ["keysets/default/jwks.json", ".well-known/jwks.json"])
def test_a_tree_that_held_a_set_in_one_of_its_places_is_not_empty(site: Site, place: str) -> None:
    """As one whose daemon died amid a publication: whoever fetched from there has a set without the key."""
    site.main.start()
    before = site.main.jwks().read_bytes()
    fresh = lose_signer(site)
    site.advance(PROPAGATION - HOUR)
    other = site.daemon("other")
    (other.tree / place).parent.mkdir(parents=True)
    (other.tree / place).write_bytes(before)
    other.start()
    assert fresh in other.kids()
    site.advance(PROPAGATION - HOUR)
    assert not activated(site, fresh)
    site.advance(2 * HOUR)
    assert activated(site, fresh)


def test_each_keyset_has_its_own_time(site: Site) -> None:
    """A second keyset of another period lives beside the first, and neither touches the other's keys."""
    fast = keyset("fast", security_period=10 * DAY, propagation_period=PROPAGATION)
    site.main.start(
        policy_of([keyset(), fast], [workspace("acme", site.sink("acme")), workspace("b", site.sink("b"), on="fast")])
    )
    site.advance(30 * DAY, pace=6 * HOUR)
    by_keyset = [row.event.keyset for row in site.events(EventName.KEY_ACTIVATED)]
    assert by_keyset.count(KeysetName("fast")) >= 3
    assert by_keyset.count(KeysetName("default")) == 2
    site.assert_sound()


def test_a_replica_with_a_new_disk_is_no_new_replica(site: Site) -> None:
    """Verifiers may hold what it served before, of which no key is left: the fresh ones wait for them, too."""
    site.main.start()
    other = site.daemon("other").start()
    site.advance(4 * DAY, pace=DAY)
    other.stop()
    site.revoked.update(site.main.kids())
    assert site.ask("keyset.revoke", keyset="default", choice="wait").succeeded
    site.advance(DAY)
    shutil.rmtree(other.tree)
    other.tree.mkdir(0o755)
    other.start()
    site.advance(5 * MINUTE)
    assert site.active() is None
    assert set(site.query("SELECT absent_until IS NULL FROM sightings WHERE replica = 'other'")) == {(0,)}
    site.advance(PROPAGATION)
    assert site.active() is not None
    site.assert_sound()
