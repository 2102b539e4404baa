"""What check finds on this machine: each problem with a next step that can be taken."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from rotator.cli import destinations
from tests.another_user import as_nobody
from tests.cli.conftest import Shell
from tests.e2e.world import Site


def problems(shell: Shell) -> list[dict[str, Any]]:
    """Return what is wrong, and make sure that each has a next step on the page."""
    code, out, _ = shell("check", "--json")
    found = [each for each in json.loads(out)["machine"] if not each["ok"]]
    assert code == (1 if found else 0)
    assert all(each["next_step"] for each in found)
    page = shell("check")[1]
    if found:
        assert page.partition("not ready; next:\n")[2].strip()
    return found


def deliver_to(site: Site, path: object) -> None:
    site.config.write_text(site.config.read_text() + f"  odd: {{deliver: [file: {{path: {path}}}]}}\n")


def _directory(path: Path) -> None:
    path.mkdir()


def _under_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("")


def _link(path: Path) -> None:
    path.symlink_to("elsewhere")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "problem", "step"),
    [
        (_directory, "{path} is a directory, and a token is a file", "name a file in it: {path}/token"),
        (_under_a_file, "{path.parent} is no directory", "move {path.parent} away, or name another path in the config"),
        (_link, "{path} is a symbolic link, and nothing is delivered through one", "rm {path}"),
        (_fifo, "{path} is there and is no regular file", "name another path in the config"),
    ],
)
def test_a_sink_that_can_hold_no_file(
    shell: Shell, site: Site, make: Callable[[Path], None], problem: str, step: str
) -> None:
    """It is named with its workspace; all others are as they were."""
    path = site.root / "odd" / "token"
    path.parent.mkdir()
    make(path)
    deliver_to(site, path)
    (found,) = problems(shell)
    assert found["text"] == "workspace odd: " + problem.format(path=path)
    assert found["next_step"] == step.format(path=path)


def run_by(site: Site, program: Path) -> None:
    site.config.write_text(site.config.read_text() + f"  odd: {{deliver: [command: {{run: [{program}]}}]}}\n")


@pytest.mark.parametrize(
    ("content", "mode", "problem", "step"),
    [
        ("cat >/dev/null\n", 0o755, "is a script without a first line", "begin it with a line that names"),
        ("#!/none/sh\ncat\n", 0o755, "names the interpreter /none/sh", "begin it with a line that names"),
        ("#!/bin/sh\ncat\n", 0o644, "is no program that this user", "chmod +x {path}"),
        (None, 0, "is no program that this user", "install it, or mend its path"),
    ],
)
def test_a_command_that_cannot_work(
    shell: Shell, site: Site, content: str | None, mode: int, problem: str, step: str
) -> None:
    """Each has a next step; one that can is no finding."""
    path = site.root / "push"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    run_by(site, path)
    (found,) = problems(shell)
    assert problem in found["text"]
    assert found["next_step"].startswith(step.format(path=path))
    path.write_text("#! /bin/sh -e\ncat\n")
    path.chmod(0o755)
    assert problems(shell) == []


def test_a_disk_that_is_full(shell: Shell, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(site.root)
    full = os.statvfs_result((*real[:4], 0, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    assert {found["next_step"] for found in problems(shell)} == {"free some on that file system"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_file_that_is_mounted_by_itself(shell: Shell, site: Site) -> None:
    """As a container's: no new file can take its place, and the delivery says what to mount instead."""
    path = site.root / "odd" / "token"
    path.parent.mkdir()
    for each in (path, site.root / "mounted"):
        each.write_text("old\n")
    deliver_to(site, path)
    subprocess.run(["mount", "--bind", site.root / "mounted", path], check=True)
    try:
        (found,) = problems(shell)
        code, out, _ = shell("run", "--once")
    finally:
        subprocess.run(["umount", path], check=True)
    assert f"{path} is mounted by itself" in found["text"]
    assert found["next_step"] == f"mount {path.parent} instead"
    assert (code, "cannot be replaced; mount its directory instead" in out) == (3, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_whose_owner_will_change_is_warned_of(shell: Shell, site: Site) -> None:
    path = site.root / "odd" / "token"
    path.parent.mkdir()
    path.write_text("old\n")
    deliver_to(site, path)
    assert not any("belongs to" in each for each in json.loads(shell("check", "--json")[1])["warnings"])
    os.chown(path, 12345, 12345)
    (warning,) = [each for each in json.loads(shell("check", "--json")[1])["warnings"] if "belongs to" in each]
    assert f"workspace odd: {path} belongs to uid 12345, and will to root (uid 0)" in warning


@pytest.mark.parametrize("path", ["/proc/odd/token", "/sys/token"])
def test_nothing_is_to_be_made_where_the_kernel_rules(shell: Shell, site: Site, path: str) -> None:
    """Whatever the permissions say: no `install -d` there."""
    deliver_to(site, path)
    (found,) = problems(shell)
    assert "is the kernel's, and no place for files" in found["text"]
    assert found["next_step"] == "name a path outside of it in the config"


@pytest.mark.parametrize(
    ("path", "step"),
    [("/dev/odd", "name a path in the config that this user can write"), ("/srv/odd", "install -d -o {me} /srv/odd")],
)
def test_a_directory_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, path: str, step: str) -> None:
    """It is to be made for this user, where a directory has its place."""
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    problem, found = destinations.obstacle(Path(path))
    assert problem.endswith(f"cannot be written by this user ({destinations.me()})")
    assert found == step.format(me=destinations.me())


def test_the_page_begins_with_what_there_is(started: Shell, site: Site) -> None:
    assert started("check")[1].splitlines()[0] == f"{site.config}: 1 keyset, 2 workspaces"


def test_the_config_alone_is_looked_at_where_there_is_no_machine(
    shell: Shell, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No state directory, KEK, socket or sink: what would be found there changes nothing, and nothing is touched."""
    site.state.write_text("no directory")
    deliver_to(site, "/srv/none/token")
    site.config.write_text(site.config.read_text() + "kek: {file: none}\ncontrol: {admins: [no-such-group]}\n")
    seen: list[str] = []
    for name in ("stat", "access", "open", "listdir"):  # links in the config's own names are followed, by lstat
        real = getattr(os, name)

        def look(path: object, *rest: Any, real: Any = real, **named: Any) -> Any:
            seen.append(str(path))
            return real(path, *rest, **named)

        monkeypatch.setattr(os, name, look)
    code, out, err = shell("check", "--config-only")
    monkeypatch.undo()
    assert (code, err) == (0, "")
    assert "the time contract" in out
    assert out.endswith("the config is sound; this machine was not looked at\n")
    assert "this machine\n" not in out
    looked_at = [path for path in seen if path.startswith((str(site.root), "/srv/none"))]
    assert set(looked_at) <= {str(site.config)}
    assert json.loads(shell("check", "--config-only", "--json")[1])["machine"] == []


def test_a_config_that_is_wrong_is_refused_without_a_machine(shell: Shell, site: Site) -> None:
    site.config.write_text(site.config.read_text() + "nonsense: 1\n")
    assert shell("check", "--config-only")[0] == 2


def use_postgresql(site: Site, url: str) -> None:
    site.config.write_text(site.config.read_text() + f"state: {{url: {json.dumps(url)}}}\n")


def test_postgresql_before_the_first_start(shell: Shell, site: Site, new_postgresql_url: Callable[[], str]) -> None:
    """The state directory is not there yet, and the database is empty: both are made."""
    use_postgresql(site, new_postgresql_url())
    assert problems(shell) == []
    page = shell("check")[1]
    assert "database: can be reached; it is filled at the first start" in page
    assert "KEK: made in " in page


def test_postgresql_that_cannot_be_reached(shell: Shell, site: Site) -> None:
    use_postgresql(site, f"postgresql://ann@/rotator?host={site.root}")
    (found,) = problems(shell)
    assert "cannot be reached or used" in found["text"]
    assert found["next_step"] == "see that the server of state.url runs and lets this user in"


def test_a_driver_that_is_missing_is_to_be_installed(shell: Shell, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is said of the server, that nobody asked."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    use_postgresql(site, "postgresql://ann@db.example.com/rotator")
    (found,) = problems(shell)
    assert found["next_step"] == f"{sys.executable} -m pip install 'psycopg[binary]>=3.2.3'"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to any group")
@pytest.mark.parametrize("what", ["config.yaml", "."])
def test_a_config_that_others_can_write_does_not_pass(started: Shell, site: Site, what: str) -> None:
    """It names commands, and whoever can write its directory can put another one in its place."""
    path = site.config.parent / (site.config.name if what == "config.yaml" else what)
    before = path.stat().st_mode & 0o777
    os.chown(path, -1, 12345)
    path.chmod(before | 0o020)
    (found,) = problems(started)
    path.chmod(before)
    assert "can be written by the group gid 12345, who can name commands there" in found["text"]
    assert found["next_step"] == f"chmod go-w {path}"


def test_kek_that_others_can_read(started: Shell, site: Site) -> None:
    """Its mode is the next step; a KEK that is gone, or is none, has another one."""
    kek = site.state / "kek"
    kek.chmod(0o644)
    assert [found["next_step"] for found in problems(started)] == [f"chmod 600 {kek}"]
    kek.chmod(0o600)
    kek.write_text("nonsense\n")
    assert [found["next_step"] for found in problems(started)] == [
        "put the one back that this database was sealed with"
    ]
    kek.unlink()
    assert [found["next_step"] for found in problems(started)] == [f"put the KEK back at {kek}"]


def test_kek_before_the_first_start(shell: Shell, site: Site) -> None:
    """With no database to hold it against, one that is missing is made."""
    site.config.write_text(site.config.read_text() + "kek: {file: kek}\n")
    kek = site.root / "kek"
    assert [found["next_step"] for found in problems(shell)] == [f"rotator kek generate {kek}"]
    kek.write_text("nonsense\n")
    kek.chmod(0o604)
    assert [found["next_step"] for found in problems(shell)] == [f"chmod 600 {kek}"]
    kek.chmod(0o600)
    assert [found["next_step"] for found in problems(shell)] == ["mend it as the text above says"]


def test_database_that_is_none(started: Shell, site: Site) -> None:
    """There is a next step for it, too."""
    site.database.write_text("nonsense " * 1000)
    assert next(found["subject"] for found in problems(started)) == "database"


def test_published_directory_that_a_web_server_cannot_reach(shell: Shell, site: Site) -> None:
    """The default lies in the state directory, which is closed: a warning, and ready all the same."""
    code, out, _ = shell("check", "--json")
    (warning,) = json.loads(out)["warnings"]
    assert code == 0
    assert re.search(
        "closed to other users: a web server under another user cannot read it; set publish.directory", warning
    )


def test_way_to_a_published_directory() -> None:
    """The first that is closed is named; one that is not made yet will be open."""
    with TemporaryDirectory() as name:
        root = Path(name)
        tree, private = root / "srv" / "public", root / "state"
        tree.mkdir(parents=True)
        for directory in (root, tree.parent, tree):
            directory.chmod(0o755)
        assert destinations.closed_to_others(tree, private) is None
        assert destinations.closed_to_others(tree / "made" / "later", private) is None
        assert destinations.closed_to_others(private / "public", private) == private
        tree.chmod(0o750)
        assert destinations.closed_to_others(tree / "later", private) == tree


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look as someone else")
def test_check_by_a_user_who_may_not_look(started: Shell, site: Site) -> None:
    """What is out of sight is a finding, with whom to run it as; no traceback."""
    assert problems(started) == []  # what is imported late is imported now: as another user it might not be found
    with as_nobody(site.config):
        found = {each["subject"]: each for each in problems(started)}
    assert {"state directory", "database", "KEK"} <= found.keys()
    assert found["database"]["next_step"] == "run this as the service's user (root)"
    assert found["KEK"]["next_step"].startswith("let this user (nobody) read ")


@pytest.mark.parametrize("mode", [0o700, 0o711])
def test_a_socket_that_a_group_cannot_reach(site: Site, shell: Shell, mode: int) -> None:
    """The default one lies in the state directory, which nobody else may enter: a role is of no use then."""
    with TemporaryDirectory(dir="/tmp", prefix="rotator-") as elsewhere:
        Path(elsewhere).chmod(mode)
        text = site.config.read_text()
        site.config.write_text(text + "control: {viewers: [nogroup]}\n")
        default = [each["text"] for each in problems(shell)]
        site.config.write_text(f"{text}control: {{viewers: [nogroup], socket: {elsewhere}/s}}\n")
        chosen = [each["text"] for each in problems(shell)]

    assert any(text.startswith(f"members of nogroup have a role, and cannot reach {site.state}") for text in default)
    assert len(chosen) == (mode == 0o700)
    assert all(text.endswith(f"they may not enter {elsewhere}") for text in chosen)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look as someone else")
def test_a_published_set_that_is_closed_to_this_user(started: Shell, site: Site) -> None:
    """Says which directory it is, once, and what to do."""
    with as_nobody(site.root / "rotator-data"):
        code, out, err = started("jwks")

    assert (code, out) == (1, "")
    assert err.count("jwks.json") == 1
    assert f"cannot be read: {site.state} is closed to this user; " in " ".join(err.split())


def warnings_about_tokens(shell: Shell) -> list[str]:
    found = json.loads(shell("check", "--json")[1])["warnings"]
    return [each for each in found if not each.startswith("the published directory")]


def test_what_a_changed_config_leaves_out_there(started: Shell, site: Site) -> None:
    """Tokens live to their ends whatever the config says by then: which ones, how long, and how to end them."""
    assert warnings_about_tokens(started) == []
    tokens = {each["workspace"]: each for each in json.loads(started("tokens", "list", "--json")[1])["tokens"]}
    whole = site.config.read_text()
    site.config.write_text(whole.replace("permissions: [metrics:write]", "permissions: [metrics:read]", 1))
    (changed,) = warnings_about_tokens(started)
    assert changed.startswith("workspace w0 is to say something else")
    assert tokens["w0"]["expires_at"].replace("T", " ") in changed
    assert f"rotator revoke token {tokens['w0']['jti']}" in changed
    site.config.write_text(whole.partition("  w1:")[0])
    removed, file = warnings_about_tokens(started)
    assert removed.startswith("workspace w1 is not in this config")
    assert removed.endswith(f"rotator revoke token {tokens['w1']['jti']}")
    path = site.root / "delivered" / "w1" / "token"
    assert file == f"{path} of workspace w1 is no sink any more: the file stays where it is"
    site.config.write_text(whole.replace("token}]", "token, on_removal: delete}]"))
    assert started("run", "--once")[0] == 0
    site.config.write_text(site.config.read_text().replace("delivered/w", "elsewhere/w"))
    goes = "is no sink any more: the file is deleted if it still holds our token"
    assert warnings_about_tokens(started)[-1] == f"{path} of workspace w1 {goes}"
    assert started("run", "--once")[0] == 0
    assert not path.exists(), "one pass is enough"
    assert (site.root / "elsewhere" / "w1" / "token").exists()


def test_many_changed_workspaces_are_counted(shell: Shell, site: Site) -> None:
    site.config.write_text(site.config.read_text() + "".join(f"  x{number}: {{}}\n" for number in range(7)))
    assert shell("run", "--once")[0] == 0
    site.config.write_text(site.config.read_text().replace("audience: [api]", "audience: [other]"))
    warnings = warnings_about_tokens(shell)
    assert len(warnings) == 6
    assert warnings[-1].startswith("the same holds for 4 more workspaces; the last of their tokens ends at 20")
