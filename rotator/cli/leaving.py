"""``rotator export``: public keys for others."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from rotator.cli.options import ConfigOption, JsonOption, config_of


class Form(StrEnum):
    """How public keys are written."""

    JWKS = "jwks"
    PEM = "pem"


def export(
    context: typer.Context,
    *,
    keyset: Annotated[str, typer.Option(help="The keyset.")] = "default",
    form: Annotated[Form, typer.Option("--format", help="A JWK Set, or one PEM block for each key.")] = Form.JWKS,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the public keys of a keyset, for whoever verifies its tokens without this daemon.

    They are those of the published set. Private keys never leave.
    """
    from rotator.cli.output import published_set  # noqa: PLC0415 - heavy

    if as_json and form is Form.PEM:
        raise typer.BadParameter("PEM is no JSON: leave --json out, or take --format jwks")
    text = published_set(config_of(context, config), keyset)
    if form is Form.PEM:
        from rotator.adapters.keyfile import to_pem  # noqa: PLC0415 - heavy

        text = to_pem(text)
    sys.stdout.write(text)
