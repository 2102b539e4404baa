"""The time of ``rotator --help``, against that of importing the library that makes it.

python -m tests.benchmarks.help [--rounds 15]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "rotator --help": [sys.executable, "-m", "rotator", "--help"],
    "import typer": [sys.executable, "-c", "import typer"],
}


def seconds(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(options.rounds):
        for name, command in COMMANDS.items():
            taken[name].append(seconds(command))
    medians = {name: statistics.median(each) for name, each in taken.items()}
    for name, each in medians.items():
        print(f"{name:30} {each * 1000:7.0f} ms")
    ratio = medians["rotator --help"] / medians["import typer"]
    print(f"{'ratio':30} {ratio:7.2f}")
    if options.json:
        print(json.dumps({**medians, "ratio": ratio}))


if __name__ == "__main__":
    main()
