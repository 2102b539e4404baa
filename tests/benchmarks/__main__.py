"""All benchmarks, one after the other, with their defaults: ``python -m tests.benchmarks``."""

import sys

from tests.benchmarks import deliver, idle, interrupted, issue, keysets, revoke, start
from tests.benchmarks import help as help_command


def main() -> None:
    del sys.argv[1:]
    for benchmark in (issue, revoke, deliver, idle, start, keysets, help_command, interrupted):
        print(f"== {benchmark.__name__.rpartition('.')[2]}", flush=True)
        benchmark.main()
        print(flush=True)


if __name__ == "__main__":
    main()
