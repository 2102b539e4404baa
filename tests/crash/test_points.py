"""The machine stops before every durable step of a tick, and the world goes on as if nothing had happened.

Here every point is counted and every disk that it could leave is looked at; a share of them is gone on from, another
one in each scenario. `python -m tests.crash` goes on from all.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.crash.disk import CrashingDisk, Loss, kinds
from tests.crash.points import SCENARIOS, enumerate_points
from tests.crash.world import World
from tests.engine.site import DAY

ONE_IN = 120


@pytest.mark.parametrize("name", SCENARIOS)
def test_wherever_the_machine_stops_the_world_goes_on(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    """No refusal, no second event, no orphan, no private half too many, nothing half-written: see the oracles."""
    offset = list(SCENARIOS).index(name)
    account = enumerate_points(name, lambda number: number % ONE_IN == offset)
    record_property("crash points", len(account.points))
    print(account)
    assert account.problems == []
    counted = kinds([point.step for point in account.points])
    assert counted["end"] == 1
    whole_files = counted["rename"] + counted.get("link", 0) - counted.get("mkdir", 0)
    assert counted["create"] == counted["write"] - counted.get("append", 0) == whole_files
    for kind, least in SCENARIOS[name].least.items():
        assert counted.get(kind, 0) >= least, f"steps of the kind {kind!r} are not counted any more: {account}"


def test_a_stop_amid_the_recovery_is_recovered_from(record_property: Callable[[str, object], None]) -> None:
    account = enumerate_points("re-issue and delivery", lambda n: n == 31, twice=lambda n: n % 12 == 0)
    record_property("crash points", account.twice)
    assert account.twice >= 3
    assert account.problems == []


# --------------------------------------------------------------------------------------- that nothing is left uncounted

AUDITED = {
    "open": "create",
    "os.rename": "rename",
    "os.remove": "unlink",
    "os.rmdir": "rmdir",
    "os.mkdir": "mkdir",
    "os.link": "link",
    "os.chmod": "chmod",
}


class Watch:
    """Python tells of each change of a file (PEP 578), whoever makes it."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.on = False
        sys.addaudithook(self.hear)  # for good: there is no way to take a hook away

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.on and event in AUDITED and not str(self._path(arguments[0])).endswith("rotator.db"):
            creates = event != "open" or (isinstance(arguments[2], int) and arguments[2] & os.O_CREAT)
            if creates:
                self.told.append(event)

    @staticmethod
    def _path(named: object) -> object:
        """SQLite's file is made before SQLite takes it: that it is there says nothing yet."""
        return Path(f"/proc/self/fd/{named}").readlink() if isinstance(named, int) else named

    @contextmanager
    def listening(self) -> Iterator[None]:
        self.on = True
        try:
            yield
        finally:
            self.on = False


@pytest.mark.parametrize("name", ["first start", "replace", "re-issue and delivery"])
def test_no_change_of_a_file_goes_around_what_is_counted(tmp_path: Path, name: str) -> None:
    """As many changes are told by Python as are counted as steps; the database's commits are held by SQLite's count."""
    watch = Watch()
    world = World(tmp_path)
    SCENARIOS[name].prepare(world)
    with world.recorded() as points, watch.listening():
        SCENARIOS[name].act(world)
    world.close()
    counted = kinds([point.step for point in points])
    told = {event: watch.told.count(event) for event in AUDITED if watch.told.count(event)}
    assert told == {event: counted[kind] for event, kind in AUDITED.items() if kind in counted}


# -------------------------------------------------------------------------------------------- that a fault is found out


class Liar(CrashingDisk):
    """Syncs no file, and says that it did."""

    def fsync(self, fd: int) -> None:
        pass


def test_a_disk_that_lies_is_found_out(tmp_path: Path) -> None:
    """The images are what they are said to be: without fsync, a rename can leave half a set in the place of a whole."""
    world = World(tmp_path)
    world.daemon.start()
    world.site.advance(DAY, pace=DAY)
    path = world.daemon.jwks()
    world._disk.__class__ = Liar
    path.unlink()
    with world.recorded() as points:
        world.site.advance(DAY / 24)
    world.close()
    name = str(path.relative_to(tmp_path))
    whole = points[-1].images[Loss.NONE][name].content or b""
    halves = [point for point in points if name in point.images[Loss.TORN]]
    assert halves
    assert {point.images[Loss.TORN][name].content for point in halves} == {whole[: len(whole) // 2]}
