"""Commands about the config and this machine."""

from typing import Annotated

import typer

from rotator.cli.asking import config_accept
from rotator.cli.options import ConfigOption, JsonOption, config_of

config_commands = typer.Typer(help="The config.", no_args_is_help=True)
config_commands.command("accept")(config_accept)


def check(
    context: typer.Context,
    *,
    config_only: Annotated[
        bool, typer.Option("--config-only", help="Look at the config alone, on whatever machine.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the config and this machine; change nothing.

    Shows the arithmetic behind the periods with your own numbers. With --config-only no state, key, socket or sink is
    looked at, for a pipeline that has no machine to look at.

    Exits 0 when all is well, 2 when the config is wrong, and 1 when the machine is not ready.
    """
    from rotator.cli.checking import check_all, check_config, show_check  # noqa: PLC0415 - heavy
    from rotator.cli.output import print_json  # noqa: PLC0415 - heavy
    from rotator.cli.screen import Screen  # noqa: PLC0415 - heavy
    from rotator.report.shape import to_json  # noqa: PLC0415 - heavy

    look = check_config if config_only else check_all
    found = look(config_of(context, config))
    if as_json:
        print_json(to_json(found))
    else:
        show_check(Screen.of(), found)
    raise typer.Exit(0 if found.ready else 1)


@config_commands.command("schema")
def config_schema(*, as_json: JsonOption = False) -> None:  # noqa: ARG001 - as it is JSON anyway
    """Print the JSON Schema of the config, for editors."""
    from rotator.cli.output import print_json  # noqa: PLC0415 - heavy
    from rotator.config import json_schema  # noqa: PLC0415 - heavy

    print_json(json_schema())
