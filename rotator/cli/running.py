"""Commands that run: the daemon, one pass of it, and the demonstration."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from rotator.cli.options import ConfigOption, config_of


def run(
    context: typer.Context,
    *,
    once: Annotated[bool, typer.Option("--once", help="Do all that is due now, then exit.")] = False,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --once: print JSON, and the log to stderr.")] = False,
) -> None:
    """Run the daemon, until it is told to stop.

    It rotates, publishes and delivers whatever is due. With --once it does what is due now, waits for nothing, prints
    when something will be due next, and exits 0, or 3 when anything is overdue, late or at fault.
    """
    from rotator.cli.session import chosen_path  # noqa: PLC0415 - heavy

    path = chosen_path(config_of(context, config))
    if not once:
        from rotator.daemon import Daemon  # noqa: PLC0415 - heavy

        raise typer.Exit(Daemon(path, os.environ).run())
    from rotator.cli.output import print_json  # noqa: PLC0415 - heavy
    from rotator.cli.pages import show_pass  # noqa: PLC0415 - heavy
    from rotator.cli.screen import Screen  # noqa: PLC0415 - heavy
    from rotator.daemon import run_once  # noqa: PLC0415 - heavy
    from rotator.report.records import Health, Pass  # noqa: PLC0415 - heavy
    from rotator.report.shape import to_json  # noqa: PLC0415 - heavy

    outcome, report = run_once(path, os.environ, log_to=sys.stderr if as_json else sys.stdout)
    if as_json:
        print_json(to_json(Pass(outcome.next_due, report)))
    else:
        show_pass(Screen.of(), report, outcome.next_due)
    raise typer.Exit(0 if report.state is Health.OK else 3)


def demo(
    *,
    seconds: Annotated[int, typer.Option(min=1, help="How long to show it.")] = 60,
    keep: Annotated[
        Path | None, typer.Option(help="Run in this new directory, and keep it.", file_okay=False, show_default=False)
    ] = None,
) -> None:
    """Show keys and tokens rotate in fast motion, and a verifier that checks every token.

    A daemon of its own runs with periods of seconds, in a directory that is gone afterwards. Exits 1 if a token was
    refused.
    """
    from rotator.demo import run_demo  # noqa: PLC0415 - heavy

    raise typer.Exit(run_demo(seconds, keep))
