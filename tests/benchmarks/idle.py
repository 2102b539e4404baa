"""The cost of a tick with nothing due, with few workspaces and with many: a tick costs what is due, not what exists.

python -m tests.benchmarks.idle [--few 100] [--many 20000] [--rounds 200]
"""

import argparse
import json
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from rotator.engine.tick import HEARTBEAT, Engine
from rotator.ports import Reading
from tests.benchmarks.states import state_with


def settled(engine: Engine) -> None:
    """Tick until nothing is due, with the deliveries made."""
    while engine.tick().more or not engine.deliveries.idle:
        time.sleep(0.001)
    engine.tick()


def later(reading: Reading, by: timedelta) -> Reading:
    """Return a reading of honest clocks after some time."""
    return Reading(reading.now + by, reading.boot_id, reading.since_boot + by, reading.synchronised_at)


def microseconds(engine: Engine, reading: Reading) -> float:
    """Return what one tick costs, of the processor alone: waiting for a disk is not what scales."""
    begin = time.thread_time_ns()
    engine.tick(reading)
    return (time.thread_time_ns() - begin) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=100)
    parser.add_argument("--many", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        state_with(Path(directory) / "few", options.few) as few,
        state_with(Path(directory) / "many", options.many) as many,
    ):
        engines = [few.engine(), many.engine()]
        for engine in engines:
            settled(engine)
        reading = engines[0].run.around.clock.read()
        ordinary: tuple[list[float], list[float]] = ([], [])
        beats: tuple[list[float], list[float]] = ([], [])
        for number in range(options.rounds):
            # A beat at each tenth, as the clock goes on by a heartbeat; the others follow within it.
            reading = later(reading, HEARTBEAT if number % 10 == 0 else timedelta(milliseconds=1))
            for index, engine in enumerate(engines):
                (ordinary if number % 10 else beats)[index].append(microseconds(engine, reading))
        for engine in engines:
            engine.close()
    figures = {}
    print(f"{'tick, in us of processor time':30} {options.few:>10} {options.many:>10}   ratio")
    for kind, (small, large) in (("nothing due", ordinary), ("heartbeat", beats)):
        low, high = statistics.median(small), statistics.median(large)
        figures[kind] = {"few": low, "many": high, "ratio": high / low}
        print(f"{kind:30} {low:10.0f} {high:10.0f}   {high / low:.2f}")
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
