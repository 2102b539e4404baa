"""The proof of the audit chain: every event hashed anew, and the chain held against a head kept elsewhere.

A chain by itself shows edits, deletions and reordering before its head, but neither a tail that was cut off nor a chain
that was written anew as a whole. A head that was noted elsewhere, as in the log, shows those too.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rotator.core.audit import Mark, verify_chain
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
    wanted = None if noted_head is None else noted_head.strip().lower()
    seen = _Seen(wanted, found=wanted in (None, head.anchor_hash))
    broken = verify_chain(
        seen.watch(snapshot.audit(head.anchor_seq)), Mark(head.anchor_seq, head.anchor_hash), Mark(head.seq, head.hash)
    )
    problem = ""
    if broken is not None:
        problem = f"event {broken.seq}: {broken.problem}"
    elif not seen.found:
        problem = "the head that you noted is nowhere in the chain: its end was cut off, or all of it written anew"
        if head.anchor_seq:
            problem += f"; or it was noted before event {head.anchor_seq}, and what was before is past its retention"
    return ChainProof(
        intact=not problem,
        problem=problem,
        events=seen.count,
        anchor_seq=head.anchor_seq,
        head_seq=head.seq,
        head_hash=head.hash,
        compared_with=wanted,
    )


@dataclass(slots=True)
class _Seen:
    """Counts what passes, and looks out for one hash."""

    wanted: str | None
    found: bool
    count: int = 0

    def watch(self, rows: Iterable[AuditRow]) -> Iterator[AuditRow]:
        """Let ``rows`` pass."""
        for row in rows:
            self.count += 1
            self.found = self.found or row.hash == self.wanted
            yield row
