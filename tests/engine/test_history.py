"""Long random histories: whatever happens in whatever order, no live token is refused and no key signs too early."""

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from rotator.core.events import EventName
from rotator.core.model import KeysetName, Kid
from tests.engine.site import DAY, HOUR, MINUTE, PROPAGATION, SECOND, Site, keyset

MOVES = 40


class Story:
    """One site, and the moves that may happen to it; a seed makes it the same again."""

    def __init__(self, site: Site, seed: int) -> None:
        self.site = site
        self.random = random.Random(seed)
        self.moves: list[Callable[[], None]] = [
            self.wait,
            self.wait,
            self.wait,
            self.restart,
            self.crash,
            self.outage,
            self.lose_file,
            self.deface,
            self.full_disk,
            self.failing_sink,
            self.empty_sink,
            self.leap,
            self.take_kek,
            self.change_roles,
            self.change_periods,
            self.replica,
        ]
        self.signed: set[Kid] = set()

    def tell(self) -> None:
        self.site.main.start()
        self.site.advance(self.random.uniform(0, 10) * DAY, pace=12 * HOUR)
        for _ in range(MOVES):
            move = self.random.choice(self.moves)
            move()
            self.site.advance(self.random.uniform(0, 12) * HOUR, pace=HOUR)
            self.check(move.__name__)
        self.site.advance(6 * DAY, pace=12 * HOUR)
        assert dict(self.site.main.run.faults) == {}
        self.site.assert_sound()

    def check(self, after: str) -> None:
        """Hold what has just begun to sign against how long it has been in public, by the time that really passed."""
        assert self.site.refused == [], after
        for row in self.site.events(EventName.KEY_ACTIVATED):
            kid = row.event.kid
            if kid is not None and kid not in self.signed:
                self.signed.add(kid)
                if len(self.signed) > 1:
                    assert self.site.announced_for(kid) >= PROPAGATION, after

    # ----------------------------------------------------------------------------------------------------------- moves

    def wait(self) -> None:
        self.site.advance(self.random.uniform(0, 3) * DAY, pace=3 * HOUR)

    def restart(self) -> None:
        self.site.main.stop()
        self.site.clock.reboot(timedelta(minutes=self.random.uniform(1, 600)))
        self.site.main.start()

    def crash(self) -> None:
        """Stop after any number of ticks at one moment, with whatever was under way."""
        for _ in range(self.random.randrange(3)):
            self.site.main.tick()
        self.site.main.stop()
        self.site.main.start()

    def outage(self) -> None:
        self.site.main.stop()
        self.site.clock.elapse(timedelta(hours=self.random.uniform(1, 14)))
        self.site.main.start()

    def places(self) -> list[Path]:
        return [self.site.main.jwks(), self.site.main.tree / ".well-known" / "jwks.json"]

    def lose_file(self) -> None:
        for path in self.places():
            path.unlink(missing_ok=True)
        self.site.advance(31 * SECOND)

    def deface(self) -> None:
        self.random.choice(self.places()).write_text(self.random.choice(["", "{", '{"keys": []}', "[]"]))
        self.site.advance(31 * SECOND)

    def full_disk(self) -> None:
        self.site.main.tree_disk.full = True
        self.site.advance(self.random.uniform(0, 2) * DAY, pace=HOUR)
        self.site.main.tree_disk.full = False
        self.site.advance(MINUTE)

    def failing_sink(self) -> None:
        path = self.site.sink(self.random.choice(("acme", "umbrella"))).path
        self.site.main.post.failing.add(path)
        self.site.advance(self.random.uniform(0, 12) * HOUR, pace=HOUR)
        self.site.main.post.failing.clear()

    def empty_sink(self) -> None:
        shutil.rmtree(self.site.root / "delivered", ignore_errors=True)

    def leap(self) -> None:
        """Let the clock be wrong for a while, and right again before anybody accepts it."""
        step = timedelta(days=self.random.uniform(-60, 60))
        self.site.clock.leap(step)
        self.site.advance(self.random.uniform(0, 3) * HOUR, pace=HOUR)
        self.site.clock.leap(-step)
        self.site.main.settle()

    def take_kek(self) -> None:
        self.site.kek.rename(self.site.root / "kek.kept")
        self.site.advance(MINUTE)
        self.site.advance(self.random.uniform(0, 6) * HOUR, pace=HOUR)
        (self.site.root / "kek.kept").rename(self.site.kek)
        self.site.advance(MINUTE)

    def change_roles(self) -> None:
        policy = self.site.policy
        roles = (self.random.choice(("admin", "reader", "writer")),)
        self.site.main.load(
            replace(policy, workspaces={name: replace(w, roles=roles) for name, w in policy.workspaces.items()})
        )

    def change_periods(self) -> None:
        policy = self.site.policy
        token = timedelta(days=self.random.uniform(1.5, 6))
        security = timedelta(days=self.random.uniform(6, 25))
        self.site.main.load(
            replace(
                policy,
                keysets={
                    KeysetName("default"): keyset(security_period=security, grace_period=token + DAY + 2 * MINUTE)
                },
                workspaces={name: replace(w, security_period=token) for name, w in policy.workspaces.items()},
            )
        )

    def replica(self) -> None:
        """Another daemon joins, works, and leaves; its tree is not served any more then."""
        other = self.site.daemon("other")
        if other.engine is None:
            other.start()
        else:
            other.stop()
            self.site.rewrite("replicas", "replica = 'other'", forgotten_at=1)
            shutil.rmtree(other.tree)
            self.site.history = {key: old for key, old in self.site.history.items() if key[0] != "other"}


def test_no_history_refuses_a_live_token_or_lets_a_key_sign_too_early(site: Site) -> None:
    """One history on real files; ``tests.simulation`` tells thousands of them."""
    Story(site, seed=2).tell()
