"""How long an admin's revocation takes while users without a role keep the control socket busy.

As root: the flood comes from processes of other users, each of which asks again as soon as it was answered. Ends with 1
when a revocation takes longer than a second.

    python -m tests.benchmarks.flood [--users 3] [--each 4] [--revocations 30]
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rotator.control_client import ask
from tests.e2e.world import Site, running
from tests.other_users import NOT_ROOT, flood, is_root

LONGEST_SECONDS = 1.0


def measured(site: Site, count: int) -> list[float]:
    """Return how many seconds each revocation took."""
    socket = site.state / "control.sock"
    tokens = [each["jti"] for each in site.json("tokens", "list")["tokens"]][:count]
    seconds = []
    for jti in tokens:
        begun = time.perf_counter()
        ask(socket, "token.revoke", {"jti": jti}, "benchmark")
        seconds.append(time.perf_counter() - begun)
    return seconds


def summary(what: str, seconds: list[float]) -> str:
    return f"{what}: median {statistics.median(seconds) * 1000:.0f} ms, longest {max(seconds) * 1000:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=3)
    parser.add_argument("--each", type=int, default=4, help="processes of each user")
    parser.add_argument("--revocations", type=int, default=30)
    options = parser.parse_args()
    if not is_root():
        sys.exit(NOT_ROOT)
    with tempfile.TemporaryDirectory(prefix="rotator-") as directory:
        site = Site(Path(directory))
        site.write_config(workspaces=options.revocations, keyset_period="90d", token_period="30d", token_grace="1d")
        with running(site):
            site.state.chmod(0o711)  # so that others reach the socket in it
            print(summary("alone", measured(site, options.revocations)))
            flooding: list[subprocess.Popen[bytes]] = []
            try:
                for number in range(options.users * options.each):
                    command = {"command": ("status", "token.revoke")[number % 2]}
                    flooding.append(
                        flood(site.state / "control.sock", 54_321 + number % options.users, 54_321, command)
                    )
                seconds = measured(site, options.revocations)
            finally:
                for process in flooding:
                    process.kill()
                    process.wait()
            print(summary(f"beside {options.users * options.each} processes of {options.users} users", seconds))
    if max(seconds) > LONGEST_SECONDS:
        sys.exit(f"a revocation took longer than {LONGEST_SECONDS:g} s")


if __name__ == "__main__":
    main()
