import json
import os

import pytest

from rotator.core.policy import FileSink
from tests.config.writing import ISSUER, Desk

MAIN = ISSUER + "defaults: {audience: api, security_period: 9d}\ninclude: [workspaces.d/*.yaml, '**/*.json']\n"


def test_included_workspaces_join_those_of_the_config(desk: Desk) -> None:
    """They inherit the same defaults, and relative paths are beside the config itself."""
    desk.write("workspaces:\n  b: {deliver: [{file: {path: out/b}}]}\n", "workspaces.d/b.yaml")
    desk.write('{"workspaces": {"c": {"roles": ["\\u00e4"]}}}', "workspaces.d/deep/c.json")
    desk.write("", "workspaces.d/empty.yaml")
    config = desk.load(MAIN + "workspaces: {a: }\n")
    a, b, c = config.policy.workspaces.values()
    assert [each.id for each in (a, b, c)] == ["a", "b", "c"]
    assert {each.security_period.days for each in (a, b, c)} == {9}
    assert b.sinks == (FileSink(f"{desk.directory}/out/b"),)
    assert c.roles == ("ä",)
    assert config.empty_includes == ()


def test_a_file_that_two_patterns_match_is_read_once(desk: Desk) -> None:
    desk.write("workspaces: {a: {audience: x}}\n", "a.yml")
    config = desk.load(ISSUER + f"include: [a.yml, '*.yml', '{desk.directory}/a.yml']\n")
    assert list(config.policy.workspaces) == ["a"]


def test_a_pattern_that_matches_nothing_is_a_warning(desk: Desk) -> None:
    config = desk.load(ISSUER + "include:\n  - a/*.yaml\n  - b.yaml\n")
    assert config.empty_includes == ("a/*.yaml", "b.yaml")
    assert config.warnings == (
        f"{desk.path}:3: include[0]: 'a/*.yaml' matches no file in {desk.directory}",
        f"{desk.path}:4: include[1]: 'b.yaml' matches no file in {desk.directory}",
    )


def test_a_directory_with_brackets_in_its_name_is_no_pattern(desk: Desk) -> None:
    inner = Desk(desk.directory / "[a]*")
    inner.write("workspaces: {a: {audience: x}}\n", "w.yaml")
    assert list(inner.load(ISSUER + "include: [w.yaml]\n").policy.workspaces) == ["a"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("issuer: https://a.example\n", "w.yaml:1: issuer: an included file holds `workspaces:` only; move this to"),
        ("workspaces: {}\nkek: {}\n", "w.yaml:2: kek: an included file holds `workspaces:` only"),
        ("include: [x]\n", "w.yaml:1: include: an included file holds `workspaces:` only"),
        ("workspace: {}\n", "w.yaml:1: workspace: unknown setting; did you mean workspaces?"),
        ("workspaces: {b: {rols: []}}\n", "w.yaml:1: workspaces.b.rols: unknown setting; did you mean roles?"),
        (
            "workspaces:\n  b:\n    deliver:\n      - command: {run: [/bin/true]}\n",
            "w.yaml:4: workspaces.b.deliver[0].command: an included file may name no command",
        ),
        ("workspaces:\n  b: {}\n  a: {}\n", "w.yaml:3: workspaces.a: is defined already at config.yaml:4; keep one"),
        ("workspaces:\n  b: {grace_period: 1s}\n", "w.yaml:2: workspaces.b.grace_period: grace_period 1s ≤ clock_skew"),
        ("[\n", "w.yaml:2: is not YAML"),
        ("- a\n", "w.yaml:1: expected a mapping of settings at the top, found a list"),
    ],
)
def test_an_included_file_holds_workspaces_and_no_commands(desk: Desk, content: str, said: str) -> None:
    desk.write(content, "w.yaml")
    main = ISSUER + "defaults: {audience: a}\nworkspaces:\n  a: {}\ninclude: [w.yaml]\n"
    assert desk.error(main).startswith(said)


JSON = [
    ("{", "w.json:1: is not JSON: Expecting property name"),
    ('{\n"workspaces": {\n"a": {"roles": [}}}', "w.json:3: is not JSON: Expecting value (column 17)"),
    ("", "w.json:1: is not JSON"),
    ("[]", "w.json:1: expected a mapping of settings at the top, found a list"),
    ('{"workspaces":\n{"a": {},\n"a": {}}}', "w.json:3: workspaces.a: is there twice; keep one of them"),
    ('{"workspaces": {"a": {"roles": ["x:,{}", "y"], "rols":\n 1}}}', "w.json:1: workspaces.a.rols: unknown setting"),
    (
        '{"workspaces": {"a": {},\n\n"b": {"roles": [\n"x",\n5]}}}',
        "w.json:5: workspaces.b.roles[1]: expected text, found",
    ),
    ('{"workspaces": {"\\u0041": {}}}', "w.json:1: workspaces.A: 'A' is no name here"),
    ('{"workspaces": {"\\ud800": {}}}', "'\\ud800' is no name here"),
    ("[" * 100_000, "w.json:1: is nested too deep"),
    ('{"a": ' + "9" * 5000 + "}", "w.json:1: holds a number with thousands of digits"),
    ('{"workspaces": {"a": {"roles": [NaN]}}}', "w.json:1: workspaces.a.roles[0]: expected text, found the number nan"),
    (
        '{"workspaces": {"a": {"grace_period": 1e999}}}',
        "expected a span of time such as 90s, 10m, 12h, 30d or 8w, found",
    ),
    ('{"workspaces": {"a": {"audience": null, "keyset": "x"}}}', "w.json:1: workspaces.a.keyset: there is no keyset"),
]


@pytest.mark.parametrize(("content", "said"), JSON)
def test_json_has_errors_with_lines_too(desk: Desk, content: str, said: str) -> None:
    desk.write(content, "w.json")
    error = desk.error(ISSUER + "defaults: {audience: a}\ninclude: [w.json]\n")
    assert said in error
    error.encode()


def test_many_workspaces_come_from_json(desk: Desk) -> None:
    desk.write(json.dumps({"workspaces": {f"w{number}": {"audience": "a"} for number in range(5000)}}), "w.json")
    assert len(desk.load(ISSUER + "include: [w.json]\n").policy.workspaces) == 5000


def test_the_config_may_not_include_itself(desk: Desk) -> None:
    assert desk.error(ISSUER + "include: ['*.yaml']\n").startswith("config.yaml:2: include: matches the config itself")


def test_an_included_file_that_others_may_write_is_refused(desk: Desk) -> None:
    desk.write("workspaces: {}\n", "w.yaml").chmod(0o646)
    assert desk.error(ISSUER + "include: [w.yaml]\n") == (
        "w.yaml: can be written by everybody on the machine; chmod o-w it"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_an_included_file_of_someone_else_is_refused(desk: Desk) -> None:
    os.chown(desk.write("workspaces: {}\n", "w.yaml"), 12345, -1)
    assert desk.error(ISSUER + "include: [w.yaml]\n").startswith("w.yaml: belongs to uid 12345, who is neither root")


def test_a_directory_that_a_pattern_matches_is_an_error(desk: Desk) -> None:
    (desk.directory / "x.d").mkdir()
    assert desk.error(ISSUER + "include: [x.d]\n") == "x.d: is a directory; name the file in it"
