"""``rotator rotate``: another key signs, as soon as that is safe, or at once by someone who saw what that costs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotator.cli import completion
from rotator.cli.options import ConfigOption, JsonOption, OfflineOption, ReasonOption, WaitOption, config_of

if TYPE_CHECKING:  # heavy
    from rotator.cli.output import Found
    from rotator.cli.session import Said
    from rotator.report.takeover import Takeover


def rotate(
    context: typer.Context,
    keyset: Annotated[str, typer.Argument(help="The keyset.", autocompletion=completion.keysets)] = "default",
    *,
    emergency: Annotated[
        bool, typer.Option("--emergency", help="Do not wait; shows what breaks, and asks. For admins.")
    ] = False,
    rehearse: Annotated[bool, typer.Option("--rehearse", help="Show what would happen, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --emergency: do not ask.")] = False,
    reason: ReasonOption = "",
    wait: WaitOption = False,
    offline: OfflineOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let the standby sign, as soon as every verifier can know it and the key after it.

    It says when that will be. The rotation survives a restart, and keeps every rule of a planned one. With --emergency
    the standby signs now.
    """
    from dataclasses import replace  # noqa: PLC0415 - beside the others

    from rotator.cli.following import follow_takeover, told_that_it_goes_on  # noqa: PLC0415 - heavy
    from rotator.cli.handover_pages import show_cost, show_takeover  # noqa: PLC0415 - heavy
    from rotator.cli.output import print_json  # noqa: PLC0415 - heavy
    from rotator.cli.screen import Screen  # noqa: PLC0415 - heavy
    from rotator.cli.session import exit_code  # noqa: PLC0415 - heavy
    from rotator.errors import ConfigError  # noqa: PLC0415 - beside the others
    from rotator.report.shape import to_json  # noqa: PLC0415 - heavy

    if emergency and not (rehearse or reason):
        raise ConfigError("an emergency rotation goes into the audit: say why with --reason")
    path = config_of(context, config)
    screen = Screen.of(sys.stderr if as_json and not rehearse else None)
    ahead = _ask(path, keyset, "emergency" if emergency else "rotation")
    if rehearse:
        if as_json:
            print_json(ahead.json)
            return
        show_takeover(screen, ahead.report, headline=f"keyset {keyset}: a rotation, rehearsed; nothing was changed")
        if emergency:
            show_cost(screen, ahead.report)
        return
    asked = ahead.report.asked
    if asked is not None and (asked.emergency or not emergency):
        found, headline = _ask(path, keyset, ""), f"keyset {keyset}: a rotation is under way already; nothing changed"
    else:
        if emergency:
            show_takeover(screen, ahead.report, headline=f"keyset {keyset}: an emergency rotation")
            show_cost(screen, ahead.report)
            _confirm(keyset, yes=yes)
        signing = ahead.report.signing_kid
        said = _request(path, keyset, signing, reason, emergency=emergency, offline=offline, wait=wait)
        if said.request is not None:
            under_way = replace(_ask(path, keyset, "").report, request=said.request)
            if as_json:
                print_json(to_json(under_way))
            else:
                screen.line(said.text)
            raise typer.Exit(exit_code(said, wait=wait))
        with told_that_it_goes_on("rotator status"):
            found = follow_takeover(lambda: _ask(path, keyset, ""), signing)
        headline = _headline(keyset, signing, found.report)
    if as_json:
        print_json(found.json)
    else:
        show_takeover(screen, found.report, headline=headline)


def _request(
    path: Path | None, keyset: str, signing: str | None, reason: str, *, emergency: bool, offline: bool, wait: bool
) -> "Said":
    from rotator.cli.session import request, wait_for  # noqa: PLC0415 - heavy

    command, arguments = "keyset.rotate", {"keyset": keyset}
    if emergency:
        command, arguments = "keyset.rotate_at_once", arguments | {"signing": signing or "none"}
    return request(path, command, arguments, reason, offline=offline, settle=True, wait=wait_for(wait=wait))


def _headline(keyset: str, before: str | None, found: "Takeover") -> str:
    if found.signing_kid is not None and found.signing_kid != before:
        return f"keyset {keyset}: rotated"
    return f"keyset {keyset}: it will rotate"


def _ask(path: Path | None, keyset: str, supposed: str) -> "Found[Takeover]":
    from rotator.cli.output import answer  # noqa: PLC0415 - heavy
    from rotator.report.takeover import Takeover  # noqa: PLC0415 - heavy

    return answer(path, "keyset.takeover", Takeover, {"keyset": keyset, "supposed": supposed})


def _confirm(keyset: str, *, yes: bool) -> None:
    """Go on only when a person says so, or a script did."""
    from rotator.errors import ConfigError, RefusedError  # noqa: PLC0415 - beside the others

    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("an emergency rotation asks before it is done, and there is no terminal to ask on: add --yes")
    if not typer.confirm(f"Rotate keyset {keyset} now?", err=True):
        raise RefusedError("nothing was changed")
