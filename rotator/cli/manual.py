"""Writes the manual page from the commands themselves: ``python -m rotator.cli.manual > docs/rotator.1``.

A page for man(7) has lines that begin with a dot, which are requests, and text, in which a few characters mean more
than themselves. Imports nothing but the command line.
"""

import inspect
import sys
from collections.abc import Iterator
from typing import Any, Final, get_args

import typer

from rotator import __version__
from rotator.cli import app
from rotator.cli.options import ConfigOption

_ABOUT: Final = """\
rotator is a daemon that makes the signing keys and the workspace tokens of an issuer, and replaces each one before its
time is up. It publishes the public keys as a JWKS file that any verifier can fetch, long enough before a key signs and
long enough after it has stopped, so that no valid token is ever refused. Every change is recorded in an audit trail.

Commands talk to the daemon over a Unix socket; those that look read the state by themselves where no daemon runs."""

_COMPLETION: Final = """\
`rotator --install-completion` makes the shell that it runs in complete commands and options from its next start on,
and workspaces, keysets and kids where a daemon answers; it
knows bash, zsh and fish. `rotator --show-completion` prints what it would install."""

_EXIT: Final = (
    ("0", "It is done, or all is well; or the daemon has accepted it and is still at it, and says its number."),
    (
        "1",
        "It failed, as for a name that does not exist; or what was looked at does not hold: a token that is to be "
        "refused, a chain that is broken.",
    ),
    ("2", "The command line or the config is wrong."),
    (
        "3",
        "Something is overdue or at fault (`rotator status`, `rotator run --once`), or still open (`rotator revoke`, "
        "`--wait`).",
    ),
)

_PROGRAMS: Final = """\
With `--json`, commands print one document on standard output; `python -m rotator.schemas NAME` prints its JSON Schema,
where NAME is that of the command with hyphens, as in `tokens-list`. When such a command fails, the last line on
standard error is one object with `error` and `exit_code`, of the schema `error`; nothing else of a failure is printed.

`audit export` prints a document on each line. `run` has `--json` for `--once` alone: as a daemon it prints its log.
`demo` is for people, and has none; `config schema` is JSON as it is."""

_ENVIRONMENT: Final = (
    ("ROTATOR_CONFIG", "The config file, where --config does not name one."),
    ("ROTATOR_KEK", "The key-encryption key, where the config names no file for it and systemd gives no credential."),
    ("STATE_DIRECTORY, RUNTIME_DIRECTORY, CREDENTIALS_DIRECTORY", "As systemd sets them for a service."),
)

_FILES: Final = (
    ("/etc/rotator/config.yaml", "The config, where nothing else is named. config.example.yaml has every setting."),
    (
        "./config.yaml",
        "The config, where there is none in /etc/rotator either; read by a user who is not root, and who alone can "
        "write it and the directory.",
    ),
    ("/run/rotator/control.sock", "The socket of the daemon under systemd."),
)


def render() -> str:
    """Return the page, in the macros of man(7)."""
    command: Any = typer.main.get_command(app)
    lines = [
        '.\\" Made by `python -m rotator.cli.manual > docs/rotator.1`; change the commands, not this page.',
        f'.TH ROTATOR 1 "" "rotator {__version__}" "User Commands"',
        ".nh",
        ".ad l",
        ".SH NAME",
        r"rotator \- rotates signing keys and workspace tokens on a schedule",
        ".SH SYNOPSIS",
        r".B rotator",
        r"[\fB\-\-config\fR \fIFILE\fR] \fICOMMAND\fR [\fIARGUMENTS\fR]",
        ".SH DESCRIPTION",
        *_paragraphs(_ABOUT),
        ".SH OPTIONS",
        *_options(command),
        ".PP",
        _line("Every command explains itself with `--help`, and takes `--config` after its name as well."),
        ".SH COMMANDS",
        *_commands(command, "rotator"),
        ".SH COMPLETION",
        *_paragraphs(_COMPLETION),
        ".SH OUTPUT FOR PROGRAMS",
        *_paragraphs(_PROGRAMS),
        ".SH EXIT STATUS",
        *_listed(_EXIT),
        ".SH ENVIRONMENT",
        *_listed(_ENVIRONMENT),
        ".SH FILES",
        *_listed(_FILES),
        ".SH SEE ALSO",
        r"\fBsystemctl\fR(1), \fBjournalctl\fR(1), and the documents in share/rotator beside this page.",
    ]
    return "\n".join(lines) + "\n"


def _commands(group: Any, name: str) -> Iterator[str]:
    """Yield the section of each command; ``Any``: click's classes, which depend on the version of typer."""
    for child, command in group.commands.items():
        full = f"{name} {child}"
        if hasattr(command, "commands"):
            yield from _commands(command, full)
            continue
        yield f".SS {_text(_usage(full, command))}"
        yield from _paragraphs(inspect.cleandoc(command.help or ""))
        yield from _options(command)


def _usage(name: str, command: Any) -> str:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    named = [param.name.upper() if param.required else f"[{param.name.upper()}]" for param in arguments]
    return " ".join([name, *named])


_CONFIG: Final = get_args(ConfigOption)[1].help
"""What every command says of it; it is told once."""

_NOT_OURS: Final = frozenset({"help", "install_completion", "show_completion"})
"""Options whose texts are typer's, and change with its version."""


def _options(command: Any) -> Iterator[str]:
    for param in command.params:
        if param.name in _NOT_OURS or (param.name == "config" and param.help == _CONFIG and command.name != "rotator"):
            continue
        if param.param_type_name == "argument":
            head = rf"\fI{_text(param.name.upper())}\fR"
        else:
            head = ", ".join(rf"\fB{_text(name)}\fR" for name in (*param.opts, *param.secondary_opts))
            head += "" if param.is_flag else rf" \fI{_value(param)}\fR"
        yield ".TP"
        yield head
        yield _line(_about(param))


def _value(param: Any) -> str:
    return _text(param.metavar or param.name.upper().replace("_", "-"))


def _about(param: Any) -> str:
    about = param.help or ""
    default = param.default
    if getattr(param, "multiple", False):
        return f"{about} May be given several times."
    if param.required:
        return f"{about} [required]"
    shown = default is not None and not callable(default) and not getattr(param, "is_flag", False)
    return f"{about} [default: {default}]" if shown and str(default) not in ("", "[]", "()") else about


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        yield _line(" ".join(paragraph.split()))


def _listed(pairs: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for term, meaning in pairs:
        yield ".TP"
        yield rf"\fB{_text(term)}\fR"
        yield _line(meaning)


def _line(text: str) -> str:
    """Return a line of text that is not taken for a request."""
    parts = [rf"\fB{part}\fR" if place % 2 else part for place, part in enumerate(_text(text).split("`"))]
    shown = "".join(parts)
    return rf"\&{shown}" if shown.startswith((".", "'")) else shown


def _text(text: str) -> str:
    return text.replace("\\", r"\e").replace("-", r"\-")


if __name__ == "__main__":
    sys.stdout.write(render())
