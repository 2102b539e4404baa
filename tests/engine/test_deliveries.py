"""Tokens reach their sinks, and an old one never stands over a new one."""

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from rotator.core.events import EventName
from rotator.core.model import Phase
from rotator.core.sinks import sink_id
from rotator.report import status
from rotator.report.records import Health
from tests.engine.site import DAY, HOUR, MINUTE, SECOND, Site, keyset, policy_of, tokens_in_order, workspace


class Nobody(Executor):
    """Workers that never come to it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        return Future()


def test_a_failing_sink_is_tried_again_with_growing_pauses_across_restarts(site: Site) -> None:
    """The others are not held up, status grows from late to critical, and it heals by itself."""
    site.main.start()
    acme = site.sink("acme").path
    site.advance(2 * DAY + 12 * HOUR, pace=12 * HOUR)
    site.main.post.failing.add(acme)
    while ("acme", 2) not in site.query("SELECT id, sequence FROM workspaces"):
        site.advance(HOUR)
    site.advance(7 * HOUR, pace=5 * MINUTE)
    tries = [path for path, sequence in site.main.post.attempts if path == acme and sequence == 2]
    assert 10 < len(tries) < 80
    assert site.held_sequence("umbrella") == 2
    assert site.held_sequence("acme") == 1
    site.main.restart()
    site.advance(2 * HOUR)
    assert site.query("SELECT attempts FROM deliveries WHERE workspace = 'acme'")[0][0] >= len(tries)
    subject = f"delivery:acme:file:{acme}"
    assert site.main.run.faults[subject].startswith("late")
    site.advance(17 * HOUR, pace=30 * MINUTE)
    assert site.main.run.faults[subject].startswith("critical")
    assert len(site.log.named("delivery.critical")) == 1
    site.main.post.failing.clear()
    site.advance(16 * MINUTE)
    assert site.held_sequence("acme") == 2
    assert subject not in site.main.run.faults
    site.assert_sound()


def test_a_sink_that_lost_its_token_is_given_it_back_within_an_hour(site: Site) -> None:
    site.main.start()
    token = site.held("acme")
    site.advance(HOUR / 2)
    Path(site.sink("acme").path).unlink()
    site.advance(HOUR)
    assert site.held("acme") == token
    assert len(site.events(EventName.TOKEN_ISSUED)) == 2


def test_a_sink_that_was_emptied_by_a_reboot_is_filled_at_the_start(site: Site) -> None:
    site.main.start()
    token = site.held("acme")
    site.main.stop()
    Path(site.sink("acme").path).unlink()
    site.clock.reboot()
    site.main.start()
    assert site.held("acme") == token


def test_a_delivery_that_hangs_never_leaves_an_old_token_over_a_new_one(site: Site) -> None:
    """It is finished late, and followed by the current one."""
    site.main.start()
    path = site.sink("acme").path
    site.advance(2 * DAY, pace=12 * HOUR)
    gate = site.main.post.gates[path] = threading.Event()
    while not site.main.post.arrived.is_set():
        site.clock.elapse(HOUR)
        site.main.settle(wait=False)
        site.main.post.arrived.wait(0.05)
    for _ in range(40):  # its successor is issued while it hangs
        site.clock.elapse(2 * HOUR)
        site.main.settle(wait=False)
    assert site.query("SELECT sequence FROM workspaces WHERE id = 'acme'")[0][0] >= 3
    assert site.held_sequence("acme") == 1
    gate.set()
    site.main.settle()
    site.advance(MINUTE)
    assert site.held_sequence("acme") == site.query("SELECT sequence FROM workspaces WHERE id = 'acme'")[0][0]
    assert tokens_in_order([parcel for parcel in site.main.post.delivered if parcel.workspace == "acme"])


def test_the_text_of_a_superseded_token_goes_once_its_successor_is_delivered(site: Site) -> None:
    site.main.start()
    path = site.sink("acme").path
    site.advance(2 * DAY, pace=HOUR)
    site.main.post.failing.add(path)
    site.advance(DAY, pace=HOUR)
    sealed = "SELECT phase, sealed IS NOT NULL FROM tokens WHERE workspace = ? ORDER BY sequence"
    assert site.query(sealed, "acme") == [("grace", 1), ("active", 1)]
    assert site.query(sealed, "umbrella") == [("grace", 0), ("active", 1)]
    site.main.post.failing.clear()
    site.advance(16 * MINUTE)
    assert site.query(sealed, "acme") == [("grace", 0), ("active", 1)]


def test_a_workspace_without_sinks_rotates_and_keeps_only_the_current_text(site: Site) -> None:
    site.main.start(policy_of([keyset()], [workspace("quiet")]))
    site.advance(10 * DAY, pace=12 * HOUR)
    rows = site.query("SELECT phase, sealed IS NOT NULL FROM tokens ORDER BY sequence")
    assert rows[-1] == ("active", 1)
    assert all(not sealed for _, sealed in rows[:-1])
    assert {phase for phase, _ in rows} == {Phase.ACTIVE, Phase.GRACE, Phase.RETIRED}
    site.assert_sound()


def test_killed_between_a_delivery_and_its_record_it_is_delivered_again(site: Site) -> None:
    """At least once: the claim ends, and the next daemon delivers the same token."""
    site.main.start(settle=False)
    site.main.tick()
    site.main.tick()
    assert site.main.engine is not None
    for pool in (site.main.engine.deliveries.files, site.main.engine.deliveries.commands):
        pool.shutdown(wait=True)
    site.main.stop()
    site.main.start()
    site.advance(31 * SECOND)
    assert site.query("SELECT delivered_sequence, due_at FROM deliveries") == [(1, None), (1, None)]
    assert len(site.events(EventName.TOKEN_DELIVERED)) == 2
    assert len(site.events(EventName.TOKEN_ISSUED)) == 2


def test_a_delivery_that_was_never_begun_becomes_late_as_one_that_failed_does(site: Site) -> None:
    """And a new token, which wipes the attempts away, does not start the wait anew."""
    site.main.start()
    site.advance(2 * DAY + 12 * HOUR, pace=12 * HOUR)
    assert site.main.engine is not None
    deliveries = site.main.engine.deliveries
    deliveries.commands = deliveries.files = Nobody()
    while ("acme", 2) not in site.query("SELECT id, sequence FROM workspaces"):
        site.clock.elapse(HOUR)
        site.main.settle(wait=False)
    wanted = site.query("SELECT wanted_at, deadline FROM deliveries WHERE workspace = 'acme'")
    subject = f"delivery:acme:{sink_id(site.sink('acme'))}"
    for _ in range(7):
        site.clock.elapse(HOUR)
        site.main.settle(wait=False)
    assert site.main.run.faults[subject] == "late: not tried yet"
    while ("acme", 3) not in site.query("SELECT id, sequence FROM workspaces"):
        site.clock.elapse(2 * HOUR)
        site.main.settle(wait=False)
    assert site.query("SELECT wanted_at, deadline FROM deliveries WHERE workspace = 'acme'") == wanted
    assert site.main.run.faults[subject].startswith("critical")
    with site.main.store.read() as snapshot:  # type: ignore[union-attr]
        report = status(snapshot, site.policy, site.clock.wall, site.main.run.faults)
    assert report.state is Health.CRITICAL
    assert any(problem.subject == subject for problem in report.problems)


def test_a_sink_that_hangs_is_named_and_its_neighbours_do_not_wait_for_it_again(site: Site) -> None:
    """It is a failure domain of its own until it answers."""
    acme = site.sink("acme").path
    site.main.post.hanging.add(acme)
    site.main.start()
    (domain, *_) = site.main.post.domains([site.sink("acme")])
    assert site.held_sequence("umbrella") == 1
    assert "acme" in site.main.run.faults[domain]
    assert len(site.log.named("sink.hung")) == 1
    site.advance(10 * MINUTE, pace=MINUTE)
    tried = [path for path, _ in site.main.post.attempts if path == acme]
    assert 8 < len(tried) < 20
    site.main.post.hanging.clear()
    site.advance(MINUTE)
    assert site.held_sequence("acme") == 1
    assert domain not in site.main.run.faults


def test_a_sink_that_hangs_when_it_is_compared_is_named_until_it_answers(site: Site) -> None:
    site.main.start()
    (domain, *_) = site.main.post.domains([site.sink("acme")])
    site.main.post.hanging.add(site.sink("acme").path)
    site.advance(HOUR + MINUTE)
    assert domain in site.main.run.faults
    assert site.query("SELECT count(*) FROM deliveries WHERE due_at IS NULL") == [(2,)]
    site.main.post.hanging.clear()
    site.advance(MINUTE)
    assert domain not in site.main.run.faults


def test_a_token_that_could_not_be_opened_is_named_until_it_is_current_no_more(site: Site) -> None:
    site.main.start()
    ((jti,),) = site.query("SELECT current FROM workspaces WHERE id = 'acme'")
    site.main.run.faults[f"token:{jti}"] = "it was not sealed for this workspace"
    site.advance(MINUTE)
    assert f"token:{jti}" not in site.main.run.faults
    site.main.run.faults["token:of-long-ago"] = "it was not sealed for this workspace"
    site.advance(MINUTE)
    assert "token:of-long-ago" not in site.main.run.faults
