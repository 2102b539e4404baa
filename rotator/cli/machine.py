"""The machine as a command sees it from outside the daemon: the KEK, the clock, the tree, permissions."""

import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rotator.adapters.clock import SystemClock
from rotator.adapters.disk import describe, require_private
from rotator.cli.outside import Witnessed, empty_state, kek_problem, lost_database, misfits, see_witness
from rotator.config.settings import Config, Settings
from rotator.control_roles import Doorkeeper
from rotator.core.policy import CommandSink, FileSink
from rotator.errors import KekError, RotatorError
from rotator.ports import Snapshot
from rotator.report.steps import next_step
from rotator.wiring import open_readonly, read_kek

OLDEST: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""This program is younger than that: a clock before it is wrong."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about the machine that was looked at."""

    subject: str
    problem: str
    """Empty: it is as it should be."""
    text: str
    """What was found."""
    next_step: str = ""


def check_machine(config: Config) -> Iterator[Finding]:
    """Look at everything on this machine that the daemon will need."""
    settings = config.settings
    yield _state_directory(settings)
    yield from _database(config)
    yield _writable("published directory", settings.publish_directory)
    yield from _sinks(config)
    yield _clock()
    yield from _groups(settings)


def _state_directory(settings: Settings) -> Finding:
    path = settings.state_directory
    if not path.exists():
        parent = _nearest_directory(path)
        if os.access(parent, os.W_OK | os.X_OK):
            return Finding("state directory", "", f"{path} is made at the first start")
        step = f"install -d -m 700 -o {_me()} {path}"
        return Finding("state directory", f"{path} is missing, and {parent} cannot be written", str(path), step)
    try:
        require_private(path)
    except RotatorError as error:
        return Finding("state directory", str(error), str(path), f"chmod 700 {path}")
    except OSError as error:
        return Finding("state directory", f"{path}: {describe(error)}", str(path), "run this as the service's user")
    return Finding("state directory", "", f"{path} is private")


def _database(config: Config) -> Iterator[Finding]:
    settings = config.settings
    witnessed = see_witness(settings)
    if lost_database(settings) is not None:
        yield Finding("database", "", "made at the first start")
        yield _kek_alone(settings)
        with empty_state() as snapshot:
            yield from _misfits(config, snapshot, witnessed)
        return
    try:
        with open_readonly(config) as store, store.read() as snapshot:
            yield Finding("database", "", f"opens; installation {snapshot.installation()}")
            problem = kek_problem(config, snapshot)
            ids = ", ".join(row.kek_id for row in snapshot.keks()) or "none in use yet"
            step = "put the one back that this database was sealed with" if problem else ""
            yield Finding("KEK", problem, f"readable and the right one: {ids}", step)
            yield from _misfits(config, snapshot, witnessed)
    except RotatorError as error:
        yield Finding("database", str(error), "", "")
        yield _kek_alone(settings)


def _misfits(config: Config, snapshot: Snapshot, witnessed: Witnessed) -> Iterator[Finding]:
    for subject, problem in misfits(config, snapshot, witnessed).items():
        kind, _, name = subject.partition(":")
        yield Finding("published set" if name else kind, problem, "", next_step(kind, name))


def _kek_alone(settings: Settings) -> Finding:
    source = settings.kek
    if source.may_create and source.file is not None and not source.file.exists():
        return Finding("KEK", "", f"made in {source.file} at the first start; keep a copy apart from the backups")
    try:
        ring = read_kek(source)
    except KekError as error:
        return Finding("KEK", str(error), "", "")
    return Finding("KEK", "", f"readable: {', '.join(ring.keys)}")


def _writable(what: str, path: Path) -> Finding:
    found = _nearest_directory(path)
    if not os.access(found, os.W_OK | os.X_OK):
        step = f"install -d -o {_me()} {path}"
        return Finding(what, f"{found} cannot be written by this user ({_me()})", str(path), step)
    made = "" if path.exists() else "; it is made at the first start"
    return Finding(what, "", f"{path} can be written{made}")


def _sinks(config: Config) -> Iterator[Finding]:
    """Look at each directory and each program once, and report what is wrong or, at the end, that all is well."""
    directories: dict[Path, str] = {}
    programs: dict[str, str] = {}
    for workspace in config.policy.workspaces.values():
        for sink in workspace.sinks:
            match sink:
                case FileSink():
                    directories.setdefault(Path(sink.path).parent, workspace.id)
                case CommandSink():
                    programs.setdefault(sink.run[0], workspace.id)
    bad = False
    for directory, workspace_id in directories.items():
        found = _nearest_directory(directory)
        if not os.access(found, os.W_OK | os.X_OK):
            bad = True
            problem = f"workspace {workspace_id}: {found} cannot be written by this user ({_me()})"
            yield Finding("sinks", problem, str(directory), f"install -d -o {_me()} {directory}")
    for program, workspace_id in programs.items():
        if not os.access(program, os.X_OK) or Path(program).is_dir():
            bad = True
            problem = f"workspace {workspace_id}: {program} is no program that this user ({_me()}) can run"
            yield Finding("sinks", problem, program, "install it, or mend its path or mode")
    if not bad and (directories or programs):
        counts = f"{len(directories)} directories can be written, {len(programs)} programs can be run"
        yield Finding("sinks", "", counts)


def _clock() -> Finding:
    reading = SystemClock().read()
    shown = f"{reading.now:%Y-%m-%d %H:%M:%S} UTC"
    if reading.now < OLDEST:
        return Finding("clock", f"it says {shown}, which has long been over", shown, "set it: timedatectl")
    known = "synchronised" if reading.synchronised_at is not None else "no mark of systemd-timesyncd, which is no fault"
    return Finding("clock", "", f"{shown}; {known}")


def _groups(settings: Settings) -> Iterator[Finding]:
    for name in Doorkeeper(settings.control).unknown_groups():
        problem = f"this machine has no group {name!r}; it gives no one a role"
        yield Finding("control", problem, name, f"groupadd {name}, or mend its name")


def _nearest_directory(path: Path) -> Path:
    """Return the nearest existing directory at or above ``path``."""
    return next(each for each in (path, *path.parents) if each.is_dir())


def _me() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
