"""Time is distrusted: while the clock is held, nothing that depends on it is done."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from rotator.core.events import EventName
from rotator.core.model import Phase
from rotator.core.timeguard import SMALLEST_STEP
from rotator.errors import WitnessError
from tests.engine.site import DAY, HOUR, MINUTE, SECOND, SKEW, Disk, Site, without


def back(site: Site) -> None:
    site.clock.leap(-20 * MINUTE)


def far_back(site: Site) -> None:
    site.clock.leap(-400 * DAY)


def forward(site: Site) -> None:
    site.clock.leap(5 * DAY)


def far_forward(site: Site) -> None:
    site.clock.leap(20_000 * DAY)


def gap(site: Site) -> None:
    site.main.stop()
    site.clock.reboot(31 * DAY)
    site.main.start()


def back_at_start(site: Site) -> None:
    site.main.stop()
    site.clock.reboot()
    site.clock.leap(-DAY)
    site.main.start()


DOUBTS: list[Callable[[Site], None]] = [back, far_back, forward, far_forward, gap, back_at_start]


@pytest.mark.parametrize("doubt", DOUBTS)
def test_a_held_clock_holds_everything_until_it_is_accepted(site: Site, doubt: Callable[[Site], None]) -> None:
    """Nothing is minted, delivered, activated, retired or destroyed; status says so; `clock accept` works."""
    site.main.start()
    site.advance(19 * DAY, pace=12 * HOUR)
    before = site.audit()
    published, delivered = site.main.jwks().read_bytes(), len(site.main.post.attempts)
    doubt(site)
    site.advance(10 * MINUTE)
    assert "clock" in site.main.run.faults
    assert site.audit() == before
    assert site.main.jwks().read_bytes() == published
    assert len(site.main.post.attempts) == delivered
    assert len(site.log.named("clock.held")) == 1

    assert site.ask("clock.accept").succeeded
    assert "clock" not in site.main.run.faults
    assert [row.event.actor for row in site.events(EventName.CLOCK_ACCEPTED)] == ["ada(1000)"]
    site.advance(2 * MINUTE)
    assert "clock" not in site.main.run.faults
    assert site.chain() is None


@pytest.mark.parametrize("step", [-1, 1])
def test_a_clock_that_is_set_right_again_is_released_by_itself(site: Site, step: int) -> None:
    site.main.start()
    site.advance(HOUR)
    site.clock.leap(step * 5 * DAY)
    site.advance(10 * MINUTE)
    assert "clock" in site.main.run.faults
    site.clock.leap(-step * 5 * DAY)
    site.advance(MINUTE)
    assert dict(site.main.run.faults) == {}
    site.advance(30 * DAY, pace=12 * HOUR)
    site.assert_sound()


def test_evidence_of_synchronisation_releases_a_gap(site: Site) -> None:
    """As after a machine that stood in a cupboard has met its time server."""
    site.main.start()
    gap(site)
    assert "clock" in site.main.run.faults
    site.clock.elapse(MINUTE)
    site.clock.synchronised_at = site.clock.wall
    site.advance(31 * SECOND)
    assert "clock" not in site.main.run.faults
    assert site.held_sequence("acme") == 2


@pytest.mark.parametrize("step", [-SKEW + SECOND, -SMALLEST_STEP, SMALLEST_STEP, SKEW - SECOND])
def test_a_step_within_the_skew_is_nothing(site: Site, step: timedelta) -> None:
    site.main.start()
    site.advance(HOUR)
    site.clock.leap(step)
    site.advance(MINUTE)
    assert dict(site.main.run.faults) == {}


def test_small_steps_cannot_add_up_unseen(site: Site) -> None:
    site.main.start()
    for _ in range(5):
        site.advance(HOUR)
        site.clock.leap(SKEW / 2)
        site.main.settle()
    assert "clock" in site.main.run.faults


def test_a_reload_waits_while_the_clock_is_held(site: Site) -> None:
    """What a wrong clock says must not become anybody's due time."""
    site.main.start()
    site.advance(HOUR)
    site.clock.leap(20_000 * DAY)
    site.main.settle()
    before = site.query("SELECT id, due_at, removed_at FROM workspaces")
    wider = site.usual("acme", "umbrella", "initech")
    site.main.load(wider)
    assert site.query("SELECT id, due_at, removed_at FROM workspaces") == before
    site.clock.leap(-20_000 * DAY)
    site.advance(MINUTE)
    assert site.held("initech")
    assert dict(site.main.run.faults) == {}


def test_a_reload_that_waits_can_still_be_refused(site: Site) -> None:
    """What it drops is found when it is its turn, and then needs `config accept` as any other."""
    site.main.start()
    site.clock.leap(20_000 * DAY)
    site.main.settle()
    site.main.load(without(site.policy, "acme"))
    site.clock.leap(-20_000 * DAY)
    site.advance(MINUTE)
    assert "config" in site.main.run.faults
    assert site.query("SELECT removed_at FROM workspaces WHERE id = 'acme'") == [(None,)]
    assert site.ask("config.accept").succeeded
    assert site.query("SELECT removed_at FROM workspaces WHERE id = 'acme'") != [(None,)]


def test_requests_that_depend_on_time_wait(site: Site) -> None:
    site.main.start()
    site.clock.leap(5 * DAY)
    number = site.submit("token.replace", workspace="acme", overlap="end")
    site.advance(MINUTE)
    assert site.answer(number).succeeded is None
    site.clock.leap(-5 * DAY)
    site.advance(MINUTE)
    assert site.answer(number).succeeded


def test_the_first_start_trusts_what_the_clock_says(site: Site) -> None:
    site.clock.leap(-300 * DAY)
    site.main.start()
    assert dict(site.main.run.faults) == {}
    assert len(site.signing_keys(Phase.ACTIVE)) == 1


def test_a_clock_is_accepted_although_the_witness_cannot_be_written(site: Site) -> None:
    """As on a full disk: it is told of as a fault of its own, and made up for."""
    site.main.disk = disk = Disk()
    site.main.start()
    site.advance(DAY)
    run = site.main.run
    disk.full = True
    site.clock.leap(2 * DAY)
    site.clock.elapse(MINUTE)
    number = site.submit("clock.accept")
    with pytest.raises(WitnessError):
        site.main.tick()
    assert site.answer(number).succeeded
    assert "clock" not in run.faults
    assert "witness" in run.faults
    disk.full = False
    site.advance(2 * MINUTE)
    record = run.around.witness.read()
    assert record is not None
    assert record.clock is not None
    assert site.clock.wall - record.clock.high_water_at < HOUR
    assert dict(run.faults) == {}
    site.assert_sound()
