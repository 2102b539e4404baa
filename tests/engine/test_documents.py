"""What is published beside the sets: discovery, which changes as one, and the meta, which names the next change."""

import json
from dataclasses import replace
from datetime import datetime

import jwt
import pytest

from rotator.core.events import EventName
from rotator.core.model import DEFAULT_KEYSET
from rotator.core.policy import Policy
from rotator.errors import RefusedError
from tests.engine.site import DAY, HOUR, ISSUER, MAX_CACHE, PROPAGATION, Site, keyset, policy_of
from tests.engine.test_revoke import settled

NEW_ISSUER = "https://id.example.net"


def moved(site: Site) -> Policy:
    """Return the policy with another issuer, whose tree is served where it says."""
    policy = site.policy
    default = replace(policy.keysets[DEFAULT_KEYSET], issuer=NEW_ISSUER)
    return replace(policy, keysets={DEFAULT_KEYSET: default}, base_url=NEW_ISSUER, digest="moved")


def discovery(site: Site) -> tuple[str, str]:
    document = json.loads((site.main.tree / ".well-known" / "openid-configuration").read_bytes())
    return document["issuer"], document["jwks_uri"]


def issuer_of(site: Site, name: str) -> str:
    return str(jwt.decode(site.held(name), options={"verify_signature": False})["iss"])


def test_another_issuer_waits_until_it_is_accepted_and_then_changes_everywhere(site: Site) -> None:
    """Every verifier that checks `iss` refuses either the old tokens or the new ones: nobody wants that by accident."""
    site.main.start()
    site.advance(HOUR)
    wanted, before = moved(site), discovery(site)
    with pytest.raises(RefusedError) as refused:
        site.main.load(wanted)
    assert f"changes from {ISSUER} to {NEW_ISSUER}" in str(refused.value)
    assert "and then 2 tokens that may live until 2026-" in str(refused.value)
    site.advance(HOUR)
    assert discovery(site) == before == (ISSUER, f"{ISSUER}/.well-known/jwks.json")
    assert issuer_of(site, "acme") == ISSUER
    assert site.ask("config.accept").succeeded
    site.advance(4 * DAY)
    assert discovery(site) == (NEW_ISSUER, f"{NEW_ISSUER}/.well-known/jwks.json")
    assert issuer_of(site, "acme") == NEW_ISSUER
    site.main.load(replace(wanted, digest="again"))
    assert "config" not in site.main.run.faults
    site.assert_sound()


def test_at_a_start_the_old_issuer_stays_until_the_new_one_is_accepted(site: Site) -> None:
    site.main.start()
    site.advance(HOUR)
    wanted = moved(site)
    site.main.restart(wanted)
    assert f"changes from {ISSUER} to {NEW_ISSUER}" in site.main.run.faults["config"]
    site.advance(4 * DAY)
    assert discovery(site) == (ISSUER, f"{ISSUER}/.well-known/jwks.json")
    assert issuer_of(site, "acme") == ISSUER
    assert "config" in site.main.run.faults
    assert site.ask("config.accept").succeeded
    site.advance(4 * DAY)
    assert discovery(site) == (NEW_ISSUER, f"{NEW_ISSUER}/.well-known/jwks.json")
    assert issuer_of(site, "acme") == NEW_ISSUER
    assert "config" not in site.main.run.faults
    site.assert_sound()


def test_an_issuer_changes_at_once_where_no_token_names_it(site: Site) -> None:
    site.main.start(policy_of([keyset()], []))
    site.main.load(moved(site))
    assert discovery(site) == (NEW_ISSUER, f"{NEW_ISSUER}/.well-known/jwks.json")


def test_a_tree_that_is_served_elsewhere_is_said_at_once(site: Site) -> None:
    site.main.start()
    site.main.load(replace(site.policy, base_url="https://cdn.example.com"))
    assert discovery(site) == (ISSUER, "https://cdn.example.com/.well-known/jwks.json")
    assert not site.log.named("publish.repaired")


# ------------------------------------------------------------------------------------------------- the next change


def next_change(site: Site) -> datetime | None:
    meta = json.loads((site.main.tree / "keysets" / "default" / "jwks.meta.json").read_bytes())
    return None if meta["next_change_at"] is None else datetime.fromisoformat(meta["next_change_at"])


def test_the_meta_names_no_change_of_the_past_and_none_that_time_brings_before_it(site: Site) -> None:
    site.main.start()
    changes, named, kids = 0, next_change(site), site.main.kids()
    early = []
    for _ in range(4 * 70):
        site.advance(6 * HOUR, pace=6 * HOUR)
        assert named is not None
        if site.main.kids() == kids:
            continue
        changes, kids = changes + 1, site.main.kids()
        assert named <= site.clock.wall, "the set changed before the moment that was named"
        early.append(site.clock.wall - named)
        named = next_change(site)
        assert named is not None
        assert named > site.clock.wall
    assert changes >= 5
    assert sorted(early)[len(early) // 2] <= DAY, "the moment that is named is when it happens, but for the jitter"


def test_the_meta_names_the_next_change_after_a_revocation(site: Site) -> None:
    signer, _ = settled(site)
    site.revoked.add(signer)
    assert site.ask("key.revoke", kid=signer).succeeded
    named = next_change(site)
    assert named is not None
    assert named > site.clock.wall


# ---------------------------------------------------------------------------------------------- a keyset that ended


def test_the_documents_of_a_keyset_that_ended_go_when_no_verifier_can_need_them(site: Site) -> None:
    """Not before: whoever holds the last set with a key of it may still look whether there is another one."""
    extra = keyset("extra")
    site.main.start(policy_of([keyset(), extra], []))
    site.advance(HOUR)
    directory = site.main.tree / "keysets" / "extra"
    issuer = directory / ".well-known" / "openid-configuration"
    assert issuer.exists()
    site.main.load(policy_of([keyset()], []))
    (ended,) = site.events(EventName.KEYSET_ENDED)
    site.advance(MAX_CACHE, pace=HOUR)
    assert site.main.kids("extra") == []
    assert site.main.jwks("extra").exists()
    site.advance(HOUR)
    assert not site.main.jwks("extra").exists()
    assert not issuer.exists()
    assert ended.event.keyset == "extra"
    assert len(site.log.named("publish.removed")) == 1
    site.main.load(policy_of([keyset(), extra], []))
    assert len(site.main.kids("extra")) == 2
    assert site.active("extra") is None, "who held the empty set may hold it still: its keys wait as any other's"
    site.advance(PROPAGATION + HOUR, pace=6 * HOUR)
    assert site.active("extra") is not None
    site.assert_sound()
