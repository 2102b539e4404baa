"""Fresh keys for a keyset that has lost all of its keys, made before the set is written.

What was revoked and what takes its place then change in one publication, and no verifier is ever given an empty set.
A withdrawal never waits longer for that than :data:`READY_WITHIN`: keys that take longer, as RSA on a busy machine, are
published after it.
"""

from concurrent.futures import wait
from datetime import timedelta
from typing import Final

from rotator.core.model import Algorithm, KeysetName
from rotator.core.policy import KeysetPolicy
from rotator.engine.run import FreshKeys, Run
from rotator.ports import KeyMaterial

READY_WITHIN: Final = timedelta(seconds=1)

NEEDED: Final = 2
"""The key that is to sign, and the spare behind it."""


def make_ready(run: Run, policy: KeysetPolicy) -> bool:
    """Make what a keyset without any key needs; return whether one is ready in time. Where it ends it needs none."""
    if policy.ending:
        return False
    fresh = run.fresh.get(policy.name)
    if fresh is None:
        makers = run.key_makers()
        makings = [makers.submit(run.around.keymaker.make, policy.algorithm) for _ in range(NEEDED)]
        makers.shutdown(wait=False)
        fresh = run.fresh[policy.name] = FreshKeys(policy.algorithm, makings)
    wait(fresh.makings, timeout=READY_WITHIN.total_seconds())
    return bool(fresh.ready)


def are_ready(run: Run, keyset: KeysetName) -> bool:
    """Tell whether a key is made for ``keyset`` that has only to be stored."""
    fresh = run.fresh.get(keyset)
    return fresh is not None and bool(fresh.ready)


def material(run: Run, keyset: KeysetName, algorithm: Algorithm) -> KeyMaterial:
    """Return a new key: one that is made already, else one that is under way, else one made now."""
    fresh = run.fresh.get(keyset)
    while fresh is not None and fresh.algorithm == algorithm and fresh.makings:
        making = next(iter(fresh.ready or fresh.makings))
        fresh.makings.remove(making)
        if making.exception() is None:
            return making.result()
    return run.around.keymaker.make(algorithm)


def leave(run: Run, keyset: KeysetName) -> None:
    """Drop what is made and was not used; what is still under way may be used later."""
    fresh = run.fresh.pop(keyset, None)
    if fresh is None:
        return
    under_way = [each for each in fresh.makings if not each.done()]
    if under_way:
        run.fresh[keyset] = FreshKeys(fresh.algorithm, under_way)
