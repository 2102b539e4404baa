import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from rotator.config import json_schema, load
from rotator.core.policy import CommandSink
from tests.config.test_load import FULL
from tests.config.writing import NOW

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_example_is_valid_as_it_stands(tmp_path: Path, validator: Draft202012Validator) -> None:
    """It loads without a warning, shows three security periods, a window, and each kind of sink."""
    validator.validate(yaml.safe_load(EXAMPLE.read_text()))
    copy = tmp_path / "config.yaml"
    copy.write_text(EXAMPLE.read_text())
    copy.chmod(0o644)
    config = load(copy, {}, now=NOW)
    assert config.warnings == ()
    workspaces = config.policy.workspaces.values()
    assert len({each.security_period for each in workspaces}) == len(workspaces) == 3
    assert any(each.rotation_window for each in workspaces)
    commands = [sink.run[0] for each in workspaces for sink in each.sinks if isinstance(sink, CommandSink)]
    assert all(Path(program).exists() for program in commands)
    assert commands


def test_every_setting_is_explained_in_the_example() -> None:
    text = EXAMPLE.read_text()
    schema = json_schema()
    names = {name for part in (schema, *schema["$defs"].values()) for name in part.get("properties", {})}
    assert {name for name in names if f"{name}:" not in text} == set()


def test_a_full_config_is_valid(validator: Draft202012Validator) -> None:
    validator.validate(yaml.safe_load(FULL.replace("initech:\n", "initech: {}\n")))


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"issuer": "https://a.example", "x": 1},
        {"issuer": "a.example"},
        {"issuer": "https://a.example", "clock_skew": 30},
        {"issuer": "https://a.example", "clock_skew": "1 day"},
        {"issuer": "https://a.example", "keysets": {"default": {"algorithm": "HS256"}}},
        {"issuer": "https://a.example", "defaults": {"audience": []}},
        {"issuer": "https://a.example", "workspaces": {"a": {"deliver": [{"file": {}}]}}},
    ],
)
def test_an_editor_can_tell_what_is_wrong(validator: Draft202012Validator, wrong: dict[str, Any]) -> None:
    assert not validator.is_valid(wrong)


def _target(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["$defs"][part["$ref"].rpartition("/")[2]]
    return found


def test_every_setting_has_a_description() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for shape in (schema, *schema["$defs"].values()):
        for name, part in shape.get("properties", {}).items():
            assert part.get("description") or _target(schema, part)["description"], name


def test_importing_the_package_imports_no_parser() -> None:
    program = "import sys, rotator.config; print({'pydantic', 'yaml', 'apscheduler'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
