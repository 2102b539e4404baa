"""A machine of Debian that boots its own systemd, and commands in it."""

import json
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.patience import HANG_SECONDS

Found = TypeVar("Found")


class Container:
    """A tree that is booted, with no network but its own loopback. Wants root and systemd-nspawn."""

    def __init__(self, tree: Path, console: Path) -> None:
        self.tree: Final = tree
        self._console = console
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = ""

    @contextmanager
    def booted(self) -> Iterator["Container"]:
        """Boot it, and power it off at the end."""
        try:
            self._boot()
            yield self
            self._power_off()
        finally:
            if self._nspawn is not None and self._nspawn.poll() is None:
                self._nspawn.kill()
                self._nspawn.wait()

    def reboot(self) -> None:
        """Power it off and boot it again: all but what is in memory stays."""
        self._power_off()
        self._boot()

    def _boot(self) -> None:
        command = ["systemd-nspawn", "--boot", "--register=no", "--keep-unit", "--quiet", "--private-network"]
        with self._console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                [*command, "--console=pipe", "-D", self.tree], stdin=subprocess.DEVNULL, stdout=console, stderr=console
            )
        self.wait_for(self._is_up, "it is up")

    def _is_up(self) -> bool:
        # Looked up each time: at first it is another one, which makes the first process of the container and ends.
        self._leader = self._find_leader()
        if not self._leader:
            return False
        return self.run("systemctl is-system-running").stdout.strip() in ("running", "degraded")

    def _power_off(self) -> None:
        assert self._nspawn is not None
        self.run("systemctl poweroff")
        self._nspawn.wait(HANG_SECONDS)

    def _find_leader(self) -> str:
        assert self._nspawn is not None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        assert self._nspawn.poll() is None, f"systemd-nspawn has ended:\n{self._console.read_text()[-3000:]}"
        return children.read_text().strip().partition(" ")[0]

    def run(self, script: str, *, user: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run lines of bash in it, as root unless another user is named."""
        enter = ["nsenter", "--target", self._leader, "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]
        given = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        clean = ["env", "-i", *(f"{name}={value}" for name, value in (given | environment).items())]
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
        return subprocess.run(
            [*enter, *clean, *become, "bash", "-c", script],
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def tell(self, script: str, *, user: str = "", **environment: str) -> str:
        """Run lines of bash, which must each succeed, and return what they printed."""
        done = self.run(f"set -euo pipefail\n{script}", user=user, **environment)
        assert done.returncode == 0, f"{script}\n{done.returncode}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout.strip()

    def json(self, script: str) -> Any:
        """Return the JSON that a command printed, whether all was well or not."""
        done = self.run(script)
        assert done.returncode in (0, 3), f"{script}\n{done.returncode}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def unit(self, property_: str) -> str:
        """Return a property of the service, as systemd has it."""
        return self.tell(f"systemctl show rotator --property={shlex.quote(property_)} --value")

    def wait_for(self, look: Callable[[], Found], what: str) -> Found:
        """Look until there is something, and return it."""
        deadline = time.monotonic() + HANG_SECONDS
        while not (found := look()):
            assert time.monotonic() < deadline, (
                f"not within {HANG_SECONDS:.0f} s: {what}\n{self._console.read_text()[-3000:]}"
            )
            time.sleep(0.2)
        return found
