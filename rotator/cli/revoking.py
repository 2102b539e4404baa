"""Commands that revoke: what was compromised is refused from now on, and replaced."""

from typing import Annotated

import typer

from rotator.cli import completion
from rotator.cli.options import (
    ConfigOption,
    JsonOption,
    OfflineOption,
    ReasonOption,
    RehearseOption,
    YesOption,
    config_of,
)

revoke = typer.Typer(help="Refuse what was compromised from now on, and replace it.", no_args_is_help=True)

NoWaitOption = Annotated[
    bool,
    typer.Option("--no-wait", help="Leave with its number as soon as it is accepted; the daemon goes on."),
]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="If no spare is known to all: sign only once a key is; no tokens until then.")
]
NowOption = Annotated[
    bool, typer.Option("--now", help="If no spare is known to all: sign at once; new tokens may be refused at first.")
]


@revoke.command("key")
def revoke_key(
    context: typer.Context,
    kid: Annotated[
        str,
        typer.Argument(
            help="The key's kid, or the beginning of it; after -- where an imported one begins with -.",
            autocompletion=completion.kids,
        ),
    ],
    *,
    reason: ReasonOption = "",
    rehearse: RehearseOption = False,
    yes: YesOption = False,
    wait: WaitOption = False,
    now: NowOption = False,
    no_wait: NoWaitOption = False,
    offline: OfflineOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a signing key.

    It leaves the published set at once, the standby signs at once, and every workspace whose token hangs on the key
    gets a new one, delivered. Try it with --rehearse: that prints the same report and changes nothing.

    Exits 3 when something is still open at the end; with --no-wait it exits 0 as soon as the daemon has accepted it.
    """
    from rotator.cli.compromise import Wanted, carry_out  # noqa: PLC0415 - heavy

    wanted = Wanted(
        "key",
        kid,
        reason,
        choice_of(wait=wait, now=now),
        rehearse=rehearse,
        yes=yes,
        follow=not no_wait,
        as_json=as_json,
    )
    raise typer.Exit(carry_out(config_of(context, config), wanted, offline=offline))


@revoke.command("keyset")
def revoke_keyset(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The keyset.", autocompletion=completion.keysets)],
    *,
    reason: ReasonOption = "",
    rehearse: RehearseOption = False,
    yes: YesOption = False,
    wait: WaitOption = False,
    now: NowOption = False,
    no_wait: NoWaitOption = False,
    offline: OfflineOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke every key of a keyset, the spares included: the host or the key-encryption key leaked.

    Fresh keys are made. No verifier can know them yet, so you choose: --wait, and no token is issued until the
    propagation_period is over, or --now, and verifiers that cache may refuse the new tokens at first.

    Exits 3 when something is still open at the end; with --no-wait it exits 0 as soon as the daemon has accepted it.
    """
    from rotator.cli.compromise import Wanted, carry_out  # noqa: PLC0415 - heavy

    choice = choice_of(wait=wait, now=now)
    wanted = Wanted("keyset", name, reason, choice, rehearse=rehearse, yes=yes, follow=not no_wait, as_json=as_json)
    raise typer.Exit(carry_out(config_of(context, config), wanted, offline=offline))


@revoke.command("token")
def revoke_token(
    context: typer.Context,
    jti: Annotated[str, typer.Argument(help="The token's jti, or its beginning, as `rotator tokens list` shows it.")],
    *,
    reason: ReasonOption = "",
    rehearse: RehearseOption = False,
    yes: YesOption = False,
    no_wait: NoWaitOption = False,
    offline: OfflineOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke one token; if it is its workspace's current one, that gets a new one, delivered.

    Verifiers accept it until its exp all the same, unless they ask for revocations: only a key that leaves the set ends
    a signed token before.

    Exits 3 when something is still open at the end; with --no-wait it exits 0 as soon as the daemon has accepted it.
    """
    from rotator.cli.compromise import Wanted, carry_out  # noqa: PLC0415 - heavy

    wanted = Wanted("token", jti, reason, rehearse=rehearse, yes=yes, follow=not no_wait, as_json=as_json)
    raise typer.Exit(carry_out(config_of(context, config), wanted, offline=offline))


@revoke.command("workspace")
def revoke_workspace(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The workspace.", autocompletion=completion.workspaces)],
    *,
    reason: ReasonOption = "",
    rehearse: RehearseOption = False,
    yes: YesOption = False,
    no_wait: NoWaitOption = False,
    offline: OfflineOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke every token of a workspace; it gets a new one, delivered. To stop a workspace, take it out of the config.

    Verifiers accept them until their exp all the same, unless they ask for revocations: only a key that leaves the set
    ends a signed token before.

    Exits 3 when something is still open at the end; with --no-wait it exits 0 as soon as the daemon has accepted it.
    """
    from rotator.cli.compromise import Wanted, carry_out  # noqa: PLC0415 - heavy

    wanted = Wanted("workspace", name, reason, rehearse=rehearse, yes=yes, follow=not no_wait, as_json=as_json)
    raise typer.Exit(carry_out(config_of(context, config), wanted, offline=offline))


def choice_of(*, wait: bool, now: bool) -> str:
    """Return what the operator chose for the case that no ready spare is left."""
    if wait and now:
        raise typer.BadParameter("--wait and --now are two ways; choose one")
    return "wait" if wait else "now" if now else ""
