"""Asks for what a first config needs, and shows what to do next."""

import json
import os
from dataclasses import dataclass
from typing import Final

import typer

from rotator.beginning import OF_THE_UNIT, Beginning, MadeKek
from rotator.cli.screen import Screen
from rotator.config.first import (
    Check,
    FirstAnswers,
    check_audience,
    check_issuer,
    check_max_cache,
    check_profile,
    check_workspace,
)
from rotator.config.profiles import MAX_CACHE
from rotator.core.durations import format_duration
from rotator.errors import ConfigError
from rotator.told import told


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What was said on the command line; empty: nothing."""

    issuer: str
    verifiers: tuple[str, ...]
    max_cache: str
    workspace: str
    audience: tuple[str, ...]
    systemd: bool


def gather(given: Given, *, interactive: bool) -> FirstAnswers:
    """Return the answers: those that were given, and on a terminal what is asked for. Raises :class:`ConfigError`."""
    if given.verifiers and given.max_cache:
        raise ConfigError("--verifier and --max-cache say the same; give one of them")
    if not given.issuer and not interactive:
        raise ConfigError("there is no terminal to ask on: say at least --issuer https://tokens.example.com")
    for option, check, values in (
        ("--issuer", check_issuer, (given.issuer,) if given.issuer else ()),
        ("--verifier", check_profile, given.verifiers),
        ("--max-cache", check_max_cache, (given.max_cache,) if given.max_cache else ()),
        ("--workspace", check_workspace, (given.workspace,) if given.workspace else ()),
        ("--audience", check_audience, given.audience),
    ):
        for value in values:
            _checked(option, check, value)
    issuer = given.issuer or _ask(_ISSUER, "issuer", None, check_issuer)
    profiles, max_cache = given.verifiers, given.max_cache
    if not profiles and not max_cache and interactive:
        profiles, max_cache = _ask_verifiers()
    workspace = given.workspace or (_ask(_WORKSPACE, "workspace", "acme", check_workspace) if interactive else None)
    return FirstAnswers(
        issuer=issuer,
        profiles=profiles,
        max_cache=max_cache or "24h",
        workspace=workspace,
        audience=given.audience or ("api",),
        systemd=given.systemd,
    )


_ISSUER: Final = "The claim `iss` of tokens, as verifiers expect it: https://tokens.example.com"
_WORKSPACE: Final = "The first workspace: a tenant that gets a token. Others go into the config."
_VERIFIERS: Final = "Who verifies the tokens? Some of these, or how long the most patient keeps a key set"


def show_kek(screen: Screen, done: MadeKek) -> None:
    """Show which KEK was made, and the next steps."""
    screen.line(f"wrote {done.kek}, mode 0600", "green")
    screen.facts([("id", done.id), ("", "keep a copy of it elsewhere: what it seals cannot be opened without it")])
    if os.geteuid() == 0 and done.kek != str(OF_THE_UNIT):
        screen.facts([("", f"it is root's: where the daemon is another user's, {told('chown', 'USER', done.kek)}")])
    screen.line("next", "bold")
    if not done.named:
        screen.line("  name it in the config, unless $ROTATOR_KEK or a credential of systemd holds it:")
        screen.command(f"kek: {{file: {json.dumps(done.kek, ensure_ascii=False)}}}")
        screen.line("  or, to change the KEK, put its line above the one that is in use")
    for step in done.next:
        screen.command(step)


def _checked(option: str, check: Check, value: str) -> None:
    try:
        check(value)
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}") from None


def _ask(text: str, name: str, default: str | None, check: Check) -> str:
    """Ask until the answer is a sound one."""
    screen = Screen.of()
    screen.line(text)
    while True:
        answer: str = typer.prompt(f"  {name}", default=default).strip()
        try:
            return check(answer)
        except ConfigError as error:
            screen.line(f"  {error}", "yellow")


def _ask_verifiers() -> tuple[tuple[str, ...], str]:
    """Ask who verifies the tokens; return profiles, or how long a copy is kept."""
    screen = Screen.of()
    screen.line(_VERIFIERS)
    width = max(map(len, MAX_CACHE))
    entries = [f"{name.ljust(width)} {format_duration(span).rjust(4)}" for name, span in MAX_CACHE.items()]
    for start in range(0, len(entries), 3):
        screen.line("    " + "   ".join(entries[start : start + 3]))
    while True:
        answer: str = typer.prompt("  verifiers", default="24h").strip()
        names = tuple(answer.replace(",", " ").split())
        try:
            if len(names) == 1 and names[0][:1].isdigit():
                return (), check_max_cache(names[0])
            return tuple(map(check_profile, names)), ""
        except ConfigError as error:
            screen.line(f"  {error}", "yellow")


def show_beginning(screen: Screen, done: Beginning) -> None:
    """Show what was written, and the next steps."""
    screen.line(f"wrote {done.config}", "green")
    kek = f"{done.kek} was there, and is used" if done.kek_kept else f"{done.kek}, mode 0600"
    screen.facts([("key", kek), ("", "keep a copy of it elsewhere: without it the state cannot be opened")])
    screen.line("next", "bold")
    for step in done.next:
        screen.command(step)
