"""``python -m tests.model``: walk every history of a small world around the real planner, and say how far that came.

Ends with status 1 when a promise does not hold in some state; the shortest history that leads there is printed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.model.tell import explanation
from tests.model.walk import Walk


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--depth", type=int, default=100, help="how many moves may follow one another")
    parser.add_argument("--states", type=int, default=10**9, help="stop when so many were found")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--file", type=Path, help="where the states are kept: goes on with what is there")
    parser.add_argument("--breaches", type=int, default=1, help="stop when so many were found")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        walk = Walk(options.file or Path(directory) / "states")
        walk.go_on(
            depth=options.depth,
            seconds=options.seconds,
            states=options.states,
            workers=options.workers,
            tell=lambda line: print(line, flush=True),
            stop_at=options.breaches,
        )
        result = walk.result()
        for depth, count in result.by_depth.items():
            print(f"  found after {depth} moves: {count:,}")
        print(
            f"{result.states:,} states, {result.counts['moves']:,} moves; every history of {result.complete_to} moves "
            f"was made, {result.waiting:,} states wait; {result.counts['beyond']:,} times a set had too many keys"
        )
        for breach in result.breaches[: options.breaches]:
            print(explanation(*walk.history(breach), breach.what))
        walk.close()
    return 1 if result.breaches else 0


if __name__ == "__main__":
    sys.exit(main())
