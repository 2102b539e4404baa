"""The proof of the audit chain: every event hashed anew, and the chain held against a head kept elsewhere.

A chain by itself shows edits, deletions and reordering before its head, but neither a tail that was cut off nor a chain
that was written anew as a whole. A head that was noted elsewhere, as in the log, shows those too.
"""

from dataclasses import dataclass, replace
from datetime import timedelta

from rotator.core.events import chain_hash, encode_details
from rotator.core.timeguard import EPOCH
from rotator.ports import AuditRow, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainProof:
    """What became of the proof."""

    intact: bool
    problem: str
    """The first thing that does not fit; empty when all does."""
    events: int
    """Checked."""
    anchor_seq: int
    """The last event that was pruned; 0: none was."""
    head_seq: int
    head_hash: str
    """To be noted where this machine cannot change it, for a later proof."""
    compared_with: str | None
    """The head that was given."""


def prove(snapshot: Snapshot, noted_head: str | None = None) -> ChainProof:
    """Hash every event anew; with ``noted_head``, also look for it in the chain."""
    head = snapshot.audit_head()
    previous, checked, noted_head = head.anchor_hash, 0, None if noted_head is None else noted_head.strip().lower()
    found = noted_head in (None, previous)
    proof = ChainProof(
        intact=False,
        problem="",
        events=0,
        anchor_seq=head.anchor_seq,
        head_seq=head.seq,
        head_hash=head.hash,
        compared_with=noted_head,
    )
    seq = head.anchor_seq
    for row in snapshot.audit(head.anchor_seq):
        if _link(previous, row) != row.hash:
            problem = f"event {row.seq} does not follow from the one before it: it was changed, or one was taken out"
            return replace(proof, problem=problem, events=checked)
        previous, seq, checked = row.hash, row.seq, checked + 1
        found = found or row.hash == noted_head
    if (seq, previous) != (head.seq, head.hash):
        problem = f"the chain ends at event {seq}, and its head says {head.seq}: the end was cut off"
        return replace(proof, problem=problem, events=checked)
    if not found:
        problem = "the head that you noted is nowhere in the chain: its end was cut off, or all of it written anew"
        return replace(proof, problem=problem, events=checked)
    return replace(proof, intact=True, events=checked)


def _link(previous: str, row: AuditRow) -> str:
    microseconds = (row.event.at - EPOCH) // timedelta(microseconds=1)
    return chain_hash(previous, row.seq, row.event, microseconds, encode_details(row.event.details))
