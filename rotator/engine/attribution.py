"""Who caused an event: the person, by which command, and why. The rest is caused by ``rotator``, the schedule."""

from typing import Final

from rotator.core.events import Event
from rotator.ports import RequestRow

ACCEPTED_AT: Final = "accepted_at"
"""The detail of an event, and what a request is bound to, where a revocation was accepted long before the database."""


def caused_by(request: RequestRow, event: Event) -> Event:
    """Return ``event`` with the person who asked for it, the command, and the reason where it has none of its own.

    The command stands among the details, which have been in the chain from its first event on.
    """
    accepted_at = request.bound.get(ACCEPTED_AT)
    if accepted_at is not None:  # it was done then as far as it could be, and the database follows now
        event = event._replace(details={**event.details, ACCEPTED_AT: accepted_at})
    return in_name_of(request.actor, request.kind, event._replace(reason=event.reason or request.reason))


def in_name_of(actor: str, command: str, event: Event) -> Event:
    """Return ``event`` as caused by ``actor``, who used ``command`` some time ago: it took until now."""
    return event._replace(actor=actor, details={**event.details, "command": command})
