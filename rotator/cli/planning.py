"""``rotator plan``: the time ahead, as it stands or as it would be."""

from pathlib import Path
from typing import Annotated

import typer

from rotator.cli.options import JsonOption, config_of


def plan(
    context: typer.Context,
    *,
    horizon: Annotated[str, typer.Option("--for", help="How far to look ahead: 12h, 30d, 8w.")] = "90d",
    svg: Annotated[
        Path | None, typer.Option("--svg", help="Draw the phases of every key into this file.", dir_okay=False)
    ] = None,
    what_if: Annotated[
        str, typer.Option("--what-if", help="After revoke:KID (or its beginning) or rotate:KEYSET, and what differs.")
    ] = "",
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="The config file. Where it is not what is in force: what loading it would change.",
            dir_okay=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the timeline ahead; change nothing.

    It has every publication, activation, demotion and retirement of a key, every rotation of a token, and how large the
    published files become, from the planner that does it.

    With --config NEW.yaml it shows what NEW.yaml would change. The installation is the one that --config before the
    command or $ROTATOR_CONFIG names, else the one that NEW.yaml names itself. This needs the right to read the state.
    """
    from rotator.cli import plan_pages  # noqa: PLC0415 - heavy
    from rotator.cli.forecasts import find_plan, save  # noqa: PLC0415 - heavy
    from rotator.cli.output import print_json, span  # noqa: PLC0415 - heavy
    from rotator.cli.screen import Screen  # noqa: PLC0415 - heavy

    seconds = int(span(horizon, "--for").total_seconds())
    before = context.find_root().params.get("config") if config is not None else config_of(context, None)
    found = find_plan(before, config, seconds, what_if)
    if svg is not None:
        save(svg, found.report)
    if as_json:
        print_json(found.json)
    else:
        plan_pages.show_plan(Screen.of(), found.report)
        if svg is not None:
            typer.echo(f"drawn: {svg}")
