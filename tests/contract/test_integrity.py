"""Rows bear a MAC over all that decides in them: what somebody else wrote is believed by nobody."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from rotator.adapters.kek import KekRing
from rotator.adapters.sealing import AesGcmSealer
from rotator.adapters.store import SqlStore, schema
from rotator.core.integrity import COVERED, TOKEN, content_of
from rotator.core.model import DEFAULT_KEYSET, Jti, KekId, Overlap, Phase, ReplicaId, Wish
from rotator.core.secret import Secret
from rotator.core.timeguard import ClockMark
from rotator.engine.rows import identity_of
from rotator.errors import KekError, SealError, StoreError
from rotator.ports import ReplicaRow, Sighting, Snapshot
from tests.contract.records import ACME, DAY, FILE, HOUR, KEK, KID, NOW, issued, key, keyset, workspace

HERE = ReplicaId("here")


def sealer(number: int = 1) -> AesGcmSealer:
    return AesGcmSealer(KekRing({KekId(KEK): Secret(bytes([number]) * 32)}))


@pytest.fixture
def trusted(store: SqlStore) -> SqlStore:
    """Fill every table whose rows bear a MAC."""
    store.trust(sealer())
    with store.begin() as transaction:
        transaction.set_clock_mark(ClockMark(high_water_at=NOW, boot_id="boot", offset=HOUR))
        transaction.put_replica(ReplicaRow(replica=HERE, started_at=NOW, seen_at=NOW))
        transaction.put_keyset(keyset())
        transaction.insert_key(key())
        transaction.put_wish(DEFAULT_KEYSET, Wish(asked_at=NOW, actor="ada(1000)"))
        transaction.put_sighting(Sighting(HERE, DEFAULT_KEYSET, KID, NOW, NOW, "boot", HOUR))
        transaction.insert_workspaces([workspace()])
        order = issued(workspace())
        token = order.token
        assert transaction.issue([order._replace(mac=sealer().mac(TOKEN, identity_of(token).encode()))])
        assert transaction.delivered(ACME, FILE, token.sequence, NOW)
        transaction.put_overlaps([Overlap(token.jti, ACME, NOW + DAY, "ada(1000)")])
    return store


def edited(store: SqlStore, table: str, column: str) -> None:
    """Change one column of every row of a table, as somebody who can write the database does."""
    kept = schema.metadata.tables[table].c[column]
    value: Any = sa.func.coalesce(kept, 0) + 1
    if isinstance(kept.type, sa.Text):
        value = "active" if column == "phase" else "XX"
    elif column in ("emergency", "ever_active"):
        value = 1 - kept
    elif column in ("sealed", "mac"):
        value = b"other"
    with store._for_writing.begin() as connection:
        connection.execute(sa.update(schema.metadata.tables[table]).values({column: value}))


BELIEVED: dict[str, Callable[[Snapshot], bool]] = {
    "clock": lambda snapshot: snapshot.clock_mark() is not None,
    "keysets": lambda snapshot: all(row.authentic for row in snapshot.keysets()),
    "wishes": lambda snapshot: snapshot.wish(DEFAULT_KEYSET) is not None,
    "signing_keys": lambda snapshot: all(row.key.authentic for row in snapshot.all_keys()),
    "sightings": lambda snapshot: bool(snapshot.sightings(DEFAULT_KEYSET)),
    "token_overlaps": lambda snapshot: bool(snapshot.overlaps()),
    "workspaces": lambda snapshot: all(state.claims_fingerprint for state in snapshot.workspaces()),
    "deliveries": lambda snapshot: all(row.delivered_sequence for row in snapshot.deliveries()),
}
"""Whether what a table says is believed."""

EDITS = [
    (table, column)
    for table in BELIEVED
    for column in (*COVERED[table].columns, "mac", "kek_id")
    if column != "keyset" and (table, column) != ("keysets", "name")  # the database itself keeps these to what is there
]


@pytest.mark.parametrize(("table", "column"), EDITS)
def test_an_edited_row_is_believed_by_nobody(trusted: SqlStore, table: str, column: str) -> None:
    with trusted.read() as snapshot:
        assert BELIEVED[table](snapshot)
    edited(trusted, table, column)
    with trusted.read() as snapshot:
        assert not BELIEVED[table](snapshot)


def test_no_two_contents_are_the_same() -> None:
    covered = COVERED["replicas"]
    contents = {
        content_of(covered, values)
        for values in [("a", 1, 2, None), ("a", 1, 2, 0), ("a', 1", 1, 2, None), ("ä", 1, 2, None), ("a", 12, 2, None)]
    }
    assert len(contents) == 5


def test_another_kek_believes_nothing(trusted: SqlStore) -> None:
    trusted.trust(sealer(2))
    with trusted.read() as snapshot:
        assert not any(believed(snapshot) for believed in BELIEVED.values())
        assert list(snapshot.tokens()) == []


def test_without_the_kek_rows_are_verified_and_none_is_authenticated(trusted: SqlStore) -> None:
    """What was derived from it stays in memory; a change of what decides waits until it is back."""
    trusted.trust(None)
    with trusted.begin() as transaction:
        row = transaction.keyset(DEFAULT_KEYSET)
        assert row is not None
        assert row.authentic
        transaction.put_keyset(replace(row, generation=7))
    with pytest.raises(KekError, match="while the key-encryption key is away"), trusted.begin() as transaction:
        transaction.put_keyset(replace(row, next_sequence=7))
    with trusted.read() as snapshot:
        kept = snapshot.keyset(DEFAULT_KEYSET)
        assert kept is not None
        assert (kept.generation, kept.next_sequence, kept.authentic) == (7, 1, True)


def test_no_change_makes_an_edited_row_authentic(trusted: SqlStore) -> None:
    """The MAC before is verified under the same lock; a key can be revoked all the same."""
    edited(trusted, "signing_keys", "algorithm")
    with trusted.begin() as transaction:
        assert not transaction.raise_last_exp(KID, NOW)
        with pytest.raises(SealError, match="was changed since: it cannot become active"):
            transaction.update_key(replace(key().key, phase=Phase.ACTIVE))
    edited(trusted, "keysets", "next_sequence")
    with trusted.begin() as transaction:
        row = transaction.keyset(DEFAULT_KEYSET)
        assert row is not None
        transaction.put_keyset(replace(row, ever_active=True, failures=3))
        transaction.update_key(replace(key().key, phase=Phase.REVOKED, revoked_at=NOW, has_private=False))
    with trusted.read() as snapshot:
        row, revoked = snapshot.keyset(DEFAULT_KEYSET), snapshot.key(KID)
        assert row is not None
        assert revoked is not None
        assert (row.authentic, row.failures, row.ever_active) == (False, 3, False)
        assert (revoked.key.authentic, revoked.key.phase, revoked.sealed) == (True, Phase.REVOKED, None)


def test_only_a_row_that_nobody_believes_is_replaced(trusted: SqlStore) -> None:
    """By one that says what is known besides: all of the former is gone, its private half, too."""
    known = replace(key(), key=replace(key().key, phase=Phase.GRACE, has_private=False), sealed=None)
    with pytest.raises(StoreError, match="is as it was written"), trusted.begin() as transaction:
        transaction.replace_unauthentic_key(known)
    edited(trusted, "signing_keys", "algorithm")
    with trusted.begin() as transaction:
        transaction.replace_unauthentic_key(known)
    with trusted.read() as snapshot:
        row = snapshot.key(KID)
        assert row is not None
        assert (row.key, row.sealed) == (known.key, None)


def test_a_wish_that_was_fulfilled_asks_for_nothing_when_it_is_put_back(trusted: SqlStore) -> None:
    with trusted._engine.connect() as connection:
        kept = connection.execute(sa.select(schema.wishes)).mappings().one()
    with trusted.begin() as transaction:
        transaction.update_key(replace(key().key, phase=Phase.ACTIVE, activated_at=NOW + HOUR, rotate_at=NOW + DAY))
        transaction.drop_wish(DEFAULT_KEYSET)
    with trusted._for_writing.begin() as connection:
        connection.execute(sa.insert(schema.wishes).values(dict(kept)))
    with trusted.read() as snapshot:
        assert snapshot.wish(DEFAULT_KEYSET) is None


@pytest.mark.parametrize("column", ["workspace", "keyset", "kid", "sequence", "issued_at", "expires_at", "rotate_at"])
def test_a_token_that_was_made_another_is_none(trusted: SqlStore, column: str) -> None:
    edited(trusted, "tokens", column)
    with trusted.read() as snapshot:
        assert list(snapshot.tokens()) == []
        assert snapshot.expired_tokens(NOW + 99 * DAY, 9) == ()


def test_a_revocation_of_a_token_that_nobody_made_is_none(trusted: SqlStore) -> None:
    """One that was made is known, and what takes it back is not believed."""
    jti = Jti("acme-1")
    with trusted._for_writing.begin() as connection:
        connection.execute(sa.update(schema.tokens).values(phase="revoked", revoked_at=1, revoke_reason="x"))
    with trusted.read() as snapshot:
        assert snapshot.revoked_tokens(NOW) == {}
    with trusted._for_writing.begin() as connection:
        connection.execute(sa.update(schema.tokens).values(phase="active", revoked_at=None, revoke_reason=""))
    with trusted.begin() as transaction:
        transaction.revoke_token(jti, NOW, "leaked")
    with trusted.read() as snapshot:
        assert list(snapshot.revoked_tokens(NOW)) == [jti]
    with trusted._for_writing.begin() as connection:
        connection.execute(sa.update(schema.tokens).values(phase="active"))
    with trusted.read() as snapshot:
        assert list(snapshot.tokens()) == []
