"""Revocation: what an operator found compromised is out at once, is replaced, and never comes back."""

import time
from dataclasses import replace
from datetime import timedelta

import jwt
import pytest

from rotator.adapters.keymaker import CryptographyKeyMaker
from rotator.core.actions import Reason
from rotator.core.events import EventName
from rotator.core.model import Algorithm, Kid, Phase
from rotator.engine.request_rows import GOOD_FOR
from rotator.errors import WitnessError
from rotator.ports import Journal, KeyMaterial, RevocationEntry, RevocationJournal
from tests.engine.site import DAY, HOUR, MAX_CACHE, MINUTE, PROPAGATION, SECOND, Disk, Site, without
from tests.engine.test_restore import back_up, put_back
from tests.patience import wait_until


def kid_of(site: Site, name: str) -> str:
    return str(jwt.get_unverified_header(site.held(name))["kid"])


def phase_of(site: Site, kid: str) -> Phase:
    (key,) = [key for key in site.signing_keys() if key.kid == kid]
    return key.phase


def settled(site: Site) -> tuple[Kid, Kid]:
    """Start, and wait until the spare is known to all; return the signer and the spare."""
    site.main.start()
    site.advance(60 * HOUR, pace=DAY)
    signer, (spare,) = site.active(), site.signing_keys(Phase.PENDING)
    assert signer is not None
    return signer, spare.kid


def test_a_revoked_signer_leaves_the_set_and_its_workspaces_get_tokens_on_the_spare(site: Site) -> None:
    """In the same moment: nobody waits, no new token is refused, and the private half is gone."""
    signer, spare = settled(site)
    before = {name: site.held(name) for name in ("acme", "umbrella")}
    site.revoked.add(signer)
    answer = site.ask("key.revoke", kid=signer)
    assert answer.succeeded
    assert f"key {spare} signs; 2 tokens were revoked with it, and 2 workspaces get new ones" in answer.result
    assert signer not in site.main.kids()
    assert site.active() == spare
    assert phase_of(site, signer) is Phase.REVOKED
    assert site.query("SELECT sealed FROM signing_keys WHERE kid = ?", signer) == [(None,)]
    for name, prior in before.items():
        assert site.held(name) != prior
        assert kid_of(site, name) == spare
    assert site.query("SELECT DISTINCT phase, sealed FROM tokens WHERE kid = ?", signer) == [("revoked", None)]
    site.advance(6 * DAY, pace=DAY)
    assert signer not in site.main.kids()
    site.assert_sound()


def test_who_revoked_and_why_is_in_the_audit(site: Site) -> None:
    """One event for the key, one for all tokens on it; each new token names its reason."""
    signer, _ = settled(site)
    site.revoked.add(signer)
    site.ask("key.revoke", kid=signer)
    events = [row.event for row in site.events(EventName.KEY_REVOKED, EventName.TOKENS_REVOKED)]
    assert [event.name for event in events] == [EventName.KEY_REVOKED, EventName.TOKENS_REVOKED]
    assert {(event.actor, event.reason, event.kid) for event in events} == {("ada(1000)", "because", signer)}
    assert events[1].details == {"tokens": 2, "workspaces": 2, "command": "key.revoke"}
    reissued = [r.event for r in site.events(EventName.TOKEN_ISSUED) if r.event.reason == Reason.KEY_REVOKED]
    assert {event.workspace for event in reissued} == {"acme", "umbrella"}
    site.assert_sound()


def test_a_revoked_spare_is_replaced_and_no_token_changes(site: Site) -> None:
    signer, spare = settled(site)
    before = {name: site.held(name) for name in ("acme", "umbrella")}
    answer = site.ask("key.revoke", kid=spare)
    assert "no unexpired token hung on it" in answer.result
    assert spare not in site.main.kids()
    assert site.active() == signer
    assert {name: site.held(name) for name in before} == before
    assert len(site.signing_keys(Phase.PENDING)) == 1
    site.advance(6 * DAY, pace=DAY)
    site.assert_sound()


def test_workspaces_whose_tokens_hang_on_a_prior_key_get_new_ones_at_once(site: Site) -> None:
    """A key in grace signs no more, and tokens still live by it: current ones, and superseded ones."""
    site.main.start()
    first = site.active()
    assert first is not None
    while site.active() == first:
        site.advance(6 * HOUR, pace=DAY)
    assert first in {kid_of(site, name) for name in ("acme", "umbrella")}
    site.revoked.add(first)
    answer = site.ask("key.revoke", kid=first)
    assert "new one" in answer.result
    assert {kid_of(site, name) for name in ("acme", "umbrella")} == {site.active()}
    assert first not in site.main.kids()
    site.assert_sound()


def test_a_key_that_was_retired_is_marked_when_it_is_found_compromised_later(site: Site) -> None:
    site.main.start()
    first = site.active()
    assert first is not None
    site.advance(40 * DAY, pace=DAY)
    assert phase_of(site, first) is Phase.RETIRED
    assert site.ask("key.revoke", kid=first).succeeded
    assert phase_of(site, first) is Phase.REVOKED
    site.assert_sound()


def test_revoking_twice_changes_nothing_more(site: Site) -> None:
    signer, spare = settled(site)
    site.revoked.add(signer)
    site.ask("key.revoke", kid=signer)
    held, at = site.held("acme"), site.clock.wall
    site.advance(HOUR)
    before = site.audit()
    again = site.ask("key.revoke", kid=signer)
    assert again.succeeded
    assert again.result.startswith(f"key {signer} was revoked already at {at:%Y-%m-%d %H:%M:%S} UTC and out of the")
    assert site.active() == spare
    assert site.held("acme") == held
    assert site.audit() == before
    site.assert_sound()


def test_revoking_again_heals_what_is_unfinished(site: Site) -> None:
    """Tokens that live on a key which is revoked are revoked with it, and that is an event."""
    signer, _ = settled(site)
    site.revoked.add(signer)
    site.ask("key.revoke", kid=signer)
    site.advance(HOUR)
    ((jti,),) = site.query("SELECT min(jti) FROM tokens WHERE kid = ? AND phase = 'revoked'", signer)
    site.main.stop()
    site.rewrite("tokens", "jti = ?", jti, phase="grace", revoked_at=None, revoke_reason="")
    site.main.start()
    answer = site.ask("key.revoke", kid=signer)
    assert f"key {signer} is revoked and out of the published set" in answer.result
    assert "1 token was revoked with it" in answer.result
    assert [row.event.details["tokens"] for row in site.events(EventName.TOKENS_REVOKED)] == [2, 1]
    assert site.query("SELECT phase FROM tokens WHERE jti = ?", jti) == [("revoked",)]


def test_revoking_a_token_twice_changes_nothing_more(site: Site) -> None:
    settled(site)
    ((jti,),) = site.query("SELECT current FROM workspaces WHERE id = 'acme'")
    site.revoked.add(jti)
    site.ask("token.revoke", jti=jti)
    at = site.clock.wall
    site.advance(HOUR)
    before = site.audit()
    answer = site.ask("token.revoke", jti=jti)
    assert answer.result == f"token {jti} of workspace acme was revoked already at {at:%Y-%m-%d %H:%M:%S} UTC"
    assert site.audit() == before
    site.assert_sound()


def test_what_is_not_there_cannot_be_revoked(site: Site) -> None:
    """And the answer says where the right name is to be found."""
    settled(site)
    for kind, argument, listing in (
        ("key.revoke", "kid", "keys list"),
        ("token.revoke", "jti", "tokens list"),
        ("workspace.revoke", "workspace", "tokens list"),
    ):
        answer = site.ask(kind, None, **{argument: "nonesuch"})
        assert not answer.succeeded
        assert "nonesuch" in answer.result
        assert listing in answer.result
    site.assert_sound()


# ------------------------------------------------------------------------------------------------------------- tokens


def test_a_revoked_current_token_is_replaced(site: Site) -> None:
    """The key stays: verifiers refuse the token by its id alone, those that ask for it."""
    signer, _ = settled(site)
    ((jti,),) = site.query("SELECT current FROM workspaces WHERE id = 'acme'")
    untouched = site.held("umbrella")
    site.revoked.add(jti)
    answer = site.ask("token.revoke", jti=jti)
    assert "it gets a new one" in answer.result
    assert jwt.decode(site.held("acme"), options={"verify_signature": False})["jti"] != jti
    assert site.held("umbrella") == untouched
    assert site.active() == signer
    assert jti in site.main.run.around.witness.read().revoked_jtis  # type: ignore[union-attr]
    assert [row.event.actor for row in site.events(EventName.TOKEN_REVOKED)] == ["ada(1000)"]
    site.assert_sound()


def test_the_witness_forgets_a_revoked_token_once_it_has_long_ended(site: Site) -> None:
    """It grows with what can still be brought back, not with the years."""
    settled(site)
    ((jti,),) = site.query("SELECT current FROM workspaces WHERE id = 'acme'")
    site.revoked.add(jti)
    site.ask("token.revoke", jti=jti)
    site.advance(2 * DAY, pace=DAY)
    assert jti in site.main.run.revoked_jtis
    site.advance(4 * DAY, pace=DAY)
    assert jti not in site.main.run.revoked_jtis
    assert jti not in site.main.run.around.witness.read().revoked_jtis  # type: ignore[union-attr]


def test_a_revoked_superseded_token_leaves_the_current_one(site: Site) -> None:
    site.main.start()
    ((jti,),) = site.query("SELECT current FROM workspaces WHERE id = 'acme'")
    site.advance(3 * DAY + HOUR, pace=HOUR)
    held = site.held("acme")
    site.revoked.add(jti)
    answer = site.ask("token.revoke", jti=jti)
    assert "its current token is another one, and stays" in answer.result
    assert site.held("acme") == held
    site.assert_sound()


def test_revoking_a_workspace_revokes_all_its_tokens_and_issues_a_new_one(site: Site) -> None:
    site.main.start()
    site.advance(3 * DAY + HOUR, pace=HOUR)
    living = [j for (j,) in site.query("SELECT jti FROM tokens WHERE workspace = 'acme' AND phase <> 'retired'")]
    assert len(living) == 2
    site.revoked |= set(living)
    answer = site.ask("workspace.revoke", workspace="acme")
    assert answer.result.startswith("workspace acme: 2 tokens revoked; it gets a new one")
    assert {row.event.jti for row in site.events(EventName.TOKEN_REVOKED)} == set(living)
    assert jwt.decode(site.held("acme"), options={"verify_signature": False})["jti"] not in living
    site.assert_sound()


def test_a_workspace_that_left_the_config_gets_no_new_token(site: Site) -> None:
    """What the config says of it stands: revocation does not bring it back."""
    site.main.start(site.usual("acme", *(f"w{number}" for number in range(12))))
    site.main.load(without(site.policy, "acme"))
    ((jti,),) = site.query("SELECT current FROM workspaces WHERE id = 'acme'")
    site.revoked.add(jti)
    answer = site.ask("workspace.revoke", workspace="acme")
    assert "it has left the config, and gets no new one" in answer.result
    assert site.query("SELECT phase FROM tokens WHERE workspace = 'acme'") == [("revoked",)]
    site.assert_sound()


# ------------------------------------------------------------------------------------------------- never comes back


def test_two_revocations_in_a_row_survive_a_backup_from_before_both(site: Site) -> None:
    """The second finds no spare that all know, so it waits; neither key signs, or is published, ever again."""
    first, second = settled(site)
    kept = back_up(site)
    site.advance(HOUR)
    for kid in (first, second):
        site.revoked.add(kid)
        assert site.ask("key.revoke", kid=kid, choice="wait").succeeded
        site.advance(MINUTE)
    assert site.active() is None
    put_back(site, kept)
    site.main.start()
    assert not {first, second} & set(site.main.kids())
    assert {phase_of(site, kid) for kid in (first, second)} == {Phase.REVOKED}
    assert site.query("SELECT count(*) FROM tokens WHERE kid IN (?, ?) AND phase <> 'revoked'", first, second) == [(0,)]
    site.advance(4 * DAY, pace=DAY)
    assert {kid_of(site, name) for name in ("acme", "umbrella")} == {site.active()}
    assert site.active() not in (None, first, second)
    site.assert_sound()


def test_a_revoked_token_survives_a_backup_from_before(site: Site) -> None:
    settled(site)
    ((jti,),) = site.query("SELECT current FROM workspaces WHERE id = 'acme'")
    kept = back_up(site)
    site.advance(HOUR)
    site.revoked.add(jti)
    site.ask("token.revoke", jti=jti)
    put_back(site, kept)
    site.main.start()
    assert site.query("SELECT phase, sealed FROM tokens WHERE jti = ?", jti) == [("revoked", None)]
    site.advance(MINUTE)
    assert jwt.decode(site.held("acme"), options={"verify_signature": False})["jti"] != jti
    site.assert_sound()


class Killed(BaseException):
    """Ends the process as far as the state goes."""


class DyingJournal:
    """A journal whose process dies right after it was written."""

    def __init__(self, real: RevocationJournal) -> None:
        self.real = real

    def read(self) -> Journal:
        return self.real.read()

    def append(self, entry: RevocationEntry) -> None:
        self.real.append(entry)
        raise Killed


class DyingPublisher:
    """A tree whose process dies before it writes."""

    def __init__(self, real: object) -> None:
        self.real = real

    def __getattr__(self, name: str) -> object:
        if name == "publish":
            raise Killed
        return getattr(self.real, name)


def kill_at(site: Site, *, journal: bool) -> None:
    run = site.main.run
    if journal:
        run.around = replace(run.around, journal=DyingJournal(run.around.journal))
    else:
        run.around = replace(run.around, publisher=DyingPublisher(run.around.publisher))  # type: ignore[arg-type]
    with pytest.raises(Killed):
        site.main.tick()
    site.main.stop()


@pytest.mark.parametrize("journal", [True, False], ids=["before the commit", "before the publication"])
def test_a_revocation_that_was_cut_off_is_finished_by_the_next_start(site: Site, journal: bool) -> None:
    """Killed between the journal and the commit, or between the commit and the file: the request is still there."""
    signer, spare = settled(site)
    site.revoked.add(signer)
    number = site.submit("key.revoke", kid=signer)
    kill_at(site, journal=journal)
    assert signer in site.main.kids()
    site.main.start()
    assert site.answer(number).succeeded
    assert signer not in site.main.kids()
    assert site.active() == spare
    assert {kid_of(site, name) for name in ("acme", "umbrella")} == {spare}
    assert len(site.events(EventName.KEY_REVOKED)) == 1
    site.assert_sound()


@pytest.mark.parametrize("journal", [True, False], ids=["before the commit", "before the publication"])
def test_a_revocation_that_was_cut_off_is_finished_however_long_nothing_ran(site: Site, journal: bool) -> None:
    """The key is revoked by then: were the rest refused for its age, its workspaces would keep tokens on it."""
    signer, _ = settled(site)
    site.revoked.add(signer)
    number = site.submit("key.revoke", kid=signer, choice="wait")
    kill_at(site, journal=journal)
    site.clock.reboot(GOOD_FOR + DAY)
    site.main.start()
    site.advance(HOUR)
    assert site.answer(number).succeeded
    assert signer not in site.main.kids()
    assert signer not in {kid_of(site, name) for name in ("acme", "umbrella")}
    assert site.query("SELECT count(*) FROM tokens WHERE phase IN ('active', 'grace') AND kid = ?", signer) == [(0,)]


def test_a_token_revocation_that_only_reached_the_journal_is_finished_by_the_next_start(site: Site) -> None:
    settled(site)
    ((jti,),) = site.query("SELECT current FROM workspaces WHERE id = 'acme'")
    site.revoked.add(jti)
    number = site.submit("token.revoke", jti=jti)
    kill_at(site, journal=True)
    site.main.start()
    assert site.answer(number).succeeded
    assert jwt.decode(site.held("acme"), options={"verify_signature": False})["jti"] != jti
    site.advance(HOUR)
    assert site.refused == []
    assert site.chain() is None


# ------------------------------------------------------------------------------------------------------ the choice


def test_a_keyset_is_not_revoked_without_a_choice(site: Site) -> None:
    """No verifier can know a fresh key: waiting and refusals are the operator's to choose between."""
    signer, spare = settled(site)
    answer = site.ask("keyset.revoke", keyset="default")
    assert not answer.succeeded
    assert "--wait" in answer.result
    assert "--now" in answer.result
    assert site.main.kids() == [signer, spare]
    assert site.active() == signer
    site.assert_sound()


def revoke_all(site: Site, choice: str) -> tuple[Kid, Kid]:
    """Revoke the keyset; return the keys that it had."""
    signer, spare = settled(site)
    site.revoked |= {signer, spare}
    answer = site.ask("keyset.revoke", keyset="default", choice=choice)
    assert answer.succeeded, answer.result
    assert "2 keys are revoked and out of the published set" in answer.result
    assert "2 tokens were revoked with it, and 2 workspaces get new ones" in answer.result
    return signer, spare


def test_a_keyset_that_waits_has_no_tokens_until_every_verifier_can_know_a_fresh_key(site: Site) -> None:
    gone = revoke_all(site, "wait")
    held = site.held("acme")
    assert not set(gone) & set(site.main.kids())
    assert len(site.main.kids()) == 2
    site.advance(PROPAGATION - MINUTE)
    assert site.active() is None
    assert site.held("acme") == held
    site.advance(2 * MINUTE)
    assert site.active() not in (None, *gone)
    assert kid_of(site, "acme") == site.active()
    site.assert_sound()


class Silent(CryptographyKeyMaker):
    """A key maker, as a module of hardware may be, that does not answer."""

    def make(self, algorithm: Algorithm) -> KeyMaterial:
        raise RuntimeError("the module does not answer")


def test_a_revoked_keyset_leaves_the_set_although_no_fresh_key_can_be_made(site: Site) -> None:
    """Nothing is left in it then; nor does an old copy that is put in its place stay."""
    settled(site)
    published = site.main.jwks().read_bytes()
    site.main.run.around = replace(site.main.run.around, keymaker=Silent())
    site.revoked.update(site.main.kids())
    assert site.ask("keyset.revoke", keyset="default", choice="wait").succeeded
    assert site.main.kids() == []
    for path in ("keysets/default/jwks.json", ".well-known/jwks.json"):
        (site.main.tree / path).write_bytes(published)
    site.advance(HOUR)
    assert site.main.kids() == []
    site.main.run.around = replace(site.main.run.around, keymaker=CryptographyKeyMaker())
    site.advance(PROPAGATION + DAY)
    assert kid_of(site, "acme") == site.active()
    site.assert_sound()


def kids_over_time(site: Site) -> list[frozenset[str]]:
    return [version.kids for version in site.history["local", "default"]]


@pytest.mark.parametrize("choice", ["wait", "now"])
def test_a_revoked_keyset_and_its_fresh_keys_change_places_in_one_publication(site: Site, choice: str) -> None:
    """No verifier is served an empty set, nor one that it must fetch again a moment later."""
    gone = settled(site)
    generation = site.query("SELECT generation FROM keysets")[0][0]
    site.revoked |= set(gone)
    number = site.submit("keyset.revoke", keyset="default", choice=choice)
    site.main.tick()
    assert site.answer(number).succeeded
    assert site.query("SELECT generation FROM keysets") == [(generation + 1,)]
    before, after = kids_over_time(site)[-2:]
    assert before == set(gone)
    assert len(after) == 2
    assert not after & before
    assert [key.kid for key in site.signing_keys(Phase.ACTIVE, Phase.PENDING)] == site.main.kids()


class SlowMaker(CryptographyKeyMaker):
    """A key maker that takes until the set is seen without any key, as RSA may on a busy machine."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.fails = False

    def make(self, algorithm: Algorithm) -> KeyMaterial:
        wait_until(lambda: not self.site.main.kids(), "the withdrawal does not wait for fresh keys")
        if self.fails:
            raise RuntimeError("the module does not answer")
        return super().make(algorithm)


@pytest.mark.parametrize("fails", [False, True], ids=["late", "failed in the end"])
def test_a_withdrawal_waits_no_longer_than_a_second_for_fresh_keys(site: Site, fails: bool) -> None:
    """They are published after it."""
    gone = settled(site)
    maker = SlowMaker(site)
    maker.fails = fails
    site.main.run.around = replace(site.main.run.around, keymaker=maker)
    site.revoked |= set(gone)
    begun = time.monotonic()
    site.submit("keyset.revoke", keyset="default", choice="wait")
    site.main.tick()
    assert time.monotonic() - begun > 1.0
    assert not set(site.main.kids()) & set(gone)
    maker.fails = False
    site.main.run.around = replace(site.main.run.around, keymaker=CryptographyKeyMaker())
    site.advance(PROPAGATION + DAY)
    assert kid_of(site, "acme") == site.active()
    assert len(site.main.kids()) == 2
    site.assert_sound()


class Repeating(CryptographyKeyMaker):
    """A key maker that is broken: it makes the same key again and again, which the database takes but once."""

    def __init__(self) -> None:
        self.made = super().make(Algorithm.ES256)

    def make(self, algorithm: Algorithm) -> KeyMaterial:
        return self.made


def test_a_fresh_key_that_cannot_be_stored_does_not_keep_the_revoked_ones_in_the_set(site: Site) -> None:
    """It is made in time, and cannot be taken twice: the withdrawal is made without it, and the keyset says so."""
    gone = settled(site)
    maker = Repeating()
    site.main.run.around = replace(site.main.run.around, keymaker=maker)
    site.revoked |= set(gone)
    number = site.submit("keyset.revoke", keyset="default", choice="wait")
    site.main.tick()
    assert site.main.kids() == [maker.made.kid]
    assert f"kid {maker.made.kid} is there 2 times" in site.main.run.faults["keyset:default"]
    site.main.run.around = replace(site.main.run.around, keymaker=CryptographyKeyMaker())
    site.main.settle()
    assert site.answer(number).succeeded
    site.advance(PROPAGATION + DAY)
    assert kid_of(site, "acme") == site.active()
    site.assert_sound()


def test_a_keyset_that_does_not_wait_has_new_tokens_at_once(site: Site) -> None:
    """Verifiers that hold an older copy refuse them until they fetch: what the operator chose, and nothing else."""
    gone = revoke_all(site, "now")
    fresh = site.active()
    assert fresh not in (None, *gone)
    assert kid_of(site, "acme") == kid_of(site, "umbrella") == fresh
    assert site.refused
    assert all(f" on {fresh}, " in line for line in site.refused)
    site.refused.clear()
    site.advance(MAX_CACHE + MINUTE)
    site.refused.clear()
    site.advance(6 * DAY, pace=DAY)
    site.assert_sound()
    (event,) = [row.event for row in site.events(EventName.KEYSET_REVOKED)]
    assert (event.actor, event.reason, event.details["keys"]) == ("ada(1000)", "because", 2)


@pytest.mark.parametrize("journal", [True, False], ids=["before the commit", "before the set"])
def test_the_choice_survives_a_crash_and_the_fresh_keys_survive_the_request(site: Site, journal: bool) -> None:
    """What was begun is finished as it was asked for, and what was made since is not revoked with the rest."""
    gone = settled(site)
    site.revoked |= set(gone)
    number = site.submit("keyset.revoke", keyset="default", choice="now")
    kill_at(site, journal=journal)
    site.main.start()
    assert site.answer(number).succeeded
    assert site.active() not in (None, *gone)
    assert {key.kid for key in site.signing_keys(Phase.REVOKED)} == set(gone)
    assert len(site.main.kids()) == 2
    assert kid_of(site, "acme") == site.active()
    assert site.chain() is None


@pytest.mark.parametrize("ahead", [timedelta(0), MINUTE], ids=["the same moment", "a clock that is ahead"])
def test_a_key_made_just_before_is_revoked_with_the_rest(site: Site, ahead: timedelta) -> None:
    """Also where the clock of the replica that made it was ahead of the one that was asked."""
    site.main.start()
    made = {key.kid for key in site.signing_keys(Phase.ACTIVE, Phase.PENDING)}
    assert len(made) == 2
    site.revoked |= made
    site.clock.wall -= ahead
    assert site.ask("keyset.revoke", keyset="default", choice="wait").succeeded
    assert {key.kid for key in site.signing_keys(Phase.REVOKED)} == made
    assert not made & set(site.main.kids())


def test_a_keyset_that_is_not_there_is_refused_with_those_that_are(site: Site) -> None:
    settled(site)
    answer = site.ask("keyset.revoke", keyset="defualt", choice="wait")
    assert (answer.succeeded, answer.result) == (False, "there is no keyset 'defualt'; there are: default")
    site.assert_sound()


def test_a_second_emergency_is_the_same_choice(site: Site) -> None:
    """The spare of before signs now; the key after it was not out long enough."""
    first, second = settled(site)
    site.revoked |= {first, second}
    assert site.ask("key.revoke", kid=first).succeeded
    refused = site.ask("key.revoke", kid=second)
    assert not refused.succeeded
    assert "choose between waiting" in refused.result
    assert site.active() == second
    site.ask("key.revoke", kid=second, choice="wait")
    assert site.active() is None
    assert site.ask("key.revoke", kid=second, choice="now").succeeded  # who waits may still change their mind
    assert site.active() not in (None, first, second)
    assert kid_of(site, "acme") == site.active()


def test_a_choice_that_is_not_needed_changes_nothing(site: Site) -> None:
    """The spare that all know signs, and no wish is left behind."""
    signer, spare = settled(site)
    site.revoked.add(signer)
    site.ask("key.revoke", kid=signer, choice="now")
    assert site.active() == spare
    assert site.query("SELECT count(*) FROM wishes") == [(0,)]
    site.assert_sound()


def test_a_revoked_keyset_survives_a_backup_from_before(site: Site) -> None:
    settled(site)
    kept = back_up(site)
    site.advance(HOUR)
    gone = {key.kid for key in site.signing_keys(Phase.ACTIVE, Phase.PENDING)}
    site.revoked |= gone
    site.ask("keyset.revoke", keyset="default", choice="wait")
    site.advance(MINUTE)
    put_back(site, kept)
    site.main.start()
    assert not gone & set(site.main.kids())
    site.advance(3 * DAY, pace=DAY)
    assert site.active() not in (None, *gone)
    assert kid_of(site, "acme") == site.active()
    site.assert_sound()


# ------------------------------------------------------------------------------------- whatever else is wrong just now


def test_a_key_is_revoked_while_the_clock_is_held(site: Site) -> None:
    """It leaves the set; the spare signs, and tokens are issued, as soon as the clock is trusted again."""
    signer, spare = settled(site)
    held = site.held("acme")
    site.clock.leap(-60 * DAY)
    site.main.settle()
    assert "clock" in site.main.run.faults
    site.revoked.add(signer)
    answer = site.ask("key.revoke", kid=signer)
    assert answer.succeeded
    assert "no key signs yet" in answer.result
    assert signer not in site.main.kids()
    assert site.active() is None
    assert site.held("acme") == held
    site.clock.leap(60 * DAY)
    site.advance(MINUTE)
    assert site.active() == spare
    assert kid_of(site, "acme") == spare
    site.assert_sound()


def test_a_revocation_under_a_clock_that_is_ahead_makes_nobody_wait_for_that_day(site: Site) -> None:
    """A token that such a clock takes for expired is revoked, too."""
    signer, spare = settled(site)
    site.clock.leap(400 * DAY)
    site.main.settle()
    assert "clock" in site.main.run.faults
    site.revoked.add(signer)
    assert site.ask("key.revoke", kid=signer).succeeded
    assert site.query("SELECT DISTINCT phase FROM tokens WHERE kid = ? AND phase <> 'retired'", signer) == [
        ("revoked",)
    ]
    site.clock.leap(-400 * DAY)
    site.advance(MINUTE)
    assert site.active() == spare
    assert kid_of(site, "acme") == spare
    site.assert_sound()


def test_a_revocation_at_a_start_with_a_clock_that_is_not_trusted_reaches_the_witness(site: Site) -> None:
    """The witness was not read yet, and what it knew before stays."""
    first, second = settled(site)
    kept = back_up(site)
    site.advance(HOUR)
    site.revoked.add(second)
    site.ask("key.revoke", kid=second)
    site.main.stop()
    site.clock.reboot()
    site.clock.leap(-60 * DAY)
    site.main.start()
    assert "clock" in site.main.run.faults
    site.revoked.add(first)
    assert site.ask("key.revoke", kid=first).succeeded  # whether a spare is known, such a clock cannot tell
    assert first not in site.main.kids()
    site.main.stop()
    put_back(site, kept)
    site.clock.leap(60 * DAY)
    site.main.start()
    assert {phase_of(site, kid) for kid in (first, second)} == {Phase.REVOKED}
    site.assert_sound()


def test_a_full_disk_of_the_tree_does_not_keep_the_spare_from_signing(site: Site) -> None:
    """The answer says that the key is still published; it leaves as soon as there is room."""
    signer, spare = settled(site)
    site.revoked.add(signer)
    site.main.tree_disk.full = True
    answer = site.ask("key.revoke", kid=signer)
    assert answer.succeeded
    assert "still in the published set, which could not be written" in answer.result
    assert signer in site.main.kids()
    assert site.active() == spare
    assert kid_of(site, "acme") == spare
    site.main.tree_disk.full = False
    site.advance(MINUTE)
    assert signer not in site.main.kids()
    site.assert_sound()


def test_a_full_disk_of_the_state_does_not_keep_a_key_in_use(site: Site) -> None:
    """The answer says what that means; journal and witness have it as soon as there is room."""
    site.main.disk = disk = Disk()
    signer, spare = settled(site)
    run = site.main.run
    site.revoked.add(signer)
    number = site.submit("key.revoke", kid=signer)
    disk.full = True
    with pytest.raises(WitnessError):
        site.main.tick()
    assert "Until that can be written down, put no backup back" in site.answer(number).result
    assert "the journal of revocations" in run.faults["journal"]
    assert signer not in site.main.kids()
    assert site.active() == spare
    disk.full = False
    site.advance(31 * SECOND)
    record = run.around.witness.read()
    assert record is not None
    assert signer in record.revoked_kids
    assert [entry.kids for entry in run.around.journal.read().entries] == [(signer,)]
    assert dict(run.faults) == {}
    site.assert_sound()


def test_a_token_whose_text_is_erased_is_not_shown_and_it_is_said_why(site: Site) -> None:
    """As while the keyset that was revoked has no key yet that signs."""
    site.main.start()
    site.advance(HOUR)
    assert site.ask("keyset.revoke", keyset="default", choice="wait").succeeded
    answer = site.ask("token.show", workspace="acme")
    assert not answer.succeeded
    assert f"was revoked on {site.clock.wall:%Y-%m-%d %H:%M:%SZ}, and its text erased" in answer.result
    assert "`rotator status` says what that waits for" in answer.result
