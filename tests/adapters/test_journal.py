import os
import socket
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from rotator.adapters.journal import ENTRY_LIMIT_BYTES, Journal, encode, field_name, is_journal


def decode(datagram: bytes) -> dict[str, bytes]:
    """Read a datagram as systemd does (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""
    fields = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(rest[:8], "little")
            value, end, rest = rest[8 : 8 + length], rest[8 + length : 9 + length], rest[9 + length :]
            assert end == b"\n"
        fields[name.decode()] = value
        datagram = rest
    return fields


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "journal"))
        bound.settimeout(5)
        yield bound


@pytest.mark.parametrize(
    "fields",
    [
        {"MESSAGE": "one line", "PRIORITY": "6"},
        {"MESSAGE": "two\nlines", "PRIORITY": "6"},
        {"MESSAGE": "ends with a newline\n"},
        {"MESSAGE": "a=b", "ROTATOR_KID": "=="},
        {"MESSAGE": ""},
        {"MESSAGE": "Schlüssel \x00\x1b\n€"},
        {},
    ],
)
def test_what_is_encoded_is_what_the_journal_reads(fields: dict[str, str]) -> None:
    assert {name: value.encode() for name, value in fields.items()} == decode(encode(fields))


def test_a_value_with_a_newline_cannot_add_a_field() -> None:
    assert decode(encode({"MESSAGE": "x\nPRIORITY=0\n", "PRIORITY": "6"}))["PRIORITY"] == b"6"


@pytest.mark.parametrize(
    "fields",
    [
        {"MESSAGE": "m" * 10_000_000, "PRIORITY": "6"},
        {"MESSAGE": "ü\n" * 200_000, **{f"ROTATOR_F{n}": "v" * 5000 for n in range(100)}},
        {f"{'N' * 60}{n}": "v\n" * 100 for n in range(1000)},
    ],
)
def test_an_entry_that_is_too_long_is_cut_to_what_a_datagram_holds(fields: dict[str, str]) -> None:
    datagram = encode(fields)
    assert len(datagram) <= ENTRY_LIMIT_BYTES
    read = decode(datagram)
    assert list(read) == list(fields)
    cut = {name for name, value in read.items() if value.endswith(b" [cut]")}
    assert cut
    assert all(value == fields[name].encode() for name, value in read.items() if name not in cut)


def test_the_longest_entry_fits_into_a_datagram(listening: socket.socket, tmp_path: Path) -> None:
    """The limit of the kernel is the send buffer."""
    Journal(tmp_path / "journal").send({"MESSAGE": "m" * 10_000_000})
    assert decode(listening.recv(1 << 20))["MESSAGE"].endswith(b"m [cut]")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kid", "ROTATOR_KID"),
        ("next_due", "ROTATOR_NEXT_DUE"),
        ("rotate_at:a-B", "ROTATOR_ROTATE_AT_A_B"),
        ("größe", "ROTATOR_GR__E"),
        ("x" * 100, "ROTATOR_" + "X" * 56),
    ],
)
def test_field_names_are_what_the_journal_accepts(name: str, expected: str) -> None:
    """Others it drops without a word."""
    assert field_name(name, "ROTATOR_").replace("SS", "_") == expected


@pytest.mark.parametrize("name", ["_PID", "__CURSOR", "9lives", "_1"])
def test_no_field_begins_as_only_the_journal_s_own_may(name: str) -> None:
    assert field_name(name)[:1] not in set("_0123456789")


def test_a_stream_is_the_journal_if_device_and_inode_say_so(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w") as journal, (tmp_path / "other").open("w") as other:
        status = os.fstat(journal.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert is_journal(environ, journal)
        assert not is_journal(environ, other)
        assert not is_journal({}, journal)
        assert not is_journal({"JOURNAL_STREAM": ""}, journal)
    assert not is_journal(environ, journal), "it is closed"


@pytest.mark.parametrize("stream", [StringIO(), sys.__stdin__])
def test_a_stream_that_is_no_file_of_the_system_is_not_the_journal(stream: StringIO) -> None:
    assert not is_journal({"JOURNAL_STREAM": "1:1"}, stream)


def test_a_journal_that_went_away_is_an_error_and_one_that_comes_back_is_used(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    with pytest.raises(OSError, match="No such file"):
        journal.send({"MESSAGE": "lost"})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "journal"))
        journal.send({"MESSAGE": "there"})
        assert decode(bound.recv(1024)) == {"MESSAGE": b"there"}


def test_a_journal_that_does_not_read_is_an_error_after_a_while(tmp_path: Path) -> None:
    """It must not hold up a rotation."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "journal"))
        journal = Journal(tmp_path / "journal", timeout_seconds=0.01)

        def fill_its_queue() -> None:
            for _ in range(2000):
                journal.send({"MESSAGE": "m"})

        with pytest.raises(TimeoutError):
            fill_its_queue()
