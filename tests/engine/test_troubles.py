"""Two troubles at once: what each of them holds up must not be what the other one needs."""

import copy
import json
import shutil
from dataclasses import replace

import pytest

from rotator.adapters.kek import read_ring_file
from rotator.adapters.sealing import SourcedKeyring
from rotator.core.events import EventName
from rotator.core.model import Kid, Phase
from rotator.core.policy import Policy
from rotator.engine.scrub import NAMED_FOR
from rotator.errors import KekError, RefusedError
from tests.engine.site import DAY, HOUR, MINUTE, PROPAGATION, SECOND, Daemon, Site, keyset, policy_of, workspace
from tests.engine.test_publishing import FOREIGN, both_places
from tests.engine.test_restore import back_up, copy_over
from tests.engine.test_revoke import kid_of, settled


def test_the_end_of_the_process_that_mints_is_named_and_logged(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    run = site.main.start().run
    monkeypatch.setattr(run.around.tokenmaker, "trouble", lambda: "it was killed by SIGKILL")
    site.advance(MINUTE)
    assert run.faults["minting"].endswith("is gone: it was killed by SIGKILL")
    assert len(site.log.named("minting.failed")) == 1
    monkeypatch.undo()
    site.advance(MINUTE)
    assert "minting" not in run.faults


def hold_clock(site: Site) -> None:
    site.clock.leap(-60 * DAY)
    site.main.settle()
    assert "clock" in site.main.run.faults


def revoke(site: Site, kid: Kid) -> str:
    site.revoked.add(kid)
    answer = site.ask("key.revoke", kid=kid)
    assert answer.succeeded
    return answer.result


# ------------------------------------------------------------------------------- a revocation, and a clock that is held


def test_a_full_disk_keeps_a_revoked_key_in_the_set_no_longer_than_it_is_full(site: Site) -> None:
    """Also while the clock is held, and nothing else is done."""
    signer, spare = settled(site)
    hold_clock(site)
    site.main.tree_disk.full = True
    assert "still in the published set, which could not be written and is tried again" in revoke(site, signer)
    site.advance(MINUTE)
    assert signer in site.main.kids()
    site.main.tree_disk.full = False
    site.advance(MINUTE)
    assert "clock" in site.main.run.faults
    assert site.main.kids() == [spare]
    assert "publish:default" not in site.main.run.faults
    audited = len(site.audit())
    site.advance(HOUR)
    assert len(site.audit()) == audited
    site.clock.leap(60 * DAY)
    site.advance(MINUTE)
    assert site.active() == spare
    assert dict(site.main.run.faults) == {}
    site.assert_sound()


def test_an_old_file_that_is_put_back_while_the_clock_is_held_shows_no_revoked_key_for_long(site: Site) -> None:
    signer, _ = settled(site)
    old = site.main.jwks().read_bytes()
    revoke(site, signer)
    hold_clock(site)
    for place in both_places(site):
        place.write_bytes(old)
    site.advance(MINUTE)
    assert signer not in site.main.kids()


def test_a_replica_whose_clock_is_held_lets_a_key_leave_that_another_revoked(site: Site) -> None:
    signer, _ = settled(site)
    other = site.daemon("other").start()
    site.advance(3 * DAY, pace=DAY)
    theirs = copy.copy(site.clock)
    theirs.leap(-60 * DAY)
    other.run.around = replace(other.run.around, clock=theirs)
    other.tick()
    assert "clock" in other.run.faults
    site.submit("key.revoke", kid=signer)
    for _ in range(5):
        site.main.tick()
    assert signer not in site.main.kids()
    theirs.elapse(MINUTE)
    other.tick()
    assert "clock" in other.run.faults
    assert signer not in other.kids()


@pytest.mark.parametrize("tree", ["as it was", "an older one"])
def test_a_set_that_is_written_by_a_clock_that_is_behind_makes_no_key_look_older_in_public(
    site: Site, tree: str
) -> None:
    """A battery is empty, a key is revoked before the time is set, and the machine is booted once more."""
    signer, spare = settled(site)
    old = site.main.jwks().read_bytes()
    revoke(site, signer)
    assert site.active() == spare
    site.advance(HOUR if tree == "as it was" else 3 * DAY, pace=HOUR)
    if tree == "an older one":
        for place in both_places(site):
            place.write_bytes(old)
    site.main.stop()
    site.clock.reboot()
    site.clock.leap(-60 * DAY)
    site.main.start()
    assert "clock" in site.main.run.faults
    revoke(site, spare)
    site.clock.leap(60 * DAY)
    site.advance(MINUTE)
    assert dict(site.main.run.faults) == {}
    assert site.active() is None
    site.main.stop()
    site.clock.reboot()
    site.main.start()
    site.advance(HOUR)
    assert site.active() is None, "not every verifier can know it"
    site.advance(3 * DAY, pace=HOUR)
    assert site.active() is not None
    site.assert_sound()


# ------------------------------------------------------------------------- a revocation, and what else is out of order


@pytest.mark.parametrize("clock", ["trusted", "held"])
def test_a_tree_that_cannot_be_read_does_not_keep_a_key_in_use(site: Site, clock: str) -> None:
    """Whether a spare is known, nobody can tell then: no other signs before it can be read, and nothing is left out."""
    signer, spare = settled(site)
    if clock == "held":
        hold_clock(site)
    elsewhere = site.root / "elsewhere"
    site.main.tree.rename(elsewhere)
    site.main.tree.symlink_to(elsewhere)
    assert "still in the published set, which could not be written and is tried again" in revoke(site, signer)
    assert site.query("SELECT DISTINCT phase FROM tokens WHERE kid = ?", signer) == [("revoked",)]
    site.advance(HOUR)
    assert site.active() is None
    site.main.tree.unlink()
    elsewhere.rename(site.main.tree)
    site.advance(MINUTE)
    assert signer not in site.main.kids()
    if clock == "held":
        site.clock.leap(60 * DAY)
        site.advance(MINUTE)
    assert kid_of(site, "acme") == spare
    assert dict(site.main.run.faults) == {}
    site.assert_sound()


def test_a_kek_that_was_taken_away_a_moment_ago_does_not_keep_a_key_in_use(site: Site) -> None:
    """It is looked at every half minute. The journal knows it at once, and the witness as soon as it can be written."""
    signer, _ = settled(site)
    site.clock.elapse(SECOND)
    kept = site.kek.rename(site.root / "kek.kept")
    site.revoked.add(signer)
    number = site.submit("key.revoke", kid=signer)
    with pytest.raises(KekError):
        site.main.tick()
    assert site.answer(number).succeeded
    assert signer in (site.main.state / "revocations.jsonl").read_text()
    assert signer not in site.main.kids()
    site.clock.elapse(MINUTE)
    site.main.tick()
    assert "kek" in site.main.run.faults
    kept.rename(site.kek)
    site.advance(MINUTE)
    record = site.main.run.around.witness.read()
    assert record is not None
    assert signer in record.revoked_kids
    assert dict(site.main.run.faults) == {}
    site.assert_sound()


# ---------------------------------------------------------------------------------- a row that was edited, and the rest


def edit(site: Site, kid: Kid) -> None:
    site.meddle("UPDATE signing_keys SET public_jwk = replace(public_jwk, 'sig', 'enc') WHERE kid = ?", kid)


def test_the_witness_goes_on_knowing_a_key_whose_row_was_edited(site: Site) -> None:
    """That of each replica: a backup may be put back because of that row, and tokens on the key need it then."""
    site.main.start()
    other = site.daemon("other").start()
    site.advance(21 * DAY, pace=DAY)
    (prior,) = (key.kid for key in site.signing_keys(Phase.GRACE))
    edit(site, prior)
    for daemon in (site.main, other):
        (jti,) = site.query("SELECT jti FROM tokens WHERE phase = 'active'")[0]
        site.ask("token.revoke", daemon, jti=jti)
    site.advance(2 * HOUR, pace=MINUTE)
    assert site.query("SELECT name FROM keysets WHERE fault <> ''") == [("default",)]
    for daemon in (site.main, other):
        record = daemon.run.around.witness.read()
        assert record is not None
        assert prior in {key.kid for key in record.keysets["default"].published}  # type: ignore[index]


def test_a_key_whose_row_was_edited_goes_on_signing_beside_another_replica(site: Site) -> None:
    """As it does where there is none: it is published as it was, and its private half was opened before."""
    signer, _ = settled(site)
    site.daemon("other").start()
    site.advance(HOUR)
    edit(site, signer)
    issued = len(site.events(EventName.TOKEN_ISSUED))
    site.advance(8 * DAY, pace=6 * HOUR)
    assert len(site.events(EventName.TOKEN_ISSUED)) > issued
    site.assert_sound()


def test_the_spare_signs_after_a_revocation_although_another_row_was_edited(site: Site) -> None:
    """A prior key's, which has no part in it. The keyset is out of order all the same, but for a fresh spare."""
    site.main.start()
    site.advance(21 * DAY, pace=DAY)
    (prior,) = (key.kid for key in site.signing_keys(Phase.GRACE))
    signer, (spare,) = site.active(), (key.kid for key in site.signing_keys(Phase.PENDING))
    assert signer is not None
    edit(site, prior)
    assert "out of the published set; the keyset is out of order" in revoke(site, signer)
    assert site.active() == spare
    assert kid_of(site, "acme") == spare
    (fresh,) = (key.kid for key in site.signing_keys(Phase.PENDING))
    assert site.main.kids() == [prior, spare, fresh]
    site.advance(HOUR)
    assert "keyset:default" in site.main.run.faults
    assert site.main.kids() == [prior, spare, fresh]
    site.assert_sound()


def test_no_spare_signs_before_its_time_because_another_row_was_edited(site: Site) -> None:
    """The rule for the one that takes over is the same as ever."""
    site.main.start()
    site.advance(21 * DAY, pace=DAY)
    (prior,) = (key.kid for key in site.signing_keys(Phase.GRACE))
    first, (second,) = site.active(), (key.kid for key in site.signing_keys(Phase.PENDING))
    assert first is not None
    revoke(site, first)
    assert site.active() == second
    (fresh,) = (key.kid for key in site.signing_keys(Phase.PENDING))
    site.advance(HOUR)
    edit(site, prior)
    site.revoked.add(second)
    assert site.ask("key.revoke", kid=second, choice="wait").succeeded
    site.advance(PROPAGATION - HOUR - MINUTE)
    assert site.active() is None
    site.advance(2 * MINUTE)
    assert site.active() == fresh
    site.assert_sound()


def test_tokens_are_issued_after_a_start_although_the_row_of_the_spare_was_edited(site: Site) -> None:
    """As they were before it: the key that signs is out, and its own row is as it was."""
    signer, spare = settled(site)
    edit(site, spare)
    site.main.restart()
    assert "keyset:default" in site.main.run.faults
    issued = len(site.events(EventName.TOKEN_ISSUED))
    site.advance(8 * DAY, pace=DAY)
    assert len(site.events(EventName.TOKEN_ISSUED)) > issued
    assert site.active() == signer
    site.assert_sound()


@pytest.mark.parametrize("damage", ["all lost", "one lost", "foreign key", "meta lost"])
def test_a_tree_that_is_damaged_is_repaired_although_a_row_was_edited(site: Site, damage: str) -> None:
    """The witness knows what that row said before."""
    _, spare = settled(site)
    good = site.main.jwks().read_bytes()
    edit(site, spare)
    site.advance(HOUR)
    audited = len(site.audit())
    places = both_places(site)
    match damage:
        case "all lost":
            shutil.rmtree(site.main.tree)
        case "one lost":
            places[1].unlink()
        case "meta lost":
            site.main.jwks().with_name("jwks.meta.json").unlink()
        case _:
            for place in places:
                place.write_text(json.dumps({"keys": [*json.loads(good)["keys"], FOREIGN]}))
    site.advance(MINUTE)
    assert [place.read_bytes() for place in places] == [good, good]
    assert site.main.jwks().with_name("jwks.meta.json").exists()
    site.advance(2 * HOUR, pace=MINUTE)
    published = [row for row in site.audit()[audited:] if row.event.name is EventName.KEYSET_PUBLISHED]
    assert len(published) == 1
    site.assert_sound()


def test_a_replica_that_slept_through_the_loss_of_a_keyset_shows_the_key_that_signs(site: Site) -> None:
    """Its own file holds only what was revoked, and of the row that was edited it knows nothing from before."""
    settled(site)
    other = site.daemon("other").start()
    site.advance(3 * DAY, pace=DAY)
    lost = other.kids()
    other.stop()
    site.revoked |= set(lost)
    assert site.ask("keyset.revoke", keyset="default", choice="now").succeeded
    signer = site.active()
    (spare, *_) = (key.kid for key in site.signing_keys(Phase.PENDING))
    edit(site, spare)
    other.start()
    site.advance(2 * HOUR, pace=MINUTE)
    assert other.kids() == [signer]
    audited = len(site.audit())
    site.advance(HOUR, pace=MINUTE)
    assert len(site.audit()) == audited, "the replicas do not fight over the set"


def test_a_fresh_key_is_made_for_a_revocation_although_another_row_was_edited(site: Site) -> None:
    """``--now`` was chosen, and nothing signs: it is made, shown and signs in the same moment."""
    site.main.start()
    site.advance(21 * DAY, pace=DAY)
    (prior,) = (key.kid for key in site.signing_keys(Phase.GRACE))
    edit(site, prior)
    revoke(site, site.signing_keys(Phase.PENDING)[0].kid)
    signer = site.active()
    assert signer is not None
    site.revoked.add(signer)
    assert site.ask("key.revoke", kid=signer, choice="now").succeeded
    assert site.active() in site.main.kids()
    assert prior in site.main.kids()
    assert kid_of(site, "acme") == site.active()


# --------------------------------------------------------------------------------------------------- a row that is gone


def two_keysets(site: Site) -> Policy:
    workspaces = [workspace(name, site.sink(name)) for name in ("acme", "umbrella")]
    return policy_of([keyset(), keyset("partners")], workspaces)


@pytest.mark.parametrize("how", ["keyset column", "kid column", "row deleted"])
@pytest.mark.parametrize("phase", [Phase.ACTIVE, Phase.GRACE])
def test_a_published_key_whose_row_is_gone_stays_published(site: Site, how: str, phase: Phase) -> None:
    """The witness knows it, and that tokens may be on it; the spare takes over from one that signs no more."""
    site.main.start(two_keysets(site))
    site.advance(21 * DAY, pace=DAY)
    (kid,) = (key.kid for key in site.signing_keys(phase) if key.keyset == "default")
    match how:
        case "keyset column":
            site.meddle(
                "UPDATE signing_keys SET keyset = 'partners', phase = 'grace', sealed = NULL WHERE kid = ?", kid
            )
        case "kid column":
            site.meddle("UPDATE signing_keys SET kid = 'other' WHERE kid = ?", kid)
        case _:
            site.meddle("DELETE FROM signing_keys WHERE kid = ?", kid)
    site.advance(2 * HOUR)
    assert site.refused == []
    assert kid in site.main.kids()
    assert kid in site.main.run.faults["keyset:default"]
    site.main.restart()
    site.advance(HOUR)
    assert kid in site.main.kids()
    assert site.active() not in (None, kid)
    assert site.refused == []


def test_when_the_row_is_back_all_goes_on(site: Site) -> None:
    site.main.start(two_keysets(site))
    site.advance(21 * DAY, pace=DAY)
    (kid,) = (key.kid for key in site.signing_keys(Phase.GRACE) if key.keyset == "default")
    site.meddle("UPDATE signing_keys SET kid = 'other' WHERE kid = ?", kid)
    site.advance(2 * HOUR)
    assert {f"key:{kid}", "key:other", "keyset:default", "row:signing_keys other"} == set(site.main.run.faults)
    site.meddle("UPDATE signing_keys SET kid = ? WHERE kid = 'other'", kid)
    site.advance(MINUTE)
    assert site.main.run.faults.keys() == {"row:signing_keys other"}, "for an hour, so that nobody misses it"
    site.advance(NAMED_FOR)
    assert dict(site.main.run.faults) == {}
    site.advance(10 * DAY, pace=DAY)
    assert kid not in site.main.kids()
    site.assert_sound()


# ------------------------------------------------------------------------------------ a new keyset, and a set of others


def test_a_new_keyset_beside_a_set_of_others_stops_no_other_at_a_start(site: Site) -> None:
    """Its reload was refused, and the machine boots weeks later: it waits, until somebody has decided."""
    signer, _ = settled(site)
    place = site.main.jwks("partners")
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({"keys": [FOREIGN]}))
    with pytest.raises(RefusedError, match="published adopt"):
        site.main.load(two_keysets(site))
    site.main.restart(two_keysets(site))
    assert "published adopt" in site.main.run.faults["foreign:partners"]
    assert site.main.kids("partners") == ["theirs"]
    revoke(site, signer)
    assert site.active() not in (None, signer)
    site.advance(4 * DAY, pace=DAY)
    assert site.refused == []
    site.main.load(two_keysets(site))
    assert set(site.main.run.faults) == {"foreign:partners"}
    place.unlink()
    site.main.load(two_keysets(site))
    site.advance(MINUTE)
    assert dict(site.main.run.faults) == {}
    assert site.active("partners") is not None


# -------------------------------------------------------------------------------------------- a replica without its KEK


def take_kek(site: Site, daemon: Daemon) -> None:
    gone = SourcedKeyring(lambda: read_ring_file(site.root / "gone"))
    daemon.run.around = replace(daemon.run.around, keyring=gone)
    site.clock.elapse(MINUTE)
    daemon.tick()
    assert "kek" in daemon.run.faults


def test_a_replica_without_its_kek_lets_a_key_leave_that_another_revoked(site: Site) -> None:
    """All else stays as it stands there, and when the KEK is back it goes on."""
    signer, spare = settled(site)
    other = site.daemon("other").start()
    site.advance(3 * DAY, pace=DAY)
    keyring = other.run.around.keyring
    take_kek(site, other)
    revoke(site, signer)
    (fresh,) = (key.kid for key in site.signing_keys(Phase.PENDING))
    site.advance(2 * MINUTE)
    assert other.kids() == [spare]
    audited = len(site.audit())
    site.advance(2 * HOUR)
    assert len(site.audit()) == audited
    other.run.around = replace(other.run.around, keyring=keyring)
    site.advance(2 * MINUTE)
    assert other.kids() == [spare, fresh]
    assert dict(other.run.faults) == {}
    site.advance(10 * DAY, pace=DAY)
    site.assert_sound()


def test_an_older_database_that_is_found_without_the_kek_is_found_with_it(site: Site) -> None:
    """What leaves the set meanwhile is an event in it, and hides nothing from the witness."""
    signer, _ = settled(site)
    backup = back_up(site)
    site.advance(21 * DAY, pace=DAY)
    shown = site.main.kids()
    keyring = site.main.run.around.keyring
    take_kek(site, site.main)
    copy_over(site, backup)
    # As another replica does, which has the KEK.
    site.rewrite("signing_keys", "kid = ?", signer, phase="revoked", revoked_at=1, sealed=None)
    site.revoked.add(signer)
    site.advance(2 * MINUTE)
    assert set(site.main.kids()) == set(shown) - {signer}
    site.main.run.around = replace(site.main.run.around, keyring=keyring)
    site.advance(2 * MINUTE)
    assert len(site.events(EventName.STATE_RESTORED)) == 1
    site.advance(10 * DAY, pace=DAY)
    assert site.refused == []
