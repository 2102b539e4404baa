"""The real daemon is killed at random moments, at random steps and at named ones. `--kills N` does it for as long."""

from pathlib import Path

from tests.crash.kills import kill_often

KILLS = 24


def test_a_daemon_that_is_killed_again_and_again_keeps_every_promise(tmp_path: Path) -> None:
    tally = kill_often(tmp_path, range(KILLS), seed=20261124)
    print(tally)
    assert tally.problems == []
    assert tally.kills.total() == KILLS
    assert tally.kills.total() - tally.kills["a step that was not reached"] >= KILLS // 2
    assert tally.checked > 100
    assert tally.rotations >= 1
