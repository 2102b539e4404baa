"""What carries tokens to sinks."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from rotator.core.model import Jti, Kid, WorkspaceId
from rotator.core.policy import Sink
from rotator.core.secret import Secret


@dataclass(frozen=True, slots=True)
class Parcel:
    """What a sink is given."""

    workspace: WorkspaceId
    jti: Jti
    kid: Kid
    sequence: int
    issued_at: datetime
    expires_at: datetime
    token: Secret[str]


class Courier(Protocol):
    """Puts tokens where workspaces need them."""

    def deliver(self, sink: Sink, parcel: Parcel) -> None:
        """Put ``parcel`` into ``sink``. Raise :class:`~rotator.errors.DeliveryError` when it did not get there."""
        ...

    def holds(self, sink: Sink, parcel: Parcel) -> bool:
        """Tell whether ``sink`` still holds ``parcel``; True for sinks that cannot be looked into."""
        ...

    def cancel(self) -> None:
        """End what can hang, now and each later time at once: the daemon stops."""
        ...
