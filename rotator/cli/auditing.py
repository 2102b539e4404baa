"""Commands about the audit."""

from pathlib import Path
from typing import Annotated

import typer

from rotator.cli.options import ConfigOption, JsonOption, config_of

audit = typer.Typer(help="The record of every change.", no_args_is_help=True)


@audit.command("list")
def audit_list(
    context: typer.Context,
    *,
    workspace: Annotated[str | None, typer.Option(help="Of this workspace alone.")] = None,
    key: Annotated[str | None, typer.Option(help="Of this key alone: a kid, or its beginning.")] = None,
    event: Annotated[str | None, typer.Option(help="With this name, such as key.activated or 'token.*'.")] = None,
    since: Annotated[str | None, typer.Option(help="From then on: 24h, 7d, or 2026-03-01T00:00:00Z.")] = None,
    actor: Annotated[
        str | None, typer.Option(help="Caused by this person: a user's name, a uid, 'NAME(uid)'; or rotator.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 50,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List events, the newest last."""
    from rotator.cli import pages  # noqa: PLC0415 - heavy
    from rotator.cli.output import moment, print_json  # noqa: PLC0415 - heavy
    from rotator.cli.paging import newest_events  # noqa: PLC0415 - heavy
    from rotator.cli.screen import Screen  # noqa: PLC0415 - heavy
    from rotator.report.shape import to_json  # noqa: PLC0415 - heavy

    arguments = {
        "workspace": workspace,
        "key": key,
        "event": event,
        "since": None if since is None else moment(since, "--since"),
        "actor": actor,
    }
    found = newest_events(config_of(context, config), arguments, limit)
    if as_json:
        print_json(to_json(found))
    else:
        pages.show_audit(Screen.of(), found)


@audit.command("verify")
def audit_verify(
    context: typer.Context,
    *,
    head: Annotated[str | None, typer.Option(help="A head that was noted elsewhere, as from the log.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prove that the record was not changed.

    No event was changed, taken out or put in, and with --head none was cut off.

    Exits 1 when the chain is broken, and 3 when it holds but the head was lost with the database that a restored
    backup replaced: then it says which restore that was, and what was lost.
    """
    from rotator.cli import pages  # noqa: PLC0415 - heavy
    from rotator.cli.output import print_json  # noqa: PLC0415 - heavy
    from rotator.cli.paging import proof  # noqa: PLC0415 - heavy
    from rotator.cli.screen import Screen  # noqa: PLC0415 - heavy
    from rotator.report.proof import Proven  # noqa: PLC0415 - heavy
    from rotator.report.shape import to_json  # noqa: PLC0415 - heavy

    found = proof(config_of(context, config), head)
    if as_json:
        print_json(to_json(found))
    else:
        pages.show_proof(Screen.of(), found)
    raise typer.Exit({Proven.INTACT: 0, Proven.RESTORED: 3, Proven.BROKEN: 1}[found.verdict])


@audit.command("export")
def audit_export(
    context: typer.Context,
    *,
    after: Annotated[int, typer.Option(min=0, help="Begin after the event with this number.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file instead of standard output.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,  # noqa: ARG001 - as it is JSON anyway
) -> None:
    """Print every event as a line of JSON, the oldest first.

    To go on where an export ended, give the last number (seq) that you have: --after SEQ. A file is then added to.
    Each line has the hash that chains it to the line before, so that a copy proves itself.
    """
    from rotator.cli.exporting import export  # noqa: PLC0415 - heavy

    export(config_of(context, config), after, output)
