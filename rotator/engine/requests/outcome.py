"""How a request ends: done, together with what it changed, or refused with the reason."""

from collections.abc import Callable, Sequence
from datetime import datetime

from rotator.core.events import Event
from rotator.engine.attribution import caused_by
from rotator.engine.request_rows import remember_answered
from rotator.engine.run import Run
from rotator.ports import Answer, Reading, RequestRow, Transaction

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
    _finish(run, transaction, request, event.at, result)
    run.head = transaction.append([caused_by(request, each) for each in (*before, event)])


def done_before(run: Run, transaction: Transaction, request: RequestRow, reading: Reading, result: str) -> None:
    """Record that what a request asks for was done before it: nothing changed, so that there is nothing to audit."""
    _finish(run, transaction, request, reading.now, result)


def _finish(run: Run, transaction: Transaction, request: RequestRow, at: datetime, result: str) -> None:
    transaction.finish_request(request.id, at, succeeded=True, result=result)
    run.outcomes[request.nonce] = Answer(succeeded=True, text=result)


def refuse(run: Run, request: RequestRow, reading: Reading, problem: str) -> None:
    """Record that a request was not carried out, and why."""
    run.around.log.event("request.refused", kind=request.kind, actor=request.actor, problem=problem)
    with run.around.store.begin() as transaction:
        transaction.finish_request(request.id, reading.now, succeeded=False, result=problem)
    answer(run, request, Answer(succeeded=False, text=problem))


def answer(run: Run, request: RequestRow, given: Answer) -> None:
    """Answer whoever waits, and remember that the request was answered: what it changed is committed."""
    remember_answered(run, request)
    run.answers.give(request.nonce, given)
