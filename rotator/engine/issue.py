"""Issues tokens in batches: those of one batch are minted while those of the one before are committed."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from rotator.core.actions import IssueToken
from rotator.core.events import Event, EventName
from rotator.core.model import Jti, Phase, Token, WorkspaceId, WorkspaceState
from rotator.core.policy import WorkspacePolicy
from rotator.core.schedule import share
from rotator.core.sinks import sink_id
from rotator.core.tokens import epoch_seconds, plan_token, whole_second
from rotator.engine.rows import PURPOSE_TOKEN
from rotator.engine.run import Run, Signing, backoff
from rotator.engine.sync import MISSING
from rotator.errors import KekError, RotatorError, StoreError
from rotator.ports import IssuedToken, KeysetRow, MintOrder, Reading, Sealer, Transaction

BATCH: Final = 1_000
"""Tokens in one transaction: large enough to be cheap, small enough to be over in a fraction of a second."""

BATCHES: Final = 4
"""In one tick, so that keysets, deliveries and requests get their turn at least once a second."""

RETRY_CEILING: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class _Planned:
    """A token to issue, with what it is made from."""

    action: IssueToken
    state: WorkspaceState
    policy: WorkspacePolicy


class _StaleError(Exception):
    """Another replica issued first: roll back; what is due comes up again by itself."""


def issue_due(run: Run, reading: Reading) -> bool:
    """Issue what is due, a bounded number of batches; tell whether more is waiting."""
    names = tuple(run.signing)
    if not names:
        return False
    with run.around.store.read() as snapshot:
        due = snapshot.due_workspaces(names, reading.now, BATCH * BATCHES)
    if not due:
        return False
    batches = [batch for batch in _batches(run, due, reading) if batch]
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="rotator-mint") as minting:
        ahead: Future[list[IssuedToken]] | None = None
        for index, batch in enumerate(batches):
            minted = ahead if ahead is not None else minting.submit(_mint, run, batch, reading)
            following = batches[index + 1] if index + 1 < len(batches) else None
            ready = _result(run, minted, batch, reading)
            ahead = None if following is None else minting.submit(_mint, run, following, reading)
            if ready:
                _commit(run, ready, batch, reading)
    return len(due) == BATCH * BATCHES


def _batches(run: Run, due: Sequence[WorkspaceState], reading: Reading) -> Iterator[list[_Planned]]:
    """Plan each workspace, and group them by the key that signs for them."""
    by_keyset: dict[str, list[_Planned]] = {}
    missing: list[WorkspaceId] = []
    for state in due:
        policy = run.policy.workspaces.get(state.id)
        if policy is None:
            missing.append(state.id)
            continue
        action = plan_token(state, policy, reading.now, run.around.calendar)
        if action is not None:
            by_keyset.setdefault(policy.keyset, []).append(_Planned(action, state, policy))
    if missing:
        with run.around.store.begin() as transaction:
            transaction.fail_workspaces(missing, reading.now.replace(year=9000), MISSING)
    for planned in by_keyset.values():
        for start in range(0, len(planned), BATCH):
            yield planned[start : start + BATCH]


def _mint(run: Run, batch: Sequence[_Planned], reading: Reading) -> list[IssuedToken]:
    """Sign and seal a batch. Runs beside the loop; touches neither database nor run, but reads both's snapshots."""
    signing = run.signing[batch[0].policy.keyset]
    sealer = run.ready_sealer
    issued_at = whole_second(reading.now)
    not_before = epoch_seconds(reading.now - signing.policy.clock_skew)
    jtis = run.around.tokenmaker.new_jtis(reading.now, len(batch))
    issuer = signing.policy.issuer
    orders = [
        MintOrder(jti, planned.policy, issuer, not_before, epoch_seconds(planned.action.expires_at))
        for jti, planned in zip(jtis, batch, strict=True)
    ]
    texts = run.around.tokenmaker.mint_batch(signing.signer, orders)
    kid, algorithm = signing.kid, signing.signer.algorithm
    return [
        _issued(
            planned,
            signing,
            jti,
            issued_at,
            sealer.seal(PURPOSE_TOKEN, jti, kid, algorithm, text.reveal().encode("ascii")),
            sealer,
        )
        for planned, jti, text in zip(batch, jtis, texts, strict=True)
    ]


def _issued(
    planned: _Planned, signing: Signing, jti: Jti, issued_at: datetime, sealed: bytes, sealer: Sealer
) -> IssuedToken:
    action, state, policy = planned.action, planned.state, planned.policy
    token = Token(
        jti=jti,
        workspace=policy.id,
        keyset=policy.keyset,
        kid=signing.kid,
        phase=Phase.ACTIVE,
        sequence=action.sequence,
        issued_at=issued_at,
        expires_at=action.expires_at,
        rotate_at=action.rotate_at,
    )
    return IssuedToken(
        token=token,
        sealed=sealed,
        kek_id=sealer.kek_id,
        reason=action.reason,
        prior=action.prior,
        prior_sequence=state.sequence,
        sinks=tuple(sink_id(sink) for sink in policy.sinks),
        delivery_deadline=state.current_expires_at or issued_at + policy.grace_period,
        claims_fingerprint=state.claims_fingerprint,
        schedule_fingerprint=state.schedule_fingerprint,
    )


def _result(
    run: Run, minted: Future[list[IssuedToken]], batch: Sequence[_Planned], reading: Reading
) -> list[IssuedToken]:
    """Return what was minted; where a batch failed, find the workspaces that fail it, and let the others through."""
    try:
        return minted.result()
    except KekError:
        raise
    except Exception as error:  # noqa: BLE001 - the edge of a unit of work: one workspace's failure is not another's
        if len(batch) == 1:
            _failed(run, [batch[0].policy.id], reading, f"{type(error).__name__}: {error}")
            return []
    ready: list[IssuedToken] = []
    middle = len(batch) // 2
    for half in (batch[:middle], batch[middle:]):
        future: Future[list[IssuedToken]] = Future()
        try:
            future.set_result(_mint(run, half, reading))
        except Exception as error:  # noqa: BLE001 - as above
            future.set_exception(error)
        ready += _result(run, future, half, reading)
    return ready


def _commit(run: Run, ready: Sequence[IssuedToken], batch: Sequence[_Planned], reading: Reading) -> None:
    try:
        with run.around.store.begin() as transaction:
            _store(transaction, ready)
            run.head = transaction.append([_event(issued, reading) for issued in ready])
    except _StaleError:
        run.signing.pop(batch[0].policy.keyset, None)  # looked up anew by the keyset's next turn
        with run.around.store.begin() as transaction:
            row = transaction.lock_keyset(batch[0].policy.keyset)
            if row is not None:
                transaction.put_keyset(_due_now(row, reading))
    except StoreError:
        raise
    except RotatorError as error:
        _failed(run, [issued.token.workspace for issued in ready], reading, str(error))


def _store(transaction: Transaction, ready: Sequence[IssuedToken]) -> None:
    """Raise :class:`_StaleError` when the key signs no more or a workspace has moved on."""
    latest = max(issued.token.expires_at for issued in ready)
    if not transaction.raise_last_exp(ready[0].token.kid, latest) or not transaction.issue(ready):
        raise _StaleError


def _due_now(row: KeysetRow, reading: Reading) -> KeysetRow:
    return replace(row, due_at=reading.now)


def _event(issued: IssuedToken, reading: Reading) -> Event:
    token = issued.token
    return Event(
        name=EventName.TOKEN_ISSUED,
        at=reading.now,
        keyset=token.keyset,
        workspace=token.workspace,
        kid=token.kid,
        jti=token.jti,
        reason=issued.reason,
        details={"sequence": token.sequence, "expires_at": epoch_seconds(token.expires_at)},
    )


def _failed(run: Run, workspaces: Sequence[WorkspaceId], reading: Reading, problem: str) -> None:
    with run.around.store.begin() as transaction:
        transaction.fail_workspaces(workspaces, reading.now + backoff(3, RETRY_CEILING, share(workspaces[0])), problem)
    for workspace in workspaces[:20]:
        run.around.log.event("workspace.failed", workspace=workspace, problem=problem)
