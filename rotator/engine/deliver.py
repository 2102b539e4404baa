"""Delivers tokens to sinks: claimed from the database, carried by workers, recorded by the loop.

A claim is a lease: it puts the delivery off until the workers must have given up, so that a crash or a second replica
neither loses nor doubles it. A delivery is of one sequence number, checked before and after, so that an old token that
was held up on its way is followed by the current one.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from rotator.core.events import Event, EventName
from rotator.core.model import FailureDomain, Jti, Kid, SinkId, WorkspaceId
from rotator.core.policy import CommandSink, FileSink, Sink
from rotator.core.schedule import share
from rotator.core.secret import Secret
from rotator.core.sinks import sink_id
from rotator.engine.carrying import PUT_OFF, Deliveries, Hung, Job, Result
from rotator.engine.rows import PURPOSE_TOKEN, identity_of
from rotator.engine.run import Run, backoff
from rotator.errors import SealError
from rotator.ports import DeliveryRow, Errand, Parcel, Reading, Snapshot, TokenRow, Transaction

CLAIMS: Final = 500
"""Deliveries looked at in one read."""

LEASE_MARGIN: Final = timedelta(seconds=30)
RETRY_CEILING: Final = timedelta(minutes=15)

HUNG_RETRY_CEILING: Final = timedelta(minutes=1)
"""What hung is mended by somebody who waits for it; it takes nobody's place, and trying costs next to nothing."""


def record_results(run: Run, deliveries: Deliveries, reading: Reading) -> bool:
    """Store what the workers brought back, all in one transaction; tell whether there was anything."""
    results = list(deliveries.drain())
    if not results:
        return False
    with run.around.store.begin() as transaction:
        made = [each.job.row for each in results if _is_made(each)]
        late = transaction.delivered_as_wanted(made, reading.now)
        overtaken = {(row.workspace, row.sink) for row in late}
        events = [_delivered(row, reading.now) for row in made if (row.workspace, row.sink) not in overtaken]
        for each in results:
            if not _is_made(each) or each.job.key in overtaken:
                events += _record(transaction, each, reading)
        if events:
            run.head = transaction.append(events)
    for result in results:
        _remember(deliveries, result)
        _log_failure(run, result)
    name_what_hangs(run, deliveries)
    return True


def _is_made(result: Result) -> bool:
    return not result.job.compares and result.ending is not None and not result.ending.problem


def _record(transaction: Transaction, result: Result, reading: Reading) -> Iterator[Event]:
    row, ending = result.job.row, result.ending
    if result.job.compares:
        if ending is not None and ending.problem and not ending.hung:
            transaction.redeliver(row.workspace, row.sink, row.sequence, reading.now)
    elif ending is None:
        transaction.put_off([replace(row, due_at=reading.now)])
    elif ending.problem:
        ceiling = HUNG_RETRY_CEILING if ending.hung else RETRY_CEILING
        retry_at = reading.now + backoff(row.attempts + 1, ceiling, share(f"{row.workspace}{row.sink}"))
        transaction.delivery_failed(row.workspace, row.sink, row.sequence, retry_at, ending.problem)
    elif transaction.delivered(row.workspace, row.sink, row.sequence, reading.now):
        yield _delivered(row, reading.now)
    else:
        # A newer token got there first, and this one was put over it: deliver the newer one again.
        again = [
            replace(newer, due_at=reading.now, delivered_sequence=0)
            for newer in transaction.deliveries(row.workspace)
            if newer.sink == row.sink and newer.sequence > row.sequence
        ]
        transaction.want_deliveries(again)


def _remember(deliveries: Deliveries, result: Result) -> None:
    """Remember what hung, until it answers."""
    if result.ending is None:
        return
    if not result.ending.hung:
        deliveries.hung.pop(result.job.key, None)
        return
    deliveries.hung[result.job.key] = Hung(result.job.domain, result.ending.problem, result.job.row)


def _log_failure(run: Run, result: Result) -> None:
    row, ending = result.job.row, result.ending
    if ending is None or not ending.problem or result.job.compares:
        return
    run.around.log.event(
        "delivery.failed",
        workspace=row.workspace,
        sink=row.sink,
        sequence=row.sequence,
        attempts=row.attempts + 1,
        problem=ending.problem,
    )


def name_what_hangs(run: Run, deliveries: Deliveries) -> None:
    """Name each failure domain in which a sink hangs, and forget sinks that the config has no more."""
    for workspace, sink in [key for key in deliveries.hung if find_sink(run, *key) is None]:
        del deliveries.hung[workspace, sink]
    hanging: dict[FailureDomain, str] = {}
    for (workspace, sink), hung in deliveries.hung.items():
        hanging.setdefault(hung.domain, f"{sink} of workspace {workspace} hangs: {hung.problem}")
    for domain, problem in hanging.items():
        run.fault(domain, problem, "sink.hung", domain=domain)
    for subject in [each for each in run.faults if each.startswith(("filesystem:", "command:"))]:
        if subject not in hanging:
            run.healed(subject)


def _delivered(row: DeliveryRow, now: datetime) -> Event:
    return Event(
        name=EventName.TOKEN_DELIVERED,
        at=now,
        workspace=row.workspace,
        jti=row.jti,
        details={"sink": row.sink, "sequence": row.sequence, "attempts": row.attempts + 1},
    )


def dispatch_due(run: Run, deliveries: Deliveries, reading: Reading) -> bool:
    """Claim what is due and has a place, and hand it to the workers; tell whether there may be more of it.

    What has no place stays due where it is, before all that fails meanwhile. What is behind it is looked at as well, a
    page in each tick.
    """
    with run.around.store.read() as snapshot:
        due = snapshot.due_deliveries(reading.now, CLAIMS)
        if not due:
            deliveries.waiting, deliveries.passed = False, 0
            return False
        further = _further(deliveries, snapshot, len(due), reading)
        rows = list({(row.workspace, row.sink): row for row in (*due, *further)}.values())
        jobs, put_off, unserved = _jobs(run, deliveries, snapshot, rows)
    deliveries.waiting = bool(unserved)
    claimed = [replace(job.row, due_at=reading.now + lease(job.errand.sink)) for job in jobs]
    with run.around.store.begin() as transaction:
        transaction.put_off([*claimed, *(replace(row, due_at=reading.now + PUT_OFF) for row in put_off)])
    deliveries.begin(jobs, run.around.courier)
    return len(due) == CLAIMS and bool(jobs or put_off)


def _further(deliveries: Deliveries, snapshot: Snapshot, seen: int, reading: Reading) -> tuple[DeliveryRow, ...]:
    """Return the next page behind the first, which begins anew after the last."""
    if seen < CLAIMS:
        deliveries.passed = 0
        return ()
    deliveries.passed += CLAIMS
    further = snapshot.due_deliveries(reading.now, CLAIMS, deliveries.passed)
    if len(further) < CLAIMS:
        deliveries.passed = 0
    return further


def lease(sink: Sink) -> timedelta:
    """Return for how long a claimed delivery is left to whoever claimed it."""
    return (sink.timeout if isinstance(sink, CommandSink) else timedelta(0)) + LEASE_MARGIN


def _jobs(
    run: Run, deliveries: Deliveries, snapshot: Snapshot, rows: list[DeliveryRow]
) -> tuple[list[Job], list[DeliveryRow], int]:
    """Return what can begin, what cannot be done now, and how many have no place."""
    put_off: list[DeliveryRow] = []
    open_rows: list[tuple[DeliveryRow, Sink]] = []
    for row in rows:
        sink = find_sink(run, row.workspace, row.sink)
        if sink is None or (row.workspace, row.sink) in deliveries.under_way:
            put_off.append(row)
        else:
            open_rows.append((row, sink))
    domains = run.around.courier.domains([sink for _, sink in open_rows])
    wanted = [
        (sink, deliveries.place((row.workspace, row.sink), domain))
        for (row, sink), domain in zip(open_rows, domains, strict=True)
    ]
    admitted = deliveries.admitted(wanted)
    current = snapshot.current_tokens(list(dict.fromkeys(open_rows[number][0].workspace for number in admitted)))
    jobs: list[Job] = []
    for number in admitted:
        row, sink = open_rows[number]
        parcel = open_known(run, snapshot, row, current.get(row.workspace))
        if parcel is None:
            put_off.append(row)
        else:
            jobs.append(Job(row, Errand(sink, parcel), wanted[number][1], domains[number]))
    return jobs, put_off, len(open_rows) - len(admitted)


def open_known(run: Run, snapshot: Snapshot, row: DeliveryRow, stored: TokenRow | None) -> Parcel | None:
    """Do what :func:`open_stored` does; a token that cannot be opened is named as long as that is so."""
    subject = f"token:{row.jti}"
    try:
        parcel = open_stored(run, snapshot, row, stored)
    except SealError as error:
        run.fault(subject, str(error), "delivery.failed", workspace=row.workspace, sink=row.sink)
        return None
    run.healed(subject)
    return parcel


def heal_tokens(run: Run) -> None:
    """Forget the faults of tokens that can be opened, or that no sink is to hold any more."""
    for subject in [each for each in run.faults if each.startswith("token:")]:
        with run.around.store.read() as snapshot:
            stored = snapshot.token(Jti(subject.removeprefix("token:")))
            current = None if stored is None else snapshot.current_tokens([stored.token.workspace])
            rows = () if stored is None else snapshot.deliveries(stored.token.workspace)
            row = next((each for each in rows if stored is not None and each.jti == stored.token.jti), None)
            held = None if row is None or current is None else current.get(row.workspace)
            if row is not None and held is not None and held.token.jti == row.jti:
                open_known(run, snapshot, row, held)
                continue
        run.healed(subject)


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
