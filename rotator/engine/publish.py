"""Writes a keyset's set into the tree and records what is read back, as the planner or a revocation wants it."""

import hashlib
from collections.abc import Callable, Container
from dataclasses import dataclass, replace

from rotator.core.actions import PublishSet
from rotator.core.events import Detail, Event, EventName
from rotator.core.jwks import JwksError, parse_set, render
from rotator.core.model import KeysetName, Kid
from rotator.core.planner import IN_SET, desired_kids
from rotator.engine.observe import Observed, begin_anew, observe, publication, record_sightings, revoked_kids
from rotator.engine.run import Attested, Run
from rotator.engine.second_witness import facts_of, is_outdone, part_of
from rotator.engine.witnessing import witnessed_jwks, witnessed_keyset
from rotator.errors import PublishError
from rotator.ports import AuditHead, KeysetRow, Publication, Reading, Transaction


def try_to_publish(run: Run, action: PublishSet, reading: Reading) -> str:
    """Publish what the planner wants, unless that changed meanwhile: then the next round plans anew.

    Return what went wrong with it; empty when nothing did.
    """
    return _try_to_write(
        run,
        action.keyset,
        reading,
        lambda observed: (
            publication(run, observed.row, observed.policy, observed.state, reading.now)
            if desired_kids(observed.state) == action.kids
            else None
        ),
    )


def publish_as_known(run: Run, observed: Observed, seen: Container[Kid], reading: Reading) -> None:
    """Let a set be what is known of it, where not all of its rows can be believed. ``seen``: what some tree held."""
    _try_to_write(run, observed.row.name, reading, lambda now: _as_known(run, now, seen, reading))


def _as_known(run: Run, observed: Observed, seen: Container[Kid], reading: Reading) -> Publication | None:
    """Return the set with each key as its row says, or, where that cannot be believed, as the witness or the tree does.

    None where it stands like that, and where there is no set yet and a key of it is not known: a new replica shows
    nothing rather than less than the others. What was revoked is in none.
    """
    name = observed.row.name
    standing = run.around.publisher.found(name)
    witnessed = witnessed_jwks(run, name)
    texts = {**dict(() if standing is None else parse_set(standing.content) or ()), **witnessed}
    revoked = revoked_kids(run, observed.state.keys)
    kept = [(known.sequence, known.public_jwk) for known in observed.lost]
    for key in observed.state.keys:
        if key.kid in revoked or key.phase not in IN_SET:
            continue
        if key.authentic:
            kept.append((key.sequence, key.public_jwk))
        elif key.kid in seen or key.kid in witnessed:
            if key.kid in texts:
                kept.append((key.sequence, texts[key.kid]))
            elif standing is None:
                return None
    if not kept and (standing is None or revoked.isdisjoint(standing.kids)):
        return None  # what stands is better than an empty set, unless it shows what was revoked
    content = replace(
        publication(run, observed.row, observed.policy, observed.state, reading.now),
        jwks=tuple(text for _, text in sorted(kept)),
    )
    return None if run.around.publisher.intact(content) else content


def take_out_revoked(run: Run, keyset: KeysetName, reading: Reading) -> None:
    """Let what is known to be revoked leave this replica's tree, and leave all else as it stands.

    That needs neither the KEK nor the database, which follow later.
    """
    try:
        run.around.publisher.take_out(keyset, run.revoked_kids, reading.now)
    except PublishError as error:
        run.fault(f"publish:{keyset}", str(error), "publish.failed", keyset=keyset)
    else:
        run.healed(f"publish:{keyset}")


Wanted = Callable[[Observed], Publication | None]
"""Returns the set that is to stand, from what is so now; None: nothing is to be written."""


def _try_to_write(run: Run, keyset: KeysetName, reading: Reading, wanted: Wanted) -> str:
    """Write, and return what went wrong with it, which is a fault until it goes well; empty when nothing did."""
    subject = f"publish:{keyset}"
    try:
        _write(run, keyset, reading, wanted)
    except PublishError as error:
        run.fault(subject, str(error), "publish.failed", keyset=keyset)
        return str(error)
    run.healed(subject)
    return ""


def _write(run: Run, keyset: KeysetName, reading: Reading, wanted: Wanted) -> None:
    """Write the tree and record what is read back."""
    with run.around.store.begin() as transaction:
        row = transaction.lock_keyset(keyset)
        observed = None if row is None else observe(run, transaction, keyset, reading, row=row)
        content = None if observed is None else wanted(observed)
        if observed is None or content is None:
            return
        unwritten = prepare(run, transaction, observed, content, reading)
        if unwritten.row != observed.row:
            transaction.put_keyset(unwritten.row)
    written = write(run, unwritten)
    with run.around.store.begin() as transaction:
        seen = observe(run, transaction, keyset, written.at)
        _, event = confirm(run, transaction, seen, written, reading)
        run.head = transaction.append([event])
    report(run, written)


@dataclass(frozen=True, slots=True)
class Unwritten:
    """A set that is to be published, as soon as the transaction in which it was prepared is durable."""

    row: KeysetRow
    """Of the keyset, as it is to be stored: the generation moves first, so that no two sets share one."""
    content: Publication
    digest: str
    facts: Attested | None
    head: AuditHead
    """Of the audit when it was prepared."""
    stood: frozenset[Kid]
    """What the tree held before."""
    repaired: bool
    """It was published before, and does not stand like that."""
    first: bool
    """No set of this keyset was ever served from anywhere."""


@dataclass(frozen=True, slots=True)
class Written:
    """A set that stands in the tree, and is to be recorded."""

    unwritten: Unwritten
    at: Reading
    nothing_stood: bool


def prepare(
    run: Run, transaction: Transaction, observed: Observed, content: Publication, reading: Reading
) -> Unwritten:
    """Return what is to be written, and with what row of the keyset; where it cannot be, nothing was changed."""
    digest = _digest(content)
    row, repaired = observed.row, digest == observed.row.set_sha256
    if not repaired:
        row = replace(row, generation=row.generation + 1, set_sha256=digest)
    _keep_foreign_aside(run, transaction, observed, reading)
    if is_outdone(run, transaction, row.name):
        raise PublishError(
            f"the meta file of keyset {row.name} is of a later set than this database knows: it is followed first"
        )
    known = replace(witnessed_keyset(run, observed, reading), generation=row.generation)
    return Unwritten(
        row=row,
        content=replace(content, generation=row.generation),
        digest=digest,
        facts=facts_of(run, transaction, row.name, known),
        head=transaction.audit_head(),
        stood=frozenset(observed.state.published or ()),
        repaired=repaired,
        first=observed.state.first_publication,
    )


def write(run: Run, unwritten: Unwritten) -> Written:
    """Write the tree durably and read it back."""
    name = unwritten.row.name
    head = unwritten.head if run.head is None or run.head.seq < unwritten.head.seq else run.head
    witness = part_of(run, name, unwritten.facts, head)
    nothing_stood = run.around.publisher.found(name) is None  # in one of two places is not nothing
    standing = run.around.publisher.publish(replace(unwritten.content, witness=witness))
    if unwritten.facts is not None and run.reconciled:
        run.attested[name] = unwritten.facts
    if standing.sha256 != unwritten.digest:
        raise PublishError(f"keyset {name}: what was read back from the published file is not what was written")
    # The one second look at the clocks in a tick: a slow disk must not make a key look older in public than it is.
    return Written(unwritten, run.around.clock.read(), nothing_stood)


def confirm(
    run: Run, transaction: Transaction, seen: Observed | None, written: Written, reading: Reading
) -> tuple[Observed | None, Event]:
    """Record that a set stands; return what is so now, and the event that tells of it."""
    unwritten = written.unwritten
    if run.sealer is None or seen is None:
        pass  # nothing new came into the set, and what was seen is authenticated: the next look says it
    elif "clock" in run.faults:
        begin_anew(run, transaction, seen, unwritten.stood)
    else:
        # Where there was one before, as on a disk that was replaced, verifiers may still hold it.
        first = written.nothing_stood and not transaction.has_published(run.around.replica, unwritten.row.name)
        seen = record_sightings(run, transaction, seen, reading, seen=written.at, wrote_first_file=first)
    row = unwritten.row
    transaction.put_publication(run.around.replica, row.name, row.generation, unwritten.digest, written.at.now)
    details: dict[str, Detail] = {
        "generation": row.generation,
        "keys": len(unwritten.content.jwks),
        "sha256": unwritten.digest,
        "replica": run.around.replica,
    }
    reason = "repaired" if unwritten.repaired else "changed"
    return seen, Event(name=EventName.KEYSET_PUBLISHED, at=reading.now, keyset=row.name, reason=reason, details=details)


def report(run: Run, written: Written) -> None:
    """Tell the log, once it is recorded, that a set was put right."""
    unwritten, content = written.unwritten, written.unwritten.content
    name = unwritten.row.name
    pointers = (content.policy.issuer, content.jwks_uri)
    moved = run.pointers.get(name, pointers) != pointers
    run.pointers[name] = pointers
    if unwritten.repaired and not moved and not unwritten.first:
        run.around.log.event("publish.repaired", keyset=name, generation=unwritten.row.generation)


def _digest(content: Publication) -> str:
    try:
        return hashlib.sha256(render(content.jwks)).hexdigest()
    except JwksError as error:
        raise PublishError(
            f"the set of keyset {content.policy.name} is not published, the last good one stays: {error}"
        ) from error


def _keep_foreign_aside(run: Run, transaction: Transaction, observed: Observed, reading: Reading) -> None:
    """Keep a file that holds keys which nobody here knows, before it is replaced.

    A key that an older database lacks, and the witness names, is no stranger.
    """
    published = run.around.publisher.found(observed.row.name)
    if published is None:
        return
    strangers = [
        kid
        for kid, text in parse_set(published.content) or ()
        if run.once_ours.get(kid) != text and kid not in run.revoked_kids
    ]
    foreign = [kid for kid in strangers if transaction.key(kid) is None]
    if foreign:
        path = run.around.publisher.keep_aside(observed.row.name, published.content, reading.now)
        run.around.log.event("publish.foreign_key", keyset=observed.row.name, kids=foreign, kept_at=path)
