"""Clients of the control socket that are other users: processes that give up root before they connect."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.patience import HANG_SECONDS

NOT_ROOT: Final = "only root can be other users"

# The directory is entered before, for those above it may be closed to others.
_CLIENT: Final = """
import json, os, socket, sys
uid, gid, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
os.chdir(os.path.dirname(path))
os.setgroups([]), os.setresgid(gid, gid, gid), os.setresuid(uid, uid, uid)

def ask(line):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.path.basename(path))
        try:
            connection.sendall(line.encode() + b"\\n")
        except BrokenPipeError:
            pass
        with connection.makefile("rb") as stream:
            return stream.readline().decode()

if len(sys.argv) > 4:
    while True:
        try:
            ask(sys.argv[4])
        except OSError:
            pass
for line in sys.stdin:
    print(json.dumps(ask(line.rstrip("\\n"))))
"""


def _command(path: Path, uid: int, gid: int) -> list[str]:
    return [sys.executable, "-S", "-E", "-c", _CLIENT, str(uid), str(gid), str(path)]


def answers_to(path: Path, uid: int, gid: int, questions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what a user is answered, one question after the other."""
    lines = "".join(f"{json.dumps(question)}\n" for question in questions)
    done = subprocess.run(
        _command(path, uid, gid), input=lines, capture_output=True, text=True, timeout=HANG_SECONDS, check=True
    )
    return [json.loads(json.loads(line) or "{}") for line in done.stdout.splitlines()]


def flood(path: Path, uid: int, gid: int, question: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """Start a user who asks again and again, until it is killed."""
    return subprocess.Popen(
        [*_command(path, uid, gid), json.dumps(question)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def is_root() -> bool:
    """Tell whether this process can become other users."""
    return os.geteuid() == 0
