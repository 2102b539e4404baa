"""Records to store, each with every field set to something that a careless row would lose."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from rotator.core.events import Event, EventName
from rotator.core.model import (
    DEFAULT_KEYSET,
    Algorithm,
    DueWorkspace,
    Jti,
    KekId,
    KeysetName,
    Kid,
    Phase,
    SigningKey,
    SinkId,
    Token,
    WorkspaceId,
    WorkspaceState,
)
from rotator.ports import IssuedToken, KeyRow, KeysetRow, Transaction

ENDLESS = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT 1 FROM numbers) SELECT count(*) FROM numbers"
"""A statement that never ends by itself, on either database."""

NOW = datetime(2026, 3, 29, 0, 59, 59, 999_999, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
KEK = KekId("kek-1")
KID = Kid("kid-1")
FILE = SinkId("file:/run/rotator/acme/token")
COMMAND = SinkId("command:/usr/local/bin/push#1234")
ACME = WorkspaceId("acme")


def keyset(name: str = DEFAULT_KEYSET, due_at: datetime = NOW) -> KeysetRow:
    return KeysetRow(name=KeysetName(name), due_at=due_at)


def key(
    kid: str = KID,
    *,
    phase: Phase = Phase.PENDING,
    sequence: int = 1,
    name: str = DEFAULT_KEYSET,
    sealed: bytes | None = b"sealed private half",
) -> KeyRow:
    public = SigningKey(
        kid=Kid(kid),
        keyset=KeysetName(name),
        sequence=sequence,
        algorithm=Algorithm.ES256,
        phase=phase,
        created_at=NOW,
        public_jwk=f'{{"kid":"{kid}"}}',
        has_private=sealed is not None,
    )
    return KeyRow(public, sealed, KEK)


def due_of(state: WorkspaceState) -> DueWorkspace:
    """Return what is read of ``state`` when it is due."""
    return DueWorkspace(
        state.id,
        state.sequence,
        state.current,
        state.current_expires_at,
        state.due_reason,
    )


def workspace(name: str = ACME, *, keyset: str = DEFAULT_KEYSET, due_at: datetime = NOW) -> WorkspaceState:
    return WorkspaceState(
        id=WorkspaceId(name),
        keyset=KeysetName(keyset),
        sequence=0,
        due_at=due_at,
        claims_fingerprint="claims",
        schedule_fingerprint="schedule",
        sinks_fingerprint="sinks",
    )


def issued(
    state: WorkspaceState, *, at: datetime = NOW, sinks: tuple[SinkId, ...] = (FILE,), kid: Kid = KID
) -> IssuedToken:
    """Return the next token of ``state``, which the caller has read from the store."""
    sequence = state.sequence + 1
    token = Token(
        jti=Jti(f"{state.id}-{sequence}"),
        workspace=state.id,
        keyset=state.keyset,
        kid=kid,
        phase=Phase.ACTIVE,
        sequence=sequence,
        issued_at=at,
        expires_at=at + 9 * DAY,
        rotate_at=at + 8 * DAY,
    )
    return IssuedToken(
        token=token,
        sealed=f"sealed text of {token.jti}".encode(),
        mac=b"mac",
        kek_id=KEK,
        reason="security_period",
        prior=state.current,
        prior_sequence=state.sequence,
        sinks=sinks,
        delivery_deadline=state.current_expires_at or at + DAY,
    )


def issue(
    transaction: Transaction,
    name: WorkspaceId = ACME,
    *,
    at: datetime = NOW,
    sinks: tuple[SinkId, ...] = (FILE,),
) -> Token:
    """Issue the next token of a workspace that exists."""
    state = transaction.workspace(name)
    assert state is not None
    order = issued(state, at=at, sinks=sinks)
    assert transaction.issue([order])
    return order.token


def events(*names: EventName, at: datetime = NOW) -> Sequence[Event]:
    return [
        Event(
            name=name,
            at=at,
            keyset=DEFAULT_KEYSET,
            workspace=ACME,
            kid=KID,
            jti=Jti("jti"),
            actor="ada(1000)",
            reason="ärger",
            details={"sequence": 7, "sink": FILE, "nothing": None},
        )
        for name in names
    ]
