"""The checks bite: each deliberate bug breaks a promise in a history of a few moves, and without it none is broken."""

from datetime import timedelta

import pytest

from rotator.core.model import DEFAULT_KEYSET, Algorithm, WorkspaceId
from tests.simulation.mutants import ALL, Bug, plant
from tests.simulation.setting import Setting, WantedKeyset, WantedWorkspace
from tests.simulation.story import Step, tell
from tests.stand_ins import DAY, HOUR


def setting_of(bug: Bug) -> Setting:
    """Return a small world, in which a rotation of tokens is near after two months."""
    return Setting(
        seed=1,
        grain=2 * DAY,
        heartbeat=4 * DAY,
        compare=60 * DAY,
        max_cache=24 * HOUR,
        replicas=bug.replicas,
        keysets=((DEFAULT_KEYSET, WantedKeyset(Algorithm.ES256, 300 * DAY, timedelta(hours=49))),),
        workspaces=tuple(
            (WorkspaceId(f"w{number:04}"), WantedWorkspace(DEFAULT_KEYSET, 70 * DAY, 30 * DAY)) for number in range(12)
        ),
    )


@pytest.mark.parametrize("bug", ALL, ids=lambda bug: bug.name)
def test_a_deliberate_bug_breaks_a_promise(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = setting_of(bug)
    steps = [Step(number, after, move) for number, (after, move) in enumerate(bug.moves)]
    assert tell(setting, steps).broken == ""
    plant(bug.lines, monkeypatch)
    told = tell(setting, steps, surround=bug.surround)
    assert told.broken.startswith(tuple(f"promise {number}," for number in bug.promises)), (told.broken, told.what)
