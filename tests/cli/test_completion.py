"""Completion in a real bash, by the script that ``--show-completion`` prints."""

import json
import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from rotator.cli.completion import PATIENCE
from tests.cli.conftest import Shell
from tests.e2e.world import Site
from tests.patience import HANG_SECONDS, wait_until

ENVIRONMENT = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": "/nonexistent"}


def bash(script: str) -> str:
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env=ENVIRONMENT,
        capture_output=True,
        check=False,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def script() -> str:
    return subprocess.run(
        [str(Path(sys.executable).with_name("rotator")), "--show-completion", "bash"],
        env=ENVIRONMENT | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        check=True,
        text=True,
    ).stdout


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["rotator", "pla"], ["plan"]),
        (["rotator", "audit", ""], ["export", "list", "verify"]),
        (["rotator", "plan", "--sv"], ["--svg"]),
        (["rotator", "verify", "--r"], ["--require", "--role"]),
        (["rotator", "token", "show", "--off"], ["--offline"]),
    ],
)
def test_bash_completes_commands_and_options(script: str, words: list[str], completed: list[str]) -> None:
    typed = " ".join(f"'{word}'" for word in words)
    found = bash(
        f"{script}\nCOMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; "
        "complete -p rotator >/dev/null && _rotator_completion rotator; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    assert sorted(found.split()) == sorted(completed)


def complete(script: str, config: Path, *words: str) -> list[str]:
    """Return what bash offers for the last of ``words``."""
    typed = " ".join(f"'{word}'" for word in words)
    found = bash(
        f"export ROTATOR_CONFIG={config}\n{script}\nCOMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; "
        "_rotator_completion rotator 2>&1; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    return found.split()


def test_bash_completes_what_the_daemon_knows(script: str, daemon: Shell) -> None:
    (signer, *_) = [each["kid"] for each in json.loads(daemon("keys", "list", "--json")[1])["keys"]]
    for words, expected in (
        (("token", "show", "w"), ["w0", "w1"]),
        (("replace", "w1"), ["w1"]),
        (("rotate", ""), ["default"]),
        (("keys", "show", signer[:6]), [signer]),
        (("tokens", "list", "--workspace", "w"), ["w0", "w1"]),
    ):
        assert once_in_time(script, daemon.config, "rotator", *words) == expected


def once_in_time(script: str, config: Path, *words: str) -> list[str]:
    """Press TAB until the daemon, and a machine that has other things to do, have answered within the patience."""
    found: list[str] = []

    def press() -> bool:
        found[:] = complete(script, config, *words)
        return bool(found)

    wait_until(press, f"{' '.join(words)} is completed")
    return found


def test_without_a_daemon_or_with_one_that_hangs_nothing_is_said(script: str, started: Shell, site: Site) -> None:
    """And nobody waits for long: each key press gives up by itself."""
    assert timedelta(seconds=1) > PATIENCE
    assert complete(script, site.config, "rotator", "replace", "") == []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(site.state / "control.sock"))
        listener.listen()
        assert complete(script, site.config, "rotator", "replace", "") == []
    assert complete(script, Path("/none/there"), "rotator", "rotate", "") == []
