"""The stories that are stopped before each of their durable steps.

``prepare`` brings the world to where the story begins. ``act`` is the story, whose steps are counted. ``resume`` is
what happens after a stop: the daemon starts, and a person asks again for what got no answer. ``expect`` says what must
have come of it in the end, wherever it was stopped.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType

from rotator.adapters.kek import ensure_kek_file
from rotator.core.events import EventName
from rotator.core.model import DEFAULT_KEYSET, Algorithm, Phase
from rotator.core.policy import Policy
from rotator.errors import RefusedError
from tests.crash.world import World
from tests.engine.site import DAY, HOUR, MINUTE, PROPAGATION, SKEW, Site, keyset, policy_of, without, workspace

SECURITY_PERIOD = 6 * DAY
TOKEN_PERIOD = 36 * HOUR
TOKEN_GRACE = 12 * HOUR
KEYSET_GRACE = TOKEN_PERIOD + TOKEN_GRACE + SKEW
PACE = 8 * HOUR
AFTERWARDS: timedelta = 7 * DAY
"""How long the world goes on after a stop: a rotation of the key, and four of each token."""

Story = Callable[[World], None]


def nothing(_world: World) -> None:
    pass


def start(world: World) -> None:
    world.daemon.start()


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A story, and how much of it must be counted: so many steps of each kind at least."""

    prepare: Story
    act: Story
    resume: Story = start
    expect: Story = nothing
    least: Mapping[str, int]


def policy(site: Site, *names: str, algorithm: Algorithm = Algorithm.ES256) -> Policy:
    """Two workspaces with a file each, on a keyset that rotates within a week. The second's goes with it."""
    workspaces = [
        workspace(
            name,
            replace(site.sink(name), deletes=name == "umbrella"),
            security_period=TOKEN_PERIOD,
            grace_period=TOKEN_GRACE,
        )
        for name in names or ("acme", "umbrella")
    ]
    return policy_of(
        [keyset(security_period=SECURITY_PERIOD, grace_period=KEYSET_GRACE, algorithm=algorithm)], workspaces
    )


def begin(world: World) -> None:
    world.site.policy = policy(world.site)
    start(world)


def happened(world: World, name: EventName) -> int:
    return len(world.site.events(name))


def until(world: World, name: EventName, times: int) -> None:
    """Go on until an event has happened so often."""
    for _ in range(400):
        if happened(world, name) >= times:
            return
        world.site.advance(HOUR, pace=HOUR)
    raise AssertionError(f"{name} does not come {times} times")


def jump(world: World, moment: datetime) -> None:
    """Let time pass until ``moment`` in one leap, as when the machine had slept: what is due is done at once."""
    world.site.clock.elapse(moment - world.site.clock.wall)
    world.daemon.settle()


def turns(world: World) -> datetime:
    """Return when the key that signs is to be followed by the next."""
    (active,) = world.site.signing_keys(Phase.ACTIVE)
    assert active.rotate_at is not None
    return active.rotate_at


def shortly_before(world: World, moment: datetime) -> None:
    world.site.advance(moment - HOUR - world.site.clock.wall, pace=PACE)


# --------------------------------------------------------------------------------------------------------- first start


def before_everything(world: World) -> None:
    world.site.policy = policy(world.site)
    world.site.kek.unlink()


def first_start(world: World) -> None:
    """As production does it: the KEK is made once there is a database that has none (wiring.open_state)."""
    ensure_kek_file(world.site.kek, disk=world.disk)
    start(world)


# ------------------------------------------------------------------------------------------------------------ rotation


def announcement_is_near(world: World) -> None:
    begin(world)
    shortly_before(world, turns(world) - world.site.policy.keysets[DEFAULT_KEYSET].lead)


def announcement(world: World) -> None:
    world.site.advance(HOUR + MINUTE, pace=HOUR)
    assert happened(world, EventName.KEY_MADE) == 3


def rotation_is_near(world: World) -> None:
    begin(world)
    shortly_before(world, turns(world))


def rotation(world: World) -> None:
    jump(world, turns(world))
    assert happened(world, EventName.KEY_DESTROYED) == 1


def rotated(world: World) -> None:
    assert happened(world, EventName.KEY_DEMOTED) >= 1
    assert happened(world, EventName.KEY_DESTROYED) >= 1


def in_grace(world: World) -> None:
    begin(world)
    until(world, EventName.KEY_DEMOTED, 1)
    shortly_before(world, _leaves_at(world))


def retirement(world: World) -> None:
    jump(world, _leaves_at(world))
    assert happened(world, EventName.KEY_RETIRED) == 1


def _leaves_at(world: World) -> datetime:
    (prior,) = world.site.signing_keys(Phase.GRACE)
    assert prior.grace_until is not None
    assert prior.last_exp is not None
    return max(prior.grace_until, prior.last_exp + SKEW)


# -------------------------------------------------------------------------------------------------------------- tokens


def tokens_are_out(world: World) -> None:
    begin(world)
    world.site.advance(DAY, pace=PACE)


def reissue(world: World) -> None:
    jump(world, world.site.clock.wall + TOKEN_PERIOD - DAY)
    assert happened(world, EventName.TOKEN_DELIVERED) == 4


def expiry(world: World) -> None:
    reissue(world)
    jump(world, world.site.clock.wall + TOKEN_GRACE + 2 * MINUTE)
    assert happened(world, EventName.TOKEN_RETIRED) == 2


# -------------------------------------------------------------------------------------------------------------- config


def other_algorithm(world: World) -> None:
    world.daemon.load(policy(world.site, algorithm=Algorithm.EDDSA))
    jump(world, world.site.clock.wall + PROPAGATION)
    jump(world, turns(world))
    assert happened(world, EventName.KEY_DEMOTED) == 1


def with_the_other_algorithm(world: World) -> None:
    world.daemon.start(policy(world.site, algorithm=Algorithm.EDDSA))


def algorithm_changed(world: World) -> None:
    live = {key.algorithm for key in world.site.signing_keys(Phase.ACTIVE, Phase.PENDING)}
    assert live == {Algorithm.EDDSA}


def remove_workspace(world: World) -> None:
    world.site.policy = wanted = without(world.site.policy, "umbrella")
    with contextlib.suppress(RefusedError):  # half of them: a person has to mean it
        world.daemon.load(wanted)
    assert world.site.ask("config.accept").succeeded
    jump(world, world.site.clock.wall + 2 * DAY)


def with_fewer_workspaces(world: World) -> None:
    world.daemon.start()
    if "config" in world.daemon.run.faults:
        assert world.site.ask("config.accept").succeeded


def workspace_removed(world: World) -> None:
    assert world.site.query("SELECT removed_at IS NOT NULL FROM workspaces WHERE id = 'umbrella'") == [(1,)]
    assert world.site.query("SELECT count(*) FROM deliveries WHERE workspace = 'umbrella'") == [(0,)]
    assert {row.event.reason for row in world.site.events(EventName.CONFIG_ACCEPTED)} <= {"because"}
    assert not Path(world.site.sink("umbrella").path).exists()
    assert happened(world, EventName.FILE_DELETED) == 1
    assert world.site.query("SELECT deletes FROM workspaces WHERE id = 'umbrella'") == [("",)]


def change_roles(world: World) -> None:
    world.daemon.load(_reader(world.site))
    world.site.advance(HOUR, pace=10 * MINUTE)
    assert happened(world, EventName.TOKEN_ISSUED) == 4


def with_other_roles(world: World) -> None:
    world.daemon.start(_reader(world.site))


def _reader(site: Site) -> Policy:
    old = site.policy
    return replace(old, workspaces={name: replace(each, roles=("reader",)) for name, each in old.workspaces.items()})


ROUTINE: Mapping[str, Scenario] = MappingProxyType(
    {
        "first start": Scenario(
            prepare=before_everything,
            act=first_start,
            resume=first_start,
            least={"commit": 14, "write": 9, "mkdir": 7, "link": 1, "rename": 15, "deliver": 2, "log": 2},
        ),
        "announcement": Scenario(
            prepare=announcement_is_near,
            act=announcement,
            expect=rotated,
            least={"commit": 7, "create": 4, "write": 4, "fsync": 4, "rename": 4, "fsync_directory": 4, "log": 1},
        ),
        "rotation": Scenario(
            prepare=rotation_is_near,
            act=rotation,
            expect=rotated,
            least={"commit": 5, "checkpoint": 1, "rename": 1},
        ),
        "retirement": Scenario(prepare=in_grace, act=retirement, expect=rotated, least={"commit": 5, "rename": 4}),
        "re-issue and delivery": Scenario(
            prepare=tokens_are_out, act=reissue, least={"commit": 7, "deliver": 2, "rename": 4, "log": 2}
        ),
        "expiry": Scenario(prepare=tokens_are_out, act=expiry, least={"commit": 12, "deliver": 2, "rename": 5}),
        "algorithm": Scenario(
            prepare=tokens_are_out,
            act=other_algorithm,
            resume=with_the_other_algorithm,
            expect=algorithm_changed,
            least={"commit": 28, "checkpoint": 2, "deliver": 4, "rename": 17},
        ),
        "workspace removed": Scenario(
            prepare=tokens_are_out,
            act=remove_workspace,
            resume=with_fewer_workspaces,
            expect=workspace_removed,
            least={"commit": 16, "deliver": 1, "rename": 6},
        ),
        "roles": Scenario(
            prepare=tokens_are_out,
            act=change_roles,
            resume=with_other_roles,
            least={"commit": 12, "deliver": 2, "rename": 5},
        ),
    }
)
"""What the daemon does by itself, and what a changed config makes of it."""
