"""Several replicas on one database: what one does, the witness of each must know, and none undoes another's work."""

from rotator.core.events import EventName
from tests.engine.site import DAY, HOUR, MINUTE, Daemon, Site, keyset, policy_of, workspace


def test_the_witness_of_every_replica_names_the_key_that_signs(site: Site) -> None:
    """Whoever let it sign: a restore goes by the witness, which says that it knows all until the head that it names."""
    site.main.start()
    other = site.daemon("other").start()
    site.advance(17 * DAY, pace=12 * HOUR)
    before = signs = site.active()
    while signs == before:
        site.advance(6 * HOUR, pace=12 * HOUR)
        signs = site.active()
    assert signs is not None
    for daemon in (site.main, other):
        record = daemon.run.around.witness.read()
        assert record is not None
        assert record.keysets["default"].active == signs  # type: ignore[index]
        published = {key.kid: key for key in record.keysets["default"].published}  # type: ignore[index]
        assert published[signs].ends_at is not None
    site.assert_sound()


def test_the_witness_of_every_replica_names_what_one_of_them_revoked(site: Site) -> None:
    """Whoever finds first that an old database was put back, what was revoked stays so."""
    site.main.start()
    other = site.daemon("other").start()
    site.advance(DAY)
    (jti,) = site.query("SELECT jti FROM tokens ORDER BY jti")[0]
    signs = site.active()
    site.ask("token.revoke", jti=jti)
    site.ask("key.revoke", kid=signs, choice="now")
    site.advance(HOUR)
    record = other.run.around.witness.read()
    assert record is not None
    assert signs in record.revoked_kids
    assert jti in record.revoked_jtis


def test_a_new_replica_publishes_nothing_without_a_key_that_the_others_show(site: Site) -> None:
    """Its witness is empty, so that it cannot know; what the others were seen to hold tells it."""
    site.main.start()
    site.advance(4 * DAY, pace=12 * HOUR)
    signs = site.active()
    shown = site.main.kids()
    site.meddle("UPDATE signing_keys SET public_jwk = replace(public_jwk, 'sig', 'enc') WHERE kid = ?", signs)
    other = site.daemon("other").start()
    site.advance(5 * MINUTE)
    assert other.kids() == []
    assert site.active() == signs
    assert site.main.kids() == shown
    assert f"key:{signs}" in other.run.faults
    site.meddle("UPDATE signing_keys SET public_jwk = replace(public_jwk, 'enc', 'sig') WHERE kid = ?", signs)
    site.advance(5 * MINUTE)
    assert other.kids() == shown
    assert site.chain() is None


def _ended(site: Site) -> tuple[Daemon, bytes]:
    """Let a second replica stand still while a keyset ends; return it, and the last set of that keyset with keys."""
    two = policy_of([keyset(), keyset("partners")], [workspace("acme"), workspace("umbrella", on="partners")])
    site.main.start(two)
    other = site.daemon("other").start()
    site.advance(DAY)
    other.stop()
    site.main.load(policy_of([keyset()], [workspace("acme"), workspace("umbrella")]))
    while not site.events(EventName.KEYSET_ENDED):
        site.advance(DAY, pace=12 * HOUR)
    assert site.main.kids("partners") == []
    return other, other.jwks("partners").read_bytes()


def test_a_replica_that_stood_still_while_a_keyset_ended_takes_its_keys_out_of_its_tree(site: Site) -> None:
    """Another one saw to the database; the set that this one still serves is looked at all the same."""
    other, _ = _ended(site)
    assert other.kids("partners") != []
    other.start()
    site.advance(5 * MINUTE)
    assert other.kids("partners") == []
    assert dict(other.run.faults) == {}
    site.assert_sound()


def test_the_set_of_an_ended_keyset_that_comes_back_is_taken_out_again(site: Site) -> None:
    """As when an old tree is put in place beside running daemons. It is no business of theirs for long."""
    other, last = _ended(site)
    other.start()
    site.advance(5 * MINUTE)
    for daemon in (site.main, other):
        daemon.jwks("partners").write_bytes(last)
    site.advance(5 * MINUTE)
    assert site.main.kids("partners") == other.kids("partners") == []
    quiet = len(site.audit())
    site.advance(HOUR)
    assert len(site.audit()) == quiet
    site.assert_sound()
