"""The journal of revocations gives back what was accepted, says which lines it cannot read, and fails for no one."""

import errno
import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.adapters.disk import OsDisk
from rotator.adapters.revocations import FILE_NAME, FileRevocations
from rotator.core.model import Jti, Kid
from rotator.errors import JournalError
from rotator.ports import Journal, RevocationEntry, RevocationKind

T0 = datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)

KEY = RevocationEntry(
    id="0a1b",
    kind=RevocationKind.KEY,
    name="bad",
    actor="ada(1000)",
    uid=1000,
    reason="the key leaked",
    accepted_at=T0,
    kids=(Kid("bad"),),
)
TOKEN = replace(
    KEY,
    id="2c3d",
    kind=RevocationKind.TOKEN,
    name="0123",
    kids=(),
    jtis={Jti("0123"): T0 + timedelta(days=1), Jti("4567"): None},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE_NAME


def read(path: Path) -> Journal:
    """Read as the next process does."""
    return FileRevocations(path.parent).read()


def fill(path: Path, *entries: RevocationEntry) -> None:
    journal = FileRevocations(path.parent)
    for entry in entries:
        journal.append(entry)


def test_what_was_accepted_is_known_to_the_next_process(path: Path) -> None:
    fill(path, KEY, TOKEN)
    assert read(path) == Journal((KEY, TOKEN))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes().count(b"\n") == 2


TEXT = st.text(
    st.characters(categories=("L", "N", "P", "S")) | st.just(" "), min_size=1, max_size=8
)  # what is printable
MOMENTS = st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # hypothesis wants naive bounds
ENTRIES = st.builds(
    RevocationEntry,
    id=TEXT,
    kind=st.sampled_from(RevocationKind),
    name=TEXT,
    choice=st.sampled_from(["", "wait", "now"]),
    actor=TEXT,
    uid=st.integers(0, 2**32),
    reason=TEXT | st.just(""),
    accepted_at=MOMENTS,
    kids=st.lists(TEXT.map(Kid), max_size=3).map(tuple),
    jtis=st.dictionaries(TEXT.map(Jti), st.none() | MOMENTS, max_size=3),
)


@given(entries=st.lists(ENTRIES, max_size=4, unique_by=lambda entry: entry.id))
def test_every_entry_is_given_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, entries: list[RevocationEntry]
) -> None:
    path = tmp_path_factory.mktemp("journal") / FILE_NAME
    fill(path, *entries)
    assert read(path) == Journal(tuple(entries))


def test_without_a_file_nothing_is_revoked_and_nothing_is_wrong(path: Path) -> None:
    assert read(path) == Journal()
    assert not path.exists()


def test_an_unchanged_file_is_not_read_again(path: Path) -> None:
    fill(path, KEY)
    journal = FileRevocations(path.parent)
    known = journal.read()
    assert journal.read() is known
    fill(path, TOKEN)
    assert journal.read().entries == (KEY, TOKEN)


def test_an_entry_that_is_there_twice_counts_once(path: Path) -> None:
    fill(path, KEY, KEY)
    assert read(path).entries == (KEY,)


# ------------------------------------------------------------------------------------------- stopped, and then gone on


def test_wherever_a_line_was_torn_the_entries_before_it_and_after_it_count(path: Path) -> None:
    """It was never answered, so that it may be lost; it is no fault, then or later."""
    fill(path, KEY)
    before = path.read_bytes()
    fill(path, TOKEN)
    whole = path.read_bytes()
    for end in range(len(before), len(whole) + 1):
        path.write_bytes(whole[:end])
        counts = (KEY, TOKEN) if end >= len(whole) - 1 else (KEY,)
        assert read(path) == Journal(counts), end
        last = replace(KEY, id="4e5f", reason="leaked again")
        fill(path, last)
        assert read(path) == Journal((*counts, last)), end
        assert path.read_bytes().startswith(whole[:end]), "it only ever grows"


class Failing(OsDisk):
    """Fails at one step."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self.step = step

    def write(self, fd: int, content: bytes) -> None:
        if self.step == "write":
            os.write(fd, content[:20])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(fd, content)

    def fsync(self, fd: int) -> None:
        if self.step == "fsync":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().fsync(fd)


@pytest.mark.parametrize("step", ["write", "fsync"])
@pytest.mark.parametrize("first", [True, False], ids=["the first entry", "a later one"])
def test_what_cannot_be_written_is_said_and_spoils_nothing(path: Path, step: str, first: bool) -> None:
    if not first:
        fill(path, KEY)
    with pytest.raises(JournalError, match=r"cannot be written: .*: (free some|look at the disk)"):
        FileRevocations(path.parent, disk=Failing(step)).append(TOKEN)
    assert read(path).problem == ""
    fill(path, TOKEN)
    assert read(path).entries == ((TOKEN,) if first else (KEY, TOKEN))


def test_an_entry_is_synced_before_it_is_answered(path: Path) -> None:
    """Its first line with the name of the file, each later one with its content."""
    steps: list[str] = []

    class Recording(OsDisk):
        def fsync(self, fd: int) -> None:
            steps.append("fsync")

        def fsync_directory(self, directory_fd: int) -> None:
            steps.append("fsync_directory")

        def write(self, fd: int, content: bytes) -> None:
            steps.append("write")
            super().write(fd, content)

    journal = FileRevocations(path.parent, disk=Recording())
    journal.append(KEY)
    assert steps == ["write", "fsync", "fsync_directory"]
    journal.append(TOKEN)
    assert steps[3:] == ["write", "fsync"]


def test_an_entry_that_could_not_be_read_back_is_not_written(path: Path) -> None:
    with pytest.raises(JournalError, match="could not read back"):
        fill(path, replace(KEY, reason="two\nlines"))
    assert not path.exists()


# ------------------------------------------------------------------------------------------- what others made of it


def changed(**fields: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        lines = path.read_text().splitlines()
        lines.insert(1, json.dumps({**json.loads(lines[0]), "id": "other", **fields}))
        path.write_text("\n".join(lines) + "\n")

    return change


BAD = {
    "another version": changed(format=2),
    "an unknown member": changed(more=1),
    "an unknown kind": changed(kind="key.forgive"),
    "an unknown choice": changed(choice="later"),
    "no name": changed(name=""),
    "a name that is not text": changed(name=7),
    "a control character": changed(actor="ada\x1b[2J"),
    "a name that is too long": changed(name="k" * 300),
    "a uid that is a truth": changed(uid=True),
    "a time before all": changed(accepted_at_us=-1),
    "a time after all": changed(accepted_at_us=10**30),
    "kids that are no list": changed(kids="bad"),
    "a kid that is not text": changed(kids=[None]),
    "jtis that are no object": changed(jtis=["0123"]),
    "an end that is no time": changed(jtis={"0123": "soon"}),
    "no JSON": lambda path: path.write_bytes(path.read_bytes().replace(b"\n", b"\nrubbish\n", 1)),
    "no text": lambda path: path.write_bytes(path.read_bytes().replace(b"\n", b"\n\xff\xfe\n", 1)),
    "a list": lambda path: path.write_bytes(path.read_bytes().replace(b"\n", b"\n[]\n", 1)),
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD.keys())
def test_a_line_that_is_not_valid_is_named_and_all_others_count(path: Path, change: Callable[[Path], None]) -> None:
    fill(path, KEY, TOKEN)
    change(path)
    journal = read(path)
    assert journal.entries == (KEY, TOKEN)
    assert "has 1 line that cannot be read (2)" in journal.problem


def test_many_lines_that_are_not_valid_are_counted(path: Path) -> None:
    path.write_bytes(b"rubbish\n" * 30)
    path.chmod(0o600)
    assert "has 30 lines that cannot be read (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …)" in read(path).problem


def test_a_file_that_others_could_write_counts_and_is_named(path: Path) -> None:
    fill(path, KEY)
    path.chmod(0o660)
    journal = read(path)
    assert journal.entries == (KEY,)
    assert "with mode 0660" in journal.problem


@pytest.mark.parametrize("how", ["gone", "a directory", "a symlink", "a FIFO"])
def test_what_was_known_stays_known_where_the_file_cannot_be_read_any_more(path: Path, how: str) -> None:
    """And it is said; a later entry is known as well, or it is said that it could not be written."""
    fill(path, KEY)
    journal = FileRevocations(path.parent)
    assert journal.read() == Journal((KEY,))
    path.rename(path.with_name("kept"))
    match how:
        case "a directory":
            path.mkdir()
        case "a symlink":
            path.symlink_to("kept")
        case "a FIFO":
            os.mkfifo(path)
    found = journal.read()
    assert found.entries == (KEY,)
    assert ("is gone" if how == "gone" else "cannot be read") in found.problem
    assert journal.read() is found
    if how != "gone":
        with pytest.raises(JournalError):
            journal.append(TOKEN)
        return
    journal.append(TOKEN)
    assert journal.read() == Journal((TOKEN,))


def test_a_file_that_is_too_large_is_named_and_still_grows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path, KEY)
    monkeypatch.setattr("rotator.adapters.revocations.LARGEST_BYTES", 100)
    journal = FileRevocations(path.parent)
    assert "cannot be read: File too large" in journal.read().problem or "Larger than" in journal.read().problem
    journal.append(TOKEN)
    monkeypatch.undo()
    assert read(path) == Journal((KEY, TOKEN))
