"""Runs the tests of a module against one mutant of it, in a child that is forked from a warm process."""

import importlib
import importlib.abc
import importlib.util
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Sequence
from enum import StrEnum
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

from tests.scratch import place

CORE: Final = "tests/core/test_"

TESTS: Final[dict[str, tuple[str, ...]]] = {
    "rotator/core/planner.py": (
        CORE + "reading_a_state.py",
        CORE + "rules.py",
        CORE + "wishes.py",
        CORE + "planner.py",
        CORE + "any_state.py",
        CORE + "compromise.py",
    ),
    "rotator/adapters/publish.py": ("tests/adapters/test_publish.py",),
    "rotator/core/tokens.py": (CORE + "tokens.py",),
    "rotator/core/transitions.py": (CORE + "transitions.py", CORE + "planner.py"),
    "rotator/core/lifecycle.py": (CORE + "lifecycle.py", CORE + "transitions.py", CORE + "planner.py"),
    "rotator/core/invariants.py": (CORE + "invariants.py",),
    "rotator/core/schedule.py": (CORE + "tokens.py", CORE + "rules.py", CORE + "planner.py"),
    "rotator/core/jwks.py": (CORE + "jwks.py", "tests/adapters/test_publish.py"),
    "rotator/core/timeguard.py": (CORE + "timeguard.py",),
    "rotator/core/compromise.py": (CORE + "compromise.py",),
    "rotator/core/policy.py": (CORE + "policy.py",),
    "rotator/core/audit.py": (CORE + "audit.py",),
    "rotator/core/events.py": (CORE + "events.py",),
    "rotator/core/stored_policy.py": (CORE + "stored_policy.py",),
    "rotator/core/strict_json.py": (CORE + "strict_json.py",),
    "rotator/core/alarms.py": (CORE + "alarms.py",),
    "rotator/core/sinks.py": ("tests/adapters/test_file_sink.py",),
    "rotator/core/secret.py": (CORE + "secret.py",),
    "rotator/core/model.py": (CORE + "model.py",),
    "rotator/core/actions.py": (CORE + "model.py", CORE + "rules.py", CORE + "transitions.py"),
    "rotator/core/counting.py": (CORE + "counting.py",),
    "rotator/core/compact.py": (CORE + "compact.py",),
    "rotator/core/contract.py": (CORE + "contract.py",),
    "rotator/core/durations.py": ("tests/config/test_durations.py",),
    "rotator/core/redaction.py": (CORE + "redaction.py",),
}
"""The tests that must notice, per module; the quick ones first."""

CPU_SECONDS: Final = 20
WALL_SECONDS: Final = 600
MEMORY_BYTES: Final = 4 << 30

HEAVY: Final = (
    "pytest",
    "hypothesis",
    "hypothesis.strategies",
    "sqlalchemy",
    "sqlalchemy.dialects.sqlite",
    "alembic.command",
    "joserfc.jwt",
    "joserfc.jwk",
    "pydantic",
    "structlog",
    "cryptography.hazmat.primitives.asymmetric.ec",
    "cryptography.hazmat.primitives.asymmetric.rsa",
    "apscheduler.triggers.cron",
    "yaml",
    "jwt",
    "psycopg",
)


class Verdict(StrEnum):
    """What the tests said."""

    CAUGHT = "caught"
    LOOPED = "caught, by the limit of its time"
    SURVIVED = "survived"
    BROKEN = "the tests did not run"


def warm() -> None:
    """Import what every child needs, and nothing of ours."""
    os.environ["HYPOTHESIS_PROFILE"] = "mutation"
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.pop("PYTEST_ADDOPTS", None)
    for name in HEAVY:
        importlib.import_module(name)
    if any(name.partition(".")[0] == "rotator" for name in sys.modules):
        raise AssertionError("rotator is imported already: its mutants would not be")


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, module: str, source: str) -> None:
        self.path = module
        self.name = module.removesuffix(".py").replace("/", ".")
        self.source = source

    def find_spec(self, fullname: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self, origin=self.path) if fullname == self.name else None

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = os.path.abspath(self.path)  # noqa: PTH100 # what a loader of files gives
        exec(compile(self.source, f"<mutant of {self.path}>", "exec"), module.__dict__)  # noqa: S102 # our own code


def run(module: str, source: str, tests: Sequence[str]) -> Verdict:
    """Run the tests with ``source`` in place of the module, and return what they said.

    A child that takes more CPU, memory or time than it may is ended by the kernel: the mutant loops, and is caught.
    """
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(dir=place(), ignore_cleanup_errors=True) as scratch:
        child = os.fork()
        if child == 0:
            _become(module, source, tests, scratch)
        _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return Verdict.LOOPED
    match os.waitstatus_to_exitcode(status):
        case 0:
            return Verdict.SURVIVED
        case 1 | 2 | 4:  # a test failed; or the module cannot be imported, by a test or by a conftest
            return Verdict.CAUGHT
        case _:
            return Verdict.BROKEN


def _become(module: str, source: str, tests: Sequence[str], scratch: str) -> None:
    code = 1
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        signal.alarm(WALL_SECONDS)
        if not os.environ.get("MUTATION_TELL"):
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
        sys.meta_path.insert(0, _Mutated(module, source))
        import pytest

        # Without the options of the project, which are for plugins that are not loaded here.
        options = ["-o", "addopts=", "-x", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider"]
        code = int(pytest.main([*options, f"--basetemp={scratch}/tests", *tests]))
    finally:
        os._exit(code)
