"""Mends what was stored while the clock was ahead, once it is known to be right: nothing waits for a far day.

Tokens of that time are refused by every verifier until their ``nbf`` comes, so their workspaces get new ones at once,
and are not spread over some time as those are that can wait.
The deadlines of keys and the time that they were in public are made anew by the planner and by the next look at them.
"""

from dataclasses import replace

from rotator.core.actions import Reason
from rotator.engine.run import Run
from rotator.ports import Reading, Transaction


def amend_future(run: Run, transaction: Transaction, reading: Reading) -> int:
    """Bring back to ``reading`` what lies ahead of it; return how many workspaces are to get new tokens."""
    now, latest = reading.now, reading.now + run.policy.clock_skew
    ahead = [
        state
        for state in transaction.workspaces()
        if state.removed_at is None and state.current_issued_at is not None and state.current_issued_at > latest
    ]
    transaction.update_workspaces([state._replace(due_at=now, due_reason=Reason.CLOCK_SET_BACK) for state in ahead])
    transaction.want_deliveries(
        [
            replace(row, due_at=now)
            for row in transaction.deliveries()
            if row.due_at is not None and row.wanted_at > latest
        ]
    )
    for row in transaction.keysets():
        if row.ended_at is None:
            transaction.put_keyset(replace(row, due_at=now, retry_at=None))
    return len(ahead)
