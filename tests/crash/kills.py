"""Kills the real daemon, again and again: at random moments, at random steps and at named ones."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rotator.core.jwks import parse_set
from tests.crash.nursery import STEPS
from tests.e2e.test_rotations import check_history
from tests.e2e.world import Site, Verifier, environment, wait_for
from tests.patience import HANG_SECONDS

LONGEST_LIFE_SECONDS = 3.0
"""A step that is not reached by then is not waited for: the daemon is killed where it stands."""

CACHE_SECONDS = 2.0
FIRST_START_ONE_IN = 20
"""How often a first start is killed instead, in a directory of its own."""

STEPS_OF_A_FIRST_START = 120
NAMED = {kind: 6 for kind in STEPS if kind not in ("mkdir", "link")} | {"commit": 30, "checkpoint": 1}
"""What a daemon that has started before is killed at, and the highest number of that step in its life."""


@dataclass
class Nursery:
    """Where lives begin; see ``tests.crash.nursery``."""

    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
            cwd=Path(__file__).parents[2],
        )

    def begin(self, site: Site, log: Path, kind: str = "any", number: int = 0) -> "Life":
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{kind} {number} {site.config} {log}\n")
        self.process.stdin.flush()
        return Life(int(self.process.stdout.readline()), self.process.stdout)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(HANG_SECONDS)
        self.process.stdout.close()


class Life:
    """One daemon."""

    def __init__(self, pid: int, told: IO[str]) -> None:
        self.pid = pid
        self.status: int | None = None
        self._thread = threading.Thread(target=self._listen, args=(told,))
        self._thread.start()

    def _listen(self, told: IO[str]) -> None:
        self.status = int(told.readline())

    def wait(self, seconds: float) -> bool:
        """Tell whether it ended within that time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def end(self, number: signal.Signals) -> int:
        """Send a signal, unless it is gone already, and return what it came to."""
        with suppress(ProcessLookupError):  # it may end, and be reaped, before its status is heard of
            os.kill(self.pid, number)
        assert self.wait(HANG_SECONDS)
        assert self.status is not None
        return self.status


@dataclass
class Tally:
    """What happened."""

    kills: Counter[str] = field(default_factory=Counter)
    """By what they came at; ``too late`` for a step that was not reached."""
    checked: int = 0
    rotations: int = 0
    tokens: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        at = ", ".join(f"{number} at {what}" for what, number in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} kills ({at}); {self.rotations} keys and {self.tokens} tokens rotated, "
            f"{self.checked} tokens checked, {len(self.problems)} promises broken"
        )


def kill_often(root: Path, numbers: Iterable[int], seed: int) -> Tally:
    """Kill a daemon once for each of ``numbers``, then let it live, and hold its history against the promises."""
    site = Site(root)
    # The token's grace is room for many short lives in a row.
    site.write_config(keyset_period="6s", token_period="4s", token_grace="60s", max_cache="2s", propagation="2s")
    chance = random.Random(seed)
    verifier = Verifier(site, max_age_seconds=CACHE_SECONDS)
    tally = Tally()
    nursery = Nursery()
    try:
        _calm(site, nursery, root / "first.log", lambda: len(site.token_files()) == 5)
        with verifier.watching():
            for number in numbers:
                log = root / f"{number % 20}.log"
                log.unlink(missing_ok=True)
                if number % FIRST_START_ONE_IN == FIRST_START_ONE_IN - 1:
                    _first_start(root / f"first-{number}", nursery, chance, tally)
                    continue
                at = _one_life(site, nursery, chance, log)
                tally.kills[at] += 1
                tally.problems += [f"kill {number}, at {at}: {problem}" for problem in _standing(site, root / "copy")]
            before = _count(site, "key.demoted")
            _calm(site, nursery, root / "last.log", lambda: _count(site, "key.demoted") > before)
    finally:
        nursery.close()
    tally.checked, tally.rotations, tally.tokens = (
        verifier.checked,
        _count(site, "key.demoted"),
        _count(site, "token.issued"),
    )
    tally.problems += [f"refused: {each}" for each in verifier.refused]
    tally.problems += _history(site)
    return tally


def _one_life(site: Site, nursery: Nursery, chance: random.Random, log: Path) -> str:
    """Let the daemon live until it is killed; return what that came at."""
    kind = chance.choice(("moment", "any", *NAMED))
    if kind == "moment":
        life = nursery.begin(site, log)
        life.wait(chance.uniform(0.02, 1.5))
        at = "a random moment"
    else:
        number = chance.randint(1, NAMED.get(kind, 100))
        life = nursery.begin(site, log, kind, number)
        at = "any step" if kind == "any" else kind
        if not life.wait(LONGEST_LIFE_SECONDS):
            at = "a step that was not reached"
    status = life.end(signal.SIGKILL)
    assert status == -signal.SIGKILL, f"it ended by itself, with {status}:\n{log.read_text()[-3000:]}"
    return at


def _first_start(root: Path, nursery: Nursery, chance: random.Random, tally: Tally) -> None:
    """Kill a first start at a random step, and let the next one finish what it began."""
    root.mkdir()
    site = Site(root)
    site.write_config(keyset_period="1h", token_period="30m", token_grace="10m")
    life = nursery.begin(site, root / "killed.log", "any", number := chance.randint(1, STEPS_OF_A_FIRST_START))
    at = "a step of a first start" if life.wait(LONGEST_LIFE_SECONDS) else "the end of a first start"
    assert life.end(signal.SIGKILL) == -signal.SIGKILL, (root / "killed.log").read_text()
    tally.kills[at] += 1
    _calm(site, nursery, root / "next.log", lambda: len(site.token_files()) == 5)
    tally.problems += [f"first start, killed at step {number}: {each}" for each in _history(site)]
    shutil.rmtree(root)


def _history(site: Site) -> list[str]:
    """Return what is wrong with a site whose daemon has stopped."""
    left = [path.name for path in site.root.rglob(".*") if path.name.endswith((".tmp", ".new"))]
    problems = [f"left behind: {name}" for name in left]
    try:
        check_history(site)
    except AssertionError as error:
        problems.append(f"the history: {error}")
    return problems


def _calm(site: Site, nursery: Nursery, log: Path, enough: Callable[[], bool]) -> None:
    """Let it live until ``enough``, and stop it as systemd does."""
    life = nursery.begin(site, log)
    try:
        wait_for(enough, None, "the daemon does its work")
    finally:
        status = life.end(signal.SIGTERM)
    assert status == 0, log.read_text()[-3000:]


def _count(site: Site, event: str) -> int:
    with closing(sqlite3.connect(site.database, timeout=HANG_SECONDS)) as connection:
        return int(connection.execute("SELECT count(*) FROM audit WHERE name = ?", (event,)).fetchone()[0])


def _standing(site: Site, copy: Path) -> list[str]:
    """Look at what a killed daemon leaves, on a copy: to open the database mends what the next start is to mend."""
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for path in site.state.glob("rotator.db*"):
        if not path.name.endswith("-shm"):
            shutil.copy(path, copy)
    with closing(sqlite3.connect(copy / "rotator.db")) as connection:
        (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
        active = {kid for (kid,) in connection.execute("SELECT kid FROM signing_keys WHERE phase = 'active'")}
    problems = [] if sound == "ok" else [f"the database: {sound}"]
    for path in (site.jwks, site.state / "public" / "keysets" / "default" / "jwks.json"):
        entries = parse_set(path.read_bytes())
        if not entries:
            problems.append(f"{path} is no valid set")
        elif not active <= {kid for kid, _ in entries}:
            problems.append(f"{path} lacks the key that signs")
    return problems


def main(kills: int, seed: int, root: Path) -> int:
    """Show progress, and return 1 if a promise was broken."""
    began = time.monotonic()

    def told() -> Iterable[int]:
        for number in range(kills):
            if number % 100 == 0:
                print(f"{number} of {kills} [{time.monotonic() - began:.0f} s]", file=sys.stderr, flush=True)
            yield number

    tally = kill_often(root, told(), seed)
    print(f"{tally} [seed {seed}, {time.monotonic() - began:.0f} s]")
    for problem in tally.problems:
        print(f"  BROKEN {problem}")
    return 1 if tally.problems else 0
