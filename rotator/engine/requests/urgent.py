"""Revocations wait for nothing: what can be done of one without the KEK, or without the database.

Whoever accepts a revocation hands it to the loop in memory, beside the row that is stored where there is a KEK, and the
loop carries out that row as any other. Where it cannot, for the KEK is away, the witness is refused or the database
cannot be used, it does at once what counts: the journal, then this replica's published tree, then the answer. The rest
follows when that is possible, by a request like any other, which is made from the journal.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from rotator.core.counting import counted
from rotator.core.model import Jti, KeysetName, Kid, WorkspaceId
from rotator.core.planner import IN_SET
from rotator.engine.journal import write_down, written_down
from rotator.engine.publish import take_out_revoked
from rotator.engine.request_rows import ARGUMENTS, authenticated, request_of
from rotator.engine.requests.binding import LIVING, bound_kids
from rotator.engine.run import Run
from rotator.errors import PublishError, RefusedError, StoreError
from rotator.ports import Answer, Reading, RequestRow, RevocationEntry, RevocationKind, Snapshot

REVOCATIONS: Final = frozenset(map(str, RevocationKind))

Ends = Mapping[Jti, datetime | None]


def entry_of(request: RequestRow, kids: Iterable[Kid] = (), jtis: Ends = MappingProxyType({})) -> RevocationEntry:
    """Return the entry of the journal for a revocation that was found to mean ``kids`` and ``jtis``."""
    kind = RevocationKind(request.kind)
    return RevocationEntry(
        id=request.nonce,
        kind=kind,
        name=_named(request),
        choice=str(request.arguments.get("choice") or ""),
        actor=request.actor,
        uid=request.uid,
        reason=request.reason,
        accepted_at=request.created_at,
        kids=tuple(kids),
        jtis=dict(jtis),
    )


def _named(request: RequestRow) -> str:
    return str(request.arguments.get(ARGUMENTS[RevocationKind(request.kind)], ""))


# -------------------------------------------------------------------------------------------------------- without a KEK


def take_pressing(run: Run) -> None:
    """Take up the revocations that came in by now: the tick that does so has to answer them."""
    while not run.urgent.empty():
        run.pressing.append(run.urgent.get_nowait())


def answer_the_rest(run: Run, reading: Reading) -> None:
    """Do at once what counts of each revocation that was taken up and could not be carried out, and answer it."""
    while run.pressing:
        request = run.pressing.pop(0)
        if request.nonce in run.answered:
            continue
        try:
            given = Answer(succeeded=True, text=_revoke_ahead(run, request, reading), follows=True)
        except RefusedError as error:
            given = Answer(succeeded=False, text=str(error))
        run.answers.give(request.nonce, given)


def _revoke_ahead(run: Run, request: RequestRow, reading: Reading) -> str:
    """Journal, then tree; return what to say."""
    entry = _resolve(run, request)
    unwritten = write_down(run, entry, reading.now)
    why = _why(run)
    run.around.log.event(
        "revocation.ahead",
        kind=entry.kind,
        revoked=entry.name,
        kids=entry.kids,
        jtis=tuple(entry.jtis),
        actor=entry.actor,
        reason=entry.reason,
        problem=why,
    )
    for keyset in [name for name, signing in run.signing.items() if signing.kid in entry.kids]:
        del run.signing[keyset]
    for known in [known for known in run.signers if known[0] in entry.kids]:
        del run.signers[known]
    shown = _take_out(run, entry.kids, reading) if entry.kids else ""
    text = f"{_what(entry)}{shown}. The database, and new tokens, follow by themselves: {why}"
    if not unwritten:
        return text
    return f"{text}. It could not be written down, so leave this daemon running until then: {unwritten}"


def _take_out(run: Run, kids: Iterable[Kid], reading: Reading) -> str:
    names = _keysets(run)
    for name in names:
        take_out_revoked(run, name, reading)
    for name in names:
        problem = run.faults.get(f"publish:{name}")
        if problem and _may_show(run, name, kids):
            return f", and still in the published set, which could not be written and is tried again: {problem}"
    return " and out of the published set"


def _may_show(run: Run, name: KeysetName, kids: Iterable[Kid]) -> bool:
    try:
        standing = run.around.publisher.found(name)
    except PublishError:
        return True
    return standing is not None and not set(kids).isdisjoint(standing.kids)


def _keysets(run: Run) -> list[KeysetName]:
    """Return every keyset that this replica may publish, as far as that is known without the database."""
    names = {*run.policy.keysets, *run.witnessed}
    try:
        with run.around.store.read() as snapshot:
            names |= {row.name for row in snapshot.keysets()}
    except StoreError:
        pass  # what has left the config stands in its tree until the database is back
    return sorted(names)


def _why(run: Run) -> str:
    """Return why it was not carried out as any other request."""
    for subject, what in (("kek", "the key-encryption key is away"), ("witness", "the witness is refused")):
        if subject in run.faults:
            return f"{what} ({run.faults[subject]})"
    return "the database cannot be used now"


def _what(entry: RevocationEntry) -> str:
    match entry.kind:
        case RevocationKind.KEY:
            return f"key {entry.name} is revoked"
        case RevocationKind.KEYSET:
            return f"keyset {entry.name}: {counted(len(entry.kids), 'key is', 'keys are')} revoked"
        case RevocationKind.TOKEN:
            return f"token {entry.name} is revoked"
        case RevocationKind.WORKSPACE:
            return f"workspace {entry.name}: {counted(len(entry.jtis), 'token is', 'tokens are')} revoked"


# ----------------------------------------------------------------------------------------------------- what is meant


def _resolve(run: Run, request: RequestRow) -> RevocationEntry:
    """Find what a revocation means: by the rows, which nobody need believe for that, or by the published tree.

    What was found before stands: since then fresh keys may have been made. Raises :class:`RefusedError` where it names
    nothing.
    """
    if (known := written_down(run, request.nonce)) is not None:
        return known
    if kids := bound_kids(request):
        return entry_of(request, kids)
    shown = _shown(run)
    try:
        with run.around.store.read() as snapshot:
            return _by_rows(snapshot, request, shown)
    except StoreError:
        return _by_the_tree(request, shown)


def _shown(run: Run) -> Mapping[KeysetName, tuple[Kid, ...]]:
    """Return what stands in this replica's tree."""
    found: dict[KeysetName, tuple[Kid, ...]] = {}
    for name in _keysets(run):
        try:
            standing = run.around.publisher.found(name)
        except PublishError:
            continue  # what is taken out of it says so
        if standing is not None:
            found[name] = standing.kids
    return found


def _by_rows(snapshot: Snapshot, request: RequestRow, shown: Mapping[KeysetName, tuple[Kid, ...]]) -> RevocationEntry:
    name = _named(request)
    match RevocationKind(request.kind):
        case RevocationKind.KEY:
            if snapshot.key(Kid(name)) is None and not any(name in kids for kids in shown.values()):
                raise RefusedError(f"there is no key {name!r}; `rotator keys list` names them")
            return entry_of(request, [Kid(name)])
        case RevocationKind.KEYSET:
            keyset = KeysetName(name)
            if snapshot.keyset(keyset) is None:
                names = ", ".join(row.name for row in snapshot.keysets())
                raise RefusedError(f"there is no keyset {name!r}; there are: {names}")
            rows = [row.key.kid for row in snapshot.keys(keyset) if row.key.phase in IN_SET]
            kids = dict.fromkeys((*rows, *shown.get(keyset, ())))
            if not kids:
                raise RefusedError(f"keyset {name} has no key that could be revoked")
            return entry_of(request, kids)
        case RevocationKind.TOKEN:
            row = snapshot.token(Jti(name))
            if row is None:
                raise RefusedError(f"there is no token {name!r}; `rotator tokens list --all` names them")
            return entry_of(request, jtis={row.token.jti: row.token.expires_at})
        case RevocationKind.WORKSPACE:
            workspace = WorkspaceId(name)
            if snapshot.workspace(workspace) is None:
                raise RefusedError(f"there is no workspace {name!r}; `rotator tokens list` names them")
            living = [token for token in snapshot.tokens(workspace) if token.phase in LIVING]
            return entry_of(request, jtis={token.jti: token.expires_at for token in living})


def _by_the_tree(request: RequestRow, shown: Mapping[KeysetName, tuple[Kid, ...]]) -> RevocationEntry:
    """Find what is meant where the database cannot be used."""
    name = _named(request)
    match RevocationKind(request.kind):
        case RevocationKind.KEY:
            if not any(name in kids for kids in shown.values()):
                raise RefusedError(f"the database cannot be used, and no published set shows a key {name!r}")
            return entry_of(request, [Kid(name)])
        case RevocationKind.KEYSET:
            shown_kids = shown.get(KeysetName(name), ())
            if not shown_kids:
                raise RefusedError(f"the database cannot be used, and no key is published for a keyset {name!r}")
            return entry_of(request, shown_kids)
        case RevocationKind.TOKEN:
            return entry_of(request, jtis={Jti(name): None})
        case RevocationKind.WORKSPACE:
            raise RefusedError(
                "the database cannot be used, so that nobody can tell which tokens the workspace has; if it cannot "
                "wait, revoke the key that they are signed with (rotator revoke key)"
            )


# ------------------------------------------------------------------------------------------------------- what follows


def follow_up(run: Run, reading: Reading) -> None:
    """Let the database have each journaled revocation as a request, once; handled as any other, it finds what is left.

    Who asked, and why, is as it was accepted.
    """
    open_ones = [entry for entry in (*run.journal.entries, *run.latest, *run.unwritten) if entry.id not in run.followed]
    if not open_ones:
        return
    with run.around.store.read() as snapshot:
        installation = snapshot.installation()
        known = snapshot.stored_nonces([entry.id for entry in open_ones]) | run.answered.keys()
    missing = [entry for entry in open_ones if entry.id not in known]
    if missing:
        sealer = run.ready_sealer
        with run.around.store.begin() as transaction:
            for entry in missing:
                transaction.add_request(authenticated(sealer, installation, request_of(entry, reading)))
    run.followed |= {entry.id for entry in open_ones}
