"""What becomes of rows that are no request of anybody, or are one that was answered before.

None is carried out. Each is finished as refused, so that it is looked at once; the audit and ``status`` name it, for
somebody writes to the database who should not, or an older one was put back.
"""

from collections.abc import Sequence
from typing import Final

from rotator.core.counting import counted
from rotator.core.events import Detail, Event, EventName
from rotator.engine.run import Run
from rotator.ports import Reading

SUBJECT: Final = "request"
NOT_OURS: Final = "it was not accepted by rotator, or was changed since"
REPLAYED: Final = "it was answered before, and was put back or copied"
SHOWN: Final = 10
"""How many are named; the rest is counted."""

Odd = tuple[int, str, str]
"""The id of the row, the kind that it says, and what is wrong with it."""


def put_aside(run: Run, rows: Sequence[Odd], reading: Reading) -> None:
    """Finish ``rows`` without doing anything of what they say; one event and one fault name them."""
    with run.around.store.begin() as transaction:
        for why in (NOT_OURS, REPLAYED):
            found = [number for number, _, wrong in rows if wrong == why]
            if found:
                transaction.put_aside_requests(found, reading.now, f"put aside: {why}")
        named = ", ".join(f"{number} ({kind[:40]!r}: {why})" for number, kind, why in rows[:SHOWN])
        more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
        details: dict[str, Detail] = {"requests": len(rows), "rows": named + more}
        run.head = transaction.append([Event(EventName.REQUEST_PUT_ASIDE, reading.now, details=details)])
    problem = (
        f"{counted(len(rows), 'row', 'rows')} of the table requests {'was' if len(rows) == 1 else 'were'} put aside at "
        f"{reading.now:%Y-%m-%d %H:%M:%S} UTC, and nothing of what they say was done: {named}{more}"
    )
    run.faults[SUBJECT] = problem  # the log has the event
    run.tampered[SUBJECT] = reading.now
