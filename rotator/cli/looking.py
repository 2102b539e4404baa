"""Commands that look: status, the lists, the published set. They change nothing."""

import sys
from typing import Annotated

import typer

from rotator.cli import completion
from rotator.cli.options import ConfigOption, JsonOption, config_of

keys = typer.Typer(help="Signing keys.", no_args_is_help=True)
tokens = typer.Typer(help="The tokens of workspaces.", no_args_is_help=True)


def status(context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show how things stand, and what to do.

    Exits 0 when all is well and 3 when anything is overdue, late or at fault.
    """
    from rotator.cli import pages  # noqa: PLC0415 - heavy
    from rotator.cli.output import answer, print_json  # noqa: PLC0415 - heavy
    from rotator.cli.screen import Screen  # noqa: PLC0415 - heavy
    from rotator.report.records import Health, Report  # noqa: PLC0415 - heavy

    found = answer(config_of(context, config), "status", Report)
    if as_json:
        print_json(found.json)
    else:
        pages.show_status(Screen.of(), found.report)
    raise typer.Exit(0 if found.report.state is Health.OK else 3)


@keys.command("list")
def keys_list(context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List every key ever made, with its phase and what comes next for it."""
    from rotator.cli import pages  # noqa: PLC0415 - heavy
    from rotator.cli.output import answer, now, print_json  # noqa: PLC0415 - heavy
    from rotator.cli.screen import Screen  # noqa: PLC0415 - heavy
    from rotator.report.lists import KeyList  # noqa: PLC0415 - heavy

    found = answer(config_of(context, config), "keys.list", KeyList)
    if as_json:
        print_json(found.json)
    else:
        pages.show_keys(Screen.of(), found.report, now())


@keys.command("show")
def keys_show(
    context: typer.Context,
    kid: Annotated[
        str,
        typer.Argument(
            help="The key: its kid, or the beginning of it; after -- where an imported one begins with -.",
            autocompletion=completion.kids,
        ),
    ],
    *,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one key: its phase and dates, whose tokens hang on it, and when it is safe to remove."""
    from rotator.cli.handover_pages import show_key  # noqa: PLC0415 - heavy
    from rotator.cli.output import answer, print_json  # noqa: PLC0415 - heavy
    from rotator.cli.screen import Screen  # noqa: PLC0415 - heavy
    from rotator.report.hanging import KeyDetail  # noqa: PLC0415 - heavy

    found = answer(config_of(context, config), "keys.show", KeyDetail, {"kid": kid})
    if as_json:
        print_json(found.json)
    else:
        show_key(Screen.of(), found.report)


@tokens.command("list")
def tokens_list(
    context: typer.Context,
    *,
    workspace: Annotated[
        str | None, typer.Option(help="Of this workspace alone.", autocompletion=completion.workspaces)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Retired and revoked ones, too.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the tokens that are current or in grace.

    The last token of a workspace is there in any case: one that has no valid token does not vanish.
    """
    from rotator.cli import pages  # noqa: PLC0415 - heavy
    from rotator.cli.output import answer, now, print_json  # noqa: PLC0415 - heavy
    from rotator.cli.paging import all_tokens  # noqa: PLC0415 - heavy
    from rotator.cli.screen import Screen  # noqa: PLC0415 - heavy
    from rotator.report.lists import TokenList  # noqa: PLC0415 - heavy
    from rotator.report.shape import to_json  # noqa: PLC0415 - heavy

    option = config_of(context, config)
    if workspace is None:
        found = all_tokens(option, ended=every)
    else:
        found = answer(option, "tokens.list", TokenList, {"workspace": workspace, "all": every}).report
    if as_json:
        print_json(to_json(found))
    else:
        pages.show_tokens(Screen.of(), found, now())


def jwks(
    context: typer.Context,
    *,
    keyset: Annotated[str, typer.Option(help="The keyset.", autocompletion=completion.keysets)] = "default",
    config: ConfigOption = None,
    as_json: JsonOption = False,  # noqa: ARG001 - as it is JSON anyway
) -> None:
    """Print the published set of a keyset."""
    from rotator.cli.output import published_set  # noqa: PLC0415 - heavy

    sys.stdout.write(published_set(config_of(context, config), keyset))
