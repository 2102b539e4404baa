"""The rest of what a process has around it: the witness file, the sinks, the workers and the log."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

from rotator.core.model import FailureDomain, WorkspaceId
from rotator.core.policy import Sink
from rotator.core.sinks import sink_id
from rotator.errors import JournalError, WitnessError
from rotator.ports import (
    AuditRow,
    Bring,
    Ending,
    Errand,
    Journal,
    Leftover,
    Parcel,
    RevocationEntry,
    Sealer,
    WitnessRecord,
)
from tests.simulation.hazards import Hazards
from tests.simulation.keys import PRIVATE, TOKEN

SinkName = tuple[WorkspaceId, str]


@dataclass(slots=True)
class WitnessFile:
    """A replica's witness, sealed by the KEK that it was written under."""

    record: WitnessRecord | None = None
    seal: bytes = b""


@dataclass(frozen=True, slots=True)
class StandInWitness:
    """One process's hands on its witness; implements the port."""

    file: WitnessFile
    unlocked: Callable[[], Sealer]
    """What the process unlocked, as long as it remembers it."""
    hazards: Hazards

    def read(self) -> WitnessRecord | None:
        if self.file.record is not None and self.file.seal != self.unlocked().mac("witness", b""):
            raise WitnessError("the witness was not written under this KEK")
        return self.file.record

    def write(self, record: WitnessRecord) -> None:
        if self.file.record == record:
            return
        if self.hazards.disk_full:
            raise WitnessError("the witness cannot be written: No space left on device")
        self.hazards.before("witness")
        self.file.record, self.file.seal = record, self.unlocked().mac("witness", b"")
        self.hazards.done("witness")


@dataclass(slots=True)
class JournalFile:
    """A replica's journal of revocations."""

    journal: Journal = field(default_factory=Journal)


@dataclass(frozen=True, slots=True)
class StandInJournal:
    """One process's hands on its journal; implements the port."""

    file: JournalFile
    hazards: Hazards

    def read(self) -> Journal:
        return self.file.journal

    def append(self, entry: RevocationEntry) -> None:
        if self.hazards.disk_full:
            raise JournalError("the journal cannot be written: No space left on device")
        self.hazards.before("journal")
        self.file.journal = Journal((*self.file.journal.entries, entry))
        self.hazards.done("journal")


@dataclass(slots=True)
class Sinks:
    """Every place that tokens are delivered to, and what it holds."""

    held: dict[SinkName, Parcel] = field(default_factory=dict)
    failing: set[WorkspaceId] = field(default_factory=set)
    hanging: set[WorkspaceId] = field(default_factory=set)
    delivered: int = 0


@dataclass(frozen=True, slots=True)
class StandInCourier:
    """One process's way to the sinks; implements the port."""

    sinks: Sinks
    hazards: Hazards

    def domains(self, sinks: Sequence[Sink]) -> Sequence[FailureDomain]:
        return [FailureDomain("filesystem:/") for _ in sinks]

    def deliver(self, domain: FailureDomain, errands: Sequence[Errand], bring: Bring) -> None:
        """Deliver one after the other. What hangs keeps those behind it from being begun."""
        for number, (sink, parcel) in enumerate(errands):
            if parcel.workspace in self.sinks.hanging:
                bring(number, Ending("the sink says nothing", hung=True))
                return
            if parcel.workspace in self.sinks.failing:
                bring(number, Ending("the sink is out of order"))
                continue
            self.sinks.held[parcel.workspace, sink_id(sink)] = parcel
            self.sinks.delivered += 1
            bring(number, Ending())

    def compare(self, domain: FailureDomain, errands: Sequence[Errand], bring: Bring) -> None:
        for number, (sink, parcel) in enumerate(errands):
            if parcel.workspace in self.sinks.hanging:
                bring(number, Ending("the sink says nothing", hung=True))
                return
            held = self.sinks.held.get((parcel.workspace, sink_id(sink)))
            bring(number, Ending() if held is not None and held.jti == parcel.jti else Ending("it is gone"))

    def remove(self, domain: FailureDomain, leftovers: Sequence[Leftover], bring: Bring) -> None:
        for number, _ in enumerate(leftovers):
            bring(number, Ending())

    def cancel(self) -> None:
        """Nothing here hangs."""


class InTurn(Executor):
    """Works when it is asked, in the thread that asks."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the caller's
            future.set_exception(error)
        return future


class Carriers(Executor):
    """Workers that work when the world says so, in the order in which they were asked: the same for the same seed."""

    def __init__(self) -> None:
        self.waiting: deque[Callable[[], object]] = deque()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        self.waiting.append(lambda: fn(*args, **kwargs))
        return Future()

    def carry(self) -> bool:
        """Do all that waits; tell whether there was anything."""
        carried = bool(self.waiting)
        while self.waiting:
            self.waiting.popleft()()
        return carried

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.waiting.clear()


@dataclass(slots=True)
class WatchingLog:
    """The log: kept for as long as it takes to look whether a secret is in it, and counted."""

    events: int = 0
    leaks: list[str] = field(default_factory=list)
    rows: int = 0
    named: set[str] = field(default_factory=set)

    def audit(self, rows: Sequence[AuditRow]) -> None:
        self.rows += len(rows)

    def event(self, name: str, **fields: object) -> None:
        self.events += 1
        self.named.add(name)
        text = repr(fields)
        if PRIVATE in text or TOKEN in text:
            self.leaks.append(f"{name}: {text}")
