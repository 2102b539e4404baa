"""What becomes of the world around the real daemon: what it goes on with, what `status` says, and that it recovers.

None of it needs a restart: the daemon that met the trouble is the one that is well again.
"""

import fcntl
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests import forking
from tests.e2e.world import Process, Site, environment, running, start, wait_for
from tests.patience import HANG_SECONDS

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """Mount a file system of 4 MiB."""
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(filler: Path) -> None:
    """Take all the room that is left."""
    with filler.open("wb", buffering=0) as stream:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    stream.write(bytes(size))
            except OSError:
                continue


def keep_the_public_tree_in(site: Site, directory: Path) -> None:
    config = site.config.read_text()
    site.config.write_text(config.replace("publish: {lag: 0s}", f"publish: {{lag: 0s, directory: {directory}/public}}"))


def set_in(directory: Path) -> bytes:
    return (directory / "public" / ".well-known" / "jwks.json").read_bytes()


def told(daemon: Process, event: str) -> str:
    """Return the problem of the first line with that event."""
    return str(next(line for line in daemon.lines() if line["event"] == event)["problem"])


def goes_on(site: Site, daemon: Process, what: str) -> None:
    """Wait until keys rotate and all is reported to be well again; no line was a traceback."""
    before = rotations(site)
    wait_for(lambda: rotations(site) > before, daemon, f"keys rotate again {what}")
    wait_for(lambda: site.json("status")["problems"] == [], daemon, f"all is well again {what}")
    text = daemon.log.read_text()
    assert "Traceback" not in text, text[text.find("Traceback") - 200 :][:3000]


def rotations(site: Site) -> int:
    with closing(sqlite3.connect(site.database, timeout=HANG_SECONDS)) as connection:
        return int(connection.execute("SELECT count(*) FROM audit WHERE name = 'key.activated'").fetchone()[0])


def problems(site: Site) -> str:
    """Return what `status` says, which exits with 3 then."""
    done = site.rotator("status", check=False)
    assert done.returncode == 3, done.stdout + done.stderr
    return done.stdout


# ---------------------------------------------------------------------------------------------------------- full disks


@AS_ROOT
@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_public_directory_that_cannot_be_written_keeps_the_last_good_set(tmp_path: Path, how: str) -> None:
    """Tokens go on, on the key that every verifier knows; no other key signs before it could be published."""
    site = Site(tmp_path / "site")
    site.root.mkdir()
    site.write_config(keyset_period="6s", token_period="3s", max_cache="1s", propagation="2s")
    with small_disk(tmp_path / "disk") as disk:
        keep_the_public_tree_in(site, disk)
        with running(site) as daemon:
            goes_on(site, daemon, "at first")
            filler = disk / "filler"
            if how == "full":
                fill(filler)
            else:
                subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            wait_for(lambda: "publish.failed" in daemon.log.read_text(), daemon, "it cannot publish")
            good = set_in(disk)
            assert ("No space left" if how == "full" else "Read-only file system") in told(daemon, "publish.failed")
            assert "cannot write" in problems(site)
            issued = site.query("SELECT count(*) FROM audit WHERE name = 'token.issued'")[0][0]
            wait_for(
                lambda: site.query("SELECT count(*) FROM audit WHERE name = 'token.issued'")[0][0] > issued,
                daemon,
                "tokens go on",
            )
            assert set_in(disk) == good
            if how == "full":
                filler.unlink()
            else:
                subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
            goes_on(site, daemon, "with room")


@AS_ROOT
def test_a_full_disk_under_the_state_stops_all_changes_and_nothing_else(tmp_path: Path) -> None:
    """What is published stays, `status` can still be asked, and it goes on as soon as there is room."""
    site = Site(tmp_path)
    site.write_config(keyset_period="6s", token_period="3s", propagation="2s")
    with small_disk(site.state), running(site) as daemon:
        goes_on(site, daemon, "at first")
        filler = site.state / "filler"
        fill(filler)
        wait_for(lambda: "failed" in daemon.log.read_text(), daemon, "it meets the full disk")
        wait_for(lambda: "full" in problems(site) or "No space" in problems(site), daemon, "status says so")
        good = site.jwks.read_bytes()
        assert good
        filler.unlink()
        goes_on(site, daemon, "with room")


# ------------------------------------------------------------------------------------------------------- the database


def test_a_database_that_is_locked_for_long_is_waited_for(tmp_path: Path) -> None:
    """By another process, for longer than one attempt waits: readers are answered, and the work is made up for."""
    site = Site(tmp_path)
    site.write_config(keyset_period="6s", token_period="3s", propagation="2s", token_grace="60s")
    with running(site) as daemon:
        goes_on(site, daemon, "at first")
        with closing(sqlite3.connect(site.database, isolation_level=None)) as shell:
            shell.execute("BEGIN IMMEDIATE")
            wait_for(lambda: "store.failed" in daemon.log.read_text(), daemon, "it meets the lock")
            assert "is locked by another process" in problems(site)
            shell.execute("ROLLBACK")
        goes_on(site, daemon, "without the lock")
        assert "tick.recovered" in daemon.log.read_text()


def broken(content: bytes, how: str) -> bytes:
    match how:
        case "noise":
            return os.urandom(len(content))
        case "cut short":
            return content[: len(content) // 2]
        case _:
            return b""


@pytest.mark.parametrize("how", ["noise", "cut short", "empty"])
def test_a_database_that_is_broken_at_the_start_is_told_and_nothing_is_changed(tmp_path: Path, how: str) -> None:
    """One sentence, on the file or on the witness beside an empty one; the set stays; put back, it starts as ever."""
    site = Site(tmp_path)
    site.write_config(workspaces=2, keyset_period="1d", token_period="1d", token_grace="1d")
    with running(site):
        pass
    content, good = site.database.read_bytes(), site.jwks.read_bytes()
    site.database.write_bytes(broken(content, how))
    done = site.rotator("run", "--once", check=False)
    assert done.returncode == (3 if how == "empty" else 1)
    assert "Traceback" not in done.stdout + done.stderr
    if how == "empty":
        assert "the witness in the state directory belongs to another database" in " ".join(done.stdout.split())
    else:
        assert done.stderr.startswith(f"rotator: the database {site.database} ")
    assert site.jwks.read_bytes() == good
    for path in site.state.glob("rotator.db-*"):
        path.unlink()
    site.database.write_bytes(content)
    with running(site) as daemon:
        assert site.json("status")["problems"] == []
        text = daemon.log.read_text()
    assert "Traceback" not in text, text[text.find("Traceback") - 200 :][:3000]
    assert site.jwks.read_bytes() == good


# --------------------------------------------------------------------------------------------------- KEK, clock, log


def test_a_kek_of_the_wrong_length_at_the_start_is_told_and_its_return_is_enough(tmp_path: Path) -> None:
    """The daemon runs, mints nothing, and goes on by itself."""
    site = Site(tmp_path)
    site.write_config(workspaces=1, keyset_period="1d", token_period="1d", token_grace="1d")
    with running(site):
        wait_for(lambda: len(site.token_files()) == 1, None, "a token is delivered")
    kek = site.state / "kek"
    content, good = kek.read_bytes(), site.jwks.read_bytes()
    kek.write_bytes(content[:-8] + b"\n")
    with running(site) as daemon:
        wait_for(lambda: "kek.missing" in daemon.log.read_text(), daemon, "the KEK is read")
        assert "expected 32 (43 characters of base64url)" in told(daemon, "kek.missing")
        assert "kek" in problems(site)
        assert site.jwks.read_bytes() == good
        kek.write_bytes(content)
        wait_for(lambda: "kek.restored" in daemon.log.read_text(), daemon, "the KEK is found")
        wait_for(lambda: site.json("status")["problems"] == [], daemon, "all is well again")
        assert content.split()[-1].decode() not in daemon.log.read_text()


def test_a_log_that_nobody_reads_holds_nothing_up(tmp_path: Path) -> None:
    """The pipe is full: keys and tokens rotate on. Read again, the log says how many lines were lost."""
    site = Site(tmp_path)
    site.write_config()
    process = forking.Rotator(
        ["--config", str(site.config), "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
    )
    assert process.stdout is not None
    try:
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        wait_for(lambda: site.jwks.exists() and rotations(site) >= 6, None, "keys rotate on, unheard")
        lines = iter(process.stdout.readline, b"")
        assert any(b'"log.lost"' in line for line in lines)
    finally:
        process.terminate()
        process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0


# ---------------------------------------------------------------------------------------------------------- the clock

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed")
@pytest.mark.parametrize("year", [1970, 2100])
def test_a_clock_that_is_far_off_is_not_believed(tmp_path: Path, year: int) -> None:
    """Nothing is made or retired, the set stays, `status` says why; with the right time it goes on by itself."""
    site = Site(tmp_path)
    site.write_config(workspaces=1, keyset_period="1d", token_period="1d", token_grace="1d")
    with running(site):
        wait_for(lambda: len(site.token_files()) == 1, None, "a token is delivered")
    good, events = site.jwks.read_bytes(), len(site.events())
    now = tmp_path / "now"
    now.write_text(f"@{year}-01-02 00:00:00")
    faked = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(now),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    daemon = start(site, environ=faked, own_interpreter=True)
    try:
        wait_for(lambda: "clock.held" in daemon.log.read_text(), daemon, "the clock is found out")
        assert told(daemon, "clock.held").startswith("the clock ")
        assert "rotator clock accept" in problems(site)
        assert site.jwks.read_bytes() == good
        assert len(site.events()) == events
        now.write_text("+0")
        wait_for(lambda: "clock.released" in daemon.log.read_text(), daemon, "the clock is trusted")
        wait_for(lambda: site.json("status")["problems"] == [], daemon, "all is well again")
        assert site.jwks.read_bytes() == good
    finally:
        daemon.stop()
    text = daemon.log.read_text()
    assert "Traceback" not in text, text[text.find("Traceback") - 200 :][:3000]
