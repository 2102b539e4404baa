"""Which config is read where none is named: one's own in the current directory, and no stranger's."""

import grp
import os
import pwd
from pathlib import Path
from types import SimpleNamespace

import pytest

from rotator.config import choosing
from rotator.config.choosing import Own, config_here, writers
from tests.another_user import NOBODY, as_nobody

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
STRANGER = 12345
NONE = Path("/none/config.yaml")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a directory with a config, both of which are nobody's alone."""
    directory = tmp_path / "here"
    directory.mkdir(mode=0o755)
    (directory / "config.yaml").write_text("issuer: https://tokens.example.com\n")
    for path in (directory, directory / "config.yaml"):
        os.chown(path, NOBODY, NOBODY)
    monkeypatch.chdir(directory)
    return directory


def seen_by_nobody(here: Path, default: Path = NONE) -> Own:
    with as_nobody(here / "config.yaml"):
        return config_here(default)


def test_ones_own_is_read_and_the_command_says_so(here: Path) -> None:
    path = here / "config.yaml"
    assert seen_by_nobody(here) == Own(path, f"the config is {path}, for no other one is named")


def test_one_in_etc_comes_first(here: Path, tmp_path: Path) -> None:
    """Also one that cannot be read."""
    (tmp_path / "etc").symlink_to("nowhere")
    assert seen_by_nobody(here, tmp_path / "etc") == Own(None, "")


def test_where_there_is_none_nothing_is_said(here: Path) -> None:
    (here / "config.yaml").unlink()
    assert seen_by_nobody(here) == Own(None, "")


@pytest.mark.parametrize(
    ("what", "owner", "mode", "problem"),
    [
        ("config.yaml", STRANGER, 0o644, "it belongs to uid 12345"),
        ("config.yaml", 0, 0o644, "it belongs to root"),
        ("config.yaml", NOBODY, 0o646, "it can be written by everybody"),
        ("config.yaml", NOBODY, 0o664, "it can be written by the group gid 12345"),
        (".", STRANGER, 0o755, "its directory belongs to uid 12345"),
        (".", NOBODY, 0o777, "its directory can be written by everybody"),
        (".", NOBODY, 0o775, "its directory can be written by the group gid 12345"),
    ],
)
def test_what_a_stranger_could_have_written_is_not_read(
    here: Path, what: str, owner: int, mode: int, problem: str
) -> None:
    os.chown(here / what, owner, STRANGER)
    (here / what).chmod(mode)
    found = seen_by_nobody(here)
    assert found.path is None
    assert found.said.startswith(f"./config.yaml is not read by itself, for {problem}")
    assert found.said.endswith("name it: --config config.yaml")


def test_root_reads_none_by_itself(here: Path) -> None:
    """Whoever else could have put it there, root names what it means."""
    os.chown(here, 0, 0)
    os.chown(here / "config.yaml", 0, 0)
    assert config_here(NONE).path is None
    assert "for this is root" in config_here(NONE).said


def test_a_link_is_not_followed(here: Path) -> None:
    (here / "config.yaml").rename(here / "other.yaml")
    (here / "config.yaml").symlink_to("other.yaml")
    assert seen_by_nobody(here).path is None


def test_a_group_that_nobody_else_is_in_is_as_good_as_its_user(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As each user has one on many systems, where what they make can be written by it."""
    users = [SimpleNamespace(pw_name="ann", pw_uid=NOBODY, pw_gid=STRANGER)]
    monkeypatch.setattr(pwd, "getpwall", lambda: users)
    monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_mem=[], gr_name="ann"))
    os.chown(here / "config.yaml", NOBODY, STRANGER)
    (here / "config.yaml").chmod(0o664)
    status = (here / "config.yaml").stat()
    assert writers(status, {NOBODY}) == ""
    users.append(SimpleNamespace(pw_name="bob", pw_uid=STRANGER, pw_gid=STRANGER))
    assert writers(status, {NOBODY}) == "the group ann"


def test_in_a_directory_like_tmp_nobody_replaces_the_files_of_others(here: Path) -> None:
    here.chmod(0o1777)
    assert writers(here.stat(), {NOBODY}) == ""
    assert choosing.named(NOBODY) == f"nobody (uid {NOBODY})"
