"""When a security period ends: rotation windows and deterministic jitter, which only ever move it earlier."""

import hashlib
from datetime import datetime, timedelta
from typing import Protocol

from rotator.core.policy import KeysetPolicy, RotationWindow, WorkspacePolicy


class Calendar(Protocol):
    """Computes the openings of rotation windows. Deterministic: the same question always has the same answer."""

    def last_opening(self, window: RotationWindow, *, after: datetime, until: datetime) -> datetime | None:
        """Return the latest opening that lies after ``after`` and whose end is at or before ``until``; else None."""
        ...


def share(identity: str) -> float:
    """Return a number in [0, 1) that depends on ``identity`` alone, evenly spread over many of them."""
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=6).digest(), "big") / 2**48


def rotation_due(
    identity: str,
    *,
    entered_at: datetime,
    security_period: timedelta,
    jitter: timedelta,
    window: RotationWindow | None,
    calendar: Calendar,
    earliest: timedelta = timedelta(0),
) -> datetime:
    """Return when what entered its phase at ``entered_at`` is to be replaced.

    Never later than ``entered_at + security_period``. With a window: its last opening that ends by then (and begins
    more than ``earliest`` after the entry), plus a share of its duration. Without one, or where the window has no such
    opening: a share of ``jitter`` before the end.
    """
    end = entered_at + security_period
    if window is not None:
        opening = calendar.last_opening(window, after=entered_at + earliest, until=end)
        if opening is not None:
            return opening + window.duration * share(identity)
    return end - jitter * share(identity)


def key_rotation_due(kid: str, policy: KeysetPolicy, activated_at: datetime, calendar: Calendar) -> datetime:
    """Return when the successor of a key that began to sign at ``activated_at`` takes over."""
    return rotation_due(
        kid,
        entered_at=activated_at,
        security_period=policy.security_period,
        jitter=policy.jitter,
        window=policy.rotation_window,
        calendar=calendar,
        earliest=policy.propagation_period,
    )


def token_rotation_due(policy: WorkspacePolicy, issued_at: datetime, calendar: Calendar) -> datetime:
    """Return when a token that was issued at ``issued_at`` is replaced."""
    return rotation_due(
        policy.id,
        entered_at=issued_at,
        security_period=policy.security_period,
        jitter=policy.security_period / 10,
        window=policy.rotation_window,
        calendar=calendar,
    )
