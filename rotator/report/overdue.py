"""What an overdue keyset waits for, and until when: the planner's own reasons, for the person who looks."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from rotator.core.durations import format_duration
from rotator.core.planner import activation_reason, ready_at, spares, spares_needed
from rotator.report.known import KnownKeyset
from rotator.report.steps import next_step

_BEFORE_ANYTHING: Final = {
    "kek": "without its KEK the daemon {does} nothing",
    "clock": "the daemon {does} nothing while the clock is not trusted",
    "witness": "the daemon {does} nothing until the database fits the witness",
}
"""Faults under which nothing is rotated or issued, whatever is ready."""

_DAEMON: Final = "see that the daemon runs: systemctl status rotator"


def what_helps(known: KnownKeyset, now: datetime, faults: Mapping[str, str]) -> str:
    """Return the next step about a keyset that is overdue at ``now`` or has no key that signs."""
    for kind, why in _BEFORE_ANYTHING.items():
        if kind in faults:
            return f"{why.format(does='rotates')}: {next_step(kind, '')}"
    if known.row.fault:
        return next_step("keyset", known.row.name)
    reason = activation_reason(known.state, now)
    if reason is None:
        return f"{_DAEMON}; it does what is due by itself"
    return _until_takeover(known, now, needed=spares_needed(known.state, reason))


def what_holds_up(faults: Mapping[str, str]) -> tuple[str, str]:
    """Return why nothing is issued to any workspace, and the next step; empty where no fault keeps from it."""
    for kind, why in _BEFORE_ANYTHING.items():
        if kind in faults:
            return why.format(does="issues"), next_step(kind, "")
    return "", ""


def _until_takeover(known: KnownKeyset, now: datetime, *, needed: int) -> str:
    """Tell of the spares that a takeover waits for: a planned one leaves a spare that every verifier can know."""
    queue = spares(known.state, known.policy)
    period = f"propagation_period of {format_duration(known.policy.propagation_period)}"
    if len(queue) < needed:
        missing = "the key after the standby" if queue else "the next key"
        return (
            f"{missing} is yet to be made, which the daemon does by itself; the standby takes over when that key has "
            f"been published for the {period}; {_DAEMON}"
        )
    known_at = sorted(when for key in queue if (when := ready_at(known.state, key.kid, known.policy)) is not None)
    if len(known_at) < needed:
        which = "the key after it" if known_at else "it"
        return f"the standby waits until {which} is published by every replica: see that each of them runs"
    when = known_at[needed - 1]
    if when <= now:
        return "the standby is ready and takes over by itself once the daemon runs: systemctl status rotator"
    if known_at[0] <= now:
        return (
            f"nothing: the standby is ready and takes over by itself at {when:%Y-%m-%d %H:%M} UTC, when the key after "
            f"it has been published for the {period}, so that a spare is out in any emergency; {_DAEMON}"
        )
    return (
        f"nothing: the standby takes over by itself at {when:%Y-%m-%d %H:%M} UTC, when verifiers know "
        f"{'it' if needed == 1 else 'it and the key after it'}; {_DAEMON}"
    )
