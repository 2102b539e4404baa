"""A tick costs what is due, not what exists: no query that it asks reads a whole table."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from rotator.adapters.store import SqlStore, open_store
from rotator.core.events import EventName
from rotator.core.model import DEFAULT_KEYSET, Jti, KeysetName, Phase, ReplicaId, WorkspaceId
from rotator.ports import AuditWanted, Snapshot, Transaction
from tests.contract.records import ACME, DAY, FILE, HOUR, KID, NOW, events, issue, issued, key, keyset, workspace

GROWING = ("workspaces", "tokens", "deliveries", "audit", "requests")
"""Tables whose size is the number of workspaces, or of days."""

QUERIES: dict[str, Callable[[Snapshot], object]] = {
    "due_keysets": lambda snapshot: snapshot.due_keysets(NOW),
    "keyset": lambda snapshot: snapshot.keyset(DEFAULT_KEYSET),
    "keyset_in_use": lambda snapshot: snapshot.keyset_in_use(DEFAULT_KEYSET, NOW),
    "keys": lambda snapshot: snapshot.keys(DEFAULT_KEYSET),
    "key": lambda snapshot: snapshot.key(KID),
    "sightings": lambda snapshot: snapshot.sightings(DEFAULT_KEYSET),
    "workspace": lambda snapshot: snapshot.workspace(ACME),
    "due_workspaces": lambda snapshot: snapshot.due_workspaces([DEFAULT_KEYSET], NOW, 9),
    "due_workspaces of two": lambda snapshot: snapshot.due_workspaces([DEFAULT_KEYSET, KeysetName("other")], NOW, 9),
    "overdue_workspaces": lambda snapshot: snapshot.overdue_workspaces(NOW),
    "workspace_faults": lambda snapshot: snapshot.workspace_faults(),
    "token": lambda snapshot: snapshot.token(Jti("jti")),
    "tokens after one": lambda snapshot: list(snapshot.tokens(after=WorkspaceId("ws-1999"))),
    "tokens of one": lambda snapshot: list(snapshot.tokens(ACME)),
    "current_tokens": lambda snapshot: snapshot.current_tokens([ACME]),
    "expired_tokens": lambda snapshot: snapshot.expired_tokens(NOW, 9),
    "due_deliveries": lambda snapshot: snapshot.due_deliveries(NOW, 9),
    "deliveries of one": lambda snapshot: snapshot.deliveries(ACME),
    "delivery_alarms": lambda snapshot: snapshot.delivery_alarms(NOW),
    "open_requests": lambda snapshot: snapshot.open_requests(),
    "request": lambda snapshot: snapshot.request(1),
    "audit_head": lambda snapshot: snapshot.audit_head(),
    "audit after": lambda snapshot: list(snapshot.audit(after=7)),
    "newest_audit of one": lambda snapshot: list(snapshot.newest_audit(AuditWanted(workspace=ACME))),
    "audit_hash": lambda snapshot: snapshot.audit_hash(7),
    "next_due": lambda snapshot: snapshot.next_due([DEFAULT_KEYSET]),
    "wish": lambda snapshot: snapshot.wish(DEFAULT_KEYSET),
    "overlaps": lambda snapshot: snapshot.overlaps(),
    "ended_overlaps": lambda snapshot: snapshot.ended_overlaps(NOW, 9),
    "next_due of two": lambda snapshot: snapshot.next_due([DEFAULT_KEYSET, KeysetName("other")]),
}

CHANGES: dict[str, Callable[[Transaction], object]] = {
    "raise_last_exp": lambda transaction: transaction.raise_last_exp(KID, NOW),
    "update_key": lambda transaction: transaction.update_key(key(phase=Phase.ACTIVE).key),
    "delete_sightings": lambda transaction: transaction.delete_sightings(ReplicaId("here"), [KID]),
    "update_workspaces": lambda transaction: transaction.update_workspaces([workspace()]),
    "fail_workspaces": lambda transaction: transaction.fail_workspaces([ACME], NOW, "no"),
    "issue": lambda transaction: transaction.issue(
        [issued(state) for state in [transaction.workspace(ACME)] if state is not None]
    ),
    "lock_workspace": lambda transaction: transaction.lock_workspace(ACME),
    "make_due": lambda transaction: transaction.make_due(ACME, NOW, "requested", NOW),
    "drop_overlaps": lambda transaction: transaction.drop_overlaps([Jti("acme-1")]),
    "retire_tokens": lambda transaction: transaction.retire_tokens([Jti("acme-1")], NOW),
    "revoke_token": lambda transaction: transaction.revoke_token(Jti("acme-1"), NOW, "leaked"),
    "delivered": lambda transaction: transaction.delivered(ACME, FILE, 1, NOW),
    "delivery_failed": lambda transaction: transaction.delivery_failed(ACME, FILE, 1, NOW, "no"),
    "release_leases": lambda transaction: transaction.release_leases(NOW),
    "redeliver": lambda transaction: transaction.redeliver(ACME, FILE, 1, NOW),
    "drop_deliveries": lambda transaction: transaction.drop_deliveries([(ACME, FILE)]),
    "finish_request": lambda transaction: transaction.finish_request(1, NOW, succeeded=True, result=""),
    "append": lambda transaction: transaction.append(events(EventName.KEY_MADE)),
    "mark_logged": lambda transaction: transaction.mark_logged(1),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    path: Path = tmp_path_factory.mktemp("plans") / "rotator.db"
    opened = open_store(f"sqlite:///{path}", create=True)
    with opened.begin() as transaction:
        transaction.put_keyset(keyset(due_at=NOW + DAY))
        transaction.insert_key(key(phase=Phase.ACTIVE))
        transaction.insert_workspaces([workspace(), *(workspace(f"ws-{n}", due_at=NOW + HOUR) for n in range(2_000))])
        issue(transaction)
    yield opened
    opened.close()


def plans(store: SqlStore, run: Callable[[], object]) -> list[str]:
    """Run, and return each step of the plan of each statement that was run."""
    asked: list[tuple[str, Any]] = []

    def remember(_c: object, _cursor: object, statement: str, parameters: Any, _x: object, many: bool) -> None:
        asked.append((statement, parameters[0] if many else parameters))

    sa.event.listen(store._engine, "before_cursor_execute", remember)
    try:
        run()
    finally:
        sa.event.remove(store._engine, "before_cursor_execute", remember)
    steps = []
    with store._engine.connect() as connection:
        for statement, parameters in asked:
            if statement.startswith(("SELECT", "UPDATE", "DELETE", "INSERT")):
                found = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                steps += [row.detail for row in found]
    return steps


def scans(steps: list[str]) -> list[str]:
    """Return the steps that read a growing table as a whole: not by key, and not by an index of few rows."""
    few = ("ix_deliveries_failed", "ix_deliveries_due", "ix_requests_open")
    return [
        step
        for step in steps
        if step.startswith("SCAN") and step.split()[1] in GROWING and not any(index in step for index in few)
    ]


@pytest.mark.parametrize("query", QUERIES)
def test_query_of_a_tick_scans_nothing(store: SqlStore, query: str) -> None:
    def run() -> None:
        with store.read() as snapshot:
            QUERIES[query](snapshot)

    steps = plans(store, run)
    assert steps
    assert scans(steps) == []


@pytest.mark.parametrize("change", CHANGES)
def test_change_scans_nothing(store: SqlStore, change: str) -> None:
    def run() -> None:
        with store.begin() as transaction:
            CHANGES[change](transaction)

    assert scans(plans(store, run)) == []


def test_a_scan_would_be_seen(store: SqlStore) -> None:
    """The listing of all workspaces is one."""

    def run() -> None:
        with store.read() as snapshot:
            list(snapshot.workspaces())

    assert scans(plans(store, run)) != []


def test_next_workspace_is_one_step_into_the_index(store: SqlStore) -> None:
    """Not the least of all that there are: the first entry of the keyset's part of the index."""

    def run() -> None:
        with store.read() as snapshot:
            snapshot.next_due([DEFAULT_KEYSET])

    steps = plans(store, run)
    assert "SEARCH workspaces USING INDEX ix_workspaces_due (keyset=?)" in steps
    assert not any("TEMP B-TREE" in step for step in steps)
