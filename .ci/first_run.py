"""Runs exactly the README's run command in the current directory, and waits until it has done what it promises.

Within a minute of the installation, the key sets must be valid, each example workspace must have a token that verifies
against them, and ``status`` must be content. Then Ctrl-C must end it, with exit code 0.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

INSTALL_SECONDS = 420
RUN_SECONDS = 60
STOP_SECONDS = 10
LOG = Path("../first-run.log")

VERIFY = """
import json, sys
from pathlib import Path
from joserfc import jwt
from joserfc.jwk import KeySet

public = Path("rotator-data/public")
tokens = {
    "acme": ("default", Path("delivered/acme/token").read_text()),
    "globex": ("default", json.loads(Path("delivered/globex/token.json").read_text())["token"]),
    "initech": ("payments", dict(
        line.split("=", 1) for line in Path("delivered/initech/token.env").read_text().split("\\n") if "=" in line
    )["TOKEN"].strip("'\\"")),
}
for workspace, (keyset, token) in tokens.items():
    keys = KeySet.import_key_set(json.loads((public / "keysets" / keyset / "jwks.json").read_text()))
    claims = jwt.decode(token.strip(), keys, algorithms=["ES256"]).claims
    assert claims["workspace"] == claims["sub"] == workspace, claims
assert (public / ".well-known/jwks.json").read_bytes() == (public / "keysets/default/jwks.json").read_bytes()
print(f"{len(tokens)} tokens verify against the published sets")
"""


def main() -> int:
    """Return the exit code."""
    command = subprocess.run(
        [sys.executable, "tests/readme.py", "run"], check=True, capture_output=True, text=True
    ).stdout.strip()
    print(f"$ {command}")
    with LOG.open("wb") as log:
        daemon = subprocess.Popen(["/bin/bash", "-c", command], stdout=log, stderr=log, start_new_session=True)
        try:
            problem = watch(daemon)
        finally:
            if daemon.poll() is None:
                os.killpg(daemon.pid, signal.SIGKILL)
    if problem:
        print(f"{problem}\n{LOG.read_text()}")
    return 1 if problem else 0


def watch(daemon: subprocess.Popen[bytes]) -> str:
    """Wait for each thing in turn; return what went wrong, or nothing."""
    program = Path(".venv/bin/rotator")
    if not wait_for(program.exists, daemon, INSTALL_SECONDS):
        return "it was not installed"
    installed_at = time.monotonic()
    if not wait_for(verified, daemon, RUN_SECONDS):
        return f"no valid sets and tokens {RUN_SECONDS} s after the installation: {verify().stderr}"
    print(f"{time.monotonic() - installed_at:.1f} s after the installation: {verify().stdout.strip()}")
    status = subprocess.run(
        [program, "--config", "config.example.yaml", "status"], check=False, capture_output=True, text=True
    )
    print(status.stdout + status.stderr)
    if status.returncode:
        return f"status ended with {status.returncode}"
    os.killpg(daemon.pid, signal.SIGINT)
    try:
        code = daemon.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        return f"it still runs {STOP_SECONDS} s after Ctrl-C"
    return f"Ctrl-C ended it with {code}" if code else ""


def wait_for(happened: Callable[[], bool], daemon: subprocess.Popen[bytes], seconds: float) -> bool:
    """Tell whether it happened before the daemon ended and the time was up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and daemon.poll() is None:
        if happened():
            return True
        time.sleep(0.2)
    return False


def verify() -> subprocess.CompletedProcess[str]:
    """Verify as a verifier would, from the files alone."""
    return subprocess.run([".venv/bin/python", "-c", VERIFY], check=False, capture_output=True, text=True)


def verified() -> bool:
    """Tell whether all sets and tokens are there and fit."""
    return verify().returncode == 0


if __name__ == "__main__":
    sys.exit(main())
