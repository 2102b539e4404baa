"""Carries deliveries and comparisons beside the loop: who has a place, what they carry, and what they brought back.

A place is one worker. A command needs one each; what goes to one file system goes through one worker, in batches, so
that a file system that hangs holds up that worker and nobody else. A sink that hung is a failure domain of its own from
then on, until it answers: its neighbours do not wait for it again.
"""

import queue
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Final, TypeVar

from rotator.core.model import FailureDomain, SinkId, WorkspaceId
from rotator.core.policy import CommandSink, Sink
from rotator.core.sharing import Place, admit
from rotator.ports import Bring, Courier, DeliveryRow, Ending, Errand, Leftover

RECORDED_AT_ONCE: Final = 250
"""Results that wake the loop. A tick, with two commits, costs as much as a dozen files."""

RECORD_INTERVAL: Final = timedelta(milliseconds=250)
"""How long a result waits for others, and a free worker for what is due."""

COMMANDS_AT_ONCE: Final = 32
FILE_DOMAINS_AT_ONCE: Final = 16

FILES_AT_A_TIME: Final = 250
"""Handed to a file system in one go, …"""

FILES_AHEAD: Final = 750
"""… and claimed for it before it has taken them. What is claimed too far ahead outlives its lease while it waits."""

GIVE_WAY_FOR: Final = timedelta(seconds=5)
"""How long deliveries wait for many tokens to be issued; that many take longer than this to deliver."""

PUT_OFF: Final = timedelta(seconds=5)
"""When to look again at a delivery that is under way, or that lacks its sink or its token."""

Key = tuple[WorkspaceId, SinkId]


@dataclass(frozen=True, slots=True)
class Job:
    """One sink of one workspace, to be given its token or to be looked at."""

    row: DeliveryRow
    errand: Errand
    place: Place
    domain: FailureDomain
    """What it shares with others; its place is in one of its own if it hung."""
    compares: bool = False

    @property
    def key(self) -> Key:
        """Whose job it is."""
        return self.row.workspace, self.row.sink

    @property
    def sink(self) -> Sink:
        """Where it goes."""
        return self.errand.sink


@dataclass(frozen=True, slots=True)
class Leaving:
    """A file that the config has no more, to be deleted."""

    key: Key
    leftover: Leftover
    place: Place
    domain: FailureDomain

    @property
    def sink(self) -> Sink:
        """What is to go."""
        return self.leftover.sink


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a job."""

    job: Job
    ending: Ending | None
    """None: it was never begun."""


@dataclass(frozen=True, slots=True)
class Gone:
    """What came of a file that was to go."""

    job: Leaving
    ending: Ending | None
    """None: it was never begun."""


Brought = TypeVar("Brought", Result, Gone)


@dataclass(frozen=True, slots=True)
class Hung:
    """A sink that did not answer the last time."""

    domain: FailureDomain
    """What it shares with others."""
    problem: str
    row: DeliveryRow


@dataclass(slots=True)
class Deliveries:
    """The workers, what they carry, and what they brought back."""

    wake: Callable[[], None]
    files: Executor = field(default_factory=lambda: ThreadPoolExecutor(FILE_DOMAINS_AT_ONCE, "rotator-file"))
    commands: Executor = field(default_factory=lambda: ThreadPoolExecutor(COMMANDS_AT_ONCE, "rotator-command"))
    done: queue.SimpleQueue[Result] = field(default_factory=queue.SimpleQueue)
    gone: queue.SimpleQueue[Gone] = field(default_factory=queue.SimpleQueue)
    under_way: dict[Key, Job | Leaving] = field(default_factory=dict)
    hung: dict[Key, Hung] = field(default_factory=dict)
    """Lost at a stop, and found out anew."""
    waiting: bool = False
    """Something is due that there was no place for."""
    passed: int = 0
    """Due deliveries at the front of the queue that a tick has looked past, for their domains have no place."""
    giving_way: bool = False
    """Nothing new is to be claimed now, nor what was issued to be logged: more is to be issued than one tick can."""
    _gave_way_at: timedelta | None = None
    _queues: dict[FailureDomain, deque[Job | Leaving]] = field(default_factory=dict)
    """Jobs for file systems, by who works on them."""
    _queueing: Lock = field(default_factory=Lock)

    def give_way(self, since_boot: timedelta, *, issuing: bool) -> None:
        """Give way when more tokens are to be issued than one tick can.

        As after a compromise: workers beside the loop would hold up every token but the first. Not for longer than
        :data:`GIVE_WAY_FOR`, measured by CLOCK_BOOTTIME.
        """
        if not issuing:
            self._gave_way_at = None
        elif self._gave_way_at is None:
            self._gave_way_at = since_boot
        self.giving_way = self._gave_way_at is not None and since_boot - self._gave_way_at < GIVE_WAY_FOR

    def next_look(self, due: datetime, now: datetime) -> datetime:
        """Return when the loop is to look again although nothing wakes it, if it is to do so at ``due`` anyway."""
        only_commands = all(isinstance(job.sink, CommandSink) for job in self.under_way.values())
        if self.waiting:  # what is due waits for a place, and whoever gives one up wakes the loop
            return now + (PUT_OFF if only_commands and not self.passed else RECORD_INTERVAL)
        return due if only_commands else min(due, now + RECORD_INTERVAL)

    def place(self, key: Key, domain: FailureDomain) -> Place:
        """Return what a job for this sink needs a place in."""
        return self.place_of(key, domain, hung=key in self.hung)

    @staticmethod
    def place_of(key: Key, domain: FailureDomain, *, hung: bool) -> Place:
        """Return the place of a sink in a domain, or, of one that ``hung``, one of its own."""
        if hung:
            return Place(FailureDomain(f"{domain} {key[0]} {key[1]}"), hung=True)
        return Place(domain)

    def admitted(self, wanted: Sequence[tuple[Sink, Place]]) -> list[int]:
        """Return which of these may begin, or wait at their worker, by their positions."""
        commands = [number for number, (sink, _) in enumerate(wanted) if isinstance(sink, CommandSink)]
        taken = [job.place for job in self.under_way.values() if isinstance(job.sink, CommandSink)]
        begun = admit([wanted[number][1] for number in commands], taken, COMMANDS_AT_ONCE)
        return [*(commands[number] for number in begun), *self._admitted_files(wanted)]

    def _admitted_files(self, wanted: Sequence[tuple[Sink, Place]]) -> Iterator[int]:
        files = [(number, place) for number, (sink, place) in enumerate(wanted) if not isinstance(sink, CommandSink)]
        carried = [job.place for job in self.under_way.values() if not isinstance(job.sink, CommandSink)]
        held = Counter(place.domain for place in carried)
        idle = list(dict.fromkeys(place for _, place in files if not held[place.domain]))
        working = {place.domain for place in carried}
        working |= {idle[number].domain for number in admit(idle, list(dict.fromkeys(carried)), FILE_DOMAINS_AT_ONCE)}
        for number, place in files:
            if place.domain in working and held[place.domain] < FILES_AHEAD:
                held[place.domain] += 1
                yield number

    def begin(self, jobs: Sequence[Job | Leaving], courier: Courier) -> None:
        """Hand jobs to their workers."""
        self.under_way |= {job.key: job for job in jobs}
        for job in jobs:
            if isinstance(job.sink, CommandSink):
                self.commands.submit(self._carry, courier, [job])
        idle: list[FailureDomain] = []
        with self._queueing:
            for job in jobs:
                if not isinstance(job.sink, CommandSink):
                    if job.place.domain not in self._queues:
                        self._queues[job.place.domain] = deque()
                        idle.append(job.place.domain)
                    self._queues[job.place.domain].append(job)
        for domain in idle:
            self.files.submit(self._work_off, courier, domain)

    def _work_off(self, courier: Courier, domain: FailureDomain) -> None:
        """Run by a worker: carry what there is for one domain, batch after batch."""
        while batch := self._next_batch(domain):
            self._carry(courier, batch)

    def _next_batch(self, domain: FailureDomain) -> list[Job | Leaving]:
        with self._queueing:
            jobs = self._queues[domain]
            if not jobs:
                del self._queues[domain]
                return []
            batch = [jobs.popleft()]
            while jobs and len(batch) < FILES_AT_A_TIME and _alike(jobs[0], batch[0]):
                batch.append(jobs.popleft())
            return batch

    def _carry(self, courier: Courier, batch: Sequence[Job | Leaving]) -> None:
        """Run by a worker: do the jobs, which are all of one domain and one kind, and bring each result to the loop."""
        open_jobs = dict(enumerate(batch))

        def bring(number: int, ending: Ending) -> None:
            self._bring(open_jobs.pop(number), ending)

        try:
            _work_on(courier, batch, bring)
        except Exception as problem:  # noqa: BLE001 - the edge of a unit of work: a sink's failure is recorded as its own
            for number in list(open_jobs):
                bring(number, Ending(f"internal error: {type(problem).__name__}: {problem}"))
        for job in open_jobs.values():
            self._bring(job, None)

    def _bring(self, job: Job | Leaving, ending: Ending | None) -> None:
        if isinstance(job, Leaving):
            self.gone.put(Gone(job, ending))
            self.wake()
        else:
            self.bring(Result(job, ending))

    def bring(self, result: Result) -> None:
        """Take the result of a worker, and wake the loop if it is worth it; a file's can wait for its neighbours'."""
        self.done.put(result)
        is_command = isinstance(result.job.sink, CommandSink)
        brought = self.done.qsize() + self.gone.qsize()
        if is_command or brought >= min(RECORDED_AT_ONCE, len(self.under_way)):
            self.wake()

    def drain(self) -> Iterator[Result]:
        """Take the results that are there. From now on their leases stand for them, should recording them fail."""
        yield from self._drained(self.done)

    def drain_gone(self) -> Iterator[Gone]:
        """Take what came of files that were to go."""
        yield from self._drained(self.gone)

    def _drained(self, brought: "queue.SimpleQueue[Brought]") -> Iterator[Brought]:
        while True:
            try:
                result = brought.get_nowait()
            except queue.Empty:
                return
            self.under_way.pop(result.job.key, None)
            yield result

    @property
    def idle(self) -> bool:
        """Tell whether nothing is being carried and nothing waits to be recorded."""
        return not self.under_way and self.done.empty() and self.gone.empty()

    def close(self) -> None:
        """Stop; what is being carried is finished, or given up where it hangs."""
        self.files.shutdown(wait=True, cancel_futures=True)
        self.commands.shutdown(wait=False, cancel_futures=True)


def _alike(one: Job | Leaving, other: Job | Leaving) -> bool:
    """Tell whether two jobs are of one kind."""
    if isinstance(one, Leaving) or isinstance(other, Leaving):
        return type(one) is type(other)
    return one.compares == other.compares


def _work_on(courier: Courier, batch: Sequence[Job | Leaving], bring: Bring) -> None:
    """Do jobs of one kind."""
    domain = batch[0].place.domain
    jobs = [job for job in batch if isinstance(job, Job)]
    if not jobs:
        courier.remove(domain, [job.leftover for job in batch if isinstance(job, Leaving)], bring)
    elif jobs[0].compares:
        courier.compare(domain, [job.errand for job in jobs], bring)
    else:
        courier.deliver(domain, [job.errand for job in jobs], bring)
