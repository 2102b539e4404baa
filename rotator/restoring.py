"""``rotator restore``: puts a backup in the place of the database, after showing what that will do.

What keeps an old database from doing harm is :mod:`rotator.engine.recover`, at the next start. Here the same code works
on a copy first, held against the same witness, so that what is shown is what will be done, and not a second opinion.
What was revoked since is revoked in the database before it is put in place: until the next start, too, whoever reads it
is told so. Nothing outside the state directory is changed, and there only the database; the one that it replaces is
kept.
"""

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rotator.adapters.disk import (
    REAL_DISK,
    Disk,
    describe,
    ensure_directory,
    lock_directory,
    open_directory,
    require_private,
)
from rotator.adapters.revocations import FileRevocations
from rotator.adapters.sealing import SourcedKeyring
from rotator.adapters.store import open_store
from rotator.adapters.store.backup import DatabaseFacts, examine, load_command, put_in_place, set_aside
from rotator.backing_up import require_sqlite
from rotator.config.settings import Config
from rotator.core.events import Detail, Event, EventName
from rotator.core.model import Jti, KeysetName, Kid, Phase, SigningKey
from rotator.engine.knowledge import Known
from rotator.engine.recover import carry_over_revocations, look_beside, reconcile
from rotator.engine.run import Run
from rotator.errors import KekError, PublishError, RefusedError, RotatorError, StoreError, WitnessError
from rotator.ports import AuditRow, RevocationEntry, Snapshot, WitnessRecord
from rotator.report.proof import prove
from rotator.wiring import open_copy, read_kek, user_name

SCRATCH: Final = ".restore-"
"""Begins the names of directories in which a backup is looked at; what a killed process left of them goes."""

REPLACED: Final = "replaced"
"""The directory, in the state directory, of databases that made room for a backup."""


# ------------------------------------------------------------------------------------------------- what will come of it


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptKey:
    """A public key that the backup does not have, or has as one that signs, and that stays published to its end."""

    kid: Kid
    until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysetForecast:
    """What the next start makes of one keyset."""

    keyset: KeysetName
    signs: Kid | None
    """The key that goes on signing; None: nothing signs until new keys were published for the propagation_period."""
    signs_published: bool
    """It is in the published set; if not, verifiers refuse its tokens until they have fetched the next one."""
    adopted: tuple[KeptKey, ...]
    """Published after the backup was made: they stay, and never sign."""
    erased: tuple[Kid, ...]
    """Keys whose private halves are erased."""
    unused: tuple[Kid, ...]
    """Published after the backup was made, and never signed with: no token needs them, and they leave."""
    unknown: tuple[Kid, ...]
    """In the published file, and known neither to the backup nor to the witness: taken out, and kept aside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What putting a backup in place will do."""

    file: str
    installation: str
    audit_seq: int
    """The last event of the backup."""
    last_event_at: datetime | None
    older: bool
    """The witness knows of what came after the backup."""
    missing_events: int
    """At least so many events came after it, by the witness."""
    keysets: tuple[KeysetForecast, ...]
    revoked_kids: tuple[Kid, ...]
    """Revoked after the backup was made, and revoked they stay."""
    revoked_jtis: tuple[Jti, ...]
    workspaces: int
    """How many are given a fresh token."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A backup that was put in place, or would have been."""

    rehearsed: bool
    forecast: Forecast
    replaced: tuple[str, ...]
    """Where the files of the replaced database are kept."""


@dataclass(slots=True)
class _Notes:
    """An event log that keeps what the rehearsed start would complain of."""

    problems: list[str] = field(default_factory=list)

    def audit(self, rows: Sequence[AuditRow]) -> None:
        """Let audit events pass: the next start logs its own."""

    def event(self, name: str, **fields: object) -> None:
        """Keep problems."""
        if "problem" in fields:
            self.problems.append(f"{name}: {fields['problem']}")


@dataclass(slots=True)
class Restoration:
    """A backup that was found fit, on a copy of it; :meth:`put_in_place` does the rest."""

    config: Config
    database: Path
    prepared: Path
    forecast: Forecast
    known: Known
    """What the witness beside the state, and the published metas, say."""
    journal: Sequence[RevocationEntry] = ()
    """The journal of revocations beside the state, which is not replaced."""
    disk: Disk = REAL_DISK

    def put_in_place(self, reason: str, now: datetime) -> tuple[str, ...]:
        """Replace the database; return where its files are kept now. Killed in between, one of the two is there."""
        self._finish(reason, now)
        try:
            kept = self._set_aside(now)
            put_in_place(self.prepared, self.database, disk=self.disk)
        except OSError as error:
            raise RefusedError(f"the backup was not put in place: {self.database}: {describe(error)}") from None
        return tuple(str(path) for path in kept)

    def _finish(self, reason: str, now: datetime) -> None:
        """Record in the backup who put it in place, and why; and revoke in it what was revoked since."""
        uid = os.getuid()
        store = open_store(f"sqlite:///{self.prepared}", create=False)
        try:
            with store.read() as snapshot:
                known = snapshot.keks()
            store.trust(SourcedKeyring(lambda: read_kek(self.config.settings.kek)).unlock(known))
            with store.begin() as transaction:
                event = Event(
                    name=EventName.BACKUP_RESTORED,
                    at=now,
                    actor=f"{user_name(uid)}({uid})",
                    reason=reason,
                    details=self._details(),
                )
                transaction.append([event, *carry_over_revocations(transaction, self.known, self.journal, now)])
            if not store.purge_erased():
                raise StoreError(f"{self.prepared} is being read by another process; try again")
        finally:
            store.close()

    def _details(self) -> dict[str, Detail]:
        details: dict[str, Detail] = {
            "file": self.forecast.file,
            "database_seq": self.forecast.audit_seq,
            "command": "restore",
        }
        if self.known.behind and self.known.record is not None:
            details |= {"witness_seq": self.known.record.audit_seq, "witness_hash": self.known.record.audit_hash}
        return details

    def _set_aside(self, now: datetime) -> tuple[Path, ...]:
        if not self.database.exists():
            return ()
        stamp = f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
        directory = self.config.settings.state_directory / REPLACED / stamp
        ensure_directory(directory, 0o700)
        kept = set_aside(self.database, directory)
        for changed in (directory, self.database.parent):
            with open_directory(changed) as fd:
                self.disk.fsync_directory(fd)
        return kept


# ---------------------------------------------------------------------------------------------------------- preparing


@contextmanager
def preparing(config: Config, file: Path, *, rehearse: bool, disk: Disk = REAL_DISK) -> Iterator[Restoration]:
    """Look at the backup and at what lies beside the state; hold the state's lock unless it is only rehearsed.

    Raises :class:`RefusedError` for a file that must not be put in place, with the reason.
    """
    settings = config.settings
    database = require_sqlite(
        settings, f"with the daemon stopped, put the backup back with:\n    {_load(config, file)}"
    )
    state = settings.state_directory
    try:
        if not state.exists():
            if rehearse:
                raise RefusedError(f"there is no state directory {state} to rehearse in; `rotator restore` makes it")
            ensure_directory(state, 0o700)
        require_private(state)
    except OSError as error:
        raise RefusedError(f"the state directory {state} cannot be used: {describe(error)}") from None
    if rehearse:
        with _scratch(state) as directory:
            yield _prepare(config, file, database, directory, disk)
        return
    with lock_directory(state):
        for left in state.glob(f"{SCRATCH}*"):
            shutil.rmtree(left)
        with _scratch(state) as directory:
            yield _prepare(config, file, database, directory, disk)


def _load(config: Config, file: Path) -> str:
    url = config.settings.state_url
    return "" if url.startswith("sqlite") else load_command(url, file)


@contextmanager
def _scratch(state: Path) -> Iterator[Path]:
    directory = state / f"{SCRATCH}{secrets.token_hex(4)}"
    directory.mkdir(mode=0o700)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _prepare(config: Config, file: Path, database: Path, directory: Path, disk: Disk) -> Restoration:
    file = file.absolute()
    try:
        facts = examine(file)
        if file.samefile(database) if database.exists() else False:
            raise RefusedError(f"{file} is the database itself")
        prepared, tried = directory / "prepared.db", directory / "tried.db"
        for copy in (prepared, tried):
            shutil.copyfile(file, copy)
            copy.chmod(0o600)
    except StoreError as error:
        raise RefusedError(str(error)) from None
    except OSError as error:
        raise RefusedError(f"{file} cannot be looked at: {describe(error)}") from None
    forecast, known = _foresee(config, file, facts, tried)
    journal = FileRevocations(config.settings.state_directory).read().entries
    return Restoration(config, database, prepared, forecast, known, journal, disk)


# ------------------------------------------------------------------------------------------------------------ foresight


def _foresee(config: Config, file: Path, facts: DatabaseFacts, tried: Path) -> tuple[Forecast, Known]:
    """Let the code of the next start work on the copy ``tried``; return what it did, and what the witnesses say."""
    notes = _Notes()
    with open_copy(config, tried, notes) as run:
        _unlock(run)
        witness = _read_witness(run, facts)
        with run.around.store.read() as snapshot:
            proof = prove(snapshot)
            known = look_beside(run, snapshot, witness)
            record, older = known.record, known.behind
            before = {row.key.kid: row.key for row in snapshot.all_keys()}
        reconcile(run, run.around.clock.read())
        with run.around.store.read() as snapshot:
            after = {row.key.kid: row.key for row in snapshot.all_keys()}
            events = [row.event for row in snapshot.audit(after=facts.audit_seq)]
            workspaces = snapshot.counts()["workspaces"] if older else 0
            keysets = tuple(_keyset(run, snapshot, row.name, before, after, record) for row in snapshot.keysets())
    warnings = [] if proof.intact else [f"the audit chain of the backup is broken: {proof.problem}"]
    if record is None:
        warnings.append(
            "there is no witness beside the state or the published sets, so nobody can tell what came after the "
            "backup: what was revoked since is not known, and tokens on keys that were made since will be refused"
        )
    elif witness is None:
        warnings.append(
            "there is no witness beside the state: what is published says which keys were revoked since, and not which "
            "tokens"
        )
    forecast = Forecast(
        file=str(file),
        installation=facts.installation,
        audit_seq=facts.audit_seq,
        last_event_at=facts.last_event_at,
        older=older,
        missing_events=0 if record is None else max(0, record.audit_seq - facts.audit_seq),
        keysets=keysets,
        revoked_kids=tuple(sorted(kid for kid in run.revoked_kids if _newly_revoked(kid, before))),
        revoked_jtis=tuple(event.jti for event in events if event.name is EventName.TOKEN_REVOKED and event.jti),
        workspaces=workspaces,
        warnings=(*warnings, *notes.problems),
    )
    return forecast, known


def _unlock(run: Run) -> None:
    with run.around.store.read() as snapshot:
        known = snapshot.keks()
    try:
        run.unlock(run.around.keyring.unlock(known))
    except KekError as error:
        raise RefusedError(f"the KEK of this machine does not open the backup: {error}") from None


def _read_witness(run: Run, facts: DatabaseFacts) -> WitnessRecord | None:
    try:
        record = run.around.witness.read()
    except WitnessError as error:
        raise RefusedError(str(error)) from None
    if record is not None and record.installation != facts.installation:
        raise RefusedError(
            f"the backup is of installation {facts.installation}, and the witness beside the state is of "
            f"{record.installation}: the daemon would refuse to work with both. If this backup is to take over here, "
            "move the witness away first; nothing then tells which keys and tokens were revoked"
        )
    return record


def _newly_revoked(kid: Kid, before: dict[Kid, SigningKey]) -> bool:
    return kid not in before or before[kid].phase is not Phase.REVOKED


def _keyset(
    run: Run,
    snapshot: Snapshot,
    name: KeysetName,
    before: dict[Kid, SigningKey],
    after: dict[Kid, SigningKey],
    record: WitnessRecord | None,
) -> KeysetForecast:
    mine = [key for key in after.values() if key.keyset == name]
    signs = [key.kid for key in mine if key.phase is Phase.ACTIVE and key.has_private]
    adopted = [KeptKey(kid=key.kid, until=key.grace_until) for key in mine if key.kid not in before]
    erased = [key.kid for key in mine if key.kid in before and before[key.kid].has_private and not key.has_private]
    published = _published(run, name)
    foreign = [kid for kid in published if snapshot.key(kid) is None and kid not in run.revoked_kids]
    witnessed = None if record is None else record.keysets.get(name)
    known = set() if witnessed is None else {key.kid for key in witnessed.published}
    return KeysetForecast(
        keyset=name,
        signs=signs[0] if signs else None,
        signs_published=not published or bool(signs and signs[0] in published),
        adopted=tuple(adopted),
        erased=tuple(erased),
        unused=tuple(kid for kid in foreign if kid in known),
        unknown=tuple(kid for kid in foreign if kid not in known),
    )


def _published(run: Run, name: KeysetName) -> tuple[Kid, ...]:
    try:
        found = run.around.publisher.found(name)
    except PublishError as error:
        raise RotatorError(f"the published set cannot be held against the backup: {error}") from None
    return () if found is None else found.kids
