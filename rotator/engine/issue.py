"""Issues tokens: some are minted while those before them are committed, as many at a time as are ready by then."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain
from typing import Final, NamedTuple

from rotator.core.actions import IssueToken
from rotator.core.events import Event, EventName
from rotator.core.instants import epoch_seconds, whole_second
from rotator.core.model import Algorithm, DueWorkspace, KekId, KeysetName, Phase, Token, WorkspaceId
from rotator.core.policy import WorkspacePolicy
from rotator.core.schedule import share
from rotator.core.sinks import sink_id
from rotator.core.tokens import plan_token
from rotator.engine.rows import PURPOSE_TOKEN, identity_of
from rotator.engine.run import Run, Signing, backoff
from rotator.engine.scrub import tampered
from rotator.engine.shares import is_called_away
from rotator.engine.sync import MISSING, NEVER
from rotator.errors import KekError, RotatorError, StoreError, StoreRuleError
from rotator.ports import IssuedToken, MintOrder, Reading, Sealed, Transaction

CHUNK: Final = 400
"""Tokens that are planned and minted together: few, so that the first commit need not wait long for them."""

FIRST_CHUNK: Final = 100
"""Tokens in the first of a tick's chunks: until it is planned, nothing is minted, and nothing committed before that."""

WORTH_A_COMMIT: Final = 800
"""Tokens in one transaction, at least, once a tick is under way: each commit waits for the disk."""

BATCH: Final = 4_000
"""Tokens in one transaction, at most: small enough to be over in a fraction of a second."""

AHEAD: Final = 2_000
"""Tokens that are minted, or wait for it, while others are committed, at least."""

AT_MOST: Final = {Algorithm.ES256: 10_000, Algorithm.EDDSA: 10_000, Algorithm.RS256: 1_000}
"""Tokens in one tick, of all keysets whose signatures cost the same, so that keysets, deliveries and requests get their
turn about once a second."""

RETRY_CEILING: Final = timedelta(minutes=10)


class _Planned(NamedTuple):
    """A token to issue, with what it is made from."""

    action: IssueToken
    due: DueWorkspace
    policy: WorkspacePolicy


_Due = tuple[DueWorkspace, WorkspacePolicy]


@dataclass(frozen=True, slots=True, eq=False)  # each is itself and no other
class _Chunk:
    """Workspaces that are due, and the key that signs for them all."""

    signing: Signing
    due: Sequence[_Due]


_UnderWay = deque[tuple[_Chunk, Future[list[IssuedToken]]]]


class _StaleError(Exception):
    """Another replica issued first: roll back; what is due comes up again by itself."""


def issue_due(run: Run, reading: Reading) -> bool:
    """Issue what is due, a bounded number of batches; tell whether more is waiting."""
    if not run.signing:
        return False
    alike: dict[int, list[KeysetName]] = {}
    for name, signing in run.signing.items():
        alike.setdefault(AT_MOST[signing.signer.algorithm], []).append(name)
    with run.around.store.read() as snapshot:
        due = {at_most: snapshot.due_workspaces(names, reading.now, at_most) for at_most, names in alike.items()}
    if not any(due.values()):
        return False
    chunks = chain.from_iterable(_chunks(run, each) for each in due.values())
    under_way: _UnderWay = deque()
    minting = run.minting()
    worth_a_commit = CHUNK
    try:
        while _mint_ahead(run, chunks, under_way, minting, reading) and not is_called_away(run):
            _finish(run, under_way, worth_a_commit, reading)
            worth_a_commit = min(2 * worth_a_commit, WORTH_A_COMMIT)
    finally:
        minting.shutdown(cancel_futures=True)
    return any(len(each) == at_most for at_most, each in due.items()) or is_called_away(run)


def name_minting(run: Run) -> None:
    """Name what became of the process that signs large batches; whoever makes tokens starts another one."""
    if problem := run.around.tokenmaker.trouble():
        run.fault("minting", f"the process that signs large batches of tokens is gone: {problem}", "minting.failed")
    else:
        run.healed("minting")


def _mint_ahead(run: Run, chunks: Iterator[_Chunk], under_way: _UnderWay, minting: Executor, reading: Reading) -> bool:
    """Keep the minting busy; False when nothing is left of it."""
    ahead = sum(len(chunk.due) for chunk, _ in under_way)
    while ahead < AHEAD and (chunk := next(chunks, None)) is not None:
        under_way.append((chunk, minting.submit(_mint, run, chunk, reading)))
        ahead += len(chunk.due)
    return bool(under_way)


def _chunks(run: Run, due: Iterable[DueWorkspace]) -> Iterator[_Chunk]:
    """Group the workspaces by the key that signs for them, as that is when each chunk is asked for.

    A chunk is complete before the workspaces after it were looked at: it is minted meanwhile.
    """
    size = FIRST_CHUNK
    waiting: dict[KeysetName, list[_Due]] = {}
    missing: list[WorkspaceId] = []
    for workspace in due:
        policy = run.policy.workspaces.get(workspace.id)
        if policy is None:
            missing.append(workspace.id)
            continue
        alike = waiting.setdefault(policy.keyset, [])
        alike.append((workspace, policy))
        if len(alike) >= size:
            yield from _chunk(run, policy.keyset, waiting.pop(policy.keyset))
            size = CHUNK
    for name, alike in waiting.items():
        yield from _chunk(run, name, alike)
    if missing:
        with run.around.store.begin() as transaction:
            transaction.fail_workspaces(missing, NEVER, MISSING)


def _chunk(run: Run, name: KeysetName, due: Sequence[_Due]) -> Iterator[_Chunk]:
    signing = run.signing.get(name)
    if signing is not None:
        yield _Chunk(signing, due)


def _mint(run: Run, chunk: _Chunk, reading: Reading) -> list[IssuedToken]:
    """Plan, sign and seal a chunk. Runs beside the loop, and changes nothing."""
    signing = chunk.signing
    issued_at, calendar = whole_second(reading.now), run.around.calendar
    planned = [_Planned(plan_token(due, policy, issued_at, calendar), due, policy) for due, policy in chunk.due]
    not_before = epoch_seconds(reading.now - signing.policy.clock_skew)
    jtis = run.around.tokenmaker.new_jtis(reading.now, len(planned))
    issuer = signing.policy.issuer
    tokens = [
        Token(
            jti=jti,
            workspace=each.policy.id,
            keyset=each.policy.keyset,
            kid=signing.kid,
            phase=Phase.ACTIVE,
            sequence=each.action.sequence,
            issued_at=issued_at,
            expires_at=each.action.expires_at,
            rotate_at=each.action.rotate_at,
        )
        for jti, each in zip(jtis, planned, strict=True)
    ]
    orders = [
        MintOrder(token.jti, identity_of(token), each.policy, issuer, not_before, epoch_seconds(token.expires_at))
        for token, each in zip(tokens, planned, strict=True)
    ]
    sealing = run.ready_sealer.sealing(PURPOSE_TOKEN, signing.kid, signing.signer.algorithm)
    sealed = run.around.tokenmaker.mint_sealed(signing.signer, orders, sealing)
    return [
        _issued(each, token, record, sealing.kek_id)
        for each, token, record in zip(planned, tokens, sealed, strict=True)
    ]


def _issued(planned: _Planned, token: Token, sealed: Sealed, kek_id: KekId) -> IssuedToken:
    action, due, policy = planned
    return IssuedToken(
        token=token,
        sealed=sealed.record,
        mac=sealed.mac,
        kek_id=kek_id,
        reason=action.reason,
        prior=action.prior,
        prior_sequence=due.sequence,
        sinks=tuple([sink_id(sink) for sink in policy.sinks]),
        delivery_deadline=due.current_expires_at or token.issued_at,
    )


def _finish(run: Run, under_way: _UnderWay, worth_a_commit: int, reading: Reading) -> None:
    """Commit what one key has signed by now, but wait until that is ``worth_a_commit``, or all that is under way."""
    signing = under_way[0][0].signing
    ready: list[IssuedToken] = []
    for chunk, minted in [each for each in under_way if each[0].signing is signing]:
        if len(ready) > BATCH - CHUNK or (len(ready) >= worth_a_commit and not minted.done()):
            break
        under_way.remove((chunk, minted))
        ready += _result(run, minted, chunk, reading)
    name = signing.policy.name
    if ready and run.signing.get(name) is signing:  # else an earlier commit found that the key signs no more
        _commit(run, ready, name, reading)


def _result(run: Run, minted: Future[list[IssuedToken]], chunk: _Chunk, reading: Reading) -> list[IssuedToken]:
    """Return what was minted; where a chunk failed, find the workspaces that fail it, and let the others through."""
    try:
        return minted.result()
    except KekError:
        raise
    except Exception as error:  # noqa: BLE001 - the edge of a unit of work: one workspace's failure is not another's
        if len(chunk.due) == 1:
            _failed(run, [chunk.due[0][1].id], reading, f"{type(error).__name__}: {error}")
            return []
    ready: list[IssuedToken] = []
    middle = len(chunk.due) // 2
    for due in (chunk.due[:middle], chunk.due[middle:]):
        half = replace(chunk, due=due)
        future: Future[list[IssuedToken]] = Future()
        try:
            future.set_result(_mint(run, half, reading))
        except Exception as error:  # noqa: BLE001 - as above
            future.set_exception(error)
        ready += _result(run, future, half, reading)
    return ready


def _commit(run: Run, ready: Sequence[IssuedToken], keyset: KeysetName, reading: Reading) -> None:
    try:
        with run.around.store.begin() as transaction:
            _store(transaction, ready)
            run.head = transaction.append([_event(issued, reading) for issued in ready])
    except _StaleError:
        run.signing.pop(keyset, None)  # looked up anew by the keyset's next turn
        with run.around.store.begin() as transaction:
            row = transaction.lock_keyset(keyset)
            if row is not None:
                transaction.put_keyset(replace(row, due_at=reading.now))
    except StoreRuleError as error:
        _commit_apart(run, ready, keyset, reading, str(error))
    except StoreError:
        raise
    except RotatorError as error:
        _failed(run, [issued.token.workspace for issued in ready], reading, str(error))


def _commit_apart(run: Run, ready: Sequence[IssuedToken], keyset: KeysetName, reading: Reading, problem: str) -> None:
    """Find the workspaces whose rows somebody changed, so that a token of that number is there already."""
    if len(ready) > 1:
        middle = len(ready) // 2
        for half in (ready[:middle], ready[middle:]):
            if keyset in run.signing:
                _commit(run, half, keyset, reading)
        return
    workspace = ready[0].token.workspace
    tampered(run, "workspaces", workspace, f"its number was turned back: {problem}", reading)
    with run.around.store.begin() as transaction:
        transaction.renew_workspace(workspace, reading.now)


def _store(transaction: Transaction, ready: Sequence[IssuedToken]) -> None:
    """Raise :class:`_StaleError` when the key signs no more or a workspace has moved on."""
    latest = max(issued.token.expires_at for issued in ready)
    if not transaction.raise_last_exp(ready[0].token.kid, latest) or not transaction.issue(ready):
        raise _StaleError


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
    """Put the workspaces off, each for longer the oftener it failed in a row."""
    with run.around.store.begin() as transaction:
        failures = {workspace: count for workspace, count, _ in transaction.workspace_faults()}
        by_failures: dict[int, list[WorkspaceId]] = {}
        for workspace in workspaces:
            by_failures.setdefault(failures.get(workspace, 0), []).append(workspace)
        for count, alike in by_failures.items():
            pause = backoff(count + 1, RETRY_CEILING, share(alike[0]))
            transaction.fail_workspaces(alike, reading.now + pause, problem)
    for workspace in workspaces[:20]:
        run.around.log.event("workspace.failed", workspace=workspace, problem=problem)
