"""Histories of fixed seeds keep every promise; `python -m tests.simulation` looks at those that nobody has seen."""

import os
import subprocess
import sys

import pytest

from tests.patience import HANG_SECONDS
from tests.simulation.__main__ import explanation
from tests.simulation.setting import draw_setting
from tests.simulation.story import Shrinker, draw_steps, tell

FIXED = (1, 2, 5, 8)
MOVES = 15


def keep_promises(seed: int) -> None:
    setting = draw_setting(seed)
    steps = draw_steps(setting, MOVES)
    told = tell(setting, steps)
    if told.broken:
        shorter = Shrinker(setting, told.broken, budget=20).shrink(steps[: told.at_step + 1])
        pytest.fail(explanation(tell(setting, shorter), shorter, MOVES))


@pytest.mark.parametrize("seed", FIXED)
def test_a_history_that_is_told_each_time_keeps_every_promise(seed: int) -> None:
    keep_promises(seed)


def test_the_same_seed_is_the_same_history() -> None:
    """Byte for byte, down to the last hash of the audit; in another process, with other hashes of strings, as well."""
    setting = draw_setting(5)
    told = tell(setting, draw_steps(setting, 6))
    script = "from tests.simulation.story import *; s = draw_setting(5); print(tell(s, draw_steps(s, 6)).digest)"
    environ = {**os.environ, "PYTHONHASHSEED": "7"}
    other = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=HANG_SECONDS, env=environ
    )
    assert told.tokens > 0
    assert other.stdout.strip() == told.digest
