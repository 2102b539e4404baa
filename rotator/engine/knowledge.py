"""What is known beside the database, and whether the database lacks any of it.

Two witnesses: the file in the state directory, and the metas in the published tree. They are made one: of each keyset
the newest counts, and what any of them names as revoked is that. Whatever the database lacks of it was lost,
and is brought back by :mod:`rotator.engine.recover`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from rotator.core.audit import Mark, is_behind
from rotator.core.events import EventName
from rotator.core.model import KeysetName
from rotator.ports import PublishedWitness, Snapshot, WitnessRecord

BY_WITNESS: Final = "witness"
BY_META: Final = "jwks.meta.json"


@dataclass(frozen=True, slots=True)
class Known:
    """What the witnesses of an installation say, held against its database."""

    record: WitnessRecord | None
    """All of them as one; None: there is none."""
    behind: bool = False
    """The database lacks something that they know: an older one, or another copy, was put in its place."""
    keysets: frozenset[KeysetName] = frozenset()
    """Of these it does."""
    by: str = BY_WITNESS
    """Who knows it."""


def hold_against(
    snapshot: Snapshot,
    record: WitnessRecord | None,
    metas: Sequence[PublishedWitness],
    configured: Collection[KeysetName],
) -> Known:
    """Make one of the witness and of the metas of its installation, and find what the database lacks of it.

    ``configured``: the keysets that the config names.
    """
    behind_witness = record is not None and _lacks(
        snapshot,
        Mark(record.audit_seq, record.audit_hash),
        {name: keyset.generation for name, keyset in record.keysets.items()},
    )
    newer = {meta.keyset for meta in metas if is_newer(snapshot, meta, configured)}
    ahead = [meta for meta in metas if meta.keyset in newer]
    merged = merge(record, metas, preferred=frozenset() if behind_witness else frozenset(newer))
    if merged is None or not (behind_witness or newer):
        return Known(merged)
    names = frozenset(newer)
    if behind_witness:
        names |= {row.name for row in snapshot.keysets()} | merged.keysets.keys()
    else:  # the database knows all that the witness does: what it lacks ends with the newest meta
        last = max(ahead, key=lambda meta: meta.audit_seq)
        merged = replace(merged, audit_seq=last.audit_seq, audit_hash=last.audit_hash)
    return Known(merged, behind=True, keysets=names, by=BY_WITNESS if behind_witness else BY_META)


def is_newer(snapshot: Snapshot, meta: PublishedWitness, configured: Collection[KeysetName]) -> bool:
    """Tell whether a meta knows what the database lacks: a later set, or a history that is not in it.

    Of a keyset that neither the database nor the config knows no row can be made: it lacks that however often the meta
    is followed, so that only the history counts.
    """
    row, mark = snapshot.keyset(meta.keyset), Mark(meta.audit_seq, meta.audit_hash)
    if row is None:
        return meta.keyset in configured or _lacks(snapshot, mark, {})
    return meta.known.generation > row.generation or _lacks(snapshot, mark, {meta.keyset: meta.known.generation})


def _lacks(snapshot: Snapshot, known: Mark, generations: Mapping[KeysetName, int]) -> bool:
    """Tell whether the database lacks an event that a witness knows, and never followed one that knew as much."""
    head = snapshot.audit_head()
    lacking = is_behind(
        Mark(head.seq, head.hash), Mark(head.anchor_seq, head.anchor_hash), known, snapshot.audit_hash(known.seq)
    )
    return lacking and not _was_followed(snapshot, known, generations)


def _was_followed(snapshot: Snapshot, known: Mark, generations: Mapping[KeysetName, int]) -> bool:
    """Tell whether the database went on from this very witness, or from one that knew as much of the same history.

    That run was stopped before it wrote a witness of its own, or the witness is that of another replica, which looked
    at the old database later: to follow it now would undo what has happened since.
    """
    rows = {row.name: row.generation for row in snapshot.keysets()}
    reached = all(rows.get(name, -1) >= generation for name, generation in generations.items())
    passed = all(rows.get(name, -1) > generation for name, generation in generations.items())
    followed = [row.event.details for row in snapshot.audit() if row.event.name is EventName.STATE_RESTORED]
    if followed and passed and len(snapshot.replicas()) > 1:
        return True
    return any(
        details.get("witness_hash") == known.hash or (reached and int(details.get("witness_seq") or 0) >= known.seq)
        for details in followed
    )


# -------------------------------------------------------------------------------------------------------- one of many


def merge(
    record: WitnessRecord | None,
    metas: Iterable[PublishedWitness],
    *,
    preferred: frozenset[KeysetName] = frozenset(),
) -> WitnessRecord | None:
    """Make one record of all; ``preferred``: keysets of which the meta knows what not even the database does."""
    for meta in metas:
        if record is None:
            record = WitnessRecord(meta.installation, meta.audit_seq, meta.audit_hash)
        before = record.keysets.get(meta.keyset)
        newer = before is None or (meta.known.generation, meta.audit_seq) > (before.generation, record.audit_seq)
        keysets = {**record.keysets, meta.keyset: meta.known} if newer or meta.keyset in preferred else record.keysets
        record = replace(record, keysets=keysets, revoked_kids=record.revoked_kids | meta.revoked_kids)
    latest = max(metas, key=lambda meta: meta.audit_seq, default=None)
    if record is not None and latest is not None and latest.audit_seq > record.audit_seq:
        record = replace(record, audit_seq=latest.audit_seq, audit_hash=latest.audit_hash)
    return record
