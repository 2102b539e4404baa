"""Verifies the audit chain. Pure; imports the core only.

Each event's hash covers the hash before it, so that an event that was edited, deleted, put in or moved breaks the chain
at the first place that is not as it was written. What a chain alone cannot show is that its end was cut off, or that
all of it was written anew: for that, a head that was kept elsewhere is passed as ``head``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from rotator.core.events import Event, EventName, chain_hash, encode_details
from rotator.core.instants import to_us


class Link(Protocol):
    """An event in the chain as it is stored."""

    @property
    def seq(self) -> int:
        """Its place, counted from 1."""
        ...

    @property
    def event(self) -> Event:
        """What happened."""
        ...

    @property
    def hash(self) -> str:
        """Its hash as stored, in hex."""
        ...


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the chain that is known: where it begins after pruning, or a head that was kept elsewhere."""

    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The first link that does not hold."""

    seq: int
    problem: str


def verify_chain(links: Iterable[Link], anchor: Mark, head: Mark | None = None) -> Broken | None:
    """Return the first broken link of a chain that begins after ``anchor``; None when all of it holds.

    ``head``: what the chain must have at that place. A gap in the numbers is right only where a restored backup was
    found, and the event says so.
    """
    before = anchor
    met = head == anchor
    for link in links:
        problem = _problem(before, link)
        if problem:
            return Broken(link.seq, problem)
        before = Mark(link.seq, link.hash)
        if head is not None and head.seq == link.seq:
            if head.hash != link.hash:
                return Broken(link.seq, f"its hash is {link.hash}, and the head that was kept is {head.hash}")
            met = True
    if not met and head is not None:
        return Broken(head.seq, f"it is not there: the chain runs from {anchor.seq} to {before.seq}")
    return None


def is_behind(head: Mark, anchor: Mark, known: Mark, hash_there: str | None) -> bool:
    """Tell whether a chain from ``anchor`` to ``head`` lacks what was ``known`` of it: it is an older one, or another.

    ``hash_there``: what the chain has at the place of ``known``; None for nothing. What lies before the anchor was
    pruned, and says nothing.
    """
    if known.seq > head.seq:
        return True
    if known.seq < anchor.seq or known.seq == 0:
        return False
    return hash_there != known.hash


def _problem(before: Mark, link: Link) -> str:
    if link.seq <= before.seq:
        return f"it comes after event {before.seq}"
    if link.seq != before.seq + 1 and link.event.name is not EventName.STATE_RESTORED:
        return f"event {before.seq + 1} is missing before it"
    if link.hash != expected_hash(before.hash, link):
        return f"it, or what came before it, is not what was written after event {before.seq}"
    return ""


def expected_hash(previous: str, link: Link) -> str:
    """Return the hash that ``link`` has if it was chained to ``previous`` as it stands."""
    event = link.event
    return chain_hash(previous, link.seq, event, to_us(event.at), encode_details(event.details))
