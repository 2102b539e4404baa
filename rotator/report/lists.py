"""The lists: keys and tokens."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import groupby

from rotator.core.model import (
    ALWAYS,
    Algorithm,
    Jti,
    KeysetName,
    Kid,
    Origin,
    Phase,
    SigningKey,
    SinkId,
    Token,
    WorkspaceId,
)
from rotator.core.planner import ready_at
from rotator.core.policy import Policy
from rotator.errors import UnknownNameError
from rotator.ports import DeliveryRow, Snapshot
from rotator.report.known import KnownKeyset, known_keysets
from rotator.report.unrolling import signs_until

# --------------------------------------------------------------------------------------------------------------- keys


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry:
    """One key, with every date of its life."""

    kid: Kid
    keyset: KeysetName
    algorithm: Algorithm
    phase: Phase
    origin: Origin
    sequence: int
    created_at: datetime
    ready_at: datetime | None
    """From when on every verifier can know it; for pending keys only."""
    activated_at: datetime | None
    rotate_at: datetime | None
    """When another key takes over from it, or was to: by its deadline, or before that as an operator asked."""
    demoted_at: datetime | None
    grace_until: datetime | None
    last_exp: datetime | None
    retired_at: datetime | None
    revoked_at: datetime | None
    destroyed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyList:
    """Every key ever, by keyset and sequence."""

    keys: tuple[KeyEntry, ...]


def keys(snapshot: Snapshot, policy: Policy, now: datetime) -> KeyList:
    """Return every key ever made, imported or adopted here."""
    known = {each.row.name: each for each in known_keysets(snapshot, policy, now)}
    return KeyList(keys=tuple(key_entry(row.key, known.get(row.key.keyset), now) for row in snapshot.all_keys()))


def key_entry(key: SigningKey, known: KnownKeyset | None, now: datetime) -> KeyEntry:
    """Return what is told of a key of ``known``; None: its keyset has ended."""
    ready, rotate_at = None, key.rotate_at
    if known is not None and key.phase is Phase.PENDING:
        ready = ready_at(known.state, key.kid, known.policy)
    if known is not None and key.phase is Phase.ACTIVE:
        rotate_at = signs_until(known, key, now)
    return KeyEntry(
        kid=key.kid,
        keyset=key.keyset,
        algorithm=key.algorithm,
        phase=key.phase,
        origin=key.origin,
        sequence=key.sequence,
        created_at=key.created_at,
        ready_at=key.created_at if ready == ALWAYS else ready,
        activated_at=key.activated_at,
        rotate_at=rotate_at,
        demoted_at=key.demoted_at,
        grace_until=key.grace_until,
        last_exp=key.last_exp,
        retired_at=key.retired_at,
        revoked_at=key.revoked_at,
        destroyed_at=key.destroyed_at,
    )


# ------------------------------------------------------------------------------------------------------------- tokens


class DeliveryState(StrEnum):
    """Where a token stands with one sink."""

    DELIVERED = "delivered"
    OPEN = "open"
    FAILING = "failing"
    HELD = "held"  # the sink still holds this token, and is to get a newer one


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryEntry:
    """One sink that is to hold, or holds, a token."""

    sink: SinkId
    state: DeliveryState
    wanted_at: datetime | None
    deadline: datetime | None
    delivered_at: datetime | None
    attempts: int
    """Failed in a row."""
    last_error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEntry:
    """One token, without its text."""

    workspace: WorkspaceId
    jti: Jti
    kid: Kid
    keyset: KeysetName
    phase: Phase
    sequence: int
    issued_at: datetime
    expires_at: datetime
    rotate_at: datetime
    superseded_at: datetime | None
    retired_at: datetime | None
    revoked_at: datetime | None
    deliveries: tuple[DeliveryEntry, ...]
    revoke_at: datetime | None = None
    """From then on it counts as revoked, as an operator said who had it replaced."""
    workspace_returned_at: datetime | None = None
    """The workspace left the config after this token was issued, and came back then: its former holder has it still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenList:
    """Tokens by workspace and sequence."""

    tokens: tuple[TokenEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPage:
    """A part of the list of tokens: all of some workspaces."""

    tokens: tuple[TokenEntry, ...]
    after: WorkspaceId | None
    """The last workspace of this page; None: there are no more."""


def tokens_page(snapshot: Snapshot, after: WorkspaceId, limit: int, *, ended: bool = False) -> TokenPage:
    """Return the tokens, as :func:`tokens` does, of the next workspaces by id: ``limit`` tokens or a few more."""
    page: list[tuple[WorkspaceId, list[Token]]] = []
    count, more = 0, False
    for name, group in groupby(snapshot.tokens(after=after), key=lambda token: token.workspace):
        if more := count >= limit:
            break
        shown = _shown(list(group), ended=ended)
        page.append((name, shown))
        count += len(shown)
    names = [name for name, _ in page]
    found = _entries(snapshot, page, snapshot.deliveries_of(names))
    return TokenPage(tokens=found, after=names[-1] if more else None)


def tokens(snapshot: Snapshot, *, workspace: WorkspaceId | None = None, ended: bool = False) -> TokenList:
    """Return the tokens that are current or in grace, and with ``ended`` also those that are retired or revoked.

    The last token of a workspace is always there, ended or not: one that has no valid token must not vanish. Raise
    :class:`UnknownNameError` if there is no such workspace.
    """
    if workspace is not None and snapshot.workspace(workspace) is None:
        raise UnknownNameError(f"there is no workspace {workspace!r}; `rotator tokens list` names them")
    by_workspace = groupby(snapshot.tokens(workspace), key=lambda token: token.workspace)
    found = [(name, _shown(list(group), ended=ended)) for name, group in by_workspace]
    return TokenList(tokens=_entries(snapshot, found, snapshot.deliveries(workspace)))


def _shown(issued: list[Token], *, ended: bool) -> list[Token]:
    return [token for token in issued if ended or token is issued[-1] or token.phase in _LIVING]


def _entries(
    snapshot: Snapshot, found: Iterable[tuple[WorkspaceId, list[Token]]], rows: Iterable[DeliveryRow]
) -> tuple[TokenEntry, ...]:
    deliveries: dict[WorkspaceId, list[DeliveryRow]] = {}
    for row in rows:
        deliveries.setdefault(row.workspace, []).append(row)
    ends = {overlap.jti: overlap.ends_at for overlap in snapshot.overlaps()}
    shown = [(name, page) for name, page in found if page]
    returned = {state.id: state.returned_at for state in snapshot.workspaces_named([name for name, _ in shown])}
    return tuple(
        _token(token, deliveries.get(name, []), ends.get(token.jti), returned.get(name))
        for name, page in shown
        for token in page
    )


_LIVING = (Phase.PENDING, Phase.ACTIVE, Phase.GRACE)


def _token(
    token: Token, rows: list[DeliveryRow], revoke_at: datetime | None, returned_at: datetime | None
) -> TokenEntry:
    former = returned_at is not None and token.issued_at < returned_at
    return TokenEntry(
        workspace=token.workspace,
        jti=token.jti,
        kid=token.kid,
        keyset=token.keyset,
        phase=token.phase,
        sequence=token.sequence,
        issued_at=token.issued_at,
        expires_at=token.expires_at,
        rotate_at=token.rotate_at,
        superseded_at=token.superseded_at,
        retired_at=token.retired_at,
        revoked_at=token.revoked_at,
        deliveries=tuple(_deliveries(token, rows)),
        revoke_at=revoke_at,
        workspace_returned_at=returned_at if former else None,
    )


def _deliveries(token: Token, rows: list[DeliveryRow]) -> Iterator[DeliveryEntry]:
    for row in rows:
        if row.jti == token.jti:
            yield DeliveryEntry(
                sink=row.sink,
                state=_delivery_state(row),
                wanted_at=row.wanted_at,
                deadline=row.deadline,
                delivered_at=row.delivered_at if row.due_at is None else None,
                attempts=row.attempts,
                last_error=row.last_error if row.due_at is not None else "",
            )
        elif row.delivered_sequence == token.sequence:
            yield DeliveryEntry(
                sink=row.sink,
                state=DeliveryState.HELD,
                wanted_at=None,
                deadline=None,
                delivered_at=row.delivered_at,
                attempts=0,
                last_error="",
            )


def _delivery_state(row: DeliveryRow) -> DeliveryState:
    if row.due_at is None:
        return DeliveryState.DELIVERED
    return DeliveryState.FAILING if row.attempts else DeliveryState.OPEN
