"""The machine as a command sees it from outside the daemon: the KEK, the clock, the tree, permissions."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rotator.adapters.clock import SystemClock
from rotator.adapters.disk import describe, require_private
from rotator.adapters.kek import KekMissingError
from rotator.cli.destinations import (
    Finding,
    check_sinks,
    closed_to_others,
    find_owners_lost,
    is_missing,
    me,
    obstacle,
)
from rotator.cli.outside import (
    Witnessed,
    empty_state,
    kek_problem,
    lost_database,
    misfits,
    see_witness,
    several_replicas,
)
from rotator.config.choosing import writers
from rotator.config.settings import Config, KekKind, KekSource, Settings
from rotator.control_roles import OPEN_SOCKET, Doorkeeper, closed_to
from rotator.errors import KekError, RotatorError, StoreDriverError, StoreEmptyError
from rotator.ports import Snapshot
from rotator.report.prior import files_left, prior_tokens
from rotator.report.steps import next_step
from rotator.told import told
from rotator.wiring import WITNESS, open_readonly, read_kek, user_name

OLDEST: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""This program is younger than that: a clock before it is wrong."""


def check_machine(config: Config) -> Iterator[Finding]:
    """Look at everything on this machine that the daemon will need."""
    settings = config.settings
    yield from _config_files(config)
    yield _state_directory(settings)
    yield from _database(config)
    yield _writable("published directory", settings.publish_directory)
    yield from check_sinks(config.policy)
    yield _clock()
    yield from _groups(settings)


def find_warnings(config: Config) -> Iterator[str]:
    """Yield what may be meant, and is worth knowing."""
    settings = config.settings
    yield from _prior_tokens(config)
    yield from find_owners_lost(config.policy, next(_owner(settings.state_directory), os.geteuid()))
    closed = closed_to_others(settings.publish_directory, settings.state_directory)
    if closed is not None:
        where = "is" if closed == settings.publish_directory else f"is in {closed}, which is"
        yield (
            f"the published directory {settings.publish_directory} {where} closed to other users: a web server under "
            "another user cannot read it; set publish.directory"
        )


def _prior_tokens(config: Config) -> Iterator[str]:
    """Say which tokens and files stay out there that this config does not want; without a database there is none."""
    if lost_database(config.settings) is None:
        with suppress(RotatorError), open_readonly(config) as store, store.read() as snapshot:
            yield from prior_tokens(snapshot, config.policy, SystemClock().read().now)
            yield from files_left(snapshot, config.policy)


def _config_files(config: Config) -> Iterator[Finding]:
    """Look who can write the config, for it names commands that the daemon runs; what it includes names none."""
    owners = {os.geteuid(), *_owner(config.settings.state_directory)}
    for path in (config.path, config.path.parent):
        try:
            status = path.stat()
        except OSError:
            continue  # it was read a moment ago, and is told of when it is read again
        others = writers(status, owners)
        if others:
            problem = f"{path} can be written by {others}, who can name commands there that the daemon runs"
            right = told("chmod", "go-w", path) if status.st_uid in {0, *owners} else told("chown", "root", path)
            yield Finding("config", problem, str(path), right)


def _owner(directory: Path) -> Iterator[int]:
    with suppress(OSError):
        yield directory.stat().st_uid


def _state_directory(settings: Settings) -> Finding:
    path = settings.state_directory
    if is_missing(path):
        problem, step = obstacle(path)
        if not problem:
            return Finding("state directory", "", f"{path} is made at the first start")
        step = step.replace("install -d", "install -d -m 700")
        return Finding("state directory", f"{path} is missing, and {problem}", str(path), step)
    try:
        require_private(path)
    except RotatorError as error:
        return Finding("state directory", str(error), str(path), _opening_step(path))
    except OSError as error:
        return Finding("state directory", f"{path}: {describe(error)}", str(path), "run this as the service's user")
    return Finding("state directory", "", f"{path} is private")


def _opening_step(path: Path) -> str:
    if not path.is_dir():
        return f"move {path} away, or set state.url"
    owner = path.stat().st_uid
    return (
        told("chmod", "700", path) if owner == os.geteuid() else f"run this as the service's user ({user_name(owner)})"
    )


def _database(config: Config) -> Iterator[Finding]:
    settings = config.settings
    witnessed = see_witness(config)
    if lost_database(settings) is not None:
        yield Finding("database", "", "made at the first start")
        yield _kek_alone(settings, first=is_missing(settings.state_directory / WITNESS))
        with empty_state() as snapshot:
            yield from _misfits(config, snapshot, witnessed)
        return
    try:
        with open_readonly(config) as store, store.read() as snapshot:
            yield Finding("database", "", f"opens; installation {snapshot.installation()}")
            problem = kek_problem(config, snapshot)
            ids = ", ".join(row.kek_id for row in snapshot.keks()) or "none in use yet"
            step = _kek_step(settings.kek, first=not snapshot.keks())
            step = step or "put the one back that this database was sealed with"
            yield Finding("KEK", problem, f"readable and the right one: {ids}", step)
            yield from _misfits(config, snapshot, witnessed)
    except StoreEmptyError:
        yield Finding("database", "", "can be reached; it is filled at the first start")
        yield _kek_alone(settings, first=is_missing(settings.state_directory / WITNESS))
    except RotatorError as error:
        step = error.step if isinstance(error, StoreDriverError) else _database_step(config)
        yield Finding("database", str(error), "", step)
        yield _kek_alone(settings, first=False)


def _misfits(config: Config, snapshot: Snapshot, witnessed: Witnessed) -> Iterator[Finding]:
    for subject, problem in misfits(config, snapshot, witnessed).items():
        kind, _, name = subject.partition(":")
        yield Finding("published set" if name else kind, problem, "", next_step(kind, name))


def _kek_alone(settings: Settings, *, first: bool) -> Finding:
    """Look at the KEK beside no database; ``first``: nothing was ever sealed with it."""
    source = settings.kek
    if source.may_create and source.file is not None and is_missing(source.file):
        return Finding("KEK", "", f"made in {source.file} at the first start; keep a copy apart from the backups")
    try:
        ring = read_kek(source)
    except KekError as error:
        problem = error.at_first() if first and isinstance(error, KekMissingError) else error
        return Finding("KEK", str(problem), "", _kek_step(source, first=first) or "mend it as the text above says")
    return Finding("KEK", "", f"readable: {', '.join(ring.keys)}")


def _kek_step(source: KekSource, *, first: bool) -> str:
    """Return what to do about a file that others can reach, or that is missing; empty when it is neither."""
    if source.file is None:
        return ""
    try:
        status = source.file.stat()
    except FileNotFoundError:
        return told("rotator", "kek", "generate", source.file) if first else f"put the KEK back at {source.file}"
    except OSError:
        return f"let this user ({me()}) read {source.file}"
    if source.kind is KekKind.CREDENTIAL:
        return ""
    if status.st_uid not in (0, os.geteuid()):
        return told("chown", me(), source.file)
    return told("chmod", "600", source.file) if stat.S_IMODE(status.st_mode) & 0o077 else ""


def _database_step(config: Config) -> str:
    settings = config.settings
    try:
        require_private(settings.state_directory)
    except FileNotFoundError:
        pass
    except (RotatorError, OSError):
        return _opening_step(settings.state_directory)
    if several_replicas(settings):
        return "see that the server of state.url runs and lets this user in"
    return "do what is said of the database above, or put a backup of it in its place"


def _writable(what: str, path: Path) -> Finding:
    problem, step = obstacle(path)
    if problem:
        return Finding(what, problem, str(path), step)
    made = "; it is made at the first start" if is_missing(path) else ""
    return Finding(what, "", f"{path} can be written{made}")


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
        yield Finding("control", problem, name, f"{told('groupadd', name)}, or mend its name")
    closed = Doorkeeper(settings.control).closed_directory(settings.state_directory)
    if closed is not None:
        directory, group = closed
        yield Finding("control", closed_to(group, directory, settings.control.socket), str(directory), OPEN_SOCKET)
