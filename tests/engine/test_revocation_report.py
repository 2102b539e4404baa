"""The report of a revocation: one before and after, rehearsed or done, from the state of a real daemon."""

from datetime import datetime

import pytest

from rotator.core.model import Phase
from rotator.errors import UnknownNameError
from rotator.report.revocation import WHAT_IT_CAN_DO, Revocation, Subject, revocation
from tests.engine.site import DAY, HOUR, MAX_CACHE, MINUTE, PROPAGATION, Site
from tests.engine.test_revoke import settled


def report(
    site: Site, subject: Subject, name: str, since: datetime | None = None, faults: dict[str, str] | None = None
) -> Revocation:
    with site.reader() as store, store.read() as snapshot:
        return revocation(snapshot, site.policy, site.clock.wall, faults or {}, subject, name, since)


def test_a_rehearsal_says_what_is_touched_and_who_takes_over(site: Site) -> None:
    signer, spare = settled(site)
    found = report(site, Subject.KEY, signer[:8])
    assert not found.done
    assert found.name == signer
    assert [(key.kid, key.phase) for key in found.keys] == [(signer, Phase.ACTIVE)]
    assert (found.tokens, found.workspaces, found.reissued, found.deliveries, found.deliveries_open) == (2, 2, 0, 2, 2)
    (successor,) = found.successors
    assert (successor.kid, successor.ready, successor.signs) == (spare, True, False)
    assert successor.spare_known_at == site.clock.wall + PROPAGATION  # until then another emergency is a choice
    assert not found.choice_needed
    assert found.notes == (WHAT_IT_CAN_DO,)


def test_a_rehearsal_and_what_comes_of_it_agree(site: Site) -> None:
    """The same numbers, keys and verifiers; only what is replaced by now differs."""
    signer, spare = settled(site)
    before = report(site, Subject.KEY, signer)
    site.revoked.add(signer)
    site.ask("key.revoke", kid=signer)
    after = report(site, Subject.KEY, signer, before.at)
    assert after.done
    assert (after.tokens, after.workspaces, after.deliveries) == (before.tokens, before.workspaces, before.deliveries)
    assert (after.reissued, after.waiting, after.deliveries_open) == (2, 0, 0)
    assert after.verifiers == before.verifiers
    (successor,) = after.successors
    assert (successor.kid, successor.ready, successor.signs) == (spare, True, True)
    assert successor.spare_known_at == site.clock.wall + PROPAGATION
    site.advance(PROPAGATION + MINUTE, pace=12 * HOUR)
    (later,) = report(site, Subject.KEY, signer).successors
    assert later.spare_known_at == site.clock.wall


def test_a_key_that_some_tree_still_shows_is_not_done_with(site: Site) -> None:
    """A replica that sleeps, and a tree that cannot be written: verifiers count from when it is gone there."""
    signer, _ = settled(site)
    other = site.daemon("other").start()
    site.advance(3 * DAY, pace=12 * HOUR)
    assert report(site, Subject.KEY, signer).still_shown == ()  # nothing is revoked yet
    site.revoked.add(signer)
    site.main.tree_disk.full = True
    site.ask("key.revoke", kid=signer)
    site.clock.elapse(MINUTE)
    found = report(site, Subject.KEY, signer)
    assert found.still_shown == ("local", "other")
    cached = 10 * MINUTE + site.policy.verifiers.publish_lag
    assert {each.verifier: each.until for each in found.verifiers}["envoy"] == site.clock.wall + cached
    assert any("published set of local, other still shows it" in note for note in found.notes)
    other.settle()
    assert report(site, Subject.KEY, signer).still_shown == ("local",)
    site.main.tree_disk.full = False
    site.advance(MINUTE)
    after = report(site, Subject.KEY, signer)
    assert after.still_shown == ()
    assert {each.verifier: each.until for each in after.verifiers}["envoy"] == after.at + cached


def test_a_key_that_left_the_set_under_a_clock_that_is_held_is_told_so(site: Site) -> None:
    signer, _ = settled(site)
    site.clock.leap(-60 * DAY)
    site.main.settle()
    site.revoked.add(signer)
    site.ask("key.revoke", kid=signer)
    assert signer not in site.main.kids()
    assert report(site, Subject.KEY, signer, faults=site.main.run.faults).still_shown == ()


def test_each_kind_of_verifier_may_accept_the_key_for_as_long_as_it_caches(site: Site) -> None:
    """From the moment on at which the set without it is out, everywhere; the configured longest is among them."""
    signer, _ = settled(site)
    found = report(site, Subject.KEY, signer)
    spread = site.policy.verifiers.publish_lag
    by_name = {each.verifier: each.until - found.at - spread for each in found.verifiers}
    assert by_name["envoy"] == 10 * MINUTE
    assert by_name["dotnet"] == 12 * HOUR
    assert by_name["consumers.max_cache"] == MAX_CACHE
    assert list(by_name.values()) == sorted(by_name.values())


def test_without_a_spare_that_all_know_there_is_a_choice_with_figures(site: Site) -> None:
    """A second emergency: the time to wait, and for how long new tokens may be refused."""
    signer, spare = settled(site)
    site.revoked.add(signer)
    site.ask("key.revoke", kid=signer)
    found = report(site, Subject.KEY, spare)
    assert found.choice_needed
    (successor,) = found.successors
    assert not successor.ready
    assert successor.known_at == site.clock.wall + PROPAGATION
    (figures,) = [note for note in found.notes if "--wait" in note]
    assert "in 49h" in figures
    assert "for up to 1d1m" in figures


def test_a_spare_or_a_retired_key_has_no_successor(site: Site) -> None:
    signer, spare = settled(site)
    found = report(site, Subject.KEY, spare)
    assert (found.successors, found.choice_needed, found.tokens) == ((), False, 0)
    assert found.verifiers
    site.advance(40 * DAY, pace=DAY)
    assert report(site, Subject.KEY, signer).verifiers == ()


def test_tokens_and_workspaces_say_when_they_end(site: Site) -> None:
    """Their key stays, so that no verifier's cache ends them."""
    settled(site)
    ((jti, exp),) = site.query("SELECT current, current_expires_at FROM workspaces WHERE id = 'acme'")
    ends_at = datetime.fromtimestamp(exp / 1e6, site.clock.wall.tzinfo)
    for subject, name in ((Subject.TOKEN, jti), (Subject.WORKSPACE, "acme")):
        before = report(site, subject, name)
        assert (before.tokens, before.workspaces, before.verifiers, before.keys) == (1, 1, (), ())
        assert any(f"{ends_at:%Y-%m-%d %H:%M:%S}" in note for note in before.notes)
    site.revoked.add(jti)
    at = site.clock.wall
    site.ask("workspace.revoke", workspace="acme")
    after = report(site, Subject.WORKSPACE, "acme", at)
    assert (after.done, after.tokens, after.workspaces, after.reissued, after.deliveries_open) == (True, 1, 1, 1, 0)


def test_a_delivery_that_fails_is_named(site: Site) -> None:
    signer, _ = settled(site)
    site.main.post.failing.add(site.sink("acme").path)
    at = site.clock.wall
    site.revoked.add(signer)
    site.ask("key.revoke", kid=signer)
    found = report(site, Subject.KEY, signer, at)
    assert (found.deliveries, found.deliveries_open, found.deliveries_failing) == (2, 1, 1)
    (row,) = found.open_deliveries
    assert (row.workspace, row.attempts, row.last_error) == ("acme", 1, "the sink is out of order")


def test_faults_that_hold_it_up_are_noted(site: Site) -> None:
    signer, _ = settled(site)
    faults = {"publish:default": "the disk is full", "clock": "it leapt", "publish:other": "not this one"}
    notes = report(site, Subject.KEY, signer, faults=faults).notes
    assert any("the disk is full" in note for note in notes)
    assert any("nothing is issued for now: it leapt" in note for note in notes)
    site.revoked.add(signer)
    site.ask("key.revoke", kid=signer)
    (other,) = (key.kid for key in site.signing_keys(Phase.ACTIVE))
    assert report(site, Subject.KEY, other).choice_needed
    assert not report(site, Subject.KEY, other, faults=faults).choice_needed  # such a clock cannot tell who is known
    assert not any("not this one" in note for note in notes)


@pytest.mark.parametrize("subject", Subject)
def test_what_is_not_there_is_refused(site: Site, subject: Subject) -> None:
    settled(site)
    with pytest.raises(UnknownNameError, match=r"there is no .*nonesuch"):
        report(site, subject, "nonesuch")


def test_a_beginning_that_fits_two_keys_names_both(site: Site) -> None:
    signer, spare = settled(site)
    site.main.stop()
    site.meddle("UPDATE signing_keys SET kid = ? WHERE kid = ?", f"{signer[:8]}x", spare)
    with pytest.raises(UnknownNameError, match="2 keys begin with"):
        report(site, Subject.KEY, signer[:8])
    assert report(site, Subject.KEY, signer).name == signer
