"""What each action of a keyset's plan changes, the events that tell of it, and how it comes into the database.

What an action does is said once, by :func:`rotator.core.transitions.apply`. What is written is the difference between
the state before and the state after: each key once, however many actions changed it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import assert_never

from rotator.core.actions import (
    ActivateKey,
    ConfirmDestruction,
    DemoteKey,
    KeysetAction,
    MakeKey,
    ProveKey,
    PublishSet,
    Reason,
    Reschedule,
    RetireKey,
)
from rotator.core.events import Detail, Event, EventName
from rotator.core.model import Kid, SigningKey, Wish
from rotator.core.transitions import apply, kid_to_be
from rotator.engine.attribution import in_name_of
from rotator.engine.observe import Observed
from rotator.engine.rows import new_row
from rotator.engine.run import Run
from rotator.ports import KeyMaterial, Transaction


def carried_out(observed: Observed, action: KeysetAction, made: KeyMaterial | None, now: datetime) -> Observed:
    """Return what is so once ``action`` was carried out. ``made``: the key that a :class:`MakeKey` asks for."""
    state = apply(observed.state, action, now)
    if isinstance(action, MakeKey) and made is not None:
        state = replace(
            state,
            keys=tuple(
                replace(key, kid=made.kid, public_jwk=made.public_jwk) if key.kid == kid_to_be(action) else key
                for key in state.keys
            ),
        )
    row = replace(
        observed.row,
        next_sequence=state.next_sequence,
        schedule_fingerprint=state.schedule_fingerprint,
        ever_active=state.ever_active,
    )
    return replace(observed, row=row, state=state)


def store(run: Run, tx: Transaction, before: Observed, after: Observed, made: Iterable[KeyMaterial]) -> None:
    """Write what is so now and was not before. ``made``: the private halves of new keys."""
    known = {key.kid: key for key in before.state.keys}
    materials = {material.kid: material for material in made}
    for key in after.state.keys:
        if key.kid not in known:
            tx.insert_key(new_row(run.ready_sealer, key, materials[key.kid]))
        elif key != known[key.kid]:
            tx.update_key(key)
    if before.state.wish is not None and after.state.wish is None:
        tx.drop_wish(after.row.name)
    if after.row != before.row:
        tx.put_keyset(after.row)


# --------------------------------------------------------------------------------------------------------- events


def events_of(before: Observed, after: Observed, action: KeysetAction, now: datetime) -> Sequence[Event]:
    """Return what there is to tell of an action that was carried out."""
    match action:
        case Reschedule():
            details: dict[str, Detail] = {f"rotate_at:{kid}": _stamp(at) for kid, at in action.rotate_at}
            details |= {f"grace_until:{kid}": _stamp(at) for kid, at in action.grace_until}
            details["algorithm"] = before.policy.algorithm
            return [Event(name=EventName.KEYSET_RESCHEDULED, at=now, keyset=action.keyset, details=details)]
        case MakeKey():
            key = after.state.keys[-1]
            return [_event(EventName.KEY_MADE, key, now, action.reason, algorithm=action.algorithm)]
        case ProveKey():
            return [_event(EventName.KEY_PROVEN, _key(after, action.kid), now, "")]
        case ActivateKey():
            return _activated(before, after, action, now)
        case DemoteKey():
            return [_demoted(_key(after, action.kid), action.grace_until, action.reason, now)]
        case RetireKey():
            return [_event(EventName.KEY_RETIRED, _key(after, action.kid), now, action.reason)]
        case ConfirmDestruction():
            return [_event(EventName.KEY_DESTROYED, _key(after, kid), now, "") for kid in action.kids]
        case PublishSet():
            raise AssertionError("publications are not database changes")
        case _:
            assert_never(action)


def _key(observed: Observed, kid: Kid) -> SigningKey:
    return next(key for key in observed.state.keys if key.kid == kid)


def _event(name: EventName, key: SigningKey, now: datetime, reason: str, **details: Detail) -> Event:
    return Event(name=name, at=now, keyset=key.keyset, kid=key.kid, reason=reason, details=details)


def _stamp(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")


def _demoted(key: SigningKey, grace_until: datetime, reason: Reason, now: datetime) -> Event:
    return _event(EventName.KEY_DEMOTED, key, now, reason, grace_until=_stamp(grace_until))


def _activated(before: Observed, after: Observed, action: ActivateKey, now: datetime) -> Sequence[Event]:
    """Tell that another key signs; what an operator asked for is done in the operator's name."""
    events = []
    if action.prior is not None and action.prior_grace_until is not None:
        events.append(_demoted(_key(after, action.prior), action.prior_grace_until, action.reason, now))
    key = _key(after, action.kid)
    events.append(_event(EventName.KEY_ACTIVATED, key, now, action.reason, rotate_at=_stamp(action.rotate_at)))
    wish = before.state.wish
    if wish is None or not (action.reason is Reason.REQUESTED or wish.emergency):
        return events
    command = "keyset.rotate_at_once" if wish.emergency else "keyset.rotate"
    return [_wished(wish, command, event) for event in events]


def _wished(wish: Wish, command: str, event: Event) -> Event:
    """Return ``event`` in the name of whoever wished it, and for their reason; the planner's is its cause."""
    details = {**event.details, "cause": event.reason}
    return in_name_of(wish.actor, command, event._replace(reason=wish.reason or event.reason, details=details))
