"""The time from the start of the process until the daemon says that it is ready.

python -m tests.benchmarks.start [--workspaces 20000] [--rounds 3]
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.states import write_config

KINDS = ("first start", "restart")


def seconds_to_ready(config: Path, tokens: int) -> float:
    """Start a daemon, wait for its line, let it issue as many tokens, stop it."""
    begin = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "rotator", "run", "--config", str(config)],
        cwd=config.parent,
        env={**os.environ, "ROTATOR_LOG__FORMAT": "json"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as daemon:
        assert daemon.stdout is not None
        said = []
        for line in daemon.stdout:
            said.append(line)
            tokens -= "token.issued" in line
            if "daemon.ready" in line:
                break
        else:
            raise AssertionError("".join(said[-20:]))
        took = time.perf_counter() - begin
        while tokens > 0:
            tokens -= "token.issued" in next(daemon.stdout)
        daemon.send_signal(signal.SIGTERM)
        for _ in daemon.stdout:
            pass
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspaces", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as directory:
            config = write_config(Path(directory) / "daemon", options.workspaces)
            for kind, tokens in zip(KINDS, (options.workspaces, 0), strict=True):
                taken[kind].append(seconds_to_ready(config, tokens))
    medians = {kind: statistics.median(seconds) for kind, seconds in taken.items()}
    print(f"ready with {options.workspaces} workspaces, in seconds")
    for kind, seconds in medians.items():
        print(f"{kind:30} {seconds:10.2f}")
    if options.json:
        print(json.dumps(medians))


if __name__ == "__main__":
    main()
