"""The command line. Imports nothing but typer until a command runs, for ``--help`` is to be there at once."""

import errno
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from rotator import __version__
from rotator.cli import (
    auditing,
    backing_up,
    beginning,
    configuring,
    importing,
    kek,
    leaving,
    looking,
    planning,
    publishing,
    replacing,
    revoking,
    rotating,
    running,
    verifying,
)
from rotator.cli.asking import clock, token
from rotator.cli.options import ConfigOption
from rotator.cli.streams import fill_closed_streams, write_no_more
from rotator.errors import ConfigError, RotatorError

app = typer.Typer(
    name="rotator",
    help="Rotates signing keys and workspace tokens on a schedule, and publishes the keys that verify them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - the signature of a typer callback
    if wanted:
        typer.echo(f"rotator {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    config: ConfigOption = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before the command."""


app.command()(beginning.init)
app.command()(running.run)
app.command()(configuring.check)
app.command()(looking.status)
app.command()(planning.plan)
app.add_typer(looking.keys, name="keys")
app.add_typer(looking.tokens, name="tokens")
app.add_typer(token, name="token")
app.command()(replacing.replace)
app.command()(rotating.rotate)
app.command()(looking.jwks)
app.command()(leaving.export)
app.command()(importing.import_key)
app.command()(verifying.verify)
app.add_typer(auditing.audit, name="audit")
app.add_typer(revoking.revoke, name="revoke")
app.add_typer(kek.kek, name="kek")
app.add_typer(clock, name="clock")
app.add_typer(configuring.config_commands, name="config")
app.add_typer(publishing.published, name="published")
app.command()(backing_up.backup)
app.command()(backing_up.restore)
app.command()(running.demo)


_UsageProblem: Final[Any] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""What all complaints about usage are. typer brings click along in some versions and imports it in others."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 bad usage or config, 3 degraded."""
    fill_closed_streams()
    as_json = _wants_json(sys.argv[1:] if arguments is None else arguments)
    try:
        try:
            code = app(arguments, standalone_mode=False)
        except typer.Abort:
            return 130
        except SystemExit as ending:  # how typer ends on a broken pipe, before anyone else sees it
            if isinstance(ending.__context__, BrokenPipeError):
                raise ending.__context__ from None
            raise
        sys.stdout.flush()
    except _UsageProblem as error:
        return _complain_of_usage(error, as_json=as_json)
    except RotatorError as error:
        return _complain(error, as_json=as_json)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        write_no_more()  # whoever read our output has enough of it
        return 0
    except OSError as error:
        if error.errno not in _NO_ROOM or error.filename is not None:
            raise
        write_no_more()
        return _complain(RotatorError(f"the output cannot be written: {error.strerror}"), as_json=as_json)
    return code if isinstance(code, int) else 0


_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
"""What becomes of output into a file that can take no more, or a closed stream; of our files the error has the name."""


def _wants_json(arguments: Sequence[str]) -> bool:
    """Tell whether ``--json`` is among the options, also of a command line that cannot be understood."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return "--json" in arguments[:end]


def _complain_of_usage(problem: Any, *, as_json: bool) -> int:
    if as_json:
        return _complain(ConfigError(problem.format_message()), as_json=True)
    problem.show(sys.stderr)
    return int(problem.exit_code)


def _complain(error: RotatorError, *, as_json: bool) -> int:
    """Say on stderr what is wrong, for programs as one line of JSON; stdout is for answers alone."""
    if as_json:
        import json  # noqa: PLC0415 - only when needed

        from rotator.report.records import Failure  # noqa: PLC0415 - heavy
        from rotator.report.shape import to_json  # noqa: PLC0415 - heavy

        sys.stderr.write(json.dumps(to_json(Failure(str(error), error.exit_code))) + "\n")
    else:
        from rotator.cli.screen import tell  # noqa: PLC0415 - only when needed

        tell(str(error))
    return error.exit_code
