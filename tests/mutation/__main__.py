"""``python -m tests.mutation``: break the rules on purpose, and tell what no test notices.

Ends with status 1 when fewer than 95 % of the mutants are caught, or when the table of those that change nothing
(``tests/mutation/accepted.py``) is out of step with the code. Of a draw (``--sample``) a few may survive by chance: it
ends with 1 when there are more than one draw in a thousand has, if 95 % of all mutants are caught.
"""

import argparse
import json
import math
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from tests.mutation.accepted import ACCEPTED
from tests.mutation.mutants import ROOT, Mutant, mutants
from tests.mutation.runs import TESTS, Verdict, run, warm

LEAST_CAUGHT: Final = 0.95
CHANCE: Final = 0.001
"""How often a draw may look worse than it is, and fail."""


@dataclass(slots=True)
class Tally:
    """What became of the mutants of one module."""

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    accepted: int = 0


@dataclass(slots=True)
class Result:
    """What a run found."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    survivors: list[Mutant] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def caught(self) -> int:
        """Mutants that a test noticed."""
        return sum(tally.verdicts[Verdict.CAUGHT] + tally.verdicts[Verdict.LOOPED] for tally in self.tallies.values())

    @property
    def tried(self) -> int:
        """Mutants that are not accepted."""
        return self.caught + len(self.survivors)

    @property
    def share(self) -> float:
        """Caught ones of those that are not accepted."""
        return self.caught / self.tried if self.tried else 1.0

    def is_enough(self, *, drawn: bool) -> bool:
        """Tell whether so many are caught, or, of a draw, whether so many may be when all are looked at."""
        return self.share >= LEAST_CAUGHT or (drawn and len(self.survivors) <= most_survivors(self.tried))


def most_survivors(tried: int) -> int:
    """Return how many of a draw can survive by chance, if no more of all mutants survive than may."""
    survive = 1 - LEAST_CAUGHT
    more = 1.0
    for survivors in range(tried + 1):
        more -= math.comb(tried, survivors) * survive**survivors * LEAST_CAUGHT ** (tried - survivors)
        if more < CHANCE:
            return survivors
    return tried


def _chosen(arguments: argparse.Namespace, result: Result) -> list[Mutant]:
    modules = arguments.module or list(TESTS)
    every = [mutant for module in modules for mutant in mutants(module)]
    there = {(mutant.module, mutant.text) for mutant in every}
    result.faults += [
        f"accepted, but no longer there: {module}: {text}"
        for module, text in ACCEPTED
        if module in modules and (module, text) not in there
    ]
    if arguments.sample is None or arguments.sample >= len(every):
        return every
    return random.Random(arguments.seed).sample(every, arguments.sample)


def _judge(mutant: Mutant, verdict: Verdict, result: Result) -> None:
    tally = result.tallies.setdefault(mutant.module, Tally())
    tally.verdicts[verdict] += 1
    name = f"{mutant.module}: {mutant.text}"
    accepted = (mutant.module, mutant.text) in ACCEPTED
    if verdict is Verdict.BROKEN:
        result.faults.append(f"the tests did not run: {name}")
    elif verdict is not Verdict.SURVIVED and accepted:
        result.faults.append(f"accepted, but caught: {name}")
    elif verdict is Verdict.SURVIVED and accepted:
        tally.accepted += 1
    elif verdict is Verdict.SURVIVED:
        result.survivors.append(mutant)


def _tell(result: Result, seconds: float) -> None:
    for mutant in result.survivors:
        print(f"\nsurvived: {mutant.module}: {mutant.text}\n{mutant.diff()}")
    print()
    for module, tally in result.tallies.items():
        survived = tally.verdicts[Verdict.SURVIVED] - tally.accepted
        caught = tally.verdicts[Verdict.CAUGHT] + tally.verdicts[Verdict.LOOPED]
        print(f"{module:32} {caught:5} caught {survived:4} survived {tally.accepted:4} accepted")
    print(f"{result.share:.1%} of {result.tried} caught, in {seconds:.0f} s")
    for fault in result.faults:
        print(fault)


def main() -> int:
    """Run the mutants that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--module", action="append", choices=TESTS, help="this one alone; may be given again")
    parser.add_argument("--sample", type=int, metavar="N", help="N of them, drawn from the seed; default: all")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--json", action="store_true", help="the figures and the survivors, as JSON")
    arguments = parser.parse_args()
    begin = time.monotonic()
    result = Result()
    chosen = _chosen(arguments, result)
    warm()
    # Only tests that pass without a mutant can notice one.
    for module in dict.fromkeys(mutant.module for mutant in chosen):
        if run(module, (ROOT / module).read_text(), TESTS[module]) is not Verdict.SURVIVED:
            sys.exit(f"{' '.join(TESTS[module])} do not pass as it is: mend that first")
    for index, mutant in enumerate(chosen, 1):
        verdict = run(mutant.module, mutant.source(), TESTS[mutant.module])
        _judge(mutant, verdict, result)
        if verdict is not Verdict.CAUGHT or index % 25 == 0:
            print(f"{index}/{len(chosen)} {verdict}: {mutant.module}: {mutant.text}", file=sys.stderr, flush=True)
    seconds = time.monotonic() - begin
    if arguments.json:
        print(
            json.dumps(
                {
                    "mutants": len(chosen),
                    "caught": result.caught,
                    "survived": [f"{mutant.module}: {mutant.text}" for mutant in result.survivors],
                    "accepted": sum(tally.accepted for tally in result.tallies.values()),
                    "faults": result.faults,
                    "seconds": round(seconds, 1),
                }
            )
        )
    else:
        _tell(result, seconds)
    return 0 if not result.faults and result.is_enough(drawn=arguments.sample is not None) else 1


if __name__ == "__main__":
    sys.exit(main())
