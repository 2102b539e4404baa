"""Deliberate bugs in planner, transitions and what is observed: the walk finds each, and says by which history.

``python -m tests.model.bugs`` plants them one after the other; with ``--simulation`` it looks for each among random
histories as well, and shortens the one that it finds.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from rotator.core import invariants, lifecycle, planner, transitions
from rotator.engine import observe, recover
from tests.model.walk import Walk
from tests.simulation import mutants
from tests.simulation.setting import draw_setting
from tests.simulation.story import Shrinker, draw_steps, tell

BUGS: Final[dict[str, tuple[mutants.Line, ...]]] = {
    "a key signs as soon as it is published": (
        (planner, "ready_at", "since + policy.propagation_period if since != ALWAYS else ALWAYS", "ALWAYS"),
    ),
    "a manual rotation does not wait": ((planner, "is_emergency", " and state.wish.emergency", ""),),
    "a rotation does not wait for the key after it": ((planner, "spares_needed", "2 if", "1 if"),),
    "a key leaves as soon as it stops signing": (
        (planner, "_retirement_reason", "end is None or end <= now", "True"),
        (invariants, "keyset_violations", "key.phase is Phase.RETIRED and", "False and"),
    ),
    "a key leaves at the end of its grace, whatever lives on it": (
        (planner, "leaves_at", "None if key.last_exp is None else key.last_exp + policy.clock_skew", "None"),
        (planner, "_reschedule", "if key.last_exp is not None:", "if False:"),
        (invariants, "keyset_violations", "key.phase is Phase.RETIRED and", "False and"),
    ),
    "an imported key leaves before the tokens that others signed with it": (
        (planner, "_retirement_reason", "key.last_exp + policy.clock_skew > now", "False"),
        (invariants, "keyset_violations", "key.last_exp + policy.clock_skew > now", "False"),
    ),
    "the key that signs is missing from the set": (
        (planner, "desired_kids", "key.phase in IN_SET and", "key.phase is not Phase.ACTIVE and"),
    ),
    "keys stay published until the next rotation": ((planner, "_retire", "if reason is not None:", "if False:"),),
    "a rotation that is due never comes": ((planner, "activation_reason", "active.rotate_at <= now", "False"),),
    "the key after the next is not made": ((planner, "_wanted_spares", "2 if announcement", "1 if announcement"),),
    "keys are made without end": ((planner, "_make", "len(queue) >= ", "len(queue) > 9 + "),),
    "a set is emptied although nothing was revoked": (
        (planner, "_withdraw", "if not desired and not state.shows_revoked:", "if False:"),
        (planner, "desired_kids", "if key.phase in IN_SET", "if any(k.phase is Phase.ACTIVE for k in state.keys)"),
    ),
    "what was revoked stays until something else changes": (
        (planner, "_withdraw", "return PublishSet(state.name, desired)", "return None"),
    ),
    "in an emergency a key signs before it stands in the file": (
        (planner, "may_sign_at", "ALWAYS if kid in (state.published or ()) else None", "ALWAYS"),
    ),
    "only one tree is asked whether a key is out": ((observe, "out_since", mutants.EVERY_TREE, mutants.ANY_TREE),),
    "a key that came back does not wait again": (
        (observe, "_sight", "(lost(before) or _of_the_future(before, reading))", "_of_the_future(before, reading)"),
        (observe, "out_since", "if lost(sighting):", "if False:"),
    ),
    "a key that came back was never away": (
        (observe, "_sight", "pass  # back again: the wait begins anew", "absent_until = None"),
    ),
    "a ready spare is dropped for one that is not": (
        (planner, "_retirement_reason", "is_ready(state, spare, policy, now) for", "True for"),
    ),
    "a wish is fulfilled again and again": ((transitions, "_activate", ", wish=None)", ")"),),
    "a key signs without having proved itself": ((planner, "_activate", "successor.proven_at is None", "False"),),
    "the prior key keeps its private half": ((lifecycle, "demote", ", has_private=False)", ")"),),
    "a restore forgets the tokens that were issued since": (
        (recover, "_restore_key", "signed_until = None if known is None else known.ends_at", "signed_until = None"),
    ),
    "a restored key signs beside its successor": (
        (recover, "_restore_key", "if key.kid == witnessed.active and key.has_private:", "if key.has_private:"),
    ),
}


@contextmanager
def planted(lines: tuple[mutants.Line, ...]) -> Iterator[None]:
    """Let a bug be in the code that runs."""
    with pytest.MonkeyPatch.context() as patch:
        mutants.plant(lines, patch)
        yield


def found_by_walking(seconds: float, workers: int) -> tuple[int, int, str] | None:
    """Return how long the shortest history is, how many states were seen, and what it breaks; None: nothing."""
    with tempfile.TemporaryDirectory() as directory:
        walk = Walk(Path(directory) / "states")
        walk.go_on(depth=100, seconds=seconds, states=10**9, workers=workers, tell=lambda _: None)
        result = walk.result()
        if not result.breaches:
            walk.close()
            return None
        breach = min(result.breaches, key=lambda each: len(walk.history(each)[1]))
        length = len(walk.history(breach)[1])
        walk.close()
        return length, result.states, breach.what


def found_by_chance(seconds: float) -> int | None:
    """Return how long the history is that random ones come down to; None: none was found in that time."""
    give_up_at = time.monotonic() + seconds
    seed = 1
    while time.monotonic() < give_up_at:
        setting = draw_setting(seed)
        steps = draw_steps(setting)
        told = tell(setting, steps)
        if told.broken:
            return len(Shrinker(setting, told.broken, budget=60).shrink(steps[: told.at_step + 1]))
        seed += 1
    return None


def main() -> int:
    """Return the exit code: 1 when a bug is not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.model.bugs", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="how long to look for each")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--simulation", action="store_true", help="look for each among random histories, too")
    parser.add_argument("names", nargs="*", help="only bugs whose name contains one of these")
    options = parser.parse_args()
    missed = 0
    print("| bug | moves | states seen | breaks | simulation: moves |\n|---|---|---|---|---|")
    for name, lines in BUGS.items():
        if options.names and not any(part in name for part in options.names):
            continue
        with planted(lines):
            found = found_by_walking(options.seconds, options.workers)
            by_chance = found_by_chance(options.seconds) if options.simulation else None
        missed += found is None
        moves, states, what = found or ("not found", 0, "")
        print(f"| {name} | {moves} | {states:,} | {what.split(':')[0]} | {by_chance or ''} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
