"""Starts processes of our own that know as little as can be: a module, one end of a socket pair, and nothing else."""

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

_PACKAGE_ROOT: Final = Path(__file__).resolve().parents[2]


def start_isolated(module: str, *, installed: bool = False) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start ``python -m module`` with one end of a socket pair as its standard input; return it with the other end.

    It gets nothing of the environment, which may hold the KEK, none of our descriptors, neither the lock's nor the
    database's, and no working directory. ``installed``: it may import what is installed beside the standard library.
    """
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter, on our own module
            [sys.executable, *([] if installed else ["-S"]), "-s", "-P", "-m", module],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": str(_PACKAGE_ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd="/",
            process_group=0,  # a terminal's Ctrl-C is for the parent
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours


def how_it_ended(code: int) -> str:
    """Return what the exit status of a process tells, as :mod:`subprocess` gives it."""
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # one of the real-time signals
        name = f"signal {-code}"
    hint = ": is the machine out of memory?" if -code == signal.SIGKILL else ""
    return f"it was killed by {name}{hint}"
