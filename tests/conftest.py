"""Settings that every test shares."""

import os
import sys
import threading
from collections.abc import Generator, Sequence

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.postgresql import new_postgresql_url, postgresql
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
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

LONG_HISTORIES = (
    "tests/crash/",
    "tests/fuzz/",
    "tests/simulation/",
    "tests/engine/test_failures.py",
    "tests/engine/test_history.py",
    "tests/engine/test_propagation.py",
    "tests/engine/test_publishing.py",
    "tests/engine/test_restore.py",
)
"""Under coverage they would take twice as long, and walk through nothing that the tests of less time do not cover."""


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(LONG_HISTORIES):
            item.add_marker("no_cover")


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
