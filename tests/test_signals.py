"""Signals count from the first line on, and the first process of a container passes them on and reaps."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from rotator.entry import _command
from tests.e2e.world import Site, start
from tests.patience import HANG_SECONDS, wait_until

BEFORE_ALL_ELSE = """
import os, signal, sys
from rotator.signals import catch_early, reload_came
catch_early()
assert not reload_came()
os.kill(os.getpid(), signal.SIGHUP)
assert reload_came()
os.kill(os.getpid(), signal.{signal})
sys.exit("it was not ended")
"""


def python(script: str, *before: str) -> "subprocess.CompletedProcess[str]":
    command = [*before, sys.executable, "-c", script]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=HANG_SECONDS)


@pytest.mark.parametrize("ending", ["SIGTERM", "SIGINT"])
def test_before_anything_is_imported_a_reload_is_remembered_and_a_stop_ends_it(ending: str) -> None:
    done = python(BEFORE_ALL_ELSE.format(signal=ending))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_catches_signals_imports_nothing_that_takes_time() -> None:
    script = "import sys; before = set(sys.modules); import rotator.entry; print(*(set(sys.modules) - before))"
    news = {name.partition(".")[0] for name in python(script).stdout.split()}
    assert "rotator" in news
    assert news <= {"rotator", *sys.stdlib_module_names}
    assert not news & {"asyncio", "json", "logging", "socket", "subprocess"}


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["run"], "run"),
        (["--config", "run", "status"], "status"),
        (["-c", "x.yaml", "run", "--once"], "run"),
        (["token", "show", "run"], "token"),
        (["--version"], None),
        ([], None),
    ],
)
def test_the_command_is_found_among_the_options(arguments: Sequence[str], command: str | None) -> None:
    assert _command(arguments) == command


def test_a_reload_that_comes_before_the_daemon_is_up_is_done_when_it_is(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.write_config()
    process = start(site, own_interpreter=True)
    try:
        wait_until(lambda: _catches(process.process.pid, signal.SIGHUP), "the signal to be caught")
        process.reload()
        wait_until(lambda: "config.reloaded" in process.log.read_text(), "the reload")
        events = [line["event"] for line in process.lines()]
        assert events.index("daemon.ready") < events.index("config.reloaded")
    finally:
        assert process.stop() == 0


def _catches(pid: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(mask, 16) & 1 << (number - 1))


# ---------------------------------------------------------------------------------------------------- the first process

AS_FIRST = """
import os, signal, subprocess, sys, time
from pathlib import Path
from rotator.signals import stand_behind_first_process
assert os.getpid() == 1
stand_behind_first_process()
assert os.getppid() == 1
subprocess.run(["/bin/sh", "-c", "/bin/sh -c : & exec /bin/true"], check=True)

def left_over():
    stats = [path.read_text() for path in Path("/proc").glob("[0-9]*/stat")]
    return [stat for stat in stats if stat.rpartition(")")[2].split()[:2] == ["Z", "1"]]

deadline = time.monotonic() + 60
while left_over() and time.monotonic() < deadline:
    time.sleep(0.01)
assert not left_over()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
os.kill(1, signal.SIGTERM)
time.sleep(60)
"""
UNSHARE = ("unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc")


@pytest.fixture
def first_process() -> Sequence[str]:
    """Return what runs a command as the first process of a namespace."""
    if (
        shutil.which("unshare") is None
        or subprocess.run([*UNSHARE, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("this machine allows no process namespaces")
    return UNSHARE


def test_the_first_process_passes_signals_on_and_reaps_orphans(first_process: Sequence[str]) -> None:
    done = python(AS_FIRST, *first_process)
    assert (done.returncode, done.stderr) == (7, "")


def test_the_first_process_ends_as_its_child_did_when_that_was_killed(first_process: Sequence[str]) -> None:
    script = (
        "import os, signal; from rotator.signals import stand_behind_first_process as stand; stand();"
        " os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert python(script, *first_process).returncode == 128 + signal.SIGKILL
