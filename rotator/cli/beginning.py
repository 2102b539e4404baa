"""``rotator init``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from rotator.cli.options import JsonOption


def init(
    directory: Annotated[
        Path | None, typer.Argument(help="Where to write. [default: this one; with --systemd /etc/rotator]")
    ] = None,
    *,
    issuer: Annotated[str, typer.Option(metavar="URL", help="The claim iss: https://tokens.example.com.")] = "",
    verifier: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Who verifies them, such as envoy; may be given again.")
    ] = None,
    max_cache: Annotated[
        str, typer.Option(metavar="SPAN", help="Or: the longest that any keeps a copy of the key set. [default: 24h]")
    ] = "",
    workspace: Annotated[str, typer.Option(metavar="NAME", help="The first workspace.")] = "",
    audience: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Who its tokens are for; may be given again.")
    ] = None,
    systemd: Annotated[bool, typer.Option("--systemd", help="With the places of the unit.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a first config and its key-encryption key.

    On a terminal it asks for what is not given. It never replaces a file.
    """
    from rotator.beginning import begin  # noqa: PLC0415 - heavy
    from rotator.cli.output import print_json  # noqa: PLC0415 - heavy
    from rotator.cli.screen import Screen  # noqa: PLC0415 - heavy
    from rotator.cli.starting import Given, gather, show_beginning  # noqa: PLC0415 - heavy
    from rotator.report.shape import to_json  # noqa: PLC0415 - heavy

    given = Given(
        issuer=issuer,
        verifiers=tuple(verifier or ()),
        max_cache=max_cache,
        workspace=workspace,
        audience=tuple(audience or ()),
        systemd=systemd,
    )
    answers = gather(given, interactive=sys.stdin.isatty() and sys.stdout.isatty() and not as_json)
    done = begin(directory or Path("/etc/rotator" if systemd else "."), answers)
    if as_json:
        print_json(to_json(done))
    else:
        show_beginning(Screen.of(), done)
