"""What a command does where the shell has closed a standard stream: `rotator status >&-`."""

import os
import subprocess
import sys

import pytest

from tests import forking
from tests.cli.conftest import Shell
from tests.cli.test_process import complaint, shell_line
from tests.e2e.world import Site

LOOKING = ["status", "check", "jwks", "audit export"]
CHANGING = ["replace w0 --offline", "run --once"]
OTHERS = ["--help", "verify -", "token show w0 --offline", "audit verify --json"]


ASKING = ["backup {}/copy.db", "init {}/new --issuer https://tokens.example.com"]


@pytest.mark.parametrize("command", [*LOOKING, *CHANGING, *OTHERS, *ASKING])
def test_closed_output_is_one_line(started: Shell, site: Site, command: str) -> None:
    """Whatever is asked for, it is told that nobody can see the answer; and nothing else takes its place."""
    done = shell_line(f"ROTATOR_CONFIG={site.config} rotator {command.format(site.root)} </dev/null >&-")

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith(complaint(command, "the output cannot be written: Bad file descriptor"))


@pytest.mark.parametrize("command", [*LOOKING, *CHANGING])
def test_closed_errors_and_input_change_nothing(started: Shell, site: Site, command: str) -> None:
    """The answer and the exit code are those of a shell that has them open."""
    done = shell_line(f"ROTATOR_CONFIG={site.config} rotator {command} 2>&- <&-")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("closed", [">&-", "2>&- <&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["nonsense", "keys show nobody", "verify -"])
def test_what_is_refused_is_refused_with_streams_closed(started: Shell, site: Site, command: str, closed: str) -> None:
    """With the exit code that it has anyway, and never a traceback."""
    usual = forking.run(
        command.split(), stdin=subprocess.DEVNULL, env=os.environ | {"ROTATOR_CONFIG": str(site.config)}
    )
    done = shell_line(f"ROTATOR_CONFIG={site.config} rotator {command} {closed}")

    assert done.returncode == usual.returncode > 0
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can see what another process has open that leaves no dump")
def test_the_daemon_runs_without_its_streams(started: Shell, site: Site) -> None:
    """It has no use for them where it logs elsewhere; and its files never take the place of a closed one."""
    done = shell_line(
        f"{sys.executable} -m rotator run -c {site.config} <&- >&- 2>&- & "
        f"until test -S {site.state}/control.sock; do sleep 0.1; done; "
        "ls -l /proc/$!/fd/{0,1,2}; kill $!; wait $!"
    )

    assert done.returncode == 0
    assert done.stdout.count("/dev/null") == 3
