"""``python -m tests.fuzz TARGET``: feed a target with inputs that find new paths through the code.

libFuzzer (by way of atheris) keeps what leads somewhere new, and goes on from that. The committed corpus is where it
begins; what it finds is kept in a directory of its own, or in ``--keep DIRECTORY``. An input that breaks a promise ends
it with status 1 and is printed. ``--runs N`` instead of ``--seconds N`` does the same amount of work on any machine.
"""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["rotator"]):
    from tests.fuzz.targets import MAKERS, target

CORPUS = Path(__file__).parent / "corpus"
LONGEST_INPUT_BYTES = 2048


def words_of(corpus: Path) -> list[str]:
    """Return the words of a corpus, to be put elsewhere: bits and bytes alone make few of them."""
    text = b"\n".join(path.read_bytes() for path in sorted(corpus.iterdir())).decode("ascii", "replace")
    return sorted({word for word in re.findall(r"[A-Za-z0-9_.:+/-]+", text) if 1 < len(word) < 40})


def main() -> None:
    """Fuzz until the time or the runs are over."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=MAKERS)
    parser.add_argument("--seconds", type=int, default=60, metavar="N")
    parser.add_argument("--runs", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="0: another one each time (default)")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY")
    arguments = parser.parse_args()
    limit = f"-max_total_time={arguments.seconds}" if arguments.runs is None else f"-runs={arguments.runs}"
    corpus = CORPUS / arguments.target
    with target(arguments.target) as fuzzed, tempfile.TemporaryDirectory(prefix="rotator-fuzz-") as directory:
        found = arguments.keep or Path(directory)
        found.mkdir(exist_ok=True)
        words = Path(directory, "words")
        words.write_text("".join(f'"{word}"\n' for word in words_of(corpus)))
        options = [
            f"-dict={words}",
            limit,
            f"-seed={arguments.seed}",
            f"-max_len={LONGEST_INPUT_BYTES}",
            f"-artifact_prefix={directory}/",
            "-timeout=20",
            "-verbosity=1",
            "-print_final_stats=1",
        ]
        child = os.fork()  # libFuzzer ends its process as it stands, and what is to be tidied up would stay
        if child == 0:
            atheris.Setup([sys.argv[0], *options, str(found), str(corpus)], fuzzed)
            atheris.Fuzz()
            os._exit(0)
        _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
