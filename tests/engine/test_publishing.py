"""The published tree fails, or someone else writes into it, or into the database behind it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rotator.core.events import EventName
from rotator.core.model import Phase
from rotator.errors import PublishError
from tests.engine.site import DAY, HOUR, MINUTE, SECOND, Site, keyset, policy_of, workspace

FOREIGN = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "theirs"} | {
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}


def both_places(site: Site) -> tuple[Path, Path]:
    return site.main.jwks(), site.main.tree / ".well-known" / "jwks.json"


def with_two_keysets(site: Site) -> None:
    site.main.start(
        policy_of(
            [keyset(), keyset("other")],
            [workspace("acme", site.sink("acme")), workspace("b", site.sink("b"), on="other")],
        )
    )


def test_a_tree_that_cannot_be_written_holds_up_nothing_else(site: Site) -> None:
    """The last good file stays, tokens and other keysets go on, status names it, and it heals by itself."""
    with_two_keysets(site)
    signer = site.active()
    site.advance(12 * DAY, pace=DAY)
    before = site.main.kids()
    site.main.tree_disk.full = True
    site.advance(9 * DAY, pace=DAY)

    assert site.main.kids() == before
    assert site.active() == signer
    assert "No space left" in site.main.run.faults["publish:default"]
    said = Counter((fields["keyset"], "meta" in str(fields["problem"])) for fields in site.log.named("publish.failed"))
    assert said == {(name, of_meta): 1 for name in ("default", "other") for of_meta in (False, True)}
    assert min(failures for (failures,) in site.query("SELECT failures FROM keysets")) > 3
    issued = [row for row in site.events(EventName.TOKEN_ISSUED) if row.event.workspace == "acme"]
    assert len(issued) >= 7

    site.main.tree_disk.full = False
    site.advance(MINUTE)
    assert "publish:default" not in site.main.run.faults
    site.advance(5 * DAY, pace=DAY)
    assert site.active() != signer
    site.assert_sound()


def test_one_keyset_that_cannot_be_published_holds_up_no_other(site: Site) -> None:
    """What stands in the way of one set's file is that keyset's fault alone."""
    with_two_keysets(site)
    site.advance(12 * DAY, pace=DAY)
    signers = site.active(), site.active("other")
    directory = site.main.tree / "keysets" / "default"
    directory.rename(site.main.tree / "moved")
    directory.write_text("no directory")
    site.advance(10 * DAY, pace=DAY)
    assert site.active() == signers[0]
    assert site.active("other") not in (signers[1], None)
    assert [name for name in site.main.run.faults if name.startswith("publish:")] == ["publish:default"]
    directory.unlink()
    (site.main.tree / "moved").rename(directory)
    site.advance(5 * DAY, pace=DAY)
    assert site.active() != signers[0]
    assert dict(site.main.run.faults) == {}
    site.assert_sound()


def test_failed_publishing_is_tried_again_with_growing_pauses(site: Site) -> None:
    site.main.tree_disk.full = True
    site.main.start()
    ticks = 0
    end = site.clock.true + 10 * MINUTE
    while site.clock.true < end:
        ticks += 1
        outcome = site.main.outcome
        assert outcome is not None
        site.clock.elapse(max(outcome.next_due - site.clock.wall, SECOND / 1000))
        site.main.settle()
    assert 20 <= ticks <= 40
    site.main.tree_disk.full = False
    site.advance(31 * SECOND)
    assert dict(site.main.run.faults) == {}


@pytest.mark.parametrize("damage", ["delete one", "delete both", "empty", "garbage", "foreign key", "fewer"])
def test_a_set_that_someone_changed_is_repaired_at_the_next_heartbeat(site: Site, damage: str) -> None:
    site.main.start()
    site.advance(HOUR)
    good = site.main.jwks().read_bytes()
    document = json.loads(good)
    paths = both_places(site)
    match damage:
        case "delete one":
            paths[1].unlink()
        case "delete both":
            for path in paths:
                path.unlink()
        case _:
            text = {
                "empty": '{"keys": []}',
                "garbage": "{",
                "foreign key": json.dumps({"keys": [*document["keys"], FOREIGN]}),
                "fewer": json.dumps({"keys": document["keys"][:1]}),
            }[damage]
            for path in paths:
                path.write_text(text)
    site.advance(31 * SECOND)

    assert [path.read_bytes() for path in paths] == [good, good]
    kept = list((site.main.state / "aside").glob("default/*.json"))
    assert len(kept) == (1 if damage == "foreign key" else 0)
    assert len(site.log.named("publish.foreign_key")) == len(kept)
    assert len(site.log.named("publish.repaired")) == 1
    site.advance(2 * HOUR)
    assert len(site.log.named("publish.repaired")) == 1
    assert len(site.log.named("publish.foreign_key")) == len(kept)
    assert dict(site.main.run.faults) == {}


def lasting(document: dict[str, Any]) -> dict[str, Any]:
    """Return what is the same whenever a file is written: all but the moment, and the head of the audit then."""
    moving = {"published_at", "next_change_at", "audit_seq", "audit_hash", "mac"}
    return {
        name: lasting(value) if isinstance(value, dict) else value
        for name, value in document.items()
        if name not in moving
    }


@pytest.mark.parametrize("damage", ["delete", "edit"])
@pytest.mark.parametrize("name", [".well-known/openid-configuration", "keysets/default/jwks.meta.json"])
def test_what_stands_around_the_set_is_repaired_at_the_next_heartbeat(site: Site, name: str, damage: str) -> None:
    site.main.start()
    site.advance(10 * MINUTE)  # within the hour to which the ends of tokens are rounded
    path = site.main.tree / name
    good = json.loads(path.read_bytes())
    if damage == "delete":
        path.unlink()
    else:
        path.write_text(json.dumps(good | {"jwks_uri": "https://evil.example", "sha256": "0"}))
    site.advance(31 * SECOND)
    assert lasting(json.loads(path.read_bytes())) == lasting(good)
    assert site.main.run.refused_metas == {}


def insert_key(site: Site, kid: str, mac: bytes, public_jwk: str) -> None:
    template = site.query("SELECT * FROM signing_keys WHERE phase = 'pending'")
    names = [row[1] for row in site.query("PRAGMA table_info(signing_keys)")]
    values = dict(zip(names, template[0], strict=True)) | {
        "kid": kid,
        "public_jwk": public_jwk,
        "mac": mac,
        "sequence": 90,
    }
    marks = ", ".join("?" for _ in values)
    columns = ", ".join(values)
    site.meddle(f"INSERT INTO signing_keys ({columns}) VALUES ({marks})", *values.values())  # noqa: S608 - our own names


@pytest.mark.parametrize("mac", ["none", "of another row"])
@pytest.mark.parametrize("when", ["running", "stopped"])
def test_a_key_that_someone_put_into_the_database_is_never_published(site: Site, mac: str, when: str) -> None:
    """It carries no MAC of ours, so it is left where it is and reported; everything else goes on."""
    site.main.start()
    kids = site.main.kids()
    stolen = site.query("SELECT mac FROM signing_keys WHERE phase = 'pending'")[0][0]
    if when == "stopped":
        site.main.stop()
    insert_key(site, "theirs", b"" if mac == "none" else stolen, json.dumps(FOREIGN, sort_keys=True))
    if when == "stopped":
        site.main.start()
    site.advance(2 * HOUR)
    assert site.main.kids() == kids
    assert "key:theirs" in site.main.run.faults
    assert [fields["kid"] for fields in site.log.named("key.unauthentic")] == ["theirs"]
    site.advance(25 * DAY, pace=DAY)
    assert len(site.events(EventName.KEY_ACTIVATED)) == 2
    assert all("theirs" not in version.kids for version in site.history["local", "default"])
    site.assert_sound()


@pytest.mark.parametrize("when", ["running", "stopped"])
def test_a_published_key_whose_row_was_edited_stays_published_as_it_was(site: Site, when: str) -> None:
    """The file is the better witness: nothing is published until a person has looked."""
    site.main.start()
    site.advance(2 * HOUR)
    good = site.main.jwks().read_bytes()
    if when == "stopped":
        site.main.stop()
    site.meddle("UPDATE signing_keys SET public_jwk = ? WHERE phase = 'active'", json.dumps(FOREIGN, sort_keys=True))
    if when == "stopped":
        site.main.start()
    site.advance(3 * HOUR)
    assert site.main.jwks().read_bytes() == good
    assert "keyset:default" in site.main.run.faults
    assert site.refused == []


def _edit_signer(site: Site) -> str:
    """Change the public half of the key that signs, as somebody who can write into the database might."""
    ((kid, jwk),) = site.query("SELECT kid, public_jwk FROM signing_keys WHERE phase = 'active'")
    site.meddle("UPDATE signing_keys SET public_jwk = ? WHERE kid = ?", jwk.replace("sig", "enc"), kid)
    return str(kid)


@pytest.mark.parametrize("clock", ["trusted", "distrusted"])
def test_what_is_revoked_leaves_a_set_whose_other_rows_cannot_be_believed(site: Site, clock: str) -> None:
    """The rest of the file stays as it was, tokens on the edited key are not refused, and the answer says how it is."""
    site.main.start()
    site.advance(21 * DAY, pace=DAY)  # the first key is in grace now, and tokens on it are still out
    (prior,) = (key.kid for key in site.signing_keys(Phase.GRACE))
    before = {key["kid"]: key for key in json.loads(site.main.jwks().read_bytes())["keys"]}
    if clock == "distrusted":
        site.clock.leap(-60 * DAY)
        site.main.settle()
    edited = _edit_signer(site)
    site.revoked.add(prior)
    answer = site.ask("key.revoke", kid=prior)
    assert answer.succeeded
    assert "out of the published set; the keyset is out of order" in answer.result or clock == "distrusted"
    del before[prior]
    assert edited in before
    for place in both_places(site):
        assert {key["kid"]: key for key in json.loads(place.read_bytes())["keys"]} == before
    site.advance(2 * HOUR)
    assert {key["kid"]: key for key in json.loads(site.main.jwks().read_bytes())["keys"]} == before
    assert site.refused == []


def test_a_replica_that_slept_through_a_revocation_lets_the_key_leave_all_the_same(site: Site) -> None:
    """Its own file still shows what another revoked, when it finds that a row was edited meanwhile."""
    site.main.start()
    other = site.daemon("other").start()
    site.advance(3 * DAY, pace=DAY)
    signer = site.active()
    assert signer in other.kids()
    spares = [kid for kid in other.kids() if kid != signer]
    site.revoked.add(signer)
    assert site.ask("key.revoke", kid=signer).succeeded
    assert _edit_signer(site) in spares
    other.settle()
    site.advance(2 * MINUTE)
    assert "keyset:default" in other.run.faults
    assert signer not in other.kids()
    assert other.kids() == site.main.kids()
    assert set(spares) <= set(other.kids())
    assert site.refused == []


def test_revoking_the_key_whose_row_was_edited_puts_the_keyset_right(site: Site) -> None:
    """It is one of the two ways out that the fault names."""
    site.main.start()
    site.advance(3 * DAY, pace=DAY)
    edited = _edit_signer(site)
    site.advance(2 * HOUR)
    assert "keyset:default" in site.main.run.faults
    site.revoked.add(edited)
    assert site.ask("key.revoke", kid=edited).succeeded
    assert edited not in site.main.kids()
    assert site.active() not in (None, edited)
    site.advance(MINUTE)
    assert "keyset:default" not in site.main.run.faults
    site.assert_sound()


def test_a_private_half_that_does_not_open_is_replaced_by_the_spare(site: Site) -> None:
    """The spare has waited long enough, so it takes over at once, and no token is refused."""
    site.main.start()
    site.advance(3 * DAY, pace=DAY)
    first, spare = site.active(), site.signing_keys(Phase.PENDING)[0].kid
    site.main.stop()
    site.rewrite("signing_keys", "phase = 'active'", sealed=b"\1")
    site.main.start()
    assert site.active() == spare
    assert first in site.main.kids()
    assert f"key:{first}" in site.main.run.faults
    site.advance(5 * DAY, pace=DAY)
    site.assert_sound()


def test_a_tree_that_is_a_symlink_is_not_written(site: Site) -> None:
    elsewhere = site.root / "elsewhere"
    elsewhere.mkdir()
    site.main.tree.symlink_to(elsewhere)
    with pytest.raises(PublishError, match="symlink"):
        site.main.start()
    assert list(elsewhere.iterdir()) == []
