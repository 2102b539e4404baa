"""The promises under the real daemon: many rotations in a row, left alone and killed at random."""

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.world import Process, Site, Verifier, events_by_subject, running, start, wait_for

ROTATIONS = {"ES256": (20, 200), "EdDSA": (6, 60)}
"""Of keys and of tokens: another algorithm than the default rotates by the same code."""
KILLS = 14


def rotations(site: Site) -> Counter[str]:
    return Counter(name for (name,) in site.query("SELECT name FROM audit"))


def enough(site: Site, keys: int, tokens: int) -> bool:
    done = rotations(site)
    return done["key.demoted"] >= keys and done["token.issued"] >= tokens


def active_blobs(site: Site) -> dict[str, bytes]:
    """Return the sealed private halves that are there now."""
    return dict(site.query("SELECT kid, sealed FROM signing_keys WHERE sealed IS NOT NULL"))


def on_disk(site: Site) -> bytes:
    parts = [site.database, site.database.with_name("rotator.db-wal")]
    return b"".join(part.read_bytes() for part in parts if part.exists())


def check_history(site: Site) -> None:
    """One event for each change; the chain unbroken; no private half of a key that signs no more."""
    counts = events_by_subject(site)
    for (name, subject), count in counts.items():
        if name.startswith("key.") or name in ("token.issued", "token.retired", "token.revoked"):
            assert count == 1, f"{count} times {name} of {subject}"
    made = {subject for name, subject in counts if name == "key.made"}
    assert made == {kid for (kid,) in site.query("SELECT kid FROM signing_keys")}
    for kid, phase, demoted_at, destroyed_at in site.query(
        "SELECT kid, phase, demoted_at, destroyed_at FROM signing_keys"
    ):
        assert (("key.demoted", kid) in counts) == (demoted_at is not None)
        assert (("key.destroyed", kid) in counts) == (destroyed_at is not None)
        assert phase in ("pending", "active") or destroyed_at is not None or demoted_at is not None
    issued = {subject for name, subject in counts if name == "token.issued"}
    assert issued == {jti for (jti,) in site.query("SELECT jti FROM tokens")}
    assert site.rotator("audit", "verify").returncode == 0


@pytest.mark.parametrize("algorithm", ROTATIONS)
def test_many_keys_and_tokens_in_a_row(tmp_path: Path, algorithm: str) -> None:
    """No token is refused, the set stays small, no demoted key leaves a private half behind."""
    keys, tokens = ROTATIONS[algorithm]
    site = Site(tmp_path)
    site.write_config(algorithm=algorithm, keyset_period="3s")
    verifier = Verifier(site, max_age_seconds=1.0)
    sealed: dict[str, bytes] = {}
    with running(site) as daemon, verifier.watching():

        def rotated() -> bool:
            nonlocal sealed
            sealed |= active_blobs(site)
            return enough(site, keys, tokens)

        wait_for(rotated, daemon, f"{keys} keys and {tokens} tokens")
        live = active_blobs(site)

    assert verifier.refused == []
    assert verifier.checked > 25 * keys
    assert len(verifier.kids) >= keys
    # spare and the key after it, the signer, and as many in grace as fit into the longest life of a token: 2 s + 20 s
    assert verifier.largest_set <= 3 + 8
    live |= active_blobs(site)
    content = on_disk(site)
    destroyed = {kid for (kid,) in site.query("SELECT kid FROM signing_keys WHERE destroyed_at IS NOT NULL")}
    gone = {kid: blob for kid, blob in sealed.items() if kid in destroyed}
    assert len(gone) >= keys - 1
    assert [kid for kid, blob in gone.items() if blob in content] == []
    assert all(blob in content for kid, blob in active_blobs(site).items())
    check_history(site)


def test_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    """Whatever was half done is finished by the next start: no refusal, no second event, no broken chain.

    As often as one likes, and at named steps, too: ``tests.crash``.
    """
    site = Site(tmp_path)
    # The grace period is room for what a loaded machine makes of so many starts in a row.
    site.write_config(keyset_period="6s", token_period="4s", token_grace="40s", max_cache="2s", propagation="2s")
    verifier = Verifier(site, max_age_seconds=2.0)
    moments = random.Random(20261124)
    with running(site):
        wait_for(lambda: len(site.token_files()) == 5, None, "first tokens are delivered")
    with verifier.watching():
        for number in range(KILLS):
            daemon: Process = start(site, log=f"daemon-{number}.log")
            if number % 2:  # amid its work; else amid its start, however long that takes here
                wait_for(lambda log=daemon.log: "daemon.ready" in log.read_text(), daemon, "it is ready")  # type: ignore[misc] # bound now
            time.sleep(moments.uniform(0.1, 1.2))
            daemon.kill()
        with running(site):
            before = rotations(site)
            wait_for(lambda: rotations(site)["key.demoted"] >= before["key.demoted"] + 1, None, "the world goes on")

    assert verifier.refused == []
    assert rotations(site)["key.demoted"] >= 2
    check_history(site)
