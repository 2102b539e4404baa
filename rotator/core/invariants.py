"""What must hold in every state of a keyset, whatever happened before.

Used by the engine after each change it commits, and by every simulation after each step. A violation is our fault.
"""

from collections import Counter
from dataclasses import replace
from datetime import datetime

from rotator.core.model import KeysetState, Origin, Phase
from rotator.core.planner import spares
from rotator.core.policy import KeysetPolicy


def keyset_violations(state: KeysetState, policy: KeysetPolicy, now: datetime) -> list[str]:
    """Return what is wrong with ``state``, as sentences; empty when nothing is.

    A row that is none of ours is reported elsewhere and never published: what it says must not stop what is ours.
    """
    found: list[str] = []
    state = replace(state, keys=tuple(key for key in state.keys if key.authentic))
    kids = Counter(key.kid for key in state.keys)
    found += [f"kid {kid} is there {count} times" for kid, count in kids.items() if count > 1]
    found += _signing_violations(state)
    for key in state.keys:
        if key.phase not in (Phase.PENDING, Phase.ACTIVE) and key.has_private:
            found.append(f"{key.kid} is {key.phase} and still has a private half")
        if key.phase is Phase.GRACE and key.grace_until is None:
            found.append(f"{key.kid} is in grace without an end")
        if key.phase is Phase.RETIRED and key.last_exp is not None and key.last_exp + policy.clock_skew > now:
            found.append(f"{key.kid} is retired while a token on it lives until {key.last_exp.isoformat()}")
    waiting = sum(key.origin is not Origin.IMPORTED for key in spares(state, policy))
    if waiting > 2:
        found.append(f"{waiting} spares are waiting; two are enough")
    return found


def _signing_violations(state: KeysetState) -> list[str]:
    active = [key for key in state.keys if key.phase is Phase.ACTIVE]
    found = [f"{len(active)} keys sign at once"] if len(active) > 1 else []
    for key in active:
        if state.published is not None and not state.publish_blocked and key.kid not in state.published:
            found.append(f"{key.kid} signs and is not in the published file")
        if key.proven_at is None:
            found.append(f"{key.kid} signs and never proved itself")
        if key.rotate_at is None or key.activated_at is None:
            found.append(f"{key.kid} signs without a deadline")
    return found
