"""A site with a real state, and commands run in this process or as real ones."""

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rotator.cli import main
from tests.e2e.world import Site
from tests.forking import Rotator
from tests.patience import HANG_SECONDS, wait_until


@dataclass
class Shell:
    """Runs commands in this process, as a person would type them."""

    config: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Return exit code, stdout and stderr."""
        self.capsys.readouterr()
        end = arguments.index("--") if "--" in arguments else len(arguments)  # of what is read as options
        code = main([*arguments[:end], "--config", str(self.config), *arguments[end:]])
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err


@pytest.fixture
def site(tmp_path: Path) -> Site:
    found = Site(tmp_path)
    found.write_config(
        workspaces=2,
        keyset_period="90d",
        token_period="30d",
        token_grace="1d",
        max_cache="1h",
        propagation="2h",
    )
    return found


@pytest.fixture
def shell(site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY", "ROTATOR_KEK", "ROTATOR_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return Shell(site.config, capsys)


@pytest.fixture
def started(shell: Shell) -> Shell:
    """Make the state: one pass, and no daemon after it."""
    code, told, wrong = shell("run", "--once")
    assert code == 0, told + wrong
    return shell


@pytest.fixture
def daemon(site: Site, shell: Shell) -> Iterator[Shell]:
    """Run the daemon, from when it has delivered the first tokens until the test is over."""
    process = Rotator(["run", "-c", str(site.config)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if '"daemon.ready"' in line:
            break
    wait_until(lambda: len(site.token_files()) == 2, "the first tokens are delivered")
    yield shell
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0
