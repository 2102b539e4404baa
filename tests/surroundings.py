"""What a process takes over from whoever began it, and no test may depend on.

A test runner that a shell began in the background ignores Ctrl-C, and so would each command that it begins; one under
systemd has directories and a journal in its environment; one at a person's desk has their locale, their proxies and the
size of their terminal.
"""

import os
import signal
from typing import Final

_OURS: Final = ("ROTATOR_", "PG")  # the latter: what a client of PostgreSQL takes for its defaults
_SYSTEMD: Final = (
    "CREDENTIALS_DIRECTORY", "INVOCATION_ID", "JOURNAL_STREAM", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET",
    "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "WATCHDOG_PID", "WATCHDOG_USEC",
)  # fmt: skip
_TERMINAL: Final = ("CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "FORCE_COLOR", "LINES", "NO_COLOR", "TTY_COMPATIBLE")
_LOCALE: Final = ("LANGUAGE", "TZ")
_PYTHON: Final = ("PYTHONDEVMODE", "PYTHONIOENCODING", "PYTHONOPTIMIZE", "PYTHONUTF8", "PYTHONWARNINGS")
_PROXIES: Final = tuple(f"{scheme}_proxy" for scheme in ("all", "ftp", "http", "https", "no"))


def leave_them() -> None:
    """Begin with the signals, the mask for new files and the environment that a login has, here and in all children."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD, signal.SIGUSR1):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    unwanted = {*_SYSTEMD, *_TERMINAL, *_LOCALE, *_PYTHON, *_PROXIES, *(name.upper() for name in _PROXIES)}
    for name in list(os.environ):
        if name in unwanted or name.startswith((*_OURS, "LC_")):
            del os.environ[name]
    os.environ["LANG"] = "C.UTF-8"
