"""What the steps of a tick share: the surroundings they act on, the policy in force, and a memory that may be lost.

Nothing here needs to survive: all of it is built again from the database, the tree and the KEK at the next start.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from queue import SimpleQueue
from typing import Final

from rotator.core.model import Algorithm, Jti, KekId, KeysetName, Kid, ReplicaId, SinkId, WorkspaceId
from rotator.core.policy import KeysetPolicy, Policy
from rotator.core.stored_policy import policy_from_json
from rotator.core.timeguard import ClockMark
from rotator.engine.answers import Answers
from rotator.errors import KekError, SealError
from rotator.ports import (
    Answer,
    AuditHead,
    Calendar,
    Clock,
    Courier,
    EventLog,
    Journal,
    KeyMaker,
    KeyMaterial,
    Keyring,
    KeysetRow,
    Publisher,
    RequestRow,
    RevocationEntry,
    RevocationJournal,
    Sealer,
    ServedSets,
    Signer,
    Store,
    TokenMaker,
    Witness,
    WitnessedKeyset,
)

COMPARE_INTERVAL: Final = timedelta(hours=1)
"""How often everything is held against what should be, due or not."""

RETRY_CEILING: Final = timedelta(seconds=30)
"""The longest wait before a keyset that failed is tried again: its work is local and cheap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The ports, filled."""

    replica: ReplicaId
    store: Store
    clock: Clock
    calendar: Calendar
    keyring: Keyring
    keymaker: KeyMaker
    tokenmaker: TokenMaker
    publisher: Publisher
    courier: Courier
    witness: Witness
    journal: RevocationJournal
    log: EventLog
    served: ServedSets | None = None


@dataclass(frozen=True, slots=True)
class Signing:
    """A key that signs, ready to be used."""

    kid: Kid
    signer: Signer
    policy: KeysetPolicy


@dataclass(frozen=True, slots=True)
class Attested:
    """What the meta file of a published set says under its MAC, beside the head of the audit when it was written."""

    kek_id: KekId
    installation: str
    known: WitnessedKeyset
    revoked_kids: frozenset[Kid]


def mint_workers() -> Executor:
    """Return a few threads: while one waits for its signatures, the next is made ready and another is taken in."""
    return ThreadPoolExecutor(max_workers=3, thread_name_prefix="rotator-mint")


def key_makers() -> Executor:
    """Return a thread for the key that is to sign and one for its spare: an RSA key is made outside the interpreter."""
    return ThreadPoolExecutor(max_workers=2, thread_name_prefix="rotator-fresh")


@dataclass(frozen=True, slots=True)
class FreshKeys:
    """Keys that are being made, or made, for one keyset, and not stored yet."""

    algorithm: Algorithm
    makings: list[Future[KeyMaterial]]

    @property
    def ready(self) -> list[Future[KeyMaterial]]:
        """Return those that are made."""
        return [each for each in self.makings if each.done() and each.exception() is None]


@dataclass(frozen=True, slots=True)
class Pending:
    """A file that is to go."""

    due_at: datetime
    failures: int = 0
    hung: bool = False


@dataclass(slots=True)
class Accepting:
    """A config that a person accepted, and that is being applied."""

    nonce: str
    """Of the request."""
    policy: Policy
    steps: Iterator[None] | None = None
    """What is left to do; None: to be begun, or begun anew."""
    begun: bool = False
    """It drops what was seen when it was accepted, or some of that by now."""


@dataclass(slots=True)
class Run:
    """One daemon's, or one command's, work on one state."""

    around: Surroundings
    policy: Policy
    sealer: Sealer | None = None
    """None while the KEK is missing or wrong."""
    signers: dict[tuple[Kid, bytes], Signer] = field(default_factory=dict)
    """Opened private halves, by kid and sealed record, so that a changed record is opened anew."""
    signing: dict[KeysetName, Signing] = field(default_factory=dict)
    witnessed: dict[KeysetName, WitnessedKeyset] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    """What is wrong now, by subject: ``kek``, ``clock``, ``witness``, ``config``, ``publish:NAME`` …"""
    tampered: dict[str, datetime] = field(default_factory=dict)
    """When each row was found last that somebody else wrote or changed, by the subject of its fault."""
    tampered_workspaces: bool = False
    """Rows of workspaces were found of which the config has to say anew what they say."""
    leftovers: dict[tuple[WorkspaceId, SinkId], Pending] = field(default_factory=dict)
    """Files that the config has no more and that are to go, as the rows of their workspaces say."""
    faulty_rows: dict[KeysetName, frozenset[Kid]] = field(default_factory=dict)
    """Keys of which ``faults`` tells that their rows are gone or changed, by the keyset that was looked at."""
    started_at: datetime | None = None
    """When this run registered its replica."""
    installation: str = ""
    """The id of the database."""
    revoked_kids: set[Kid] = field(default_factory=set)
    revoked_jtis: dict[Jti, datetime] = field(default_factory=dict)
    revoked_in: dict[Kid, KeysetName | None] = field(default_factory=dict)
    """Whose revoked keys those were; None: no row says so."""
    attested: dict[KeysetName, Attested] = field(default_factory=dict)
    """What the metas in the published tree say, as far as this run read or wrote them."""
    pointers: dict[KeysetName, tuple[str, str]] = field(default_factory=dict)
    """What discovery said of each keyset when this run wrote it last: the issuer, and where the set is."""
    served_behind: dict[tuple[KeysetName, str], datetime] = field(default_factory=dict)
    """Since when a served URL lacks a key that is published."""
    refused_metas: dict[KeysetName, str] = field(default_factory=dict)
    """Metas that were reported, and why."""
    partly_known: set[KeysetName] = field(default_factory=set)
    """Keysets of which the first look, with no witness from before, already found rows that cannot be believed."""
    once_ours: dict[Kid, str] = field(default_factory=dict)
    """Public JWKs of keys that the witness or a meta names, whether the database has them or not."""
    journal: Journal = field(default_factory=Journal)
    """The journal of revocations as it was read last."""
    latest: list[RevocationEntry] = field(default_factory=list)
    """Revocations that were written there since."""
    unwritten: list[RevocationEntry] = field(default_factory=list)
    """Revocations that the journal could not take."""
    followed: set[str] = field(default_factory=set)
    """Ids of journaled revocations that this database has as requests."""
    urgent: SimpleQueue[RequestRow] = field(default_factory=SimpleQueue)
    """Revocations as they are accepted, for the loop: whatever becomes of their rows."""
    pressing: list[RequestRow] = field(default_factory=list)
    """Those that this tick has taken from there, and has to answer before it is over."""
    lock_lost: Callable[[], str] = lambda: ""
    """Tells why a second process could work on this state, too; empty while none can."""
    stopping: Callable[[], bool] = lambda: False
    """Tells whether the daemon is to stop, so that a step ends before its next piece of work."""
    wake: Callable[[], None] = lambda: None
    """Wakes the loop; may be called from any thread."""
    replicas: frozenset[ReplicaId] = frozenset()
    """Those that publish a tree, this one among them, as far as the witness or the database said so last."""
    refused_policy: Policy | None = None
    """A loaded policy that waits for `config accept`."""
    accepting: Accepting | None = None
    """One that was accepted, and on which the database does not follow in full yet."""
    answers: Answers = field(default_factory=Answers)
    """Where those wait who asked for something; never stored."""
    outcomes: dict[str, Answer] = field(default_factory=dict)
    """Answers, by nonce, whose transaction is not over yet."""
    answered: dict[str, datetime] = field(default_factory=dict)
    """Nonces of the requests that were answered, with when each was accepted: for the witness."""
    minting: Callable[[], Executor] = mint_workers
    """Makes what mints beside the loop, for one tick."""
    key_makers: Callable[[], Executor] = key_makers
    """Makes what makes keys beside the loop."""
    makers: Executor | None = None
    """What makes the keys that are due, for all keysets."""
    fresh: dict[KeysetName, FreshKeys] = field(default_factory=dict)
    """Keys that are made, or being made, and not stored yet."""
    compare_interval: timedelta = COMPARE_INTERVAL
    """How often this run holds everything against what should be; a world with a clock of its own may want another."""
    outdone: bool = False
    """A meta was found that knows what the database lacks: nothing is published before it was followed."""
    reconciled: bool = False
    """The database was held against the witness since the last doubt."""
    head: AuditHead | None = None
    """The head of the audit chain as this run last saw it."""
    clock: ClockMark | None = None
    """What this run knows of time, once it trusted the clock."""
    caught_up: AuditHead | None = None
    """The head as of which this run knows what other replicas did."""

    def unlock(self, sealer: Sealer | None) -> None:
        """Work with the KEKs of ``sealer`` from now on, and believe the rows that they authenticate; None: without."""
        if sealer is not self.sealer:
            self.sealer = sealer
            self.around.store.trust(sealer)

    @property
    def ready_sealer(self) -> Sealer:
        """Return the sealer; raise :class:`KekError` while there is none."""
        if self.sealer is None:
            raise KekError(self.faults.get("kek", "the key-encryption key has not been read yet"))
        return self.sealer

    def keyset_policy(self, row: KeysetRow) -> KeysetPolicy:
        """Return the policy that ``row`` rotates by: the config's, or its last one while it ends."""
        policy = self.policy.keysets.get(row.name)
        if policy is not None:
            return policy
        if not row.authentic:
            raise SealError(
                f"the row of keyset {row.name} was changed by somebody else, and the config has no such keyset: nobody "
                "can tell how it ends. What is published of it stays. Restore the database from a backup"
            )
        return replace(policy_from_json(row.policy), ending=True)

    def fault(self, subject: str, problem: str, event: str, *, again: bool = False, **fields: object) -> None:
        """Remember what is wrong with ``subject``, and log it once until it changes.

        ``again``: log it in any case, for somebody asked for what went wrong once more.
        """
        if again or self.faults.get(subject) != problem:
            self.faults[subject] = problem
            self.around.log.event(event, problem=problem, **fields)

    def healed(self, subject: str, event: str = "fault.healed", **fields: object) -> None:
        """Forget a fault, if there was one, and log that it is over."""
        if self.faults.pop(subject, None) is not None:
            self.around.log.event(event, subject=subject, **fields)


def backoff(failures: int, ceiling: timedelta, spread: float) -> timedelta:
    """Return how long to wait after the ``failures``-th failure in a row: doubling from 1 s, then spread by a quarter.

    ``spread`` in [0, 1) keeps many that failed together from coming back together.
    """
    wait = min(ceiling, timedelta(seconds=2 ** min(failures - 1, 20)))
    return wait - wait / 4 * spread


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tick leaves to do."""

    next_due: datetime
    """When to tick again at the latest."""
    more: bool = False
    """Work is waiting: tick again at once."""
