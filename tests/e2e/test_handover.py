"""What operators do to a running daemon, under the eyes of verifiers that hold copies of the set."""

from pathlib import Path

from tests.e2e.world import Process, Site, Verifier, running, wait_for


def active(site: Site) -> str:
    ((kid,),) = site.query("SELECT kid FROM signing_keys WHERE phase = 'active'")
    return str(kid)


def on_key(site: Site, kid: str) -> bool:
    """Tell whether every workspace's current token is on ``kid``."""
    return {found for (found,) in site.query("SELECT current_kid FROM workspaces")} == {kid}


def seen(verifier: Verifier, kid: str, daemon: Process) -> None:
    wait_for(lambda: kid in verifier.kids, daemon, f"the verifier accepted a token on {kid}")


def test_nothing_is_refused_through_replacements_and_rotations(tmp_path: Path) -> None:
    """One verifier keeps its copy for ten minutes and fetches when a kid is unknown; one never does the latter.

    Both see every token that is delivered: replaced with no overlap, on the next key after a rotation, and on a third
    one after an emergency that the operator was told costs nothing.
    """
    site = Site(tmp_path)
    site.write_config(
        workspaces=3, keyset_period="90d", token_period="30d", token_grace="1d", max_cache="1s", propagation="3s"
    )
    patient = Verifier(site, max_age_seconds=600, refetches=True)
    strict = Verifier(site, max_age_seconds=1)
    with running(site) as daemon:
        first = active(site)
        wait_for(lambda: len(site.token_files()) == 3, daemon, "the first tokens are delivered")
        with patient.watching(), strict.watching():
            seen(patient, first, daemon)
            site.rotator("replace", "w0", "--overlap", "now", "--wait")

            site.rotator("rotate", "default")
            wait_for(lambda: active(site) != first, daemon, "the standby signs")
            second = active(site)
            for name in ("w0", "w1", "w2"):
                site.rotator("replace", name, "--overlap", "now", "--wait")
            assert on_key(site, second)
            seen(patient, second, daemon)
            seen(strict, second, daemon)

            costs = site.json("rotate", "--emergency", "--rehearse")["refusals"]
            assert "consumers.max_cache" not in {each["verifier"] for each in costs}
            site.rotator("rotate", "--emergency", "--reason", "an exercise", "--yes")
            third = active(site)
            assert third not in (first, second)
            site.rotator("replace", "w1", "--overlap", "10m", "--wait")
            seen(patient, third, daemon)
            seen(strict, third, daemon)

    assert patient.refused == []
    assert strict.refused == []
    assert {first, second, third} <= patient.kids
    assert patient.fetches <= 3
    assert site.query("SELECT count(*) FROM tokens WHERE phase = 'revoked'") == [(4,)]
    assert site.rotator("audit", "verify").returncode == 0
