"""What was published once is a witness of its own: the meta beside each set, should the whole state be put back."""

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rotator.core.events import EventName
from rotator.core.instants import to_us
from rotator.core.model import Kid, Phase
from rotator.core.policy import Policy
from rotator.engine.adopt import Inherited, adopt_published, inherit
from rotator.engine.knowledge import BY_META
from rotator.engine.recover import reconcile
from rotator.engine.register import register
from rotator.report import status
from tests.engine.site import (
    DAY,
    HOUR,
    MINUTE,
    PROPAGATION,
    Site,
    keyset,
    policy_of,
    workspace,
)


def meta_of(site: Site, name: str = "default") -> Path:
    return site.main.jwks(name).with_name("jwks.meta.json")


def part_of(site: Site, name: str = "default") -> dict[str, Any]:
    part = json.loads(meta_of(site, name).read_bytes())["witness"]
    assert isinstance(part, dict)
    return part


def snapshot(site: Site, *, witness: bool = True) -> Path:
    """Copy the whole state directory as it stands, or the database alone."""
    site.main.stop()
    kept = site.root / "snapshot"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    shutil.copy(site.database, kept / "rotator.db")
    if witness:
        shutil.copy(site.main.witness, kept / "witness.json")
    site.main.start()
    return kept


def put_back(site: Site, kept: Path) -> None:
    """Put the state directory back, and leave the published tree as it is."""
    site.main.stop()
    for name in ("rotator.db-wal", "rotator.db-shm"):
        site.database.with_name(name).unlink(missing_ok=True)
    shutil.copy(kept / "rotator.db", site.database)
    site.main.witness.unlink(missing_ok=True)
    if (kept / "witness.json").exists():
        shutil.copy(kept / "witness.json", site.main.witness)


def revoke(site: Site, kid: Kid | None) -> None:
    assert kid is not None
    site.revoked.add(kid)
    answer = site.ask("key.revoke", kid=kid, choice="wait")
    assert answer.succeeded


def with_another_keyset(site: Site) -> Policy:
    on_default = [workspace(name, site.sink(name)) for name in ("acme", "umbrella")]
    return policy_of([keyset(), keyset("other")], [*on_default, workspace("beta", site.sink("beta"), on="other")])


@pytest.fixture(params=[True, False], ids=["with its witness", "without a witness"])
def witness(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_meta_says_what_must_be_known_of_its_keyset(site: Site) -> None:
    site.main.start()
    site.advance(30 * DAY, pace=DAY)
    first = site.active()
    revoke(site, first)
    site.advance(MINUTE)
    part = part_of(site)
    record = site.main.run.around.witness.read()
    assert record is not None
    known = record.keysets[keyset().name]
    assert (part["format"], part["keyset"], part["installation"]) == (1, "default", record.installation)
    assert part["kek_id"] == site.main.run.ready_sealer.kek_id
    assert (part["generation"], part["active"]) == (known.generation, known.active)
    assert part["generation"] == json.loads(meta_of(site).read_bytes())["generation"]
    assert [key["kid"] for key in part["published"]] == [key.kid for key in known.published] == site.main.kids()
    assert part["revoked"] == [first]
    assert {row.seq: row.hash for row in site.audit()}[part["audit_seq"]] == part["audit_hash"]


def test_an_idle_daemon_writes_a_meta_once_an_hour_at_most_and_leaves_the_set_alone(site: Site) -> None:
    """The ends of tokens are rounded to the hour, and nothing else changes."""
    site.main.start()
    site.advance(DAY, pace=HOUR)
    written = []
    before, meta_before = site.main.jwks().stat(), meta_of(site).read_bytes()
    for _ in range(6 * 60):
        site.clock.elapse(MINUTE)
        site.main.settle()
        if meta_of(site).read_bytes() != meta_before:
            meta_before = meta_of(site).read_bytes()
            written.append(site.clock.true)
    assert 0 < len(written) <= 6
    after = site.main.jwks().stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert site.log.named("publish.repaired") == []


def test_a_start_does_not_write_metas_that_say_what_is_so(site: Site) -> None:
    site.main.start()
    site.advance(HOUR + MINUTE)
    site.main.restart()
    before = meta_of(site).stat()
    site.main.restart()
    site.main.settle()
    assert meta_of(site).stat().st_mtime_ns == before.st_mtime_ns
    assert site.log.named("publish.meta_refused") == []


def test_what_was_revoked_stays_so_when_the_whole_state_directory_is_put_back(site: Site, witness: bool) -> None:
    """Neither the database nor the witness knows of it any more; the meta of the newer tree does."""
    site.main.start()
    site.advance(30 * DAY, pace=DAY)
    signed = site.active()
    kept = snapshot(site, witness=witness)
    revoke(site, signed)
    site.advance(PROPAGATION + HOUR, pace=HOUR)
    signs, generation = site.active(), part_of(site)["generation"]
    assert signs not in (None, signed)

    put_back(site, kept)
    site.clock.elapse(5 * MINUTE)
    site.main.start()
    assert {key.kid: key.phase for key in site.signing_keys()}[Kid(str(signed))] is Phase.REVOKED
    assert signed not in site.main.kids()
    assert signs in site.main.kids()
    (restored,) = site.events(EventName.STATE_RESTORED)
    assert restored.event.details["found_by"] == BY_META
    assert len(site.log.named("restore.found")) == 1
    assert part_of(site)["generation"] >= generation
    assert signed in part_of(site)["revoked"]
    site.advance(40 * DAY, pace=DAY)
    assert all(signed not in version.kids for version in site.history["local", "default"][-5:])
    assert len(site.events(EventName.STATE_RESTORED)) == 1
    site.assert_sound()


@pytest.mark.parametrize("later", [2, 12, 29], ids=lambda days: f"{days} days later")
def test_no_live_token_is_refused_when_the_whole_state_directory_is_put_back(
    site: Site, later: int, witness: bool
) -> None:
    """The live key stays in the set though no row knows it; every number goes on from the last that was out."""
    site.main.start()
    site.advance(10 * DAY + HOUR, pace=DAY)
    kept = snapshot(site, witness=witness)
    site.advance(later * DAY + 2 * HOUR, pace=DAY)
    part, head = part_of(site), site.audit()[-1]
    before = {name: site.held_sequence(name) for name in ("acme", "umbrella")}

    put_back(site, kept)
    site.clock.elapse(5 * MINUTE)
    site.main.start()
    had = {key.kid for key in site.signing_keys() if key.origin == "made" and key.created_at < site.clock.wall - HOUR}
    (restored,) = site.events(EventName.STATE_RESTORED)
    assert restored.seq > part["audit_seq"]
    assert part["audit_seq"] <= head.seq
    assert site.active() in (None, part["active"])
    assert (site.active() is not None) == (part["active"] in had)
    now = to_us(site.clock.wall)
    live = {key["kid"] for key in part["published"] if key["ends_at_us"] is not None and key["ends_at_us"] > now}
    assert live <= set(site.main.kids())
    site.advance(40 * DAY, pace=DAY)
    assert all(site.held_sequence(name) > before[name] for name in before)
    assert len(site.events(EventName.STATE_RESTORED)) == 1
    site.assert_sound()


def test_no_generation_is_given_twice_when_the_whole_state_directory_is_put_back(site: Site, witness: bool) -> None:
    site.main.start()
    site.advance(DAY)
    kept = snapshot(site, witness=witness)
    site.advance(70 * DAY, pace=DAY)
    generation = part_of(site)["generation"]
    put_back(site, kept)
    site.main.start()
    published = [row.event for row in site.events(EventName.KEYSET_PUBLISHED)]
    after = [event.details["generation"] for event in published if event.at >= site.clock.wall - MINUTE]
    assert after
    assert min(int(str(number)) for number in after) > generation
    site.assert_sound()


def test_a_keyset_that_the_old_database_does_not_have_is_taken_from_its_meta(site: Site, witness: bool) -> None:
    """Its set is not a stranger's: nobody is asked to adopt or replace it."""
    site.main.start()
    site.advance(DAY)
    kept = snapshot(site, witness=witness)
    both = with_another_keyset(site)
    site.main.load(both)
    site.advance(5 * DAY, pace=DAY)
    signs = site.active("other")
    assert signs is not None
    put_back(site, kept)
    site.main.start(both)
    assert signs in site.main.kids("other")
    assert site.log.named("publish.foreign_key") == []
    site.advance(30 * DAY, pace=DAY)
    site.assert_sound()


def test_a_meta_of_a_keyset_that_neither_database_nor_config_knows_is_followed_once(site: Site) -> None:
    """No row can be made of it, and to look for one again with every tick would be to never come to rest."""
    site.main.start()
    site.advance(DAY)
    usual, kept = site.policy, snapshot(site)
    site.main.load(with_another_keyset(site))
    site.advance(5 * DAY, pace=DAY)
    for _ in range(3):  # one of them was made since: nobody will know of which keyset it was, and each meta names it
        revoke(site, site.active())
        site.advance(PROPAGATION)
    published = site.main.jwks("other").read_bytes()
    site.main.stop()
    shutil.copy(kept / "rotator.db", site.database)
    site.main.start(usual)
    site.advance(30 * DAY, pace=DAY)
    site.main.restart()
    site.advance(HOUR)
    assert len(site.events(EventName.STATE_RESTORED)) == 1
    assert site.main.jwks("other").read_bytes() == published


def test_a_keyset_that_did_not_change_since_goes_on_as_the_database_says(site: Site) -> None:
    """Of it nothing newer is known: the key that signs there goes on signing."""
    both = with_another_keyset(site)
    site.main.start(both)
    site.advance(5 * DAY, pace=DAY)
    signs = site.active("other")
    kept = snapshot(site)
    revoke(site, site.active())
    put_back(site, kept)
    site.main.start(both)
    assert site.events(EventName.STATE_RESTORED)
    assert site.active("other") == signs
    site.advance(30 * DAY, pace=DAY)
    site.assert_sound()


def test_a_meta_that_was_followed_is_not_followed_again(site: Site) -> None:
    """A run that is killed before it writes a witness and metas of its own leaves both behind its database."""
    site.main.start()
    site.advance(10 * DAY, pace=DAY)
    kept = snapshot(site)
    site.advance(30 * DAY, pace=DAY)
    tree = site.root / "newer"
    shutil.copytree(site.main.tree, tree)
    put_back(site, kept)
    site.main.start()
    site.advance(5 * DAY, pace=DAY)
    signs = site.active()
    site.main.stop()
    shutil.copy(kept / "witness.json", site.main.witness)
    shutil.rmtree(site.main.tree)
    shutil.copytree(tree, site.main.tree)
    site.main.start()
    assert len(site.events(EventName.STATE_RESTORED)) == 1
    assert site.active() == signs


@pytest.mark.parametrize("member", ["active", "generation", "revoked", "mac", "kek_id", "keyset", "format"])
def test_a_meta_that_somebody_changed_is_reported_once_and_written_again(site: Site, member: str) -> None:
    """Whoever serves the tree can write it; what they write does not count."""
    site.main.start()
    site.advance(30 * DAY, pace=DAY)
    signs, kids = site.active(), site.main.kids()
    site.main.stop()
    document = json.loads(meta_of(site).read_bytes())
    document["witness"][member] = {"generation": 99, "revoked": [signs], "format": 1.5}.get(member, "0" * 64)
    meta_of(site).write_text(json.dumps(document))
    site.main.start()
    site.advance(HOUR)
    assert site.active() == signs
    assert site.main.kids() == kids
    assert len(site.log.named("publish.meta_refused")) == 1
    site.main.restart()
    assert len(site.log.named("publish.meta_refused")) == 1
    assert site.events(EventName.STATE_RESTORED) == []
    site.assert_sound()


def test_the_meta_of_another_keyset_does_not_count(site: Site) -> None:
    both = with_another_keyset(site)
    site.main.start(both)
    site.advance(5 * DAY, pace=DAY)
    site.main.stop()
    meta_of(site).write_bytes(meta_of(site, "other").read_bytes())
    site.main.start()
    (refused,) = site.log.named("publish.meta_refused")
    assert refused["keyset"] == "default"
    assert part_of(site)["keyset"] == "default"
    site.assert_sound()


def test_an_old_tree_that_is_put_back_changes_nothing_but_itself(site: Site) -> None:
    site.main.start()
    site.advance(10 * DAY, pace=DAY)
    shutil.copytree(site.main.tree, site.root / "old")
    site.advance(30 * DAY, pace=DAY)
    signs, kids = site.active(), site.main.kids()
    site.main.stop()
    shutil.rmtree(site.main.tree)
    shutil.copytree(site.root / "old", site.main.tree)
    site.main.start()
    assert (site.active(), site.main.kids()) == (signs, kids)
    assert len(site.log.named("publish.meta_refused")) == 1
    assert site.events(EventName.STATE_RESTORED) == []


def test_a_meta_that_cannot_be_written_is_a_fault_and_keeps_nothing_waiting(site: Site) -> None:
    site.main.start()
    site.advance(DAY, pace=HOUR)
    site.main.tree_disk.full = True
    sequence = site.held_sequence("acme")
    site.advance(4 * DAY, pace=HOUR)
    assert "No space left" in site.main.run.faults["meta:default"]
    with site.main.run.around.store.read() as snapshot:
        report = status(snapshot, site.policy, site.clock.wall, site.main.run.faults)
    assert ["not full" in problem.next_step for problem in report.problems] == [True]
    assert site.held_sequence("acme") > sequence
    site.main.tree_disk.full = False
    site.advance(MINUTE)
    assert dict(site.main.run.faults) == {}
    site.assert_sound()


def test_a_full_disk_is_one_fault(site: Site) -> None:
    """Once the set cannot be written, either, nobody is told of its meta."""
    site.main.start()
    site.advance(DAY, pace=HOUR)
    site.main.tree_disk.full = True
    site.advance(4 * DAY, pace=HOUR)
    assert list(site.main.run.faults) == ["meta:default"]
    kid = site.active()
    assert kid is not None
    site.revoked.add(kid)
    site.ask("key.revoke", kid=kid, choice="now")
    site.clock.elapse(MINUTE)
    site.main.settle()
    assert [subject for subject in site.main.run.faults if subject != "keyset:default"] == ["publish:default"]
    site.main.tree_disk.full = False
    site.advance(HOUR)
    assert dict(site.main.run.faults) == {}
    assert kid not in site.main.kids()


def test_tokens_of_a_copy_that_went_on_by_itself_are_not_refused(site: Site) -> None:
    """The tree was not there when the old state was started, and comes back later: both histories gave out tokens."""
    site.main.start()
    site.advance(10 * DAY, pace=DAY)
    kept = snapshot(site)
    signed = site.active()
    site.advance(30 * DAY, pace=DAY)
    put_back(site, kept)
    newer = site.root / "newer"
    site.main.tree.rename(newer)
    site.clock.elapse(MINUTE)
    site.main.start()
    site.advance(DAY, pace=HOUR)
    assert site.active() == signed
    assert site.events(EventName.STATE_RESTORED) == []
    held = site.held("acme")
    site.main.stop()
    shutil.rmtree(site.main.tree)
    newer.rename(site.main.tree)
    site.history.clear()  # whoever holds a copy of one history was never promised the tokens of the other
    site.refused.clear()
    now = to_us(site.clock.wall)
    published = {key["kid"] for key in part_of(site)["published"] if (key["ends_at_us"] or 0) > now}
    assert published
    site.main.start()
    assert len(site.events(EventName.STATE_RESTORED)) == 1
    assert {signed} | published <= set(site.main.kids())
    assert site.held("acme") == held
    site.advance(20 * DAY, pace=DAY)
    site.assert_sound()


# ------------------------------------------------------------------------------------------------- a lost database


def lose_database(site: Site, *, witness: bool, tree: bool = True) -> None:
    site.main.stop()
    for path in site.root.glob("rotator.db*"):
        path.unlink()
    if not witness:
        for path in site.main.state.iterdir():  # the witness and the journal of revocations
            path.unlink()
    if not tree:
        shutil.rmtree(site.main.tree)


def take_over(site: Site, keep_for: timedelta) -> Inherited | None:
    """Do what `rotator published adopt` does, in the same order."""
    site.main.start(settle=False)
    run, reading = site.main.run, site.clock.read()
    run.unlock(run.around.keyring.unlock(()))
    inherited = inherit(run, reading)
    reconcile(run, reading)
    register(run, reading)
    adopt_published(run, reading, keep_for)
    site.main.restart()
    return inherited


def test_a_new_database_knows_what_was_revoked_in_the_lost_one(site: Site, witness: bool) -> None:
    """By the witness, tokens too; without it, by the metas of the tree, keys alone."""
    site.main.start()
    site.advance(30 * DAY, pace=DAY)
    signed = site.active()
    revoke(site, signed)
    site.advance(PROPAGATION + HOUR, pace=HOUR)
    jti = site.query("SELECT current FROM workspaces WHERE id = 'acme'")[0][0]
    assert site.ask("token.revoke", jti=jti).succeeded
    site.revoked.add(jti)
    old = site.main.jwks().read_bytes()
    lose_database(site, witness=witness)
    inherited = take_over(site, DAY)
    assert inherited is not None
    assert inherited.revoked_kids == (signed,)
    assert inherited.revoked_jtis == ((jti,) if witness else ())
    assert signed not in site.main.kids()
    for _ in range(2):
        record = site.main.run.around.witness.read()
        assert record is not None
        assert signed in record.revoked_kids
        assert (jti in record.revoked_jtis) == witness
        site.main.restart()
    site.main.stop()
    site.main.jwks().write_bytes(old)  # whoever puts the old set back
    site.main.start()
    assert signed not in site.main.kids()
    assert [row.event.details["revoked_kids"] for row in site.events(EventName.STATE_INHERITED)] == [1]


@pytest.mark.parametrize("tree", [True, False], ids=["tree kept", "tree lost too"])
def test_no_live_token_of_a_lost_database_is_refused(site: Site, tree: bool) -> None:
    """The witness knows until when each key is needed, however short a person thinks, and has the keys themselves."""
    site.main.start()
    site.advance(30 * DAY, pace=DAY)
    generation, live = part_of(site)["generation"], site.active()
    lose_database(site, witness=True, tree=tree)
    site.clock.elapse(MINUTE)
    take_over(site, MINUTE)
    assert live in site.main.kids()
    assert part_of(site)["generation"] > generation
    site.advance(20 * DAY, pace=6 * HOUR)
    assert live not in site.main.kids()
    assert site.active() is not None
    site.assert_sound()


def test_a_start_with_a_lost_database_says_how_its_witness_is_taken_over(site: Site) -> None:
    site.main.start()
    site.advance(DAY)
    lose_database(site, witness=True)
    site.main.start(settle=False).tick()
    assert "rotator published adopt" in site.main.run.faults["witness"]


def test_a_newer_tree_that_comes_while_the_daemon_runs_is_followed_before_it_is_overwritten(site: Site) -> None:
    """As on a file system that is mounted after the daemon was started on an old state."""
    site.main.start()
    site.advance(10 * DAY, pace=DAY)
    kept = snapshot(site)
    revoked = site.active()
    revoke(site, revoked)
    site.advance(5 * DAY, pace=DAY)
    signs = site.active()
    put_back(site, kept)
    newer = site.root / "newer"
    site.main.tree.rename(newer)
    site.main.start()
    site.advance(HOUR)
    shutil.rmtree(site.main.tree)
    newer.rename(site.main.tree)
    site.history.clear()
    site.refused.clear()
    site.advance(5 * MINUTE)
    assert len(site.events(EventName.STATE_RESTORED)) == 1
    assert revoked not in site.main.kids()
    assert signs in site.main.kids()
    assert dict(site.main.run.faults) == {}
    site.advance(20 * DAY, pace=DAY)
    site.assert_sound()
