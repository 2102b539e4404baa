"""Commands that ask the daemon for something: each is stored as a request and recorded in the audit."""

import os
import sys
from typing import Annotated

import typer

from rotator.cli import completion
from rotator.cli.options import ConfigOption, JsonOption, OfflineOption, ReasonOption, WaitOption, config_of

clock = typer.Typer(help="The clock, when it is not trusted.", no_args_is_help=True)
token = typer.Typer(help="One token.", no_args_is_help=True)


@token.command("show")
def token_show(
    context: typer.Context,
    workspace: Annotated[str, typer.Argument(help="The workspace.", autocompletion=completion.workspaces)],
    *,
    to_clipboard: Annotated[
        bool, typer.Option("--copy", help="Put it on the clipboard of this terminal, and print nothing of it.")
    ] = False,
    reason: ReasonOption = "",
    offline: OfflineOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the current token of a workspace.

    It prints nothing else. The audit records who asked.
    """
    from rotator.cli.clipboard import copy, if_nothing_came, require_clipboard  # noqa: PLC0415 - only when needed
    from rotator.cli.output import print_json  # noqa: PLC0415 - heavy
    from rotator.cli.screen import Screen  # noqa: PLC0415 - heavy
    from rotator.cli.session import request  # noqa: PLC0415 - heavy
    from rotator.errors import ConfigError, RefusedError  # noqa: PLC0415 - beside it
    from rotator.report.records import ShownToken  # noqa: PLC0415 - heavy
    from rotator.report.shape import to_json  # noqa: PLC0415 - heavy

    if to_clipboard and as_json:
        raise ConfigError("--copy prints nothing of the token and --json prints it; choose one")
    if to_clipboard:
        require_clipboard(os.environ)  # before anyone is told that the token was shown
    arguments = {"workspace": workspace}
    said = request(config_of(context, config), "token.show", arguments, reason, offline=offline)
    jti, secret = said.text, said.secret
    if secret is None:
        raise RefusedError("the token was shown to someone else's question; ask again")
    if to_clipboard:
        copy(secret, os.environ)
        Screen.of().line(f"the token of workspace {workspace} is on the clipboard; {if_nothing_came(os.environ)}")
        return
    if as_json:
        print_json(to_json(ShownToken(workspace, jti, secret.reveal())))
        return
    sys.stdout.write(secret.reveal())
    if sys.stdout.isatty():
        sys.stdout.write("\n")


@clock.command("accept")
def clock_accept(
    context: typer.Context,
    *,
    reason: ReasonOption,
    wait: WaitOption = False,
    offline: OfflineOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Trust the clock as it stands, when you know that it is right."""
    _ask(context, "clock.accept", reason, wait=wait, offline=offline, config=config, as_json=as_json)


def config_accept(
    context: typer.Context,
    *,
    reason: ReasonOption,
    wait: WaitOption = False,
    offline: OfflineOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a config in force that was refused for what it drops."""
    _ask(context, "config.accept", reason, wait=wait, offline=offline, config=config, as_json=as_json)


def _ask(
    context: typer.Context,
    command: str,
    reason: str,
    *,
    wait: bool,
    offline: bool,
    config: ConfigOption,
    as_json: bool,
) -> None:
    from rotator.cli.output import print_json  # noqa: PLC0415 - heavy
    from rotator.cli.session import exit_code, request, wait_for  # noqa: PLC0415 - heavy
    from rotator.report.records import Done  # noqa: PLC0415 - heavy
    from rotator.report.shape import to_json  # noqa: PLC0415 - heavy

    said = request(config_of(context, config), command, {}, reason, offline=offline, wait=wait_for(wait=wait))
    if as_json:
        print_json(to_json(Done(command, said.text, said.request)))
    else:
        typer.echo(said.text)
    raise typer.Exit(exit_code(said, wait=wait))
