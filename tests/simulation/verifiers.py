"""Services that verify tokens, with the caching habits that real ones have.

The promise about tokens is checked against every copy that anyone could hold; these hold the copies that they would
really hold, fetch as they really would, and are asked to verify tokens that are out, now and then. What they must never
do: refuse a valid token, or accept a revoked key's once their habits have let them know.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from rotator.core.model import Kid
from tests.simulation.tree import Tree
from tests.stand_ins import HOUR, MINUTE

FOREVER = timedelta(days=36_500)


@dataclass(frozen=True, slots=True)
class Habit:
    """How a library caches a set."""

    name: str
    max_age: timedelta
    refetches: bool
    """Looks again when it meets a kid that it does not know."""
    throttle: timedelta = timedelta(0)
    """Not within this time of its last fetch."""

    def promised(self, max_cache: timedelta) -> bool:
        """Tell whether a service of this habit is among those that are promised something."""
        return self.max_age <= max_cache or (self.refetches and self.throttle <= max_cache)


HABITS = (
    Habit("PyJWT", 5 * MINUTE, refetches=True),
    Habit("jose", 10 * MINUTE, refetches=True, throttle=MINUTE / 2),
    Habit("Envoy", 10 * MINUTE, refetches=False),
    Habit("Istio", 20 * MINUTE, refetches=False),
    Habit("mod_auth_openidc", HOUR, refetches=True),
    Habit("SmallRye", HOUR, refetches=True, throttle=HOUR / 2),
    Habit("step-ca", 12 * HOUR, refetches=False),
    Habit(".NET", 12 * HOUR, refetches=True, throttle=5 * MINUTE),
    Habit("Confluent", 24 * HOUR, refetches=False),
    Habit("forever", FOREVER, refetches=True),
)
"""Defaults as read in their sources; the last one keeps a set until it meets a kid that is not in it."""


@dataclass(slots=True)
class Verifier:
    """One service that fetches one file."""

    habit: Habit
    path: str
    keys: Mapping[Kid, str] | None = None
    fetched_at: datetime | None = None
    unavailable: bool = False
    """Its last fetch found no set, or one that somebody tampered with."""

    def accepts(self, kid: Kid, jwk: str, tree: Tree, now: datetime) -> bool:
        """Tell whether it accepts a token on ``kid``, whose public half is ``jwk``."""
        if self._looks_again(kid, now):
            self._fetch(tree, now)
        return (self.keys or {}).get(kid) == jwk

    def _looks_again(self, kid: Kid, now: datetime) -> bool:
        if self.fetched_at is None or now - self.fetched_at > self.habit.max_age:
            return True
        unknown = kid not in (self.keys or {})
        return unknown and self.habit.refetches and now - self.fetched_at >= self.habit.throttle

    def _fetch(self, tree: Tree, now: datetime) -> None:
        version = tree.versions[self.path][-1] if tree.versions.get(self.path) else None
        self.unavailable = version is None or version.keys is None or version.by_hand
        if version is not None and not self.unavailable:
            self.keys, self.fetched_at = version.keys, now
        elif self.fetched_at is not None and now - self.fetched_at > self.habit.max_age:
            self.keys = None
