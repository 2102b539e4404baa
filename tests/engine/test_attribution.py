"""What a person caused names the person, the command and the reason; everything else names the schedule.

``Site.assert_sound`` holds it against every story.
"""

from datetime import timedelta

import pytest

from rotator.errors import RefusedError
from rotator.report.proof import prove
from tests.engine.site import HOUR, Site, without
from tests.engine.test_import import OldIssuer, packed

CAUSED = {
    "clock.accept": {"clock.accepted"},
    "config.accept": {"config.accepted", "config.applied"},
    "key.import": {"key.imported"},
    "key.revoke": {"key.revoked", "tokens.revoked"},
    "keyset.revoke": {"key.revoked", "keyset.revoked", "tokens.revoked"},
    "token.revoke": {"token.revoked"},
    "token.show": {"token.shown"},
    "workspace.revoke": {"token.revoked", "workspace.revoked"},
}
"""By the command: what is told as caused by whoever used it."""


def arguments(site: Site, kind: str) -> dict[str, str]:
    ((jti,),) = site.query("SELECT current FROM workspaces WHERE id = 'acme'")
    signer = site.active()
    assert signer is not None
    given: dict[str, dict[str, str]] = {
        "key.import": {"keyset": "default"},
        "key.revoke": {"kid": signer},
        "keyset.revoke": {"keyset": "default", "choice": "wait"},
        "token.revoke": {"jti": jti},
        "token.show": {"workspace": "acme"},
        "workspace.revoke": {"workspace": "acme"},
    }
    return given.get(kind, {})


@pytest.mark.parametrize("kind", CAUSED)
def test_each_event_of_a_command_names_who_which_and_why(site: Site, kind: str) -> None:
    site.main.start()
    site.advance(60 * HOUR, pace=12 * HOUR)
    if kind == "config.accept":
        with pytest.raises(RefusedError):
            site.main.load(without(site.policy, "umbrella"))
    if kind == "clock.accept":
        site.clock.leap(timedelta(days=400))
        site.main.settle()
    last = max(row.seq for row in site.audit())
    secret = packed(OldIssuer().private) if kind == "key.import" else None
    answer = site.ask(kind, site.main, secret, **arguments(site, kind))
    assert answer.succeeded, answer.result
    since = [row.event for row in site.audit() if row.seq > last]
    caused = [event for event in since if event.actor != "rotator"]
    assert {str(event.name) for event in caused} == CAUSED[kind]
    for event in caused:
        assert (event.actor, event.reason, event.details["command"]) == ("ada(1000)", "because", kind)
    assert not any("command" in event.details for event in since if event.actor == "rotator")
    assert site.main.store is not None
    with site.main.store.read() as snapshot:
        assert prove(snapshot).intact
