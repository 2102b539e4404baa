"""The process that signs large batches gives what signing here gives, and whatever happens to it loses nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rotator.adapters import minting
from rotator.adapters.isolated import how_it_ended
from rotator.adapters.minting import MOST_FAILURES, Batch, MintingProcess
from rotator.adapters.sealing import AesGcmSealer
from rotator.adapters.signing import base64url
from rotator.adapters.tokenmaker import WORTH_STARTING, WORTH_WARMING, JwtMaker
from rotator.core.model import Algorithm
from rotator.core.secret import Secret
from rotator.ports import MintOrder, Signer
from tests.adapters.test_sealing import NEW, ring
from tests.adapters.test_tokenmaker import MATERIAL, loaded, order
from tests.patience import wait_until

SEALER = AesGcmSealer(ring(NEW))
ORDERS = [order(jti=f"{number:05}", workspace=f"w{number}", roles=("rôle\n",)) for number in range(WORTH_STARTING)]


@pytest.fixture
def process() -> Iterator[MintingProcess]:
    process = MintingProcess()
    process.start()
    yield process
    process.close()


@pytest.fixture
def maker() -> Iterator[JwtMaker]:
    maker = JwtMaker(threads=2)
    yield maker
    maker.close()


def batch_of(*claims: str, algorithm: Algorithm = Algorithm.ES256, private: Secret[bytes] | None = None) -> Batch:
    return Batch(
        algorithm=algorithm,
        private=MATERIAL[algorithm].private if private is None else private,
        header=b"header.",
        sealing=SEALER.sealing("token", "kid", algorithm),
        identities=[f"jti-{number}" for number in range(len(claims))],
        claims=claims,
    )


def texts(maker: JwtMaker, signer: Signer, orders: list[MintOrder]) -> list[str]:
    """Mint as the daemon does, and open what is sealed."""
    sealed = maker.mint_sealed(signer, orders, SEALER.sealing("token", signer.kid, signer.algorithm))
    return [
        SEALER.open("token", order.identity, signer.kid, signer.algorithm, SEALER.kek_id, record).reveal().decode()
        for order, (record, _) in zip(orders, sealed, strict=True)
    ]


def pid_of(process: MintingProcess) -> int:
    assert process.pid is not None
    return process.pid


def wait_until_ready(process: MintingProcess) -> None:
    wait_until(
        lambda: process.mint(batch_of("{}", algorithm=Algorithm.EDDSA)) is not None,
        "the process starts",
        still_possible=lambda: process.pid is not None,
    )


def wait_until_gone(pid: int) -> None:
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the process ends")


def minted_here(algorithm: Algorithm, orders: list[MintOrder]) -> list[str]:
    maker = JwtMaker(threads=1)
    return [token.reveal() for token in maker.mint_batch(loaded(maker, algorithm), orders)]


@pytest.mark.parametrize("algorithm", Algorithm)
def test_batch_is_the_same_wherever_it_is_signed(maker: JwtMaker, algorithm: Algorithm) -> None:
    """Byte for byte, as signatures do not depend on randomness."""
    orders = ORDERS if algorithm is not Algorithm.RS256 else ORDERS[:40]
    maker.warm_up(WORTH_WARMING)
    wait_until_ready(maker._process)
    assert texts(maker, loaded(maker, algorithm), orders) == minted_here(algorithm, orders)


def test_process_signs_what_it_is_sent(process: MintingProcess) -> None:
    wait_until_ready(process)
    batch = batch_of("{}", '{"a":"é"}')
    sealed = process.mint(batch)
    assert sealed is not None
    tokens = [
        SEALER.open("token", jti, "kid", Algorithm.ES256, SEALER.kek_id, record).reveal()
        for jti, (record, _) in zip(batch.identities, sealed, strict=True)
    ]
    assert [token.rpartition(b".")[0] for token in tokens] == [b"header.e30", b"header.eyJhIjoiw6kifQ"]


def test_several_threads_get_each_its_own(process: MintingProcess) -> None:
    """While one waits for its answer the next one's batch is on its way, and answers keep their order."""
    wait_until_ready(process)
    batches = [batch_of(*(f'{{"n":{number},"m":{each}}}' for each in range(20 + number))) for number in range(24)]
    with ThreadPoolExecutor(max_workers=6) as threads:
        answers = list(threads.map(process.mint, batches))
    for batch, sealed in zip(batches, answers, strict=True):
        assert sealed is not None
        for jti, claims, (record, mac) in zip(batch.identities, batch.claims, sealed, strict=True):
            assert SEALER.verify_mac("token", jti.encode(), mac, SEALER.kek_id)
            token = SEALER.open("token", jti, "kid", Algorithm.ES256, SEALER.kek_id, record).reveal()
            assert token.split(b".")[1] == base64url(claims.encode())


def test_process_lost_under_several_threads_is_one_failure(process: MintingProcess) -> None:
    wait_until_ready(process)
    os.kill(pid_of(process), signal.SIGKILL)
    with ThreadPoolExecutor(max_workers=4) as threads:
        assert list(threads.map(process.mint, [batch_of("{}")] * 4)) == [None] * 4
    assert process.pid is None
    assert process._failures == 1


def test_large_batch_starts_the_process_for_the_next_one(maker: JwtMaker) -> None:
    signer = loaded(maker)
    assert maker._process.pid is None
    assert texts(maker, signer, ORDERS[:-1]) == minted_here(Algorithm.ES256, ORDERS[:-1])
    assert maker._process.pid is None
    assert texts(maker, signer, ORDERS) == minted_here(Algorithm.ES256, ORDERS)
    wait_until_ready(maker._process)


@pytest.mark.parametrize(("expected", "starts"), [(WORTH_WARMING - 1, False), (WORTH_WARMING, True)])
def test_process_is_started_ahead_for_many_workspaces_only(maker: JwtMaker, expected: int, *, starts: bool) -> None:
    maker.warm_up(expected)
    assert (maker._process.pid is not None) is starts


def test_one_processor_is_not_shared() -> None:
    maker = JwtMaker(threads=1)
    maker.warm_up(WORTH_WARMING)
    assert maker._process.pid is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda number: number.name)
def test_lost_process_loses_no_token(maker: JwtMaker, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """Killed, or so stuck that it is given up: the batch is signed here, and another process is there for the next."""
    monkeypatch.setattr(minting, "PATIENCE_SECONDS", 0.2)
    maker.warm_up(WORTH_WARMING)
    wait_until_ready(maker._process)
    lost = pid_of(maker._process)
    os.kill(lost, number)
    assert texts(maker, loaded(maker), ORDERS) == minted_here(Algorithm.ES256, ORDERS)
    assert pid_of(maker._process) != lost
    wait_until_gone(lost)
    wait_until_ready(maker._process)


def test_process_that_always_fails_is_not_started_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    process = MintingProcess()
    for _ in range(MOST_FAILURES):
        process.start()
        pid = pid_of(process)
        while process.pid == pid:
            assert process.mint(batch_of("{}")) is None
    process.start()
    assert process.pid is None


def test_after_a_rest_another_one_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """For ever it would cost more than it gains; never would leave a daemon slow that runs for years."""
    hours = 0.0
    process = MintingProcess(lambda: 3600 * hours)
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/bin/false")
        process.start()
        while "exit code 1" not in process.trouble():
            process.mint(batch_of("{}"))
        while process._failures < MOST_FAILURES:
            process.trouble()
        process.start()
        assert process.pid is None
    assert process.trouble() == "it ended with exit code 1"
    assert process.pid is None
    hours = 1.0
    wait_until(lambda: not process.trouble(), "another one is ready")
    assert process.pid is not None
    process.close()


def test_how_a_process_ended_is_told_until_another_one_is_ready(process: MintingProcess) -> None:
    assert process.trouble() == ""
    wait_until_ready(process)
    os.kill(pid_of(process), signal.SIGKILL)
    assert process.mint(batch_of("{}")) is None
    assert process.trouble() == "it was killed by SIGKILL: is the machine out of memory?"
    wait_until(lambda: not process.trouble(), "another one is ready")


@pytest.mark.parametrize(
    ("code", "said"),
    [(0, "ended with exit code 0"), (-signal.SIGSEGV, "was killed by SIGSEGV"), (-40, "was killed by signal 40")],
)
def test_how_a_process_ended(code: int, said: str) -> None:
    assert how_it_ended(code) == f"it {said}"


def test_no_process_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    process = MintingProcess()
    process.start()
    assert process.pid is None
    assert process.mint(batch_of("{}")) is None
    assert process.trouble() == "none could be started: No such file or directory"


def test_key_that_is_none_ends_the_process_and_nothing_else(process: MintingProcess) -> None:
    wait_until_ready(process)
    assert process.mint(batch_of("{}", private=Secret(b"not a key"))) is None
    assert process.pid is None


def test_signals_to_the_whole_service_are_for_the_parent(process: MintingProcess) -> None:
    """Else a stop in the middle of a batch would cut it off."""
    wait_until_ready(process)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid_of(process), number)
    wait_until_ready(process)
    assert os.getpgid(pid_of(process)) != os.getpgid(0)


def test_process_never_outlives_its_parent() -> None:
    parent = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, signal\n"
            "from rotator.adapters.minting import MintingProcess\n"
            "process = MintingProcess()\n"
            "process.start()\n"
            "print(process.pid, flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)",
        ],
        capture_output=True,
        check=False,
    )
    assert parent.returncode == -signal.SIGKILL
    wait_until_gone(int(parent.stdout))


def test_nothing_secret_is_among_arguments_and_environment(maker: JwtMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may see the processes of a machine sees these; the KEK may be in the environment of the daemon."""
    monkeypatch.setenv("ROTATOR_KEK", "k1 c2VjcmV0")
    maker.warm_up(WORTH_WARMING)
    wait_until_ready(maker._process)
    (first, *_) = texts(maker, loaded(maker), ORDERS)
    process = Path(f"/proc/{pid_of(maker._process)}")
    seen = (process / "cmdline").read_bytes()
    try:
        seen += (process / "environ").read_bytes()
    except PermissionError:
        assert os.geteuid() != 0  # as of any process that leaves no dump, root alone may see it
    private = MATERIAL[Algorithm.ES256].private.reveal()
    sealing_key = SEALER.sealing("token", "kid", Algorithm.ES256).key.reveal()
    assert b"rotator.adapters.minting" in seen
    for secret in (b"ROTATOR_KEK", b"c2VjcmV0", private, private.hex().encode(), first.encode(), sealing_key):
        assert secret not in seen


def test_closed_process_is_gone(process: MintingProcess) -> None:
    wait_until_ready(process)
    pid = pid_of(process)
    process.close()
    assert not Path(f"/proc/{pid}").exists()
    assert process.mint(batch_of("{}")) is None
