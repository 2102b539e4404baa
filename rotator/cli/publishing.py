"""Commands for a set that is published already where a new database begins."""

from typing import Annotated

import typer

from rotator.cli.options import ConfigOption, config_of

published = typer.Typer(help="Sets that others, or a database that is lost, published.", no_args_is_help=True)


@published.command("adopt")
def adopt(
    context: typer.Context,
    *,
    keep_for: Annotated[str, typer.Option("--keep-for", help="How long tokens on them can still live: 24h, 30d.")],
    config: ConfigOption = None,
) -> None:
    """Keep the published keys until their tokens end.

    They never sign.
    """
    from rotator.cli.output import span  # noqa: PLC0415 - heavy
    from rotator.cli.session import load_config  # noqa: PLC0415 - heavy
    from rotator.published import adopt_published  # noqa: PLC0415 - heavy

    period = span(keep_for, "--keep-for")
    for keyset, kids in adopt_published(load_config(config_of(context, config)), period).items():
        typer.echo(f"keyset {keyset}: {', '.join(kids)}")


@published.command("replace")
def replace(context: typer.Context, *, config: ConfigOption = None) -> None:
    """Move the published sets aside and begin anew.

    Tokens that were signed with their keys are refused from then on.
    """
    from rotator.cli.session import load_config  # noqa: PLC0415 - heavy
    from rotator.published import replace_published  # noqa: PLC0415 - heavy

    for keyset, path in replace_published(load_config(config_of(context, config))).items():
        typer.echo(f"keyset {keyset}: kept in {path}")
