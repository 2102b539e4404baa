"""Tells systemd how the service is: ready, reloading, alive, stopping (sd_notify(3)).

Nothing here raises once built: a service manager that does not listen must not stop the work.
"""

import contextlib
import os
import socket
from collections.abc import Callable, MutableMapping
from datetime import timedelta
from typing import Final

from rotator.adapters.clock import monotonic_microseconds

_ADDRESS: Final = "NOTIFY_SOCKET"
_INTERVAL: Final = "WATCHDOG_USEC"
_PROCESS: Final = "WATCHDOG_PID"


class Notifier:
    """A client of the service manager that started this process; does nothing where there is none.

    Takes its variables out of ``environ``, so that no child process can speak for this one.
    """

    def __init__(
        self, environ: MutableMapping[str, str], monotonic_microseconds: Callable[[], int] = monotonic_microseconds
    ) -> None:
        self._address = _socket_address(environ.pop(_ADDRESS, ""))
        self._monotonic_microseconds = monotonic_microseconds
        self.watchdog_interval = _watchdog_interval(environ.pop(_INTERVAL, ""), environ.pop(_PROCESS, ""))
        """How often to call :meth:`watchdog`: half of what systemd allows. None: it does not watch."""

    @property
    def listened_to(self) -> bool:
        """Tell whether a service manager asked to be told."""
        return self._address is not None

    def ready(self, status: str = "") -> None:
        """Tell that the start, or the reload, is over."""
        self._send(("READY", "1"), *_unless_empty(status))

    def reloading(self) -> None:
        """Tell that a reload begins; :meth:`ready` ends it."""
        self._send(("RELOADING", "1"), ("MONOTONIC_USEC", str(self._monotonic_microseconds())))

    def status(self, text: str) -> None:
        """Set the line that ``systemctl status`` shows."""
        self._send(("STATUS", text))

    def watchdog(self) -> None:
        """Tell that the working loop still turns."""
        self._send(("WATCHDOG", "1"))

    def stopping(self, status: str = "") -> None:
        """Tell that the service is on its way out."""
        self._send(("STOPPING", "1"), *_unless_empty(status))

    def _send(self, *fields: tuple[str, str]) -> None:
        if self._address is None:
            return
        message = "\n".join(f"{name}={_one_line(value)}" for name, value in fields)
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.settimeout(0)  # a full queue must not hold up the loop that the watchdog watches
            to.sendto(message.encode(errors="replace"), self._address)


def _socket_address(text: str) -> str | None:
    """Return the address to send to: a path, or an abstract name; None for what this kernel cannot send to."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else None


def _watchdog_interval(limit_usec: str, pid: str) -> timedelta | None:
    """Return half of the limit if there is one and it is meant for this process (sd_watchdog_enabled(3))."""
    if pid and pid != str(os.getpid()):
        return None
    return timedelta(microseconds=int(limit_usec)) / 2 if limit_usec.isdecimal() and int(limit_usec) else None


def _unless_empty(status: str) -> tuple[tuple[str, str], ...]:
    return (("STATUS", status),) if status else ()


def _one_line(value: str) -> str:
    """Keep a value from adding a field of its own: each field ends at a newline."""
    return " ".join(value.split())
