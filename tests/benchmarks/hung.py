"""Sinks that hang beside healthy ones, each of which is always to hold a valid token.

Forty commands that hang, four file systems that hang (made by root on loop devices and frozen, as a dead network mount
hangs), and a hundred files. Then how long until `status` names what hangs, how long a stop takes, and the next start.

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
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

GRACE_SECONDS = 60
STOP_SECONDS = 5.0


def run(*command: str | Path, check: bool = True) -> bool:
    return subprocess.run(command, capture_output=True, check=check).returncode == 0


@contextmanager
def frozen(root: Path, number: int) -> Iterator[Path]:
    """Give a mounted file system that hangs."""
    image, mount = root / f"image{number}", root / f"mount{number}"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    run("mkfs.ext4", "-q", image)
    run("mount", "-o", "loop", image, mount)
    run("fsfreeze", "-f", mount)
    try:
        yield mount
    finally:
        run("fsfreeze", "-u", mount, check=False)
        for _ in range(100):
            if run("umount", mount, check=False):
                break
            time.sleep(0.1)


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
        f"  a-command{number}: {{deliver: [command: {{run: [/bin/sleep, '3600'], timeout: 4m}}]}}"
        for number in range(options.commands)
    ]
    for number, mount in enumerate(mounts):
        lines.append(f"  b-mount{number}: {{deliver: [file: {{path: {mount}/token}}]}}")
    lines += [
        f"  file{number}: {{deliver: [file: {{path: {root}/healthy/{number}/token}}]}}"
        for number in range(options.files)
    ]
    (root / "config.yaml").write_text("\n".join(lines) + "\n")


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
    command = [sys.executable, "-m", "rotator", "status", "--json", "--config", "config.yaml"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return {problem["subject"] for problem in json.loads(done.stdout)["problems"]}


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
        mounts = [stack.enter_context(frozen(root, number)) for number in range(options.mounts)]
        write_config(root, mounts, options)
        daemon = start(root)
        begun = time.monotonic()
        tokens = [root / "healthy" / str(number) / "token" for number in range(options.files)]
        while not all(ends_at(token) for token in tokens):
            time.sleep(0.1)
        print(f"every healthy sink has its first token after {time.monotonic() - begun:.2f} s")
        least, looks, found_after = float(GRACE_SECONDS), 0, 0.0
        while time.monotonic() - begun < options.minutes * 60:
            left = min(ends_at(token) for token in tokens) - time.time()
            least, looks = min(least, left), looks + 1
            if not found_after and time.monotonic() - begun > 10:
                subjects = named(root)
                mounted = sum(subject.startswith("filesystem:") for subject in subjects)
                if mounted == options.mounts and any(subject.startswith("command:") for subject in subjects):
                    found_after = time.monotonic() - begun
            time.sleep(0.5)
        print(f"{looks} looks at {options.files} sinks: the least that a token was still valid is {least:.1f} s")
        print(f"status names all that hangs after {found_after:.1f} s; the grace is {GRACE_SECONDS} s")
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
