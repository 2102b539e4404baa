"""Settings that every test shares."""

import os
import sys
import threading
from collections.abc import Generator, Sequence

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.postgresql import new_postgresql_url, postgresql
from tests.scratch import Scratch
from tests.surroundings import leave_them

leave_them()

__all__ = ["new_postgresql_url", "postgresql"]  # fixtures

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=2000)
# Tests that look for a mutant in a hurry: the same few examples each time, and nobody reads the smallest one.
settings.register_profile(
    "mutation",
    parent=settings.get_profile("default"),
    max_examples=30,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
# While one writes: what is simply wrong shows at once.
settings.register_profile("fast", parent=settings.get_profile("default"), max_examples=20)
# What `.ci/run` has time for, the same each time, so that a change is judged by itself; whoever looks for more asks
# for the thorough one.
settings.register_profile(
    "ci", parent=settings.get_profile("default"), max_examples=50, derandomize=True, database=None
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

STORIES = ("tests/e2e/", "tests/crash/test_kills.py", "tests/interop/")
"""Real daemons on a real clock: they wait more than they work."""

UNTRACED = ("tests/crash/", "tests/e2e/", "tests/engine/", "tests/fuzz/", "tests/simulation/")
TRACED = tuple(
    f"tests/engine/test_{name}.py"
    for name in (
        "amend", "attribution", "delivery_load", "documents", "replace", "revocation_report", "rotate", "shares",
    )
)  # fmt: skip
"""Under coverage a history takes more than twice as long. These are traced: they go through what the others do."""


SCRATCH = pytest.StashKey[Scratch]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let the whole run, of all workers, write into one directory; a worker is told of it by its environment."""
    if not hasattr(config, "workerinput") and not config.option.collectonly:
        config.stash[SCRATCH] = Scratch()
        config.option.basetemp = config.option.basetemp or str(config.stash[SCRATCH].directory / "t")


def pytest_unconfigure(config: pytest.Config) -> None:
    scratch = config.stash.get(SCRATCH, None)
    if scratch is not None:
        failed = getattr(config.pluginmanager.get_plugin("terminalreporter"), "stats", {})
        scratch.close(keep=bool({"failed", "error"} & failed.keys()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(UNTRACED) and not item.nodeid.startswith(TRACED):
            item.add_marker("no_cover")
    items[:] = spread(items, getattr(config, "workerinput", {}).get("workercount", 1))


def spread(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """Order the tests so that those that wait for real seconds to pass begin at once, on every other worker.

    Each worker takes an equal run of the list at first, and whoever has nothing left takes from the others. So nobody
    waits for a long story at the end, and the processors have work while the stories wait.
    """
    stories = [item for item in items if item.nodeid.startswith(STORIES)]
    rest = [item for item in items if not item.nodeid.startswith(STORIES)]
    size = -(-len(items) // workers)
    tellers = -(-workers // 2)
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        told = stories[worker // 2 :: tellers] if worker % 2 == 0 else []
        own = size - len(told)
        ordered += [*told, *rest[:own]]
        rest = rest[own:]
    return ordered + rest


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Trace nothing where nothing is to be covered: in a worker pytest-cov begins twice, and pauses one of the two."""
    if item.get_closest_marker("no_cover") is None:
        return (yield)
    trace, trace_of_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(trace)
        threading.settrace(trace_of_threads)
