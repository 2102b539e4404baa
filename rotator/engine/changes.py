"""What each action of a keyset's plan changes in the database, and the events that tell of it.

Called inside the transaction in which the action was planned once more; each returns the events to be chained.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from rotator.core import lifecycle
from rotator.core.actions import (
    ActivateKey,
    ConfirmDestruction,
    DemoteKey,
    MakeKey,
    ProveKey,
    Reason,
    Reschedule,
    RetireKey,
)
from rotator.core.events import Detail, Event, EventName
from rotator.core.model import Kid, Origin, Phase, SigningKey, Wish
from rotator.engine.attribution import in_name_of
from rotator.engine.observe import Observed
from rotator.engine.rows import new_row
from rotator.ports import KeyMaterial, Sealer, Transaction


def _key(observed: Observed, kid: Kid) -> SigningKey:
    return next(key for key in observed.state.keys if key.kid == kid)


def _event(name: EventName, key: SigningKey, now: datetime, reason: str, **details: Detail) -> Event:
    return Event(name=name, at=now, keyset=key.keyset, kid=key.kid, reason=reason, details=details)


def _stamp(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")


def reschedule(tx: Transaction, observed: Observed, action: Reschedule, now: datetime) -> Sequence[Event]:
    """Store the deadlines anew, one event for the keyset."""
    rotate_at, grace_until = dict(action.rotate_at), dict(action.grace_until)
    for key in observed.state.keys:
        if key.kid in rotate_at or key.kid in grace_until:
            tx.update_key(
                replace(
                    key,
                    rotate_at=rotate_at.get(key.kid, key.rotate_at),
                    grace_until=grace_until.get(key.kid, key.grace_until),
                )
            )
    tx.put_keyset(replace(observed.row, schedule_fingerprint=action.schedule_fingerprint))
    details: dict[str, Detail] = {f"rotate_at:{kid}": _stamp(at) for kid, at in action.rotate_at}
    details |= {f"grace_until:{kid}": _stamp(at) for kid, at in action.grace_until}
    details["algorithm"] = observed.policy.algorithm
    return [Event(name=EventName.KEYSET_RESCHEDULED, at=now, keyset=action.keyset, details=details)]


def make(
    sealer: Sealer, tx: Transaction, observed: Observed, action: MakeKey, material: KeyMaterial, now: datetime
) -> Sequence[Event]:
    """Store a new key as pending."""
    key = SigningKey(
        kid=material.kid,
        keyset=action.keyset,
        sequence=action.sequence,
        algorithm=action.algorithm,
        phase=Phase.PENDING,
        created_at=now,
        origin=Origin.MADE,
        public_jwk=material.public_jwk,
    )
    tx.insert_key(new_row(sealer, key, material))
    tx.put_keyset(replace(observed.row, next_sequence=action.sequence + 1))
    return [_event(EventName.KEY_MADE, key, now, action.reason, algorithm=action.algorithm)]


def proven(tx: Transaction, observed: Observed, action: ProveKey, now: datetime) -> Sequence[Event]:
    """Record that the key signed a probe that verified from the published file."""
    key = _key(observed, action.kid)
    tx.update_key(replace(key, proven_at=now))
    return [_event(EventName.KEY_PROVEN, key, now, "")]


def activate(tx: Transaction, observed: Observed, action: ActivateKey, now: datetime) -> Sequence[Event]:
    """Let the key sign; what an operator asked for is fulfilled by it, and done in the operator's name."""
    events = []
    wish = observed.state.wish
    if wish is not None:
        tx.drop_wish(action.keyset)
    if action.prior is not None and action.prior_grace_until is not None:
        prior = lifecycle.demote(_key(observed, action.prior), now=now, grace_until=action.prior_grace_until)
        tx.update_key(prior)
        events.append(
            _event(EventName.KEY_DEMOTED, prior, now, action.reason, grace_until=_stamp(action.prior_grace_until))
        )
    key = lifecycle.activate(_key(observed, action.kid), now=now, rotate_at=action.rotate_at)
    tx.update_key(key)
    tx.put_keyset(replace(observed.row, ever_active=True))
    events.append(_event(EventName.KEY_ACTIVATED, key, now, action.reason, rotate_at=_stamp(action.rotate_at)))
    if wish is None or not (action.reason is Reason.REQUESTED or wish.emergency):
        return events
    command = "keyset.rotate_at_once" if wish.emergency else "keyset.rotate"
    return [_wished(wish, command, event) for event in events]


def _wished(wish: Wish, command: str, event: Event) -> Event:
    """Return ``event`` in the name of whoever wished it, and for their reason; the planner's is its cause."""
    details = {**event.details, "cause": event.reason}
    return in_name_of(wish.actor, command, event._replace(reason=wish.reason or event.reason, details=details))


def demote(tx: Transaction, observed: Observed, action: DemoteKey, now: datetime) -> Sequence[Event]:
    """End the signing of a key that gets no successor."""
    key = lifecycle.demote(_key(observed, action.kid), now=now, grace_until=action.grace_until)
    tx.update_key(key)
    return [_event(EventName.KEY_DEMOTED, key, now, action.reason, grace_until=_stamp(action.grace_until))]


def retire(tx: Transaction, observed: Observed, action: RetireKey, now: datetime) -> Sequence[Event]:
    """Take the key out of the published set."""
    key = lifecycle.retire(_key(observed, action.kid), now=now)
    tx.update_key(key)
    return [_event(EventName.KEY_RETIRED, key, now, action.reason)]


def destroyed(tx: Transaction, observed: Observed, action: ConfirmDestruction, now: datetime) -> Sequence[Event]:
    """Record that the private halves are gone from the disk."""
    events = []
    for kid in action.kids:
        key = replace(_key(observed, kid), has_private=False, destroyed_at=now)
        tx.update_key(key)
        events.append(_event(EventName.KEY_DESTROYED, key, now, ""))
    return events
