"""Nothing that takes long holds up a stop, a revocation or the others: each step of a tick has its share."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from rotator.adapters.keymaker import CryptographyKeyMaker
from rotator.core.events import EventName
from rotator.core.model import Algorithm, Kid
from rotator.engine import housekeeping, issue, sync
from rotator.engine.shares import SHARE, begin_share
from rotator.errors import RefusedError, StoreError
from rotator.ports import KeyMaterial
from tests.engine.site import HOUR, MINUTE, Site, keyset, policy_of, without, workspace
from tests.engine.test_revoke import settled
from tests.patience import HANG_SECONDS

KEYSETS = [keyset(), *(keyset(f"more-{number}") for number in range(5))]


def many(site: Site, number: int) -> list[str]:
    names = [f"ws-{each:02}" for each in range(number)]
    site.policy = site.usual(*names)
    return names


def called_away(site: Site) -> None:
    """Stop the steps of each tick from now on, as a daemon that is to stop does."""
    site.main.run.stopping = lambda: True


# --------------------------------------------------------------------------------------------------------------- a stop


def test_a_stop_comes_between_two_keysets(site: Site) -> None:
    site.main.start(policy_of([keyset()], []))
    called_away(site)
    site.main.engine.load_policy(policy_of(KEYSETS, []), site.clock.read())  # type: ignore[union-attr]
    outcome = site.main.tick()
    assert outcome.more
    assert not any(site.main.kids(f"more-{number}") for number in range(5))
    site.main.run.stopping = lambda: False
    site.main.settle()
    assert all(site.main.kids(f"more-{number}") for number in range(5))


def test_a_stop_comes_between_two_batches_of_tokens(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issue, "FIRST_CHUNK", 2)
    monkeypatch.setattr(issue, "CHUNK", 2)
    names = many(site, 8)
    site.main.start(settle=False)
    called_away(site)
    site.main.run.policy = site.policy
    assert site.main.tick().more
    assert site.query("SELECT count(*) FROM tokens") == [(0,)]
    site.main.run.stopping = lambda: False
    site.main.settle()
    assert all(site.held(name) for name in names)
    site.assert_sound()


def test_a_share_is_over_by_the_time_that_passed_and_not_by_the_clock_on_the_wall(site: Site) -> None:
    site.main.start()
    is_over = begin_share(site.main.run)
    assert not is_over()
    site.clock.leap(HOUR)
    assert not is_over()
    site.clock.elapse(SHARE)
    assert is_over()
    assert not begin_share(site.main.run)()


# ------------------------------------------------------------------------------------------------------------ a config


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "PIECE", 2)


def one_step_a_tick(site: Site) -> Iterator[None]:
    """Let a reload go on by one piece from tick to tick."""
    engine = site.main.engine
    assert engine is not None
    called_away(site)
    while engine.applying:
        site.main.run.stopping = Once()
        yield
        site.main.tick()


@dataclass
class Once:
    """Tells that nobody calls, once."""

    asked: int = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked > 1


@pytest.mark.usefixtures("pieces")
def test_a_config_is_applied_in_pieces_and_the_audit_says_so_once(site: Site) -> None:
    names = many(site, 7)
    site.main.start(without(site.policy, *names[1:]))
    engine = site.main.engine
    assert engine is not None
    called_away(site)
    engine.load_policy(site.usual(*names), site.clock.read())
    stored = [site.query("SELECT count(*) FROM workspaces")[0][0] for _ in one_step_a_tick(site)]
    assert stored == [2, 4, 6]
    site.main.run.stopping = lambda: False
    site.main.settle()
    assert site.query("SELECT count(*) FROM workspaces") == [(7,)]
    applied = site.events(EventName.CONFIG_APPLIED)
    assert [row.event.details["new"] for row in applied] == [1, 6]
    site.assert_sound()


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("killed", [False, True])
def test_what_is_left_of_a_config_is_applied_after_a_fault_and_after_a_kill(
    site: Site, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    names = many(site, 7)
    site.main.start(without(site.policy, *names[1:]))
    engine = site.main.engine
    assert engine is not None
    called_away(site)
    wanted = site.usual(*names)
    engine.load_policy(wanted, site.clock.read())
    site.main.run.stopping = lambda: False
    if killed:
        site.main.restart(wanted)
    else:
        with monkeypatch.context() as patched:
            patched.setattr(type(site.main.run.around.store), "begin", _locked)
            with pytest.raises(StoreError):
                site.main.tick()
        site.main.settle()
    assert site.query("SELECT count(*) FROM workspaces") == [(7,)]
    assert all(site.held(name) for name in names)
    site.assert_sound()


def _locked(_store: object) -> object:
    raise StoreError("the database is locked")


@pytest.mark.usefixtures("pieces")
def test_a_config_that_drops_too_much_is_refused_before_any_piece(site: Site) -> None:
    names = many(site, 7)
    site.main.start()
    engine = site.main.engine
    assert engine is not None
    with pytest.raises(RefusedError, match="drops 3 of 7 workspaces"):
        engine.load_policy(without(site.policy, *names[4:]), site.clock.read())
    assert not engine.applying
    assert site.query("SELECT count(*) FROM workspaces WHERE removed_at IS NULL") == [(7,)]


@pytest.mark.usefixtures("pieces")
def test_a_revocation_is_carried_out_between_two_pieces_of_a_config(site: Site) -> None:
    signer, _ = settled(site)
    engine = site.main.engine
    assert engine is not None
    called_away(site)
    more = policy_of([keyset()], [*site.policy.workspaces.values(), *(workspace(f"ws-{n}") for n in range(8))])
    engine.load_policy(more, site.clock.read())
    site.main.run.stopping = Once()
    request = site.accept("key.revoke", None, kid=signer)
    site.revoked.add(signer)
    site.main.tick()
    assert engine.applying
    assert site.answer(request.id).succeeded
    assert signer not in site.main.kids()
    site.main.run.stopping = lambda: False
    site.main.settle()
    assert site.query("SELECT count(*) FROM workspaces") == [(10,)]
    site.assert_sound()


# ---------------------------------------------------------------------------------------------------------------- keys


@dataclass
class SlowKeyMaker(CryptographyKeyMaker):
    """Makes no RSA key before it is let."""

    go: threading.Event = field(default_factory=threading.Event)
    real: CryptographyKeyMaker = field(default_factory=CryptographyKeyMaker)

    def make(self, algorithm: Algorithm) -> KeyMaterial:
        if algorithm is Algorithm.RS256:
            assert self.go.wait(HANG_SECONDS)
        return self.real.make(algorithm)


def test_a_key_that_takes_long_to_make_holds_up_nobody(site: Site) -> None:
    """The others turn, tokens are issued, a key is revoked; it signs when it is there."""
    maker = site.main.keymaker = SlowKeyMaker()
    rsa = replace(keyset("rsa"), algorithm=Algorithm.RS256)
    policy = policy_of([keyset(), rsa], [workspace("acme", site.sink("acme")), workspace("umbrella", on="rsa")])
    site.main.start(policy)
    assert site.held("acme")
    assert site.main.kids("rsa") == []
    assert site.main.run.faults == {}
    engine = site.main.engine
    assert engine is not None
    assert not engine.idle
    signer = site.active()
    assert signer is not None
    site.revoked.add(signer)
    assert site.ask("key.revoke", kid=signer, choice="now").succeeded
    maker.go.set()
    while not engine.idle:
        site.clock.elapse(MINUTE)
        site.main.settle()
    assert len(site.main.kids("rsa")) == 2
    assert site.query("SELECT count(*) FROM tokens WHERE workspace = 'umbrella'") == [(1,)]
    site.assert_sound()


def test_a_key_that_could_not_be_made_is_a_fault_and_is_tried_again(site: Site) -> None:
    @dataclass
    class Failing(SlowKeyMaker):
        failures: int = 1

        def make(self, algorithm: Algorithm) -> KeyMaterial:
            if algorithm is Algorithm.RS256 and self.failures:
                self.failures -= 1
                raise OSError("no entropy")
            return self.real.make(algorithm)

    site.main.keymaker = Failing()
    site.main.start(policy_of([replace(keyset("default"), algorithm=Algorithm.RS256)], []))
    for _ in range(20):
        site.clock.elapse(MINUTE)
        site.main.settle()
    assert len(site.main.kids()) == 2
    assert site.main.run.faults == {}
    assert site.log.named("keyset.failed")


def test_tokens_of_other_keysets_are_not_cut_to_the_pace_of_rsa(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issue, "AT_MOST", {Algorithm.ES256: 6, Algorithm.EDDSA: 6, Algorithm.RS256: 1})
    rsa = replace(keyset("rsa"), algorithm=Algorithm.RS256)
    names = [f"ws-{each}" for each in range(5)]
    site.main.start(policy_of([keyset(), rsa], []))
    for _ in range(5):
        site.clock.elapse(MINUTE)
        site.main.settle()
    more = policy_of([keyset(), rsa], [*(workspace(name) for name in names), workspace("umbrella", on="rsa")])
    engine = site.main.engine
    assert engine is not None
    engine.load_policy(more, site.clock.read())
    site.policy = more
    site.main.tick()
    assert site.query("SELECT count(*) FROM tokens") == [(6,)]


def test_a_revoked_key_stays_out_although_a_turn_was_put_off(site: Site) -> None:
    """What waits for its turn is looked at as it is then."""
    signer, spare = settled(site)
    called_away(site)
    site.accept("key.revoke", None, kid=signer)
    site.revoked.add(Kid(signer))
    site.main.tick()
    assert signer not in site.main.kids()
    site.main.run.stopping = lambda: False
    site.advance(HOUR)
    assert site.active() == spare
    site.assert_sound()


@pytest.mark.usefixtures("pieces")
def test_a_config_that_comes_amid_a_start_is_the_one_that_is_applied(site: Site) -> None:
    """What the start was about to apply is not gone on with, and nothing of the newer one is left out."""
    names = many(site, 7)
    site.main.start(without(site.policy, *names[4:]), settle=False)
    engine = site.main.engine
    assert engine is not None
    called_away(site)
    site.main.tick()
    assert engine.applying
    engine.load_policy(site.usual(*names), site.clock.read())
    site.main.run.stopping = lambda: False
    site.main.settle()
    assert site.query("SELECT count(*) FROM workspaces") == [(7,)]
    assert all(site.held(name) for name in names)
    site.assert_sound()


# --------------------------------------------------------------------------------------------------- an accepted config


def refused(site: Site, *gone: str) -> int:
    """Load a config that drops too much, and accept it; return the number of the request."""
    wanted = without(site.policy, *gone)
    with pytest.raises(RefusedError):
        site.main.engine.load_policy(wanted, site.clock.read())  # type: ignore[union-attr]
    number = site.submit("config.accept")
    site.policy = wanted
    return number


def dropped(site: Site) -> int:
    return int(site.query("SELECT count(*) FROM workspaces WHERE removed_at IS NOT NULL")[0][0])


def is_open(site: Site) -> bool:
    return site.query("SELECT 1 FROM requests WHERE finished_at IS NULL") != []


@pytest.mark.usefixtures("pieces")
def test_an_accepted_config_is_applied_in_pieces_and_answered_when_all_is_done(site: Site) -> None:
    names = many(site, 9)
    site.main.start()
    number = refused(site, *names[3:])
    seen = []
    while is_open(site):
        site.main.run.stopping = Once(asked=1)
        assert site.main.tick().more
        seen.append(dropped(site))
    assert seen == sorted(seen)
    assert len(set(seen)) > 2
    assert seen[-1] == 6
    site.main.run.stopping = lambda: False
    site.main.settle()
    assert site.answer(number).succeeded
    assert len(site.events(EventName.CONFIG_ACCEPTED)) == 1
    assert [row.event.details["removed"] for row in site.events(EventName.CONFIG_APPLIED)] == [0, 6]
    assert site.main.run.refused_policy is None
    assert "config" not in site.main.run.faults
    site.assert_sound()


@pytest.mark.usefixtures("pieces")
def test_a_revocation_is_carried_out_between_two_pieces_of_an_accepted_config(site: Site) -> None:
    names = many(site, 9)
    site.main.start()
    number = refused(site, *names[3:])
    while dropped(site) == 0:
        site.main.run.stopping = Once(asked=1)
        site.main.tick()
    assert is_open(site)
    signer = site.active()
    assert signer is not None
    site.revoked.add(signer)
    revocation = site.submit("key.revoke", kid=signer, choice="wait")
    site.main.tick()
    assert signer not in site.main.kids()
    assert dropped(site) < 6
    site.main.run.stopping = lambda: False
    site.main.settle()
    assert site.answer(revocation).succeeded
    assert site.answer(number).succeeded
    assert dropped(site) == 6


@pytest.mark.usefixtures("pieces")
def test_an_accepted_config_goes_on_after_a_fault_of_the_database(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left drops fewer than what was accepted, and is that all the same."""
    names = many(site, 9)
    site.main.start()
    number = refused(site, *names[3:])
    while dropped(site) == 0:
        site.main.run.stopping = Once(asked=1)
        site.main.tick()
    site.main.run.stopping = lambda: False
    with monkeypatch.context() as patched:
        patched.setattr(type(site.main.run.around.store), "begin", _locked)
        with pytest.raises(StoreError):
            site.main.tick()
    site.main.settle()
    assert site.answer(number).succeeded
    assert dropped(site) == 6
    site.assert_sound()


@pytest.mark.usefixtures("pieces")
def test_another_config_takes_the_place_of_one_that_is_being_accepted(site: Site) -> None:
    names = many(site, 9)
    site.main.start()
    everybody = site.policy
    number = refused(site, *names[3:])
    while dropped(site) == 0:
        site.main.run.stopping = Once(asked=1)
        site.main.tick()
    site.main.run.stopping = lambda: False
    site.main.load(everybody)
    assert dropped(site) == 0
    answer = site.answer(number)
    assert answer.succeeded is False
    assert "no config waits to be accepted" in answer.result
    site.assert_sound()


# ---------------------------------------------------------------------------------------------------------- retention


def test_pruning_goes_on_in_the_next_tick_after_a_stop_or_a_revocation_came_between(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else waits for the end of what is past its retention, and it is not put off until tomorrow either."""
    monkeypatch.setattr(housekeeping, "PRUNED_AT_ONCE", 2)
    site.main.start(site.usual("acme", "umbrella"))
    before = len(site.audit())
    assert before > 6
    site.main.engine.chores.retention_audit = timedelta(0)  # type: ignore[union-attr]
    site.clock.elapse(25 * HOUR)
    called_away(site)
    assert site.main.tick().more
    assert site.main.tick().more
    gone = [row.event.details["events"] for row in site.events(EventName.AUDIT_PRUNED)]
    assert gone == []
    site.main.run.stopping = lambda: False
    site.main.settle()
    gone = [row.event.details["events"] for row in site.events(EventName.AUDIT_PRUNED)]
    assert gone
    site.assert_sound()
