"""The first start, and the first rotations, with nothing going wrong."""

import stat
from collections import Counter
from itertools import pairwise

from rotator.core.events import EventName
from rotator.core.model import Phase
from tests.engine.site import DAY, HOUR, MINUTE, PROPAGATION, SKEW, Site, tokens_in_order


def test_a_first_start_publishes_signs_and_delivers_at_once(site: Site) -> None:
    """No verifier can hold an older set, so nothing waits; every change has its one event."""
    site.main.start()

    assert Counter(row.event.name for row in site.audit()) == {
        EventName.STATE_CREATED: 1,
        EventName.KEK_ADDED: 1,
        EventName.KEYSET_CREATED: 1,
        EventName.CONFIG_APPLIED: 1,
        EventName.KEY_MADE: 2,
        EventName.KEYSET_PUBLISHED: 1,
        EventName.KEY_PROVEN: 1,
        EventName.KEY_ACTIVATED: 1,
        EventName.TOKEN_ISSUED: 2,
        EventName.TOKEN_DELIVERED: 2,
    }
    assert site.main.kids() == [key.kid for key in site.signing_keys()]
    assert {key.phase for key in site.signing_keys()} == {Phase.ACTIVE, Phase.PENDING}
    assert site.held("acme") != site.held("umbrella")
    assert dict(site.main.run.faults) == {}
    assert [row.seq for row in site.log.audited] == [row.seq for row in site.audit()]
    site.assert_sound()


def test_the_witness_and_the_kek_are_known_from_the_first_tick(site: Site) -> None:
    """The witness names the key that signs and every published key, and is for the service alone."""
    site.main.start()

    record = site.main.run.around.witness.read()
    assert record is not None
    witnessed = record.keysets[site.signing_keys()[0].keyset]
    assert witnessed.active == site.active()
    assert [key.kid for key in witnessed.published] == site.main.kids()
    assert record.audit_seq == site.audit()[-1].seq
    assert stat.S_IMODE(site.main.witness.stat().st_mode) == 0o600
    assert [kek_id for (kek_id,) in site.query("SELECT kek_id FROM keks")] == [
        line.split()[0] for line in site.kek.read_text().splitlines() if line and not line.startswith("#")
    ]


def test_a_first_key_beside_an_empty_set_waits_as_any_other(site: Site) -> None:
    """What a keyset that ended left behind is in the caches of verifiers, and may be all that tells of it."""
    site.main.jwks().parent.mkdir(parents=True)
    site.main.jwks().write_bytes(b'{"keys":[]}')
    site.main.start()
    assert len(site.main.kids()) == 2
    site.advance(PROPAGATION - MINUTE)
    assert site.active() is None
    site.advance(2 * MINUTE)
    assert site.active() is not None


def test_a_second_start_changes_nothing(site: Site) -> None:
    site.main.start()
    before = [row.event.name for row in site.audit()]
    for _ in range(3):
        site.main.restart()
    assert [row.event.name for row in site.audit()] == before


def test_three_months_leave_every_promise_kept(site: Site) -> None:
    """Keys rotate by the period, each after its propagation; tokens too; what ends leaves."""
    site.main.start()
    site.advance(90 * DAY, pace=12 * HOUR)

    activated = site.events(EventName.KEY_ACTIVATED)
    assert 4 <= len(activated) <= 6
    assert len(site.main.kids()) <= 4
    for row in activated[1:]:
        made = next(m.event.at for m in site.events(EventName.KEY_MADE) if m.event.kid == row.event.kid)
        assert row.event.at - made >= PROPAGATION
    for before, after in pairwise(activated):
        assert after.event.at - before.event.at <= 20 * DAY + 6 * HOUR
    for key in site.signing_keys(Phase.RETIRED):
        assert key.destroyed_at is not None
        assert key.retired_at is not None
        assert key.last_exp is not None
        assert key.retired_at >= key.last_exp + SKEW
    assert site.checked > 500
    assert tokens_in_order(site.main.post.delivered)
    site.assert_sound()
