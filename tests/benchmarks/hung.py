"""Sinks that hang beside healthy ones, each of which is always to hold a valid token.

Forty commands and four file systems (made by root on loop devices, frozen, as a dead network mount hangs) hang from one
moment on, when each sink has a token; a hundred files do not. Then in which part of its grace `status` names what
hangs, how long a stop takes, and the next start.

    python -m tests.benchmarks.hung [--minutes 10] [--commands 40] [--mounts 4] [--files 100]
"""

import argparse
import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

GRACE_SECONDS = 60
STOP_SECONDS = 5.0
NAMED_WITHIN = 0.25
"""Of the grace."""
ASKING_SECONDS = 3
"""How long it may take to ask."""


def run(*command: str | Path, check: bool = True) -> bool:
    return subprocess.run(command, capture_output=True, check=check).returncode == 0


@contextmanager
def mounted(root: Path, number: int) -> Iterator[Path]:
    """Give a mounted file system that may be frozen."""
    image, mount = root / f"image{number}", root / f"mount{number}"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    run("mkfs.ext4", "-q", image)
    run("mount", "-o", "loop", image, mount)
    try:
        yield mount
    finally:
        run("fsfreeze", "-u", mount, check=False)
        for _ in range(100):
            if run("umount", mount, check=False):
                break
            time.sleep(0.1)


PUSH = """#!/bin/sh
if [ -e {root}/hangs ]; then exec sleep 3600; fi
cat > {root}/pushed-$1
"""


def write_config(root: Path, mounts: Sequence[Path], options: argparse.Namespace) -> None:
    lines = [
        "issuer: https://tokens.example.com",
        "consumers: {max_cache: 1s}",
        "clock_skew: 1s",
        "publish: {lag: 1s}",
        "log: {format: json}",
        f"defaults: {{security_period: 20s, grace_period: {GRACE_SECONDS}s, audience: [api]}}",
        "workspaces:",
    ]
    lines += [
        f"  a-command{number}: {{deliver: [command: {{run: [/bin/sh, {root}/push, '{number}'], timeout: 4m}}]}}"
        for number in range(options.commands)
    ]
    for number, mount in enumerate(mounts):
        lines.append(f"  b-mount{number}: {{deliver: [file: {{path: {mount}/token}}]}}")
    lines += [
        f"  file{number}: {{deliver: [file: {{path: {root}/healthy/{number}/token}}]}}"
        for number in range(options.files)
    ]
    (root / "config.yaml").write_text("\n".join(lines) + "\n")
    (root / "push").write_text(PUSH.format(root=root))


def start(root: Path) -> subprocess.Popen[str]:
    """Start a daemon; return it when it is ready."""
    begun = time.monotonic()
    with (root / "daemon.log").open("a") as log:
        command = [sys.executable, "-m", "rotator", "run", "--config", "config.yaml"]
        daemon = subprocess.Popen(command, cwd=root, stdout=log, stderr=subprocess.STDOUT, text=True)
    ready = (root / "daemon.log").read_text().count("daemon.ready")
    while (root / "daemon.log").read_text().count("daemon.ready") == ready:
        if daemon.poll() is not None:
            raise AssertionError((root / "daemon.log").read_text()[-2000:])
        time.sleep(0.02)
    print(f"ready after {time.monotonic() - begun:.2f} s")
    return daemon


def ends_at(token: Path) -> float:
    """Return when the token that a file holds ends; zero for none."""
    try:
        payload = token.read_text().split(".")[1]
    except (FileNotFoundError, IndexError):
        return 0.0
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return float(claims["exp"])


def named(root: Path) -> set[str]:
    """Return what `status` names, by its subjects."""
    command = [sys.executable, "-m", "rotator", "status", "--json", "--config", "config.yaml"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return {problem["subject"] for problem in json.loads(done.stdout)["problems"]}


def watch_what_hangs(root: Path, hung: Mapping[str, str], until: threading.Event) -> dict[str, float]:
    """Ask again and again until each workspace in ``hung`` is named; return when each was.

    Its sink may be named alone (``delivery:WORKSPACE:SINK``), or the command or file system that it shares with others:
    the value of ``hung`` is how the subject of that fault begins.
    """
    found: dict[str, float] = {}
    while len(found) < len(hung) and not until.is_set():
        subjects = named(root)
        for workspace in hung.keys() - found.keys():
            if any(subject.startswith((f"delivery:{workspace}:", hung[workspace])) for subject in subjects):
                found[workspace] = time.time()
        until.wait(0.5)
    return found


def due_since(root: Path, since: float) -> dict[str, float]:
    """Return when the first token was issued for each workspace after a moment: from then on its sink was late."""
    found: dict[str, float] = {}
    for line in (root / "daemon.log").read_text().splitlines():
        if '"token.issued"' in line:
            event = json.loads(line)
            moment = datetime.fromisoformat(event["timestamp"]).timestamp()
            if moment >= since:
                found.setdefault(event["workspace"], moment)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--commands", type=int, default=40)
    parser.add_argument("--mounts", type=int, default=4 if os.geteuid() == 0 else 0)
    parser.add_argument("--files", type=int, default=100)
    options = parser.parse_args()
    problems: list[str] = []
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mounts = [stack.enter_context(mounted(root, number)) for number in range(options.mounts)]
        write_config(root, mounts, options)
        hung = {f"a-command{number}": "command:/bin/sh" for number in range(options.commands)}
        hung |= {f"b-mount{number}": f"filesystem:{mount}#" for number, mount in enumerate(mounts)}
        daemon = start(root)
        begun, over = time.monotonic(), threading.Event()
        tokens = [root / "healthy" / str(number) / "token" for number in range(options.files)]
        others = [root / f"pushed-{number}" for number in range(options.commands)]
        others += [mount / "token" for mount in mounts]
        while not all(ends_at(token) for token in (*tokens, *others)):
            time.sleep(0.1)
        print(f"every sink has its first token after {time.monotonic() - begun:.2f} s")
        (root / "hangs").touch()
        for mount in mounts:
            run("fsfreeze", "-f", mount)
        hangs_since = time.time()
        asking = stack.enter_context(ThreadPoolExecutor())
        stack.callback(over.set)
        watching = asking.submit(watch_what_hangs, root, hung, over)
        least, looks = float(GRACE_SECONDS), 0
        while time.monotonic() - begun < options.minutes * 60:
            left = min(ends_at(token) for token in tokens) - time.time()
            least, looks = min(least, left), looks + 1
            time.sleep(0.5)
        print(f"{looks} looks at {options.files} sinks: the least that a token was still valid is {least:.1f} s")
        over.set()
        found, due = watching.result(), due_since(root, hangs_since)
        parts = [(found[name] - due[name]) / GRACE_SECONDS for name in found.keys() & due.keys()]
        print(
            f"status names {len(found)} of {len(hung)} sinks that hang, the last of them when {max(parts):.0%} of their"
            f" grace of {GRACE_SECONDS} s was gone"
        )
        if len(parts) < len(hung) or max(parts) > NAMED_WITHIN + ASKING_SECONDS / GRACE_SECONDS:
            problems.append("not all that hangs was named in time")
        if least <= 0:
            problems.append("a healthy sink held no valid token")
        stopped = time.monotonic()
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(60)
        took = time.monotonic() - stopped
        print(f"stopped after {took:.2f} s")
        if took > STOP_SECONDS:
            problems.append("the stop took too long")
        again = start(root)
        again.send_signal(signal.SIGTERM)
        again.wait(60)
    print("\n".join(problems) or "all healthy sinks were served")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
