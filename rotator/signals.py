"""Signals, from the first line of the program on, and the duties of a container's first process.

Imports nothing that takes time: it is there before all else.
"""

import os
import signal
import sys
from types import FrameType
from typing import Final, NoReturn

PASSED_ON: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

_reloads: list[int] = []


def catch_early() -> None:
    """Take signals before the daemon can: a stop ends the process, and a reload is remembered.

    Nothing is begun before the daemon takes them itself that could be left half done.
    """
    signal.signal(signal.SIGHUP, _remember)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)


def reload_came() -> bool:
    """Tell whether a reload was asked for before the daemon took its signals itself."""
    return bool(_reloads)


def _remember(number: int, _frame: FrameType | None) -> None:
    _reloads.append(number)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)


def stand_behind_first_process() -> None:
    """Where this is the first process of a container, go on as its child; the first one passes signals on, and reaps.

    The kernel gives the first process whatever lost its parent, as what the command of a sink began; nobody else can
    reap that. And it keeps from it every signal that it has no handler for.
    """
    if os.getpid() != 1:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    child = os.fork()
    if child:
        _serve_as_first(child)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)


def _serve_as_first(child: int) -> NoReturn:
    def pass_on(number: int, _frame: FrameType | None) -> None:
        os.kill(child, number)

    for each in PASSED_ON:
        signal.signal(each, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
