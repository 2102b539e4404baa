"""An audit chain shows every edit, deletion, insertion and move before its head."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.core.audit import Broken, Mark, expected_hash, is_behind, verify_chain
from rotator.core.events import GENESIS, Event, EventName, chain_hash, encode_details
from rotator.core.model import Jti, KeysetName, Kid, WorkspaceId

START = datetime(2026, 3, 1, 3, 0, 0, 123456, tzinfo=UTC)
BEGINNING = Mark(0, GENESIS)


@dataclass(frozen=True)
class Row:
    seq: int
    event: Event
    hash: str


def event(number: int, name: EventName = EventName.TOKEN_ISSUED) -> Event:
    return Event(
        name=name,
        at=START + timedelta(seconds=number),
        keyset=KeysetName("default"),
        workspace=WorkspaceId(f"ws-{number}"),
        kid=Kid("kid"),
        jti=Jti(f"jti-{number}"),
        reason="security_period",
        details={"sequence": number, "note": None, "sink": "füße"},
    )


def chain(length: int, after: Mark = BEGINNING) -> list[Row]:
    rows: list[Row] = []
    before = after
    for number in range(after.seq + 1, after.seq + 1 + length):
        row = Row(number, event(number), "")
        row = replace(row, hash=expected_hash(before.hash, row))
        rows.append(row)
        before = Mark(row.seq, row.hash)
    return rows


def test_untouched_chain_holds() -> None:
    """A chain holds from its beginning, from an anchor, and up to its head."""
    rows = chain(5)
    head = Mark(5, rows[-1].hash)
    assert verify_chain(rows, BEGINNING, head) is None
    assert verify_chain(rows[2:], Mark(2, rows[1].hash), head) is None
    assert verify_chain([], head, head) is None


EDITS = {
    "name": EventName.TOKEN_RETIRED,
    "at": START,
    "keyset": None,
    "workspace": WorkspaceId("other"),
    "kid": None,
    "jti": Jti(""),
    "actor": "mallory(1000)",
    "reason": "",
    "details": {"sequence": 4},
}


@pytest.mark.parametrize("changed", EDITS)
def test_any_edited_field_is_found(changed: str) -> None:
    """Each field of an event is covered by its hash."""
    rows = chain(5)
    rows[2] = replace(rows[2], event=rows[2].event._replace(**{changed: EDITS[changed]}))  # type: ignore[arg-type] # a table of many types
    found = verify_chain(rows, BEGINNING)
    assert found is not None
    assert found.seq == 3


@given(length=st.integers(2, 12), data=st.data())
def test_deleted_event_is_found(length: int, data: st.DataObject) -> None:
    """Without the head, the last event is the only one whose deletion cannot be seen; with it, that one is too."""
    rows = chain(length)
    head = Mark(length, rows[-1].hash)
    gone = data.draw(st.integers(0, length - 1))
    left = rows[:gone] + rows[gone + 1 :]
    assert verify_chain(left, BEGINNING, head) is not None
    assert (verify_chain(left, BEGINNING) is None) == (gone == length - 1)


@given(length=st.integers(2, 12), data=st.data(), renumber=st.booleans())
def test_moved_event_is_found(length: int, data: st.DataObject, renumber: bool) -> None:
    """Two events that changed places are found, also when they took each other's number."""
    rows = chain(length)
    one, other = sorted(data.draw(st.lists(st.integers(0, length - 1), min_size=2, max_size=2, unique=True)))
    rows[one], rows[other] = rows[other], rows[one]
    if renumber:
        rows[one], rows[other] = replace(rows[one], seq=one + 1), replace(rows[other], seq=other + 1)
    found = verify_chain(rows, BEGINNING)
    assert found is not None
    assert found.seq in (one + 1, other + 1)


@given(length=st.integers(2, 8), data=st.data(), field=st.sampled_from(sorted(EDITS)))
def test_edit_with_recomputed_hash_is_found_at_the_next(length: int, data: st.DataObject, field: str) -> None:
    """Whoever edits an event and gives it the right hash breaks the one after it."""
    rows = chain(length)
    place = data.draw(st.integers(0, length - 2))
    forged = replace(rows[place], event=rows[place].event._replace(**{field: EDITS[field]}))  # type: ignore[arg-type] # as above
    if forged.event == rows[place].event:
        return
    before = rows[place - 1].hash if place else GENESIS
    rows[place] = replace(forged, hash=expected_hash(before, forged))
    found = verify_chain(rows, BEGINNING)
    assert found is not None
    assert found.seq == place + 2


def test_inserted_event_is_found() -> None:
    """An event put in twice does not pass as a new one."""
    rows = chain(3)
    found = verify_chain([*rows[:2], rows[1], rows[2]], BEGINNING)
    assert found == Broken(2, "it comes after event 2")


@pytest.mark.parametrize(("name", "holds"), [(EventName.STATE_RESTORED, True), (EventName.CONFIG_APPLIED, False)])
def test_gap_is_right_only_where_a_backup_was_restored(name: EventName, holds: bool) -> None:
    """Numbers may leap over what a restored backup lost, and nowhere else."""
    rows = chain(3)
    after_gap = Row(40, event(40, name), "")
    after_gap = replace(after_gap, hash=expected_hash(rows[-1].hash, after_gap))
    found = verify_chain([*rows, after_gap], BEGINNING)
    assert (found is None) == holds
    if not holds:
        assert found == Broken(40, "event 4 is missing before it")


def test_rewritten_chain_differs_from_a_kept_head() -> None:
    """A chain written anew from the beginning holds in itself, and not against the head that was kept."""
    rows = chain(4)
    kept = Mark(3, "f" * 64)
    assert verify_chain(rows, BEGINNING) is None
    found = verify_chain(rows, BEGINNING, kept)
    assert found is not None
    assert found.seq == 3


def test_time_is_hashed_in_microseconds_since_1970() -> None:
    """A chain that was written by an earlier version still holds."""
    (row,) = chain(1)
    microseconds = int(START.timestamp()) * 1_000_000 + 1_000_000 + 123_456
    assert row.hash == chain_hash(GENESIS, 1, row.event, microseconds, encode_details(row.event.details))


@pytest.mark.parametrize(("known", "behind"), [(Mark(0, GENESIS), False), (Mark(1, "h1"), True)])
def test_a_chain_that_was_never_pruned_is_held_against_its_first_event(known: Mark, behind: bool) -> None:
    assert is_behind(Mark(8, "h8"), BEGINNING, known, None) is behind


@pytest.mark.parametrize(
    ("known", "there", "behind"),
    [
        (Mark(9, "h9"), None, True),  # the database ends before it
        (Mark(8, "h8"), "h8", False),
        (Mark(8, "h8"), "other", True),  # as long, and another one
        (Mark(5, "h5"), "h5", False),
        (Mark(5, "h5"), "other", True),
        (Mark(5, "h5"), None, True),  # in the gap that an earlier restore left
        (Mark(3, "h3"), "h3", False),  # the anchor
        (Mark(3, "h3"), "other", True),
        (Mark(2, "h2"), None, False),  # pruned: nobody can tell
        (Mark(0, GENESIS), None, False),  # nothing was known
    ],
)
def test_a_chain_is_behind_what_was_known_of_it(known: Mark, there: str | None, behind: bool) -> None:
    assert is_behind(Mark(8, "h8"), Mark(3, "h3"), known, there) is behind
