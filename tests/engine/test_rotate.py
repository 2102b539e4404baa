"""A key rotated at an operator's word: as soon as that is safe, or at once, by someone who was told what it costs."""

import pytest

from rotator.core.actions import Reason
from rotator.core.contract import SAFE_KEYS
from rotator.core.events import EventName
from rotator.core.instants import from_us
from rotator.core.model import Kid, Phase
from tests.engine.site import (
    DAY,
    HOUR,
    MAX_CACHE,
    MINUTE,
    PROPAGATION,
    SECOND,
    SKEW,
    Site,
    keyset,
    policy_of,
    workspace,
)
from tests.engine.test_restore import back_up, put_back


def settled(site: Site) -> tuple[Kid, Kid]:
    """Start, and wait until the standby is known to all; return the signer and the standby."""
    site.main.start()
    site.advance(60 * HOUR, pace=DAY)
    signer, (standby,) = site.active(), site.signing_keys(Phase.PENDING)
    assert signer is not None
    return signer, standby.kid


def wishes(site: Site) -> int:
    return int(site.query("SELECT count(*) FROM wishes")[0][0])


def test_the_standby_takes_over_when_the_key_after_it_is_known_too(site: Site) -> None:
    """Not a second earlier, in the operator's name; nobody's token is refused on the way."""
    signer, standby = settled(site)
    assert site.ask("keyset.rotate", keyset="default").succeeded
    assert site.active() == signer
    site.advance(PROPAGATION - SECOND, pace=DAY)
    assert site.active() == signer
    site.advance(MINUTE, pace=SECOND)
    assert site.active() == standby
    assert wishes(site) == 0
    (row,) = [row for row in site.events(EventName.KEY_ACTIVATED) if row.event.kid == standby]
    (demoted,) = [row for row in site.events(EventName.KEY_DEMOTED) if row.event.kid == signer]
    for event in (row.event, demoted.event):
        assert (event.actor, event.reason, event.details["cause"]) == ("ada(1000)", "because", Reason.REQUESTED)
    (asked,) = site.events(EventName.KEYSET_ROTATION_REQUESTED)
    assert (asked.event.kid, asked.event.actor, asked.event.reason) == (signer, "ada(1000)", "because")
    (spare,) = site.signing_keys(Phase.PENDING)
    assert site.announced_for(spare.kid) >= PROPAGATION
    site.assert_sound()


def test_a_second_wish_changes_nothing(site: Site) -> None:
    """It says who was first, and when."""
    settled(site)
    site.ask("keyset.rotate", keyset="default")
    site.advance(HOUR)
    answer = site.ask("keyset.rotate", keyset="default")
    assert not answer.succeeded
    assert answer.result == (
        "a rotation of keyset default is under way: ada(1000) asked for it at 2026-03-05 00:00:00 UTC; nothing was "
        "changed"
    )
    assert len(site.events(EventName.KEYSET_ROTATION_REQUESTED)) == 1


def test_in_an_emergency_the_standby_takes_over_now(site: Site) -> None:
    """Known to all for long, so that even now no token is refused; a wish that waited is overtaken by it."""
    signer, standby = settled(site)
    site.ask("keyset.rotate", keyset="default")
    assert site.ask("keyset.rotate_at_once", keyset="default", signing=signer).succeeded
    assert site.active() == standby
    assert wishes(site) == 0
    site.advance(2 * PROPAGATION, pace=DAY)
    assert site.active() == standby
    site.assert_sound()


def test_a_second_emergency_is_what_verifiers_may_refuse(site: Site) -> None:
    """The key that signs then is published and proven, and younger in public than a cache: as the operator was told."""
    signer, standby = settled(site)
    site.ask("keyset.rotate_at_once", keyset="default", signing=signer)
    site.advance(HOUR)
    assert site.ask("keyset.rotate_at_once", keyset="default", signing=standby).succeeded
    third = site.active()
    assert third not in (signer, standby, None)
    assert third in site.main.kids()
    assert site.announced_for(str(third)) < MAX_CACHE
    assert [row.event.kid for row in site.events(EventName.KEY_PROVEN)].count(third) == 1
    site.ask("token.replace", workspace="acme", overlap="end")
    assert site.refused != []


def test_an_emergency_that_saw_another_signer_does_nothing(site: Site) -> None:
    """The rotation was done meanwhile, as by a colleague: a second one would cost refusals."""
    signer, standby = settled(site)
    site.ask("keyset.rotate_at_once", keyset="default", signing=signer)
    answer = site.ask("keyset.rotate_at_once", keyset="default", signing=signer)
    assert not answer.succeeded
    assert answer.result == (
        f"key {standby} signs now, and not {signer}: it was rotated meanwhile. Look again before you do more"
    )
    assert site.active() == standby


def test_a_superseded_key_leaves_the_set_when_nothing_needs_it(site: Site) -> None:
    """The witness knew an end with room above it while the key signed; that keeps no key any longer."""
    site.main.start()
    site.advance(21 * DAY, pace=DAY)
    (key,) = site.signing_keys(Phase.GRACE)
    ((last_exp,),) = site.query("SELECT max(expires_at) FROM tokens WHERE kid = ?", key.kid)
    assert key.grace_until is not None
    needed_until = max(key.grace_until, from_us(last_exp) + SKEW)
    site.advance(needed_until - site.clock.wall - MINUTE)
    assert key.kid in site.main.kids()
    site.advance(2 * MINUTE)
    assert key.kid not in site.main.kids()


def test_an_emergency_with_no_signer_ends_the_wait(site: Site) -> None:
    """Two keys in a row were lost: fresh ones sign at once, if that is what the operator wants."""
    settled(site)
    site.rewrite("signing_keys", "sealed IS NOT NULL", sealed=b"\0")
    site.main.restart()
    signer = site.active()
    assert site.ask("keyset.rotate_at_once", keyset="default", signing=str(signer)).succeeded
    assert site.active() not in (signer, None)


def test_a_wish_survives_any_stop(site: Site) -> None:
    """And the time in public counts while the daemon is down, for the file still stands."""
    _, standby = settled(site)
    site.ask("keyset.rotate", keyset="default")
    site.main.stop()
    site.clock.elapse(PROPAGATION + HOUR)
    site.main.start()
    assert site.active() == standby
    site.assert_sound()


def test_a_wish_does_not_shorten_the_lead_of_a_key_that_downtime_held_up(site: Site) -> None:
    """Asked for, and stopped before the key after it was made: that key gets its whole time later."""
    signer, standby = settled(site)
    site.submit("keyset.rotate", keyset="default")
    site.main.stop()
    site.clock.elapse(10 * PROPAGATION)
    site.main.start()
    site.advance(PROPAGATION - MINUTE, pace=DAY)
    assert site.active() == signer
    site.advance(2 * MINUTE, pace=SECOND)
    assert site.active() == standby
    site.assert_sound()


@pytest.mark.parametrize("ticks", range(3))
@pytest.mark.parametrize("kind", ["keyset.rotate", "keyset.rotate_at_once"])
def test_killed_between_any_two_ticks_it_is_done_once(site: Site, ticks: int, kind: str) -> None:
    signer, standby = settled(site)
    signing = {"signing": signer} if kind.endswith("once") else {}
    number = site.submit(kind, keyset="default", **signing)
    for _ in range(ticks):
        site.main.tick()
    site.main.restart()
    site.advance(PROPAGATION + HOUR, pace=DAY)
    assert site.answer(number).succeeded
    assert site.active() == standby
    assert len(site.events(EventName.KEYSET_ROTATION_REQUESTED)) == 1
    site.assert_sound()


def test_a_restored_wish_is_not_carried_out_again(site: Site) -> None:
    """The backup has it, the witness says that another key signs: whoever asked must look again."""
    signer, standby = settled(site)
    site.ask("keyset.rotate", keyset="default")
    kept = back_up(site)
    site.advance(PROPAGATION + HOUR, pace=DAY)
    assert site.active() == standby
    put_back(site, kept)
    site.main.start()
    assert wishes(site) == 0
    assert site.active() == standby
    assert signer != standby


def test_what_cannot_be_rotated_is_refused_with_the_reason(site: Site) -> None:
    site.main.start()
    answer = site.ask("keyset.rotate", keyset="nothing")
    assert (answer.succeeded, answer.result) == (False, "there is no keyset 'nothing'; `rotator status` names them")


def test_rotations_that_would_make_the_set_too_large_for_verifiers_are_refused_until_a_key_leaves(site: Site) -> None:
    """And the refusal says when; an emergency does not wait."""
    site.policy = policy_of([keyset(security_period=60 * DAY, grace_period=30 * DAY)], [workspace("acme")])
    settled(site)
    largest, rotated, refused = 0, 0, ""
    while not refused:
        answer = site.ask("keyset.rotate", keyset="default")
        refused = "" if answer.succeeded else answer.result
        rotated += bool(answer.succeeded)
        site.advance(PROPAGATION + HOUR, pace=6 * HOUR)
        largest = max(largest, len(site.main.kids()))
    assert rotated == 3
    assert largest == SAFE_KEYS
    prior = [key for key in site.signing_keys(Phase.GRACE) if key.grace_until is not None]
    first = min(key.grace_until for key in prior if key.grace_until is not None)
    assert "still publishes 3 prior keys, and to rotate now would make it a set of 6 keys, more than the 5" in refused
    assert f"it can rotate after {first:%Y-%m-%d %H:%M:%S} UTC" in refused
    site.advance(first - site.clock.wall + MINUTE, pace=6 * HOUR)
    assert site.ask("keyset.rotate", keyset="default").succeeded
    site.assert_sound()


def test_an_emergency_waits_for_no_key_to_leave(site: Site) -> None:
    site.policy = policy_of([keyset(security_period=60 * DAY, grace_period=30 * DAY)], [workspace("acme")])
    settled(site)
    for _ in range(4):
        signer = site.active()
        site.advance(PROPAGATION + HOUR, pace=DAY)
        assert site.ask("keyset.rotate_at_once", keyset="default", signing=str(signer)).succeeded
    assert len(site.signing_keys(Phase.GRACE)) == 4
    assert "to rotate now would make it a set of 7 keys" in site.ask("keyset.rotate", keyset="default").result
