"""The simulated world: the real engine and store, with stand-ins behind every other port, and a time of its own.

Trouble is counted by subject, from its beginning to its end; whatever a move breaks it makes an appointment to mend, so
that troubles overlap as they like. After every tick, and after everything that happens, the promises are checked.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from rotator.adapters.calendar import CronCalendar
from rotator.core.instants import EPOCH
from rotator.core.model import KeysetName, Kid, ReplicaId, WorkspaceId
from rotator.core.policy import KeysetPolicy, Policy
from rotator.core.sinks import sink_id
from rotator.engine.carrying import Deliveries
from rotator.engine.housekeeping import Chores
from rotator.engine.requests.accepting import accept
from rotator.engine.run import Outcome, Run, Surroundings
from rotator.engine.tick import Engine
from rotator.errors import KekError, RefusedError, RotatorError
from rotator.ports import RequestRow
from tests.simulation.around import (
    Carriers,
    InTurn,
    JournalFile,
    Sinks,
    StandInCourier,
    StandInJournal,
    StandInWitness,
    WatchingLog,
    WitnessFile,
)
from tests.simulation.chronicle import Chronicle
from tests.simulation.database import Backup, Database, HazardousStore
from tests.simulation.hazards import Hazards, ProcessDied
from tests.simulation.keys import Forge, KekFile, StandInKeyMaker, StandInKeyring, StandInTokenMaker
from tests.simulation.setting import SKEW, Setting
from tests.simulation.tree import StandInPublisher, Tree
from tests.simulation.verifiers import Verifier
from tests.stand_ins import MINUTE, T0, FakeClock

TICKS_AT_ONE_MOMENT = 60
ADA = "ada(1000)"
"""Who asks for everything."""
ALWAYS_CALM = timedelta(days=36_500)
"""For how long what was never in trouble has been in none."""


class BrokenPromiseError(Exception):
    """A promise does not hold."""

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(f"{promise}: {what}")
        self.promise, self.what = promise, what


class Clock(FakeClock):
    """A host's clocks, which can also stand still with all that runs on it."""

    disciplined = False
    """Time synchronisation works, and leaves its mark again and again."""

    def elapse(self, span: timedelta) -> None:
        super().elapse(span)
        if self.disciplined:
            self.synchronised_at = self.wall

    def synchronise(self) -> None:
        """Let time synchronisation leave its mark, now and from now on."""
        self.disciplined, self.synchronised_at = True, self.wall

    def lose(self) -> None:
        """Let time synchronisation be out of order: the mark that it left stays."""
        self.disciplined = False

    def freeze(self, span: timedelta) -> None:
        """Let time pass that no clock of this machine sees, as when a virtual machine is paused."""
        self.true += span
        self.lose()

    def reboot(self, down_for: timedelta = MINUTE) -> None:
        super().reboot(down_for)
        self.lose()


@dataclass(slots=True)
class Replica:
    """One pod: a process that can die, and the disk and web server that go on without it."""

    name: ReplicaId
    tree: Tree = field(default_factory=Tree)
    witness: WitnessFile = field(default_factory=WitnessFile)
    journal: JournalFile = field(default_factory=JournalFile)
    hazards: Hazards = field(default_factory=Hazards)
    engine: Engine | None = None
    started_at: datetime = EPOCH
    """When its process began, if it has one."""
    carriers: Carriers = field(default_factory=Carriers)
    outcome: Outcome | None = None
    reload: bool = False
    failure: str = ""
    """What the last tick raised."""

    def stop(self) -> None:
        """End the process, whatever it was doing."""
        if self.engine is not None:
            self.engine.close()
        self.engine = self.outcome = None
        self.hazards.disarm()


@dataclass
class World:
    """One installation and everything around it."""

    setting: Setting
    directory: Path
    check: Callable[["World", Replica | None], None]
    """Raises :class:`BrokenPromiseError`; called after each event, with the replica that just ticked."""
    surround: Callable[[Surroundings], Surroundings] = lambda around: around
    """A deliberate bug in what a process has around it; used to prove that the checks bite."""
    clock: Clock = field(default_factory=Clock)
    kek: KekFile = field(default_factory=KekFile)
    sinks: Sinks = field(default_factory=Sinks)
    log: WatchingLog = field(default_factory=WatchingLog)
    replicas: dict[ReplicaId, Replica] = field(default_factory=dict)
    injected: Counter[str] = field(default_factory=Counter)
    backups: list[Backup] = field(default_factory=list)
    old_trees: list[dict[str, bytes]] = field(default_factory=list)
    old_states: list[dict[ReplicaId, tuple[WitnessFile, JournalFile]]] = field(default_factory=list)
    """Witness and journal of each replica, beside each backup."""
    leapt: bool = False
    """The clock leapt ahead of what was known, and neither came back nor was accepted."""
    behind: datetime | None = None
    """What the clock said before it was set back; until it says so again it must not be believed."""
    ticked_at: datetime | None = None
    """What the clock said when a process believed it last: of any time after that no process can know."""
    unreconciled: bool = False
    """A database was put back, and no daemon has found that out yet."""
    awaited: dict[KeysetName, datetime] = field(default_factory=dict)
    """Keysets that may have no key that signs, since when."""
    signed_until: dict[KeysetName, datetime] = field(default_factory=dict)
    """When a keyset was last seen with a key that signs."""
    signing_from: dict[KeysetName, datetime] = field(default_factory=dict)
    """Since when a keyset has had one without a break."""
    gone: list[Replica] = field(default_factory=list)
    """Pods that left, for as long as somebody may have cached what they served."""
    hurried: dict[KeysetName, datetime] = field(default_factory=dict)
    """Keysets whose next key may sign before every verifier can know it, since when an operator said so."""
    suspended: dict[Kid, datetime] = field(default_factory=dict)
    """Until when tokens on a key may be refused, for it signed before every verifier could know it."""
    asked: Counter[str] = field(default_factory=Counter)
    """How many requests of each kind were accepted."""
    neglect_looked_for_at: datetime = T0
    kek_taken_at: datetime = T0
    ticks: int = 0
    looks: int = 0

    def __post_init__(self) -> None:
        self.forge = Forge(self.setting.seed)
        self.database = Database(self.directory, f"simulated-{self.setting.seed}")
        self.chronicle = Chronicle(self.database, self.forge)
        self.wanted = self.setting.wanted()
        self.policy: Policy = self.wanted.policy()
        self.calendar = CronCalendar()
        self.in_force: tuple[Policy, ...] = (self.policy,)
        self.random = random.Random(f"verifiers {self.setting.seed}")
        self.verifiers: dict[tuple[str, str, str], Verifier] = {}
        self._appointments: list[tuple[datetime, int, Callable[[], None]]] = []
        self._made = 0
        self._troubles: Counter[str] = Counter()
        self._ended: dict[str, datetime] = {}
        for name in self.wanted.keysets:
            self.awaited[name] = self.now
        for number in range(self.setting.replicas):
            self.join(ReplicaId(f"pod-{number}"))

    def close(self) -> None:
        for replica in self.replicas.values():
            replica.stop()
        for backup in self.backups:
            backup.close()
        self.database.close()

    # -------------------------------------------------------------------------------------------------------- troubles

    @property
    def now(self) -> datetime:
        """The time that it really is."""
        return self.clock.true

    def trouble(self, subject: str) -> None:
        """Note that something is out of order, from now on."""
        self._troubles[subject] += 1

    def mend(self, subject: str) -> bool:
        """Note that one trouble with a subject is over; tell whether it was the last one."""
        self._troubles[subject] -= 1
        self._ended[subject] = self.now
        return self._troubles[subject] == 0

    def troubled(self, subject: str) -> bool:
        return self._troubles[subject] > 0

    def calm_for(self, *subjects: str) -> timedelta:
        """Return for how long none of ``subjects`` has been in trouble."""
        if any(self._troubles[subject] > 0 for subject in subjects):
            return timedelta(0)
        ended = [self._ended[subject] for subject in subjects if subject in self._ended]
        return self.now - max(ended) if ended else ALWAYS_CALM

    @property
    def clock_wrong(self) -> bool:
        """Tell whether the clock says what it must not be believed."""
        return self.leapt or (self.behind is not None and self.clock.wall < self.behind - SKEW - MINUTE)

    def later(self, span: timedelta, action: Callable[[], None]) -> None:
        """Make an appointment."""
        self._made += 1
        heapq.heappush(self._appointments, (self.now + span, self._made, action))

    def during(
        self,
        span: timedelta,
        *subjects: str,
        begin: Callable[[], object] = lambda: None,
        end: Callable[[], object] = lambda: None,
    ) -> None:
        """Let something be out of order for ``span``; all of ``subjects`` count as troubled meanwhile.

        ``end`` mends it, once no other trouble of the first subject is left.
        """
        for subject in subjects:
            self.trouble(subject)
        begin()

        def over() -> None:
            was_last = [self.mend(subject) for subject in subjects]
            if was_last[0]:
                end()

        self.later(span, over)

    def touched(self, *subjects: str) -> None:
        """Note a trouble that is over as soon as it began, and needs some time to be worked off."""
        for subject in subjects:
            self.trouble(subject)
            self.mend(subject)

    # ------------------------------------------------------------------------------------------------------ processes

    @property
    def running(self) -> list[Replica]:
        return [replica for replica in self.replicas.values() if replica.engine is not None]

    def replica(self, number: int) -> Replica:
        """Return one of the replicas that there are."""
        names = list(self.replicas)
        return self.replicas[names[number % len(names)]]

    def join(self, name: ReplicaId) -> Replica:
        """Add a pod, with an empty disk, and start it."""
        replica = self.replicas[name] = Replica(name)
        self.start(replica)
        return replica

    def start(self, replica: Replica) -> None:
        """Start a process, if its pod still is there and has none."""
        if replica.engine is not None or self.replicas.get(replica.name) is not replica:
            return
        run = self._run(replica)
        chores = Chores(retention_tokens=timedelta(days=30), retention_audit=timedelta(days=60))
        replica.started_at = self.now
        replica.engine = Engine(run, heartbeat=self.setting.heartbeat, chores=chores)
        replica.carriers = Carriers()
        replica.engine.deliveries.close()
        replica.engine.deliveries = Deliveries(lambda: None, files=replica.carriers, commands=replica.carriers)
        replica.reload = False
        self._count_running()

    def _run(self, replica: Replica) -> Run:
        """Return what a process on the machine of ``replica`` works with."""
        runs: list[Run] = []  # the witness is sealed by what the run unlocked, and the run is made of the witness
        around = Surroundings(
            replica=replica.name,
            store=HazardousStore(self.database, replica.hazards),
            clock=self.clock,
            calendar=self.calendar,
            keyring=StandInKeyring(self.kek),
            keymaker=StandInKeyMaker(self.forge),
            tokenmaker=StandInTokenMaker(self.forge),
            publisher=StandInPublisher(replica.tree, replica.hazards, lambda: self.now),
            courier=StandInCourier(self.sinks, replica.hazards),
            witness=StandInWitness(replica.witness, lambda: runs[0].ready_sealer, replica.hazards),
            journal=StandInJournal(replica.journal, replica.hazards),
            log=self.log,
        )
        run = Run(
            self.surround(around), self.policy, minting=InTurn, key_makers=InTurn, compare_interval=self.setting.compare
        )
        run.stopping = replica.hazards.called_away
        runs.append(run)
        return run

    def stop(self, replica: Replica, down_for: timedelta | None) -> None:
        """End a process; it comes back after ``down_for``, if at all."""
        replica.stop()
        self._count_running()
        if down_for is not None:
            self.later(down_for, lambda: self.start(replica))

    def leave(self, replica: Replica) -> None:
        """Take a pod away with its disk and its web server; the operator says so once no cache can hold its sets."""
        replica.stop()
        replica.tree.withdraw(self.now)
        del self.replicas[replica.name]
        self._count_running()
        self.gone.append(replica)

        self.later(self.setting.max_cache + timedelta(minutes=30), lambda: self.gone.remove(replica))
        self.forget_absent()

    def _count_running(self) -> None:
        """While no process runs, nothing is promised that needs one."""
        if not self.running and not self.troubled("down"):
            self.trouble("down")
        elif self.running and self.troubled("down"):
            self.mend("down")

    @property
    def trees(self) -> Iterator[tuple[ReplicaId, Tree]]:
        """Every tree that someone may have fetched from lately."""
        for replica in (*self.replicas.values(), *self.gone):
            yield replica.name, replica.tree

    # ---------------------------------------------------------------------------------------------------------- ticks

    def tick(self, replica: Replica) -> bool:
        """Let a process tick once; tell whether it is still there and wants another turn at once."""
        engine = replica.engine
        assert engine is not None
        self.in_force = (engine.run.policy, self.policy)
        self.ticks += 1
        try:
            if replica.reload:
                self._reload(replica, engine)
            replica.failure = ""
            replica.outcome = engine.tick()
            if "clock" not in engine.run.faults:
                self.ticked_at = self.clock.wall
        except ProcessDied:
            replica.carriers.waiting.clear()
            self.stop(replica, self.setting.grain)
        except RefusedError as error:
            raise BrokenPromiseError("start", f"{replica.name} refuses to work: {error}") from error
        except RotatorError as error:  # as the daemon does: logged, and tried again soon
            replica.failure = str(error)
            replica.outcome = Outcome(self.clock.wall + MINUTE)
        if replica.hazards.arrived:
            self._act_on_signal(replica)
        if self.unreconciled and _has_looked(replica):
            self.unreconciled = False
            self.forget_absent()
        self.look(replica)
        if replica.engine is None or replica.outcome is None:
            return False
        carried = replica.carriers.carry()
        return carried or replica.outcome.more or (replica.outcome.next_due <= self.clock.wall and not replica.failure)

    def _act_on_signal(self, replica: Replica) -> None:
        """Do what the daemon does after a tick that a signal cut short: end, or load the config and go on."""
        signal = replica.hazards.signal
        replica.hazards.disarm()
        self.injected[f"SIG{signal} amid a tick"] += 1
        if signal == "TERM":
            replica.carriers.waiting.clear()
            self.stop(replica, self.setting.grain)
        else:
            replica.reload = True

    def _reload(self, replica: Replica, engine: Engine) -> None:
        replica.reload = False
        try:
            engine.load_policy(self.policy, self.clock.read())
        except RefusedError:
            self.injected["config refused"] += 1
        except RotatorError:
            replica.reload = True

    def settle(self) -> None:
        """Let every process tick until nothing is left to do at this moment."""
        for replica in self.running:
            for _ in range(TICKS_AT_ONE_MOMENT):
                if not self.tick(replica):
                    break
            else:
                faults = {} if replica.engine is None else dict(replica.engine.run.faults)
                raise BrokenPromiseError("rest", f"{replica.name} spins: {replica.outcome}, {faults}")

    def look(self, replica: Replica | None = None) -> None:
        """Check every promise now."""
        self.looks += 1
        if self.chronicle.read(self.now):
            self._note_signers()
        self.check(self, replica)

    def _note_signers(self) -> None:
        signing = {key.keyset for key in self.chronicle.keys if key.phase == "active"}
        for name in signing:
            self.signing_from.setdefault(name, self.now)
        for name in [name for name in self.signing_from if name not in signing]:
            del self.signing_from[name]
            self.signed_until[name] = self.now

    def signing_since(self, keyset: KeysetName) -> datetime:
        """Return since when a keyset has had a key that signs."""
        return self.signing_from.get(keyset, self.now)

    def pass_time(self, span: timedelta) -> None:
        """Let ``span`` really pass; everything that is due in it happens."""
        end = self.now + span
        while self.now < end:
            self.clock.elapse(max(self._next_moment(end) - self.now, timedelta(0)))
            while self._appointments and self._appointments[0][0] <= self.now:
                heapq.heappop(self._appointments)[2]()
                self.look()
            self.settle()
            self._ask_about_the_clock()
            self._ask_about_the_config()

    def _ask_about_the_clock(self) -> None:
        """Let the operator accept a clock that is right and yet held, as after a long time without a tick."""
        held = any("clock" in replica.engine.run.faults for replica in self.running if replica.engine is not None)
        if not held or self.troubled("clock") or abs(self.clock.wall - self.now) > SKEW:
            return
        self.injected["clock accepted"] += 1
        self.during(timedelta(hours=6), "clock", end=lambda: self.ask("clock.accept"))

    def _ask_about_the_config(self) -> None:
        """Let the operator accept again what an old database that was put back holds up: it drops a lot there."""
        held = any("config" in replica.engine.run.faults for replica in self.running if replica.engine is not None)
        if not held or self.troubled("config"):
            return
        self.injected["config accepted again"] += 1
        self.during(timedelta(hours=6), "config", end=self.accept_config)

    def _next_moment(self, end: datetime) -> datetime:
        moments = [end]
        if self._appointments:
            moments.append(self._appointments[0][0])
        for replica in self.running:
            wait = timedelta(0) if replica.outcome is None else replica.outcome.next_due - self.clock.wall
            moments.append(self.now + max(wait, self.setting.grain))
        return min(moments)

    # ------------------------------------------------------------------------------------------------------ operators

    def forget_absent(self) -> None:
        """Let the operator say, once no cache can hold their sets, that pods named by a restored database are gone."""

        def forget() -> None:
            known = self.replicas.keys() | {replica.name for replica in self.gone}
            try:
                with self.database.store.begin() as transaction:
                    for row in transaction.replicas():
                        if row.replica not in known:
                            transaction.put_replica(replace(row, forgotten_at=self.clock.wall))
            except KekError:
                self.later(timedelta(hours=1), forget)

        self.later(self.setting.max_cache + timedelta(hours=1), forget)

    def reload(self) -> None:
        """Give every process the config as it is wanted now."""
        before, self.policy = self.policy, self.wanted.policy()
        for name in self.wanted.keysets:
            if name not in before.keysets:
                self.awaited[name] = self.now
        self.touched("config")
        for replica in self.running:
            replica.reload = True

    def accept_config(self) -> None:
        """Let the operator accept the config, however much it drops."""
        self.ask("config.accept")
        self.settle()
        for replica in self.running:  # the others are told by a restart
            self.stop(replica, timedelta(0))
        self.reload()

    def meddle(self, sql: str, *parameters: object) -> None:
        """Change the database behind the back of the daemons."""
        self.database.meddle(sql, *parameters)

    def ask(self, kind: str, *, secret: bytes | None = None, **arguments: str) -> None:
        """Have a request accepted, by a daemon that runs or by a command without one, and stored.

        What is refused at once changes nothing; whoever wants it asks again.
        """
        replica = next(iter(self.running), self.replica(0))
        run = self._run(replica) if replica.engine is None else replica.engine.run
        store = HazardousStore(self.database, Hazards())  # a process that dies is another move
        draft = RequestRow(
            id=0, kind=kind, arguments=arguments, actor=ADA, uid=1000, reason="because", created_at=self.clock.wall
        )
        try:
            request = accept(replace(run, around=replace(run.around, store=store)), draft, self.clock.read(), secret)
        except RefusedError:
            self.injected[f"{kind} not accepted"] += 1
            return
        run.answers.leave(request.nonce)
        if replica.engine is None and not request.id:
            self.injected[f"{kind} not accepted"] += 1  # a command without a daemon would do it itself
            return
        self.asked[kind] += 1

    @property
    def revoked_ahead(self) -> frozenset[Kid]:
        """The keys that some journal names: the audit may not have it yet, for the KEK is away."""
        return frozenset(
            kid for replica in self.replicas.values() for entry in replica.journal.journal.entries for kid in entry.kids
        )

    def revokes(self, keyset: KeysetName, *, at_once: bool) -> None:
        """Note that keys of a keyset are revoked; ``at_once``: and that a fresh one may sign before it is known."""
        self.touched("config")
        self.awaited[keyset] = self.now
        if at_once:
            self.hurries(keyset)

    def hurries(self, keyset: KeysetName) -> None:
        """Note that an operator chose refusals over waiting: promises of the key that signs next are suspended."""
        self.hurried[keyset] = self.now

    def keyset_policies(self, name: KeysetName) -> list[KeysetPolicy]:
        """Return the policies of a keyset that may have been in force at the last tick."""
        return [policy.keysets[name] for policy in self.in_force if name in policy.keysets]

    def sink_names(self, workspace: WorkspaceId) -> list[tuple[WorkspaceId, str]]:
        return [(workspace, sink_id(sink)) for sink in self.policy.workspaces[workspace].sinks]


def _has_looked(replica: Replica) -> bool:
    """Tell whether its last tick held the database against the witness: without the KEK it cannot, nor can it sign."""
    if replica.engine is None or replica.failure:
        return False
    return replica.engine.run.reconciled and replica.engine.run.sealer is not None
