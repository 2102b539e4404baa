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
