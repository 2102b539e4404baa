"""``rotator replace``: a new token for a workspace, and how long the prior one stays valid beside it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotator.cli import completion
from rotator.cli.options import ConfigOption, JsonOption, OfflineOption, ReasonOption, config_of

if TYPE_CHECKING:  # heavy
    from rotator.cli.output import Found
    from rotator.report.replacement import Replacement


def replace(
    context: typer.Context,
    workspace: Annotated[str, typer.Argument(help="The workspace.", autocompletion=completion.workspaces)],
    *,
    overlap: Annotated[
        str,
        typer.Option(help="How long the prior token stays valid: now (a leak), 10m, 6h, 12h, 24h; end: to its own."),
    ] = "end",
    wait: Annotated[bool, typer.Option("--wait", help="Follow it until every sink holds the new token.")] = False,
    timeout: Annotated[str, typer.Option(help="With --wait: give up after this long; the daemon goes on.")] = "10m",
    reason: ReasonOption = "",
    offline: OfflineOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a workspace a new token, and end the prior one when you say.

    From the end of the overlap on, the prior token counts as revoked: rotator verify refuses it, and its text is
    erased. A verifier that checks nothing but signature and time accepts it until its own end. --overlap now means
    every earlier token of the workspace, for it is seldom known which one leaked.
    """
    from rotator.cli.following import follow_replacement, goes_on, told_that_it_goes_on  # noqa: PLC0415 - heavy
    from rotator.cli.handover_pages import show_replacement  # noqa: PLC0415 - heavy
    from rotator.cli.output import print_json, span  # noqa: PLC0415 - heavy
    from rotator.cli.screen import Screen, tell  # noqa: PLC0415 - heavy
    from rotator.cli.session import exit_code, request, wait_for  # noqa: PLC0415 - heavy
    from rotator.core.durations import format_duration  # noqa: PLC0415 - beside it
    from rotator.report.shape import to_json  # noqa: PLC0415 - heavy

    path = config_of(context, config)
    patience = span(timeout, "--timeout")
    arguments = {"workspace": workspace, "overlap": _overlap(overlap)}
    said = request(
        path,
        "token.replace",
        arguments,
        reason,
        offline=offline,
        settle=True,
        wait=wait_for(wait=wait),
        longest=patience,
    )
    if said.request is not None:
        if as_json:
            print_json(to_json(under_way(workspace, said.request)))
        else:
            typer.echo(said.text)
        raise typer.Exit(exit_code(said, wait=wait))
    prior = said.text
    look = f"rotator tokens list --workspace {workspace}"
    with told_that_it_goes_on(look):
        found = follow_replacement(lambda: _ask(path, workspace, prior), patience if wait else None)
    if as_json:
        print_json(found.json)
    else:
        show_replacement(Screen.of(), found.report)
    _tell_if_capped(overlap, found.report)
    if wait and not found.report.done:
        tell(f"gave up waiting after {format_duration(patience)}: {goes_on(look)}")
        raise typer.Exit(1)


def under_way(workspace: str, number: int) -> "Replacement":
    """Return what there is to report of a replacement that the daemon has accepted and not begun."""
    from rotator.cli.output import now  # noqa: PLC0415 - heavy
    from rotator.core.model import WorkspaceId  # noqa: PLC0415 - beside it
    from rotator.report.replacement import Replacement  # noqa: PLC0415 - heavy

    return Replacement(
        at=now(),
        workspace=WorkspaceId(workspace),
        prior=(),
        token=None,
        delivered=0,
        sinks=0,
        done=False,
        problem="",
        request=number,
    )


def _tell_if_capped(overlap: str, found: "Replacement") -> None:
    """Say where the overlap is longer than the prior tokens live: no token is valid beyond its own end."""
    from rotator.cli.output import span  # noqa: PLC0415 - heavy
    from rotator.cli.screen import tell  # noqa: PLC0415 - beside it
    from rotator.cli.times import both  # noqa: PLC0415 - beside it

    if overlap in ("now", "end") or not found.prior:
        return
    last = max(each.expires_at for each in found.prior)
    if found.at + span(overlap, "--overlap") > last:
        tell(f"--overlap {overlap} goes beyond the prior token's own end: it is valid until {both(last, found.at)}")


def _ask(path: Path | None, workspace: str, prior: str) -> "Found[Replacement]":
    from rotator.cli.output import answer  # noqa: PLC0415 - heavy
    from rotator.report.replacement import Replacement  # noqa: PLC0415 - heavy

    return answer(path, "token.replacement", Replacement, {"workspace": workspace, "prior": prior})


def _overlap(text: str) -> str:
    """Return the overlap as the request takes it: whole seconds, or ``end``."""
    from rotator.cli.output import span  # noqa: PLC0415 - heavy

    if text in ("now", "end"):
        return "0" if text == "now" else text
    return str(int(span(text, "--overlap").total_seconds()))
