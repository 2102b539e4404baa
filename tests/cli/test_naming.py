"""What commands make of names: one way to say which key is meant, and one answer where there is no such thing."""

import json
from itertools import product

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
