"""What hangs below a sink holds up that sink, and neither its neighbours, a stop, nor the next start."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.dead_mount import DeadMount
from tests.e2e.world import Site, running, start, wait_for
from tests.patience import wait_until


def _run(*command: str | Path) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Frozen:
    """A small file system of its own, which can be made to hang as a network mount does whose server is gone."""

    def __init__(self, root: Path) -> None:
        self.mount = root / "mount"
        self.mount.mkdir()
        image = root / "image"
        with image.open("wb") as file:
            file.truncate(16 << 20)
        made = _run("mkfs.ext4", "-q", image) and _run("mount", "-o", "loop", image, self.mount)
        if not made:
            pytest.skip("needs root, mkfs.ext4 and a loop device")

    def freeze(self) -> None:
        assert _run("fsfreeze", "-f", self.mount)

    def thaw(self) -> None:
        assert _run("fsfreeze", "-u", self.mount)

    def close(self) -> None:
        _run("fsfreeze", "-u", self.mount)
        wait_until(lambda: _run("umount", self.mount) or not os.path.ismount(self.mount), "it is unmounted")


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Frozen]:
    if os.geteuid() != 0 or shutil.which("fsfreeze") is None:
        pytest.skip("needs root, and fsfreeze")
    made = Frozen(tmp_path)
    yield made
    made.close()


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[DeadMount]:
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("needs root, and FUSE")
    made = DeadMount(tmp_path / "dead")
    yield made
    made.close()


def write_config(site: Site, sinks: dict[str, str]) -> None:
    """Write a config in which nothing is due again for long."""
    site.write_config(workspaces=0, keyset_period="1d", token_period="1d", token_grace="1d")
    with site.config.open("a") as file:
        for name, sink in sinks.items():
            file.write(f"  {name}: {{roles: [admin], deliver: [{sink}]}}\n")


def helpers_of(pid: int) -> list[int]:
    """Return the processes that a daemon has touch files."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and b"rotator.adapters.sink_helper" in (entry / "cmdline").read_bytes():
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                found += [int(entry.name)] * (int(parent) == pid)
        except OSError:
            continue
    return found


def reported(site: Site) -> Callable[[], bool]:
    return lambda: any(problem["subject"].startswith("filesystem:") for problem in site.json("status")["problems"])


@pytest.mark.parametrize("ends", ["stopped", "killed"])
def test_a_file_system_that_hangs_holds_up_nothing_beside_it(tmp_path: Path, frozen: Frozen, ends: str) -> None:
    """Not the other files, not a stop, and not the next start, though processes wait in the kernel all the while."""
    site = Site(tmp_path)
    names = [f"dead{number}" for number in range(4)]
    healthy = tmp_path / "healthy" / "token"
    write_config(
        site,
        {name: f"file: {{path: {frozen.mount}/{name}/token}}" for name in names}
        | {"zoe": f"file: {{path: {healthy}}}"},
    )
    for name in names:
        (frozen.mount / name).mkdir()
    frozen.freeze()
    with running(site) as daemon:
        wait_for(healthy.exists, daemon, "the healthy sink has its token")
        wait_for(reported(site), daemon, "status names what hangs")
        report = site.rotator("status", "--json", check=False)
        assert report.returncode == 3
        problems = {problem["subject"]: problem["text"] for problem in json.loads(report.stdout)["problems"]}
        assert any(str(frozen.mount) in text for text in problems.values())
        if ends == "stopped":
            assert daemon.stop() == 0
        else:
            daemon.kill()
    again = start(site, log="again.log")
    try:
        wait_for(lambda: "daemon.ready" in again.log.read_text(), again, "a new daemon is ready beside what hangs")
        healthy.unlink()
        again.process.send_signal(signal.SIGHUP)
        frozen.thaw()
        arrived = [frozen.mount / name / "token" for name in names]
        wait_for(lambda: all(path.exists() for path in arrived), again, "all have their tokens once it answers")
        wait_for(lambda: not reported(site)(), again, "status names it no more")
    finally:
        again.stop()


def test_commands_that_hang_leave_room_for_one_that_is_healthy(tmp_path: Path) -> None:
    """Forty of them, with the healthy one behind them all."""
    site = Site(tmp_path)
    taken = tmp_path / "taken"
    sinks = {f"dead{number:02}": "command: {run: [/bin/sleep, '3600'], timeout: 4m}" for number in range(40)}
    sinks["zoe"] = f"command: {{run: [/bin/sh, -c, 'cat > {taken}']}}"
    write_config(site, sinks)
    with running(site) as daemon:
        wait_for(lambda: taken.exists() and taken.read_text() != "", daemon, "the healthy one has its token")
        assert site.query("SELECT count(*) FROM deliveries WHERE attempts > 0") == [(0,)]


@pytest.mark.parametrize("ends", ["stopped", "killed"])
def test_what_lies_on_a_dead_mount_holds_up_nothing_beside_it(tmp_path: Path, dead: DeadMount, ends: str) -> None:
    """A program that cannot be started, and a file: what asks for them can be neither killed nor waited for."""
    site = Site(tmp_path)
    taken, written = tmp_path / "taken", tmp_path / "out" / "token"
    write_config(
        site,
        {
            "dead": f"command: {{run: [{dead.mount}/push], timeout: 1s}}",
            "lost": f"file: {{path: {dead.mount}/token}}",
            "zoe": f"command: {{run: [/bin/sh, -c, 'cat > {taken}']}}",
            "file": f"file: {{path: {written}}}",
        },
    )
    with running(site) as daemon:
        wait_for(lambda: taken.exists() and taken.read_text() != "" and written.exists(), daemon, "the healthy ones")
        wait_for(lambda: f"{dead.mount}/push could not be started" in daemon.log.read_text(), daemon, "it is said")
        wait_for(
            lambda: any(problem["subject"].startswith("delivery:dead:") for problem in site.json("status")["problems"]),
            daemon,
            "status names it",
        )
        if ends == "stopped":
            assert daemon.stop() == 0
        else:
            daemon.kill()
    assert site.rotator("status", check=False).stdout  # made from the state, for no daemon runs
    taken.unlink()
    written.unlink()
    again = start(site, log="again.log")
    try:
        wait_for(lambda: "daemon.ready" in again.log.read_text(), again, "a new daemon is ready beside what hangs")
        wait_for(written.exists, again, "the file that was taken away is written again")
    finally:
        assert again.stop() == 0


def test_a_first_delivery_that_fails_is_said_and_leaves_no_zero(tmp_path: Path) -> None:
    """The workspace has no usable token; nor is there any talk of a prior one."""
    site = Site(tmp_path)
    (tmp_path / "in-the-way").write_text("")
    write_config(site, {"acme": f"file: {{path: {tmp_path}/in-the-way/token}}"})
    done = site.rotator("run", "--once", "--json", check=False)
    assert done.returncode == 3, done.stderr
    (problem,) = json.loads(done.stdout)["status"]["problems"]
    assert problem["subject"] == f"delivery:acme:file:{tmp_path}/in-the-way/token"
    assert "Not a directory" in problem["text"]
    assert "which has no valid one" in problem["text"]
    assert "prior" not in done.stderr


def test_a_helper_of_a_daemon_that_was_killed_is_gone(tmp_path: Path) -> None:
    site = Site(tmp_path)
    write_config(site, {"acme": f"file: {{path: {tmp_path}/out/token}}"})
    with running(site) as daemon:
        wait_for((tmp_path / "out" / "token").exists, daemon, "the token is there")
        left = helpers_of(daemon.process.pid)
        daemon.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}/fd").exists() for pid in left), "its helpers are gone")
