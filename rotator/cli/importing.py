"""``rotator import-key``: keys of the system that one comes from."""

import sys
from typing import Annotated

import typer

from rotator.cli.options import ConfigOption, JsonOption, OfflineOption, ReasonOption, WaitOption, config_of


def import_key(
    context: typer.Context,
    *,
    jwk: Annotated[str, typer.Option(metavar="FILE|-", help="A JWK, or a JWK Set of public keys; - reads stdin.")] = "",
    pem: Annotated[str, typer.Option(metavar="FILE|-", help="A private or a public key in PEM.")] = "",
    keyset: Annotated[str, typer.Option(help="The keyset that it joins.")] = "default",
    kid: Annotated[str | None, typer.Option(help="Its kid, where the file has none. [default: its thumbprint]")] = None,
    until: Annotated[
        str, typer.Option(metavar="DATETIME", help="When the last token of the other system on it ends.")
    ] = "",
    keep_for: Annotated[
        str,
        typer.Option(
            "--keep-for",
            help="The same, as a time from now: 24h, 30d. [default for a signing key: the keyset's grace_period]",
        ),
    ] = "",
    reason: ReasonOption = "",
    wait: WaitOption = False,
    offline: OfflineOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import a signing key, or the public keys, of another system.

    A private key keeps its kid, is published at once, and signs in its turn, after the propagation_period like every
    other. Public keys stay published until --until, and never sign.

    Tokens that the other system signed are on either kind: no key leaves before --until. A public key needs it; for a
    signing key the keyset's grace_period is taken, so say it where the other system's tokens live longer.
    """
    from rotator.cli.output import print_json  # noqa: PLC0415 - heavy
    from rotator.cli.screen import printable  # noqa: PLC0415 - beside it
    from rotator.cli.taking_in import Import, take_in  # noqa: PLC0415 - heavy
    from rotator.report.shape import to_json  # noqa: PLC0415 - heavy

    done: Import = take_in(
        config_of(context, config),
        jwk=jwk,
        pem=pem,
        kid=kid,
        keyset=keyset,
        until=until,
        keep_for=keep_for,
        reason=reason,
        offline=offline,
        wait=wait,
    )
    if as_json:
        print_json(to_json(done))
    else:
        for note in done.notes:
            sys.stderr.write(f"note: {printable(note)}\n")
        typer.echo(done.text)
    raise typer.Exit(3 if wait and done.request is not None else 0)
