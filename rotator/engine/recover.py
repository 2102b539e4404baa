"""Holds the database against the witness and the published metas, and makes a restored backup harmless.

One of them ahead of the database means that an older database was put back. Then revocations stand, only the key that
it names active may sign, every other private half is erased, what was published stays published until the last token
on it has ended, and every workspace is given a fresh token.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from rotator.core import lifecycle
from rotator.core.actions import Reason
from rotator.core.events import Detail, Event, EventName
from rotator.core.model import Jti, KeysetName, Kid, Origin, Phase, SigningKey, WorkspaceState
from rotator.core.schedule import share
from rotator.core.stored_policy import policy_to_json
from rotator.core.timeguard import ClockMark
from rotator.core.tokens import SMEAR_PER_WORKSPACE, plan_sync
from rotator.engine.attribution import in_name_of
from rotator.engine.knowledge import Known, hold_against
from rotator.engine.request_rows import authenticated, is_authentic, recall_answered, request_of
from rotator.engine.rows import new_row
from rotator.engine.run import Attested, Run
from rotator.engine.second_witness import read_metas, report_metas
from rotator.engine.witnessing import recall_revoked
from rotator.errors import WitnessError
from rotator.ports import (
    AuditHead,
    KeyRow,
    KeysetRow,
    PublishedWitness,
    Reading,
    ReplicaRow,
    RevocationEntry,
    Snapshot,
    Transaction,
    WitnessedKey,
    WitnessedKeyset,
    WitnessRecord,
)

_DONE_BEFORE: Final = "it was carried out before an older database was put in place"

REVOCATIONS: Final = frozenset({"key.revoke", "keyset.revoke", "token.revoke", "workspace.revoke"})
"""What may be carried out once too often: each is of certain keys or tokens, and leaves those revoked."""

_SET_BACK: Final = (
    "an older database was put back, and whether this was carried out since is not known; look, and ask again if it is "
    "still meant"
)


def reconcile(run: Run, reading: Reading) -> None:
    """Compare the database with what is known beside it; restore or carry over revocations as needed. Needs the KEK."""
    record = run.around.witness.read()
    with run.around.store.read() as snapshot:
        head = snapshot.audit_head()
        run.installation = snapshot.installation()
        run.revoked_in.clear()
        recall_revoked(run, snapshot, reading)
        recall_answered(run, snapshot)
        asked = _asked(run, snapshot)
    run.head = head
    run.followed.clear()
    if record is not None and record.installation != run.installation:
        raise WitnessError(
            "the witness in the state directory belongs to another database "
            f"(installation {record.installation}, this one is {run.installation}). Put that database back, or, if "
            "it is lost for good, begin a new one that knows what was published and revoked: rotator published adopt"
        )
    with run.around.store.read() as snapshot:
        known = look_beside(run, snapshot, record)
        own_seq = _own_seq(snapshot, known.record) if known.record is not None and known.behind else head.seq
    if known.record is not None:
        record = known.record
        run.revoked_kids |= record.revoked_kids
        run.revoked_jtis |= record.revoked_jtis
        run.answered |= record.requests
        run.replicas |= record.replicas
        run.witnessed = dict(record.keysets)  # until each keyset was looked at: what is published must not be forgotten
        run.once_ours = {key.kid: key.public_jwk for known in record.keysets.values() for key in known.published}
        with run.around.store.begin() as transaction:
            ahead = _ahead(record, run.journal.entries) if known.behind else {}
            if known.behind:
                for entry in _leave_followed(run, record):
                    _note_as_followed(run, transaction, entry, reading)
            record = with_journal(record, run.journal.entries) if known.behind else record
            events = list(
                _revocations(transaction, record, ahead, reading.now, reading.now, asked, behind=known.behind)
            )
            if known.behind:
                events = [*_restore(run, transaction, known, record, own_seq, reading), *events]
            if events:
                first = max(head.seq, record.audit_seq) + 1
                run.head = transaction.append(events, first_seq=first if first > head.seq + 1 else None)
        if known.behind:
            run.around.log.event(
                "restore.found",
                database_seq=own_seq,
                witness_seq=record.audit_seq,
                missing=max(0, record.audit_seq - own_seq),
                found_by=known.by,
            )
    run.signers.clear()
    run.signing.clear()
    run.reconciled, run.outdone = True, False


def look_beside(run: Run, snapshot: Snapshot, record: WitnessRecord | None) -> Known:
    """Return what the witness and the metas of this tree know, held against the database; report metas that do not fit.

    ``record``: the witness of this installation, if there is one.
    """
    installation = snapshot.installation()
    names = {row.name for row in snapshot.keysets()} | run.policy.keysets.keys()
    names |= set() if record is None else record.keysets.keys()
    metas = read_metas(run.around.publisher, run.ready_sealer, sorted(names))
    problems = dict(metas.problems)
    mine: list[PublishedWitness] = []
    for meta in metas.authentic:
        row = snapshot.keyset(meta.keyset)
        if meta.installation != installation:
            if row is not None:  # else its set is another's, too, and waits to be adopted or replaced
                problems[meta.keyset] = f"it is of another installation, {meta.installation}"
            continue
        mine.append(meta)
        if row is not None and meta.known.generation < row.generation:
            generations = f"generation {meta.known.generation}, where the database is at {row.generation}"
            problems[meta.keyset] = f"it is an older one: {generations}"
    # What stands where this installation never published is somebody else's: whoever adopts or replaces it sees to it.
    ours = {row.name for row in snapshot.keysets() if row.generation > 0}
    ours |= set() if record is None else record.keysets.keys()
    report_metas(run, {name: problem for name, problem in problems.items() if name in ours})
    run.attested = {meta.keyset: Attested(meta.kek_id, installation, meta.known, meta.revoked_kids) for meta in mine}
    return hold_against(snapshot, record, mine, run.policy.keysets)


def secure(run: Run, reading: Reading) -> Sequence[KeysetName]:
    """Carry over what must not wait for a trusted clock: which keys are in the sets, and which have left for good.

    Return the keysets whose sets are to be looked at for that. A set that is published from an older database as it is,
    as by a revocation, would lack keys that were made since, hold keys that were revoked or retired since, and bear a
    generation that another set had. All else that a restore changes is dated, and waits for :func:`reconcile`.
    """
    record = run.around.witness.read()
    with run.around.store.begin() as transaction:
        installation = transaction.installation()
        known = look_beside(run, transaction, record if _is_of(record, installation) else None)
        record = known.record
        if record is None:
            return ()
        run.revoked_kids |= record.revoked_kids  # whatever is published now says so
        run.answered |= record.requests
        if not known.behind:
            return ()
        due_at, ahead = _certain(record, reading.now), _ahead(record, run.journal.entries)
        reached = _reached(record, reading.now)
        _leave_followed(run, record)
        record = with_journal(record, run.journal.entries)
        events = list(_revocations(transaction, record, ahead, reading.now, due_at, (), behind=True))
        for name in sorted(known.keysets & record.keysets.keys()):
            witnessed, row = record.keysets[name], transaction.lock_keyset(name)
            if row is not None:
                numbered = _numbered_on(row, witnessed)
                if numbered != row:
                    transaction.put_keyset(numbered)
                published = {key.kid for key in witnessed.published} | record.revoked_kids
                for stored in transaction.keys(name):
                    if stored.key.kid not in published and stored.key.authentic:
                        events.extend(_restore_key(transaction, stored.key, witnessed, None, reading, reached))
                events.extend(_adopt_missing(run, transaction, name, record, reading))
        if events:
            run.head = transaction.append(events)
    return tuple(sorted(known.keysets))


def witnessed_clock(run: Run, snapshot: Snapshot, *, lost: bool = False) -> ClockMark | None:
    """Return what the witness knows of time where an older database, which knows less, was put back.

    ``lost``: the database knows nothing of time.
    """
    if run.sealer is None or continues(run, snapshot.audit_head()):
        return None
    try:
        record = run.around.witness.read()
    except WitnessError:
        return None  # whoever reconciles says so
    if record is None or not _is_of(record, snapshot.installation()):
        return None
    return record.clock if lost or hold_against(snapshot, record, (), ()).behind else None


def _is_of(record: WitnessRecord | None, installation: str) -> bool:
    return record is not None and record.installation == installation


def continues(run: Run, head: AuditHead) -> bool:
    """Tell whether a database that ends at ``head`` is the one that this run held against the witness, or goes on."""
    if not run.reconciled or run.head is None or run.outdone:
        return False
    return head.seq > run.head.seq or (head.seq, head.hash) == (run.head.seq, run.head.hash)


def carry_over_revocations(
    transaction: Transaction, known: Known, journal: Sequence[RevocationEntry], now: datetime
) -> Sequence[Event]:
    """Revoke what is known as revoked, in a database that no daemon works on; return the events of it.

    They are the first that :func:`reconcile` does at the next start, which then finds them done.
    """
    if known.record is None:
        return ()
    ahead, record = _ahead(known.record, journal), with_journal(known.record, journal)
    return list(_revocations(transaction, record, ahead, now, _certain(record, now), (), behind=known.behind))


def with_journal(record: WitnessRecord, entries: Iterable[RevocationEntry]) -> WitnessRecord:
    """Return ``record`` with what the journal knows beside it: an older database must not bring that back, either."""
    kids: set[Kid] = set()
    jtis: dict[Jti, datetime] = {}
    for entry in entries:
        kids |= set(entry.kids)
        jtis |= {jti: entry.accepted_at if exp is None else exp for jti, exp in entry.jtis.items()}
    return replace(record, revoked_kids=record.revoked_kids | kids, revoked_jtis={**jtis, **record.revoked_jtis})


def _ahead(record: WitnessRecord, entries: Iterable[RevocationEntry]) -> Mapping[str, RevocationEntry]:
    """Return the entries of which the witness does not know yet, by the kids and jtis that they name."""
    known = record.revoked_kids | record.revoked_jtis.keys()
    return {name: entry for entry in entries for name in (*entry.kids, *entry.jtis) if name not in known}


def _leave_followed(run: Run, record: WitnessRecord) -> Sequence[RevocationEntry]:
    """Leave journaled revocations alone that were carried out before the older database was put in place.

    What they name is revoked in it. What an operator chose with one, as that a fresh key may sign before every verifier
    can know it, was said of the keys of that time.
    """
    known = record.revoked_kids | record.revoked_jtis.keys()
    followed = [entry for entry in run.journal.entries if known.issuperset((*entry.kids, *entry.jtis))]
    run.followed |= {entry.id for entry in followed}
    return followed


def _note_as_followed(run: Run, transaction: Transaction, entry: RevocationEntry, reading: Reading) -> None:
    """Give the older database the request of a revocation that it forgot: the next start must not follow it, either."""
    if transaction.stored_nonces([entry.id]):
        return
    request = authenticated(run.ready_sealer, transaction.installation(), request_of(entry, reading))
    number = transaction.add_request(request)
    transaction.finish_request(number, reading.now, succeeded=True, result=_DONE_BEFORE)


def _reached(record: WitnessRecord, now: datetime) -> datetime:
    """Return the latest moment that is known to have come, be the clock behind."""
    return now if record.clock is None else max(now, record.clock.high_water_at)


def _certain(record: WitnessRecord, now: datetime) -> datetime:
    """Return the latest moment that is certain to have come, where nobody vouches for the clock."""
    return now if record.clock is None else min(now, record.clock.high_water_at)


def _asked(run: Run, snapshot: Snapshot) -> frozenset[Detail]:
    """Return the tokens that somebody asked to revoke, and of which that was not carried out yet."""
    sealer, installation = run.ready_sealer, snapshot.installation()
    waiting = [each for each in snapshot.open_requests() if is_authentic(sealer, installation, each)]
    return frozenset(each.arguments.get("jti") for each in waiting if each.kind == "token.revoke")


def _revocations(
    transaction: Transaction,
    record: WitnessRecord,
    ahead: Mapping[str, RevocationEntry],
    now: datetime,
    due_at: datetime,
    asked: Collection[Detail],
    *,
    behind: bool,
) -> Iterator[Event]:
    """Carry over revocations that the witness has and the database lost, or never got to.

    ``due_at``: the latest moment that is certain to have come; what is due then stays due when the clock is set right.
    ``ahead``: entries of the journal that no database was told of yet, which say who asked, and why. ``asked``: tokens
    of which a request tells, which comes next. What the database never got to is still asked for there, and that
    request sees to the tokens.
    """
    for kid in sorted(record.revoked_kids):
        row = transaction.key(kid)
        if row is not None and row.key.phase is not Phase.REVOKED:
            key = lifecycle.revoke(row.key, now=now)
            transaction.update_key(key)
            yield _in_name_of(ahead.get(kid), _event(EventName.KEY_REVOKED, key, now))
            if behind:
                found = transaction.revoke_tokens_of_key(kid, now, due_at)
                details: dict[str, Detail] = {"tokens": found.tokens, "workspaces": found.workspaces}
                event = _event(EventName.TOKENS_REVOKED, key, now)._replace(details=details)
                yield _in_name_of(ahead.get(kid), event)
    for jti in sorted(record.revoked_jtis.keys() - (() if behind else asked)):
        token = transaction.token(jti)
        if token is not None and token.token.phase is not Phase.REVOKED:
            transaction.revoke_token(jti, now, Reason.RESTORED)
            event = Event(
                name=EventName.TOKEN_REVOKED,
                at=now,
                workspace=token.token.workspace,
                kid=token.token.kid,
                jti=jti,
                reason=Reason.RESTORED,
            )
            yield _in_name_of(ahead.get(jti), event)


def _in_name_of(entry: RevocationEntry | None, event: Event) -> Event:
    """Return ``event`` as caused by whoever had that revoked, where no database was told of it before."""
    return event if entry is None else in_name_of(entry.actor, entry.kind, event._replace(reason=entry.reason))


def _event(name: EventName, key: SigningKey, now: datetime) -> Event:
    return Event(name=name, at=now, keyset=key.keyset, kid=key.kid, reason=Reason.RESTORED)


def _own_seq(snapshot: Snapshot, record: WitnessRecord) -> int:
    """Return the last event of an older database, without those by which `rotator restore` put it in place."""
    found = snapshot.audit_head().seq
    for row in snapshot.audit():
        details = row.event.details
        if row.event.name is EventName.BACKUP_RESTORED and details.get("witness_hash") == record.audit_hash:
            found = int(details.get("database_seq") or 0)
    return found


def _restore(
    run: Run, transaction: Transaction, known: Known, record: WitnessRecord, own_seq: int, reading: Reading
) -> Iterator[Event]:
    yield Event(
        name=EventName.STATE_RESTORED,
        at=reading.now,
        details={
            "database_seq": own_seq,
            "witness_seq": record.audit_seq,
            "witness_hash": record.audit_hash,
            "found_by": known.by,
        },
    )
    for replica in record.replicas - {row.replica for row in transaction.replicas()}:
        transaction.put_replica(ReplicaRow(replica=replica, started_at=reading.now, seen_at=reading.now))
    for name in sorted(known.keysets):
        yield from _restore_keyset(run, transaction, name, record, reading)
    transaction.insert_workspaces(plan_sync(transaction.workspaces(), run.policy, reading.now, run.around.calendar).new)
    states = [state for state in transaction.workspaces() if state.removed_at is None]
    spread = SMEAR_PER_WORKSPACE * sum(_can_wait(state, record, reading.now) for state in states)
    transaction.update_workspaces([_afresh(state, record, reading, spread) for state in states])
    for request in transaction.open_requests():
        if request.kind not in REVOCATIONS and not run.answers.awaited(request.nonce):
            transaction.finish_request(request.id, reading.now, succeeded=False, result=_SET_BACK)
    # What this database thinks that the sinks should hold is older than what they do hold.
    transaction.drop_deliveries([(row.workspace, row.sink) for row in transaction.deliveries()])


def _afresh(state: WorkspaceState, record: WitnessRecord, reading: Reading, spread: timedelta) -> WorkspaceState:
    # Each token ever issued is an event of its own, so that no workspace's sequence can be above the head's.
    state = state._replace(sequence=max(state.sequence, record.audit_seq))
    if state.due_reason == Reason.KEY_REVOKED:
        return state  # it has no token that is good for anything: it waits for nobody
    wait = spread * share(state.id) if _can_wait(state, record, reading.now) else timedelta(0)
    return state._replace(due_at=reading.now + wait, due_reason=Reason.RESTORED)


def _can_wait(state: WorkspaceState, record: WitnessRecord, now: datetime) -> bool:
    """Tell whether a workspace has a token that verifiers accept, as far as this database knows."""
    if state.current is None or state.current_expires_at is None or state.current_expires_at <= now:
        return False
    return state.current not in record.revoked_jtis and state.current_kid not in record.revoked_kids


def _restore_keyset(
    run: Run, transaction: Transaction, name: KeysetName, record: WitnessRecord, reading: Reading
) -> Iterator[Event]:
    witnessed = record.keysets.get(name, WitnessedKeyset(0, None, ()))
    row = transaction.lock_keyset(name)
    if row is None:
        policy = run.policy.keysets.get(name)
        if policy is None:
            run.around.log.event("keyset.failed", keyset=name, problem="the witness knows it, the config does not")
            return
        row = KeysetRow(
            name=name,
            due_at=reading.now,
            schedule_fingerprint=policy.schedule_fingerprint,
            policy=policy_to_json(policy),
        )
    transaction.drop_wish(name)  # it was fulfilled since, or whoever asked must look again
    known = {key.kid: key for key in witnessed.published}
    transaction.put_keyset(
        replace(_numbered_on(row, witnessed), ever_active=True, due_at=reading.now, retry_at=None),
    )
    for stored in transaction.keys(name):
        key = stored.key
        if key.kid in record.revoked_kids:
            continue
        if key.authentic:
            yield from _restore_key(
                transaction, key, witnessed, known.get(key.kid), reading, _reached(record, reading.now)
            )
        elif key.phase is Phase.ACTIVE:
            yield _set_aside(run, transaction, key, known.get(key.kid), reading)
        # else it is told of, and kept as known
    yield from _adopt_missing(run, transaction, name, record, reading)


def _set_aside(
    run: Run, transaction: Transaction, key: SigningKey, known: WitnessedKey | None, reading: Reading
) -> Event:
    """Put what is known in place of a row that somebody changed, and that says that its key signs.

    Nobody believes it, so that the key does not sign; and while it stands there no other key of its keyset can.
    """
    if known is not None and known.ends_at is not None:
        adopted = _adopted(run, key.keyset, known, reading)
        transaction.replace_unauthentic_key(adopted)
        return _event(EventName.KEY_ADOPTED, adopted.key, reading.now)
    revoked = lifecycle.revoke(key, now=reading.now)
    transaction.update_key(revoked)
    return _event(EventName.KEY_REVOKED, revoked, reading.now)


def _numbered_on(row: KeysetRow, witnessed: WitnessedKeyset) -> KeysetRow:
    """Let the numbers of sets and keys go on from the last that the witness saw: none is given twice."""
    sequences = [row.next_sequence - 1, *(key.sequence for key in witnessed.published)]
    return replace(row, generation=max(row.generation, witnessed.generation), next_sequence=max(sequences) + 1)


def _adopt_missing(
    run: Run, transaction: Transaction, name: KeysetName, record: WitnessRecord, reading: Reading
) -> Iterator[Event]:
    """Adopt the keys that were published, have signed, and are not in the old database.

    One that is retired there came back and signed: the database that was in place then knew nothing of its first life.
    """
    present = {stored.key.kid: stored.key for stored in transaction.all_keys() if stored.key.keyset == name}
    published = record.keysets[name].published if name in record.keysets else ()
    for missing in published:
        if missing.kid in record.revoked_kids or missing.ends_at is None:
            continue
        key = present.get(missing.kid)
        if key is None:
            yield _adopt(run, transaction, name, missing, reading)
        elif key.phase is Phase.RETIRED and missing.ends_at > reading.now:
            transaction.update_key(lifecycle.take_back(key, now=reading.now, until=missing.ends_at))
            yield _event(EventName.KEY_ADOPTED, key, reading.now)


def _restore_key(
    transaction: Transaction,
    key: SigningKey,
    witnessed: WitnessedKeyset,
    known: WitnessedKey | None,
    reading: Reading,
    reached: datetime,
) -> Iterator[Event]:
    """Bring one key from the old database to where the witness says that it stands.

    ``reached``: the latest moment that is known to have come, whatever the clock says now.
    """
    now = reading.now
    if key.phase in (Phase.RETIRED, Phase.REVOKED):
        return
    if key.kid == witnessed.active and key.has_private:
        if key.phase is Phase.PENDING:
            # Since when it signs is not known any more, so its successor is due as soon as there can be one.
            key = lifecycle.activate(replace(key, proven_at=now), now=now, rotate_at=now)
            yield _event(EventName.KEY_ACTIVATED, key, now)
        transaction.update_key(replace(key, last_exp=known.ends_at if known else key.last_exp))
        return
    signed_until = None if known is None else known.ends_at
    if key.phase is Phase.PENDING and signed_until is not None:
        # It signed after the backup was made, and has stopped since.
        key = lifecycle.activate(replace(key, proven_at=now), now=now, rotate_at=now)
    if key.phase is Phase.ACTIVE:
        key = lifecycle.demote(key, now=now, grace_until=signed_until or key.last_exp or now)
        yield _event(EventName.KEY_DEMOTED, key, now)
    if key.phase is Phase.GRACE and signed_until is not None:
        key = replace(key, last_exp=max(signed_until, key.last_exp or signed_until), has_private=False)
    # Of another copy of this database, which went on by itself, tokens may be out that no witness knows of.
    needed = key.phase is Phase.GRACE and key.last_exp is not None and key.last_exp > reached
    if (known is None and not needed) or key.phase is Phase.PENDING:
        key = lifecycle.retire(key, now=now)
        yield _event(EventName.KEY_RETIRED, key, now)
    transaction.update_key(key)


def _adopt(run: Run, transaction: Transaction, name: KeysetName, known: WitnessedKey, reading: Reading) -> Event:
    row = _adopted(run, name, known, reading)
    transaction.insert_key(row)
    return _event(EventName.KEY_ADOPTED, row.key, reading.now)


def _adopted(run: Run, name: KeysetName, known: WitnessedKey, reading: Reading) -> KeyRow:
    """Make the row of a key that the witness knows, for as long as it knows of tokens on it."""
    key = SigningKey(
        kid=known.kid,
        keyset=name,
        sequence=known.sequence,
        algorithm=known.algorithm,
        phase=Phase.GRACE,
        created_at=reading.now,
        origin=Origin.ADOPTED,
        public_jwk=known.public_jwk,
        has_private=False,
        demoted_at=reading.now,
        grace_until=known.ends_at,
        last_exp=known.ends_at,
        destroyed_at=reading.now,
    )
    return new_row(run.ready_sealer, key, None)
