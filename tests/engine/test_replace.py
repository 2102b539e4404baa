"""A token replaced at an operator's word: the new one is delivered, the prior ones end when that was said."""

from datetime import timedelta

import pytest

from rotator.core.actions import Reason
from rotator.core.events import EventName
from rotator.ports import AuditRow
from tests.engine.site import DAY, HOUR, MINUTE, SECOND, Site, without

PHASES = "SELECT sequence, phase, sealed IS NULL FROM tokens WHERE workspace = 'acme' ORDER BY sequence"


def replace(site: Site, overlap: timedelta | None, name: str = "acme") -> None:
    seconds = "end" if overlap is None else str(int(overlap.total_seconds()))
    answer = site.ask("token.replace", workspace=name, overlap=seconds)
    assert answer.succeeded, answer.result


def revoked(site: Site) -> list[AuditRow]:
    return site.events(EventName.TOKEN_REVOKED)


def test_a_replaced_token_lives_to_its_end_unless_something_else_was_said(site: Site) -> None:
    """The new one is delivered at once; other workspaces are left alone."""
    site.main.start()
    before = site.held("umbrella")
    replace(site, None)
    assert site.held_sequence("acme") == 2
    assert site.held("umbrella") == before
    assert site.query(PHASES) == [(1, "grace", 1), (2, "active", 0)]
    site.advance(5 * DAY, pace=12 * HOUR)
    assert revoked(site) == []
    site.assert_sound()


def test_after_the_overlap_the_prior_token_counts_as_revoked(site: Site) -> None:
    """At that very moment: in the witness as well, its text erased, in the name of whoever asked."""
    site.main.start()
    (jti,) = site.query("SELECT current FROM workspaces WHERE id = 'acme'")[0]
    replace(site, 10 * MINUTE)
    site.advance(10 * MINUTE - SECOND)
    assert site.query(PHASES)[0][1] == "grace"
    assert jti.encode() not in site.main.witness.read_bytes()
    site.advance(SECOND)
    assert site.query(PHASES) == [(1, "revoked", 1), (2, "active", 0)]
    assert jti.encode() in site.main.witness.read_bytes()
    (row,) = revoked(site)
    assert (row.event.jti, row.event.actor, row.event.reason) == (jti, "ada(1000)", "because")
    assert site.query("SELECT revoke_reason FROM tokens WHERE jti = ?", jti) == [(Reason.OVERLAP_OVER,)]
    assert site.query("SELECT count(*) FROM token_overlaps") == [(0,)]
    site.assert_sound()


def test_without_an_overlap_every_earlier_token_is_revoked_at_once(site: Site) -> None:
    """Which one leaked, nobody knows: one in grace from before is meant as well."""
    site.main.start()
    replace(site, None)
    replace(site, timedelta(0))
    assert site.query(PHASES) == [(1, "revoked", 1), (2, "revoked", 1), (3, "active", 0)]
    assert site.held_sequence("acme") == 3
    assert [row.event.actor for row in revoked(site)] == ["ada(1000)"] * 2
    (asked, _) = reversed(site.events(EventName.TOKEN_REPLACEMENT_REQUESTED))
    assert (asked.event.actor, asked.event.reason) == ("ada(1000)", "because")
    site.assert_sound()


def test_an_overlap_survives_a_restart_and_ends_while_nobody_looks(site: Site) -> None:
    """It is stored with the token: the next start finds it over."""
    site.main.start()
    replace(site, 6 * HOUR)
    site.main.stop()
    site.clock.elapse(7 * HOUR)
    site.main.start()
    assert [row[1] for row in site.query(PHASES)] == ["revoked", "active"]
    site.assert_sound()


def test_a_longer_overlap_never_puts_off_a_shorter_one(site: Site) -> None:
    """Nor does the next replacement."""
    site.main.start()
    replace(site, 10 * MINUTE)
    replace(site, 6 * HOUR)
    site.advance(10 * MINUTE)
    assert [row[1] for row in site.query(PHASES)] == ["revoked", "grace", "active"]
    site.advance(6 * HOUR)
    assert [row[1] for row in site.query(PHASES)] == ["revoked", "revoked", "active"]


def test_an_overlap_beyond_the_end_of_the_token_changes_nothing(site: Site) -> None:
    site.main.start()
    replace(site, 400 * DAY)
    assert site.query("SELECT count(*) FROM token_overlaps") == [(0,)]


def test_a_token_without_a_successor_outlives_its_overlap(site: Site) -> None:
    """No key can sign: the workspace keeps what it has until it has something else."""
    site.main.start()
    site.rewrite("signing_keys", "sealed IS NOT NULL", sealed=b"\0")
    site.main.restart()
    replace(site, 10 * MINUTE)
    site.advance(HOUR)
    assert site.query(PHASES) == [(1, "active", 0)]
    site.advance(60 * HOUR, pace=12 * HOUR)
    assert [row[1] for row in site.query(PHASES)] == ["revoked", "active"]


def test_with_no_overlap_the_leaked_token_ends_even_if_there_is_no_new_one_yet(site: Site) -> None:
    """Revocation waits for nothing; the new token comes when it can."""
    site.main.start()
    site.rewrite("signing_keys", "sealed IS NOT NULL", sealed=b"\0")
    site.main.restart()
    replace(site, timedelta(0))
    assert site.query(PHASES) == [(1, "revoked", 1)]


def test_a_delivery_that_fails_counts_from_the_end_of_the_overlap(site: Site) -> None:
    """Critical after three quarters of ten minutes, not of a day."""
    site.main.start()
    site.main.post.failing.add(site.sink("acme").path)
    replace(site, 10 * MINUTE)
    site.advance(8 * MINUTE, pace=MINUTE)
    assert site.log.named("delivery.critical")


@pytest.mark.parametrize("done_before_the_kill", range(4))
def test_killed_between_any_two_steps_it_is_done_once(site: Site, done_before_the_kill: int) -> None:
    """Asked, issued, over: whichever commit was the last one, the next start goes on from there."""
    site.main.start()
    number = site.submit("token.replace", workspace="acme", overlap="600")
    for step in range(done_before_the_kill):
        site.main.tick()
        if step == 2:
            site.clock.elapse(11 * MINUTE)
    site.main.restart()
    site.advance(11 * MINUTE)
    assert site.answer(number).succeeded
    assert [row[1] for row in site.query(PHASES)] == ["revoked", "active"]
    assert len(site.events(EventName.TOKEN_REPLACEMENT_REQUESTED)) == 1
    assert len(revoked(site)) == 1
    assert site.held_sequence("acme") == 2
    site.assert_sound()


def test_what_cannot_be_replaced_is_refused_with_the_reason(site: Site) -> None:
    """And nothing is changed."""
    site.main.start()
    for arguments, problem in {
        ("nobody", "600"): "there is no workspace 'nobody'; `rotator tokens list` names them",
        ("acme", "soon"): "an overlap is 'end' or a whole number of seconds, not 'soon'",
        ("acme", "99999999999"): "an overlap is 'end' or a whole number of seconds, not '99999999999'",
        ("acme", "-1"): "an overlap is 'end' or a whole number of seconds, not '-1'",
    }.items():
        answer = site.ask("token.replace", workspace=arguments[0], overlap=arguments[1])
        assert (answer.succeeded, answer.result) == (False, problem)
    assert site.query(PHASES) == [(1, "active", 0)]


def test_a_workspace_that_left_the_config_gets_no_new_token(site: Site) -> None:
    """It says how to end the one that it has."""
    names = [f"ws-{number}" for number in range(10)]
    policy = site.usual("acme", *names)
    site.main.start(policy)
    site.main.load(without(policy, "acme"))
    answer = site.ask("token.replace", workspace="acme", overlap="0")
    assert not answer.succeeded
    assert answer.result.endswith("rotator revoke workspace acme")
    assert site.query(PHASES) == [(1, "active", 0)]


def test_a_replacement_that_is_refused_revokes_nothing_at_the_next_start(site: Site) -> None:
    """What the witness was told would be carried over then, whatever the answer was."""
    site.main.start()
    site.advance(HOUR)
    policy = site.policy
    held = site.held("acme")
    site.main.restart(without(policy, "acme"))
    assert not site.ask("token.replace", workspace="acme", overlap="0").succeeded
    site.main.restart(policy)
    site.advance(MINUTE)
    assert site.query("SELECT DISTINCT phase FROM tokens") == [("active",)]
    assert site.held("acme") == held
