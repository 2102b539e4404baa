"""The documents: what they link to is there, their configs load, their commands exist."""

import itertools
import re
import shlex
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from rotator.cli import app
from rotator.config import load
from tests.readme import README, ROOT, Block, blocks, documents, marked, shell_commands

DOCUMENTS = [pytest.param(path, id=str(path.relative_to(ROOT))) for path in documents()]
SHELL = {"sh", "bash", "console"}
MENTIONS = {"cd", "editor", "install", "journalctl", "ln", "man", "rm", "systemctl"}
"""What takes `rotator` for a file, a unit or a user."""
NOW = datetime(2026, 3, 1, tzinfo=UTC)
# Of click, or of typer's own copy of it, which depends on typer's version.
ROOT_COMMAND: Any = typer.main.get_command(app)


def groups_and_commands() -> dict[str, Any]:
    """Return every command and group by its full name."""
    found: dict[str, Any] = {}

    def walk(command: Any, name: str) -> None:
        found[name] = command
        for child, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{name} {child}".strip())

    walk(ROOT_COMMAND, "")
    return found


COMMANDS = groups_and_commands()


def problem_with(arguments: list[str]) -> str:
    """Return why ``rotator ARGUMENTS`` is no command that exists, with options that exist; empty when it is."""
    name = ""
    command: Any = ROOT_COMMAND
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word.startswith("-") and word != "-":
            option = next((each for each in command.params if word.partition("=")[0] in each.opts), None)
            if word in ("--help", "-h"):
                continue
            if option is None:
                return f"`rotator {name}` has no option {word}"
            if "=" not in word and not getattr(option, "is_flag", False):
                if not rest:
                    return f"{word} needs a value"
                rest.pop(0)
            continue
        inner = f"{name} {word}".strip()
        if inner in COMMANDS:
            name, command = inner, COMMANDS[inner]
        elif hasattr(command, "commands"):
            return f"there is no `rotator {inner}`"
    runs = not hasattr(command, "commands") or {"--version", "--help"} & set(arguments)
    return "" if runs else f"`rotator {name}` is no command by itself"


def rotator_lines(text: str) -> list[list[str]]:
    """Return the arguments of each call of rotator in shell text."""
    found = []
    for words in shell_commands(text):
        for number, word in enumerate(words):
            if re.fullmatch(r"(\S*/bin/)?rotator", word) and not MENTIONS & set(words[:number]):
                found.append(words[number + 1 :])
                break
    return found


def inline_commands(path: Path) -> list[str]:
    """Return what stands in backquotes outside the fenced blocks and begins with ``rotator``."""
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [found[1] for found in re.finditer(r"`rotator ([a-z][^`]*)`", text)]


@pytest.mark.parametrize("path", DOCUMENTS)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file) if file else path
        assert linked.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, target


def is_config(block: Block) -> bool:
    return block.language == "yaml" and "issuer" in (yaml.safe_load(block.text) or ())


@pytest.mark.parametrize("number", range(sum(map(is_config, blocks(README)))))
def test_every_config_in_the_readme_loads_without_a_warning(tmp_path: Path, number: int) -> None:
    text = [block for block in blocks(README) if is_config(block)][number].text
    (tmp_path / "config.yaml").write_text(text)
    assert load(tmp_path / "config.yaml", {}, now=NOW).warnings == ()


@pytest.mark.parametrize("path", DOCUMENTS)
def test_every_part_of_a_config_in_the_documents_loads_beside_an_issuer(tmp_path: Path, path: Path) -> None:
    """What has no issuer of its own is a part of a config, or the config of something else."""
    known = {"state", "publish", "control", "keysets", "workspaces", "defaults", "kek", "log", "consumers"}
    for block in blocks(path):
        value = yaml.safe_load(block.text) if block.language == "yaml" else None
        if isinstance(value, dict) and "issuer" not in value and set(value) <= known:
            (tmp_path / "config.yaml").write_text(f"issuer: https://tokens.example.com\n{block.text}")
            load(tmp_path / "config.yaml", {}, now=NOW)


@pytest.mark.parametrize("path", DOCUMENTS)
def test_every_command_in_a_block_exists_with_its_options(path: Path) -> None:
    text = "\n".join(block.text for block in blocks(path) if block.language in SHELL)
    assert [found for found in map(problem_with, rotator_lines(text)) if found] == []


@pytest.mark.parametrize("path", DOCUMENTS)
def test_every_command_named_in_the_text_exists(path: Path) -> None:
    """Commands in backquotes, which may be cut short: `rotator audit`."""
    for line in inline_commands(path):
        names = " ".join(re.match(r"(?:[a-z]+(?:-[a-z]+)* ?)*", line)[0].split())  # type: ignore[index]  # it always matches
        while names and names not in COMMANDS and " " in names:
            parent, _, last = names.rpartition(" ")
            assert parent not in COMMANDS or not hasattr(COMMANDS[parent], "commands"), f"rotator {names} ({last})"
            names = parent
        assert names in COMMANDS, line


def test_the_readme_names_every_command() -> None:
    """But for those that only group others."""
    text = README.read_text()
    missing = [name for name, command in COMMANDS.items() if name and not hasattr(command, "commands")]
    assert [name for name in missing if f"rotator {name}" not in text and f"`{name}`" not in text] in ([], ["run"])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("status --json", ""),
        ("-c x.yaml status", ""),
        ("audit list --limit 3 --event 'token.*'", ""),
        ("--version", ""),
        ("forget key abc", "there is no `rotator forget`"),
        ("audit", "`rotator audit` is no command by itself"),
        ("audit purge", "there is no `rotator audit purge`"),
        ("status --force", "`rotator status` has no option --force"),
        ("plan --for", "--for needs a value"),
    ],
)
def test_a_command_that_does_not_exist_would_be_found(line: str, problem: str) -> None:
    assert problem_with(shlex.split(line)) == problem


@pytest.mark.parametrize("mark", ["run", "test"])
def test_the_readme_promises_one_command_to_run_and_one_to_test(mark: str) -> None:
    """Which .ci/run takes from there."""
    assert "\n" not in marked(mark)
    assert marked(mark).startswith("python3 -m venv .venv && .venv/bin/pip install --quiet ")


def installations(text: str) -> list[list[str]]:
    """Return what each ``pip install``, ``pipx install`` or ``uv`` in a text is told to install, options aside."""
    lines = re.findall(r"\b(?:pipx? install|uv (?:pip install|add|tool install)|uvx)\s+([^\n`]*)", text)
    return [[word for word in next(shell_commands(line)) if not word.startswith("-")] for line in lines]


def stranger_in(wanted: str) -> bool:
    """Tell whether it is neither a path to this project, with extras that it has, nor a file of its name."""
    path, _, extras = wanted.rstrip("]").partition("[")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    of_it = path == "." or re.fullmatch(rf"(\S*/)?{project['name']}-\S+\.whl", path) is not None
    return not of_it or not set(filter(None, extras.split(","))) <= set(project["optional-dependencies"])


def everything_that_is_read() -> list[Path]:
    """Return each file of the project that may tell a person what to type."""
    inside = [path for name in ("rotator", "systemd", "docs") for path in (ROOT / name).rglob("*") if path.is_file()]
    return [
        *documents(),
        ROOT / "config.example.yaml",
        *(path for path in inside if path.suffix not in (".pyc", ".svg")),
    ]


def test_whatever_is_told_to_be_installed_is_this_project() -> None:
    """It is on no index yet, and `rotator` on PyPI is a stranger's: from a path, or a wheel of its own name."""
    wanted = {path.name: installations(path.read_text()) for path in everything_that_is_read()}
    assert {name: lines for name, lines in wanted.items() if any(map(stranger_in, itertools.chain(*lines)))} == {}
    assert {name for name, lines in wanted.items() if lines} >= {"README.md", "systemd.md"}


@pytest.mark.parametrize("line", ["pip install rotator", "x/pip install -q 'rotator[postgres]'", "pip install '.[pg]'"])
def test_a_stranger_would_be_found(line: str) -> None:
    assert any(map(stranger_in, itertools.chain(*installations(line))))


def test_the_guide_to_the_tests_names_each_of_them() -> None:
    guide = (ROOT / "tests" / "README.md").read_text()
    directories = {f"`{path.parent.name}/`" for path in (ROOT / "tests").glob("*/__init__.py")}
    files = {f"`{path.name}`" for path in (ROOT / "tests").glob("test_*.py")}
    assert {each for each in directories | files if each not in guide} == set()


def test_every_benchmark_that_the_guide_names_is_there() -> None:
    named = re.findall(r"-m tests\.benchmarks\.(\w+)", (ROOT / "tests" / "README.md").read_text())
    assert named
    assert [name for name in named if not (ROOT / "tests" / "benchmarks" / f"{name}.py").exists()] == []


def test_each_line_of_the_threat_model_names_a_test_that_is_there() -> None:
    """And each test that its text names exists."""
    page = (ROOT / "docs" / "security.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.endswith("| shown by |")]
    assert len(rows) > 40
    for row in rows:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)
        assert tests, row
        for file, test in tests:
            assert re.search(rf"^def {test}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{test}"


def test_each_test_that_the_guide_names_is_there_and_each_failure_of_others_has_one() -> None:
    rows = re.findall(r"^\| (.+) \| (`tests/.+) \|$", (ROOT / "tests" / "README.md").read_text(), re.MULTILINE)
    assert len(rows) == 18 + 32
    for failure, named in rows:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", named)
        assert tests, failure
        for file, test in tests:
            assert re.search(rf"^def {test}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{test}"
