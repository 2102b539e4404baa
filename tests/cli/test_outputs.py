"""Every command that writes a file where a person said: what it writes into, and what it leaves alone."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rotator.cli import main
from tests.another_user import NOBODY
from tests.cli.conftest import Shell

WRITERS: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "plan --svg": lambda path: ("plan", "--svg", str(path)),
    "audit export": lambda path: ("audit", "export", "--output", str(path)),
    "backup": lambda path: ("backup", str(path)),
    "kek generate": lambda path: ("kek", "generate", str(path)),
}
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest, started: Shell) -> Callable[[Path], tuple[int, str]]:
    def written(path: Path) -> tuple[int, str]:
        code, _, err = started(*WRITERS[request.param](path))
        return code, err

    return written


def test_a_new_file_in_a_directory_of_ones_own(write: Callable[[Path], tuple[int, str]], tmp_path: Path) -> None:
    assert write(tmp_path / "file")[0] == 0
    assert (tmp_path / "file").stat().st_size


def test_nothing_is_written_through_a_symlink(write: Callable[[Path], tuple[int, str]], tmp_path: Path) -> None:
    for target in (tmp_path / "target", tmp_path / "none"):
        (tmp_path / "target").write_text("")
        link = tmp_path / f"to-{target.name}"
        link.symlink_to(target)
        code, err = write(link)
        assert code == 1
        assert f"{link} is a symlink, and nothing is written through one; name the file itself" in err
        assert link.is_symlink()
    assert (tmp_path / "target").read_text() == ""
    assert not (tmp_path / "none").exists()


def test_a_pipe_and_a_device_are_not_waited_for(write: Callable[[Path], tuple[int, str]], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/null")):
        code, err = write(path)
        assert code == 1
        assert f"{path} is there and is no regular file; name another one" in err


@AS_ROOT
def test_a_file_of_another_user_is_left_alone(write: Callable[[Path], tuple[int, str]], tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("")
    os.chown(theirs, NOBODY, NOBODY)
    code, err = write(theirs)
    assert code == 1
    assert f"{theirs} belongs to " in err
    assert theirs.read_text() == ""
    assert theirs.stat().st_uid == NOBODY


def test_a_file_with_another_name_is_left_alone(write: Callable[[Path], tuple[int, str]], tmp_path: Path) -> None:
    """In a directory like /tmp that is how somebody else's file is written into."""
    (tmp_path / "one").write_text("")
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    code, err = write(tmp_path / "two")
    assert code == 1
    assert "has other names (hard links)" in err
    assert (tmp_path / "one").read_text() == ""


def test_a_directory_that_everybody_can_write(write: Callable[[Path], tuple[int, str]], tmp_path: Path) -> None:
    """But one like /tmp, where nobody replaces what is another's."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    code, err = write(shared / "file")
    assert code == 1
    assert f"{shared} can be written by everybody, who could put something else in the place of file" in err
    assert list(shared.iterdir()) == []
    shared.chmod(0o1777)
    assert write(shared / "file")[0] == 0


def test_init_has_the_same_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert main(["init", str(shared), "--issuer", "https://tokens.example.com"]) == 1
    assert "can be written by everybody" in capsys.readouterr().err
    assert list(shared.iterdir()) == []
