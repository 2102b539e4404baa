"""Keys of another system join a keyset that runs: no token of either is refused, and nothing is there in the clear."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import jwt
import pytest
from joserfc.jwk import ECKey, OKPKey

from rotator.adapters.keyfile import read_jwk
from rotator.core.events import EventName
from rotator.core.model import Algorithm, Origin, Phase, SigningKey
from rotator.core.secret import Secret
from rotator.engine.adopt import adopt_published
from rotator.engine.recover import reconcile
from rotator.engine.register import register
from rotator.engine.requests.importing import pack
from rotator.engine.requests.sealed import secret_of, with_secret
from rotator.errors import SealError
from rotator.ports import SEALED, RequestRow
from tests.engine.site import DAY, HOUR, ISSUER, MINUTE, PROPAGATION, T0, Site, keyset, policy_of, workspace

LIFETIME = 10 * DAY
"""Of tokens of the old system."""


class OldIssuer:
    """Another system, with keys and tokens of its own."""

    def __init__(self) -> None:
        self.signing = ECKey.generate_key("P-256", {"kid": "old-2", "use": "sig", "alg": "ES256"})
        self.former = ECKey.generate_key("P-256", {"kid": "old-1", "use": "sig", "alg": "ES256"})

    @property
    def private(self) -> dict[str, Any]:
        return dict(self.signing.as_dict(private=True))

    @property
    def public(self) -> dict[str, Any]:
        return {"keys": [dict(key.as_dict(private=False)) for key in (self.former, self.signing)]}

    def token(self, site: Site, key: ECKey) -> str:
        claims = {"iss": ISSUER, "aud": "api", "exp": int((site.clock.wall + LIFETIME).timestamp())}
        return jwt.encode(claims, key.as_pem(private=True), algorithm="ES256", headers={"kid": key.kid})


def accepted(site: Site, token: str) -> bool:
    """Tell whether a verifier takes a token by every copy that it may hold now."""
    kid = jwt.get_unverified_header(token)["kid"]
    for key in json.loads(site.main.jwks().read_bytes())["keys"]:
        if key["kid"] == kid:
            jwt.decode(token, jwt.PyJWK(key), algorithms=["ES256"], audience="api", options={"verify_exp": False})
    return all(kid in kids for kids in site.copies("local", "default"))


def packed(document: Mapping[str, Any]) -> bytes:
    """Return the secret of an import as the control socket has it sealed."""
    return pack(read_jwk(Secret(json.dumps(document)), "FILE").keys)


def ask(site: Site, document: Mapping[str, Any], **arguments: str) -> RequestRow:
    """Store an import as the control socket does, let the daemon work, and return what became of it."""
    return site.ask("key.import", None, packed(document), **{"keyset": "default", **arguments})


def until(site: Site, span: timedelta) -> str:
    return (site.clock.wall + span).isoformat()


def key_named(site: Site, kid: str) -> SigningKey:
    return next(key for key in site.signing_keys() if key.kid == kid)


# ------------------------------------------------------------------------------------------------------- public keys


def test_public_keys_stay_published_until_their_end_and_never_sign(site: Site) -> None:
    site.main.start()
    site.advance(DAY)
    old = OldIssuer()
    answer = ask(site, old.public, until=until(site, LIFETIME))
    assert answer.succeeded, answer.result
    assert "2 keys are published with keyset default until" in answer.result
    assert {"old-1", "old-2"} <= set(site.main.kids())
    token = old.token(site, old.signing)
    site.advance(LIFETIME - HOUR, pace=DAY)
    assert accepted(site, token)
    site.advance(2 * HOUR)
    assert not {"old-1", "old-2"} & set(site.main.kids())
    adopted = [row.event for row in site.events(EventName.KEY_ADOPTED)]
    assert [(event.kid, event.actor, event.reason) for event in adopted] == [
        ("old-1", "ada(1000)", "because"),
        ("old-2", "ada(1000)", "because"),
    ]
    assert {row.event.kid for row in site.events(EventName.KEY_ACTIVATED)} & {"old-1", "old-2"} == set()
    site.assert_sound()


def test_what_is_there_already_is_left_and_what_is_new_comes(site: Site) -> None:
    """The old system rotated meanwhile: its whole set may be given again."""
    site.main.start()
    old = OldIssuer()
    assert ask(site, {"keys": old.public["keys"][:1]}, until=until(site, DAY)).succeeded
    answer = ask(site, old.public, until=until(site, 2 * DAY))
    assert answer.succeeded
    assert "1 key is published" in answer.result
    assert "Already there: old-1" in answer.result
    events = site.events()
    answer = ask(site, old.public, until=until(site, 3 * DAY))
    assert answer.succeeded
    assert answer.result == "nothing changed: already there: old-1, old-2"
    assert site.events() == events


# ------------------------------------------------------------------------------------------------------- private keys


def test_a_signing_key_keeps_its_kid_and_signs_in_its_turn_after_the_propagation_period(site: Site) -> None:
    site.main.start()
    site.advance(DAY)
    old = OldIssuer()
    answer = ask(site, old.private)
    assert answer.succeeded, answer.result
    assert "is pending in keyset default" in answer.result
    assert "propagation_period of 49h" in answer.result
    assert "1 key signs before it" in answer.result
    key = key_named(site, "old-2")
    assert (key.phase, key.origin) == (Phase.PENDING, Origin.IMPORTED)
    site.advance(50 * DAY, pace=DAY)
    (signed,) = [row.event for row in site.events(EventName.KEY_ACTIVATED) if row.event.kid == "old-2"]
    assert signed.at - T0 - DAY >= PROPAGATION
    on_it = [row for row in site.events(EventName.TOKEN_ISSUED) if row.event.kid == "old-2"]
    assert on_it
    site.assert_sound()


def retired_at(site: Site, kid: str) -> datetime:
    (left,) = [row.event.at for row in site.events(EventName.KEY_RETIRED) if row.event.kid == kid]
    return left


def test_a_signing_key_stays_until_the_last_token_that_it_signed_elsewhere_has_ended(site: Site) -> None:
    """However long before that it stops signing here: verifiers of those tokens fetch its public half from here."""
    site.main.start()
    site.advance(DAY)
    old = OldIssuer()
    end = site.clock.wall + 90 * DAY
    answer = ask(site, old.private, until=end.isoformat())
    assert answer.succeeded, answer.result
    assert f"Tokens that it signed elsewhere are taken to end by {end:%Y-%m-%d %H:%MZ}" in answer.result
    assert key_named(site, "old-2").last_exp == end
    (event,) = site.events(EventName.KEY_IMPORTED)
    assert event.event.details["foreign_until"] == end.isoformat(timespec="seconds")
    site.advance(70 * DAY, pace=DAY)
    assert key_named(site, "old-2").phase is Phase.GRACE
    site.advance(15 * DAY, pace=DAY)
    assert "old-2" in site.main.kids()  # its grace is over
    site.advance(6 * DAY, pace=DAY)
    assert end < retired_at(site, "old-2") <= end + DAY  # the pace of this test
    site.assert_sound()


def test_of_a_signing_key_that_nobody_says_an_end_for_the_grace_period_is_taken(site: Site) -> None:
    """It signs for another system, most likely: nothing may take it out as one that never signed."""
    site.main.start()
    site.advance(3 * DAY)
    answer = ask(site, OldIssuer().private)
    end = site.clock.wall + keyset().grace_period
    assert f"taken to end by {end:%Y-%m-%d %H:%MZ}, the keyset's grace_period of 4d1m from now" in answer.result
    site.main.load(replace(site.policy, keysets={"default": keyset(algorithm=Algorithm.EDDSA)}))  # type: ignore[dict-item]
    site.advance(keyset().grace_period - HOUR, pace=DAY)
    assert "old-2" in site.main.kids()
    site.advance(2 * HOUR)
    assert key_named(site, "old-2").phase is Phase.RETIRED
    site.assert_sound()


@pytest.mark.parametrize(("said", "taken"), [(None, LIFETIME), (5 * DAY, LIFETIME), (20 * DAY, 20 * DAY)])
def test_of_an_adopted_key_the_later_end_stands(site: Site, said: timedelta | None, taken: timedelta) -> None:
    """What was said at its adoption is not taken back by what is said, or not said, with its private half."""
    site.main.start()
    site.advance(DAY)
    old, began = OldIssuer(), site.clock.wall
    assert ask(site, old.public, until=until(site, LIFETIME)).succeeded
    answer = ask(site, old.private, **({} if said is None else {"until": (began + said).isoformat()}))
    assert f"taken to end by {began + taken:%Y-%m-%d %H:%MZ}" in answer.result
    assert "grace_period" not in answer.result
    assert key_named(site, "old-2").last_exp == began + taken
    site.assert_sound()


def test_several_may_wait_at_once(site: Site) -> None:
    """Behind the spares that are there; each signs in its turn, and nothing is made too many of."""
    site.main.start()
    site.advance(DAY)
    for number in range(3):
        key = ECKey.generate_key("P-256", {"kid": f"more-{number}"}).as_dict(private=True)
        assert ask(site, dict(key)).succeeded
    site.advance(80 * DAY, pace=DAY)
    signed = [row.event.kid for row in site.events(EventName.KEY_ACTIVATED)]
    assert signed[2:5] == ["more-0", "more-1", "more-2"]
    assert site.log.named("keyset.failed") == []
    site.assert_sound()


def test_its_private_half_is_nowhere_in_the_clear_and_gone_when_it_has_signed(site: Site) -> None:
    """Not in the request, the audit, the log, the database or the tree; and sealed in one place alone."""
    site.main.start()
    old = OldIssuer()
    assert ask(site, old.private).succeeded
    (arguments,) = [row[0] for row in site.query("SELECT arguments FROM requests")]
    assert SEALED not in json.loads(arguments)
    secret = old.private["d"]
    assert secret not in repr((site.audit(), site.log.events))
    for path in site.root.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes()
    while key_named(site, "old-2").phase in (Phase.PENDING, Phase.ACTIVE):
        site.advance(5 * DAY, pace=DAY)
    assert site.query("SELECT sealed FROM signing_keys WHERE kid = 'old-2'") == [(None,)]
    site.assert_sound()


@pytest.mark.parametrize(
    "changed",
    [
        {"nonce": "x"},
        {"kind": "token.show"},
        {"arguments": {"keyset": "other"}},
        {"actor": "eve(1)"},
        {"uid": 1},
        {"reason": "x"},
    ],
)
def test_a_sealed_record_opens_in_its_own_row_alone(site: Site, changed: dict[str, Any]) -> None:
    site.main.start()
    draft = RequestRow(
        id=0, kind="key.import", arguments={"keyset": "default"}, actor="ada(7)", uid=7, reason="", created_at=T0
    )
    stored = with_secret(site.main.run.ready_sealer, draft, b"secret")
    assert secret_of(site.main.run, replace(stored, id=9)).reveal() == b"secret"
    if "arguments" in changed:
        changed = {"arguments": {**changed["arguments"], SEALED: stored.arguments[SEALED]}}
    for moved in (replace(stored, **changed), replace(stored, created_at=T0 + MINUTE)):
        with pytest.raises(SealError, match="does not open"):
            secret_of(site.main.run, moved)


def test_a_sealed_record_belongs_to_its_own_request(site: Site) -> None:
    """One that was accepted with another request's secret, as by a fault of ours, does not open."""
    site.main.start()
    draft = RequestRow(
        id=0, kind="key.import", arguments={"keyset": "default"}, actor="eve(1)", uid=1, reason="", created_at=T0
    )
    stolen = with_secret(site.main.run.ready_sealer, draft, packed(OldIssuer().private))
    answer = site.ask("key.import", None, keyset="default", sealed=str(stolen.arguments[SEALED]))
    assert not answer.succeeded
    assert "does not open" in answer.result
    assert "old-2" not in site.main.kids()
    damaged = site.ask("key.import", keyset="default", sealed="k1 %%%")
    assert "damaged" in damaged.result
    assert "came without the key" in site.ask("key.import", keyset="default").result


# ------------------------------------------------------------------------------------------------------------- refused


def test_what_is_refused_and_why(site: Site) -> None:
    site.main.start(policy_of([keyset(), keyset("other", algorithm=Algorithm.EDDSA)], [workspace("acme")]))
    site.advance(DAY)
    old = OldIssuer()
    end = until(site, DAY)
    made = site.active()
    assert made is not None
    mine = json.loads(next(key.public_jwk for key in site.signing_keys() if key.kid == made))
    foreign = {**old.private, "kid": made}
    ed = OKPKey.generate_key("Ed25519", {"kid": "ed"}).as_dict(private=True)
    renamed = {**mine, "kid": "renamed"}
    refusals = [
        (old.public, {}, "say when, with --until or --keep-for"),
        (old.public, {"until": until(site, -HOUR)}, "is not between now and"),
        (old.public, {"until": until(site, 4000 * DAY)}, "is not between now and 3653 days"),
        (old.public, {"until": "tomorrow"}, "'tomorrow' is no moment"),
        (old.public, {"until": "2027-01-01"}, "is no moment"),
        (old.public, {"until": end, "keyset": "none"}, "the config has no keyset 'none'; it has default, other"),
        (ed, {}, "key ed is for EdDSA, and keyset default signs with ES256"),
        (old.private, {"keyset": "other"}, "key old-2 is for ES256, and keyset other signs with EdDSA"),
        (foreign, {}, f"the kid {made} belongs to another key, active in keyset default"),
        (renamed, {"until": end}, f"key renamed is there already: active in keyset default under the kid {made}"),
    ]
    for document, arguments, said in refusals:
        answer = ask(site, document, **arguments)
        assert not answer.succeeded
        assert said in answer.result
    assert site.events(EventName.KEY_IMPORTED, EventName.KEY_ADOPTED) == []
    site.assert_sound()


def test_what_was_used_or_revoked_never_comes_back(site: Site) -> None:
    site.main.start()
    old = OldIssuer()
    assert ask(site, {"keys": old.public["keys"][:1]}, until=until(site, HOUR)).succeeded
    site.advance(2 * HOUR)
    assert key_named(site, "old-1").phase is Phase.RETIRED
    answer = ask(site, old.public["keys"][0], until=until(site, HOUR))
    assert "was used before and is retired" in answer.result
    answer = ask(site, {**old.public["keys"][0], "kid": "new-name"}, until=until(site, HOUR))
    assert "is retired under the kid old-1" in answer.result
    site.main.run.revoked_kids.add(site.signing_keys()[0].kid)
    site.rewrite("signing_keys", "kid = 'old-1'", phase="revoked")
    assert "was revoked" in ask(site, old.public["keys"][0], until=until(site, HOUR)).result
    site.main.run.revoked_kids.add(key_named(site, "old-1").kid)
    assert "was revoked, and never comes back" in ask(site, old.public["keys"][0], until=until(site, HOUR)).result


def test_a_set_does_not_grow_without_bound(site: Site) -> None:
    site.main.start()
    many = {"keys": [ECKey.generate_key("P-256", {"kid": f"k{n}"}).as_dict(private=False) for n in range(25)]}
    answer = ask(site, many, until=until(site, DAY))
    assert not answer.succeeded
    assert "would have 27 keys; more than 20 are too many" in answer.result
    assert len(site.main.kids()) == 2


# ------------------------------------------------------------------------------------------------ adopt, then complete


def put_in_tree(site: Site, document: Mapping[str, Any], *, both: bool = True) -> None:
    for place in (site.main.jwks(), site.main.tree / ".well-known" / "jwks.json")[: 2 if both else 1]:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(document))


def adopt(site: Site) -> None:
    """Do what `rotator published adopt` does."""
    site.main.start(settle=False)
    run, reading = site.main.run, site.clock.read()
    run.unlock(run.around.keyring.unlock(()))
    reconcile(run, reading)
    register(run, reading)
    adopt_published(run, reading, LIFETIME)
    site.main.restart()


def test_an_adopted_key_that_gets_its_private_half_signs_at_once(site: Site) -> None:
    """The takeover without a gap: verifiers have its public half, so that the first token need not wait."""
    old = OldIssuer()
    put_in_tree(site, old.public)
    site.observe(site.main)
    before = [old.token(site, old.signing), old.token(site, old.former)]
    adopt(site)
    assert site.active() is None
    answer = ask(site, old.private)
    assert answer.succeeded, answer.result
    assert "its public half is published already; it is the next to sign" in answer.result
    assert site.active() == "old-2"
    assert {row.event.at for row in site.events(EventName.TOKEN_ISSUED)} == {site.clock.wall}
    assert jwt.get_unverified_header(site.held("acme"))["kid"] == "old-2"
    for _ in range(9):
        site.advance(DAY, pace=DAY)
        assert all(accepted(site, token) for token in before)
    site.advance(40 * DAY, pace=DAY)
    key = key_named(site, "old-2")
    assert (key.phase, key.has_private) == (Phase.RETIRED, False)
    assert site.active() not in (None, "old-2")
    site.assert_sound()


def test_a_key_that_stood_in_one_place_alone_waits_like_every_other(site: Site) -> None:
    """Verifiers of the other place may hold a set without it."""
    old = OldIssuer()
    put_in_tree(site, old.public, both=False)
    site.observe(site.main)
    adopt(site)
    assert ask(site, old.private).succeeded
    assert site.active() is None
    site.advance(PROPAGATION - MINUTE)
    assert site.active() is None
    site.advance(2 * MINUTE)
    assert site.active() == "old-2"
    site.assert_sound()


def test_an_imported_key_that_is_not_wanted_any_more_stays_until_its_old_tokens_have_ended(site: Site) -> None:
    """The keyset changes its algorithm before it ever signed here."""
    site.main.start()
    site.advance(3 * DAY)
    old = OldIssuer()
    end = until(site, LIFETIME)
    assert ask(site, old.public, until=end).succeeded
    assert ask(site, old.private).succeeded
    token = old.token(site, old.signing)
    site.main.load(replace(site.policy, keysets={"default": keyset(algorithm=Algorithm.EDDSA)}))  # type: ignore[dict-item]
    site.advance(LIFETIME - HOUR, pace=DAY)
    assert key_named(site, "old-2").phase is Phase.PENDING
    assert accepted(site, token)
    site.advance(2 * HOUR)
    assert key_named(site, "old-2").phase is Phase.RETIRED
    assert site.log.named("keyset.failed") == []
    site.assert_sound()


def test_keys_that_are_imported_before_a_start_are_in_its_first_set(site: Site) -> None:
    """The machine is lost with its witness, and the published set is newer than the backup: it loses no key."""
    site.main.start()
    site.advance(13 * DAY, pace=DAY)
    site.main.stop()
    backup = site.database.read_bytes()
    site.main.start()
    site.advance(28 * DAY, pace=DAY)
    signs = site.active()
    published = json.loads(site.main.jwks().read_bytes())
    site.main.stop()
    site.database.write_bytes(backup)
    site.main.witness.unlink()
    site.main.jwks().with_name("jwks.meta.json").unlink()  # nothing says any more what came after the backup
    known = {row[0] for row in site.query("SELECT kid FROM signing_keys")}
    assert signs not in known
    newer = {"keys": [key for key in published["keys"] if key["kid"] not in known]}
    end = until(site, LIFETIME)
    number = site.accept("key.import", None, packed(newer), keyset="default", until=end).id
    before = len(site.history["local", "default"])
    site.main.start()
    assert site.answer(number).succeeded
    assert all(signs in version.kids for version in site.history["local", "default"][before - 1 :])
    site.advance(LIFETIME - HOUR, pace=DAY)
    assert signs in site.main.kids()
    assert site.chain() is None


def test_a_restore_from_before_the_import_keeps_what_old_tokens_need(site: Site) -> None:
    """The witness knows until when tokens of the old system live, also of a key that has not signed here yet."""
    site.main.start()
    site.advance(3 * DAY)
    site.main.stop()
    backup = site.database.read_bytes()
    site.main.start()
    old = OldIssuer()
    assert ask(site, old.public, until=until(site, LIFETIME)).succeeded
    assert ask(site, old.private).succeeded
    token = old.token(site, old.signing)
    site.advance(HOUR)
    site.main.stop()
    site.database.write_bytes(backup)
    site.main.start()
    key = key_named(site, "old-2")
    assert (key.phase, key.has_private) == (Phase.GRACE, False)
    site.advance(LIFETIME - 2 * HOUR, pace=DAY)
    assert accepted(site, token)
    site.assert_sound()


def test_a_key_that_came_back_stays_published_when_a_database_of_its_first_life_is_put_back(site: Site) -> None:
    """That has it as adopted and gone; the witness knows that it has been imported, and signed, since."""
    site.main.start()
    site.advance(DAY)
    site.main.stop()
    before = site.database.read_bytes()
    site.main.start()
    old = OldIssuer()
    ask(site, old.public, until=until(site, HOUR))
    site.advance(2 * DAY, pace=HOUR)
    assert key_named(site, "old-2").phase is Phase.RETIRED
    site.main.stop()
    first_life = site.database.read_bytes()
    site.database.write_bytes(before)
    site.main.start()
    assert ask(site, old.private).succeeded
    site.advance(45 * DAY, pace=DAY)
    assert site.active() == "old-2"
    site.main.stop()
    site.database.write_bytes(first_life)
    site.clock.elapse(MINUTE)
    site.main.start()
    assert key_named(site, "old-2").phase is Phase.GRACE
    assert "old-2" in site.main.kids()
    site.advance(20 * DAY, pace=DAY)
    assert "old-2" not in site.main.kids()
    assert site.refused == []
    assert site.chain() is None
