"""The real daemon as a process, and verifiers that watch what it publishes."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jwt

from tests import forking
from tests.patience import HANG_SECONDS, wait_until

ISSUER = "http://localhost:8000"


@dataclass
class Site:
    """A directory with a config, a state, a published tree and delivered tokens."""

    root: Path

    def write_config(
        self,
        *,
        workspaces: int = 5,
        algorithm: str = "ES256",
        keyset_period: str = "4s",
        token_period: str = "2s",  # noqa: S107 - spans of time, no secrets
        token_grace: str = "20s",  # noqa: S107 - longer than a busy machine keeps the daemon from its work
        max_cache: str = "1s",
        propagation: str = "1s",
        extra: str = "",
    ) -> Path:
        lines = [
            f"issuer: {ISSUER}",
            f"consumers: {{max_cache: {max_cache}}}",
            "clock_skew: 0s",
            "publish: {lag: 0s}",
            "log: {format: json}",
            "keysets:",
            f"  default: {{algorithm: {algorithm}, security_period: {keyset_period},",
            f"    propagation_period: {propagation}}}",
            f"defaults: {{security_period: {token_period}, grace_period: {token_grace}, audience: [api]}}",
            "workspaces:",
        ]
        for number in range(workspaces):
            lines.append(f"  w{number}:")
            lines.append("    roles: [admin]")
            lines.append("    permissions: [metrics:write]")
            lines.append(f"    deliver: [file: {{path: delivered/w{number}/token}}]")
        self.config.write_text("\n".join(lines) + "\n" + extra)
        return self.config

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def state(self) -> Path:
        return self.root / "rotator-data"

    @property
    def jwks(self) -> Path:
        return self.state / "public" / ".well-known" / "jwks.json"

    @property
    def database(self) -> Path:
        return self.state / "rotator.db"

    def token_files(self) -> list[Path]:
        return sorted(self.root.glob("delivered/*/token"))

    def rotator(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        done = forking.run(
            ["--config", str(self.config), *arguments],
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
            env=environment(),
        )
        assert done.returncode == 0 or not check, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str) -> Any:
        """Run a command with ``--json`` and return what it printed."""
        done = self.rotator(*arguments, "--json", check=False)
        assert done.returncode in (0, 3), done.stderr
        return json.loads(done.stdout)

    def events(self) -> list[dict[str, Any]]:
        """Return every audit event, from the database itself."""
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT * FROM audit ORDER BY seq")]

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=HANG_SECONDS) as connection:
            return connection.execute(sql).fetchall()


def environment() -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "COVERAGE_PROCESS_START", "PYTHONPATH")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONUNBUFFERED": "1"}


@dataclass
class Process:
    """A running daemon, with its output in a file."""

    process: subprocess.Popen[bytes]
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=HANG_SECONDS)


def start(
    site: Site,
    *,
    log: str = "daemon.log",
    environ: Mapping[str, str] = MappingProxyType({}),
    own_interpreter: bool = False,
) -> Process:
    """Start the daemon; with an interpreter of its own where that matters, as for what the environment has it load."""
    path = site.root / log
    command = ["--config", str(site.config), "run"]
    env = {**environment(), **environ}
    with path.open("ab") as output:
        if own_interpreter:
            command = [sys.executable, "-m", "rotator", *command]
            return Process(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env), path)
        return Process(forking.Rotator(command, stdout=output, stderr=subprocess.STDOUT, env=env), path)


@contextmanager
def running(site: Site, *, own_interpreter: bool = False) -> Iterator[Process]:
    process = start(site, own_interpreter=own_interpreter)
    try:
        wait_for(lambda: "daemon.ready" in process.log.read_text(), process, "the daemon is ready")
        yield process
    finally:
        if process.process.poll() is None:
            process.stop()


def wait_for(condition: Callable[[], bool], process: Process | None, what: str) -> None:
    """Wait until the condition holds; fail, with the end of the log, when the daemon ended or hangs."""
    runs = (lambda: True) if process is None else (lambda: process.process.poll() is None)
    try:
        wait_until(condition, what, still_possible=runs, every=0.05)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{'' if process is None else process.log.read_text()[-4000:]}") from None


@dataclass
class Verifier:
    """Checks every delivered token from the published file alone, with a cache that it renews as real ones do.

    The copy of the set is kept for ``max_age_seconds``; unless it ``refetches``, it is never fetched anew because a kid
    is unknown: the habit that forgives least.
    """

    site: Site
    max_age_seconds: float
    refetches: bool = False
    fetches: int = 0
    checked: int = 0
    refused: list[str] = field(default_factory=list)
    largest_set: int = 0
    kids: set[str] = field(default_factory=set)
    jtis: set[str] = field(default_factory=set)
    _cache: Mapping[str, Any] = field(default_factory=dict)
    _fetched_at: float = float("-inf")
    _stop: threading.Event = field(default_factory=threading.Event)

    def check_all(self) -> None:
        for path in self.site.token_files():
            try:
                token = path.read_text().strip()
            except FileNotFoundError:
                continue
            self.check(token)

    def check(self, token: str) -> None:
        kid = jwt.get_unverified_header(token)["kid"]
        keys = self._keys()
        if self.refetches and kid not in keys:
            self._fetched_at = float("-inf")
            keys = self._keys()
        self.checked += 1
        if kid not in keys:
            self.refused.append(f"unknown kid {kid}, known {sorted(keys)}")
            return
        try:
            claims = jwt.decode(token, keys[kid], algorithms=["ES256", "RS256", "EdDSA"], audience="api", issuer=ISSUER)
        except jwt.InvalidTokenError as error:
            self.refused.append(f"{error} (kid {kid}, known {sorted(keys)})")
        else:
            self.kids.add(kid)
            self.jtis.add(claims["jti"])

    def _keys(self) -> Mapping[str, Any]:
        if time.monotonic() - self._fetched_at > self.max_age_seconds:
            self._fetched_at = time.monotonic()
            self.fetches += 1
            document = json.loads(self.site.jwks.read_text())
            self.largest_set = max(self.largest_set, len(document["keys"]))
            self._cache = {key["kid"]: jwt.PyJWK(key) for key in document["keys"]}
        return self._cache

    @contextmanager
    def watching(self, *, every_seconds: float = 0.05) -> Iterator["Verifier"]:
        failures: list[BaseException] = []

        def loop() -> None:
            try:
                while not self._stop.wait(every_seconds):
                    self.check_all()
            except BaseException as error:  # noqa: BLE001 - carried to the test
                failures.append(error)

        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()
        assert not failures, failures


def events_by_subject(site: Site) -> Counter[tuple[str, str]]:
    """Count audit events by name and by the key or token that they are about."""
    return Counter((event["name"], event["jti"] or event["kid"] or event["keyset"] or "") for event in site.events())
