"""``rotator verify``: one token, held against everything that is known here."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from rotator.cli.options import ConfigOption, JsonOption, config_of


def verify(
    context: typer.Context,
    token: Annotated[
        str | None, typer.Argument(help="The token; better - for standard input: arguments are seen by everybody.")
    ] = None,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Read the token from this file, as a sink writes it.")
    ] = None,
    audience: Annotated[
        list[str] | None, typer.Option(metavar="AUDIENCE", help="It is for this audience; of several, for one.")
    ] = None,
    permission: Annotated[
        list[str] | None,
        typer.Option("--require", metavar="PERMISSION", help="It has this permission; of several, all."),
    ] = None,
    role: Annotated[list[str] | None, typer.Option(metavar="ROLE", help="It has this role; of several, all.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell whether a token is to be accepted, and why.

    Signature, algorithm, issuer, audience and times are checked as a strict verifier does it; then whether its key and
    the token itself are revoked, and whether its workspace is still there. The token goes into no log and no audit.

    Exits 0 when it is valid and 1 when it is to be refused.
    """
    from rotator.cli.output import print_json  # noqa: PLC0415 - heavy
    from rotator.cli.screen import Screen  # noqa: PLC0415 - heavy
    from rotator.cli.verdicts import read_token, show_verdict, verdict_on  # noqa: PLC0415 - heavy
    from rotator.report.shape import to_json  # noqa: PLC0415 - heavy

    secret = read_token(token, file, sys.stdin)
    found = verdict_on(
        config_of(context, config), secret, audiences=audience or (), permissions=permission or (), roles=role or ()
    )
    if as_json:
        print_json(to_json(found))
    else:
        show_verdict(Screen.of(), found)
    raise typer.Exit(0 if found.valid else 1)
