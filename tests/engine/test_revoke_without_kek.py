"""A revocation needs no KEK and no database: the journal and the published set come first, and all else follows."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from rotator.adapters.kek import read_ring_file
from rotator.adapters.sealing import SourcedKeyring
from rotator.core.events import Detail, EventName
from rotator.core.model import Kid, Phase
from rotator.engine.requests.accepting import accept
from rotator.errors import StoreError
from rotator.ports import Answer, RequestRow
from tests.engine.site import DAY, HOUR, MINUTE, PROPAGATION, Disk, Site
from tests.engine.test_kek import WAYS, take_away
from tests.engine.test_publishing import both_places
from tests.engine.test_restore import back_up, copy_over
from tests.engine.test_revoke import kid_of, phase_of, settled


def ask(site: Site, kind: str, /, **arguments: Detail) -> Answer:
    """Ask as the control socket does, let the daemon tick once, whatever comes of it, and return its answer."""
    run = site.main.run
    draft = RequestRow(
        id=0, kind=kind, arguments=arguments, actor="ada(1000)", uid=1000, reason="leaked", created_at=site.clock.wall
    )
    request = accept(run, draft, site.clock.read())
    with suppress(StoreError):
        site.main.tick()
    answer = run.answers.wait(request.nonce, timedelta(0))
    run.answers.leave(request.nonce)
    assert answer is not None
    return answer


def shown(site: Site) -> list[list[str]]:
    """Return the kids of the set in each of its places."""
    return [[key["kid"] for key in json.loads(path.read_bytes())["keys"]] for path in both_places(site)]


def without_kek(site: Site, how: str = "missing") -> None:
    """Let the KEK go, and the daemon take note."""
    take_away(site, how)
    site.advance(MINUTE)
    assert "kek" in site.main.run.faults


def give_back(site: Site) -> None:
    site.kek.with_name("kek.kept").replace(site.kek)


def revoked_key(site: Site, how: str = "missing") -> tuple[Kid, Kid, Answer]:
    """Revoke the signer without the KEK; return it, the spare, and the answer."""
    signer, spare = settled(site)
    without_kek(site, how)
    site.revoked.add(signer)
    return signer, spare, ask(site, "key.revoke", kid=signer)


# ------------------------------------------------------------------------------------------------------ the KEK is away


@pytest.mark.parametrize("how", WAYS)
def test_a_key_leaves_every_place_of_the_set_at_once_without_the_kek(site: Site, how: str) -> None:
    """And the answer says that the rest follows; discovery and the other keys stand as they stood."""
    signer, spare = settled(site)
    discovery = (site.main.tree / ".well-known/openid-configuration").read_bytes()
    without_kek(site, how)
    audited, database = len(site.audit()), site.query("SELECT * FROM signing_keys")
    site.revoked.add(signer)
    answer = ask(site, "key.revoke", kid=signer)
    assert (answer.succeeded, answer.follows) == (True, True)
    assert answer.text.startswith(f"key {signer} is revoked and out of the published set. The database, and new tokens")
    assert "the key-encryption key is away" in answer.text
    assert shown(site) == [[spare], [spare]]
    assert (site.main.tree / ".well-known/openid-configuration").read_bytes() == discovery
    (told,) = site.log.named("revocation.ahead")
    assert (told["revoked"], told["actor"], told["reason"]) == (signer, "ada(1000)", "leaked")
    site.advance(2 * HOUR)
    assert site.main.kids() == [spare]
    assert len(site.audit()) == audited
    assert site.query("SELECT * FROM signing_keys") == database


def test_when_the_kek_is_back_all_that_a_revocation_does_follows_once(site: Site) -> None:
    """Database, audit with who asked and why, witness, a new signer, new tokens."""
    signer, spare, _ = revoked_key(site)
    accepted_at = site.clock.wall
    site.advance(3 * HOUR)
    give_back(site)
    site.advance(MINUTE)
    assert phase_of(site, signer) is Phase.REVOKED
    assert site.active() == spare
    assert {kid_of(site, name) for name in ("acme", "umbrella")} == {spare}
    events = [row.event for row in site.events(EventName.KEY_REVOKED, EventName.TOKENS_REVOKED)]
    assert [(event.name, event.kid, event.actor, event.reason) for event in events] == [
        (EventName.KEY_REVOKED, signer, "ada(1000)", "leaked"),
        (EventName.TOKENS_REVOKED, signer, "ada(1000)", "leaked"),
    ]
    assert {event.details["accepted_at"] for event in events} == {f"{accepted_at:%Y-%m-%dT%H:%M:%SZ}"}
    assert events[1].details["tokens"] == 2
    record = site.main.run.around.witness.read()
    assert record is not None
    assert signer in record.revoked_kids
    assert dict(site.main.run.faults) == {}
    site.main.restart()
    site.advance(6 * DAY, pace=12 * HOUR)
    assert len(site.events(EventName.KEY_REVOKED)) == 1
    assert len(site.events(EventName.TOKENS_REVOKED)) == 1
    site.assert_sound()


@pytest.mark.parametrize("back", [False, True], ids=["without the KEK", "with it"])
def test_a_start_knows_what_was_revoked_without_the_kek(site: Site, back: bool) -> None:
    """Also where an old file was put back meanwhile: with the KEK, no set with the key is ever written."""
    signer, spare = settled(site)
    old = site.main.jwks().read_bytes()
    without_kek(site)
    site.revoked.add(signer)
    ask(site, "key.revoke", kid=signer)
    site.main.stop()
    for path in ("keysets/default/jwks.json", ".well-known/jwks.json"):
        (site.main.tree / path).write_bytes(old)
    if back:
        give_back(site)
    site.main.start()
    assert signer not in site.main.kids()
    assert spare in site.main.kids()
    if not back:
        give_back(site)
    site.advance(MINUTE)
    assert site.active() == spare
    assert [row.event.actor for row in site.events(EventName.KEY_REVOKED)] == ["ada(1000)"]
    site.assert_sound()


@pytest.mark.parametrize("how", ["running", "restarted"])
def test_a_keyset_is_revoked_without_the_kek(site: Site, how: str) -> None:
    """Its set is empty until fresh keys can be made; no choice is asked for, since nothing can sign."""
    gone = settled(site)
    without_kek(site)
    site.revoked |= set(gone)
    answer = ask(site, "keyset.revoke", keyset="default")
    assert answer.text.startswith("keyset default: 2 keys are revoked and out of the published set")
    assert shown(site) == [[], []]
    if how == "restarted":
        site.main.restart()
    give_back(site)
    site.advance(MINUTE)
    assert len(site.main.kids()) == 2
    assert not set(site.main.kids()) & set(gone)
    (event,) = [row.event for row in site.events(EventName.KEYSET_REVOKED)]
    assert (event.actor, event.reason, event.details["keys"]) == ("ada(1000)", "leaked", 2)
    assert site.active() is None, "nobody chose that a key signs before it is known"
    site.advance(PROPAGATION + HOUR)
    assert kid_of(site, "acme") == site.active()
    site.assert_sound()


def test_a_token_is_known_as_revoked_without_the_kek_and_replaced_with_it(site: Site) -> None:
    settled(site)
    ((jti,),) = site.query("SELECT current FROM workspaces WHERE id = 'acme'")
    without_kek(site)
    site.revoked.add(jti)
    answer = ask(site, "token.revoke", jti=jti)
    assert answer.text.startswith(f"token {jti} is revoked. The database, and new tokens, follow")
    assert jti in site.main.run.revoked_jtis
    site.main.restart()
    assert jti in site.main.run.revoked_jtis
    give_back(site)
    site.advance(MINUTE)
    assert site.query("SELECT phase FROM tokens WHERE jti = ?", jti) == [("revoked",)]
    assert site.query("SELECT current FROM workspaces WHERE id = 'acme'") != [(jti,)]
    assert [row.event.actor for row in site.events(EventName.TOKEN_REVOKED)] == ["ada(1000)"]
    site.advance(DAY)
    site.assert_sound()


def test_a_workspace_is_revoked_without_the_kek(site: Site) -> None:
    """Of what it had then: the token that it is given later is not meant."""
    settled(site)
    ((jti,),) = site.query("SELECT current FROM workspaces WHERE id = 'acme'")
    without_kek(site)
    site.revoked.add(jti)
    answer = ask(site, "workspace.revoke", workspace="acme")
    assert answer.text.startswith("workspace acme: 1 token is revoked")
    give_back(site)
    site.advance(MINUTE)
    (event,) = [row.event for row in site.events(EventName.WORKSPACE_REVOKED)]
    assert (event.actor, event.reason, event.details["tokens"]) == ("ada(1000)", "leaked", 1)
    assert site.query("SELECT current FROM workspaces WHERE id = 'acme'") != [(jti,)]
    site.advance(DAY)
    site.assert_sound()


@pytest.mark.parametrize(
    ("kind", "argument"),
    [("key.revoke", "kid"), ("keyset.revoke", "keyset"), ("token.revoke", "jti"), ("workspace.revoke", "workspace")],
)
def test_what_is_not_there_is_not_written_down(site: Site, kind: str, argument: str) -> None:
    settled(site)
    without_kek(site)
    answer = ask(site, kind, **{argument: "nonesuch"})
    assert not answer.succeeded
    assert "nonesuch" in answer.text
    assert not (site.main.state / "revocations.jsonl").exists()


def test_two_who_revoke_the_same_key_without_the_kek_are_both_heard(site: Site) -> None:
    signer, spare, _ = revoked_key(site)
    again = ask(site, "key.revoke", kid=signer)
    assert again.succeeded
    assert "out of the published set" in again.text
    give_back(site)
    site.advance(MINUTE)
    assert site.active() == spare
    assert len(site.events(EventName.KEY_REVOKED)) == 1
    site.assert_sound()


def test_a_kek_that_went_a_moment_ago_keeps_nobody_waiting(site: Site) -> None:
    """The request is stored already, and the daemon finds in the same tick that it cannot open anything."""
    signer, spare = settled(site)
    site.advance(MINUTE)
    take_away(site, "missing")
    site.clock.elapse(MINUTE)
    site.revoked.add(signer)
    answer = ask(site, "key.revoke", kid=signer)
    assert (answer.succeeded, answer.follows) == (True, True)
    assert site.main.kids() == [spare]
    give_back(site)
    site.advance(MINUTE)
    assert site.active() == spare
    assert [row.event.reason for row in site.events(EventName.KEY_REVOKED)] == ["leaked"]
    site.assert_sound()


# ------------------------------------------------------------------------------------------ something else is away, too


def test_the_clock_is_held_as_well(site: Site) -> None:
    """When the KEK is back under a clock that is still held, the database follows, and no set shows the key again."""
    signer, spare = settled(site)
    site.clock.leap(-60 * DAY)
    site.main.settle()
    assert "clock" in site.main.run.faults
    signer_shown = len(site.history["local", "default"])
    take_away(site, "missing")
    site.clock.elapse(MINUTE)
    site.main.tick()
    site.revoked.add(signer)
    assert ask(site, "key.revoke", kid=signer).succeeded
    assert site.main.kids() == [spare]
    give_back(site)
    site.main.restart()
    site.advance(MINUTE)
    assert "clock" in site.main.run.faults
    assert phase_of(site, signer) is Phase.REVOKED
    shown = site.history["local", "default"][signer_shown:]
    assert all(signer not in version.kids for version in shown)
    site.clock.leap(60 * DAY)
    site.advance(MINUTE)
    assert site.active() == spare
    site.assert_sound()


def test_on_a_full_disk_the_key_leaves_if_the_tree_has_room(site: Site) -> None:
    """That it could not be written down is said, and made up for as soon as there is room."""
    site.main.disk = disk = Disk()
    signer, spare = settled(site)
    without_kek(site)
    disk.full = True
    site.revoked.add(signer)
    answer = ask(site, "key.revoke", kid=signer)
    assert answer.succeeded
    assert "It could not be written down, so leave this daemon running until then" in answer.text
    assert "journal" in site.main.run.faults
    assert site.main.kids() == [spare]
    disk.full = False
    site.advance(MINUTE)
    assert "journal" not in site.main.run.faults
    site.main.restart()
    assert signer in site.main.run.revoked_kids
    give_back(site)
    site.advance(MINUTE)
    assert site.active() == spare
    site.assert_sound()


def test_on_a_full_disk_of_the_tree_it_is_written_down_and_leaves_later(site: Site) -> None:
    signer, spare = settled(site)
    without_kek(site)
    site.main.tree_disk.full = True
    site.revoked.add(signer)
    answer = ask(site, "key.revoke", kid=signer)
    assert answer.succeeded
    assert "and still in the published set, which could not be written and is tried again" in answer.text
    site.main.tree_disk.full = False
    site.advance(MINUTE)
    assert site.main.kids() == [spare]
    assert not any(subject.startswith("publish:") for subject in site.main.run.faults)


@contextmanager
def no_database(site: Site) -> Iterator[None]:
    """Let every use of the database fail, as when its disk does."""
    run = site.main.run

    class Broken:
        def __getattr__(self, name: str) -> object:
            raise StoreError("the database cannot be read: Input/output error")

    around = run.around
    run.around = replace(around, store=Broken())  # type: ignore[arg-type]
    try:
        yield
    finally:
        run.around = around


@pytest.mark.parametrize("kek", ["there", "away"])
@pytest.mark.parametrize(("kind", "argument"), [("key.revoke", "kid"), ("keyset.revoke", "keyset")])
def test_the_database_cannot_be_read(site: Site, kek: str, kind: str, argument: str) -> None:
    """The published set says what there is to revoke."""
    signer, spare = settled(site)
    if kek == "away":
        without_kek(site)
    meant = {signer} if argument == "kid" else {signer, spare}
    site.revoked |= meant
    with no_database(site):
        answer = ask(site, kind, **{argument: signer if argument == "kid" else "default"})
    assert answer.succeeded
    assert "out of the published set. The database, and new tokens, follow" in answer.text
    assert not meant & set(site.main.kids())
    if kek == "away":
        give_back(site)
    site.advance(MINUTE)
    assert {phase_of(site, kid) for kid in meant} == {Phase.REVOKED}
    assert len(site.events(EventName.KEY_REVOKED)) == len(meant)
    site.advance(PROPAGATION + DAY)
    assert kid_of(site, "acme") == site.active()
    site.assert_sound()


def test_a_token_is_revoked_while_nobody_can_look_it_up(site: Site) -> None:
    settled(site)
    ((jti,),) = site.query("SELECT current FROM workspaces WHERE id = 'acme'")
    asked: list[tuple[str, dict[str, Detail], bool]] = [
        ("token.revoke", {"jti": jti}, True),
        ("workspace.revoke", {"workspace": "acme"}, False),
        ("key.revoke", {"kid": "nonesuch"}, False),
        ("keyset.revoke", {"keyset": "nonesuch"}, False),
    ]
    for kind, arguments, succeeds in asked:
        with no_database(site):
            answer = ask(site, kind, **arguments)
        assert answer.succeeded is succeeds, answer.text
    site.revoked.add(jti)
    site.advance(MINUTE)
    assert site.query("SELECT phase FROM tokens WHERE jti = ?", jti) == [("revoked",)]
    site.advance(DAY)
    site.assert_sound()


# ------------------------------------------------------------------------------------------------- old states put back


def test_an_older_database_that_is_put_back_before_the_kek_is_revokes_it_as_it_was_asked(site: Site) -> None:
    """Neither the database nor the witness ever knew of it; the journal does."""
    signer, _ = settled(site)
    backup = back_up(site)
    site.advance(2 * DAY, pace=12 * HOUR)
    without_kek(site)
    site.revoked.add(signer)
    ask(site, "key.revoke", kid=signer)
    site.main.stop()
    copy_over(site, backup)
    give_back(site)
    site.main.start()
    site.advance(MINUTE)
    assert phase_of(site, signer) is Phase.REVOKED
    (event,) = [row.event for row in site.events(EventName.KEY_REVOKED)]
    assert (event.actor, event.reason) == ("ada(1000)", "leaked")
    assert signer not in site.main.kids()
    site.advance(10 * DAY, pace=12 * HOUR)
    assert signer not in site.main.kids()
    assert site.refused == []


def test_a_lost_witness_takes_no_revocation_with_it(site: Site) -> None:
    """The journal alone still knows, whatever an older database says."""
    signer, _ = settled(site)
    backup = back_up(site)
    site.advance(HOUR)
    site.revoked.add(signer)
    assert ask(site, "key.revoke", kid=signer).succeeded
    site.main.stop()
    site.main.witness.unlink()
    copy_over(site, backup)
    site.main.start()
    assert signer not in site.main.kids()
    assert phase_of(site, signer) is Phase.REVOKED
    site.advance(2 * DAY, pace=12 * HOUR)
    assert signer not in site.main.kids()


def test_a_line_that_cannot_be_read_is_a_fault_and_stops_nothing(site: Site) -> None:
    signer, spare, _ = revoked_key(site)
    give_back(site)
    site.main.stop()
    journal = site.main.state / "revocations.jsonl"
    journal.write_text("rubbish\n" + journal.read_text())
    site.main.start()
    site.advance(MINUTE)
    assert "has 1 line that cannot be read (1)" in site.main.run.faults["journal"]
    assert site.active() == spare
    assert signer not in site.main.kids()
    journal.write_text(journal.read_text().removeprefix("rubbish\n"))
    site.advance(MINUTE)
    assert dict(site.main.run.faults) == {}
    site.assert_sound()


def test_an_entry_that_somebody_adds_only_revokes(site: Site) -> None:
    """As the service's user can do with a text editor; the daemon follows within a tick."""
    _, spare, _ = revoked_key(site)
    give_back(site)
    site.advance(MINUTE)
    journal = site.main.state / "revocations.jsonl"
    line = json.loads(journal.read_text())
    journal.write_text(
        journal.read_text() + json.dumps({**line, "id": "another", "name": spare, "kids": [spare]}) + "\n"
    )
    site.revoked.add(spare)
    site.advance(MINUTE)
    assert phase_of(site, spare) is Phase.REVOKED
    assert spare not in site.main.kids()
    site.advance(PROPAGATION + DAY)
    assert kid_of(site, "acme") == site.active()
    site.assert_sound()


# --------------------------------------------------------------------------------------------------------- replicas


def test_another_replica_follows_by_the_database(site: Site) -> None:
    """It has the KEK, but not the journal: the key leaves its tree when the first one can tell the database."""
    signer, spare = settled(site)
    other = site.daemon("other").start()
    site.advance(3 * DAY, pace=12 * HOUR)
    main = site.main.run
    main.around = replace(main.around, keyring=SourcedKeyring(lambda: read_ring_file(site.root / "gone")))
    site.clock.elapse(MINUTE)
    site.main.tick()
    site.revoked.add(signer)
    assert ask(site, "key.revoke", kid=signer).follows
    assert signer not in site.main.kids()
    assert signer in other.kids()
    main.around = replace(main.around, keyring=other.run.around.keyring)
    site.advance(2 * MINUTE)
    assert signer not in other.kids()
    assert site.active() == spare
    site.advance(10 * DAY, pace=12 * HOUR)
    site.assert_sound()
