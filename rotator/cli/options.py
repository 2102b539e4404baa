"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="The config file. [default: $ROTATOR_CONFIG, else /etc/rotator/config.yaml]",
        dir_okay=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it goes into the audit.")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Do it in this process, where no daemon runs.")]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Wait until the daemon has carried it out, however long that takes.")
]


def config_of(context: typer.Context, option: Path | None) -> Path | None:
    """Return the config that was named after the command, else before it."""
    before: Path | None = context.find_root().params.get("config")
    return option if option is not None else before
