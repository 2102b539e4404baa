"""Tokens issued per second, sealed and committed, against the limit of the same machine in the same run.

The limit is what no daemon can beat in one process: the same signatures, the same seals and one bulk insert into the
real token table with its indexes and pragmas, and nothing else. The daemon's side does its whole job: plans, claims,
workspace and delivery rows, the audit chain, commits in batches.

    python -m tests.benchmarks.issue [--workspaces 20000] [--rounds 5]
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from rotator.core.model import WorkspaceId
from rotator.engine.issue import issue_due
from rotator.engine.keysets import turn_keyset
from rotator.engine.rows import PURPOSE_TOKEN, identity_of
from rotator.engine.tick import Engine
from tests.benchmarks.states import state_with


@dataclass(frozen=True, slots=True)
class Pace:
    """What a token takes, in microseconds."""

    wall: float
    processor: float
    """Of this process: what another one signs is not in it."""

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return 1e6 / self.wall


@dataclass(frozen=True, slots=True)
class Begin:
    """When the measured work began."""

    wall: float = field(default_factory=time.perf_counter)
    processor: float = field(default_factory=time.process_time)

    def per_token(self, count: int) -> Pace:
        """Return what has passed since, for each of ``count`` tokens."""
        return Pace(
            (time.perf_counter() - self.wall) / count * 1e6, (time.process_time() - self.processor) / count * 1e6
        )


def measure_limit(directory: Path, count: int) -> Pace:
    """Return the pace of the bare work."""
    with state_with(directory, 0) as state:
        engine = state.engine()
        engine.tick()
        sealer = state.run.ready_sealer
        key = ec.generate_private_key(ec.SECP256R1())
        message, length = token_of(directory)
        now = time.time_ns() // 1000
        begin = Begin()
        algorithm = ec.ECDSA(SHA256(), deterministic_signing=True)
        signatures = [key.sign(message, algorithm) for _ in range(count)]
        text = message.ljust(length, b".")
        mac = bytes(32)
        sealed = [sealer.seal("token", f"{n:032x}", "k" * 43, "ES256", text) for n in range(len(signatures))]
        rows = [
            (
                f"{n:032x}",
                f"w{n:06}",
                "default",
                "k" * 43,
                "active",
                1,
                now,
                now,
                now,
                "first",
                "k1-00000000",
                mac,
                blob,
            )
            for n, blob in enumerate(sealed)
        ]
        names = "jti, workspace, keyset, kid, phase, sequence, issued_at, expires_at, rotate_at, reason, kek_id, mac"
        names += ", sealed"
        statement = f"INSERT INTO tokens ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - two constants
        with state.store._engine.begin() as connection:
            connection.exec_driver_sql(statement, rows)
        pace = begin.per_token(count)
        engine.close()
    return pace


def token_of(directory: Path) -> tuple[bytes, int]:
    """Return what is signed of one of the daemon's own tokens, and how long the whole token is."""
    with state_with(directory / "one", 1) as state:
        engine = state.engine()
        engine.tick()
        with state.store.read() as snapshot:
            (row,) = snapshot.current_tokens([WorkspaceId("w000000")]).values()
        assert row.sealed is not None
        token = row.token
        text = state.run.ready_sealer.open(
            PURPOSE_TOKEN, identity_of(token), token.kid, "ES256", row.kek_id, row.sealed
        ).reveal()
        engine.close()
    return text.rpartition(b".")[0], len(text)


def measure_daemon(directory: Path, count: int) -> Pace:
    """Return the pace of the daemon, from all being due to all being committed."""
    with state_with(directory, count) as state:
        engine: Engine = state.engine()
        prepare(engine)
        reading = state.run.around.clock.read()
        begin = Begin()
        while issue_due(state.run, reading):
            pass
        pace = begin.per_token(count)
        with state.store.read() as snapshot:
            assert snapshot.counts()["tokens"] == count
        engine.close()
    return pace


def prepare(engine: Engine) -> None:
    """Bring keys and workspaces into the database, and issue nothing yet."""
    run = engine.run
    reading = run.around.clock.read()
    engine._unlock(reading, check=True)
    engine._judge_clock(reading)
    engine._reconcile(reading, held=False)
    while engine._start(reading):
        pass
    for name in run.policy.keysets:
        turn_keyset(run, name, reading)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspaces", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    limits, daemons = [], []
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as directory:
            limits.append(measure_limit(Path(directory) / "limit", options.workspaces))
            daemons.append(measure_daemon(Path(directory) / "daemon", options.workspaces))
        show(f"round {number + 1}", limits[-1], daemons[-1])
    limit, daemon = median(limits), median(daemons)
    show("median", limit, daemon)
    if options.json:
        print(json.dumps({"limit": limit.rate, "daemon": daemon.rate, "ratio": daemon.rate / limit.rate}))


def median(paces: list[Pace]) -> Pace:
    return Pace(statistics.median(pace.wall for pace in paces), statistics.median(pace.processor for pace in paces))


def show(name: str, limit: Pace, daemon: Pace) -> None:
    print(
        f"{name}:  limit {limit.rate:6.0f}/s ({limit.processor:3.0f} us of processor)"
        f"   daemon {daemon.rate:6.0f}/s ({daemon.processor:3.0f} us)   ratio {daemon.rate / limit.rate:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
