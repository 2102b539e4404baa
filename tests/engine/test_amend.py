"""A first start on a clock that was far ahead leaves nothing that waits for that far day."""

from rotator.core.events import EventName
from tests.engine.site import DAY, HOUR, MINUTE, SKEW, T0, Site


def test_what_a_clock_that_was_ahead_made_is_mended_when_it_is_set_right(site: Site) -> None:
    """Tokens are issued anew at once; the signer rotates within its security period, and its spare becomes ready."""
    ahead = 20_000 * DAY
    site.clock.leap(ahead)
    site.main.start()
    site.advance(HOUR)
    site.main.stop()
    site.clock.reboot()
    site.clock.leap(-ahead)
    site.main.start()
    assert "clock" in site.main.run.faults

    assert site.ask("clock.accept").succeeded
    fresh = [row.event.workspace for row in site.events(EventName.TOKEN_ISSUED) if row.event.at < T0 + DAY]
    assert sorted(filter(None, fresh)) == ["acme", "umbrella"], "no verifier accepts what they have"
    site.advance(10 * MINUTE)

    now = site.clock.wall
    current = site.query("SELECT current_issued_at, due_at FROM workspaces")
    assert current
    for issued_at, due_at in current:
        assert abs(issued_at / 1_000_000 - now.timestamp()) < 15 * 60
        assert due_at / 1_000_000 < now.timestamp() + 3 * 86_400
    reissued = [row.event.reason for row in site.events(EventName.TOKEN_ISSUED)]
    assert "clock_set_back" in reissued
    (signer,) = [key for key in site.signing_keys() if key.phase == "active"]
    assert signer.rotate_at is not None
    assert signer.rotate_at <= now + 20 * DAY

    site.advance(25 * DAY)
    (successor,) = [key for key in site.signing_keys() if key.phase == "active"]
    assert successor.kid != signer.kid
    assert successor.activated_at is not None
    assert T0 + SKEW < successor.activated_at <= T0 + 21 * DAY
    assert site.chain() is None
