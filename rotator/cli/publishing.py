"""Commands for a set that is published already where a new database begins."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from rotator.cli.options import ConfigOption, JsonOption, ReasonOption, RehearseOption, YesOption, config_of
from rotator.cli.screen import say
from rotator.errors import ConfigError

if TYPE_CHECKING:
    from rotator.engine.adopt import Inherited

published = typer.Typer(help="Sets that others, or a database that is lost, published.", no_args_is_help=True)


@published.command("adopt")
def adopt(
    context: typer.Context,
    *,
    keep_for: Annotated[str, typer.Option("--keep-for", help="How long tokens on them can still live: 24h, 30d.")],
    reason: ReasonOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep the published keys until their tokens end.

    They never sign. The first token comes when the new keys have been published for the propagation_period.
    """
    from datetime import timedelta  # noqa: PLC0415 - only when needed

    from rotator.cli.output import print_json, span  # noqa: PLC0415 - heavy
    from rotator.cli.session import load_config  # noqa: PLC0415 - heavy
    from rotator.core.durations import format_duration  # noqa: PLC0415 - beside it
    from rotator.log import configure_notes  # noqa: PLC0415 - heavy
    from rotator.published import adopt_published  # noqa: PLC0415 - heavy
    from rotator.report.shape import to_json  # noqa: PLC0415 - heavy

    period = span(keep_for, "--keep-for")
    configure_notes(sys.stderr)
    done = adopt_published(load_config(config_of(context, config)), period, reason)
    if as_json:
        print_json(to_json(done))
        return
    _tell_inherited(done.inherited)
    for each in done.adoptions:
        say(f"keyset {each.keyset}: {', '.join(each.kids)}")
        if each.taken_as_rs256:
            kids = ", ".join(each.taken_as_rs256)
            say(f"  warning: no alg is given for {kids}; published as RS256, as what RSA signs by default")
        period = timedelta(seconds=each.propagation_seconds)
        say(
            f"  no token can be issued on it until its new keys have been published for the propagation_period of "
            f"{format_duration(period)}: {each.usable_at:%Y-%m-%d %H:%MZ} if the daemon is started "
            "now. Let whoever issued tokens so far go on until then, or import the key that signs there: rotator "
            "import-key --offline"
        )
    if not done.adoptions:
        say("nothing is adopted: no set is published that the database does not know")


@published.command("replace")
def replace(
    context: typer.Context,
    *,
    reason: ReasonOption = "",
    rehearse: RehearseOption = False,
    yes: YesOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move the published sets aside and begin anew.

    Tokens that were signed with their keys are refused from then on. It asks before; --rehearse shows what it would
    move, and changes nothing.
    """
    from rotator.cli.output import print_json  # noqa: PLC0415 - heavy
    from rotator.cli.session import load_config  # noqa: PLC0415 - heavy
    from rotator.cli.setting_aside import confirm, show_ahead, what_is_ahead  # noqa: PLC0415 - heavy
    from rotator.log import configure_notes  # noqa: PLC0415 - heavy
    from rotator.published import replace_published  # noqa: PLC0415 - heavy
    from rotator.report.shape import to_json  # noqa: PLC0415 - heavy

    if not reason and not rehearse:
        raise ConfigError("this goes into the audit: say why with --reason, or try it with --rehearse")
    loaded = load_config(config_of(context, config))
    ahead = what_is_ahead(loaded)
    if not as_json and (rehearse or ahead.ends_anything):
        show_ahead(ahead, rehearsed=rehearse)
    if rehearse:
        if as_json:
            print_json(to_json(ahead.as_report()))
        return
    confirm(ahead, yes=yes)
    configure_notes(sys.stderr)
    done = replace_published(loaded, reason)
    if as_json:
        print_json(to_json(done))
        return
    _tell_inherited(done.inherited)
    for each in done.replaced:
        say(f"keyset {each.keyset}: kept in {each.kept}")
    if not done.replaced:
        say("nothing is replaced: no set is published that the database does not know")


def _tell_inherited(inherited: "Inherited | None") -> None:
    from rotator.core.counting import counted  # noqa: PLC0415 - only when needed

    if inherited is not None:
        say(
            f"the lost database, installation {inherited.installation}: what was revoked there stays so, "
            f"{counted(len(inherited.revoked_kids), 'key')} and {counted(len(inherited.revoked_jtis), 'token')}"
        )
