"""Commands for backups: make one, and put one back."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from rotator.cli.options import ConfigOption, JsonOption, ReasonOption, config_of


def backup(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Where the copy goes. An earlier backup there is replaced.")],
    *,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the database into a file, while the daemon runs.

    The copy is whole or not there, mode 0600, and sealed: it is of no use without the KEK, which is not in it.
    """
    from rotator.backing_up import back_up  # noqa: PLC0415 - heavy
    from rotator.cli.output import print_json  # noqa: PLC0415 - heavy
    from rotator.cli.screen import Screen  # noqa: PLC0415 - heavy
    from rotator.cli.session import chosen_path, settings_of  # noqa: PLC0415 - heavy
    from rotator.report.shape import to_json  # noqa: PLC0415 - heavy
    from rotator.told import told  # noqa: PLC0415 - beside it

    option = config_of(context, config)
    made = back_up(settings_of(option), chosen_path(option), file)
    if as_json:
        print_json(to_json(made))
        return
    screen = Screen.of()
    screen.line(f"backed up to {made.file}", "green")
    screen.facts(
        [
            ("holds", f"{made.size_bytes:,} bytes, up to event {made.audit_seq} of installation {made.installation}"),
            ("needs", f"the KEK {', '.join(made.keks) or 'of the first start'}, not in it: keep a copy of {made.kek}"),
            ("", "elsewhere, never beside the backups"),
            ("needs", f"the config: {made.config} and what it includes"),
            ("back", "with the daemon stopped:"),
        ]
    )
    screen.command(told("rotator", "restore", made.file))


def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A backup that `rotator backup` made.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="Show what would be done, and change nothing.")] = False,
    reason: ReasonOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a backup in the place of the database, with the daemon stopped.

    It is held against the witness and the published sets first, and what the next start will do is shown: what was
    revoked stays revoked, what is published stays published to its end, and every workspace gets a fresh token. The
    database that it replaces is kept.
    """
    from rotator.adapters.clock import wall_time  # noqa: PLC0415 - beside it
    from rotator.cli.output import print_json  # noqa: PLC0415 - heavy
    from rotator.cli.restoring import show_forecast, show_restored  # noqa: PLC0415 - heavy
    from rotator.cli.screen import Screen  # noqa: PLC0415 - heavy
    from rotator.cli.session import load_config  # noqa: PLC0415 - heavy
    from rotator.errors import RefusedError  # noqa: PLC0415 - beside it
    from rotator.report.shape import to_json  # noqa: PLC0415 - heavy
    from rotator.restoring import Restored, preparing  # noqa: PLC0415 - heavy

    loaded = load_config(config_of(context, config))
    screen = Screen.of()
    with preparing(loaded, file, rehearse=rehearse) as restoration:
        if not as_json:
            show_forecast(screen, restoration.forecast, loaded.policy)
        if not rehearse and not yes:
            if as_json or not sys.stdin.isatty():
                raise RefusedError("this replaces the database: say --yes if that is meant, or look first: --rehearse")
            typer.confirm("Put it in place of the database?", abort=True)
        replaced = () if rehearse else restoration.put_in_place(reason, wall_time())
        done = Restored(rehearsed=rehearse, forecast=restoration.forecast, replaced=replaced)
    if as_json:
        print_json(to_json(done))
    else:
        show_restored(screen, done)
