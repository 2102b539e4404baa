"""``rotator backup``: a copy of the database while the daemon works, and what belongs with it."""

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rotator.adapters.disk import REAL_DISK, Disk, describe, require_private
from rotator.adapters.store import open_store
from rotator.adapters.store.backup import copy_database, dump_command, examine, load_command
from rotator.adapters.store.connect import BESIDE
from rotator.config.outputs import require_own_place
from rotator.config.settings import KekSource, Settings
from rotator.errors import RefusedError, StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup that was made. Of no use without the KEK, and made so that it never holds it."""

    file: str
    size_bytes: int
    installation: str
    audit_seq: int
    """The last event in it."""
    audit_hash: str
    keks: tuple[str, ...]
    """Ids of what it is sealed with."""
    kek: str
    """Where that is on this machine."""
    config: str


def back_up(settings: Settings, config: Path, file: Path, *, disk: Disk = REAL_DISK) -> Backup:
    """Put a copy of the database at ``file``, whole and durable or not at all.

    It needs no more of the config than ``settings``, so that a workspace that is wrong keeps no backup from being made.
    Raises :class:`RefusedError` where that is not possible, or where something else stands at ``file``.
    """
    file = file.absolute()
    require_own_place(file)
    database = require_sqlite(settings, f"back it up with:\n    {_dump(settings, file)}")
    try:
        require_private(settings.state_directory)
    except OSError as error:
        raise RefusedError(f"there is no state to back up in {settings.state_directory}: {error.strerror}") from None
    with (
        closing(open_store(settings.state_url, create=False, read_only=True)) as store,
        store.read() as snapshot,
    ):
        installation = snapshot.installation()
        keks = tuple(row.kek_id for row in snapshot.keks())
    _refuse_place(settings, database, file, installation)
    try:
        facts = copy_database(database, file, disk=disk)
        size = file.stat().st_size
    except OSError as error:
        raise RefusedError(f"no backup was made at {file}: {describe(error)}") from None
    return Backup(
        file=str(file),
        size_bytes=size,
        installation=facts.installation,
        audit_seq=facts.audit_seq,
        audit_hash=facts.audit_hash,
        keks=keks,
        kek=place_of(settings.kek),
        config=str(config.absolute()),
    )


def require_sqlite(settings: Settings, instead: str) -> Path:
    """Return the database file; raise :class:`RefusedError` for a PostgreSQL database, with what to do instead."""
    if not settings.state_url.startswith("sqlite"):
        raise RefusedError(f"the state is in PostgreSQL, which has its own tools for this; {instead}")
    return Path(settings.state_url.removeprefix("sqlite:///"))


def place_of(source: KekSource) -> str:
    """Return where the KEK is, for people."""
    return "$ROTATOR_KEK" if source.file is None else str(source.file)


def _dump(settings: Settings, file: Path) -> str:
    if settings.state_url.startswith("sqlite"):
        return ""
    url = settings.state_url
    return f"{dump_command(url, file)}\nto put it back, with the daemon stopped:\n    {load_command(url, file)}"


def _refuse_place(settings: Settings, database: Path, file: Path, installation: str) -> None:
    """Refuse a path where a backup would do harm: over something else, or where all can fetch it."""
    for end in BESIDE:
        beside = database.with_name(f"{database.name}{end}")
        if os.path.realpath(file) == os.path.realpath(beside):
            raise RefusedError(f"{file} is the database itself; name another file, best on another disk")
    if Path(os.path.realpath(file)).is_relative_to(os.path.realpath(settings.publish_directory)):
        raise RefusedError(f"{file} is in the published directory, which is served to everybody; name another place")
    if not os.path.lexists(file):
        return
    try:
        there = None if file.is_symlink() else examine(file).installation
    except StoreError:
        there = None
    if there != installation:
        what = "something that is no backup" if there is None else f"a backup of another installation ({there})"
        raise RefusedError(f"{file} is {what}, and is left as it is; move it away, or name another file")
