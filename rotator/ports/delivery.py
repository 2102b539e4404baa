"""What carries tokens to sinks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from rotator.core.model import FailureDomain, Jti, Kid, WorkspaceId
from rotator.core.policy import FileSink, Sink
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


class Errand(NamedTuple):
    """What is to be at a sink."""

    sink: Sink
    parcel: Parcel


class Leftover(NamedTuple):
    """A file that the config has no more, and that is to go."""

    sink: FileSink
    tokens: tuple[str, ...]
    """SHA-256, in hex, of each token that was written there: a file that holds none of them stays."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What came of an errand."""

    problem: str = ""
    """Empty: the sink holds its parcel."""
    hung: bool = False
    """It said nothing for as long as it may take."""
    kept: bool = False
    """Of a :class:`Leftover`: it was left where it is, for ``problem``, and there is nothing to try again."""


Bring = Callable[[int, Ending], None]
"""Takes what came of the errand of that number."""


class Courier(Protocol):
    """Puts tokens where workspaces need them. Called from several threads, one at a time for each failure domain."""

    def domains(self, sinks: Sequence[Sink]) -> Sequence[FailureDomain]:
        """Return what each of ``sinks`` hangs or fails with. None of them is touched."""
        ...

    def deliver(self, domain: FailureDomain, errands: Sequence[Errand], bring: Bring) -> None:
        """Put each parcel into its sink, and bring what came of it, by its number in ``errands``.

        ``domain`` is what they fail with, or a name of its own for a sink that hung. What was never begun when this
        returns was not brought: an errand before it hung, or all is to end.
        """
        ...

    def compare(self, domain: FailureDomain, errands: Sequence[Errand], bring: Bring) -> None:
        """Look whether each sink still holds its parcel, in the same manner; one that cannot be looked into does."""
        ...

    def remove(self, domain: FailureDomain, leftovers: Sequence[Leftover], bring: Bring) -> None:
        """Delete each file that holds one of its tokens, in the same manner; one that is gone is no problem."""
        ...

    def cancel(self) -> None:
        """End what can hang, now and each later time at once: the daemon stops."""
        ...
