"""A small pure world for the planner: keys that exist only as records, one tree, a calendar without windows."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from rotator.core.actions import ActivateKey, KeysetAction, MakeKey, PublishSet
from rotator.core.invariants import keyset_violations
from rotator.core.model import ALWAYS, Algorithm, KeysetName, KeysetState, Kid, Phase, Wish
from rotator.core.planner import active_key, next_due, plan_keyset
from rotator.core.policy import KeysetPolicy, RotationWindow
from rotator.core.transitions import apply

T0 = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class NoWindows:
    """A calendar for policies without rotation windows."""

    def last_opening(self, window: RotationWindow, *, after: datetime, until: datetime) -> datetime | None:
        """Never asked."""
        raise AssertionError("no policy here has a window")


CALENDAR = NoWindows()


def keyset_policy(
    *,
    security_period: timedelta = 90 * DAY,
    propagation_period: timedelta = 49 * HOUR,
    grace_period: timedelta = 31 * DAY,
    algorithm: Algorithm = Algorithm.ES256,
    ending: bool = False,
) -> KeysetPolicy:
    return KeysetPolicy(
        name=KeysetName("default"),
        issuer="https://tokens.example.com",
        algorithm=algorithm,
        security_period=security_period,
        propagation_period=propagation_period,
        grace_period=grace_period,
        clock_skew=timedelta(seconds=60),
        ending=ending,
    )


def fresh(policy: KeysetPolicy) -> KeysetState:
    return KeysetState(
        name=policy.name, schedule_fingerprint=policy.schedule_fingerprint, first_publication=True, published=None
    )


@dataclass
class World:
    """Carries plans out the moment they are due, and signs a token of ``lifetime`` with the active key each time."""

    policy: KeysetPolicy
    now: datetime = T0
    state: KeysetState = field(init=False)
    history: list[tuple[datetime, KeysetAction]] = field(default_factory=list)
    lifetime: timedelta = timedelta(0)
    publishing_works: bool = True
    too_early: list[Kid] = field(default_factory=list)
    """Keys that began to sign while a verifier could hold a copy without them, and nobody had chosen that."""

    def __post_init__(self) -> None:
        self.state = fresh(self.policy)
        self.lifetime = self.policy.grace_period - self.policy.clock_skew

    def settle(self) -> None:
        """Plan and carry out until nothing is due at ``now``; check every state on the way."""
        for _ in range(20 + len(self.state.keys)):
            plan = plan_keyset(self.state, self.policy, self.now, CALENDAR)
            for action in plan:
                if isinstance(action, PublishSet) and not self.publishing_works:
                    self.state = replace(self.state, publish_blocked=True)
                    continue
                self._watch(action)
                self.state = apply(self.state, action, self.now)
                self.history.append((self.now, action))
                assert keyset_violations(self.state, self.policy, self.now) == []
            if not plan:
                self.state = replace(self.state, publish_blocked=False)
                self._sign()
                return
        raise AssertionError("the plan never ends")

    def wish(self, *, emergency: bool = False) -> None:
        """Let an operator ask for another key."""
        self.state = replace(self.state, wish=Wish(asked_at=self.now, actor="ada(1000)", emergency=emergency))

    def _watch(self, action: KeysetAction) -> None:
        if not isinstance(action, ActivateKey) or (self.state.wish is not None and self.state.wish.emergency):
            return
        since = self.state.out_since[action.kid]
        if since != ALWAYS and since + self.policy.propagation_period > self.now:
            self.too_early.append(action.kid)

    def _sign(self) -> None:
        signer = active_key(self.state)
        if signer is None:
            return
        exp = self.now + self.lifetime
        keys = tuple(replace(key, last_exp=exp) if key is signer else key for key in self.state.keys)
        self.state = replace(self.state, keys=keys)

    def run_until(self, end: datetime) -> None:
        """Jump from one due moment to the next."""
        self.settle()
        while True:
            due = next_due(self.state, self.policy, self.now)
            if due is None or due > end:
                break
            assert due > self.now
            self.now = due
            self.settle()
        self.now = end
        self.settle()

    def of_type(self, kind: type[KeysetAction]) -> list[tuple[datetime, KeysetAction]]:
        return [(at, action) for at, action in self.history if isinstance(action, kind)]

    def phases(self) -> list[Phase]:
        return [key.phase for key in self.state.keys if key.phase not in (Phase.RETIRED, Phase.REVOKED)]


def made(world: World) -> int:
    return len(world.of_type(MakeKey))
