"""What a first start costs per keyset: processor, statements, transactions and observations, until all have a signer.

python -m tests.benchmarks.keysets [--keysets 1000] [--profile]
"""

import argparse
import cProfile
import json
import pstats
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from rotator.config import load
from rotator.wiring import open_state, settle
from tests.benchmarks.states import Silence

OBSERVING = "signing_keys.keyset = ? AND NOT"
"""Asks for the keys of one keyset that are not gone: each observation does so once."""


def write_config(directory: Path, keysets: int) -> Path:
    path = directory / "config.yaml"
    names = "".join(f"  set{number:04}: {{}}\n" for number in range(keysets - 1))
    path.write_text(f"issuer: https://tokens.example.com\nkeysets:\n  default: {{}}\n{names}workspaces: {{}}\n")
    return path


@contextmanager
def counted_statements() -> Iterator[Counter[str]]:
    """Count what reaches any database, by kind."""
    counted: Counter[str] = Counter()

    def executed(*arguments: Any) -> None:
        counted["statements"] += 1
        counted["observations"] += OBSERVING in arguments[2]

    def committed(_connection: sa.Connection) -> None:
        counted["commits"] += 1

    listeners = {"before_cursor_execute": executed, "commit": committed}
    for name, listener in listeners.items():
        sa.event.listen(sa.Engine, name, listener)
    try:
        yield counted
    finally:
        for name, listener in listeners.items():
            sa.event.remove(sa.Engine, name, listener)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keysets", type=int, default=1000)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, counted_statements() as counted:
        config = load(write_config(Path(directory), options.keysets), {}, now=datetime.now(UTC))
        with open_state(config, Silence()) as state:
            settle(state.run)  # as the daemon does
            engine = state.engine()
            counted.clear()
            profile = cProfile.Profile()
            begin, worked = time.perf_counter(), time.process_time()
            if options.profile:
                profile.enable()
            while engine.tick().more or not engine.ready:
                pass
            profile.disable()
            took, worked = time.perf_counter() - begin, time.process_time() - worked
            assert len(state.run.signing) == options.keysets
            engine.close()
    figures = {
        "seconds": took,
        "processor_ms": worked * 1000 / options.keysets,
        **{kind: number / options.keysets for kind, number in sorted(counted.items())},
    }
    print(f"first start with {options.keysets} keysets: all sign after {took:.2f} s; of that, for each of them")
    print(f"{'processor, in ms':20} {figures['processor_ms']:8.2f}")
    for kind in sorted(counted):
        print(f"{kind:20} {figures[kind]:8.1f}")
    if options.json:
        print(json.dumps(figures))
    if options.profile:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(60)


if __name__ == "__main__":
    main()
