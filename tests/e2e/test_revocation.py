"""Compromise under the real daemon and a verifier that watches every delivered token."""

import json
from pathlib import Path

import jwt

from tests.e2e.world import Site, Verifier, running, wait_for

WORKSPACES = 40


def long_lived(directory: Path) -> Site:
    """Return a site on which nothing rotates by itself while the test runs."""
    site = Site(directory)
    site.write_config(
        workspaces=WORKSPACES,
        keyset_period="90d",
        token_period="30d",
        token_grace="1d",
        max_cache="10m",
        propagation="1h",
    )
    return site


def kids_held(site: Site) -> set[str]:
    return {jwt.get_unverified_header(path.read_text().strip())["kid"] for path in site.token_files()}


def test_a_verifier_with_a_ten_minute_cache_refuses_no_token_when_the_signer_is_revoked(tmp_path: Path) -> None:
    """Its copy was fetched before, and has the standby; one that fetches afterwards accepts the new tokens, too."""
    site = long_lived(tmp_path)
    watching = Verifier(site, max_age_seconds=600)
    with running(site) as daemon:
        wait_for(lambda: len(site.token_files()) == WORKSPACES, daemon, "first tokens are delivered")
        watching.check_all()
        (signer,) = watching.kids
        with watching.watching():
            site.rotator("revoke", "key", signer, "--reason", "leaked", "--yes", "--no-wait")
            wait_for(lambda: signer not in kids_held(site), daemon, "every workspace has a new token")
            checked = watching.checked
            wait_for(lambda: watching.checked >= checked + 2 * WORKSPACES, daemon, "the new tokens are verified")
        rehearse = ("revoke", "key", signer, "--rehearse")  # of what is done already
        wait_for(lambda: site.json(*rehearse)["deliveries_open"] == 0, daemon, "the deliveries are recorded")
        report = site.json(*rehearse)
        fetching = Verifier(site, max_age_seconds=0)
        fetching.check_all()
        published = {key["kid"] for key in json.loads(site.jwks.read_text())["keys"]}
    assert watching.refused == []
    assert fetching.refused == []
    (successor,) = (each["kid"] for each in report["successors"])
    assert kids_held(site) == {successor}
    assert signer not in published
    assert (report["reissued"], report["deliveries_open"]) == (WORKSPACES, 0)
    assert len(watching.jtis) == 2 * WORKSPACES


def test_a_daemon_that_is_killed_after_the_answer_goes_on_where_it_was(tmp_path: Path) -> None:
    """What it answered is durable: the next start issues and delivers the rest."""
    site = long_lived(tmp_path)
    with running(site) as daemon:
        wait_for(lambda: len(site.token_files()) == WORKSPACES, daemon, "first tokens are delivered")
        (signer,) = kids_held(site)
        site.rotator("revoke", "key", signer, "--reason", "leaked", "--yes", "--no-wait")
        wait_for(lambda: signer not in site.jwks.read_text(), daemon, "the key has left the set")
        daemon.kill()
    with running(site) as daemon:
        wait_for(lambda: signer not in kids_held(site), daemon, "every workspace has a new token")
    assert [event["kid"] for event in site.events() if event["name"] == "key.revoked"] == [signer]
    assert site.rotator("audit", "verify").returncode == 0
