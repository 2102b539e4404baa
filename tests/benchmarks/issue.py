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
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from sqlalchemy import insert

from rotator.adapters.store.schema import tokens
from rotator.engine.issue import issue_due
from rotator.engine.keysets import turn_keyset
from rotator.engine.tick import Engine
from tests.benchmarks.states import state_with


def measure_limit(directory: Path, count: int) -> float:
    """Return tokens per second of the bare work."""
    with state_with(directory, 0) as state:
        engine = state.engine()
        engine.tick()
        sealer = state.run.ready_sealer
        key = ec.generate_private_key(ec.SECP256R1())
        message = b"x" * 330  # header and claims of the daemon's own tokens, encoded
        now = time.time_ns() // 1000
        begin = time.perf_counter()
        algorithm = ec.ECDSA(SHA256(), deterministic_signing=True)
        signatures = [key.sign(message, algorithm) for _ in range(count)]
        sealed = [sealer.seal("token", f"{n:032x}", "kid", "ES256", message + s) for n, s in enumerate(signatures)]
        rows = [
            (f"{n:032x}", f"w{n:06}", "default", "k" * 43, "active", 1, now, now, now, "first", "k1-00000000", blob)
            for n, blob in enumerate(sealed)
        ]
        names = "jti workspace keyset kid phase sequence issued_at expires_at rotate_at reason kek_id sealed".split()
        statement = f"INSERT INTO tokens ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608
        with state.store._engine.begin() as connection:
            connection.exec_driver_sql(statement, rows)
        rate = count / (time.perf_counter() - begin)
        engine.close()
    assert insert(tokens) is not None
    return rate


def measure_daemon(directory: Path, count: int) -> float:
    """Return tokens per second of the daemon, from all being due to all being committed."""
    with state_with(directory, count) as state:
        engine: Engine = state.engine()
        prepare(engine)
        reading = state.run.around.clock.read()
        begin = time.perf_counter()
        while issue_due(state.run, reading):
            pass
        rate = count / (time.perf_counter() - begin)
        with state.store.read() as snapshot:
            assert snapshot.counts()["tokens"] == count
        engine.close()
    return rate


def prepare(engine: Engine) -> None:
    """Bring keys and workspaces into the database, and issue nothing yet."""
    run = engine.run
    reading = run.around.clock.read()
    engine._unlock(reading, check=True)
    engine._judge_clock(reading)
    engine._reconcile(reading)
    engine._start(reading)
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
        print(f"round {number + 1}: limit {limits[-1]:8.0f}/s   daemon {daemons[-1]:8.0f}/s", flush=True)
    limit, daemon = statistics.median(limits), statistics.median(daemons)
    print(f"median:  limit {limit:8.0f}/s   daemon {daemon:8.0f}/s   ratio {daemon / limit:.2f}")
    if options.json:
        print(json.dumps({"limit": limit, "daemon": daemon, "ratio": daemon / limit}))


if __name__ == "__main__":
    main()
