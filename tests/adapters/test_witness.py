"""The witness gives back what was written or says that it cannot be trusted; unchanged, it is left alone."""

import os
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.adapters.kek import KekRing
from rotator.adapters.sealing import AesGcmSealer
from rotator.adapters.witness import PURPOSE, FileWitness
from rotator.core.model import Algorithm, Jti, KekId, KeysetName, Kid, ReplicaId
from rotator.core.secret import Secret
from rotator.core.timeguard import ClockMark
from rotator.errors import KekError, WitnessError
from rotator.ports import Sealer, Witness, WitnessedKey, WitnessedKeyset, WitnessRecord

OLD, NEW = KekId("old"), KekId("new")
KEYS = {OLD: bytes(range(32)), NEW: bytes(range(100, 132))}
T0 = datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)


def sealer(*kek_ids: KekId) -> Sealer:
    return AesGcmSealer(KekRing({kek_id: Secret(KEYS[kek_id]) for kek_id in kek_ids}))


class Safe:
    """Gives the sealer of the moment; without one the KEK is gone."""

    def __init__(self, *kek_ids: KekId) -> None:
        self.kek_ids = kek_ids

    def __call__(self) -> Sealer:
        if not self.kek_ids:
            raise KekError("there is no KEK")
        return sealer(*self.kek_ids)


RECORD = WitnessRecord(
    installation="7f0c",
    audit_seq=41,
    audit_hash="ab" * 32,
    keysets={
        KeysetName("default"): WitnessedKeyset(
            generation=3,
            active=Kid("one"),
            published=(
                WitnessedKey(Kid("one"), Algorithm.ES256, '{"kid":"one"}', 1, T0 + timedelta(days=9)),
                WitnessedKey(Kid("two"), Algorithm.ES256, '{"kid":"two"}', 2, None),
            ),
        ),
        KeysetName("eu"): WitnessedKeyset(generation=1, active=None, published=()),
    },
    revoked_kids=frozenset({Kid("bad"), Kid("worse")}),
    revoked_jtis={Jti("0123"): T0},
    replicas=frozenset({ReplicaId("main"), ReplicaId("pod-2")}),
    clock=ClockMark(high_water_at=T0, boot_id="b007", offset=timedelta(days=20_000)),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "witness"


def test_what_was_written_is_read_by_the_next_process(path: Path) -> None:
    FileWitness(path, Safe(NEW)).write(RECORD)
    assert FileWitness(path, Safe(NEW, OLD)).read() == RECORD
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


TEXT = st.text(max_size=8)
MOMENTS = st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # hypothesis wants naive bounds
WITNESSED_KEYS = st.builds(WitnessedKey, TEXT, st.sampled_from(Algorithm), TEXT, st.integers(), st.none() | MOMENTS)
KEYSETS = st.builds(WitnessedKeyset, st.integers(), st.none() | TEXT, st.lists(WITNESSED_KEYS, max_size=3).map(tuple))
CLOCKS = st.builds(ClockMark, high_water_at=MOMENTS, boot_id=TEXT, offset=st.timedeltas())
RECORDS = st.builds(
    WitnessRecord,
    installation=TEXT,
    audit_seq=st.integers(),
    audit_hash=TEXT,
    keysets=st.dictionaries(TEXT, KEYSETS, max_size=3),
    revoked_kids=st.frozensets(TEXT, max_size=3),
    revoked_jtis=st.dictionaries(TEXT, MOMENTS, max_size=3),
    replicas=st.frozensets(TEXT, max_size=3),
    clock=st.none() | CLOCKS,
)


@given(RECORDS)
def test_every_record_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, record: WitnessRecord) -> None:
    path = tmp_path_factory.getbasetemp() / "witness"
    FileWitness(path, Safe(NEW)).write(record)
    assert FileWitness(path, Safe(NEW)).read() == record


def test_where_there_is_none_there_is_none(path: Path) -> None:
    assert FileWitness(path, Safe(NEW)).read() is None


# ------------------------------------------------------------------------------------------------------------ writing


def identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def test_nothing_is_written_when_nothing_changed(path: Path) -> None:
    witness: Witness = FileWitness(path, Safe(NEW))
    witness.write(RECORD)
    before = identity(path)
    witness.write(replace(RECORD, keysets=dict(reversed(list(RECORD.keysets.items())))))
    assert identity(path) == before
    witness.write(replace(RECORD, audit_seq=42))
    assert identity(path) != before


def test_a_process_that_has_read_it_does_not_write_it_again(path: Path) -> None:
    FileWitness(path, Safe(NEW)).write(RECORD)
    before = identity(path)
    witness = FileWitness(path, Safe(NEW))
    witness.read()
    witness.write(RECORD)
    assert identity(path) == before


def test_a_file_that_was_taken_away_or_replaced_is_written_again(path: Path) -> None:
    witness = FileWitness(path, Safe(NEW))
    witness.write(RECORD)
    path.unlink()
    witness.write(RECORD)
    assert witness.read() == RECORD
    path.write_text("x")
    witness.write(RECORD)
    assert witness.read() == RECORD


def test_it_moves_to_the_kek_that_seals_now(path: Path) -> None:
    safe = Safe(OLD)
    witness = FileWitness(path, safe)
    witness.write(RECORD)
    safe.kek_ids = (NEW, OLD)
    witness.write(RECORD)
    assert FileWitness(path, Safe(NEW)).read() == RECORD


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(WitnessError, match="witness cannot be written: No such file or directory"):
        FileWitness(tmp_path / "missing" / "witness", Safe(NEW)).write(RECORD)


def test_what_stands_in_its_place_is_replaced_not_followed(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_text("mine")
    path.symlink_to(elsewhere)
    FileWitness(path, Safe(NEW)).write(RECORD)
    assert elsewhere.read_text() == "mine"
    assert FileWitness(path, Safe(NEW)).read() == RECORD


# ----------------------------------------------------------------------------------------------------- authenticating


def test_no_changed_byte_goes_unseen(path: Path) -> None:
    FileWitness(path, Safe(NEW)).write(RECORD)
    content = path.read_bytes()
    # What is after the MAC's last digit says nothing: closing marks and spaces around an unchanged MAC.
    end = content.rindex(b'"')
    for place in range(end):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(WitnessError, match="put back the file that belongs to this state"):
            FileWitness(path, Safe(NEW)).read()


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"{}\n{}\n", b"{}\n[]\n", b'{}\n{"kek_id":"new","mac":5}\n', b"\xff\n\xff"]
)
def test_a_damaged_file_is_told(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(WitnessError, match=rf"damaged.*mv {path} {path}.damaged"):
        FileWitness(path, Safe(NEW)).read()


def test_a_kek_id_that_is_none_is_told(path: Path) -> None:
    path.write_bytes(b'{}\n{"kek_id":[],"mac":"00"}\n')
    with pytest.raises(WitnessError, match=r"was not written under the KEK '\[\]' of this installation"):
        FileWitness(path, Safe(NEW)).read()


def test_a_witness_of_another_installation_is_not_believed(path: Path) -> None:
    FileWitness(path, Safe(OLD)).write(RECORD)
    with pytest.raises(WitnessError, match="was not written under the KEK 'old' of this installation"):
        FileWitness(path, Safe(NEW)).read()


def test_without_a_kek_nothing_is_believed_and_nothing_written(path: Path) -> None:
    safe = Safe(NEW)
    witness = FileWitness(path, safe)
    witness.write(RECORD)
    safe.kek_ids = ()
    with pytest.raises(KekError):
        witness.read()
    with pytest.raises(KekError):
        witness.write(replace(RECORD, audit_seq=42))
    assert FileWitness(path, Safe(NEW)).read() == RECORD


def authentic(body: bytes) -> bytes:
    mac = sealer(NEW).mac(PURPOSE, body).hex()
    return body + f'\n{{"kek_id":"new","mac":"{mac}"}}\n'.encode()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"format":2}', "has format 2, and this version reads 1; run the version of rotator that wrote it"),
        (b'{"format":1}', "authentic, but not a record of this version"),
        (b"[]", "authentic, but not a record"),
        (b"no json", "authentic, but not a record"),
        (
            b'{"format":1,"installation":"i","audit_seq":1,"audit_hash":"h","keysets":{},"revoked_kids":[],'
            b'"revoked_jtis":{"j":99999999999999999999}}',
            "authentic, but not a record",
        ),
    ],
)
def test_an_authentic_file_of_another_version_is_told_apart(path: Path, body: bytes, message: str) -> None:
    path.write_bytes(authentic(body))
    with pytest.raises(WitnessError, match=message):
        FileWitness(path, Safe(NEW)).read()


def test_what_cannot_be_read_is_named(path: Path) -> None:
    path.mkdir()
    with pytest.raises(WitnessError, match=f"the witness {path} cannot be read: Is a directory"):
        FileWitness(path, Safe(NEW)).read()


def test_a_symlink_is_not_read(path: Path) -> None:
    path.symlink_to(os.devnull)
    with pytest.raises(WitnessError, match="cannot be read"):
        FileWitness(path, Safe(NEW)).read()
