"""Commands that ask the daemon for something: each is stored as a request and recorded in the audit."""

import sys
from typing import Annotated

import typer

from rotator.cli.options import ConfigOption, OfflineOption, ReasonOption, config_of

clock = typer.Typer(help="The clock, when it is not trusted.", no_args_is_help=True)
token = typer.Typer(help="One token.", no_args_is_help=True)


@token.command("show")
def token_show(
    context: typer.Context,
    workspace: Annotated[str, typer.Argument(help="The workspace.")],
    *,
    reason: ReasonOption = "",
    offline: OfflineOption = False,
    config: ConfigOption = None,
) -> None:
    """Print the current token of a workspace.

    It prints nothing else. The audit records who asked.
    """
    from rotator.cli.session import request  # noqa: PLC0415 - heavy
    from rotator.errors import RefusedError  # noqa: PLC0415 - beside it

    arguments = {"workspace": workspace}
    _, secret = request(config_of(context, config), "token.show", arguments, reason, offline=offline)
    if secret is None:
        raise RefusedError("the token was shown to someone else's question; ask again")
    sys.stdout.write(secret.reveal())
    if sys.stdout.isatty():
        sys.stdout.write("\n")


@clock.command("accept")
def clock_accept(
    context: typer.Context,
    *,
    reason: ReasonOption,
    offline: OfflineOption = False,
    config: ConfigOption = None,
) -> None:
    """Trust the clock as it stands, when you know that it is right."""
    _ask(context, "clock.accept", reason, offline=offline, config=config)


def config_accept(
    context: typer.Context,
    *,
    reason: ReasonOption,
    offline: OfflineOption = False,
    config: ConfigOption = None,
) -> None:
    """Put a config in force that was refused for what it drops."""
    _ask(context, "config.accept", reason, offline=offline, config=config)


def _ask(context: typer.Context, command: str, reason: str, *, offline: bool, config: ConfigOption) -> None:
    from rotator.cli.session import request  # noqa: PLC0415 - heavy

    text, _ = request(config_of(context, config), command, {}, reason, offline=offline)
    typer.echo(text)
