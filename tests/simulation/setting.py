"""What a seed begins with: the periods, the keysets and workspaces, and how closely the world is looked at.

The world jumps from one due moment to the next, but never by less than ``grain``: every daemon in it is as slow as one
on a machine that gives it a turn that seldom. Coarse worlds cover years in seconds; fine ones are meaner.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random

from rotator.core.model import DEFAULT_KEYSET, Algorithm, KeysetName, WorkspaceId
from rotator.core.policy import CommandSink, FileSink, KeysetPolicy, Policy, RotationWindow, Sink, WorkspacePolicy
from tests.stand_ins import DAY, HOUR, MINUTE

SKEW = timedelta(seconds=60)
LAG = MINUTE
ISSUER = "https://tokens.example.com"
MAX_GAP = 30 * DAY
WINDOWS = {
    "": None,
    "weekly": RotationWindow("0 3 * * sun", "Europe/Berlin", HOUR),
    "monthly": RotationWindow("0 3 1 * *", "Europe/Berlin", HOUR),
}
"""With one, many workspaces fall due together, and a year takes few ticks."""
ALGORITHMS = tuple(Algorithm)


@dataclass(frozen=True, slots=True)
class WantedKeyset:
    """A keyset as the config has it."""

    algorithm: Algorithm
    security_period: timedelta
    propagation_period: timedelta


@dataclass(frozen=True, slots=True)
class WantedWorkspace:
    """A workspace as the config has it."""

    keyset: KeysetName
    security_period: timedelta
    grace_period: timedelta
    roles: int = 0
    window: str = ""
    sinks_wanted: int = 1

    def sinks(self, name: WorkspaceId) -> tuple[Sink, ...]:
        file = FileSink(f"/run/{name}/token")
        return (file, CommandSink(("/usr/bin/push", name)))[: self.sinks_wanted]


@dataclass(slots=True)
class Wanted:
    """The config that an operator edits."""

    keysets: dict[KeysetName, WantedKeyset]
    workspaces: dict[WorkspaceId, WantedWorkspace]

    def policy(self) -> Policy:
        """Return it as the engine takes it; the time contract holds by construction."""
        workspaces = {name: _workspace(name, wanted) for name, wanted in self.workspaces.items()}
        keysets = {name: self._keyset(name, wanted) for name, wanted in self.keysets.items()}
        return Policy(keysets=keysets, workspaces=workspaces, clock_skew=SKEW, clock_max_gap=MAX_GAP)

    def _keyset(self, name: KeysetName, wanted: WantedKeyset) -> KeysetPolicy:
        lifetimes = [w.security_period + w.grace_period for w in self.workspaces.values() if w.keyset == name]
        return KeysetPolicy(
            name=name,
            issuer=ISSUER if name == DEFAULT_KEYSET else f"{ISSUER}/keysets/{name}",
            algorithm=wanted.algorithm,
            security_period=wanted.security_period,
            propagation_period=wanted.propagation_period,
            grace_period=max(lifetimes, default=DAY) + SKEW,
            clock_skew=SKEW,
        )


def _workspace(name: WorkspaceId, wanted: WantedWorkspace) -> WorkspacePolicy:
    return WorkspacePolicy(
        id=name,
        keyset=wanted.keyset,
        security_period=wanted.security_period,
        grace_period=wanted.grace_period,
        audience=("api",),
        roles=(f"role-{wanted.roles}",),
        rotation_window=WINDOWS[wanted.window],
        sinks=wanted.sinks(name),
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """The beginning of a world."""

    seed: int
    grain: timedelta
    """The shortest time between two ticks."""
    heartbeat: timedelta
    """The longest."""
    compare: timedelta
    max_cache: timedelta
    replicas: int
    keysets: tuple[tuple[KeysetName, WantedKeyset], ...]
    workspaces: tuple[tuple[WorkspaceId, WantedWorkspace], ...]

    def wanted(self) -> Wanted:
        return Wanted(dict(self.keysets), dict(self.workspaces))

    @property
    def fine(self) -> bool:
        """Tell whether this world is looked at closely."""
        return self.grain <= 3 * HOUR

    @property
    def pace(self) -> timedelta:
        """A time in which about one key or token of a kind comes due: how far apart things happen."""
        return min(wanted.security_period for _, wanted in self.keysets) / (6 if self.fine else 4)

    @property
    def patience(self) -> timedelta:
        """How long after the last trouble everything must be as it should."""
        return 3 * self.grain + 2 * HOUR + self.heartbeat


def draw_setting(seed: int) -> Setting:
    """Return the setting of a seed."""
    random = Random(f"setting {seed}")
    fine = random.random() < 0.08
    grain = HOUR * random.choice((1, 2, 3) if fine else (480, 720, 960))
    max_cache = HOUR * random.choice((1, 6, 24))
    count = random.randint(3, 25) if fine else random.randint(400, 1000)
    names = (DEFAULT_KEYSET, KeysetName("partners"), KeysetName("machines"))[: random.choice((1, 1, 2, 3))]
    keysets = tuple((name, _draw_keyset(random, max_cache, fine=fine)) for name in names)
    return Setting(
        seed=seed,
        grain=grain,
        heartbeat=grain * random.choice((1, 2) if not fine else (2, 3)),
        compare=timedelta(days=random.choice((1, 3))) if fine else timedelta(days=random.choice((120, 180))),
        max_cache=max_cache,
        replicas=random.choice((1, 1, 1, 1, 1, 1, 2, 3)),
        keysets=keysets,
        workspaces=tuple(
            (WorkspaceId(f"w{number:04}"), draw_workspace(random, names, fine=fine)) for number in range(count)
        ),
    )


def _draw_keyset(random: Random, max_cache: timedelta, *, fine: bool) -> WantedKeyset:
    propagation = max_cache + LAG + 2 * SKEW + HOUR * random.choice((0, 1, 24))
    return WantedKeyset(
        algorithm=random.choice(ALGORITHMS),
        security_period=propagation * random.uniform(2, 4)
        + DAY * (random.uniform(6, 20) if fine else random.uniform(300, 900)),
        propagation_period=propagation,
    )


def draw_workspace(random: Random, names: tuple[KeysetName, ...], *, fine: bool) -> WantedWorkspace:
    """Return a workspace on one of the keysets ``names``."""
    return WantedWorkspace(
        keyset=random.choice(names),
        security_period=DAY * (random.uniform(3, 8) if fine else random.choice((180, 240, 300, 365))),
        grace_period=DAY * (random.uniform(2, 4) if fine else random.choice((100, 150, 180))),
        window="" if fine else random.choice(("", "weekly", *["monthly"] * 18)),
        sinks_wanted=random.choice((1, 1, 2)) if fine else random.choices((0, 1, 2), (60, 37, 3))[0],
    )


def longer(keyset: WantedKeyset, factor: float) -> WantedKeyset:
    """Return ``keyset`` with another security period, still sound."""
    period = max(keyset.security_period * factor, keyset.propagation_period * 1.5)
    return replace(keyset, security_period=min(period, timedelta(days=1000)))
