"""KEKs are read from where they may stand, refused where others reach them, and never repeated in a message."""

import base64
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.adapters.disk import OsDisk
from rotator.adapters.kek import (
    KEY_BYTES,
    KekRing,
    check_value,
    ensure_kek_file,
    make_kek_file,
    parse_ring,
    read_ring_file,
    read_ring_value,
    require_known,
)
from rotator.core.model import KekId
from rotator.core.secret import Secret
from rotator.errors import KekError
from rotator.ports import KekRow
from tests.stand_ins import T0

OLD, NEW = KekId("old"), KekId("new")
KEYS = {OLD: bytes(range(32)), NEW: bytes(range(100, 132))}


def encoded(key: bytes, *, padded: bool = False) -> str:
    text = base64.urlsafe_b64encode(key).decode()
    return text if padded else text.rstrip("=")


def line(kek_id: KekId, *, padded: bool = False) -> str:
    return f"{kek_id} {encoded(KEYS[kek_id], padded=padded)}"


def ring(*kek_ids: KekId) -> KekRing:
    return KekRing({kek_id: Secret(KEYS[kek_id]) for kek_id in kek_ids})


def names(directory: Path) -> list[str]:
    return [entry.name for entry in directory.iterdir()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "kek"
    path.write_text(line(NEW) + "\n")
    path.chmod(0o600)
    return path


# ------------------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("padded", [True, False])
def test_the_first_line_seals_and_comments_say_nothing(padded: bool) -> None:
    read = parse_ring(f"# made in May\n\n  {line(NEW, padded=padded)}  \r\n\t# older\n{line(OLD, padded=padded)}\n")
    assert read.first == NEW
    assert {kek_id: key.reveal() for kek_id, key in read.keys.items()} == KEYS


@given(st.binary(min_size=32, max_size=32), st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True))
def test_every_key_and_id_is_read_as_it_was_written(key: bytes, kek_id: str) -> None:
    assert parse_ring(f"{kek_id} {encoded(key)}").keys == {kek_id: Secret(key)}


KEY = encoded(KEYS[NEW])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no key; expected at least one line: ID BASE64URL"),
        ("# nothing\n", "holds no key"),
        (f"\n{KEY}\n", "line 2: found 1 fields, expected two"),
        (f"new {KEY} x", "line 1: found 3 fields"),
        (f"new! {KEY}", "line 1: the id must be 1 to 64 of the characters"),
        (f"{'x' * 65} {KEY}", "line 1: the id must be"),
        (f"new {KEY[:-1]}+", "line 1: the key has characters outside base64url"),
        (f"new {KEY[:20]}=={KEY[20:]}", "outside base64url"),
        (f"new {KEY[:-2]}", "line 1: the key is cut short; 32 bytes are 43 characters"),
        (f"new {KEY[:-1]}", "line 1: the key has 31 bytes, expected 32"),
        (f"new {encoded(KEYS[NEW] * 2)}", "the key has 64 bytes, expected 32"),
        (f"new {KEY}\nnew {encoded(KEYS[OLD])}", "line 2: the id new is there twice"),
        (f"new {KEY}\nold {KEY}=", "line 2: old is the same key as one above"),
    ],
)
def test_a_wrong_line_is_named_with_what_is_right_and_never_repeated(text: str, message: str) -> None:
    with pytest.raises(KekError, match=message) as caught:
        parse_ring(text, "/etc/kek")
    assert str(caught.value).startswith("/etc/kek")
    assert KEY[:10] not in str(caught.value)


@given(st.text(alphabet="abAB09-_=+/ \n#!", max_size=120))
def test_only_kek_errors_come_out_of_any_text(text: str) -> None:
    try:
        parse_ring(text)
    except KekError:
        return


def test_a_ring_does_not_show_its_keys() -> None:
    assert KEY not in repr(parse_ring(line(NEW)))
    assert repr(KEYS[NEW]) not in repr(ring(NEW))


def test_the_environment_is_named_in_messages() -> None:
    assert read_ring_value(Secret(line(OLD))) == KekRing({OLD: Secret(KEYS[OLD])}, "$ROTATOR_KEK")
    with pytest.raises(KekError, match=r"^\$MY_KEK, line 1"):
        read_ring_value(Secret("x"), "MY_KEK")


def test_a_private_file_is_read(path: Path) -> None:
    assert read_ring_file(path) == KekRing({NEW: Secret(KEYS[NEW])}, str(path))


def test_a_symlink_to_a_private_file_is_followed(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    assert read_ring_file(link).first == NEW


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o601])
def test_a_file_that_others_can_reach_is_refused_with_the_command_that_mends_it(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(KekError, match=rf"has mode {mode:04o}.*chmod 600 {path}"):
        read_ring_file(path)
    assert read_ring_file(path, strict_mode=False).first == NEW


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused_with_the_command_that_mends_it(path: Path) -> None:
    os.chown(path, 12345, 12345)
    with pytest.raises(KekError, match=rf"belongs to uid 12345.*chown {os.geteuid()} {path}"):
        read_ring_file(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(("group", "mode", "taken"), [(12345, 0o440, 1), (12345, 0o444, 0), (54321, 0o440, 0)])
def test_a_file_of_root_may_be_read_by_a_group_of_this_process(
    path: Path, monkeypatch: pytest.MonkeyPatch, group: int, mode: int, taken: int
) -> None:
    """As a secret of Kubernetes is; otherwise the message says how to have it so."""
    monkeypatch.setattr(os, "getgroups", lambda: [12345])
    os.chown(path, 0, group)
    path.chmod(mode)
    if taken:
        assert read_ring_file(path).first == NEW
    else:
        with pytest.raises(KekError, match=r"chmod 600 .* Kubernetes: defaultMode: 0440, and fsGroup"):
            read_ring_file(path)


def test_a_missing_file_is_named_with_the_places_that_were_possible(tmp_path: Path) -> None:
    with pytest.raises(KekError, match=rf"no KEK at {tmp_path}/kek; .*\$ROTATOR_KEK"):
        read_ring_file(tmp_path / "kek")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KekError, match="cannot be read: Is a directory"):
        read_ring_file(tmp_path)


def test_a_file_of_raw_bytes_is_refused(path: Path) -> None:
    path.write_bytes(bytes(range(200, 232)))
    with pytest.raises(KekError, match="is not text; a KEK file has lines of the form ID BASE64URL"):
        read_ring_file(path)


# ------------------------------------------------------------------------------------------------------------- making


def test_a_made_file_reads_back_as_the_ring_that_was_returned(tmp_path: Path) -> None:
    made = make_kek_file(tmp_path / "kek")
    assert read_ring_file(tmp_path / "kek") == made
    assert stat.S_IMODE((tmp_path / "kek").stat().st_mode) == 0o600
    assert len(made.keys[made.first].reveal()) == KEY_BYTES
    assert made.first.startswith("k1-")
    assert names(tmp_path) == ["kek"]


def test_two_made_files_share_nothing(tmp_path: Path) -> None:
    first, second = make_kek_file(tmp_path / "a"), make_kek_file(tmp_path / "b")
    assert first.first != second.first
    assert first.keys[first.first] != second.keys[second.first]


def test_a_file_that_is_there_is_never_replaced(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(KekError, match="is there already; a KEK is never replaced"):
        make_kek_file(path)
    assert path.read_bytes() == before
    assert names(path.parent) == ["kek"]


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(KekError, match=r"no KEK can be stored at .*: No such file or directory"):
        make_kek_file(tmp_path / "missing" / "kek")


class FullDisk(OsDisk):
    """Fails at one step."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self._step = step

    def _pass(self, step: str) -> None:
        if step == self._step:
            raise OSError(28, "No space left on device")

    def create(self, name: str, directory_fd: int) -> int:
        self._pass("create")
        return super().create(name, directory_fd)

    def write(self, fd: int, content: bytes) -> None:
        super().write(fd, content[: len(content) // 2])
        self._pass("write")
        super().write(fd, content[len(content) // 2 :])

    def fsync(self, fd: int) -> None:
        self._pass("fsync")
        super().fsync(fd)


@pytest.mark.parametrize("step", ["create", "write", "fsync"])
def test_a_file_that_cannot_be_made_whole_is_not_made(tmp_path: Path, step: str) -> None:
    with pytest.raises(KekError, match=r"no KEK can be stored at .*: No space left on device"):
        make_kek_file(tmp_path / "kek", disk=FullDisk(step))
    assert names(tmp_path) == []


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".kek.0123abcd.tmp").write_text("half a ke")
    make_kek_file(tmp_path / "kek")
    assert names(tmp_path) == ["kek"]


def test_no_second_copy_stays_of_a_kek_whose_making_was_cut_short_at_its_end(tmp_path: Path) -> None:
    """Killed between the link and the removal of the temporary name: the KEK stands, and is there once."""
    made = make_kek_file(tmp_path / "kek")
    (tmp_path / ".kek.0123abcd.tmp").hardlink_to(tmp_path / "kek")
    ensure_kek_file(tmp_path / "kek", disk=OsDisk())  # of the next process
    assert names(tmp_path) == ["kek"]
    assert read_ring_file(tmp_path / "kek").keys == made.keys


# ----------------------------------------------------------------------------------------------------------- deriving


def test_every_use_and_purpose_of_every_kek_has_a_key_of_its_own() -> None:
    both = ring(NEW, OLD)
    derived = {
        both.derive(kek_id, use, purpose)
        for kek_id in (NEW, OLD)
        for use in ("seal", "mac")
        for purpose in ("token", "key", "witness", "seal", "mac", "")
    }
    assert len(derived) == 2 * 2 * 6
    assert not derived & set(KEYS.values())


def test_a_derived_key_is_that_of_rfc_5869() -> None:
    """Written out with HMAC alone, so that a change of library or of the context string cannot pass unseen."""
    import hmac

    extracted = hmac.digest(bytes(32), KEYS[NEW], "sha256")
    expanded = hmac.digest(extracted, b"rotator/v1/seal/token" + b"\x01", "sha256")
    assert ring(NEW).derive(NEW, "seal", "token") == expanded


def test_a_kek_that_is_not_there_is_named_with_what_is() -> None:
    with pytest.raises(KekError, match=r"KEK old is needed and the KEK ring does not hold it \(it has new\)"):
        ring(NEW).derive(OLD, "mac", "key")


def test_a_ring_cannot_be_changed_from_outside() -> None:
    keys = {NEW: Secret(KEYS[NEW])}
    made = KekRing(keys)
    keys.clear()
    assert list(made.keys) == [NEW]


# ----------------------------------------------------------------------------------------------------------- checking


def rows(*kek_ids: KekId) -> Sequence[KekRow]:
    return [KekRow(kek_id, check_value(ring(kek_id), kek_id), T0) for kek_id in kek_ids]


def test_the_ring_that_was_registered_is_known_again() -> None:
    require_known(ring(NEW, OLD), rows(OLD, NEW))
    require_known(ring(NEW, OLD), [])


def test_a_ring_that_lacks_a_registered_kek_is_refused() -> None:
    with pytest.raises(KekError, match="KEK old is needed"):
        require_known(ring(NEW), rows(NEW, OLD))


def test_another_key_under_a_registered_id_is_refused() -> None:
    swapped = KekRing({NEW: Secret(KEYS[OLD])}, "/etc/kek")
    with pytest.raises(KekError, match="KEK new in /etc/kek is not the one that this state was sealed with"):
        require_known(swapped, rows(NEW))


def test_the_check_of_one_id_says_nothing_of_another() -> None:
    renamed = KekRing({OLD: Secret(KEYS[NEW])})
    assert check_value(renamed, OLD) != check_value(ring(NEW), NEW)
