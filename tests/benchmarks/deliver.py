"""Deliveries into files per second, against a bare loop of durable writes of the same files in the same run.

The loop does what no delivery can do without: a temporary file, its content, its mode, fsync, a rename, fsync of the
directory, each sink in a directory of its own, in as many workers. The daemon's side does its whole job: claims,
opens and checks the sealed tokens, hands them over, records each as delivered, and chains its event in the audit.

    python -m tests.benchmarks.deliver [--workspaces 4000] [--rounds 5]
"""

import argparse
import contextlib
import json
import os
import queue
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from rotator.engine.issue import issue_due
from tests.benchmarks.issue import prepare
from tests.benchmarks.states import state_with

WORKERS: Final = 4
CONTENT: Final = b"x" * 700 + b"\n"


def measure_limit(directory: Path, count: int) -> float:
    """Return how many files a second are written durably, each in a directory of its own."""
    directory.mkdir()
    for number in range(count):
        (directory / f"w{number:06}").mkdir()

    def write(number: int) -> None:
        parent = os.open(directory / f"w{number:06}", os.O_RDONLY | os.O_DIRECTORY)
        fd = os.open(".token.tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent)
        os.write(fd, CONTENT)
        os.fchmod(fd, 0o640)
        os.fsync(fd)
        os.close(fd)
        os.rename(".token.tmp", "token", src_dir_fd=parent, dst_dir_fd=parent)
        os.fsync(parent)
        os.close(parent)

    begin = time.perf_counter()
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(write, range(count)))
    return count / (time.perf_counter() - begin)


def measure_daemon(directory: Path, count: int) -> float:
    """Return how many deliveries a second are made, from all being due to all being recorded.

    Their directories are there, as they are at every delivery but the first.
    """
    woken = queue.SimpleQueue[None]()
    with state_with(directory, count) as state:
        for policy in state.run.policy.workspaces.values():
            for sink in policy.sinks:
                Path(getattr(sink, "path")).parent.mkdir(parents=True, exist_ok=True)  # noqa: B009 - files are all there are
        engine = state.engine(lambda: woken.put(None))
        prepare(engine)
        while issue_due(state.run, state.run.around.clock.read()):
            pass
        begin = time.perf_counter()
        outcome = engine.tick()
        while outcome.more or not engine.deliveries.idle:
            if not outcome.more:
                wait = (outcome.next_due - state.run.around.clock.read().now).total_seconds()
                with contextlib.suppress(queue.Empty):
                    woken.get(timeout=max(wait, 0.0))
            outcome = engine.tick()
        pace = count / (time.perf_counter() - begin)
        with state.store.read() as snapshot:
            assert all(row.due_at is None for row in snapshot.deliveries())
        engine.close()
    return pace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspaces", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="on the file system to measure")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    limits, daemons = [], []
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            limits.append(measure_limit(Path(directory) / "limit", options.workspaces))
            daemons.append(measure_daemon(Path(directory) / "daemon", options.workspaces))
        show(f"round {number + 1}", limits[-1], daemons[-1])
    limit, daemon = statistics.median(limits), statistics.median(daemons)
    show("median", limit, daemon)
    if options.json:
        print(json.dumps({"limit": limit, "daemon": daemon, "ratio": daemon / limit}))


def show(name: str, limit: float, daemon: float) -> None:
    print(f"{name}:  bare loop {limit:6.0f}/s   daemon {daemon:6.0f}/s   ratio {daemon / limit:.2f}", flush=True)


if __name__ == "__main__":
    main()
