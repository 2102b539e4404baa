"""The proof of the audit chain: every event hashed anew, and the chain held against a head kept elsewhere.

A chain by itself shows edits, deletions and reordering before its head, but neither a tail that was cut off nor a chain
that was written anew as a whole. A head that was noted elsewhere, as in the log, shows those too.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from rotator.core.audit import Broken, Mark, verify_chain
from rotator.ports import AuditHead, AuditRow, Snapshot, WitnessRecord
from rotator.report.restores import Restore, restores


class Proven(StrEnum):
    """What the proof came to."""

    INTACT = "intact"
    RESTORED = "restored"
    """The chain holds, and the noted head is of a history that is known to have been ended by a restored backup."""
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainProof:
    """What became of the proof."""

    intact: bool
    problem: str
    """The first thing that does not fit; empty when all does."""
    verdict: Proven
    restored_seq: int | None
    """The event that tells of the restore in which the noted head was lost; None: there is none, or not yet."""
    events: int
    """Checked."""
    anchor_seq: int
    """The last event that was pruned; 0: none was."""
    head_seq: int
    head_hash: str
    """To be noted where this machine cannot change it, for a later proof."""
    compared_with: str | None
    """The head that was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a proof goes on, as whoever asks for the next page says it."""

    seq: int = 0
    """The last event that was checked; 0: none was."""
    hash: str = ""
    found: bool = False
    """The noted head was met."""
    events: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofPage:
    """How far a proof came: a part of the chain holds, or it is over."""

    proof: ChainProof | None
    """What it came to, once it is over; its count is that of all pages."""
    go_on_from: Progress


def prove(snapshot: Snapshot, noted_head: str | None = None, ahead: WitnessRecord | None = None) -> ChainProof:
    """Hash every event anew; with ``noted_head``, also look for it in the chain.

    ``ahead``: a witness that knows what the database lacks, and that no start has followed yet.
    """
    proof = prove_page(snapshot, noted_head, ahead).proof
    assert proof is not None  # noqa: S101 - without a limit there is one page
    return proof


def prove_page(
    snapshot: Snapshot,
    noted_head: str | None = None,
    ahead: WitnessRecord | None = None,
    begun: Progress | None = None,
    limit: int | None = None,
) -> ProofPage:
    """Hash the next ``limit`` events anew, after those of ``begun``, which is believed.

    Whoever splits a proof asks for their own sake. What is committed meanwhile is proven with the last page.
    """
    head = snapshot.audit_head()
    begun = Progress() if begun is None else begun
    wanted = None if noted_head is None else noted_head.strip().lower()
    begin = Mark(begun.seq, begun.hash)
    if begun.seq <= head.anchor_seq:
        begin = Mark(head.anchor_seq, head.anchor_hash)
    seen = _Seen(wanted, begun.found or wanted in (None, head.anchor_hash), begun.events, begin)
    whole = limit is None or head.seq - begin.seq <= limit
    end = Mark(head.seq, head.hash) if whole else None
    broken = verify_chain(seen.watch(snapshot.audit(begin.seq, limit)), begin, end)
    if broken is None and not whole and seen.last == begin:
        broken = verify_chain((), begin, Mark(head.seq, head.hash))  # nothing is there of what should be
    if broken is None and not whole:
        progress = Progress(seq=seen.last.seq, hash=seen.last.hash, found=seen.found, events=seen.count)
        return ProofPage(proof=None, go_on_from=progress)
    return ProofPage(proof=_proof(snapshot, head, wanted, ahead, broken, seen), go_on_from=begun)


def _proof(
    snapshot: Snapshot,
    head: AuditHead,
    wanted: str | None,
    ahead: WitnessRecord | None,
    broken: Broken | None,
    seen: "_Seen",
) -> ChainProof:
    verdict, problem, restored_seq = Proven.INTACT, "", None
    if broken is not None:
        verdict, problem = Proven.BROKEN, f"event {broken.seq}: {broken.problem}"
    elif not seen.found:
        known = restores(snapshot)
        lost = next((each for each in reversed(known) if each.lost_hash == wanted), None)
        if lost is not None:
            verdict, problem, restored_seq = Proven.RESTORED, _lost(lost), lost.seq
        elif ahead is not None and ahead.audit_hash == wanted:
            verdict, problem = Proven.RESTORED, _not_followed(head.seq, ahead)
        else:
            verdict, problem = Proven.BROKEN, _nowhere(head.anchor_seq, known)
    return ChainProof(
        intact=verdict is Proven.INTACT,
        problem=problem,
        verdict=verdict,
        restored_seq=restored_seq,
        events=seen.count,
        anchor_seq=head.anchor_seq,
        head_seq=head.seq,
        head_hash=head.hash,
        compared_with=wanted,
    )


def _lost(found: Restore) -> str:
    return (
        f"the head that you noted is event {found.lost_seq} of the history before a restore: {found.told}. "
        f"{_what_was_lost(found)}; the chain that goes on from there holds. If nobody knows of that restore, take it "
        "for cut off"
    )


def _what_was_lost(found: Restore) -> str:
    if found.lost_seq is None or found.lost_seq <= found.last_seq:
        return f"What came after event {found.last_seq} in another history of this database was lost"
    if found.lost_seq == found.last_seq + 1:
        return f"Event {found.lost_seq} was lost"
    return f"The events {found.last_seq + 1} to {found.lost_seq} were lost"


def _not_followed(head_seq: int, ahead: WitnessRecord) -> str:
    return (
        f"the head that you noted is event {ahead.audit_seq}, as the witness beside the state knows it, too: this is "
        f"an older database, put in place since, which ends at event {head_seq}. The chain in it holds. If nobody "
        "knows of that, take it for cut off"
    )


def _nowhere(anchor_seq: int, known: Iterable[Restore]) -> str:
    problem = "the head that you noted is nowhere in the chain: its end was cut off, or all of it written anew"
    if anchor_seq:
        problem += f"; or it was noted before event {anchor_seq}, and what was before is past its retention"
    for each in known:
        if each.lost_seq is not None and each.lost_seq > each.last_seq:
            problem += (
                f"; or it is of the events {each.last_seq + 1} to {each.lost_seq} that were lost in the restore at "
                f"event {each.seq}, of which only the last one's hash is known"
            )
    return problem


@dataclass(slots=True)
class _Seen:
    """Counts what passes, and looks out for one hash."""

    wanted: str | None
    found: bool
    count: int
    last: Mark

    def watch(self, rows: Iterable[AuditRow]) -> Iterator[AuditRow]:
        """Let ``rows`` pass."""
        for row in rows:
            self.count += 1
            self.found = self.found or row.hash == self.wanted
            self.last = Mark(row.seq, row.hash)
            yield row
