"""How it is shown what a backup will do when it is put in place."""

from collections.abc import Iterator

from rotator.cli.screen import Screen, short
from rotator.core.counting import counted
from rotator.core.durations import format_duration
from rotator.core.policy import Policy
from rotator.restoring import Forecast, KeysetForecast, Restored


def show_forecast(screen: Screen, forecast: Forecast, policy: Policy) -> None:
    """Show how the backup stands to what is known beside it, and what the next start makes of it."""
    screen.line(f"backup {forecast.file}", "bold")
    screen.facts(_facts(forecast))
    for keyset in forecast.keysets:
        screen.line(f"keyset {keyset.keyset}", "bold")
        screen.facts(_keyset(keyset, policy, older=forecast.older))
    if forecast.revoked_kids or forecast.revoked_jtis:
        screen.line("revoked since the backup, and revoked it stays", "bold")
        screen.facts([("key", kid) for kid in forecast.revoked_kids])
        screen.facts([("token", jti) for jti in forecast.revoked_jtis])
    for warning in forecast.warnings:
        screen.line(f"warning: {warning}", "yellow")


def _facts(forecast: Forecast) -> Iterator[tuple[str, str]]:
    last = "" if forecast.last_event_at is None else f" of {forecast.last_event_at:%Y-%m-%d %H:%M:%SZ}"
    yield "holds", f"up to event {forecast.audit_seq}{last}, installation {forecast.installation}"
    if not forecast.older:
        yield "age", "the witness knows of nothing that is not in it"
        return
    count = forecast.missing_events
    later = f"{count} later event{'s' if count > 1 else ''}" if count else "another history after it"
    yield "age", f"older than the witness, which knows of {later}"
    yield "tokens", f"{counted(forecast.workspaces, 'workspace gets', 'workspaces get')} a fresh one at the next start"


def _keyset(keyset: KeysetForecast, policy: Policy, *, older: bool) -> Iterator[tuple[str, str]]:
    settings = policy.keysets.get(keyset.keyset)
    if keyset.signs is not None:
        yield "signs", f"{short(keyset.signs)} goes on signing"
        if not keyset.signs_published:
            yield "but", "it is not in the published set: its tokens are refused until verifiers fetch the next one"
    elif older and settings is not None:
        period = format_duration(settings.propagation_period)
        yield "signs", f"nothing, until new keys have been published for the propagation_period of {period}"
    for key in keyset.adopted:
        until = "its end" if key.until is None else f"{key.until:%Y-%m-%d %H:%MZ}"
        yield "adopted", f"{short(key.kid)} is newer: it stays published until {until}, and never signs"
    for kid in keyset.erased:
        yield "erased", f"the private half of {short(kid)}"
    for kid in keyset.unused:
        yield "leaves", f"{short(kid)} is newer, and never signed: no token needs it"
    for kid in keyset.unknown:
        yield "aside", f"{short(kid)} is in the published file and known to nobody: it is taken out, and kept aside"
    if keyset.signs is None and not (older or keyset.adopted or keyset.erased or keyset.unused or keyset.unknown):
        yield "signs", "nothing yet"


def show_restored(screen: Screen, done: Restored) -> None:
    """Show what was done, and what comes next."""
    if done.rehearsed:
        screen.line("rehearsed: nothing was changed", "green")
        return
    screen.line("the backup is in place", "green")
    facts = [("kept", path) for path in done.replaced]
    if done.replaced:
        facts.append(("", "it holds sealed private keys: delete it once all is well (rm -r its directory)"))
    facts.append(("next", "systemctl start rotator, then: rotator status"))
    screen.facts(facts)
