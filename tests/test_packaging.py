"""What is installed, and that the command line starts light."""

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import pytest

from rotator import __version__
from rotator.adapters.store.connect import POSTGRESQL_DRIVER

ROOT = Path(__file__).parent.parent
HEAVY = ("alembic", "apscheduler", "cryptography", "joserfc", "pydantic", "rich", "sqlalchemy", "structlog", "yaml")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout


@pytest.mark.parametrize("command", [["rotator"], [sys.executable, "-m", "rotator"]])
def test_both_ways_to_start_it_tell_the_version(command: list[str]) -> None:
    command = [str(Path(sys.executable).with_name("rotator"))] if command == ["rotator"] else command
    shown = subprocess.run([*command, "--version"], capture_output=True, check=True, text=True).stdout
    assert shown == f"rotator {project()['project']['version']}\n"


def test_the_version_is_the_same_everywhere() -> None:
    version = project()["project"]["version"]
    assert __version__ == version
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


def test_the_driver_that_a_message_tells_to_install_is_the_one_of_the_extra() -> None:
    assert project()["project"]["optional-dependencies"]["postgres"] == [POSTGRESQL_DRIVER]


def test_the_distribution_has_a_name_that_is_nobody_elses() -> None:
    """``rotator`` on PyPI is another program: neither its name nor an extra of it may be asked for anywhere."""
    assert project()["project"]["name"] == "rotatord"
    asked_for = [line for lines in project()["project"]["optional-dependencies"].values() for line in lines]
    assert [line for line in asked_for if re.match(r"rotator\b", line)] == []
    assert metadata.distribution("rotatord").version == __version__


def test_importing_the_command_line_imports_nothing_heavy() -> None:
    """So that --help and completion are there at once; by modules, for a time would depend on the machine."""
    loaded = python("import sys, rotator.cli; print(*sys.modules)").split()
    assert {name.partition(".")[0] for name in loaded} & set(HEAVY) == set()


@pytest.mark.parametrize("command", ["", "status", "audit list", "demo"])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        "import sys\nfrom rotator.cli import main\n"
        f"try: main({[*command.split(), '--help']!r})\nexcept SystemExit: pass\n"
        "print('loaded:', *sys.modules)"
    )
    shown, _, loaded = python(code).partition("loaded:")
    assert shown.startswith("Usage:")
    # typer itself needs pydantic for a command's options
    assert {name.partition(".")[0] for name in loaded.split()} & {*HEAVY} - {"pydantic"} == set()


def test_the_package_says_that_it_is_typed() -> None:
    assert resources.files("rotator").joinpath("py.typed").is_file()


def test_the_migrations_come_with_the_package() -> None:
    versions = resources.files("rotator.adapters.store").joinpath("migrations", "versions")
    assert [each.name for each in versions.iterdir() if each.name.startswith("0001_")]


def test_what_is_imported_is_declared() -> None:
    """Each third-party package that the code imports is a dependency of its own, not somebody else's."""
    declared = {re.split(r"[^\w-]", line)[0].lower() for line in project()["project"]["dependencies"]}
    declared |= {"pydantic_core"}  # one with pydantic, which pins its very version
    distributions = metadata.packages_distributions()
    imported = {
        distributions[found[1]][0].lower()
        for path in (ROOT / "rotator").rglob("*.py")
        for found in re.finditer(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE)
        if found[1] not in sys.stdlib_module_names and found[1] in distributions and found[1] != "rotator"
    }
    assert imported - declared == set()
    assert imported >= {"cryptography", "joserfc", "pyyaml", "sqlalchemy"}


def test_the_packages_of_node_are_pinned_and_no_registry_is_named() -> None:
    """Whoever installs them takes them from where their own npm is told to."""
    directory = ROOT / "tests" / "interop" / "node"
    wanted = json.loads((directory / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values()), wanted
    packages = json.loads((directory / "package-lock.json").read_text())["packages"]
    assert packages.pop("")["dependencies"] == wanted
    assert wanted.keys() <= {path.removeprefix("node_modules/") for path in packages}
    assert [path for path, package in packages.items() if "resolved" in package or "integrity" not in package] == []
