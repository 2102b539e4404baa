"""Revocation: what an operator found compromised is refused from now on, and what hung on it is replaced.

In this order, and safe to begin again wherever it was cut off: the journal, so that nothing brings it back; the commit;
the published set without the key; then, in bulk, the tokens on it and the workspaces that need new ones. What counts
most is done first, and each step is left out where it was done before. Where nothing can be committed, as without the
KEK, :mod:`rotator.engine.requests.urgent` does the journal and the set, and the rest is done here later.

Works while the clock is not trusted, but for what follows a revocation: then no successor signs and nothing is issued.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from rotator.core import lifecycle
from rotator.core.actions import Reason
from rotator.core.compromise import needs_choice
from rotator.core.counting import counted
from rotator.core.events import Event, EventName
from rotator.core.model import Jti, KeysetName, Kid, Phase, Token, Wish, WorkspaceId
from rotator.engine.attribution import ACCEPTED_AT, caused_by
from rotator.engine.journal import write_down, written_down
from rotator.engine.keysets import turn_keyset, withdraw
from rotator.engine.observe import observe
from rotator.engine.requests.binding import LIVING, bound_jtis, bound_kids
from rotator.engine.requests.outcome import done, done_before
from rotator.engine.requests.urgent import entry_of
from rotator.engine.run import Run
from rotator.errors import PublishError, RefusedError
from rotator.ports import Reading, RequestRow, RevokedTokens, Transaction

# --------------------------------------------------------------------------------------------------------------- keys


def revoke_key(run: Run, request: RequestRow, reading: Reading) -> None:
    """Revoke one key with all that hangs on it."""
    kid = Kid(str(request.arguments.get("kid", "")))
    with run.around.store.read() as snapshot:
        row = snapshot.key(kid)
    if row is None:
        raise RefusedError(f"there is no key {kid!r}; `rotator keys list` names them")
    keyset = row.key.keyset
    _require_choice(run, request, reading, keyset, [kid])
    unwritten = journal_first(run, request, reading, [kid])
    _take_out(run, request, reading, keyset, [kid])
    with run.around.store.begin() as transaction:
        found = transaction.revoke_tokens_of_key(kid, reading.now, certain(run, transaction, reading))
        if _was_revoked_before(row.key.revoked_at, request) and not found.tokens:
            still = counted(found.workspaces, "workspace waits", "workspaces wait")
            waiting = f"; {still} for a new token" if found.workspaces else ""
            result = f"key {kid} {_already(row.key.revoked_at)}{_where(run, keyset, [kid])}{waiting}{unwritten}"
            done_before(run, transaction, request, reading, result)
            return
        result = f"key {kid} is revoked{_where(run, keyset, [kid])}; {_what_hung_on_it(found)}{unwritten}"
        done(run, transaction, request, _tokens_revoked(request, reading, keyset, kid, found), result)


def _was_revoked_before(revoked_at: datetime | None, request: RequestRow) -> bool:
    """Tell whether it was revoked by another request: one that was cut off finds its own work, and goes on with it."""
    return revoked_at is not None and revoked_at < request.created_at


def _already(revoked_at: datetime | None) -> str:
    return f"was revoked already at {revoked_at:%Y-%m-%d %H:%M:%S} UTC"


def revoke_keyset(run: Run, request: RequestRow, reading: Reading) -> None:
    """Revoke every key that a keyset had when this was accepted, spare included; begun again, it spares fresh ones."""
    keyset = KeysetName(str(request.arguments.get("keyset", "")))
    with run.around.store.read() as snapshot:
        if snapshot.keyset(keyset) is None:
            names = ", ".join(row.name for row in snapshot.keysets())
            raise RefusedError(f"there is no keyset {keyset!r}; there are: {names}")
    kids = bound_kids(request)
    if not kids:
        raise RefusedError(f"keyset {keyset} has no key that could be revoked")
    _require_choice(run, request, reading, keyset, kids)
    before_it = _all_revoked_before(run, kids, request)
    unwritten = journal_first(run, request, reading, kids)
    _take_out(run, request, reading, keyset, kids)
    with run.around.store.begin() as transaction:
        due_at = certain(run, transaction, reading)
        found = {kid: transaction.revoke_tokens_of_key(kid, reading.now, due_at) for kid in kids}
        every = RevokedTokens(sum(f.tokens for f in found.values()), sum(f.workspaces for f in found.values()))
        if before_it and not every.tokens:
            result = f"keyset {keyset}: its keys were revoked already{unwritten}"
            done_before(run, transaction, request, reading, result)
            return
        keys_are = counted(len(kids), "key is", "keys are")
        result = f"keyset {keyset}: {keys_are} revoked{_where(run, keyset, kids)}; {_what_hung_on_it(every)}{unwritten}"
        event = _event(EventName.KEYSET_REVOKED, request, reading, keyset=keyset)._replace(details={"keys": len(kids)})
        before = [_tokens_revoked(request, reading, keyset, kid, each) for kid, each in found.items() if any(each)]
        done(run, transaction, request, event, result, before=before)


def _all_revoked_before(run: Run, kids: Sequence[Kid], request: RequestRow) -> bool:
    with run.around.store.read() as snapshot:
        rows = [row for kid in kids if (row := snapshot.key(kid)) is not None]
    return all(_was_revoked_before(row.key.revoked_at, request) for row in rows)


def _require_choice(run: Run, request: RequestRow, reading: Reading, keyset: KeysetName, kids: Sequence[Kid]) -> None:
    """Refuse what leaves no key that every verifier can know, until the operator chose between the two ways.

    A clock that is not trusted cannot tell who is known, and nothing signs under it: then it is waiting. So it is where
    the tree cannot be read, and where it was accepted without the KEK: it is done, and what is left is to wait.
    """
    if request.arguments.get("choice") or "clock" in run.faults or written_down(run, request.nonce):
        return
    try:
        with run.around.store.read() as snapshot:
            observed = observe(run, snapshot, keyset, reading)
    except PublishError:
        return
    if observed is not None and needs_choice(observed.state, observed.policy, reading.now, kids):
        raise RefusedError(
            f"keyset {keyset} has no spare that every verifier can know: choose between waiting (--wait: no token is"
            " issued until one is known) and refusals (--now: it signs before, and verifiers that cache refuse the new"
            " tokens at first)"
        )


def _choose(transaction: Transaction, request: RequestRow, reading: Reading, keyset: KeysetName) -> None:
    """Store what the operator chose with the revocation itself: the planner goes by it, whatever happens in between."""
    match request.arguments.get("choice"):
        case "now":
            wish = Wish(asked_at=reading.now, actor=request.actor, reason=request.reason, emergency=True)
            transaction.put_wish(keyset, wish)
        case "wait":
            transaction.drop_wish(keyset)


def _take_out(run: Run, request: RequestRow, reading: Reading, keyset: KeysetName, kids: Sequence[Kid]) -> None:
    """Revoke keys of one keyset, publish the set without them, and let a spare that is ready sign."""
    with run.around.store.begin() as transaction:
        row = transaction.lock_keyset(keyset)
        events = []
        for kid in kids:
            stored = transaction.key(kid)
            if stored is not None and stored.key.phase is not Phase.REVOKED:
                transaction.update_key(lifecycle.revoke(stored.key, now=reading.now))
                events.append(_event(EventName.KEY_REVOKED, request, reading, keyset=keyset, kid=kid))
        if _loses_its_signer(transaction, keyset):
            _choose(transaction, request, reading, keyset)
        if row is not None and row.ended_at is None:
            transaction.put_keyset(replace(row, due_at=certain(run, transaction, reading), retry_at=None))
        if events:
            run.head = transaction.append(events)
    signing = run.signing.get(keyset)
    if signing is not None and signing.kid in kids:
        del run.signing[keyset]
    for known in [known for known in run.signers if known[0] in kids]:
        del run.signers[known]
    if "clock" in run.faults:
        withdraw(run, keyset, reading)
    else:
        turn_keyset(run, keyset, reading)


def _loses_its_signer(transaction: Transaction, keyset: KeysetName) -> bool:
    return all(row.key.phase is not Phase.ACTIVE for row in transaction.keys(keyset))


def certain(run: Run, transaction: Transaction, reading: Reading) -> datetime:
    """Return the latest moment that is certain to have come: what is due then stays due when the clock is set right."""
    mark = transaction.clock_mark()
    if "clock" not in run.faults or mark is None:
        return reading.now
    return min(reading.now, mark.high_water_at)


def _where(run: Run, keyset: KeysetName, kids: Sequence[Kid]) -> str:
    problem = run.faults.get(f"publish:{keyset}") or run.faults.get(f"keyset:{keyset}")
    if problem and _shown(run, keyset, kids):
        return f", and still in the published set, which could not be written and is tried again: {problem}"
    if problem:
        return f" and out of the published set; the keyset is out of order: {problem}"
    signing = run.signing.get(keyset)
    successor = "no key signs yet" if signing is None else f"key {signing.kid} signs"
    return f" and out of the published set; {successor}"


def _shown(run: Run, keyset: KeysetName, kids: Sequence[Kid]) -> bool:
    """Tell whether this replica's tree may show one of ``kids``."""
    try:
        standing = run.around.publisher.found(keyset)
    except PublishError:
        return True
    return standing is not None and not set(kids).isdisjoint(standing.kids)


def _what_hung_on_it(found: RevokedTokens) -> str:
    if not found.tokens and not found.workspaces:
        return "no unexpired token hung on it"
    tokens = counted(found.tokens, "token was", "tokens were")
    ones = counted(found.workspaces, "workspace gets a new one", "workspaces get new ones")
    return f"{tokens} revoked with it, and {ones}"


def _tokens_revoked(request: RequestRow, reading: Reading, keyset: KeysetName, kid: Kid, found: RevokedTokens) -> Event:
    event = _event(EventName.TOKENS_REVOKED, request, reading, keyset=keyset, kid=kid)
    return event._replace(details={"tokens": found.tokens, "workspaces": found.workspaces})


# ------------------------------------------------------------------------------------------------------------- tokens


def revoke_token(run: Run, request: RequestRow, reading: Reading) -> None:
    """Revoke one token; if it is the current one of its workspace, that gets a new one."""
    jti = Jti(str(request.arguments.get("jti", "")))
    with run.around.store.read() as snapshot:
        row = snapshot.token(jti)
    if row is None:
        raise RefusedError(f"there is no token {jti!r}; `rotator tokens list --all` names them")
    workspace = row.token.workspace
    unwritten = journal_first(run, request, reading, tokens=[row.token])
    with run.around.store.begin() as transaction:
        renewed = _revoke(run, transaction, [row.token], workspace, reading)
        if row.token.phase is Phase.REVOKED:  # and with that in one transaction such a request would have ended
            result = f"token {jti} of workspace {workspace} {_already(row.token.revoked_at)}{unwritten}"
            done_before(run, transaction, request, reading, result)
            return
        event = token_revoked(request, reading, row.token)
        follows = "it gets a new one" if renewed else "its current token is another one, and stays"
        result = f"token {jti} of workspace {workspace} is revoked; {follows}{unwritten}"
        done(run, transaction, request, event, result)


def revoke_workspace(run: Run, request: RequestRow, reading: Reading) -> None:
    """Revoke every token of a workspace. Whether it is there at all is for the config to say: so it gets a new one."""
    workspace = WorkspaceId(str(request.arguments.get("workspace", "")))
    with run.around.store.read() as snapshot:
        state = snapshot.workspace(workspace)
        if state is None:
            raise RefusedError(f"there is no workspace {workspace!r}; `rotator tokens list` names them")
        meant = bound_jtis(request)
        living = [token for token in snapshot.tokens(workspace) if token.phase in LIVING and token.jti in meant]
    unwritten = journal_first(run, request, reading, tokens=living)
    with run.around.store.begin() as transaction:
        renewed = _revoke(run, transaction, living, workspace, reading)
        if not living and ACCEPTED_AT in request.bound:
            done_before(run, transaction, request, reading, f"workspace {workspace}: its tokens were revoked already")
            return
        event = _event(
            EventName.WORKSPACE_REVOKED, request, reading, keyset=state.keyset, workspace=workspace
        )._replace(details={"tokens": len(living)})
        tokens = counted(len(living), "token")
        follows = "it gets a new one" if renewed else "it has left the config, and gets no new one"
        if not renewed and state.current is not None and state.current not in meant:
            follows = f"token {state.current} was issued after this was asked, and stays"
        result = f"workspace {workspace}: {tokens} revoked; {follows}{unwritten}"
        before = [token_revoked(request, reading, token) for token in living]
        done(run, transaction, request, event, result, before=before)


def _revoke(
    run: Run, transaction: Transaction, tokens: Sequence[Token], workspace: WorkspaceId, reading: Reading
) -> bool:
    """Mark ``tokens`` as revoked; tell whether their workspace is due for a new one."""
    for token in tokens:
        transaction.revoke_token(token.jti, reading.now, Reason.TOKEN_REVOKED)
    state = transaction.workspace(workspace)
    if state is None or state.removed_at is not None or state.current is None:
        return False
    current = transaction.token(state.current)
    if current is None or current.token.phase is not Phase.REVOKED:
        return False
    due_at = certain(run, transaction, reading)
    transaction.make_due(workspace, min(state.due_at, due_at), Reason.TOKEN_REVOKED, due_at)
    return True


# ------------------------------------------------------------------------------------------------------------- shared


def journal_first(
    run: Run, request: RequestRow, reading: Reading, kids: Sequence[Kid] = (), tokens: Sequence[Token] = ()
) -> str:
    """Write a revocation down before anything is done about it; return what to say where that is not possible.

    A compromised key does not stay in use because of that: it is written down as soon as it can be.
    """
    entry = entry_of(request, kids, {token.jti: token.expires_at for token in tokens})
    problem = write_down(run, entry, reading.now)
    if not problem:
        return ""
    return f". Until that can be written down, put no backup back: it would bring this to life again ({problem})"


def _event(
    name: EventName,
    request: RequestRow,
    reading: Reading,
    *,
    keyset: KeysetName,
    kid: Kid | None = None,
    workspace: WorkspaceId | None = None,
) -> Event:
    return caused_by(request, Event(name=name, at=reading.now, keyset=keyset, kid=kid, workspace=workspace))


def token_revoked(request: RequestRow, reading: Reading, token: Token) -> Event:
    """Return the event of a token that a person revoked."""
    event = _event(
        EventName.TOKEN_REVOKED, request, reading, keyset=token.keyset, kid=token.kid, workspace=token.workspace
    )
    return event._replace(jti=token.jti)
