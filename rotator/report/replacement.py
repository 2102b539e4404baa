"""How far the replacement of a workspace's token has come: the new one, its deliveries, the end of the prior."""

from dataclasses import dataclass
from datetime import datetime

from rotator.core.model import Jti, Kid, Phase, WorkspaceId
from rotator.errors import RefusedError
from rotator.ports import Snapshot
from rotator.report.lists import DeliveryState, TokenEntry, tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorToken:
    """A token that was replaced, and that a verifier of signatures still accepts."""

    jti: Jti
    kid: Kid
    sequence: int
    phase: Phase
    counts_until: datetime
    """From then on it counts as revoked here, or has ended: the first of ``revoke_at``, a revocation and its end."""
    expires_at: datetime
    """Until then whoever checks nothing but signature and time accepts it, unless its key is revoked."""
    key_revoked: bool
    """Its key is: verifiers that have fetched the set since refuse it as well."""
    revoke_at: datetime | None = None
    """As in the list of tokens: from then on it counts as revoked, as an operator said. None: it lives to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """How far it has come."""

    at: datetime
    workspace: WorkspaceId
    prior: tuple[PriorToken, ...]
    token: TokenEntry | None
    """The new one; None: it is not issued yet."""
    delivered: int
    sinks: int
    done: bool
    """The new token is issued, and every sink holds it."""
    problem: str
    """Why it is not issued or delivered yet, if something went wrong."""
    request: int | None = None
    """The number of a request for it that is accepted and still under way; None: it was carried out."""


def replacement(snapshot: Snapshot, now: datetime, workspace: WorkspaceId, prior: Jti) -> Replacement:
    """Return how far the replacement of ``prior`` has come. Raises :class:`RefusedError` if there is no such token."""
    replaced = snapshot.token(prior)
    if replaced is None or replaced.token.workspace != workspace:
        raise RefusedError(
            f"workspace {workspace} has no token {prior!r}; `rotator tokens list` names those that it has"
        )
    number = replaced.token.sequence
    ends = {overlap.jti: overlap.ends_at for overlap in snapshot.overlaps()}
    current = next((entry for entry in reversed(tokens(snapshot, workspace=workspace).tokens)), None)
    new = current if current is not None and current.sequence > number else None
    deliveries = () if new is None else new.deliveries
    revoked = {row.key.kid for row in snapshot.all_keys() if row.key.phase is Phase.REVOKED}
    delivered = sum(each.state is DeliveryState.DELIVERED for each in deliveries)
    return Replacement(
        at=now,
        workspace=workspace,
        prior=tuple(
            PriorToken(
                jti=token.jti,
                kid=token.kid,
                sequence=token.sequence,
                phase=token.phase,
                counts_until=min(
                    end for end in (token.revoked_at, ends.get(token.jti), token.expires_at) if end is not None
                ),
                expires_at=token.expires_at,
                key_revoked=token.kid in revoked,
                revoke_at=ends.get(token.jti),
            )
            for token in snapshot.tokens(workspace)
            if token.sequence <= number and token.expires_at > now
        ),
        token=new,
        delivered=delivered,
        sinks=len(deliveries),
        done=new is not None and delivered == len(deliveries),
        problem=_problem(snapshot, workspace, new),
    )


def _problem(snapshot: Snapshot, workspace: WorkspaceId, new: TokenEntry | None) -> str:
    if new is None:
        return next((fault for name, _, fault in snapshot.workspace_faults() if name == workspace), "")
    return "; ".join(each.last_error for each in new.deliveries if each.last_error)
