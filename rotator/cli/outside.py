"""How things stand where no daemon can be asked: the state held against what lies beside it.

A database that is lost, or an older or another one in its place, looks sound when it is read alone. So the witness and
the published sets are read as well, and it is told what ``rotator run`` will do about them.
"""

import hashlib
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from rotator.adapters.publish import TreePublisher
from rotator.adapters.revocations import FileRevocations
from rotator.adapters.sealing import SourcedKeyring
from rotator.adapters.store import SqlStore, open_store
from rotator.adapters.witness import FileWitness
from rotator.config.settings import Config, Settings
from rotator.core.counting import counted
from rotator.core.model import KeysetName
from rotator.core.timeguard import Reading, judge
from rotator.engine.knowledge import BY_META, Known, hold_against
from rotator.engine.second_witness import Metas, read_metas
from rotator.errors import KekError, PublishError, WitnessError
from rotator.ports import Journal, Snapshot, WitnessRecord
from rotator.report.restores import Beside
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
    """What the witnesses say; to be read before the database, which a running daemon moves on first."""

    record: WitnessRecord | None
    """What the witness in the state directory says."""
    problem: str = ""
    journal: Journal = field(default_factory=Journal)
    """The journal of revocations, which needs no KEK."""
    metas: Metas = field(default_factory=Metas)
    configured: Collection[KeysetName] = ()

    def held_against(self, snapshot: Snapshot) -> Known:
        """Return what those of this installation know, held against its database."""
        installation = snapshot.installation()
        record = self.record if self.record is not None and self.record.installation == installation else None
        mine = [meta for meta in self.metas.authentic if meta.installation == installation]
        return hold_against(snapshot, record, mine, self.configured)


def see_witness(config: Config) -> Witnessed:
    """Read the witness and the metas. What the KEK cannot open is no problem of its own: the KEK is told of."""
    settings = config.settings
    keyring = SourcedKeyring(lambda: read_kek(settings.kek))
    journal = FileRevocations(settings.state_directory).read()
    record, problem = None, ""
    try:
        sealer = keyring.unlock(())
    except KekError:
        return Witnessed(None, journal=journal)
    try:
        record = FileWitness(settings.state_directory / WITNESS, lambda: sealer).read()
    except WitnessError as error:
        problem = str(error)
    names = config.policy.keysets.keys() | (set() if record is None else record.keysets.keys())
    metas = read_metas(publisher_of(settings), sealer, sorted(names))
    return Witnessed(record, problem, journal, metas, config.policy.keysets.keys())


def beside(snapshot: Snapshot, witnessed: Witnessed) -> Beside:
    """Return what journal and witnesses know that the database may lack; of witnesses of another one, nothing."""
    known = witnessed.held_against(snapshot)
    if known.record is None:
        return Beside(journal=witnessed.journal.entries)
    return Beside(
        journal=witnessed.journal.entries,
        revoked_kids=known.record.revoked_kids,
        revoked_jtis=known.record.revoked_jtis,
        ahead=known.record if known.behind else None,
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
    faults |= {f"row:{changed.table} {changed.key}".rstrip(): changed.problem for changed in snapshot.changed_rows()}
    if witnessed.journal.problem:
        faults["journal"] = witnessed.journal.problem
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


def trust(config: Config, store: SqlStore) -> None:
    """Let the rows of ``store`` be verified where the KEK is at hand; where it is not, that is a fault of its own."""
    with store.read() as snapshot:
        known = snapshot.keks()
    try:
        store.trust(SourcedKeyring(lambda: read_kek(config.settings.kek)).unlock(known))
    except KekError:
        return


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
    for name, problem in _refused_metas(config, snapshot, witnessed.metas).items():
        found[f"meta:{name}"] = (
            f"the meta file of keyset {name} does not count: {problem}; `rotator run` writes it again"
        )
    for name in config.policy.keysets:
        problem = _foreign_set(publisher, snapshot, name)
        if problem:
            found[f"foreign:{name}"] = problem
    return found


def _refused_metas(config: Config, snapshot: Snapshot, metas: Metas) -> dict[KeysetName, str]:
    """Return why metas of keysets that the database knows say nothing, by keyset; under another KEK none can."""
    problems = {} if not metas.problems or kek_problem(config, snapshot) else dict(metas.problems)
    for meta in metas.authentic:
        if meta.installation != snapshot.installation():
            problems[meta.keyset] = f"it is of another installation, {meta.installation}"
    return {name: problem for name, problem in problems.items() if snapshot.keyset(name) is not None}


def _witness_problem(config: Config, snapshot: Snapshot, witnessed: Witnessed) -> str:
    settings, record = config.settings, witnessed.record
    if witnessed.problem:  # under another KEK nothing can be authentic, and that KEK is the problem
        return "" if kek_problem(config, snapshot) else witnessed.problem
    path = settings.state_directory / WITNESS
    way_out = (
        "`rotator run` issues, publishes and delivers nothing until the right database is put back, or, if it is lost "
        "for good, a new one is begun that knows what was published and revoked: rotator published adopt"
    )
    lost = lost_database(settings)
    if record is not None and lost is not None:
        return f"the database {lost} is missing or empty, and the witness {path} knows of one. {way_out}"
    installation = snapshot.installation()
    if record is not None and record.installation != installation:
        return (
            f"the database is of installation {installation}, and the witness {path} knows another one,"
            f" {record.installation}. {way_out}"
        )
    known = witnessed.held_against(snapshot)
    if known.record is not None and known.behind:
        source = f"the witness {path}"
        if known.by == BY_META:
            names = ", ".join(sorted(known.keysets))
            source = f"the published {BY_META} of keyset {names} in {settings.publish_directory}"
        return (
            f"{_how_it_differs(snapshot, known.record, source)}. `rotator run` takes it for a restored backup: what "
            "was revoked stays revoked, what was published stays published, and every workspace is given a fresh "
            "token. If a newer database is at hand, put that one in place before"
        )
    return ""


def _how_it_differs(snapshot: Snapshot, record: WitnessRecord, source: str) -> str:
    last, known = snapshot.audit_head().seq, record.audit_seq
    if known > last:
        return f"the database is older than {source}: it ends at event {last}, and event {known} is known there"
    if snapshot.audit_hash(known) == record.audit_hash:
        return f"the database is older than {source}: that is of a later set, written after event {known}"
    return (
        f"the database has another history than the one that is known to {source}: its event {known} has the hash "
        f"{snapshot.audit_hash(known)}, where the hash {record.audit_hash} is known there. So it is an older one "
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
