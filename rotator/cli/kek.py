"""``rotator kek``."""

from pathlib import Path
from typing import Annotated

import typer

from rotator.cli.options import ConfigOption, JsonOption, config_of

kek = typer.Typer(help="The key-encryption key.", no_args_is_help=True)


@kek.command()
def generate(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(help="Where to write it. [default: where the config says]", show_default=False)
    ] = None,
    *,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key-encryption key.

    The file holds one line, ID BASE64URL(32 bytes), and is private to its owner. A file that is there already is never
    replaced. Of several lines in such a file the first one seals, and the others open what was sealed before.
    """
    from rotator.beginning import file_of, generate_kek  # noqa: PLC0415 - heavy
    from rotator.cli.output import print_json  # noqa: PLC0415 - heavy
    from rotator.cli.screen import Screen  # noqa: PLC0415 - heavy
    from rotator.cli.session import chosen_path, settings_of  # noqa: PLC0415 - heavy
    from rotator.cli.starting import show_kek  # noqa: PLC0415 - heavy
    from rotator.errors import ConfigError  # noqa: PLC0415 - heavy
    from rotator.report.shape import to_json  # noqa: PLC0415 - heavy

    option = config_of(context, config)
    try:
        source = settings_of(option).kek
    except ConfigError:
        if file is None:
            raise
        source = None  # it can be made before the config is
    path = file if file is not None or source is None else file_of(source)
    assert path is not None  # noqa: S101 - without a source there was a file
    done = generate_kek(path, chosen_path(option), source)
    if as_json:
        print_json(to_json(done))
    else:
        show_kek(Screen.of(), done)
