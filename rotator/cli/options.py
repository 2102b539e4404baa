"""Options that several commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="The config file. [default: $ROTATOR_CONFIG, else /etc/rotator/config.yaml, else one's own ./config.yaml]",
        dir_okay=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it goes into the audit.")]
RehearseOption = Annotated[bool, typer.Option("--rehearse", help="Show what it would do; change nothing.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask, as for scripts.")]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Do it in this process, where no daemon runs.")]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Wait until the daemon has carried it out, however long that takes.")
]


def config_of(context: typer.Context, option: Path | None, *, aloud: bool = True) -> Path | None:
    """Return the config that was named after the command, else before it, else one's own in the current directory.

    That one is told of, unless not ``aloud``. None: it is the one of the environment, or the default.
    """
    before = context.find_root().params.get("config")  # as text, up to typer 0.26
    found = option if option is not None or before is None else Path(before)
    if found is not None or os.environ.get("ROTATOR_CONFIG"):
        return found
    from rotator.cli.screen import tell  # noqa: PLC0415 - only when needed
    from rotator.config.choosing import config_here  # noqa: PLC0415 - only when needed

    own = config_here()
    if own.said and aloud:
        tell(own.said)
    return own.path
