"""What makes a row a request: a MAC that only a process with the KEK can have made when it accepted the request.

The MAC is over the installation, the nonce, what is asked, by whom, why and when, and what was found of its object
then. A row without a valid one is nobody's request. A request whose nonce was answered is not carried out again, under
whatever id it comes back: who answered it remembers that in the witness, which no writer of the database reaches. After
:data:`GOOD_FOR` a request is refused, so that its nonce need not be remembered any longer.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Final

from rotator.core.durations import format_duration
from rotator.core.instants import to_us
from rotator.core.model import KekId
from rotator.engine.attribution import ACCEPTED_AT
from rotator.engine.run import Run
from rotator.errors import RefusedError
from rotator.ports import Reading, RequestRow, RevocationEntry, RevocationKind, Sealer, Snapshot

PURPOSE: Final = "request/1"

GOOD_FOR: Final = timedelta(days=7)
"""How long a request that could not be carried out yet is still taken to be meant."""


RECALLED: Final = 100
"""How many of the latest answers are looked at: a process that was killed may not have put them in the witness."""


ARGUMENTS: Final[Mapping[RevocationKind, str]] = MappingProxyType(
    {
        RevocationKind.KEY: "kid",
        RevocationKind.KEYSET: "keyset",
        RevocationKind.TOKEN: "jti",
        RevocationKind.WORKSPACE: "workspace",
    }
)
"""Which argument of a request names what is revoked."""


def content(installation: str, request: RequestRow) -> bytes:
    """Return all that a request says, unambiguously encoded and with the types of its values."""
    said = [
        installation,
        request.nonce,
        request.kind,
        dict(request.arguments),
        request.actor,
        request.uid,
        request.reason,
        to_us(request.created_at),
        dict(request.bound),
    ]
    return json.dumps(said, separators=(",", ":"), sort_keys=True).encode()


def authenticated(sealer: Sealer, installation: str, draft: RequestRow) -> RequestRow:
    """Return ``draft`` with its MAC."""
    return replace(draft, kek_id=sealer.kek_id, mac=sealer.mac(PURPOSE, content(installation, draft)))


def request_of(entry: RevocationEntry, reading: Reading) -> RequestRow:
    """Return the request that an entry stands for: accepted now, so that its age is no reason to refuse it."""
    return RequestRow(
        id=0,
        kind=entry.kind,
        arguments={ARGUMENTS[entry.kind]: entry.name, **({"choice": entry.choice} if entry.choice else {})},
        actor=entry.actor,
        uid=entry.uid,
        reason=entry.reason,
        created_at=reading.now,
        nonce=entry.id,
        bound={
            "kids": json.dumps(list(entry.kids)),
            "jtis": json.dumps(list(entry.jtis)),
            ACCEPTED_AT: entry.accepted_at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        },
    )


def is_authentic(sealer: Sealer, installation: str, request: RequestRow) -> bool:
    """Tell whether a process that held the KEK accepted this very request for this installation."""
    if not request.nonce or not request.mac:
        return False
    return sealer.verify_mac(PURPOSE, content(installation, request), request.mac, KekId(request.kek_id))


def require_recent(request: RequestRow, now: datetime) -> None:
    """Raise :class:`RefusedError` for a request that was accepted too long ago."""
    if now - request.created_at > GOOD_FOR:
        raise RefusedError(
            f"it was asked on {request.created_at:%Y-%m-%d %H:%M:%S} UTC, more than {format_duration(GOOD_FOR)} ago, "
            "and could not be carried out since; ask again if it is still meant"
        )


def remember_answered(run: Run, request: RequestRow) -> None:
    """Remember that a request was answered. The next write of the witness makes it durable."""
    run.answered[request.nonce] = request.created_at


def recall_answered(run: Run, snapshot: Snapshot) -> None:
    """Take from the database which requests were answered by another replica, or by a process that was then killed."""
    sealer, installation = run.ready_sealer, snapshot.installation()
    for request in snapshot.answered_requests(RECALLED):
        if request.nonce not in run.answered and is_authentic(sealer, installation, request):
            remember_answered(run, request)


def forget_old(run: Run, now: datetime) -> None:
    """Forget the nonces of requests that would be refused for their age by now. ``now`` is a clock that is trusted."""
    bound = now - GOOD_FOR - 2 * run.policy.clock_skew
    for nonce in [nonce for nonce, accepted_at in run.answered.items() if accepted_at < bound]:
        del run.answered[nonce]
