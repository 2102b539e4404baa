"""Fresh keys, made beside the loop where that takes long, and kept until they are stored.

A keyset that has lost all of its keys has fresh ones made before its set is written. What was revoked and what takes
its place then change in one publication, and no verifier is ever given an empty set. A withdrawal never waits longer
for that than :data:`READY_WITHIN`: keys that take longer, as RSA on a busy machine, are published after it.
"""

from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, wait
from datetime import timedelta
from typing import Final

from rotator.core.model import Algorithm, KeysetName
from rotator.core.policy import KeysetPolicy
from rotator.engine.run import FreshKeys, Run
from rotator.ports import KeyMaterial

READY_WITHIN: Final = timedelta(seconds=1)

PROMPT: Final = timedelta(milliseconds=200)
"""How long the turn of a keyset waits for its key, where nobody else waits for one: most are made by then."""

SLOW: Final = frozenset({Algorithm.RS256})
"""What takes tenths of a second to make."""

NEEDED: Final = 2
"""The key that is to sign, and the spare behind it."""


def make_ready(run: Run, policy: KeysetPolicy) -> bool:
    """Make what a keyset without any key needs; return whether one is ready in time. Where it ends it needs none."""
    if policy.ending:
        return False
    fresh = run.fresh.get(policy.name)
    if fresh is None:
        makers = run.key_makers()  # its own: it does not wait behind what is made for others
        fresh = _begin(run, makers, policy.name, policy.algorithm, NEEDED)
        makers.shutdown(wait=False)
    wait(fresh.makings, timeout=READY_WITHIN.total_seconds())
    return bool(fresh.ready)


def _begin(run: Run, makers: Executor, keyset: KeysetName, algorithm: Algorithm, number: int) -> FreshKeys:
    makings = [makers.submit(run.around.keymaker.make, algorithm) for _ in range(number)]
    fresh = run.fresh[keyset] = FreshKeys(algorithm, makings)
    for making in makings:
        making.add_done_callback(lambda _: run.wake())
    return fresh


def are_ready(run: Run, keyset: KeysetName) -> bool:
    """Tell whether a key is made for ``keyset`` that has only to be stored."""
    fresh = run.fresh.get(keyset)
    return fresh is not None and bool(fresh.ready)


def material(run: Run, keyset: KeysetName, algorithm: Algorithm) -> KeyMaterial | None:
    """Return a new key; None while one is being made beside the loop, which is woken when it is there."""
    fresh = run.fresh.get(keyset)
    if fresh is None or fresh.algorithm != algorithm or not fresh.makings:
        if algorithm not in SLOW:
            return run.around.keymaker.make(algorithm)
        if run.makers is None:
            run.makers = run.key_makers()
        fresh = _begin(run, run.makers, keyset, algorithm, 1)
    if len(run.fresh) == 1:
        wait(fresh.makings, timeout=PROMPT.total_seconds(), return_when=FIRST_COMPLETED)
    made = next((making for making in fresh.makings if making.done()), None)
    if made is None:
        return None
    fresh.makings.remove(made)
    return made.result()


def is_under_way(run: Run, keyset: KeysetName) -> bool:
    """Tell whether a key is being made for a keyset."""
    fresh = run.fresh.get(keyset)
    return fresh is not None and any(not making.done() for making in fresh.makings)


def keysets_with_new_keys(run: Run) -> Iterable[KeysetName]:
    """Return the keysets for which a key was made, or could not be, since they were looked at last."""
    return [name for name, fresh in run.fresh.items() if any(making.done() for making in fresh.makings)]


def leave(run: Run, keyset: KeysetName) -> None:
    """Drop what is made and was not used; what is still under way may be used later."""
    fresh = run.fresh.pop(keyset, None)
    if fresh is None:
        return
    under_way = [each for each in fresh.makings if not each.done()]
    if under_way:
        run.fresh[keyset] = FreshKeys(fresh.algorithm, under_way)
