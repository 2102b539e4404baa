"""Real verifiers through real rotations, all of it over a real web server."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.e2e.world import Process, running, wait_for
from tests.interop.site import BY_HAND, MAX_CACHE_SECONDS, ServedKeyset, ServedSite, get, served
from tests.interop.verifiers import every_verifier
from tests.interop.watch import Account, Watch

pytestmark = [
    pytest.mark.verifiers,
    pytest.mark.filterwarnings(
        "ignore:EdDSA is deprecated"
    ),  # joserfc; by name, for the new one is not read widely yet
]

ALGORITHMS = {"es": "ES256", "rs": "RS256", "rs2": "RS256", "ed": "EdDSA", "ed2": "EdDSA", BY_HAND: "ES256"}
"""Beside `default`, which is ES256: six keysets that rotate side by side, and one that a person rotates."""

KEY_ROTATIONS = 36
LEAST_ROTATIONS = 5
"""Of each keyset that has a schedule."""

REVOKED = ("es", "rs", "ed")
"""The keysets of which the signing key is revoked, one after the other; after each, one more is rotated by hand."""

KEYS_THAT_SIGNED = 36
"""Of the 43 that so many rotations take. On a machine that is busy, a token may be replaced before anybody read it."""


@dataclass
class Story:
    """What there is to know when it is over."""

    site: ServedSite
    accounts: dict[str, Account] = field(default_factory=dict)
    signed: dict[str, str] = field(default_factory=dict)
    """The keyset of every key on which tokens were delivered, by kid."""
    rotations: Counter[str] = field(default_factory=Counter)
    """How many keys were superseded, by keyset."""
    revoked: dict[str, float] = field(default_factory=dict)
    """When the revoked keys had left the published sets, in Unix time, by kid."""
    etags: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    """ETag and digest of each set that was served, by keyset."""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Rotate under the eyes of all verifiers until there were enough rotations."""
    site = ServedSite(tmp_path_factory.mktemp("real"), ALGORITHMS)
    site.write_rotating_config()
    told = Story(site)
    keysets = site.keysets()
    with served(site), every_verifier(site.root, site.port, keysets) as verifiers:
        watch = Watch(site, verifiers)
        with watch.watching(), running(site) as daemon:
            for name in REVOKED:
                revoke_one(told, watch, name, daemon)
                rotate_in_an_emergency(told, daemon)
            wait_for(lambda: watch.failed() or enough(told, keysets), daemon, "all have rotated")
        told.accounts, told.etags = watch.accounts, watch.served
        told.signed = watch.signed()
        yield told


def revoke_one(told: Story, watch: Watch, keyset: str, daemon: Process) -> None:
    """Revoke the key that has just begun to sign, so that most of its time is ahead, and a spare is known to all."""
    first = signing_kid(told.site, keyset)
    wait_for(lambda: signing_kid(told.site, keyset) not in ("", first), daemon, f"another key signs in {keyset}")
    kid = signing_kid(told.site, keyset)
    wait_for(lambda: watch.failed() or watch.accepted_by_all(kid), daemon, "every verifier accepted a token on it")
    watch.revoked(kid)
    told.site.rotator("revoke", "key", kid, "--reason", "a drill", "--yes", "--no-wait")
    (file,) = [each.file for each in told.site.keysets() if each.name == keyset]
    wait_for(lambda: kid not in file.read_text(), daemon, "the key has left the set")
    told.revoked[kid] = time.time()


def rotate_in_an_emergency(told: Story, daemon: Process) -> None:
    """Let the spare sign at once, as soon as every verifier can know it."""
    before = signing_kid(told.site, BY_HAND)
    wait_for(lambda: spare_is_known(told.site), daemon, "every verifier can know the spare")
    told.site.rotator("rotate", BY_HAND, "--emergency", "--yes", "--reason", "a drill")
    wait_for(lambda: signing_kid(told.site, BY_HAND) not in ("", before), daemon, "the spare signs")


def spare_is_known(site: ServedSite) -> bool:
    keys = site.json("keys", "list")["keys"]
    ready = [key["ready_at"] for key in keys if key["keyset"] == BY_HAND and key["phase"] == "pending"]
    return any(at and datetime.fromisoformat(at) <= datetime.now(UTC) for at in ready)


def signing_kid(site: ServedSite, keyset: str) -> str:
    rows = site.query(f"SELECT kid FROM signing_keys WHERE keyset = '{keyset}' AND phase = 'active'")  # noqa: S608
    return "".join(kid for (kid,) in rows)


def enough(told: Story, keysets: list[ServedKeyset]) -> bool:
    superseded = "SELECT keyset, count(*) FROM signing_keys WHERE phase NOT IN ('pending', 'active') GROUP BY keyset"
    told.rotations = Counter(dict(told.site.query(superseded)))
    least = min(told.rotations[keyset.name] for keyset in keysets if keyset.name != BY_HAND)
    return told.rotations.total() >= KEY_ROTATIONS and least >= LEAST_ROTATIONS


VERIFIERS = ["pyjwt", "joserfc", "jwcrypto", "jose", "jwks-rsa", "envoy"]


def test_every_keyset_rotated_many_times(story: Story) -> None:
    print(f"{story.rotations.total()} rotations of keys: {dict(story.rotations)}; tokens on {len(story.signed)} keys")
    assert story.rotations.total() >= KEY_ROTATIONS
    assert story.rotations.pop(BY_HAND) == len(REVOKED)
    assert min(story.rotations.values()) >= LEAST_ROTATIONS


@pytest.mark.parametrize("verifier", VERIFIERS)
def test_no_valid_token_was_refused(story: Story, verifier: str) -> None:
    account = story.accounts[verifier]
    print(f"{verifier}: {account.accepted} accepted, on {len(account.kids)} keys; {len(account.refused)} refused")
    assert account.refused == []


@pytest.mark.parametrize("verifier", VERIFIERS)
def test_tokens_were_accepted_on_every_key_that_signed(story: Story, verifier: str) -> None:
    """So that the test before cannot pass by doing nothing."""
    account = story.accounts[verifier]
    assert len(story.signed) >= KEYS_THAT_SIGNED
    assert {kid: keyset for kid, keyset in story.signed.items() if kid not in account.kids} == {}
    assert account.accepted >= 5 * len(story.signed)


@pytest.mark.parametrize("verifier", VERIFIERS)
def test_no_token_on_a_revoked_key_was_accepted_once_the_caches_had_to_be_renewed(story: Story, verifier: str) -> None:
    account = story.accounts[verifier]
    assert len(story.revoked) == len(REVOKED)
    for kid, left_at in story.revoked.items():
        print(
            f"{verifier}: accepted for {account.accepted_last[kid] - left_at:.1f} s more; {account.turned[kid]} refused"
        )
        assert account.kids[kid] >= 1
        assert account.turned[kid] >= 1
        assert account.accepted_last[kid] <= left_at + MAX_CACHE_SECONDS


def test_an_etag_stands_for_one_set_and_a_set_has_one_etag(story: Story) -> None:
    """As nginx makes it, from the file's time and size: through all these rotations."""
    for keyset, seen in story.etags.items():
        etags, digests = Counter(etag for etag, _ in seen), Counter(digest for _, digest in seen)
        assert len(seen) >= 4, keyset
        assert [each for each, times in (etags | digests).items() if times > 1] == [], keyset


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[ServedSite]:
    """Serve what a daemon publishes in whose sets nothing changes for months."""
    site = ServedSite(tmp_path, {})
    site.config.write_text(f"issuer: {site.base}\nworkspaces: {{acme: {{audience: [api]}}}}\n")
    with served(site):
        yield site


def test_an_unchanged_set_is_not_sent_again_even_after_a_restart(quiet: ServedSite) -> None:
    (keyset,) = quiet.keysets()
    with running(quiet) as daemon:
        first = get(keyset.jwks_url)
        again = get(keyset.jwks_url, if_none_match=first.etag)
        daemon.reload()
        wait_for(lambda: "config.reloaded" in daemon.log.read_text(), daemon, "the config is read again")
        reloaded = get(keyset.jwks_url, if_none_match=first.etag)
    with running(quiet):
        restarted = get(keyset.jwks_url, if_none_match=first.etag)
    assert (first.status, first.headers["content-type"]) == (200, "application/json")
    assert first.headers["cache-control"] == "public, max-age=300"
    assert first.body == keyset.file.read_bytes()
    assert [(each.status, each.etag, each.body) for each in (again, reloaded, restarted)] == [
        (304, first.etag, b"")
    ] * 3


def test_nothing_but_the_published_tree_is_served(quiet: ServedSite) -> None:
    with running(quiet):
        discovery = get(f"{quiet.base}/.well-known/openid-configuration")
        assert discovery.status == 200
        for path in ("/", "/rotator.db", "/../rotator.db", "/%2e%2e/rotator.db", "/keysets/..%2f..%2frotator.db"):
            assert get(f"{quiet.base}{path}").status in (400, 404), path
