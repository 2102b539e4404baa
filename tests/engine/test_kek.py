"""The KEK is missing, wrong, replaced while running, and back again."""

from pathlib import Path

import pytest

from rotator.adapters.kek import make_kek_file
from rotator.core.events import EventName
from tests.engine.site import DAY, HOUR, MINUTE, SECOND, Site


def take_away(site: Site, how: str) -> Path:
    """Take the KEK away or put another in its place; return where the right one is kept."""
    kept = site.kek.with_name("kek.kept")
    site.kek.rename(kept)
    match how:
        case "wrong":  # another key under the same id
            make_kek_file(site.kek)
            other = site.kek.read_text().split()[-1]
            kek_id = kept.read_text().splitlines()[-1].split()[0]
            site.kek.write_text(f"{kek_id} {other}\n")
        case "another":
            make_kek_file(site.kek)
        case "malformed":
            site.kek.write_text("nonsense\n")
            site.kek.chmod(0o600)
        case "world-readable":
            site.kek.write_bytes(kept.read_bytes())
            site.kek.chmod(0o644)
    return kept


WAYS = ["missing", "wrong", "another", "malformed", "world-readable"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("when", ["running", "stopped"])
def test_without_the_right_kek_nothing_is_minted_and_it_recovers_when_it_is_back(
    site: Site, how: str, when: str
) -> None:
    """What is published stays, status says why, and no restart is needed."""
    site.main.start()
    site.advance(HOUR)
    good, audit = site.main.jwks().read_bytes(), len(site.audit())
    if when == "stopped":
        site.main.stop()
    kept = take_away(site, how)
    if when == "stopped":
        site.main.start()
    site.advance(30 * SECOND)
    site.advance(4 * DAY, pace=12 * HOUR)

    assert "kek" in site.main.run.faults
    assert len(site.audit()) == audit
    assert site.main.jwks().read_bytes() == good
    assert len(site.log.named("kek.missing")) == 1

    kept.replace(site.kek)
    site.advance(MINUTE)
    assert "kek" not in site.main.run.faults
    assert len(site.log.named("kek.restored")) == 1
    issued = [row.event.at for row in site.events(EventName.TOKEN_ISSUED)]
    assert len(issued) == 4
    assert site.main.kids()[:2] == [key.kid for key in site.signing_keys()][:2]
    site.advance(20 * DAY, pace=12 * HOUR)
    site.assert_sound()


def test_a_first_start_without_a_kek_makes_nothing(site: Site) -> None:
    kept = take_away(site, "missing")
    site.main.start()
    site.advance(HOUR)
    assert site.audit() == []
    assert not site.main.tree.exists()
    kept.replace(site.kek)
    site.advance(31 * SECOND)
    assert site.held("acme")


def test_a_second_kek_in_front_seals_from_now_on(site: Site) -> None:
    """The old one still opens what it sealed; the new one is registered once."""
    site.main.start()
    site.advance(HOUR)
    old = site.kek.read_text()
    site.kek.unlink()
    make_kek_file(site.kek)
    site.kek.write_text(site.kek.read_text() + old)
    site.advance(31 * SECOND)
    assert dict(site.main.run.faults) == {}
    site.advance(4 * DAY, pace=12 * HOUR)
    assert len(site.events(EventName.KEK_ADDED)) == 2
    assert len({kek_id for (kek_id,) in site.query("SELECT kek_id FROM tokens")}) == 2
    site.main.restart()
    assert dict(site.main.run.faults) == {}
    site.advance(25 * DAY, pace=12 * HOUR)
    site.assert_sound()
