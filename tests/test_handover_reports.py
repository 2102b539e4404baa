"""What is told of one key, and of a takeover: every reason, and what an emergency costs each kind of verifier."""

import io
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from rotator.adapters.calendar import CronCalendar
from rotator.adapters.store import SqlStore, open_store
from rotator.cli.handover_pages import show_key
from rotator.cli.screen import Screen
from rotator.core.model import DEFAULT_KEYSET, Jti, KeysetName, Kid, Origin, Phase, Wish, WorkspaceId
from rotator.errors import RefusedError, UnknownNameError
from rotator.ports import KeyRow, KeysetRow, ReplicaRow
from rotator.report.hanging import HOLDERS_SHOWN, KeyDetail, key_detail
from rotator.report.lists import keys
from rotator.report.replacement import replacement
from rotator.report.status import status
from rotator.report.takeover import Takeover, takeover
from tests.contract.records import ACME, DAY, HOUR, NOW, issue, issued, workspace
from tests.test_report import HERE, POLICY, key, sighting

MINUTE = timedelta(minutes=1)
OWN = POLICY.keysets[DEFAULT_KEYSET]
SIGNER = {
    "activated_at": NOW - 10 * DAY,
    "rotate_at": NOW + 80 * DAY,
    "proven_at": NOW - 10 * DAY,
    "last_exp": NOW + 9 * DAY,
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    """Make a keyset with a replica and no key."""
    opened = open_store(f"sqlite:///{tmp_path / 'rotator.db'}", create=True)
    with opened.begin() as transaction:
        transaction.put_replica(ReplicaRow(replica=HERE, started_at=NOW, seen_at=NOW))
        transaction.put_keyset(
            KeysetRow(
                name=DEFAULT_KEYSET,
                schedule_fingerprint=OWN.schedule_fingerprint,
                next_sequence=9,
                ever_active=True,
                due_at=NOW + HOUR,
                set_sha256="ab",
            )
        )
    yield opened
    opened.close()


def put(store: SqlStore, *rows: KeyRow, days_out: float = 5) -> None:
    with store.begin() as transaction:
        for row in rows:
            transaction.insert_key(row)
            transaction.put_sighting(sighting(row.key.kid, days_ago=days_out))


def told(store: SqlStore, wanted: str, now: datetime = NOW) -> KeyDetail:
    with store.read() as snapshot:
        return key_detail(snapshot, POLICY, now, CronCalendar(), wanted)


def ahead(store: SqlStore, supposed: str = "") -> Takeover:
    with store.read() as snapshot:
        return takeover(snapshot, POLICY, NOW, CronCalendar(), DEFAULT_KEYSET, supposed=supposed)


# ------------------------------------------------------------------------------------------------------------- one key


def test_a_prior_key_can_go_when_its_grace_and_its_last_token_have_ended(store: SqlStore) -> None:
    """Whichever is later, and the skew of clocks with it."""
    graced = {"demoted_at": NOW - DAY, "destroyed_at": NOW - DAY, "grace_until": NOW + 3 * DAY}
    put(
        store,
        key("by-grace", Phase.GRACE, 1, last_exp=NOW + DAY, **graced),
        key("by-token", Phase.GRACE, 2, last_exp=NOW + 5 * DAY, **graced),
        key("unused", Phase.GRACE, 3, last_exp=None, **graced),
    )
    removal = told(store, "by-grace").removal
    assert (removal.safe_at, removal.estimated) == (NOW + 3 * DAY, False)
    assert removal.because == "its grace lasts until then; the last token on it ends at 2026-03-30 00:59Z"
    removal = told(store, "by-token").removal
    assert removal.safe_at == NOW + 5 * DAY + MINUTE
    assert removal.because == "the last token on it ends at 2026-04-03 00:59Z, and clocks may differ by 1m"
    assert told(store, "unused").removal.because == "its grace lasts until then; no token on it"


@pytest.mark.parametrize(
    ("kid", "leaves"),
    [
        ("by-grace", "2026-04-01 00:59Z (in 3d): its grace outlives the last token on it"),
        ("by-token", "2026-04-03 01:00Z (in 5d): the last token on it outlives its grace"),
    ],
)
def test_a_page_with_two_ends_says_which_counts(store: SqlStore, kid: str, leaves: str) -> None:
    graced = {"demoted_at": NOW - DAY, "destroyed_at": NOW - DAY, "grace_until": NOW + 3 * DAY}
    put(
        store,
        key("by-grace", Phase.GRACE, 1, last_exp=NOW + DAY, **graced),
        key("by-token", Phase.GRACE, 2, last_exp=NOW + 5 * DAY, **graced),
        key("a-spare", Phase.PENDING, 3),
    )
    pages = {}
    for each in (kid, "a-spare"):
        show_key(Screen.of(stream := io.StringIO()), told(store, each))
        pages[each] = " ".join(stream.getvalue().split())
    assert f"leaves {leaves} " in pages[kid]
    assert "leaves" not in pages["a-spare"]


def test_what_has_left_says_why(store: SqlStore) -> None:
    put(
        store,
        key("retired", Phase.RETIRED, 1, retired_at=NOW - DAY, destroyed_at=NOW - DAY),
        key("revoked", Phase.REVOKED, 2, revoked_at=NOW - DAY, destroyed_at=NOW - DAY),
        key("spare", Phase.PENDING, 3),
    )
    assert told(store, "retired").removal.safe_at == NOW - DAY
    assert told(store, "revoked").removal.because == "it was revoked, and left the published set"
    assert told(store, "spare").removal.safe_at == NOW
    assert told(store, "spare").key.ready_at == NOW - 5 * DAY + OWN.propagation_period


def test_what_was_signed_elsewhere_is_not_counted_and_not_forgotten(store: SqlStore) -> None:
    """On a key that was adopted or imported, until the end that was said, whatever became of it since."""
    end = NOW + 9 * DAY
    imported = {"origin": Origin.IMPORTED, "last_exp": end}
    graced = {"demoted_at": NOW - DAY, "destroyed_at": NOW - DAY, "grace_until": end}
    put(
        store,
        key("adopted", Phase.GRACE, 1, origin=Origin.ADOPTED, last_exp=end, **graced),
        key("signing", Phase.ACTIVE, 2, **SIGNER | imported),
        key("waiting", Phase.PENDING, 3, **imported),
        key("madehere", Phase.PENDING, 4, last_exp=end),
    )
    for kid in ("adopted", "signing", "waiting"):
        assert told(store, kid).foreign_until == end
        assert told(store, kid, end).foreign_until is None
    assert told(store, "madehere").foreign_until is None
    removal = told(store, "waiting").removal
    assert removal.safe_at == end + MINUTE
    assert removal.because.startswith("the last token that it signed elsewhere ends by 2026-04-07 00:59Z")
    assert told(store, "waiting", end).removal.because.startswith("what it signed elsewhere has ended; but it is a")
    assert told(store, "madehere").removal.because.startswith("nothing was ever signed with it")


def test_a_signer_with_tokens_from_elsewhere_goes_after_the_last_of_them(store: SqlStore) -> None:
    end = NOW + 200 * DAY
    put(store, key("signer", Phase.ACTIVE, 1, **SIGNER | {"origin": Origin.IMPORTED, "last_exp": end}))
    put(store, key("spare", Phase.PENDING, 2))
    removal = told(store, "signer").removal
    assert removal.safe_at == end + MINUTE
    assert "; the last token on it ends by 2026-10-15 00:59Z, after its grace" in removal.because


def test_a_signer_goes_after_its_successor_has_taken_over(store: SqlStore) -> None:
    """At the end of the grace that begins then: from the planner itself, so that it is an estimate."""
    put(store, key("signer", Phase.ACTIVE, 1, **SIGNER), key("spare", Phase.PENDING, 2))
    removal = told(store, "signer").removal
    assert removal.estimated
    assert removal.safe_at == NOW + 80 * DAY + OWN.grace_period
    assert removal.because.startswith("it signs until 2026-06-17 00:59Z; then its grace_period of 31d")


def test_a_kid_is_found_by_its_beginning_if_it_is_the_only_one(store: SqlStore) -> None:
    """One that is another's beginning is found by its whole."""
    put(store, key("aaaaa", Phase.PENDING, 1), key("aaaaab", Phase.PENDING, 2), key("b", Phase.PENDING, 3))
    assert told(store, "b").key.kid == "b"
    assert told(store, "aaaaa").key.kid == "aaaaa"
    with pytest.raises(UnknownNameError, match=r"2 keys begin with 'aaaa': aaaaa, aaaaab; write more"):
        told(store, "aaaa")
    with pytest.raises(UnknownNameError, match="there is no key 'cccc'"):
        told(store, "cccc")
    for little in ("aaa", "", "..", "aaa\N{HORIZONTAL ELLIPSIS}"):
        with pytest.raises(UnknownNameError, match="give at least 4 characters of the kid"):
            told(store, little)


def test_no_more_holders_are_named_than_a_page_takes(store: SqlStore) -> None:
    """All of them are counted."""
    put(store, key("signer", Phase.ACTIVE, 1, **SIGNER))
    names = [WorkspaceId(f"ws-{number:02}") for number in range(HOLDERS_SHOWN + 5)]
    with store.begin() as transaction:
        transaction.insert_workspaces([workspace(name) for name in names])
        for name in names:
            state = transaction.workspace(name)
            assert state is not None
            assert transaction.issue([issued(state, kid=Kid("signer"))])
    found = told(store, "signer")
    assert (found.tokens, found.workspaces, len(found.holders)) == (25, 25, HOLDERS_SHOWN)
    assert told(store, "signer", NOW + 9 * DAY).tokens == 0


# ------------------------------------------------------------------------------------------------------------ takeover


def test_a_rotation_waits_for_the_key_after_the_standby(store: SqlStore) -> None:
    """As if it were asked for now; as things stand, the planned one is ahead."""
    put(store, key("signer", Phase.ACTIVE, 1, **SIGNER), key("spare", Phase.PENDING, 2))
    found = ahead(store, "rotation")
    assert (found.signing_kid, found.successor_kid, found.reason) == ("signer", "spare", "requested")
    assert found.takes_over_at == NOW + OWN.propagation_period
    assert [wait.known_at for wait in found.waits_for] == [NOW - 5 * DAY + OWN.propagation_period, found.takes_over_at]
    assert (found.refusals, found.asked) == ((), None)
    planned = ahead(store)
    assert (planned.takes_over_at, planned.reason) == (NOW + 80 * DAY, "security_period")


def test_a_key_that_was_only_just_made_is_still_to_be_published(store: SqlStore) -> None:
    """Between its commit and the publication its wait is told as if it were published now."""
    put(store, key("signer", Phase.ACTIVE, 1, **SIGNER), key("spare", Phase.PENDING, 2))
    with store.begin() as transaction:
        transaction.insert_key(key("after", Phase.PENDING, 3))
    found = ahead(store, "rotation")
    assert found.takes_over_at == NOW + OWN.propagation_period
    assert [wait.kid for wait in found.waits_for] == ["spare", "after"]


def test_an_emergency_with_a_known_standby_costs_nothing(store: SqlStore) -> None:
    put(store, key("signer", Phase.ACTIVE, 1, **SIGNER), key("spare", Phase.PENDING, 2))
    found = ahead(store, "emergency")
    assert (found.takes_over_at, found.refusals) == (NOW, ())
    assert found.spare_known_at == NOW + OWN.propagation_period


def test_an_emergency_with_a_fresh_standby_costs_each_kind_of_verifier_its_own(store: SqlStore) -> None:
    """Published two minutes ago: from a minute later on, at the latest, whoever fetches gets it."""
    put(store, key("signer", Phase.ACTIVE, 1, **SIGNER))
    put(store, key("spare", Phase.PENDING, 2), days_out=2 * MINUTE / DAY)
    costs = {each.verifier: each for each in ahead(store, "emergency").refusals}
    served = NOW - 2 * MINUTE + POLICY.verifiers.publish_lag
    assert costs["consumers.max_cache"].until == served + POLICY.verifiers.max_cache
    assert (costs["envoy"].until, costs["envoy"].refetches) == (served + 10 * MINUTE, False)
    assert (costs["dotnet"].until, costs["dotnet"].refetches) == (served + 5 * MINUTE, True)
    assert {"pyjwt", "jose", "jwks-rsa"} & costs.keys() == set()
    ends = [each.until for each in ahead(store, "emergency").refusals]
    assert ends == sorted(ends, reverse=True)


def test_a_wish_brings_forward_when_the_signer_is_told_to_stop(store: SqlStore) -> None:
    """In status, in the list and on its own page alike, at the moment of the planner; and back with no wish."""
    put(store, key("signer", Phase.ACTIVE, 1, **SIGNER), key("standby", Phase.PENDING, 2))

    def told_everywhere() -> set[datetime | None]:
        with store.read() as snapshot:
            (keyset,) = status(snapshot, POLICY, NOW, {}).keysets
            listed = {entry.kid: entry for entry in keys(snapshot, POLICY, NOW).keys}
        assert listed[Kid("standby")].ready_at == NOW - 5 * DAY + OWN.propagation_period
        return {keyset.rotates_at, listed[Kid("signer")].rotate_at, told(store, "signer").key.rotate_at}

    assert told_everywhere() == {NOW + 80 * DAY}
    with store.begin() as transaction:
        transaction.put_wish(DEFAULT_KEYSET, Wish(asked_at=NOW, actor="ada(1000)"))
    assert told_everywhere() == {ahead(store).takes_over_at} == {NOW + OWN.propagation_period}
    with store.begin() as transaction:
        transaction.put_wish(DEFAULT_KEYSET, Wish(asked_at=NOW, actor="ada(1000)", emergency=True))
    assert told_everywhere() == {NOW}


def test_what_was_asked_for_is_told_until_it_is_done(store: SqlStore) -> None:
    put(store, key("signer", Phase.ACTIVE, 1, **SIGNER), key("spare", Phase.PENDING, 2))
    with store.begin() as transaction:
        transaction.put_wish(DEFAULT_KEYSET, Wish(asked_at=NOW - HOUR, actor="ada(1000)", reason="why"))
    found = ahead(store)
    assert found.asked is not None
    assert (found.asked.actor, found.asked.reason, found.asked.emergency) == ("ada(1000)", "why", False)
    assert found.takes_over_at == NOW + OWN.propagation_period


def test_a_keyset_that_is_not_there(store: SqlStore) -> None:
    with store.read() as snapshot, pytest.raises(UnknownNameError, match="there is no keyset 'nothing'"):
        takeover(snapshot, POLICY, NOW, CronCalendar(), KeysetName("nothing"))


# --------------------------------------------------------------------------------------------------------- replacement


def test_a_replacement_is_done_when_every_sink_holds_the_new_token(store: SqlStore) -> None:
    put(store, key("kid-1", Phase.ACTIVE, 1, **SIGNER))
    with store.begin() as transaction:
        transaction.insert_workspaces([workspace()])
        first = issue(transaction, sinks=())
    with store.read() as snapshot:
        waiting = replacement(snapshot, NOW, ACME, first.jti)
        assert (waiting.token, waiting.done) == (None, False)
        with pytest.raises(RefusedError, match="workspace acme has no token 'other'"):
            replacement(snapshot, NOW, ACME, Jti("other"))
    with store.begin() as transaction:
        second = issue(transaction)
    with store.read() as snapshot:
        found = replacement(snapshot, NOW, ACME, first.jti)
        assert found.token is not None
        assert (found.token.jti, found.delivered, found.sinks, found.done) == (second.jti, 0, 1, False)
        assert [(each.jti, each.counts_until) for each in found.prior] == [(first.jti, first.expires_at)]
    with store.begin() as transaction:
        for row in transaction.deliveries(ACME):
            assert transaction.delivered(ACME, row.sink, row.sequence, NOW)
    with store.read() as snapshot:
        assert replacement(snapshot, NOW, ACME, first.jti).done
