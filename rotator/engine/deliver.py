"""Delivers tokens to sinks: claimed from the database, carried by workers, recorded by the loop.

A claim is a lease: it puts the delivery off until the workers must have given up, so that a crash or a second replica
neither loses nor doubles it. A delivery is of one sequence number, checked before and after, so that an old token that
was held up on its way is followed by the current one.
"""

import queue
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from rotator.core.events import Event, EventName
from rotator.core.model import Kid, SinkId, WorkspaceId
from rotator.core.policy import CommandSink, FileSink, Sink
from rotator.core.schedule import share
from rotator.core.secret import Secret
from rotator.core.sinks import sink_id
from rotator.engine.rows import PURPOSE_TOKEN, identity_of
from rotator.engine.run import Run, backoff
from rotator.errors import RotatorError, SealError
from rotator.ports import DeliveryRow, Parcel, Reading, Snapshot, TokenRow

CLAIMS: Final = 500
"""Deliveries claimed at a time."""

CARRIED_AT_MOST: Final = 1_000
"""Claimed and not yet recorded. What is claimed too far ahead outlives its lease while it waits for a worker."""

RECORDED_AT_ONCE: Final = 250
"""Results that wake the loop. A tick, with two commits, costs as much as a dozen files."""

RECORD_INTERVAL: Final = timedelta(milliseconds=250)
"""How long a result waits for others, and a free worker for what is due."""

COMMANDS_AT_ONCE: Final = 32
FILES_AT_ONCE: Final = 4

GIVE_WAY_FOR: Final = timedelta(seconds=5)
"""How long deliveries wait for many tokens to be issued; that many take longer than this to deliver."""

PUT_OFF: Final = timedelta(seconds=5)
"""When to look again at a delivery that no worker is free for, or that lacks its sink or its token."""

LEASE_MARGIN: Final = timedelta(seconds=30)
RETRY_CEILING: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class _Result:
    row: DeliveryRow
    error: str
    """Empty: delivered."""


@dataclass(slots=True)
class Deliveries:
    """The workers, what they carry, and what they brought back."""

    wake: Callable[[], None]
    files: Executor = field(default_factory=lambda: ThreadPoolExecutor(FILES_AT_ONCE, "rotator-file"))
    commands: Executor = field(default_factory=lambda: ThreadPoolExecutor(COMMANDS_AT_ONCE, "rotator-command"))
    done: queue.SimpleQueue[_Result] = field(default_factory=queue.SimpleQueue)
    under_way: dict[tuple[WorkspaceId, SinkId], bool] = field(default_factory=dict)
    """True for commands."""
    giving_way: bool = False
    """Nothing new is to be claimed now, nor what was issued to be logged: more is to be issued than one tick can."""
    _gave_way_at: timedelta | None = None

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
        if all(self.under_way.values()):
            return due
        look = now + RECORD_INTERVAL
        return look if self.full else min(due, look)

    @property
    def full(self) -> bool:
        """Tell whether enough is claimed for now."""
        return len(self.under_way) >= CARRIED_AT_MOST

    def bring(self, result: _Result) -> None:
        """Take the result of a worker, and wake the loop if it is worth it; a file's can wait for its neighbours'."""
        self.done.put(result)
        is_command = self.under_way.get((result.row.workspace, result.row.sink), True)
        if is_command or self.done.qsize() >= min(RECORDED_AT_ONCE, len(self.under_way)):
            self.wake()

    @property
    def idle(self) -> bool:
        """Tell whether nothing is being carried and nothing waits to be recorded."""
        return not self.under_way and self.done.empty()

    def close(self) -> None:
        """Stop; what is being carried is finished or, at a command's timeout, given up."""
        self.files.shutdown(wait=True, cancel_futures=True)
        self.commands.shutdown(wait=False, cancel_futures=True)


def record_results(run: Run, deliveries: Deliveries, reading: Reading) -> bool:
    """Store what the workers brought back, all in one transaction; tell whether there was anything."""
    results = list(_drain(deliveries))
    if not results:
        return False
    with run.around.store.begin() as transaction:
        events: list[Event] = []
        for result in results:
            row = result.row
            if result.error:
                retry_at = reading.now + backoff(row.attempts + 1, RETRY_CEILING, share(f"{row.workspace}{row.sink}"))
                transaction.delivery_failed(row.workspace, row.sink, row.sequence, retry_at, result.error)
            elif transaction.delivered(row.workspace, row.sink, row.sequence, reading.now):
                events.append(_delivered(row, reading.now))
            else:
                # A newer token got there first, and this one was put over it: deliver the newer one again.
                again = [
                    replace(newer, due_at=reading.now, delivered_sequence=0)
                    for newer in transaction.deliveries(row.workspace)
                    if newer.sink == row.sink and newer.sequence > row.sequence
                ]
                transaction.want_deliveries(again)
        if events:
            run.head = transaction.append(events)
    for result in results:
        if result.error:
            run.around.log.event(
                "delivery.failed",
                workspace=result.row.workspace,
                sink=result.row.sink,
                sequence=result.row.sequence,
                attempts=result.row.attempts + 1,
                problem=result.error,
            )
    return True


def _drain(deliveries: Deliveries) -> Iterator[_Result]:
    """Take the results that are there. From now on their leases stand for them, should recording them fail."""
    while True:
        try:
            result = deliveries.done.get_nowait()
        except queue.Empty:
            return
        deliveries.under_way.pop((result.row.workspace, result.row.sink), None)
        yield result


def _delivered(row: DeliveryRow, now: datetime) -> Event:
    return Event(
        name=EventName.TOKEN_DELIVERED,
        at=now,
        workspace=row.workspace,
        jti=row.jti,
        details={"sink": row.sink, "sequence": row.sequence, "attempts": row.attempts + 1},
    )


def dispatch_due(run: Run, deliveries: Deliveries, reading: Reading) -> bool:
    """Claim what is due and hand it to the workers; tell whether more is waiting for a free one."""
    if deliveries.full:
        return False  # those that come back wake the loop
    with run.around.store.read() as snapshot:
        due = snapshot.due_deliveries(reading.now, CLAIMS)
        parcels = list(_parcels(run, deliveries, snapshot, due))
    if not due:
        return False
    leases = {(row.workspace, row.sink): lease(sink) for row, sink, _ in parcels}
    with run.around.store.begin() as transaction:
        # What cannot be carried now is put off as well, so that it does not stand before what can.
        transaction.want_deliveries(
            [replace(row, due_at=reading.now + leases.get((row.workspace, row.sink), PUT_OFF)) for row in due]
        )
    deliveries.under_way |= {(row.workspace, row.sink): isinstance(sink, CommandSink) for row, sink, _ in parcels}
    for row, sink, parcel in parcels:
        pool = deliveries.commands if isinstance(sink, CommandSink) else deliveries.files
        pool.submit(_carry, run, deliveries, row, sink, parcel)
    return len(due) == CLAIMS and not deliveries.full


def lease(sink: Sink) -> timedelta:
    """Return for how long a claimed delivery is left to whoever claimed it."""
    return (sink.timeout if isinstance(sink, CommandSink) else timedelta(0)) + LEASE_MARGIN


def _parcels(
    run: Run, deliveries: Deliveries, snapshot: Snapshot, due: tuple[DeliveryRow, ...]
) -> Iterator[tuple[DeliveryRow, Sink, Parcel]]:
    commands = Counter(deliveries.under_way.values())[True]
    current = snapshot.current_tokens(list(dict.fromkeys(row.workspace for row in due)))
    for row in due:
        sink = find_sink(run, row.workspace, row.sink)
        if sink is None or (row.workspace, row.sink) in deliveries.under_way:
            continue
        if isinstance(sink, CommandSink):
            if commands >= COMMANDS_AT_ONCE:
                continue
            commands += 1
        try:
            parcel = open_stored(run, snapshot, row, current.get(row.workspace))
        except SealError as error:
            run.fault(f"token:{row.jti}", str(error), "delivery.failed", workspace=row.workspace, sink=row.sink)
            continue
        if parcel is not None:
            yield row, sink, parcel


def find_sink(run: Run, workspace: WorkspaceId, wanted: SinkId) -> Sink | None:
    """Return the configured sink of that id; None if the config has it no more."""
    policy = run.policy.workspaces.get(workspace)
    sinks: tuple[FileSink | CommandSink, ...] = () if policy is None else policy.sinks
    return next((sink for sink in sinks if sink_id(sink) == wanted), None)


def open_parcel(run: Run, snapshot: Snapshot, row: DeliveryRow) -> Parcel | None:
    """Open the token that ``row`` wants; None if it is no longer the workspace's current one."""
    return open_stored(run, snapshot, row, snapshot.current_tokens([row.workspace]).get(row.workspace))


def open_stored(run: Run, snapshot: Snapshot, row: DeliveryRow, stored: TokenRow | None) -> Parcel | None:
    """Open ``stored``, the current token of the workspace, if that is what ``row`` wants.

    Raise :class:`SealError` if it is not sealed for that very workspace, or says of itself something else than its row.
    """
    if stored is None or stored.sealed is None or stored.token.jti != row.jti:
        return None
    token = stored.token
    if token.workspace != row.workspace:
        raise SealError(f"token {token.jti} is not of workspace {row.workspace}, and is handed to nobody")
    algorithm = _algorithm(run, snapshot, stored.token.kid)
    text = run.ready_sealer.open(PURPOSE_TOKEN, identity_of(token), token.kid, algorithm, stored.kek_id, stored.sealed)
    run.around.tokenmaker.require_same(text, token)
    return Parcel(
        workspace=token.workspace,
        jti=token.jti,
        kid=token.kid,
        sequence=token.sequence,
        issued_at=token.issued_at,
        expires_at=token.expires_at,
        token=Secret(text.reveal().decode("ascii")),
    )


def _algorithm(run: Run, snapshot: Snapshot, kid: str) -> str:
    for signing in run.signing.values():
        if signing.kid == kid:
            return signing.signer.algorithm
    row = snapshot.key(Kid(kid))
    return "" if row is None else row.key.algorithm


def _carry(run: Run, deliveries: Deliveries, row: DeliveryRow, sink: Sink, parcel: Parcel) -> None:
    """Run by a worker: deliver one parcel and bring the result back to the loop."""
    error = ""
    try:
        run.around.courier.deliver(sink, parcel)
    except RotatorError as problem:
        error = str(problem)
    except Exception as problem:  # noqa: BLE001 - the edge of a unit of work: a sink's failure is recorded as its own
        error = f"internal error: {type(problem).__name__}: {problem}"
    deliveries.bring(_Result(row, error))
