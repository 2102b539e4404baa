"""One tick: read the clocks once, decide whether to trust them, and give each step its turn.

    observe → plan → commit → publish → confirm → issue → deliver

A tick costs what is due, not what exists. It never waits: what takes long is cut into pieces, and ``Outcome.more``
asks for the next tick at once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from rotator.core.model import KeysetName
from rotator.core.policy import Policy
from rotator.core.tokens import SyncSurvey
from rotator.engine.amend import amend_future
from rotator.engine.carrying import Deliveries
from rotator.engine.deliver import dispatch_due, heal_tokens, name_what_hangs, record_results
from rotator.engine.fresh import keysets_with_new_keys
from rotator.engine.housekeeping import (
    Chores,
    alarm_late_deliveries,
    compare_sinks,
    look_again,
    prune,
    retire_expired,
)
from rotator.engine.issue import issue_due, name_minting
from rotator.engine.journal import learn
from rotator.engine.keysets import (
    TOGETHER,
    needs_a_look,
    remove_ended,
    turn_keysets,
    withdraw,
    withdraw_revoked,
)
from rotator.engine.leftovers import delete_leftovers, record_leftovers
from rotator.engine.log_outbox import LogOutbox
from rotator.engine.neighbours import catch_up
from rotator.engine.observe import shift_sightings
from rotator.engine.overlaps import end_overlaps
from rotator.engine.recover import continues, reconcile, secure
from rotator.engine.register import register, sign_of_life
from rotator.engine.request_rows import forget_old
from rotator.engine.requests import BEFORE_THE_SETS, HANDLERS, handle_requests
from rotator.engine.requests.urgent import answer_the_rest, follow_up, take_pressing
from rotator.engine.run import Outcome, Run
from rotator.engine.scrub import Scrub, look_through, name_changed_rows, renew_keysets, renew_replicas, tampered
from rotator.engine.second_witness import write_metas
from rotator.engine.served import compare_served
from rotator.engine.shares import begin_share
from rotator.engine.sync import applying
from rotator.engine.timekeeping import judge_clock
from rotator.engine.witnessing import write_witness
from rotator.errors import KekError, RefusedError, RotatorError, StoreLostError, WitnessError
from rotator.ports import Reading

HEARTBEAT: Final = timedelta(seconds=30)
"""The longest time between two ticks: clocks, KEK, requests and the published tree are looked at."""

MARK_INTERVAL: Final = timedelta(seconds=60)
"""How far the stored high-water mark may lag behind a trusted clock."""

END: Final = object()
"""What an iterator gives when it is at its end."""


@dataclass(slots=True)
class Engine:
    """The one writer of state."""

    run: Run
    wake: Callable[[], None] = lambda: None
    heartbeat: timedelta = HEARTBEAT
    chores: Chores = field(default_factory=Chores)
    scrub: Scrub = field(default_factory=Scrub)
    logs_audit: bool = True
    """Without, the events of the audit stay due for the log of whoever comes next."""
    outbox: LogOutbox = field(default_factory=LogOutbox)
    hands_out: bool = True
    """Without, no token is issued and no delivery begun, whatever is due: that is left to whoever comes next."""
    deliveries: Deliveries = field(init=False)
    _beat_at: datetime | None = None
    _policy_applied: bool = False
    _waiting: Policy | None = None
    """Loaded while the clock was held, or to be brought in step with the database anew."""
    _applying: Iterator[None] | None = None
    """Brings the database in step with the policy in force, bit by bit."""
    _wanted: Policy | None = None
    """The policy that was loaded at the start: in force is what of it need not be accepted first."""
    _unturned: dict[KeysetName, None] = field(default_factory=dict)
    """Keysets that are to be looked at, due or not, and for which there was no time yet."""

    def __post_init__(self) -> None:
        self.deliveries = Deliveries(self.wake)
        self.run.wake = self.wake

    @property
    def ready(self) -> bool:
        """Tell whether the config is in force, and every keyset was looked at since the start."""
        return self._policy_applied and self._applying is None and not self._unturned

    @property
    def applying(self) -> bool:
        """Tell whether the database does not follow the config in force yet."""
        return self._applying is not None

    @property
    def idle(self) -> bool:
        """Tell whether nothing is under way beside the loop that wakes it when it is done."""
        return self.deliveries.idle and not self.run.fresh

    def load_policy(
        self, policy: Policy, reading: Reading, *, doubt: str = "", survey: SyncSurvey | None = None
    ) -> None:
        """Take a newly loaded policy into force; raise :class:`RefusedError` if it must be accepted first.

        The database follows in this tick and the next ones. ``doubt``: why it may not be meant although it is sound;
        empty when there is none. ``survey``: what it changes, if that was counted before.
        """
        if not self._policy_applied:
            self.run.policy = policy
            self._applying = None  # the start begins anew, with this one
            return
        self.run.refused_policy = policy
        if doubt:
            raise RefusedError(doubt)
        if self._judge_clock(reading):
            # What a wrong clock says must become nobody's due time: taken into force once the clock is trusted.
            self._waiting, self.run.refused_policy = policy, None
            return
        self._apply(applying(self.run, policy, reading, accepted=False, survey=survey))
        self._waiting = self.run.refused_policy = self.run.accepting = None

    def tick(self, reading: Reading | None = None) -> Outcome:
        """Do what is due now, as far as it can be done without waiting."""
        reading = reading if reading is not None else self.run.around.clock.read()
        learn(self.run, reading.now)
        try:
            outcome = self._tick(reading)
        except Exception:
            take_pressing(self.run)
            answer_the_rest(self.run, reading)
            raise
        answer_the_rest(self.run, reading)
        return replace(outcome, more=outcome.more or not self.run.urgent.empty())

    def carry_out(self, kind: str) -> None:
        """Carry out the open requests of one kind, and do nothing else that may be due."""
        run, reading = self.run, self.run.around.clock.read()
        learn(run, reading.now)
        self._require_store()
        self._unlock(reading, check=True)
        held = self._judge_clock(reading)
        if run.sealer is not None and self._reconcile(reading, held=held):
            handle_requests(run, reading, clock_held=held, kinds={kind})

    def _tick(self, reading: Reading) -> Outcome:
        run = self.run
        self._require_store()
        beat = self._beat_at is None or not timedelta(0) <= reading.now - self._beat_at < self.heartbeat
        if beat:
            self._beat_at = reading.now
        self._unlock(reading, check=beat)
        held = self._judge_clock(reading)
        if run.sealer is None or not self._reconcile(reading, held=held):
            if run.sealer is None and beat:
                self._goes_on()  # what is withdrawn is an event, which must not make an older database look like ours
                withdraw_revoked(run, reading)
            more = self._pump_log()
            take_pressing(run)
            return Outcome(reading.now + self.heartbeat, more)
        more = not held and self._take_policy(reading)
        follow_up(run, reading)
        take_pressing(run)
        began = self.ready or held
        if handle_requests(run, reading, clock_held=held, kinds=HANDLERS if began else BEFORE_THE_SETS):
            more = True
            self._pump_log()  # what a person did is told before all that follows from it
        if not held and self._policy_applied:
            more = self._work(reading, beat=beat) or more or not began
        else:
            self.deliveries.give_way(reading.since_boot, issuing=False)
            if held and beat:
                withdraw_revoked(run, reading)
        if run.reconciled:
            catch_up(run, reading)
            write_witness(run)
            more = write_metas(run, beat=beat) or more
        if not self.deliveries.giving_way:
            more = self._pump_log() or more
        return Outcome(self._next_due(reading, held=held), more)

    def close(self) -> None:
        """Stop the workers; commands that are under way are ended, and their deliveries stay due."""
        if self.run.makers is not None:
            self.run.makers.shutdown(wait=False, cancel_futures=True)
        self.run.around.courier.cancel()
        self.deliveries.close()

    # ------------------------------------------------------------------------------------------------ the parts

    def _require_store(self) -> None:
        """Raise :class:`StoreLostError` when the database was taken away from under us.

        Its files have no name any more and cannot be given one: what they hold ends with this process. A process that
        went on would make keys and tokens that the next start knows nothing of, and the longer the more. So this one
        writes nothing from here on, neither database nor tree nor witness, and ends; the last good set stays published,
        and the next start decides by the witness, which names all that is out.
        """
        if problem := self.run.around.store.lost() or self.run.lock_lost():
            raise StoreLostError(problem)

    def _unlock(self, reading: Reading, *, check: bool) -> None:
        """Hold the KEK against what the database was sealed with; without it nothing is minted."""
        run = self.run
        if run.sealer is not None and not check:
            return
        with run.around.store.read() as snapshot:
            known, head = snapshot.keks(), snapshot.audit_head()
        try:
            run.unlock(run.around.keyring.unlock(known))
        except KekError as error:
            run.unlock(None)
            run.signing.clear()
            run.signers.clear()
            run.fault("kek", str(error), "kek.missing")
            return
        if not known and head.seq > 0 and not self._is_ours():
            run.unlock(None)
            problem = "the database does not say under which KEK it was sealed, and the one that is here is another one"
            run.fault("kek", f"{problem}; put the right one back, or the database from a backup", "kek.missing")
            return
        run.healed("kek", "kek.restored")
        name_changed_rows(run, reading)
        if self._policy_applied and run.ready_sealer.kek_id not in {row.kek_id for row in known}:
            register(run, reading)

    def _is_ours(self) -> bool:
        """Tell whether rows of keys or keysets, if there are any, are authentic under the KEK that is here."""
        with self.run.around.store.read() as snapshot:
            rows = [*(row.key.authentic for row in snapshot.all_keys()), *(row.authentic for row in snapshot.keysets())]
        return not rows or any(rows)

    def _judge_clock(self, reading: Reading) -> bool:
        """Tell whether the clock is held; remember a trusted one now and then."""
        run = self.run
        with run.around.store.read() as snapshot:
            stored = snapshot.clock_mark()
            mark = stored or run.clock
            verdict = judge_clock(run, snapshot, reading).verdict
            known = bool(snapshot.keks())
        if stored is None and known and run.sealer is not None:
            tampered(run, "clock", "", "it is gone, was changed, or was not written by this installation", reading)
        if not verdict.trusted:
            if "clock" not in run.faults:  # the sentence names the time, and changes with it: logged once all the same
                run.fault("clock", verdict.held, "clock.held")
            run.faults["clock"] = verdict.held
            return True
        run.healed("clock", "clock.released")
        run.clock = verdict.mark
        stale = stored is None or mark is None or verdict.mark.high_water_at - mark.high_water_at >= MARK_INTERVAL
        moved = mark is not None and (mark.boot_id, mark.offset) != (verdict.mark.boot_id, verdict.mark.offset)
        if run.sealer is None:
            return False  # what is remembered is authenticated, as soon as the KEK is back
        if stale or moved or (mark is not None and verdict.mark.high_water_at < mark.high_water_at):
            with run.around.store.begin() as transaction:
                if mark is not None and mark.offset != verdict.mark.offset:
                    shift_sightings(run, transaction, mark, reading)
                if mark is not None and verdict.mark.high_water_at < mark.high_water_at:
                    amend_future(run, transaction, reading)
                transaction.set_clock_mark(verdict.mark)
                sign_of_life(run, transaction, reading)
        return False

    def _reconcile(self, reading: Reading, *, held: bool) -> bool:
        """Hold the database against the witness at the start and when its history went back; False: it cannot be.

        While the clock is held it waits, for what a restore changes is dated; the published sets do not.
        """
        run = self.run
        if self._goes_on():
            return True
        try:
            if held:
                for name in secure(run, reading):
                    withdraw(run, name, reading)
                return True
            reconcile(run, reading)
        except WitnessError as error:
            run.fault("witness", str(error), "witness.refused")
            return False
        run.healed("witness")
        return True

    def _goes_on(self) -> bool:
        """Tell whether the database is the one that was held against the witness, or goes on from it."""
        run = self.run
        with run.around.store.read() as snapshot:
            head = snapshot.audit_head()
        if continues(run, head):
            run.head = head
            return True
        if run.reconciled:
            run.reconciled = False
            self._policy_applied = False  # the old database is to be brought in step with the config, as at a start
            self._applying = run.accepting = None
        return False

    def _apply(self, steps: Iterator[None]) -> None:
        """Begin to bring the database in step with a policy; what another one left undone, this one does."""
        try:
            self._applying = steps if next(steps, END) is None else None
        except RefusedError:
            raise  # nothing was changed, and what is under way goes on
        except Exception:
            self._applying = None
            raise

    def _go_on_applying(self) -> bool:
        """Bring the next workspaces in step; tell whether there are more."""
        is_over = begin_share(self.run)
        while self._applying is not None and not is_over():
            steps, self._applying = self._applying, None
            try:
                ended = next(steps, END) is END
            except Exception:
                self._waiting = self.run.policy if self._policy_applied else None  # begun anew
                raise
            self._applying = None if ended else steps
        return self._applying is not None

    def _take_policy(self, reading: Reading) -> bool:
        """Bring the database in step with the config at the first trusted tick, and with one that waited for it.

        Tell whether more of that is to be done at once.
        """
        if not self._policy_applied:
            return self._start(reading)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            try:
                self._apply(applying(self.run, waiting, reading, accepted=False))
            except RefusedError as error:
                self.run.refused_policy = waiting
                self.run.fault("config", str(error), "config.refused")
            except RotatorError:
                self._waiting = waiting  # a database that is locked now is asked again
                raise
        return self._go_on_applying()

    def _start(self, reading: Reading) -> bool:
        """Register KEK and replica, and bring the database in step with the config; tell whether more is to be done."""
        run = self.run
        if self._applying is None:
            renew_keysets(run, reading)
            renew_replicas(run, reading)
            look_through(run, self.scrub, reading, starting=True)
            run.tampered_workspaces = False  # what the config says is applied to every row now
            register(run, reading)
            with run.around.store.begin() as transaction:
                transaction.release_leases(reading.now)
            self._wanted = run.policy
            self._apply(applying(run, run.policy, reading, accepted=False, starting=True))
        if self._go_on_applying():
            return True
        if "config" in run.faults:
            run.refused_policy = self._wanted
        self._policy_applied = True
        with run.around.store.read() as snapshot:
            names = [row.name for row in snapshot.keysets() if row.ended_at is None]
        if run.around.served is not None:
            run.around.served.refresh(names, reading.now)
        follow_up(run, reading)
        handle_requests(run, reading, clock_held=False, kinds=BEFORE_THE_SETS)
        self._unturned = dict.fromkeys(names)
        return self._turn_waiting(reading)

    def _work(self, reading: Reading, *, beat: bool) -> bool:
        run = self.run
        if beat:
            renew_keysets(run, reading)
            renew_replicas(run, reading)
            self._look_through(reading)
        more = self._turn_keysets(reading, beat=beat)
        if not self.hands_out:
            return more
        more = issue_due(run, reading) or more
        self.deliveries.give_way(reading.since_boot, issuing=more)
        more = end_overlaps(run, reading) or more
        record_results(run, self.deliveries, reading)
        record_leftovers(run, self.deliveries, reading)
        if not self.deliveries.giving_way:
            more = dispatch_due(run, self.deliveries, reading) or more
            delete_leftovers(run, self.deliveries, reading)
        if beat:
            alarm_late_deliveries(run, reading)
            name_what_hangs(run, self.deliveries)
            look_again(self.deliveries, self.chores)
            heal_tokens(run)
            name_minting(run)
            forget_old(run, reading.now)
        if beat or self.chores.pruning:
            more = prune(run, self.chores, reading) or more
        more = compare_sinks(run, self.deliveries, self.chores, reading) or more
        if beat or self.chores.expiring:
            self.chores.expiring = retire_expired(run, reading)
        return more or self.chores.expiring

    def _turn_keysets(self, reading: Reading, *, beat: bool) -> bool:
        """Give each keyset its turn that is due, has a new key, or is to be looked at; tell whether others wait."""
        run = self.run
        with run.around.store.read() as snapshot:
            due = snapshot.due_keysets(reading.now)
            rows = snapshot.keysets() if beat else ()
        if beat:
            compare_served(run, rows, reading)
            remove_ended(run, rows, reading)
        looked_at = (row.name for row in rows if needs_a_look(run, row, reading))
        self._unturned |= dict.fromkeys((*keysets_with_new_keys(run), *due, *looked_at))
        return self._turn_waiting(reading)

    def _turn_waiting(self, reading: Reading) -> bool:
        is_over = begin_share(self.run)
        while self._unturned:
            if is_over():
                return True
            names = tuple(islice(self._unturned, TOGETHER))
            for name in names:
                del self._unturned[name]
            turn_keysets(self.run, names, reading)
        return False

    def _look_through(self, reading: Reading) -> None:
        """Name what somebody else changed in the database, and bring workspaces in step with the config anew."""
        look_through(self.run, self.scrub, reading, starting=self._applying is not None)
        if self.run.tampered_workspaces and self._applying is None and self.run.accepting is None:
            self.run.tampered_workspaces = False
            self._apply(applying(self.run, self.run.policy, reading, accepted=False, starting=True))

    def _pump_log(self) -> bool:
        """Bring the next committed events to the log; tell whether more of them wait."""
        return self.logs_audit and self.outbox.pump(self.run)

    def _next_due(self, reading: Reading, *, held: bool) -> datetime:
        latest = reading.now + self.heartbeat
        if held:
            return latest
        if self.hands_out:
            latest = min([latest, *(each.due_at for each in self.run.leftovers.values())])
        with self.run.around.store.read() as snapshot:
            due = snapshot.next_due(tuple(self.run.signing))
        return self.deliveries.next_look(latest if due is None else min(due, latest), reading.now)
