"""What can happen to a running daemon's surroundings, and what it does then."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import jwt
import pytest

from rotator.core.secret import MASK
from tests.e2e.world import Process, Site, environment, running, wait_for
from tests.patience import HANG_SECONDS


def files(site: Site) -> dict[str, bytes]:
    """Return what is in the published tree and the witness."""
    paths = [*(site.state / "public").rglob("*.json"), site.state / "witness.json"]
    return {str(path): path.read_bytes() for path in paths}


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_database_taken_away_ends_the_daemon(tmp_path: Path, how: str) -> None:
    """It goes on with nothing that would be lost: exit 1, one sentence, and the last good set stays out."""
    site = Site(tmp_path)
    site.write_config()
    with running(site) as daemon:
        aside = tmp_path / "aside.db"
        shutil.copy(site.database, aside)
        for path in site.state.glob("rotator.db*"):
            path.unlink()
        if how == "replaced":
            aside.rename(site.database)
        wait_for(lambda: "store.lost" in daemon.log.read_text(), None, "the loss is found")
        after = files(site)
        assert daemon.process.wait(timeout=HANG_SECONDS) == 1
        (lost,) = [line for line in daemon.lines() if line["event"] == "store.lost"]
    assert lost["level"] == "critical"
    assert f"{site.database} was {how}" in lost["problem"]
    assert f"rotator: {site.database} was {how}" in daemon.log.read_text().splitlines()[-1]
    assert "Traceback" not in daemon.log.read_text()
    assert files(site) == after
    assert os.path.lexists(site.database) == (how == "replaced")
    assert not os.path.lexists(f"{site.database}-wal")


def test_a_reload_while_the_database_is_locked_is_made_up_for(tmp_path: Path) -> None:
    """The config is not to blame: it takes effect once the lock is gone, and nobody need ask again."""
    site = Site(tmp_path)
    site.write_config(workspaces=1, keyset_period="1d", token_period="1d", token_grace="1d")
    with running(site) as daemon:
        site.write_config(workspaces=2, keyset_period="1d", token_period="1d", token_grace="1d")
        with closing(sqlite3.connect(site.database, isolation_level=None)) as shell:
            shell.execute("BEGIN IMMEDIATE")
            daemon.reload()
            wait_for(lambda: "store.failed" in daemon.log.read_text(), daemon, "it meets the lock")
            shell.execute("ROLLBACK")
        wait_for((tmp_path / "delivered" / "w1" / "token").exists, daemon, "the new config is in force")
        names = [line["event"] for line in daemon.lines()]
        wait_for(lambda: site.json("status")["state"] == "ok", daemon, "all is well")
    assert "config.refused" not in names
    assert "config.reloaded" in names


def test_each_reload_of_a_bad_config_has_its_line_in_the_log(tmp_path: Path) -> None:
    """Whoever asks for a second one learns that it did not help, though the same is wrong."""
    site = Site(tmp_path)
    site.write_config(workspaces=1, keyset_period="1d", token_period="1d", token_grace="1d")
    with running(site) as daemon:
        site.config.write_text(site.config.read_text() + "\nnonsense: true\n")
        for number in (1, 2):
            daemon.reload()
            wait_for(partial(refused_so_far, daemon, number), daemon, f"reload {number} is refused")


def refused_so_far(daemon: Process, times: int) -> bool:
    return daemon.log.read_text().count('"config.refused"') == times


def test_a_delivery_that_a_stop_interrupted_goes_out_at_the_next_start(tmp_path: Path) -> None:
    """Nobody else can be carrying it, so it need not wait until the former daemon must have given it up."""
    site = Site(tmp_path)
    begun = tmp_path / "begun"
    command = f"command: {{run: [/bin/sh, -c, 'echo >> {begun}; test -e {tmp_path}/open || sleep 600'], timeout: 5m}}"
    site.write_config(workspaces=1, keyset_period="1d", token_period="1d", token_grace="1d")
    config = site.config.read_text().replace("deliver: [file:", f"deliver: [{command}, file:")
    site.config.write_text(config)
    with running(site) as daemon:
        wait_for(begun.exists, daemon, "the command runs")
    (tmp_path / "open").touch()
    with running(site) as daemon:
        wait_for(lambda: len(begun.read_text().splitlines()) == 2, daemon, "it runs again")
        wait_for(lambda: daemon.log.read_text().count("token.delivered") == 2, daemon, "both are delivered")
        wait_for(lambda: site.json("status")["state"] == "ok", daemon, "all is well")


BROKEN = """
import os, sys, threading
from pathlib import Path
from rotator.daemon import Daemon

def die():
    raise ValueError("of a thread: " + sys.argv[2])

def broken(self, *_):
    thread = threading.Thread(target=die, name="rotator-test")
    thread.start()
    thread.join()
    threading.Thread(target=sys.exit).start()
    raise LookupError("of the loop: " + sys.argv[2])

Daemon._loop = broken
sys.exit(Daemon(Path(sys.argv[1]), os.environ).run())
"""


def test_what_nobody_caught_is_in_the_log_and_redacted(tmp_path: Path) -> None:
    """Of a thread and of the daemon itself: no traceback goes around the log, for it may quote a token."""
    site = Site(tmp_path)
    site.write_config(workspaces=1)
    token = jwt.encode({"sub": "acme"}, "x" * 32, algorithm="HS256")
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, str(site.config), token],
        check=False,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        env=environment(),
    )
    assert (done.returncode, done.stderr) == (1, "")
    told = {line["event"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert (told["thread.died"]["level"], told["thread.died"]["thread"]) == ("error", "rotator-test")
    assert told["thread.died"]["problem"] == f"ValueError: of a thread: {MASK}"
    assert told["daemon.failed"]["level"] == "critical"
    assert told["daemon.failed"]["problem"] == f"LookupError: of the loop: {MASK}"
    assert "in die" in told["thread.died"]["exception"]
    assert "in broken" in told["daemon.failed"]["exception"]
    assert token not in done.stdout


def test_debugging_shows_nothing_of_the_alarm_clock(tmp_path: Path) -> None:
    """Its lines tell nothing that the loop does not, five of them at each turn."""
    site = Site(tmp_path)
    site.write_config(workspaces=1)
    site.config.write_text(site.config.read_text().replace("format: json", "format: json, level: debug"))
    with running(site) as daemon:
        wait_for(lambda: daemon.log.read_text().count("token.issued") > 2, daemon, "it has rotated")
        assert {line["logger"] for line in daemon.lines() if line["level"] == "debug"} == set()
