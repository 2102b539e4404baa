"""Durable files on the real disk, and with a disk that fails at each step."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from rotator.adapters.disk import (
    LOCK_NAME,
    OsDisk,
    describe,
    ensure_directory,
    fill_durably,
    lock_directory,
    open_directory,
    read_bounded,
    require_private,
    sync_file,
    write_durably,
)
from rotator.errors import RefusedError

STEPS = ("leftovers", "create", "write", "chmod", "fsync", "rename", "fsync_directory")


class RecordingDisk(OsDisk):
    """The real disk, which notes each step and fails at one of them."""

    def __init__(self, fail_at: str = "") -> None:
        super().__init__()
        self.steps: list[str] = []
        self.fail_at = fail_at

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if name == self.fail_at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def leftovers(self, directory_fd: int, name: str) -> Sequence[str]:
        self._step("leftovers")
        return super().leftovers(directory_fd, name)

    def unlink(self, name: str, directory_fd: int) -> None:
        self._step("unlink")
        super().unlink(name, directory_fd)

    def create(self, name: str, directory_fd: int) -> int:
        self._step("create")
        return super().create(name, directory_fd)

    def write(self, fd: int, content: bytes) -> None:
        self._step("write")
        super().write(fd, content)

    def chmod(self, fd: int, mode: int) -> None:
        self._step("chmod")
        super().chmod(fd, mode)

    def fsync(self, fd: int) -> None:
        self._step("fsync")
        super().fsync(fd)

    def rename(self, old: str, new: str, directory_fd: int) -> None:
        self._step("rename")
        super().rename(old, new, directory_fd)

    def fsync_directory(self, directory_fd: int) -> None:
        self._step("fsync_directory")
        super().fsync_directory(directory_fd)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ------------------------------------------------------------------------------------------------------------ writing


def test_a_durable_write_takes_its_steps_in_order(tmp_path: Path) -> None:
    """The rename comes after the fsync of the content and before that of the directory."""
    disk = RecordingDisk()
    write_durably(tmp_path / "file", b"new", 0o644, disk=disk)
    assert tuple(disk.steps) == STEPS
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640])
def test_the_mode_is_exact_whatever_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_durably(tmp_path / "file", b"", mode)
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "file") == mode


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_leaves_the_old_file_whole_and_no_debris(tmp_path: Path, step: str) -> None:
    (tmp_path / "file").write_bytes(b"old")
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="Input/output error"):
        write_durably(tmp_path / "file", b"new", 0o644, disk=RecordingDisk(step))
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == (b"new" if step == "fsync_directory" else b"old")
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_a_failed_clean_up_does_not_hide_why_the_write_failed(tmp_path: Path) -> None:
    class Broken(RecordingDisk):
        def unlink(self, name: str, directory_fd: int) -> None:
            raise PermissionError(errno.EPERM, "another error")

    with pytest.raises(OSError, match="Input/output error"):
        write_durably(tmp_path / "file", b"new", 0o644, disk=Broken("fsync"))


def test_what_a_killed_process_left_goes_with_the_next_write_of_that_name(tmp_path: Path) -> None:
    ours = [".file.0123abcd.tmp", ".file.ffffffff.tmp"]
    others = [".file.tmp", ".other.0123abcd.tmp", "file.0123abcd.tmp", ".file.0123ABCD.tmp"]
    for name in ours + others:
        (tmp_path / name).touch()
    disk = OsDisk()
    write_durably(tmp_path / "unrelated", b"", 0o644, disk=disk)
    assert names(tmp_path) == sorted([*ours, *others, "unrelated"])
    write_durably(tmp_path / "file", b"", 0o644, disk=disk)
    write_durably(tmp_path / "file", b"", 0o644, disk=disk)
    assert names(tmp_path) == sorted([*others, "unrelated", "file"])


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    """Killed before the rename; the next process cleans up."""
    (tmp_path / "file").write_bytes(b"old")
    code = (
        "import os, sys, pathlib\n"
        "from rotator.adapters.disk import OsDisk, write_durably\n"
        "class Killed(OsDisk):\n"
        "    def rename(self, *_): os.kill(os.getpid(), 9)\n"
        "write_durably(pathlib.Path(sys.argv[1]), b'new', 0o644, disk=Killed())"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], check=False)
    assert killed.returncode == -9
    assert (tmp_path / "file").read_bytes() == b"old"
    assert len(names(tmp_path)) == 2
    write_durably(tmp_path / "file", b"new", 0o644, disk=OsDisk())
    assert names(tmp_path) == ["file"]


def test_a_file_that_another_program_fills_is_whole_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise RefusedError("no more room")

    with pytest.raises(RefusedError):
        fill_durably(tmp_path / "file", 0o600, fail)
    assert (tmp_path / "file").read_bytes() == b"old"

    def write(path: Path) -> None:
        path.write_bytes(b"new")

    disk = RecordingDisk()
    fill_durably(tmp_path / "file", 0o640, write, disk=disk)
    assert disk.steps == ["leftovers", "create", "chmod", "fsync", "rename", "fsync_directory"]
    assert (tmp_path / "file").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert names(tmp_path) == ["file"]


def test_a_symlink_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"target")
    (tmp_path / "file").symlink_to("target")
    write_durably(tmp_path / "file", b"new", 0o644)
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"target"


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_durably(tmp_path / "missing" / "file", b"", 0o644)


def test_a_large_file_is_written_whole(tmp_path: Path) -> None:
    """Also where write(2) takes less than it is given."""

    class Slow(OsDisk):
        def write(self, fd: int, content: bytes) -> None:
            super().write(fd, content[:1000])
            super().write(fd, content[1000:])

    content = os.urandom(3_000_000)
    write_durably(tmp_path / "file", content, 0o644, disk=Slow())
    assert read_bounded(tmp_path / "file", 3_000_000) == content


def test_syncing_a_file_syncs_its_directory_too(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    disk = RecordingDisk()
    with open_directory(tmp_path) as fd:
        sync_file(fd, "file", disk=disk)
    assert disk.steps == ["fsync", "fsync_directory"]


# -------------------------------------------------------------------------------------------------------- directories


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_missing_directories_get_the_mode_and_existing_ones_keep_theirs(tmp_path: Path, umask: int) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there").chmod(0o711)
    before = os.umask(umask)
    try:
        for _ in range(2):
            ensure_directory(tmp_path / "there" / "a" / "b", 0o755)
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "there") == 0o711
    assert mode_of(tmp_path / "there" / "a") == 0o755
    assert mode_of(tmp_path / "there" / "a" / "b") == 0o755
    assert names(tmp_path / "there") == ["a"]


def test_a_directory_and_its_mode_are_on_the_disk_before_it_has_its_name(tmp_path: Path) -> None:
    """The fsync of the parent says nothing of the mode: without its own, others might be shut out after a power cut."""
    disk = RecordingDisk()
    ensure_directory(tmp_path / "new", 0o755, disk=disk)
    assert disk.steps == ["leftovers", "chmod", "fsync", "rename", "fsync_directory"]


def test_what_a_killed_process_left_of_a_directory_is_cleared_away(tmp_path: Path) -> None:
    """And not what it left of a file: each goes when its own name is written."""
    (tmp_path / ".new.0123abcd.new").mkdir()
    (tmp_path / ".new.0123abcd.tmp").touch()
    ensure_directory(tmp_path / "new", 0o755, disk=OsDisk())
    assert names(tmp_path) == [".new.0123abcd.tmp", "new"]
    (tmp_path / ".file.0123abcd.new").mkdir()
    write_durably(tmp_path / "file", b"", 0o600, disk=OsDisk())
    assert names(tmp_path) == [".file.0123abcd.new", ".new.0123abcd.tmp", "file", "new"]


def test_a_file_where_a_directory_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        ensure_directory(tmp_path / "file" / "a", 0o755)


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o701, 0o777])
def test_a_state_directory_that_others_can_enter_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, mode: int
) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(RefusedError, match=f"mode 0{mode:o}.*: chmod 700 {tmp_path}$"):
        require_private(tmp_path)
    tmp_path.chmod(0o700)
    require_private(tmp_path)


def test_a_state_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o600)
    with pytest.raises(RefusedError, match="is not a directory"):
        require_private(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_state_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    """Root would leave files in it that its owner cannot open."""
    tmp_path.chmod(0o700)
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(RefusedError, match="belongs to uid 12345 and this process runs as uid 0; run it as the owner"):
        require_private(tmp_path)


def test_a_second_process_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from rotator.adapters.disk import lock_directory\n"
        "lock = lock_directory(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RefusedError, match=rf"another rotator \(pid {holder.pid}\) runs on this state"):
            lock_directory(tmp_path)
        holder.kill()
    with lock_directory(tmp_path) as lock:  # a killed holder holds nothing
        assert (tmp_path / "rotator.lock").read_text() == f"{os.getpid()}\n"
    assert (tmp_path / "rotator.lock").read_text() == ""
    lock.close()
    lock_directory(tmp_path).close()


def test_a_holder_that_has_not_said_its_pid_is_still_respected(tmp_path: Path) -> None:
    with lock_directory(tmp_path):
        (tmp_path / "rotator.lock").write_text("")
        with pytest.raises(RefusedError, match="another rotator runs on this state"):
            lock_directory(tmp_path)


def test_a_lock_that_cannot_be_written_is_an_error_and_leaks_nothing(tmp_path: Path) -> None:
    (tmp_path / "rotator.lock").symlink_to("/dev/full")
    with pytest.raises(OSError, match="symbolic links"):
        lock_directory(tmp_path)


# ------------------------------------------------------------------------------------------------------------ reading


def test_a_file_within_the_limit_is_read_and_a_larger_one_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bounded(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="Larger than 4 bytes") as caught:
        read_bounded(tmp_path / "file", 4)
    assert caught.value.errno == errno.EFBIG


def test_what_is_not_a_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    cases = {
        "directory": errno.EISDIR,
        "fifo": errno.EINVAL,
        "link": errno.ELOOP,
        "missing": errno.ENOENT,
        "/dev/zero": errno.EINVAL,
    }
    for name, number in cases.items():
        with pytest.raises(OSError) as caught:  # noqa: PT011  # the number says which
            read_bounded(tmp_path / name, 10)
        assert (name, caught.value.errno) == (name, number)
    assert read_bounded(tmp_path / "link", 10, follow_symlinks=True) == b"x"


def test_an_error_is_described_with_what_to_do() -> None:
    assert describe(OSError(errno.ENOSPC, "No space left on device")) == (
        "No space left on device: free some on that file system"
    )
    assert describe(OSError(errno.EXDEV, "Odd")) == "Odd"
    assert describe(OSError("just text")) == "just text"


def test_a_lock_whose_file_was_taken_away_is_lost(tmp_path: Path) -> None:
    """A second process would lock the new file: the first one must know."""
    with lock_directory(tmp_path) as lock:
        assert lock.lost() == ""
        (tmp_path / LOCK_NAME).rename(tmp_path / "elsewhere")
        assert "was deleted while the daemon held it" in lock.lost()
        (tmp_path / LOCK_NAME).touch()
        assert "was replaced by another file" in lock.lost()
        (tmp_path / "elsewhere").replace(tmp_path / LOCK_NAME)
        assert lock.lost() == ""
