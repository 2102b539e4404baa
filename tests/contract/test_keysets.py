"""Keysets, keys, sightings, replicas, KEKs and the clock, on every database."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from rotator.adapters.store import SqlStore
from rotator.core.model import DEFAULT_KEYSET, Algorithm, KekId, KeysetName, Kid, Origin, Phase, ReplicaId, SigningKey
from rotator.core.timeguard import ClockMark
from rotator.errors import StoreError
from rotator.ports import KekRow, KeyRow, KeysetRow, ReplicaRow, Sighting
from tests.contract.records import ACME, DAY, HOUR, KEK, KID, NOW, issue, key, keyset, workspace

HERE = ReplicaId("here")
THERE = ReplicaId("there")

FULL_KEYSET = KeysetRow(
    name=KeysetName("payments"),
    generation=7,
    schedule_fingerprint="fingerprint",
    next_sequence=9,
    ever_active=True,
    due_at=NOW,
    ended_at=NOW + HOUR,
    failures=3,
    retry_at=NOW + 2 * HOUR,
    fault="the tree is read-only",
    set_sha256="ab" * 32,
    policy='{"name":"payments"}',
)

FULL_KEY = SigningKey(
    kid=KID,
    keyset=DEFAULT_KEYSET,
    sequence=4,
    algorithm=Algorithm.EDDSA,
    phase=Phase.ACTIVE,
    created_at=NOW,
    origin=Origin.IMPORTED,
    public_jwk='{"kty":"OKP"}',
    proven_at=NOW + 1 * HOUR,
    activated_at=NOW + 2 * HOUR,
    rotate_at=NOW + 3 * HOUR,
    demoted_at=NOW + 4 * HOUR,
    grace_until=NOW + 5 * HOUR,
    last_exp=NOW + 6 * HOUR,
    retired_at=NOW + 7 * HOUR,
    revoked_at=NOW + 8 * HOUR,
    destroyed_at=NOW + 9 * HOUR,
)


def test_keyset_comes_back_as_it_was_put(store: SqlStore) -> None:
    """Every field of a keyset is kept to the microsecond, and a second put replaces the first."""
    with store.begin() as transaction:
        transaction.put_keyset(keyset("payments"))
        transaction.put_keyset(FULL_KEYSET)
        transaction.put_keyset(keyset())
    with store.read() as snapshot:
        assert snapshot.keyset(FULL_KEYSET.name) == FULL_KEYSET
        assert snapshot.keysets() == (keyset(), FULL_KEYSET)
        assert snapshot.keyset(KeysetName("unknown")) is None
    with store.begin() as transaction:
        assert transaction.lock_keyset(FULL_KEYSET.name) == FULL_KEYSET
        assert transaction.lock_keyset(KeysetName("unknown")) is None


def test_due_keysets_are_those_whose_time_has_come(store: SqlStore) -> None:
    """Most overdue first; not before due_at, and not before a later retry."""
    rows = [
        keyset("late", NOW - DAY),
        keyset("now", NOW),
        keyset("ahead", NOW + timedelta(microseconds=1)),
        replace(keyset("put-off", NOW - 2 * DAY), retry_at=NOW + HOUR),
        replace(keyset("retried", NOW - HOUR), retry_at=NOW),
    ]
    with store.begin() as transaction:
        for row in rows:
            transaction.put_keyset(row)
    with store.read() as snapshot:
        assert snapshot.due_keysets(NOW) == ("late", "retried", "now")
        assert snapshot.due_keysets(NOW + HOUR) == ("put-off", "late", "retried", "now", "ahead")
        assert snapshot.next_due(()) == NOW - DAY


def test_key_comes_back_as_it_was_stored(store: SqlStore) -> None:
    """Every field of a key and its sealed private half are kept."""
    row = KeyRow(FULL_KEY, b"\x00sealed\xff", KEK)
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.insert_key(row)
    with store.read() as snapshot:
        assert snapshot.key(KID) == row
        assert snapshot.all_keys() == (row,)
        assert snapshot.key(Kid("unknown")) is None


def test_update_stores_all_that_changes_in_a_key(store: SqlStore) -> None:
    """Phase and instants follow; what a key is made of stays, and so does its private half."""
    before = key(phase=Phase.PENDING)
    changed = replace(
        FULL_KEY, sequence=1, algorithm=Algorithm.ES256, origin=Origin.MADE, public_jwk=before.key.public_jwk
    )
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.insert_key(before)
        transaction.update_key(replace(changed, sequence=99, public_jwk="other"))
    with store.read() as snapshot:
        assert snapshot.key(KID) == replace(before, key=changed)


def test_private_half_is_erased_with_the_update(store: SqlStore) -> None:
    """A key without its private half has no sealed record left."""
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.insert_key(key(phase=Phase.ACTIVE))
        transaction.update_key(replace(key().key, phase=Phase.GRACE, has_private=False))
        row = transaction.key(KID)
    assert row is not None
    assert row.sealed is None
    assert not row.key.has_private


def test_private_half_cannot_outlive_signing(store: SqlStore) -> None:
    """The schema itself refuses a private half of a key that signs no more."""
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
    with pytest.raises(StoreError, match="breaks a rule"), store.begin() as transaction:
        transaction.insert_key(key(phase=Phase.GRACE))


def adopted(**changed: object) -> KeyRow:
    public = replace(
        key(phase=Phase.GRACE, sealed=None).key,
        origin=Origin.ADOPTED,
        demoted_at=NOW,
        grace_until=NOW + DAY,
        last_exp=NOW + DAY,
        destroyed_at=NOW,
    )
    return KeyRow(replace(public, **changed), None, KEK)  # type: ignore[arg-type]  # fields, by name


def test_adopted_key_is_given_its_private_half(store: SqlStore) -> None:
    """It is imported and pending then; what tokens of its former system need stays."""
    completed = replace(
        adopted().key,
        origin=Origin.IMPORTED,
        phase=Phase.PENDING,
        has_private=True,
        demoted_at=None,
        grace_until=None,
        destroyed_at=None,
    )
    row = KeyRow(completed, b"sealed", KekId("kek-2"))
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.insert_key(adopted())
        transaction.complete_key(row)
    with store.read() as snapshot:
        assert snapshot.key(KID) == row
        assert completed.last_exp == NOW + DAY


@pytest.mark.parametrize(
    "before",
    [
        adopted(origin=Origin.MADE),
        adopted(phase=Phase.RETIRED),
        adopted(phase=Phase.REVOKED),
        adopted(public_jwk="another"),
        adopted(sequence=9),
        adopted(kid=Kid("another")),
    ],
)
def test_no_other_key_is_given_a_private_half(store: SqlStore, before: KeyRow) -> None:
    completed = KeyRow(replace(key().key, origin=Origin.IMPORTED), b"sealed", KEK)
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.insert_key(before)
    with pytest.raises(StoreError, match="is no adopted key in grace"), store.begin() as transaction:
        transaction.complete_key(completed)


@pytest.mark.parametrize("phase", list(Phase))
def test_kid_is_never_used_again(store: SqlStore, phase: Phase) -> None:
    """Whatever became of a key, its kid is taken, in every keyset; the transaction goes on."""
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.put_keyset(keyset("other"))
        transaction.insert_key(key(phase=phase, sealed=None))
        with pytest.raises(StoreError, match="never used twice"):
            transaction.insert_key(key(name="other"))
        transaction.insert_key(key("another"))


def test_update_of_an_unknown_key_is_refused(store: SqlStore) -> None:
    with pytest.raises(StoreError, match="not in the database"), store.begin() as transaction:
        transaction.update_key(key().key)


def test_only_one_key_of_a_keyset_signs(store: SqlStore) -> None:
    """The schema itself refuses a second active key in a keyset."""
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.put_keyset(keyset("other"))
        transaction.insert_key(key("one", phase=Phase.ACTIVE))
        transaction.insert_key(key("two", phase=Phase.ACTIVE, name="other"))
    with pytest.raises(StoreError, match="breaks a rule"), store.begin() as transaction:
        transaction.insert_key(key("three", phase=Phase.ACTIVE))


def test_destroyed_keys_leave_the_planners_sight_only(store: SqlStore) -> None:
    """Retired and revoked keys are listed until their private half is destroyed, and kept for ever."""
    rows = [
        key("grace", phase=Phase.GRACE, sequence=3, sealed=None),
        key("retired", phase=Phase.RETIRED, sequence=2, sealed=None),
        key("revoked", phase=Phase.REVOKED, sequence=1, sealed=None),
        key("pending", sequence=4),
    ]
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.put_keyset(keyset("other"))
        transaction.insert_key(key("elsewhere", name="other"))
        for row in rows:
            transaction.insert_key(row)
        assert [row.key.kid for row in transaction.keys(DEFAULT_KEYSET)] == ["revoked", "retired", "grace", "pending"]
        for row in rows[:3]:
            transaction.update_key(replace(row.key, destroyed_at=NOW))
    with store.read() as snapshot:
        assert [row.key.kid for row in snapshot.keys(DEFAULT_KEYSET)] == ["grace", "pending"]
        kids = [row.key.kid for row in snapshot.all_keys()]
        assert kids == ["revoked", "retired", "grace", "pending", "elsewhere"]


@pytest.mark.parametrize(
    ("stored", "raised", "left"),
    [
        (None, NOW, NOW),
        (NOW, NOW + HOUR, NOW + HOUR),
        (NOW, NOW - HOUR, NOW),
    ],
)
def test_last_exp_is_only_raised(store: SqlStore, stored: datetime | None, raised: datetime, left: datetime) -> None:
    """Neither a batch nor a later update of the key lowers the end of the last token on it."""
    row = key(phase=Phase.ACTIVE)
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.insert_key(replace(row, key=replace(row.key, last_exp=stored)))
        assert transaction.raise_last_exp(KID, raised)
        transaction.update_key(replace(row.key, last_exp=None))
        after = transaction.key(KID)
        assert after is not None
        assert after.key.last_exp == left
        transaction.update_key(replace(row.key, last_exp=left + DAY))
        after = transaction.key(KID)
        assert after is not None
        assert after.key.last_exp == left + DAY


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.ACTIVE])
def test_nothing_is_signed_with_a_key_that_is_not_active(store: SqlStore, phase: Phase) -> None:
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.insert_key(key(phase=phase, sealed=None))
        assert not transaction.raise_last_exp(KID, NOW)
        assert not transaction.raise_last_exp(Kid("unknown"), NOW)
        row = transaction.key(KID)
    assert row is not None
    assert row.key.last_exp is None


def sighting(replica: ReplicaId = HERE, kid: str = KID, *, name: str = DEFAULT_KEYSET) -> Sighting:
    return Sighting(replica, KeysetName(name), Kid(kid), NOW, NOW - HOUR, "boot", timedelta(seconds=12, microseconds=3))


def test_sightings_are_one_per_replica_and_kid(store: SqlStore) -> None:
    """A second sighting replaces the first; those of another keyset stay apart; deleting takes what it names."""
    first = replace(sighting(), absent_until=None)
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.put_keyset(keyset("other"))
        transaction.put_sighting(first)
        transaction.put_sighting(sighting(THERE))
        transaction.put_sighting(sighting(kid="kid-2"))
        transaction.put_sighting(sighting(kid="kid-3", name="other"))
        assert transaction.sightings(DEFAULT_KEYSET) == (first, sighting(kid="kid-2"), sighting(THERE))
        transaction.put_sighting(sighting())
        transaction.delete_sightings(HERE, [Kid("kid-2")])
        transaction.delete_sightings(HERE, [])
    with store.read() as snapshot:
        assert snapshot.sightings(DEFAULT_KEYSET) == (sighting(), sighting(THERE))


def test_forgotten_replica_counts_no_more(store: SqlStore) -> None:
    """Neither it nor what it saw is returned, until it is put again."""
    row = ReplicaRow(replica=THERE, started_at=NOW, seen_at=NOW + HOUR)
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.put_replica(replace(row, replica=HERE))
        transaction.put_replica(row)
        transaction.put_sighting(sighting(THERE))
        assert transaction.replicas() == (replace(row, replica=HERE), row)
        transaction.put_replica(replace(row, forgotten_at=NOW))
        assert transaction.replicas() == (replace(row, replica=HERE),)
        assert transaction.sightings(DEFAULT_KEYSET) == ()
        transaction.put_replica(row)
        assert transaction.sightings(DEFAULT_KEYSET) == (sighting(THERE),)


def test_publication_is_recorded_once_per_generation(store: SqlStore) -> None:
    """Recording it again replaces the row."""
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.put_publication(HERE, DEFAULT_KEYSET, 1, "aa", NOW)
        transaction.put_publication(HERE, DEFAULT_KEYSET, 1, "bb", NOW)
        transaction.put_publication(HERE, DEFAULT_KEYSET, 2, "cc", NOW)
    with store._engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT generation, sha256 FROM publications ORDER BY generation").all()
    assert [tuple(row) for row in found] == [(1, "bb"), (2, "cc")]
    with store.read() as snapshot:
        assert snapshot.has_published(HERE, DEFAULT_KEYSET)
        assert not snapshot.has_published(THERE, DEFAULT_KEYSET)


def test_keks_and_clock_are_remembered(store: SqlStore) -> None:
    """A KEK is registered once; the clock's mark is replaced, and may lie before the epoch of its boot."""
    marks = [
        ClockMark(high_water_at=NOW, boot_id="boot-1", offset=timedelta(days=20_000, microseconds=7)),
        ClockMark(high_water_at=NOW + DAY, boot_id="boot-2", offset=timedelta(days=-1, microseconds=7)),
    ]
    with store.begin() as transaction:
        assert transaction.clock_mark() is None
        assert transaction.keks() == ()
        for mark in marks:
            transaction.set_clock_mark(mark)
            assert transaction.clock_mark() == mark
        transaction.add_kek(KekRow(KEK, b"check", NOW))
        transaction.add_kek(KekRow(KekId("kek-0"), b"other", NOW))
        with pytest.raises(StoreError, match="registered already"):
            transaction.add_kek(KekRow(KEK, b"another", NOW))
        assert transaction.keks() == (KekRow(KekId("kek-0"), b"other", NOW), KekRow(KEK, b"check", NOW))


def test_keyset_is_in_use_while_a_workspace_or_a_live_token_of_a_removed_one_is_on_it(store: SqlStore) -> None:
    with store.begin() as transaction:
        transaction.put_keyset(keyset())
        transaction.put_keyset(keyset("other"))
        transaction.insert_key(key(phase=Phase.ACTIVE))
        assert not transaction.keyset_in_use(DEFAULT_KEYSET, NOW)
        transaction.insert_workspaces([workspace()])
        assert transaction.keyset_in_use(DEFAULT_KEYSET, NOW)
        assert not transaction.keyset_in_use(KeysetName("other"), NOW)
        token = issue(transaction)
        state = transaction.workspace(ACME)
        assert state is not None
        transaction.update_workspaces([state._replace(removed_at=NOW)])
        assert transaction.keyset_in_use(DEFAULT_KEYSET, token.expires_at - timedelta(microseconds=1))
        assert not transaction.keyset_in_use(DEFAULT_KEYSET, token.expires_at)
        assert not transaction.keyset_in_use(KeysetName("other"), NOW)
