"""One failure stays one failure."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rotator.adapters.keymaker import CryptographyKeyMaker
from rotator.core.events import EventName
from rotator.core.model import Algorithm, KeysetName, Phase
from rotator.core.policy import Policy
from rotator.engine.log_outbox import LogOutbox
from rotator.errors import StoreError, StoreLostError
from rotator.ports import KeyMaterial
from tests.engine.site import DAY, HOUR, MINUTE, SECOND, Site, keyset, policy_of, without, workspace


def test_a_workspace_that_cannot_be_minted_holds_up_no_other_of_its_batch(site: Site) -> None:
    """Half a surrogate pair is in no encoding; the other 999 have their tokens in the same tick."""
    bad = workspace("w500", roles=("\ud800",))
    good = [workspace(f"w{number:03}") for number in range(1000) if number != 500]
    site.main.start(policy_of([keyset()], [*good, bad]))
    assert len(site.events(EventName.TOKEN_ISSUED)) == 999
    ((name, failures, _),) = site.query("SELECT id, failures, fault FROM workspaces WHERE failures > 0")
    assert (name, failures) == ("w500", 1)
    site.advance(HOUR, pace=SECOND)
    ((failures,),) = site.query("SELECT failures FROM workspaces WHERE failures > 0")
    assert 8 <= failures <= 20
    site.main.load(policy_of([keyset()], [*good, workspace("w500")]))
    site.advance(MINUTE)
    assert len(site.events(EventName.TOKEN_ISSUED)) == 1000
    assert site.query("SELECT id FROM workspaces WHERE failures > 0") == []


def test_a_private_half_is_destroyed_only_when_no_reader_holds_the_log_up(site: Site) -> None:
    """A reader that is open keeps the erased value in the write-ahead log; it is recorded as gone when it is gone."""
    site.main.start()
    site.advance(15 * DAY, pace=DAY)
    prior = site.active()
    with closing(sqlite3.connect(site.database, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM audit").fetchone()
        site.advance(6 * DAY, pace=DAY)
        (row,) = [key for key in site.signing_keys() if key.kid == prior]
        assert (row.phase, row.has_private, row.destroyed_at) == (Phase.GRACE, False, None)
        reader.execute("COMMIT")
    site.advance(2 * MINUTE)
    (row,) = [key for key in site.signing_keys() if key.kid == prior]
    assert row.destroyed_at is not None
    site.assert_sound()


class Broken(CryptographyKeyMaker):
    """A key maker, as a module of hardware may be, that fails for one algorithm with an error of its own."""

    def make(self, algorithm: Algorithm) -> KeyMaterial:
        if algorithm is Algorithm.EDDSA:
            raise RuntimeError("the module does not answer")
        return super().make(algorithm)


def test_a_keyset_that_fails_in_an_unforeseen_way_stops_no_other(site: Site) -> None:
    site.main.keymaker = Broken()
    odd = keyset("alpha", algorithm=Algorithm.EDDSA)
    site.main.start(
        policy_of([odd, keyset()], [workspace("a", site.sink("a"), on="alpha"), workspace("b", site.sink("b"))])
    )
    assert site.held("b")
    assert "the module does not answer" in site.main.run.faults["keyset:alpha"]
    assert len(site.log.named("keyset.failed")) == 1
    site.main.run.around.keymaker.make(Algorithm.ES256)
    site.main.keymaker = CryptographyKeyMaker()
    site.main.restart()
    site.advance(MINUTE)
    assert site.held("a")
    assert dict(site.main.run.faults) == {}
    site.assert_sound()


def test_attempts_that_fail_for_weeks_leave_no_private_half_behind(site: Site) -> None:
    """A key that cannot be published is tried again, not made again; whatever restarts in between."""
    site.main.start()
    site.advance(12 * DAY, pace=DAY)
    site.main.tree_disk.full = True
    for _ in range(4):
        site.advance(6 * DAY, pace=DAY)
        site.main.restart()
        assert "publish:default" in site.main.run.faults
        assert private_halves(site) <= 3

    site.main.tree_disk.full = False
    site.advance(5 * DAY, pace=DAY)
    assert dict(site.main.run.faults) == {}
    assert private_halves(site) <= 3
    site.assert_sound()


def private_halves(site: Site) -> int:
    ((count,),) = site.query("SELECT count(*) FROM signing_keys WHERE sealed IS NOT NULL")
    return int(count)


def test_a_locked_database_fails_the_tick_and_nothing_else(site: Site) -> None:
    site.main.start()
    site.advance(HOUR)
    with closing(sqlite3.connect(site.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        site.clock.elapse(3 * DAY)
        with pytest.raises(StoreError):
            site.main.tick()
        other.execute("ROLLBACK")
    site.main.settle()
    assert site.held_sequence("acme") == 2
    site.assert_sound()


def test_events_reach_the_log_at_least_once(site: Site) -> None:
    """What was committed and could not be logged is logged by the next tick, or by the next daemon."""
    site.main.start()
    site.log.broken = True
    site.clock.elapse(3 * DAY)
    with pytest.raises(OSError, match="log"):
        site.main.tick()
    site.main.stop()
    site.log.broken = False
    site.main.start()
    site.advance(MINUTE)
    assert {row.seq for row in site.log.audited} == {row.seq for row in site.audit()}


def outbox_of(site: Site) -> LogOutbox:
    assert site.main.engine is not None
    return site.main.engine.outbox


def test_a_backlog_of_events_reaches_the_log_without_a_wait_and_each_of_them_once(site: Site) -> None:
    """However many wait, the loop is asked for at once until none does."""
    many = policy_of([keyset()], [workspace(f"w{number:03}") for number in range(900)])
    site.main.start(many, settle=False)
    outbox_of(site).portion = 300
    ticks = 1
    while site.main.tick().more:
        ticks += 1
    assert ticks > 900 // 300
    assert [row.seq for row in site.log.audited] == [row.seq for row in site.audit()]


def test_a_revocation_reaches_the_log_before_the_events_that_wait_for_it(site: Site) -> None:
    many = policy_of([keyset()], [workspace(f"w{number:03}") for number in range(900)])
    site.main.start(many)
    outbox = outbox_of(site)
    outbox.portion = 1
    site.clock.elapse(3 * DAY)
    site.main.tick()
    (token,) = site.query("SELECT current FROM workspaces WHERE id = 'w007'")
    site.submit("token.revoke", jti=token[0])
    site.main.tick()
    assert len(site.log.audited) < len(site.audit()) - 800
    assert [row.event.jti for row in site.log.audited if row.event.name is EventName.TOKEN_REVOKED] == [token[0]]
    outbox.portion = 300
    site.main.settle()
    assert sorted(row.seq for row in site.log.audited) == [row.seq for row in site.audit()]


def test_a_workspace_that_left_the_config_unaccepted_does_no_harm_on_the_29th_of_february(site: Site) -> None:
    """There is no such day in most years, and the far future is one of them."""
    site.clock.wall = datetime(2028, 2, 28, 23, 0, tzinfo=UTC)
    site.main.start()
    site.clock.elapse(2 * HOUR)
    site.main.restart(without(site.policy, "acme"))
    assert "config" in site.main.run.faults
    site.advance(4 * DAY, pace=DAY)
    assert site.held_sequence("umbrella") == 2


# ------------------------------------------------------------------------------------------------------------- config


def test_changed_claims_make_a_token_due_and_leave_the_prior_one_valid(site: Site) -> None:
    site.main.start()
    site.advance(HOUR)
    changed = site.policy.workspaces
    site.main.load(replace(site.policy, workspaces={k: replace(w, roles=("reader",)) for k, w in changed.items()}))
    site.advance(MINUTE)
    assert site.held_sequence("acme") == site.held_sequence("umbrella") == 2
    assert [phase for (phase,) in site.query("SELECT phase FROM tokens WHERE sequence = 1")] == ["grace", "grace"]
    site.advance(10 * DAY, pace=DAY)
    site.assert_sound()


def test_a_reload_that_drops_more_than_a_tenth_waits_for_a_person(site: Site) -> None:
    """At a start the rest goes on; either way nothing is issued for what is missing until it is accepted."""
    names = [f"w{number}" for number in range(8)]
    site.main.start(site.usual(*names))
    site.main.restart(without(site.policy, "w0", "w1"))
    assert "config" in site.main.run.faults
    site.advance(4 * DAY, pace=DAY)
    assert site.held_sequence("w2") == 2
    assert site.held_sequence("w0") == 1
    assert site.query("SELECT count(*) FROM workspaces WHERE removed_at IS NOT NULL") == [(0,)]
    answer = site.ask("config.accept")
    assert answer.succeeded, answer.result
    assert "config" not in site.main.run.faults
    assert site.query("SELECT count(*) FROM workspaces WHERE removed_at IS NOT NULL") == [(2,)]
    site.main.load(site.usual(*names))
    site.advance(MINUTE)
    assert site.held_sequence("w0") == 2
    site.assert_sound()


def test_a_config_that_is_held_is_told_of_once(site: Site) -> None:
    """However often it is started; and again when another workspace is missing, or one that was back is again."""
    both = site.policy
    one, none = without(both, "umbrella"), without(both, "acme", "umbrella")
    site.main.start(both)
    site.main.stop()

    def told(policy: Policy) -> list[object]:
        before = len(site.events(EventName.CONFIG_APPLIED))
        site.main.start(policy)
        site.main.stop()
        return [row.event.details["held"] for row in site.events(EventName.CONFIG_APPLIED)[before:]]

    assert told(one) == [1]
    assert told(one) == []
    assert site.query("SELECT failures FROM workspaces WHERE id = 'umbrella'") == [(1,)]
    assert told(none) == [2]
    assert told(none) == []
    assert told(both) == []
    assert told(one) == [1]
    site.main.start(one)
    assert "config" in site.main.run.faults
    assert site.ask("config.accept").succeeded
    assert "config" not in site.main.run.faults


def test_a_keyset_that_left_the_config_ends_and_can_come_back(site: Site) -> None:
    """It stays out for as long as a token on it lives, then leaves; it comes back with keys that wait their time."""
    two = policy_of(
        [keyset(), keyset("other")],
        [
            workspace("a", site.sink("a")),
            *(workspace(f"d{n}") for n in range(12)),
            workspace("b", site.sink("b"), on="other"),
        ],
    )
    site.main.start(two)
    site.advance(4 * DAY, pace=DAY)
    one = replace(
        two,
        keysets={KeysetName("default"): two.keysets[KeysetName("default")]},
        workspaces={name: each for name, each in two.workspaces.items() if each.keyset != "other"},
    )
    site.ask("keyset.rotate", keyset="other")
    site.main.load(one)
    assert site.main.kids("other") != []
    assert len(site.query("SELECT * FROM wishes")) == 1
    site.advance(8 * DAY, pace=DAY)
    assert site.main.kids("other") == []
    assert site.query("SELECT * FROM wishes") == []  # else it would be fulfilled when the keyset comes back
    assert len(site.events(EventName.KEYSET_ENDED)) == 1
    site.main.load(two)
    site.advance(8 * DAY, pace=DAY)
    assert site.active("other") is not None
    made = max(row.event.at for row in site.events(EventName.KEY_MADE) if row.event.keyset == "other")
    activated = max(row.event.at for row in site.events(EventName.KEY_ACTIVATED) if row.event.keyset == "other")
    assert activated - made >= 2 * DAY
    site.assert_sound()


@pytest.mark.parametrize(
    ("security", "grace", "token"),
    [(60 * DAY, 40 * DAY, 30 * DAY), (5 * DAY, 2 * DAY + MINUTE, DAY), (100 * DAY, 4 * DAY + MINUTE, 3 * DAY)],
)
def test_changed_periods_refuse_no_token(site: Site, security: timedelta, grace: timedelta, token: timedelta) -> None:
    site.main.start()
    site.advance(17 * DAY, pace=DAY)
    workspaces = {k: replace(w, security_period=token) for k, w in site.policy.workspaces.items()}
    site.main.load(
        replace(
            site.policy,
            keysets={KeysetName("default"): keyset(security_period=security, grace_period=grace)},
            workspaces=workspaces,
        )
    )
    site.advance(50 * DAY, pace=DAY)
    assert dict(site.main.run.faults) == {}
    site.assert_sound()


def test_many_keys_that_are_due_to_leave_at_once_are_no_fault(site: Site) -> None:
    """A grace of many periods, and an outage that outlasts it for most of the prior keys."""
    policy = policy_of([keyset(security_period=3 * DAY, grace_period=30 * DAY)], [workspace("acme")])
    site.main.start(policy)
    site.advance(32 * DAY, pace=6 * HOUR)
    assert len(site.signing_keys(Phase.GRACE)) >= 10
    site.main.stop()
    site.clock.elapse(29 * DAY)
    site.main.start(policy)
    assert site.log.named("keyset.failed") == []
    assert len(site.signing_keys(Phase.GRACE)) == 1
    site.assert_sound()


def test_a_changed_algorithm_takes_over_at_the_next_rotation(site: Site) -> None:
    site.main.start()
    site.advance(5 * DAY, pace=DAY)
    site.main.load(replace(site.policy, keysets={KeysetName("default"): keyset(algorithm=Algorithm.EDDSA)}))
    site.advance(30 * DAY, pace=DAY)
    assert {key.algorithm for key in site.signing_keys(Phase.ACTIVE, Phase.PENDING)} == {Algorithm.EDDSA}
    site.assert_sound()


# ----------------------------------------------------------------------------------------------------------- requests


def test_a_request_survives_a_kill_before_it_is_handled(site: Site) -> None:
    site.main.start()
    site.advance(DAY)
    ((jti,),) = site.query("SELECT current FROM workspaces WHERE id = 'acme'")
    number = site.submit("token.replace", workspace="acme", overlap="end")
    site.main.restart()
    assert site.answer(number).succeeded
    asked = site.events(EventName.TOKEN_REPLACEMENT_REQUESTED)
    assert [(row.event.actor, row.event.jti) for row in asked] == [("ada(1000)", jti)]


@pytest.mark.parametrize(("kind", "arguments"), [("no.such", {}), ("token.show", {"workspace": "nobody"})])
def test_what_cannot_be_done_is_refused_with_a_sentence(site: Site, kind: str, arguments: dict[str, str]) -> None:
    site.main.start()
    answer = site.ask(kind, None, **arguments)
    assert answer.succeeded is False
    assert answer.result
    assert len(site.log.named("request.refused")) == 1


def test_a_lock_that_was_taken_away_ends_the_daemon_before_it_writes(site: Site) -> None:
    """A second one could be at work on the same state by now."""
    site.main.start()
    before = site.audit()
    site.main.run.lock_lost = lambda: "rotator.lock was deleted"
    site.clock.elapse(30 * DAY)
    with pytest.raises(StoreLostError, match=r"rotator\.lock was deleted"):
        site.main.tick()
    assert site.audit() == before
