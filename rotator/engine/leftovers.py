"""Deletes files that the config has no more and that were to go with it (``on_removal: delete``).

What is to go stands in the workspace's row, under its MAC, from when the config names it; it is taken from there once
the file is gone, or is known to be somebody else's. So whatever is left undone is found again at the next start.
"""

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from rotator.core.events import Event, EventName
from rotator.core.model import Phase, SinkId, WorkspaceId
from rotator.core.policy import FileSink
from rotator.core.schedule import share
from rotator.core.sinks import left_behind, path_of
from rotator.engine.carrying import PUT_OFF, Deliveries, Key, Leaving
from rotator.engine.run import Pending, Run, backoff
from rotator.ports import Leftover, Reading, Snapshot, Transaction

AT_A_TIME: Final = 250
RETRY_CEILING: Final = timedelta(minutes=15)

NO_TEXT: Final = "no token that was written there is known any more, so that it cannot be told whose it is"
NAMED_AGAIN: Final = "a sink in the config has the same path"


def delete_leftovers(run: Run, deliveries: Deliveries, reading: Reading) -> None:
    """Hand what is due to the workers, as far as it has a place."""
    due = [key for key, pending in run.leftovers.items() if pending.due_at <= reading.now][:AT_A_TIME]
    if not due:
        return
    with run.around.store.read() as snapshot:
        found = [(key, leftover) for key in due if (leftover := _leftover(run, snapshot, key)) is not None]
    named = _paths(run)
    to_do: list[tuple[Key, Leftover]] = []
    for key, leftover in found:
        if leftover.sink.path in named:
            _settle(run, key, reading, kept=NAMED_AGAIN)
        elif not leftover.tokens:
            _settle(run, key, reading, kept=NO_TEXT)
        elif key in deliveries.under_way:
            _put_off(run, key, reading.now + PUT_OFF)
        else:
            to_do.append((key, leftover))
    domains = run.around.courier.domains([leftover.sink for _, leftover in to_do])
    jobs = [
        Leaving(key, leftover, deliveries.place_of(key, domain, hung=run.leftovers[key].hung), domain)
        for (key, leftover), domain in zip(to_do, domains, strict=True)
    ]
    admitted = set(deliveries.admitted([(job.sink, job.place) for job in jobs]))
    for job in jobs:
        _put_off(run, job.key, reading.now + PUT_OFF)
    deliveries.begin([job for number, job in enumerate(jobs) if number in admitted], run.around.courier)


def _leftover(run: Run, snapshot: Snapshot, key: Key) -> Leftover | None:
    """Return what is to be deleted; None, and nothing is remembered, where it is not to be deleted any more."""
    workspace, sink = key
    state, path = snapshot.workspace(workspace), path_of(sink)
    wanted = run.policy.workspaces.get(workspace)
    held = state is not None and state.removed_at is None and wanted is None  # nobody has accepted that it is dropped
    to_go = () if state is None else left_behind(state.deletes, () if wanted is None else wanted.sinks)
    if path is None or held or sink not in to_go:
        del run.leftovers[key]
        run.healed(_subject(key))
        return None
    return Leftover(FileSink(path), tuple(_digests(snapshot, workspace)))


def _digests(snapshot: Snapshot, workspace: WorkspaceId) -> Iterator[str]:
    for token in snapshot.tokens(workspace):
        key = snapshot.key(token.kid) if token.phase in (Phase.ACTIVE, Phase.GRACE) else None
        if key is not None:
            text = snapshot.token_text(token.jti, key.key.algorithm)
            if text is not None:
                yield hashlib.sha256(text.reveal()).hexdigest()


def _paths(run: Run) -> frozenset[str]:
    """Return the path of every file that the config names, for whichever workspace."""
    every = (sink for each in run.policy.workspaces.values() for sink in each.sinks)
    return frozenset(sink.path for sink in every if isinstance(sink, FileSink))


def record_leftovers(run: Run, deliveries: Deliveries, reading: Reading) -> None:
    """Store what the workers brought back."""
    for result in deliveries.drain_gone():
        key, ending = result.job.key, result.ending
        pending = run.leftovers.get(key)
        if pending is None or ending is None:
            continue
        if ending.kept:
            _settle(run, key, reading, kept=ending.problem)
        elif ending.problem:
            failures = pending.failures + 1
            wait = backoff(failures, RETRY_CEILING, share("".join(key)))
            run.leftovers[key] = Pending(reading.now + wait, failures, ending.hung)
            run.fault(_subject(key), ending.problem, "file.left", workspace=key[0], sink=key[1])
        else:
            _settle(run, key, reading)


def _settle(run: Run, key: Key, reading: Reading, *, kept: str = "") -> None:
    """Take a file from those that are to go: it is gone, or is to stay for ``kept``."""
    workspace, sink = key
    with run.around.store.begin() as transaction:
        known = _forget(transaction, workspace, sink)
        if known and not kept:
            event = Event(EventName.FILE_DELETED, reading.now, workspace=workspace, details={"sink": sink})
            run.head = transaction.append([event])
    del run.leftovers[key]
    run.healed(_subject(key))
    if known and kept:
        run.around.log.event("file.left", workspace=workspace, sink=sink, problem=kept)


def _forget(transaction: Transaction, workspace: WorkspaceId, sink: SinkId) -> bool:
    state = transaction.lock_workspace(workspace)
    if state is None or sink not in state.deletes:
        return False
    transaction.update_workspaces([state._replace(deletes=tuple(each for each in state.deletes if each != sink))])
    return True


def _put_off(run: Run, key: Key, due_at: datetime) -> None:
    pending = run.leftovers[key]
    run.leftovers[key] = Pending(due_at, pending.failures, pending.hung)


def _subject(key: Key) -> str:
    return f"leftover:{key[0]}:{key[1]}"
