"""Where ``rotator verify`` has its token from, whom it asks, and how the verdict is shown."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final, TextIO

from rotator.adapters.disk import describe_reading
from rotator.cli.output import answer
from rotator.cli.screen import Screen, speaks_unicode
from rotator.core.compact import LONGEST_TOKEN, MalformedError, read_compact
from rotator.core.secret import Secret
from rotator.core.strict_json import parse
from rotator.errors import ConfigError, RotatorError
from rotator.report.verdict import Verdict, malformed

_READ_AT_MOST: Final = LONGEST_TOKEN + 4096
"""Bytes: more than the longest token has with what a file sink writes beside it, so that a longer one is seen to be."""


def read_token(argument: str | None, file: Path | None, stdin: TextIO) -> Secret[str]:
    """Return the token that was named in one of the ways: bare, or as a file sink writes it."""
    if (argument is None) == (file is None):
        raise ConfigError("name one token: as the argument, as - for standard input, or with --file FILE")
    if file is not None:
        try:
            with file.open("rb") as stream:
                return _read(stream)
        except OSError as error:
            raise RotatorError(f"{file} cannot be read: {describe_reading(error)}") from None
    return _read(stdin.buffer) if argument == "-" else Secret(argument or "")


def _read(stream: BinaryIO) -> Secret[str]:
    content = stream.read(_READ_AT_MOST).decode("ascii", "replace")  # what is replaced is refused: it is no base64url
    return Secret(_inside(content).removesuffix("\n").removesuffix("\r"))


def _inside(content: str) -> str:
    """Return the token in a file of the format ``json`` or ``env``; any other content as it is."""
    if content.startswith("TOKEN="):
        return content.removeprefix("TOKEN=").partition("\n")[0]
    if content.startswith("{"):
        try:
            document = parse(content)
        except ValueError:
            return content
        token = document.get("token") if isinstance(document, dict) else None
        return token if isinstance(token, str) else content
    return content


def verdict_on(
    option: Path | None,
    token: Secret[str],
    *,
    audiences: Sequence[str],
    permissions: Sequence[str],
    roles: Sequence[str],
) -> Verdict:
    """Ask for the verdict; what is no token at all is not sent anywhere."""
    try:
        read_compact(token.reveal())
    except MalformedError as error:
        return malformed(str(error))
    wanted = {"audiences": audiences, "permissions": permissions, "roles": roles}
    arguments = {name: json.dumps(list(values)) for name, values in wanted.items()}
    return answer(option, "token.verify", Verdict, {"token": token.reveal(), **arguments}).report


def show_verdict(screen: Screen, verdict: Verdict) -> None:
    """Show the verdict in one line, then each thing that was looked at."""
    style = "bold green" if verdict.valid else "bold red"
    word, _, why = verdict.verdict.partition(": ")
    screen.line(f"{word.upper()}  {why}", style)
    good, bad = ("✓", "✗") if speaks_unicode(screen.stream) else ("ok", "NO")
    for check in verdict.checks:
        screen.facts([(good if check.ok else bad, f"{check.name}: {check.text}")], style="green" if check.ok else "red")
    for note in verdict.notes:
        screen.facts([("!", note)], style="yellow")
