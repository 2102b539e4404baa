"""The planner unrolled over virtual time: what it will do with a keyset, one action after the other."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from rotator.core.actions import ActivateKey, KeysetAction, PublishSet
from rotator.core.model import KeysetState, SigningKey
from rotator.core.planner import next_due, plan_keyset
from rotator.core.policy import KeysetPolicy, RotationWindow
from rotator.core.schedule import Calendar
from rotator.core.transitions import apply
from rotator.report.known import KnownKeyset

_ROUNDS: Final = 8
"""Publications that one moment can need beside one for each key that leaves, and more."""


class _NoWindows:
    """A calendar for looking one event ahead, whose own moment never hangs on a window."""

    def last_opening(self, window: RotationWindow, *, after: datetime, until: datetime) -> datetime | None:
        """Return nothing."""


NO_WINDOWS: Final[Calendar] = _NoWindows()


@dataclass(frozen=True, slots=True)
class Turn:
    """One action, and the keyset on both sides of it."""

    at: datetime
    before: KeysetState
    action: KeysetAction
    after: KeysetState


def turns(
    known: KnownKeyset, now: datetime, until: datetime, calendar: Calendar, *, unused_from: datetime | None = None
) -> Iterator[Turn]:
    """Yield what happens to a keyset, each at the moment at which the planner asks for it.

    ``unused_from``: when the last token on a keyset that left the config ends, and with it the keyset.
    """
    state, policy, moment = known.state, known.policy, now
    while moment <= until:
        if unused_from is not None and unused_from <= moment:
            state, unused_from = replace(state, in_use=False), None
        for turn in _settle(state, policy, moment, calendar):
            state = turn.after
            yield turn
        dues = [due for due in (next_due(state, policy, moment), unused_from) if due is not None]
        if not dues:
            return
        moment = min(dues)


def signs_until(known: KnownKeyset, active: SigningKey, now: datetime) -> datetime | None:
    """Return when another key takes over from ``active``: by its deadline, or before that as an operator asked."""
    if known.state.wish is None or active.rotate_at is None:
        return active.rotate_at
    ahead = turns(known, now, active.rotate_at, NO_WINDOWS)
    return next((turn.at for turn in ahead if isinstance(turn.action, ActivateKey)), active.rotate_at)


def _settle(state: KeysetState, policy: KeysetPolicy, moment: datetime, calendar: Calendar) -> Iterator[Turn]:
    """Yield the actions at one moment."""
    for _ in range(_ROUNDS + len(state.keys)):
        actions = plan_keyset(state, policy, moment, calendar)
        for action in actions:
            before, state = state, apply(state, action, moment)
            yield Turn(moment, before, action, state)
        if not actions or not isinstance(actions[-1], PublishSet):
            return
