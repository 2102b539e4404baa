"""Completion in a real bash, by the script that ``--show-completion`` prints."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENVIRONMENT = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": "/nonexistent"}


def bash(script: str) -> str:
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=ENVIRONMENT, capture_output=True, check=False, text=True, timeout=60
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
