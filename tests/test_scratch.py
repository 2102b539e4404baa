"""A run of the tests leaves nothing behind, however it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forking import ROOT
from tests.patience import wait_until
from tests.scratch import PREFIX

RUN = """
import subprocess, sys, tempfile
from pathlib import Path
from tests.scratch import Scratch

scratch = Scratch()
Path(tempfile.mkdtemp(), "big").write_text("x")
options = {"stdout": subprocess.DEVNULL, "start_new_session": True}  # what it held open, a reader would wait for
beside = subprocess.Popen(["/bin/sleep", "600"], cwd=scratch.directory, **options)
print(scratch.directory, beside.pid, flush=True)
if sys.stdin.readline() == "end\\n":
    scratch.close(keep=False)
"""


@pytest.mark.parametrize("how", ["ended", "killed"])
def test_processes_and_files_of_a_run_go_with_it(tmp_path: Path, how: str) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", RUN],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert run.stdout is not None
    place, pid = run.stdout.readline().split()
    assert Path(place).name.startswith(PREFIX)
    assert Path(place).is_dir()
    if how == "killed":
        run.send_signal(signal.SIGKILL)
    run.communicate("end\n" if how == "ended" else None)
    wait_until(lambda: not Path(place).exists(), "the directory is removed")
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or is_over(pid), "the process is ended")


def is_over(pid: str) -> bool:
    """Tell whether a process has ended and only waits to be reaped by whoever took it over."""
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()
