"""A compromise: the key that every workspace's token hangs on is revoked.

From the command (the request is stored, as the control socket does it) until the published set without the key is
durable on disk, until the command is answered, and until the last new token is committed: by the whole tick of the
daemon, with file sinks that are served meanwhile. The pace of the new tokens, from the command on, is held against the
limit and the daemon's pace of the benchmark ``issue``, in the same run. The machine's own pace moves within a minute,
so the limit is measured before and after, and each round has a ratio of its own.

    python -m tests.benchmarks.revoke [--workspaces 20000] [--rounds 3]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from rotator.core.model import KeysetName, Kid, Phase
from rotator.engine.carrying import Deliveries
from rotator.engine.issue import issue_due
from rotator.engine.requests import handle_requests
from rotator.engine.requests.accepting import accept
from rotator.ports import Publication, PublishedSet, Publisher, RequestRow
from rotator.wiring import State
from tests.benchmarks.issue import Pace, measure_daemon, measure_limit, prepare
from tests.benchmarks.states import state_with

DURABLE_WITHIN_SECONDS = 2.0
LEAST_RATIO = 0.5


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds from the command on."""

    durable: float
    answered: float
    reissued: float
    processor: float
    """Of this process, in all: what another one signs is not in it."""

    def rate(self, count: int) -> float:
        """Tokens per second, all that comes before the first of them included."""
        return count / self.reissued


@dataclass(slots=True)
class Watched:
    """The tree, with the moment at which each set was durable."""

    real: Publisher
    written: list[tuple[float, frozenset[Kid]]] = field(default_factory=list)

    def publish(self, publication: Publication) -> PublishedSet:
        standing = self.real.publish(publication)
        self.written.append((time.perf_counter(), frozenset(standing.kids)))
        return standing

    def take_out(self, keyset: KeysetName, kids: Collection[Kid], now: datetime) -> bool:
        return self.real.take_out(keyset, kids, now)

    def read(self, keyset: KeysetName, *, fully: bool = False) -> PublishedSet | None:
        return self.real.read(keyset, fully=fully)

    def found(self, keyset: KeysetName) -> PublishedSet | None:
        return self.real.found(keyset)

    def intact(self, publication: Publication, *, fully: bool = False) -> bool:
        return self.real.intact(publication, fully=fully)

    def meta(self, keyset: KeysetName) -> bytes | None:
        return self.real.meta(keyset)

    def attest(self, keyset: KeysetName, witness: Mapping[str, object]) -> bool:
        return self.real.attest(keyset, witness)

    def unchanged(self, keyset: KeysetName) -> bool:
        return self.real.unchanged(keyset)

    def keep_aside(self, keyset: KeysetName, content: bytes, now: datetime) -> str:
        return self.real.keep_aside(keyset, content, now)

    def remove(self, keyset: KeysetName) -> bool:
        return self.real.remove(keyset)

    def withdraw(self, keyset: KeysetName, content: bytes, now: datetime) -> str:
        return self.real.withdraw(keyset, content, now)


class Noting(Deliveries):
    """What the tick does next after it has issued tokens, with the moment of that."""

    issued_at: float = 0.0

    def give_way(self, since_boot: timedelta, *, issuing: bool) -> None:
        self.issued_at = time.perf_counter()
        super().give_way(since_boot, issuing=issuing)


def measure(directory: Path, count: int) -> Taken:
    """Issue a token to each workspace, then revoke the key that signed them; deliveries are made from then on."""
    with state_with(directory, count) as state:
        run = state.run
        watched = Watched(run.around.publisher)
        run.around = replace(run.around, publisher=watched)
        engine = state.engine()
        engine.deliveries.close()
        engine.deliveries = deliveries = Noting(lambda: None)
        prepare(engine)
        while issue_due(run, run.around.clock.read()):
            pass
        while engine.tick().more or not deliveries.idle:  # until every sink has its first token, as days before
            time.sleep(0.01)
        with state.store.read() as snapshot:
            (signer,) = [row.key.kid for row in snapshot.all_keys() if row.key.phase is Phase.ACTIVE]
        begin, processor = time.perf_counter(), time.process_time()
        answered = ask(state, signer)
        while due(state):
            engine.tick()
        reissued, processor = deliveries.issued_at, time.process_time() - processor
        durable = next(at for at, kids in watched.written if at > begin and signer not in kids)
        with state.store.read() as snapshot:
            left = [token for token in snapshot.tokens() if token.kid == signer and token.phase is not Phase.REVOKED]
            assert not left
            assert snapshot.counts()["tokens"] == count
        engine.close()
    return Taken(durable - begin, answered - begin, reissued - begin, processor)


def ask(state: State, kid: Kid) -> float:
    """Store the request and let it be carried out, as the first step of a tick does; return when it is answered."""
    reading = state.run.around.clock.read()
    draft = RequestRow(
        id=0,
        kind="key.revoke",
        arguments={"kid": kid},
        actor="ada(1000)",
        uid=1000,
        reason="leaked",
        created_at=reading.now,
    )
    request = accept(state.run, draft, reading)
    handle_requests(state.run, reading, clock_held=False)
    answered = time.perf_counter()
    answer = state.run.answers.wait(request.nonce, timedelta(0))
    assert answer is not None
    assert answer.succeeded, answer.text
    return answered


def due(state: State) -> bool:
    """Tell whether a workspace still waits for its token."""
    now = state.run.around.clock.read().now
    with state.store.read() as snapshot:
        return bool(snapshot.due_workspaces(tuple(state.run.signing), now, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspaces", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    count = options.workspaces
    limits: list[float] = []
    taken: list[Taken] = []
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as directory:
            before = measure_limit(Path(directory) / "before", count)
            daemon = measure_daemon(Path(directory) / "daemon", count)
            taken.append(measure(Path(directory) / "revoke", count))
            after = measure_limit(Path(directory) / "after", count)
        limits.append(statistics.mean((before.rate, after.rate)))
        show(f"round {number + 1}", count, limits[-1], daemon, taken[-1])
    limit = statistics.median(limits)
    rate = statistics.median(each.rate(count) for each in taken)
    durable = max(each.durable for each in taken)
    ratio = statistics.median(each.rate(count) / beside for each, beside in zip(taken, limits, strict=True))
    print(f"median:  {rate:6.0f}/s of a limit of {limit:6.0f}/s: ratio {ratio:.2f}; durable after {durable:.2f} s")
    if options.json:
        print(json.dumps({"limit": limit, "revoke": rate, "ratio": ratio, "durable_seconds": durable}))
    if durable >= DURABLE_WITHIN_SECONDS:
        print(
            f"MISSED: the set without the key was durable after {durable:.2f} s, not within {DURABLE_WITHIN_SECONDS:g}"
        )
    if ratio < LEAST_RATIO:
        print(f"MISSED: the ratio is below {LEAST_RATIO:g}")


def show(name: str, count: int, limit: float, daemon: Pace, taken: Taken) -> None:
    print(
        f"{name}:  durable {taken.durable:5.2f} s   answered {taken.answered:5.2f} s   reissued {taken.reissued:5.2f} s"
        f"   {taken.rate(count):6.0f}/s ({taken.processor / count * 1e6:3.0f} us of processor)"
        f"   limit {limit:6.0f}/s"
        f"   daemon {daemon.rate:6.0f}/s ({daemon.processor:3.0f} us)   ratio {taken.rate(count) / limit:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
