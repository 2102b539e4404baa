"""Many deliveries at once: claimed as workers come free, recorded in batches, and none forgotten."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from rotator.core.events import EventName
from rotator.core.model import Algorithm, FailureDomain, Jti, Kid, SinkId, WorkspaceId
from rotator.core.policy import CommandSink, FileSink, Sink
from rotator.core.secret import Secret
from rotator.core.sharing import Place
from rotator.engine.carrying import (
    FILES_AHEAD,
    GIVE_WAY_FOR,
    RECORD_INTERVAL,
    RECORDED_AT_ONCE,
    Deliveries,
    Job,
    Result,
)
from rotator.engine.deliver import dispatch_due
from rotator.engine.issue import AT_MOST
from rotator.ports import DeliveryRow, Ending, Errand, Parcel
from tests.engine.site import HOUR, T0, Site, keyset, policy_of, workspace
from tests.patience import wait_until


def row(number: int) -> DeliveryRow:
    name = WorkspaceId(f"w{number}")
    return DeliveryRow(
        workspace=name, sink=SinkId(f"file:/{name}"), jti=Jti(name), sequence=1, wanted_at=T0, deadline=T0 + HOUR
    )


class Bell:
    rung = 0

    def __call__(self) -> None:
        self.rung += 1


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def deliveries(bell: Bell) -> Iterator[Deliveries]:
    made = Deliveries(bell)
    yield made
    made.close()


def job(number: int, sink: Sink, domain: FailureDomain) -> Job:
    wanted = row(number)
    parcel = Parcel(wanted.workspace, wanted.jti, Kid("kid"), 1, T0, T0 + HOUR, Secret("token"))
    return Job(wanted, Errand(sink, parcel), Place(domain), domain)


def carry(deliveries: Deliveries, count: int, *, commands: bool = False, domain: str = "filesystem:/") -> list[Result]:
    sink = CommandSink(("/bin/true",)) if commands else FileSink("/token")
    results = [Result(job(number, sink, FailureDomain(domain)), Ending()) for number in range(count)]
    deliveries.under_way |= {result.job.key: result.job for result in results}
    return results


def test_deliveries_give_way_to_tokens_that_are_waiting_but_not_for_long(deliveries: Deliveries) -> None:
    """Each burst of tokens is given way to anew; one without an end does not keep deliveries from being made."""

    def gives_way(at: timedelta, *, issuing: bool) -> bool:
        deliveries.give_way(at, issuing=issuing)
        return deliveries.giving_way

    for start in (HOUR, 2 * HOUR):
        assert gives_way(start, issuing=True)
        assert gives_way(start + GIVE_WAY_FOR / 2, issuing=True)
        assert not gives_way(start + GIVE_WAY_FOR, issuing=True)
        assert not gives_way(start + 2 * GIVE_WAY_FOR, issuing=True)
        assert not gives_way(start + 2 * GIVE_WAY_FOR, issuing=False)


def test_a_tick_that_leaves_tokens_to_issue_claims_no_delivery_and_logs_none_of_them(site: Site) -> None:
    """More than one tick can issue are due: deliveries and log begin with the last of them, or after some seconds."""
    count = 2 * AT_MOST[Algorithm.RS256] + 1
    names = [f"w{number}" for number in range(count)]
    workspaces = [workspace(name, site.sink(name)) for name in names]
    site.main.start(policy_of([keyset(algorithm=Algorithm.RS256)], workspaces), settle=False)
    wait_until(lambda: site.main.tick().more, "the first key is made, and signs")
    assert site.query("SELECT count(*) FROM tokens") == [(AT_MOST[Algorithm.RS256],)]
    assert site.main.engine is not None
    assert not site.main.engine.deliveries.under_way
    assert EventName.TOKEN_ISSUED not in {row.event.name for row in site.log.audited}
    site.clock.elapse(GIVE_WAY_FOR)
    assert site.main.tick().more
    assert site.main.engine.deliveries.under_way
    assert EventName.TOKEN_ISSUED in {row.event.name for row in site.log.audited}


def test_files_wake_the_loop_in_batches_and_with_the_last(deliveries: Deliveries, bell: Bell) -> None:
    """A tick for each of them costs more than the delivery; yet none waits for a neighbour that does not come."""
    results = carry(deliveries, RECORDED_AT_ONCE + 3)
    for result in results[: RECORDED_AT_ONCE - 1]:
        deliveries.bring(result)
    assert bell.rung == 0
    assert deliveries.next_look(T0 + HOUR, T0) == T0 + RECORD_INTERVAL
    deliveries.bring(results[RECORDED_AT_ONCE - 1])
    assert bell.rung == 1
    assert len(list(deliveries.drain())) == RECORDED_AT_ONCE
    for result in results[RECORDED_AT_ONCE:]:
        assert bell.rung == 1
        deliveries.bring(result)
    assert bell.rung == 2
    assert len(list(deliveries.drain())) == 3
    assert deliveries.next_look(T0 + HOUR, T0) == T0 + HOUR


def test_a_command_wakes_the_loop_at_once(deliveries: Deliveries, bell: Bell) -> None:
    """The next one waits for its place."""
    first, *_ = carry(deliveries, 3, commands=True)
    deliveries.bring(first)
    assert bell.rung == 1
    assert deliveries.next_look(T0 + HOUR, T0) == T0 + HOUR


def test_what_is_recorded_is_under_way_no_more_whether_or_not_recording_succeeds(deliveries: Deliveries) -> None:
    """Its lease stands for it: it is tried again when that runs out, and not forgotten until a restart."""
    for result in carry(deliveries, 2):
        deliveries.bring(result)
    list(deliveries.drain())
    assert deliveries.idle


def test_no_more_is_claimed_for_a_file_system_than_it_takes_within_a_lease(site: Site) -> None:
    """The rest stays due, and the loop does not spin over it."""
    site.main.start()
    assert site.main.engine is not None
    busy = site.main.engine.deliveries
    (domain, *_) = site.main.post.domains([site.sink("acme")])
    carry(busy, FILES_AHEAD, domain=domain)
    site.meddle("UPDATE deliveries SET due_at = 1, delivered_sequence = 0")
    assert not dispatch_due(site.main.run, busy, site.clock.read())
    assert site.query("SELECT count(*) FROM deliveries WHERE due_at = 1") == [(2,)]
    assert busy.next_look(T0 - HOUR, T0) == T0 + RECORD_INTERVAL
    assert timedelta(0) < RECORD_INTERVAL < timedelta(seconds=1)
    busy.under_way.clear()
    site.main.settle()
    assert site.query("SELECT count(*) FROM deliveries WHERE due_at IS NULL") == [(2,)]


def test_what_waits_for_a_place_hides_nothing_behind_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many deliveries of a busy file system are due before it, a command is found, a page at each look."""
    monkeypatch.setattr("rotator.engine.deliver.CLAIMS", 2)
    files = [f"w{number}" for number in range(9)]
    last = replace(workspace("zoe", site.sink("zoe")), sinks=(CommandSink(("/bin/true",)),))
    site.main.start(policy_of([keyset()], [*(workspace(name, site.sink(name)) for name in files), last]))
    assert site.main.engine is not None
    busy = site.main.engine.deliveries
    (domain, *_) = site.main.post.domains([site.sink("acme")])
    carry(busy, FILES_AHEAD, domain=domain)
    carried = len(busy.under_way)
    site.meddle("UPDATE deliveries SET due_at = 1, delivered_sequence = 0")
    site.meddle("UPDATE deliveries SET due_at = 2 WHERE workspace = 'zoe'")
    for _ in range(5):
        dispatch_due(site.main.run, busy, site.clock.read())
    assert len(busy.under_way) == carried + 1
    assert site.query("SELECT count(*) FROM deliveries WHERE due_at = 1") == [(9,)]
