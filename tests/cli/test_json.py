"""Commands that change something, or show a secret, print JSON as well, and it fits its schema."""

import json

import jsonschema
import pytest

from rotator.schemas import load
from tests.cli.conftest import Shell


@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        ("run-once", ("run", "--once", "--json")),
        ("token-show", ("token", "show", "w0", "--offline", "--json")),
        ("clock-accept", ("clock", "accept", "--reason", "known to be right", "--offline", "--json")),
    ],
)
def test_what_is_printed_fits_its_schema(started: Shell, shape: str, arguments: tuple[str, ...]) -> None:
    code, out, _ = started(*arguments)

    assert code == 0
    jsonschema.validate(json.loads(out), load(shape), format_checker=jsonschema.FormatChecker())


def test_the_published_set_is_json_with_or_without_the_option(started: Shell) -> None:
    plain = started("jwks")
    assert plain == started("jwks", "--json")
    assert {key["use"] for key in json.loads(plain[1])["keys"]} == {"sig"}


def test_a_shown_token_is_the_one_that_is_delivered(started: Shell) -> None:
    _, out, _ = started("token", "show", "w1", "--offline", "--json")

    shown = json.loads(out)
    delivered = (started.config.parent / "delivered" / "w1" / "token").read_text().strip()
    assert (shown["workspace"], shown["token"]) == ("w1", delivered)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("verify", "--file", "/none/there", "--json"), 1, "/none/there cannot be read"),
        (("token", "show", "nobody", "--offline", "--json"), 1, "nobody"),
        (("plan", "--for", "soon", "--json"), 2, "--for: 'soon' is not a span of time"),
        (("status", "--json", "--nonsense"), 2, "No such option: --nonsense"),
        (("export", "--json", "--format", "pem"), 2, "PEM is no JSON"),
        (("revoke", "key", "x", "--json"), 2, "say why with --reason"),
    ],
)
def test_a_failure_is_one_object_on_the_last_line_of_stderr(
    started: Shell, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """Of any command, and of a command line that cannot be understood; stdout is for answers alone."""
    found, out, err = started(*arguments)

    assert (found, out) == (code, "")
    failure = json.loads(err.splitlines()[-1])
    jsonschema.validate(failure, load("error"))
    assert failure["exit_code"] == code
    assert said in failure["error"]
    assert said in " ".join(started(*(each for each in arguments if each != "--json"))[2].split()) or "pem" in arguments


def test_an_export_is_json_with_or_without_the_option(started: Shell) -> None:
    assert started("export") == started("export", "--json")


@pytest.mark.parametrize("command", ["adopt --keep-for 30d", "replace --yes --reason anew"])
def test_what_becomes_of_a_published_set_fits_its_schema(shell: Shell, command: str) -> None:
    """Without a set that nobody knows, and with one."""
    jwk = {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "kid": "old",
        "use": "sig",
    }
    published = shell.config.parent / "rotator-data" / "public" / "keysets" / "default"
    published.mkdir(parents=True)
    published.parents[2].chmod(0o700)
    (published / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
    shape = load(f"published-{command.partition(' ')[0]}")
    found = []
    for _ in range(2):
        code, out, err = shell("published", *command.split(), "--json")
        assert (code, err) == (0, "")
        found.append(json.loads(out))
        jsonschema.validate(found[-1], shape, format_checker=jsonschema.FormatChecker())
    assert [each.pop("inherited") for each in found] == [None, None]
    ((first,), (second,)) = (each.values() for each in found)
    assert [each["keyset"] for each in first] == ["default"]
    assert second == []


def test_the_end_of_a_replaced_token_has_one_name(started: Shell) -> None:
    """In the answer of `replace` as in the list of tokens."""
    (prior,) = json.loads(started("replace", "w0", "--overlap", "10m", "--offline", "--json")[1])["prior"]
    listed = json.loads(started("tokens", "list", "--workspace", "w0", "--json")[1])["tokens"][0]

    assert prior["revoke_at"] == listed["revoke_at"] == prior["counts_until"]
