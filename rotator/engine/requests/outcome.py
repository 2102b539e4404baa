"""How a request ends: done, together with what it changed, or refused with the reason."""

from collections.abc import Callable, Sequence

from rotator.core.events import Event
from rotator.engine.attribution import caused_by
from rotator.engine.run import Run
from rotator.ports import Reading, RequestRow, Transaction

Handler = Callable[[Run, RequestRow, Reading], None]
"""Does the work, records its event and the request's end in one transaction, by :func:`done`.

Raises :class:`~rotator.errors.RefusedError` with the reason when it will not.
"""


def done(
    run: Run, transaction: Transaction, request: RequestRow, event: Event, result: str, *, before: Sequence[Event] = ()
) -> None:
    """Record a request's event and its end together: killed before, it is done again; after, it is not.

    ``before``: events of the same transaction that come before it. All are told as caused by the request.
    """
    transaction.finish_request(request.id, event.at, succeeded=True, result=result)
    run.head = transaction.append([caused_by(request, each) for each in (*before, event)])


def done_before(transaction: Transaction, request: RequestRow, reading: Reading, result: str) -> None:
    """Record that what a request asks for was done before it: nothing changed, so that there is nothing to audit."""
    transaction.finish_request(request.id, reading.now, succeeded=True, result=result)


def refuse(run: Run, request: RequestRow, reading: Reading, problem: str) -> None:
    """Record that a request was not carried out, and why."""
    run.around.log.event("request.refused", kind=request.kind, actor=request.actor, problem=problem)
    with run.around.store.begin() as transaction:
        transaction.finish_request(request.id, reading.now, succeeded=False, result=problem)
