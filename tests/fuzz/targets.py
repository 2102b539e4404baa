"""What is fuzzed: each target takes any bytes, and raises whatever it is when a promise is broken.

The promise is the same for all: a result, or the error that is meant for bad input, saying what and where; never
another exception, never a secret in a message.
"""

import contextlib
import json
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Self

from rotator.adapters.clock import SystemClock
from rotator.adapters.kek import KekRing, parse_ring, read_ring_file
from rotator.adapters.sealing import SourcedKeyring
from rotator.adapters.signature import verify_signature
from rotator.adapters.store import open_store
from rotator.adapters.tokenmaker import JwtMaker
from rotator.adapters.witness import FileWitness
from rotator.config import load
from rotator.config.crontab import check_cron
from rotator.config.durations import parse_duration
from rotator.config.settings import ControlSettings
from rotator.control import ControlServer, _line, _parse, _refusal
from rotator.control_roles import Peer
from rotator.core.jwks import parse_kids, parse_set, publishable, render
from rotator.core.model import Algorithm, KekId, Kid
from rotator.core.secret import Secret
from rotator.errors import ConfigError, KekError, RotatorError, SealError, WitnessError
from rotator.report.verdict import Bench, Wanted, judge
from tests import scratch
from tests.engine.site import Site
from tests.test_control import Loop

Target = Callable[[bytes], None]
NOW = datetime(2026, 3, 2, 12, 0, 0, tzinfo=UTC)
PLACED = re.compile(r"/.*:[1-9][0-9]*: \S")
KEK = KekId("k1-fuzz")


def _workbench() -> Path:
    return Path(tempfile.mkdtemp(prefix="rotator-fuzz-", dir=scratch.place()))


def says(error: Exception, place: str = "") -> None:
    """Hold a message to what it is for: it is there, names the place, and can be written to any log."""
    text = str(error)
    assert text, "no message"
    assert place in text, f"{place} is not named in {text!r}"
    text.encode()


class Config:
    """A config file, or one that it includes."""

    def __init__(self, root: Path, included: str = "") -> None:
        self.path = root / "config.yaml"
        self.fuzzed = root / (included or "config.yaml")
        if included:
            self.path.write_text(f"issuer: https://a.example\ninclude: [{included}]\n")

    def __call__(self, data: bytes) -> None:
        self.fuzzed.write_bytes(data)
        try:
            load(self.path, {}, now=NOW)
        except ConfigError as error:
            for line in str(error).split("\n"):
                assert PLACED.match(line), f"no place in {line!r}"
            str(error).encode()


def duration(data: bytes) -> None:
    """Read a span of time: longer than nothing and no longer than a hundred years."""
    text = data.decode("utf-8", "replace")
    try:
        span = parse_duration(text)
    except ValueError as error:
        says(error)
        return
    assert timedelta(0) < span <= timedelta(days=36_600), span


def cron(data: bytes) -> None:
    """When a rotation window opens."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(ValueError):
        assert len(check_cron(text).split(" ")) == 5


def jwks(data: bytes) -> None:
    """Read a published set: what is taken is rendered, and read back as the same."""
    entries = parse_set(data)
    assert parse_kids(data) == (None if entries is None else tuple(kid for kid, _ in entries))
    for kid, text in entries or ():
        try:
            ours = publishable(text, kid=kid, algorithm=Algorithm.ES256)
        except ValueError as error:
            says(error)
            continue
        assert not {"d", "p", "q", "k", "priv"} & json.loads(ours).keys()
        assert dict(parse_set(render([ours])) or ()) == {Kid(json.loads(ours)["kid"]): ours}


class Token:
    """A token from anywhere, before the verdict on it and before a set; ours never comes out valid if it is not."""

    def __init__(self, root: Path) -> None:
        self.site = Site(root)
        self.site.main.start()
        self.set = self.site.main.jwks().read_bytes()
        self.ours = self.site.held("acme")
        self.maker = JwtMaker()
        self.site.main.stop()
        self.store = open_store(f"sqlite:///{self.site.database}", create=False, read_only=True)

    def __call__(self, data: bytes) -> None:
        text = data.decode("latin-1").replace("OURS", self.ours).replace("HEAD", self.ours.split(".")[0])
        token = Secret(text)
        with contextlib.suppress(SealError):
            self.maker.verify_with(token, self.set)
            assert text == self.ours, "another token verifies"
        with self.store.read() as snapshot:
            bench = Bench(
                snapshot=snapshot,
                policy=self.site.policy,
                now=self.site.clock.wall,
                verify_signature=verify_signature,
                published_set=lambda _: self.set,
            )
            verdict = judge(token, Wanted(), bench)
        assert verdict.verdict, "no verdict"
        assert verdict.valid == (text == self.ours), verdict
        json.dumps([check.text for check in verdict.checks])


class Control:
    """A line over the control socket, by root, before a daemon that carries out what it is asked."""

    def __init__(self, root: Path) -> None:
        site = Site(root)
        site.main.start()
        site.main.stop()
        self.store = open_store(f"sqlite:///{site.database}", create=False)
        self.loop = Loop(self.store, outcome=(True, "done", None))
        self.connection, self.client = socket.socketpair()
        self.server = ControlServer(
            settings=ControlSettings(root / "control.sock", (), (), ()),
            store=self.store,
            clock=SystemClock(),
            policy=lambda: site.policy,
            faults=dict,
            wake=self.loop.wake,
            accept=self.loop.accept,
            answers=self.loop.answers,
            log=self.loop,
            published_set=lambda _: None,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self.client.close()
        self.store.close()

    def __call__(self, data: bytes) -> None:
        try:
            call = _parse(data)
            reply = {"ok": True, "result": self.server._answer(self.connection, Peer(0, 0), call)}
        except RotatorError as error:
            says(error)
            reply = dict(_refusal(error))
        line = _line(reply)
        assert line.count(b"\n") == 1
        assert isinstance(json.loads(line), dict)


class Witness:
    """The witness file; where it begins with an S, the rest is sealed, as if this or another version wrote it."""

    def __init__(self, root: Path) -> None:
        ring = KekRing({KEK: Secret(bytes(32))})
        self.sealer = SourcedKeyring(lambda: ring).unlock(())
        self.path = root / "witness.json"
        self.witness = FileWitness(self.path, lambda: self.sealer)

    def __call__(self, data: bytes) -> None:
        if data.startswith(b"S"):
            body = data[1:].replace(b"\n", b" ")
            seal = {"kek_id": KEK, "mac": self.sealer.mac("witness", body).hex()}
            data = body + b"\n" + json.dumps(seal).encode() + b"\n"
        self.path.write_bytes(data)
        try:
            self.witness.read()
        except WitnessError as error:
            says(error, str(self.path))


class Kek:
    """A file of key-encryption keys, one of which may be in the wrong place: no message repeats it."""

    def __init__(self, root: Path) -> None:
        self.path = root / "kek"

    def __call__(self, data: bytes) -> None:
        self.path.touch(0o600)
        self.path.write_bytes(data)
        ids: set[str] = set()
        for read, place in ((self._read, str(self.path)), (self._parse, "$X")):
            try:
                ids |= set(read(data).keys)
            except KekError as error:
                says(error, place)
                self._tells_no_key(data, str(error))
        assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,64}", kek_id) for kek_id in ids)

    def _read(self, _data: bytes) -> KekRing:
        return read_ring_file(self.path)

    @staticmethod
    def _parse(data: bytes) -> KekRing:
        return parse_ring(data.decode("utf-8", "replace"), "$X")

    @staticmethod
    def _tells_no_key(data: bytes, message: str) -> None:
        for line in data.decode("latin-1").splitlines():
            for place, word in enumerate(line.split()):
                # An id that is one may be named; whatever else is long may be a key.
                assert place == 0 or len(word) < 20 or word not in message, "a key is told"


MAKERS: Mapping[str, Callable[[Path], Target]] = MappingProxyType(
    {
        "config": Config,
        "workspaces": lambda root: Config(root, "w.yaml"),
        "json": lambda root: Config(root, "w.json"),
        "duration": lambda _: duration,
        "cron": lambda _: cron,
        "jwks": lambda _: jwks,
        "token": Token,
        "control": Control,
        "witness": Witness,
        "kek": Kek,
    }
)
"""How each target is made, in a directory that is its own."""


@contextlib.contextmanager
def target(name: str) -> Iterator[Target]:
    """Make a target, and clear away what it needed."""
    root = _workbench()
    try:
        made = MAKERS[name](root)
        with made if isinstance(made, Control) else contextlib.nullcontext():
            yield made
    finally:
        shutil.rmtree(root)
