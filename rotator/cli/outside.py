"""How things stand where no daemon can be asked: the state held against what lies beside it.

A database that is lost, or an older or another one in its place, looks sound when it is read alone. So the witness and
the published sets are read as well, and it is told what ``rotator run`` will do about them.
"""

import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rotator.adapters.publish import TreePublisher
from rotator.adapters.sealing import SourcedKeyring
from rotator.adapters.store import open_store
from rotator.adapters.witness import FileWitness
from rotator.config.settings import Config, Settings
from rotator.core.counting import counted
from rotator.core.model import KeysetName
from rotator.core.timeguard import Reading, judge
from rotator.engine.recover import is_behind_witness
from rotator.errors import KekError, PublishError, WitnessError
from rotator.ports import Snapshot, WitnessRecord
from rotator.report.restores import Beside
from rotator.told import told
from rotator.wiring import WITNESS, read_kek


def several_replicas(settings: Settings) -> bool:
    """Tell whether other daemons may work on the same database."""
    return not settings.state_url.startswith("sqlite")


def lost_database(settings: Settings) -> Path | None:
    """Return the path of an SQLite database that is missing or empty; None where there is one."""
    if several_replicas(settings):
        return None
    path = Path(settings.state_url.removeprefix("sqlite:///"))
    try:
        return None if path.stat().st_size else path
    except FileNotFoundError:
        return path
    except OSError:
        return None  # out of this user's sight; whoever opens it says so


@contextmanager
def empty_state() -> Iterator[Snapshot]:
    """Give a snapshot of a database with nothing in it, in place of one that is lost."""
    with (
        TemporaryDirectory(prefix="rotator-") as directory,
        closing(open_store(f"sqlite:///{directory}/empty.db", create=True)) as store,
        store.read() as snapshot,
    ):
        yield snapshot


@dataclass(frozen=True, slots=True)
class Witnessed:
    """What the witness says; to be read before the database, which a running daemon moves on first."""

    record: WitnessRecord | None
    problem: str = ""


def see_witness(settings: Settings) -> Witnessed:
    """Read the witness. One that the KEK cannot open is no problem of its own: the KEK is told of."""
    keyring = SourcedKeyring(lambda: read_kek(settings.kek))
    try:
        return Witnessed(FileWitness(settings.state_directory / WITNESS, lambda: keyring.unlock(())).read())
    except KekError:
        return Witnessed(None)
    except WitnessError as error:
        return Witnessed(None, str(error))


def beside(snapshot: Snapshot, witnessed: Witnessed) -> Beside:
    """Return what the witness knows that an older database may lack; nothing where it is of another one."""
    record = witnessed.record
    if record is None or record.installation != snapshot.installation():
        return Beside()
    return Beside(
        revoked_kids=record.revoked_kids,
        revoked_jtis=record.revoked_jtis,
        ahead=record if is_behind_witness(snapshot, record) else None,
    )


# ------------------------------------------------------------------------------------------------------------- faults


def find_faults(config: Config, snapshot: Snapshot, reading: Reading, witnessed: Witnessed) -> dict[str, str]:
    """Return what a look from outside finds wrong, by the subjects that the daemon uses."""
    faults: dict[str, str] = {}
    problem = kek_problem(config, snapshot)
    if problem:
        faults["kek"] = problem
    verdict = judge(
        snapshot.clock_mark(), reading, clock_skew=config.policy.clock_skew, max_gap=config.policy.clock_max_gap
    )
    if not verdict.trusted:
        faults["clock"] = verdict.held
    faults |= misfits(config, snapshot, witnessed)
    unknown = _unknown_workspaces(config, snapshot)
    if unknown:
        faults["state"] = unknown
    publisher = publisher_of(config.settings)
    for row in snapshot.keysets():
        if row.ended_at is None and row.set_sha256:
            problem = _set_problem(publisher, row.name, row.set_sha256)
            if problem:
                faults[f"publish:{row.name}"] = problem
    return faults


def kek_problem(config: Config, snapshot: Snapshot) -> str:
    """Return why the KEK cannot be used with this database; empty when it can."""
    try:
        SourcedKeyring(lambda: read_kek(config.settings.kek)).unlock(snapshot.keks())
    except KekError as error:
        return str(error)
    return ""


def publisher_of(settings: Settings) -> TreePublisher:
    """Return the published tree, to read it."""
    return TreePublisher(
        settings.publish_directory,
        settings.base_url,
        settings.state_directory / "aside",
        state_directory=settings.state_directory,
        max_age=settings.max_cache,
    )


def _set_problem(publisher: TreePublisher, name: KeysetName, sha256: str) -> str:
    try:
        published = publisher.read(name)
    except PublishError as error:
        return str(error)
    if published is None:
        return f"the published set of keyset {name} is missing or is no JWK Set"
    if hashlib.sha256(published.content).hexdigest() != sha256:
        return f"the published set of keyset {name} is not the one that was last written"
    return ""


def _unknown_workspaces(config: Config, snapshot: Snapshot) -> str:
    known = {state.id for state in snapshot.workspaces() if state.removed_at is None}
    count = len(config.policy.workspaces.keys() - known)
    if not count:
        return ""
    workspaces = counted(count, "workspace")
    return f"the config has {workspaces} that the state does not know yet, so that no token was issued there"


# ----------------------------------------------------------------------------------------- the witness, foreign sets


def misfits(config: Config, snapshot: Snapshot, witnessed: Witnessed) -> dict[str, str]:
    """Return where the database does not fit to what lies beside it, and what ``rotator run`` will do, by subject."""
    found: dict[str, str] = {}
    problem = _witness_problem(config, snapshot, witnessed)
    if problem:
        found["witness"] = problem
    publisher = publisher_of(config.settings)
    for name in config.policy.keysets:
        problem = _foreign_set(publisher, snapshot, name)
        if problem:
            found[f"foreign:{name}"] = problem
    return found


def _witness_problem(config: Config, snapshot: Snapshot, witnessed: Witnessed) -> str:
    settings, record = config.settings, witnessed.record
    if record is None:  # under another KEK it cannot be authentic, and that KEK is the problem
        return witnessed.problem if witnessed.problem and not kek_problem(config, snapshot) else ""
    path = settings.state_directory / WITNESS
    way_out = (
        "`rotator run` issues, publishes and delivers nothing until the right database is put back, or, if it is lost "
        f"for good, the witness is moved away ({told('mv', path, f'{path}.lost')}): nothing then tells what was revoked"
    )
    lost = lost_database(settings)
    if lost is not None:
        return f"the database {lost} is missing or empty, and the witness {path} knows of one. {way_out}"
    installation = snapshot.installation()
    if record.installation != installation:
        return (
            f"the database is of installation {installation}, and the witness {path} knows another one,"
            f" {record.installation}. {way_out}"
        )
    if is_behind_witness(snapshot, record):
        return (
            f"{_how_it_differs(snapshot, record, path)}. `rotator run` takes it for a restored backup: what was "
            "revoked stays revoked, what was published stays published, and every workspace is given a fresh token. If "
            "a newer database is at hand, put that one in place before"
        )
    return ""


def _how_it_differs(snapshot: Snapshot, record: WitnessRecord, path: Path) -> str:
    last, known = snapshot.audit_head().seq, record.audit_seq
    if known > last:
        return (
            f"the database is older than the witness {path}: it ends at event {last}, the witness knows event {known}"
        )
    return (
        f"the database has another history than the one that the witness {path} knows: its event {known} has the hash "
        f"{snapshot.audit_hash(known)}, where the witness knows the hash {record.audit_hash}. So it is an older one "
        f"with events of its own since, up to {last}, or another copy"
    )


def _foreign_set(publisher: TreePublisher, snapshot: Snapshot, name: KeysetName) -> str:
    """Return what is wrong with a set that is published for a keyset that the database does not know."""
    if snapshot.keyset(name) is not None:
        return ""
    try:
        published = publisher.found(name)
    except PublishError as error:
        return str(error)
    if published is None or not published.kids:
        return ""
    waits = "the keyset waits" if snapshot.keysets() else "`rotator run` refuses to start"
    return (
        f"keyset {name} is new to this database, and a set of {counted(len(published.kids), 'key')} is published "
        f"for it already, which verifiers hold. Until it is adopted or replaced, {waits}"
    )
