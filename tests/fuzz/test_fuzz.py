"""Each target takes its whole corpus, and some thousand inputs made from it; `python -m tests.fuzz` goes on."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.world import environment
from tests.fuzz.targets import MAKERS, target
from tests.patience import HANG_SECONDS

CORPUS = Path(__file__).parent / "corpus"
RUNS = {"config": 300, "json": 300, "jwks": 3000, "token": 1500, "control": 1500, "witness": 3000, "kek": 3000}
"""Of those that do more than to look at a short text."""


@pytest.mark.parametrize("name", MAKERS)
def test_what_broke_a_promise_once_breaks_none_any_more(name: str) -> None:
    """Whatever was found goes into the corpus."""
    inputs = sorted((CORPUS / name).iterdir())
    assert len(inputs) >= 3
    with target(name) as fuzzed:
        for path in inputs:
            fuzzed(path.read_bytes())


@pytest.mark.parametrize("name", RUNS)
def test_inputs_that_find_new_paths_break_no_promise(name: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="there is no atheris for this machine")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", name, "--runs", str(RUNS[name]), "--seed", "20261124"],
        check=False,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        env={**environment(), "TMPDIR": str(tmp_path)},
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stat::number_of_executed_units" in done.stderr
    assert list(tmp_path.iterdir()) == []
