"""``python -m tests.crash``: stop at every point of every scenario, and go on from all that a disk could hold.

``--share N`` goes on from one in N only; ``--twice N`` stops again amid each recovery, at one in N of its points.
``--kills N`` kills the real daemon instead, so often, on real files.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.crash import kills
from tests.crash.points import SCENARIOS, enumerate_points


def main() -> int:
    """Return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of: {', '.join(SCENARIOS)}; default: all")
    parser.add_argument("--share", type=int, default=1, metavar="N")
    parser.add_argument("--twice", type=int, metavar="N")
    parser.add_argument("--kills", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the kills (default 1)")
    arguments = parser.parse_args()
    if arguments.kills is not None:
        with tempfile.TemporaryDirectory(prefix="rotator-kills-") as directory:
            return kills.main(arguments.kills, arguments.seed, Path(directory))
    names = arguments.scenarios or list(SCENARIOS)
    if unknown := set(names) - set(SCENARIOS):
        parser.error(f"no scenario is called {unknown.pop()!r}; they are: {', '.join(SCENARIOS)}")
    return _enumerate(names, arguments.share, arguments.twice)


def _enumerate(names: list[str], share: int, twice: int | None) -> int:
    points = disks = stops = problems = 0
    for name in names:
        began = time.monotonic()
        account = enumerate_points(
            name, lambda number: number % share == 0, None if twice is None else lambda number: number % twice == 0
        )
        print(f"{account} [{time.monotonic() - began:.0f} s]", flush=True)
        for problem in account.problems:
            print(f"  BROKEN {problem}", flush=True)
        points, disks = points + len(account.points), disks + account.images
        stops, problems = stops + account.gone_on + account.twice, problems + len(account.problems)
    print(f"{len(names)} scenarios, {points} points, {disks} disks, {stops} gone on from, {problems} promises broken")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
