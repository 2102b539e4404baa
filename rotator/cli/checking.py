"""What ``rotator check`` finds, and how it is shown."""

from dataclasses import dataclass
from pathlib import Path

from rotator.cli.machine import check_machine, find_warnings
from rotator.cli.screen import Screen, speaks_unicode
from rotator.cli.session import load_config
from rotator.config.settings import DEFAULT_PATH, Config
from rotator.core.counting import counted
from rotator.told import told


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule of the time contract, with the config's own numbers."""

    subject: str
    holds: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFinding:
    """One thing about the machine."""

    subject: str
    ok: bool
    text: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """All that was checked. A config that is wrong never gets this far."""

    ready: bool
    config: str
    digest: str
    keysets: int
    workspaces: int
    rules: tuple[Rule, ...]
    warnings: tuple[str, ...]
    machine: tuple[MachineFinding, ...]
    """Empty with ``--config-only``."""


def check_config(option: Path | None) -> CheckReport:
    """Check the config and its arithmetic alone; raise :class:`ConfigError` for one that is wrong."""
    return _report(load_config(option), (), ())


def check_all(option: Path | None) -> CheckReport:
    """Check everything; raise :class:`ConfigError` for a config that is wrong."""
    config = load_config(option, looks_at_sinks=True)
    machine = tuple(
        MachineFinding(
            subject=found.subject,
            ok=not found.problem,
            text=found.problem or found.text,
            next_step=found.next_step if found.problem else "",
        )
        for found in check_machine(config)
    )
    return _report(config, machine, tuple(find_warnings(config)))


def _report(config: Config, machine: tuple[MachineFinding, ...], warnings: tuple[str, ...]) -> CheckReport:
    return CheckReport(
        ready=all(found.ok for found in machine),
        config=str(config.path),
        digest=config.digest,
        keysets=len(config.policy.keysets),
        workspaces=len(config.policy.workspaces),
        rules=tuple(_rule(line) for line in config.arithmetic),
        warnings=(*config.warnings, *warnings),
        machine=machine,
    )


def _rule(line: str) -> Rule:
    verdict, _, rest = line.partition(" ")
    subject, _, text = rest.strip().partition(": ")
    return Rule(subject=subject, holds=verdict == "ok", text=text)


def show_check(screen: Screen, found: CheckReport) -> None:
    """Show the arithmetic, warnings, the machine, and what to do next."""
    good, bad, odd = ("✓", "✗", "!") if speaks_unicode(screen.stream) else ("ok", "FAIL", "warn")
    keysets, workspaces = counted(found.keysets, "keyset"), counted(found.workspaces, "workspace")
    screen.line(f"{found.config}: {keysets}, {workspaces}", "bold")
    screen.line()
    screen.line("the time contract", "bold")
    subject = ""
    for rule in found.rules:
        where, _, setting = rule.subject.rpartition(".")
        if where and where != subject:
            screen.line(f"  {where}", "dim")
            subject = where
        text = rule.text if rule.text.startswith(setting) else f"{setting}: {rule.text}"
        screen.facts(
            [(good if rule.holds else odd, text)], indent=4 if where else 2, style="green" if rule.holds else "yellow"
        )
    if found.warnings:
        screen.line()
        screen.line("warnings", "bold")
        screen.facts([(odd, warning) for warning in found.warnings], style="yellow")
    screen.line()
    if not found.machine:
        screen.line("the config is sound; this machine was not looked at", "bold green")
        return
    screen.line("this machine", "bold")
    for finding in found.machine:
        mark, style = (good, "green") if finding.ok else (bad, "red")
        screen.facts([(mark, f"{finding.subject}: {finding.text}")], style=style)
    screen.line()
    steps = [finding.next_step for finding in found.machine if finding.next_step]
    if found.ready:
        named = [] if found.config == str(DEFAULT_PATH) else ["--config", found.config]
        screen.line(f"ready; next: {told('rotator', *named, 'run')}", "bold green")
    else:
        screen.line("not ready; next:", "bold red")
        for step in dict.fromkeys(steps):
            screen.command(step)
