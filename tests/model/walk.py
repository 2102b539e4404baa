"""Walks all states of the small world, breadth first, and keeps them in a file: it goes on where it was stopped.

The first states are those of a life in which nothing goes wrong: the empty one, and what follows from it step by step
until it comes round. So a depth of *n* means: whatever *n* moves follow one another, at any time of such a life.
"""

import hashlib
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from tests.model.moves import calm, is_beyond, moves
from tests.model.states import EMPTY, BrokenError, State, canonical, decode, encode
from tests.model.world import check, is_good

AT_ONCE: Final = 500
"""States that a process goes on from before it hands in what it found."""

TO_REST: Final = 20
"""Steps in which nothing goes wrong, after which all must be good: more than any period that a key waits for."""

IN_MEMORY: Final = 100_000
"""States that wait in memory, and not in the file."""

REMEMBERED: Final = 2_000_000
"""States that a process remembers as leading to a good one."""


class Breach(NamedTuple):
    """A promise that does not hold."""

    digest: int
    """Of the state before the move."""
    move: int
    effect: int
    what: str


class Found(NamedTuple):
    """A state that a move leads to."""

    digest: int
    parent: int
    move: int
    effect: int
    stored: bytes


@dataclass(slots=True)
class Expanded:
    """What follows from some states."""

    digests: Sequence[int]
    found: list[Found] = field(default_factory=list)
    breaches: list[Breach] = field(default_factory=list)
    beyond: int = 0
    followed: int = 0
    """Moves that were made."""


def digest_of(stored: bytes) -> int:
    """Return a number that stands for a state: of 64 bits, so that of ten million hardly two share one."""
    return int.from_bytes(hashlib.blake2b(stored, digest_size=8).digest(), "big", signed=True)


def undisturbed() -> Iterator[State]:
    """Yield the states of a life in which nothing goes wrong, until it comes round."""
    seen, state = set(), EMPTY
    while state not in seen:
        seen.add(state)
        yield state
        try:
            state = canonical(calm(state))
        except Exception:  # noqa: BLE001 - found again, and told, when it is gone on from
            return


_leads_to_good: set[int] = set()


def expand(states: Sequence[tuple[int, bytes]]) -> Expanded:
    """Make every move from each of ``states``, and look whether each comes to rest when nothing goes wrong."""
    result, known = Expanded([digest for digest, _ in states]), set()
    for digest, stored in states:
        state = decode(stored)
        trap = trapped(state)
        if trap:
            result.breaches.append(Breach(digest, -1, 0, trap))
        for number, (_, follow) in enumerate(moves(state)):
            effect = 0
            try:
                for effect, after in enumerate(follow()):
                    result.followed += 1
                    check(after)
                    if is_beyond(after):
                        result.beyond += 1
                        continue
                    kept = encode(canonical(after))
                    key = digest_of(kept)
                    if key not in known:
                        known.add(key)
                        result.found.append(Found(key, digest, number, effect, kept))
            except Exception as error:  # noqa: BLE001 - a planner that raises is a breach like any other
                result.breaches.append(Breach(digest, number, effect, _what(error)))
    return result


def _what(error: Exception) -> str:
    return str(error) if isinstance(error, BrokenError) else f"{type(error).__name__}: {error}"


def trapped(state: State) -> str:
    """Return why no good state is reached from this one although nothing goes wrong any more; empty when one is."""
    passed: list[int] = []
    for _ in range(TO_REST):
        digest = digest_of(encode(state))
        if digest in _leads_to_good or is_good(state):
            if len(_leads_to_good) > REMEMBERED:
                _leads_to_good.clear()
            _leads_to_good.update(passed)
            return ""
        passed.append(digest)
        try:
            state = canonical(calm(state))
            check(state)
        except Exception as error:  # noqa: BLE001 - as above
            return f"when nothing goes wrong any more: {_what(error)}"
    return f"no trap: after {TO_REST} steps in which nothing goes wrong not all is as it should be"


# ---------------------------------------------------------------------------------------------------------- the file

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS states (
    digest INTEGER PRIMARY KEY, depth INTEGER NOT NULL, parent INTEGER, move INTEGER, effect INTEGER,
    stored BLOB NOT NULL, expanded INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS waiting ON states (depth) WHERE NOT expanded;
CREATE TABLE IF NOT EXISTS breaches (digest INTEGER, move INTEGER, effect INTEGER, what TEXT);
CREATE TABLE IF NOT EXISTS counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


@dataclass(slots=True)
class Walked:
    """How far it came."""

    states: int
    by_depth: dict[int, int]
    complete_to: int
    """Every history of so many moves was made."""
    waiting: int
    """States that were not gone on from."""
    counts: Counter[str]
    breaches: list[Breach]


class Walk:
    """All states that were found, in a file."""

    def __init__(self, path: Path) -> None:
        self._file = sqlite3.connect(path, isolation_level=None)
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = OFF")  # what the machine loses is walked again
        self._file.executescript(SCHEMA)
        self._file.execute("BEGIN")
        for state in undisturbed():
            stored = encode(state)
            self._add([Found(digest_of(stored), 0, -1, 0, stored)], 0)
        self._file.execute("COMMIT")

    def close(self) -> None:
        """Close the file; it can be opened again."""
        self._file.close()

    def go_on(
        self, *, depth: int, seconds: float, states: int, workers: int, tell: Callable[[str], None], stop_at: int = 1
    ) -> None:
        """Walk on, one depth after the other, until one of the bounds is reached or there are ``stop_at`` breaches."""
        began = time.monotonic()
        give_up_at = began + seconds
        with ProcessPoolExecutor(workers) as pool:
            while (at := self._depth()) is not None and at < depth:
                waiting, under_way = deque(self._waiting(at)), set[Future[Expanded]]()
                while waiting or under_way:
                    while waiting and len(under_way) < 2 * workers:
                        under_way.add(pool.submit(expand, waiting.popleft()))
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in done:
                        self._store(future.result(), at + 1)
                    if (
                        time.monotonic() > give_up_at
                        or self._count("breaches") >= stop_at
                        or self._count("states") >= states
                    ):
                        return
                tell(f"{time.monotonic() - began:6.0f} s: {self._count('states'):,} states, at depth {at}")

    def _depth(self) -> int | None:
        row = self._file.execute("SELECT min(depth) FROM states WHERE NOT expanded").fetchone()
        return row[0]  # type: ignore[no-any-return]

    def _waiting(self, depth: int) -> list[list[tuple[int, bytes]]]:
        """Return the next states to go on from, in parts for a process each; none when the depth is done."""
        rows = self._file.execute(
            "SELECT digest, stored FROM states WHERE depth = ? AND NOT expanded LIMIT ?", (depth, IN_MEMORY)
        ).fetchall()
        size = max(1, min(AT_ONCE, len(rows) // 8))
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def _store(self, done: Expanded, depth: int) -> None:
        self._file.execute("BEGIN")
        self._add(done.found, depth)
        self._file.executemany(
            "UPDATE states SET expanded = 1 WHERE digest = ?", [(digest,) for digest in done.digests]
        )
        self._file.executemany("INSERT INTO breaches VALUES (?, ?, ?, ?)", done.breaches)
        for name, count in (("moves", done.followed), ("beyond", done.beyond)):
            self._file.execute(
                "INSERT INTO counts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                (name, count),
            )
        self._file.execute("COMMIT")

    def _add(self, found: Sequence[Found], depth: int) -> None:
        self._file.executemany(
            "INSERT OR IGNORE INTO states (digest, depth, parent, move, effect, stored) VALUES (?, ?, ?, ?, ?, ?)",
            [(each.digest, depth, each.parent, each.move, each.effect, each.stored) for each in found],
        )

    def _count(self, table: str) -> int:
        return int(self._file.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - ours

    def result(self) -> Walked:
        """Return how far it came."""
        by_depth = dict(self._file.execute("SELECT depth, count(*) FROM states GROUP BY depth ORDER BY depth"))
        first = self._depth()
        waiting = int(self._file.execute("SELECT count(*) FROM states WHERE NOT expanded").fetchone()[0])
        return Walked(
            states=sum(by_depth.values()),
            by_depth=by_depth,
            complete_to=max(by_depth) if first is None else first,
            waiting=waiting,
            counts=Counter(dict(self._file.execute("SELECT name, value FROM counts"))),
            breaches=[Breach(*row) for row in self._file.execute("SELECT digest, move, effect, what FROM breaches")],
        )

    def history(self, breach: Breach) -> tuple[State, list[tuple[int, int]]]:
        """Return the first state of the history that leads to a breach, and its moves; the last one is the breach."""
        steps: list[tuple[int, int]] = [] if breach.move < 0 else [(breach.move, breach.effect)]
        digest = breach.digest
        while True:
            parent, move, effect, stored = self._file.execute(
                "SELECT parent, move, effect, stored FROM states WHERE digest = ?", (digest,)
            ).fetchone()
            if move < 0:
                return decode(stored), steps[::-1]
            steps.append((move, effect))
            digest = parent
