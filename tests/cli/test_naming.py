"""What commands make of names: one way to say which key is meant, and one answer where there is no such thing."""

import json
from itertools import product, takewhile
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import typer

from rotator.cli.options import config_of
from rotator.cli.screen import short
from tests.cli.conftest import Shell

OF_A_KEY = (
    ("keys", "show", "{}"),
    ("revoke", "key", "{}", "--rehearse"),
    ("plan", "--what-if", "revoke:{}"),
)


def test_a_key_is_named_the_same_way_everywhere(started: Shell) -> None:
    """By its kid, by four characters of it, or as the tables shorten it."""
    kid = next(key["kid"] for key in json.loads(started("keys", "list", "--json")[1])["keys"])
    names = (kid, kid[:4], kid[:5], short(kid), kid[:12] + "..", kid[:12] + "\N{HORIZONTAL ELLIPSIS}")
    for command, name in product(OF_A_KEY, names):
        code, out, err = started(*(part.format(name) for part in command))
        assert (code, err) == (0, ""), (command, name)
        assert kid[:12] in out
    for command in OF_A_KEY:
        code, out, err = started(*(part.format(kid[:3]) for part in command))
        assert (code, out) == (1, "")
        assert f"{kid[:3]!r} names no key: give at least 4 characters of the kid" in err


def test_the_audit_of_a_key_takes_what_a_table_shows(started: Shell) -> None:
    kid = next(key["kid"] for key in json.loads(started("keys", "list", "--json")[1])["keys"])
    events = json.loads(started("audit", "list", "--key", kid, "--json")[1])["events"]
    assert events
    assert json.loads(started("audit", "list", "--key", kid[:12] + "..", "--json")[1])["events"] == events


def common_beginning(first: str, second: str) -> str:
    return "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=True)))


def test_a_token_is_named_by_what_the_list_shows(started: Shell) -> None:
    """By its jti, by six characters that only it begins with, or as the table shortens it."""
    tokens = json.loads(started("tokens", "list", "--json")[1])["tokens"]
    page = started("tokens", "list")[1].splitlines()
    column = page[0].split().index("JTI")
    shown = [line.split()[column] for line in page[1:]]
    assert len(set(shown)) == len(tokens)
    for token, name in zip(tokens, shown, strict=True):
        for each in (token["jti"], name, name.rstrip("\N{HORIZONTAL ELLIPSIS}.")):
            code, out, err = started("revoke", "token", each, "--rehearse", "--json")
            assert (code, err) == (0, ""), each
            assert json.loads(out)["name"] == token["jti"]


def test_a_beginning_that_several_tokens_share_is_refused_with_all_of_them(started: Shell) -> None:
    """Tokens of one batch begin alike, with when they were made."""
    jtis = [token["jti"] for token in json.loads(started("tokens", "list", "--json")[1])["tokens"]]
    common = common_beginning(*jtis)
    code, out, err = started("revoke", "token", common, "--rehearse")
    assert (code, out) == (1, "")
    assert f"several tokens begin with {common!r}: {', '.join(sorted(jtis))}; write more of the one you mean" in err
    assert "at least 6 characters of the jti" in started("revoke", "token", jtis[0][:5], "--rehearse")[2]
    assert started("revoke", "token", jtis[0].upper() + "X", "--rehearse")[0] == 1


def test_a_token_is_revoked_by_the_beginning_of_its_jti(started: Shell) -> None:
    first, second = (token["jti"] for token in json.loads(started("tokens", "list", "--json")[1])["tokens"])
    beginning = first[: len(common_beginning(first, second)) + 1]
    assert started("revoke", "token", beginning, "--reason", "leaked", "--yes", "--offline")[0] == 0
    listed = json.loads(started("tokens", "list", "--all", "--json")[1])["tokens"]
    assert [token["jti"] for token in listed if token["phase"] == "revoked"] == [first]


UNKNOWN = (
    (("keys", "show", "zzzz"), "there is no key 'zzzz'"),
    (("revoke", "key", "zzzz", "--rehearse"), "there is no key 'zzzz'"),
    (("plan", "--what-if", "revoke:zzzz"), "there is no key 'zzzz'"),
    (("plan", "--what-if", "rotate:zz"), "--what-if: there is no keyset 'zz'"),
    (("rotate", "zz", "--rehearse"), "there is no keyset 'zz'"),
    (("revoke", "keyset", "zz", "--rehearse"), "there is no keyset 'zz'"),
    (("revoke", "workspace", "zz", "--rehearse"), "there is no workspace 'zz'"),
    (("revoke", "token", "zz", "--rehearse"), "there is no token 'zz'"),
    (("replace", "zz", "--offline"), "there is no workspace 'zz'"),
    (("token", "show", "zz", "--offline"), "there is no workspace 'zz'"),
    (("tokens", "list", "--workspace", "zz"), "there is no workspace 'zz'"),
    (("jwks", "--keyset", "zz"), "no set of keyset zz is published"),
    (("export", "--keyset", "zz"), "no set of keyset zz is published"),
)


def test_a_name_that_is_not_there_is_a_failure_of_one_code(started: Shell) -> None:
    """It is no wrong command line: whether the name is there hangs on the state."""
    for arguments, problem in UNKNOWN:
        code, out, err = started(*arguments)
        assert (code, out) == (1, ""), arguments
        assert f"rotator: {problem}" in err


def test_a_config_before_the_command_is_a_path_whatever_typer_makes_of_it() -> None:
    """Up to typer 0.26 it stays text among the parameters."""
    root = SimpleNamespace(params={"config": "here.yaml"})
    context = cast("typer.Context", SimpleNamespace(find_root=lambda: root))
    assert config_of(context, None) == Path("here.yaml")
    assert config_of(context, Path("there.yaml")) == Path("there.yaml")
