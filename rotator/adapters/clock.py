"""The clocks of this machine. The only module that reads one; everything else is handed a moment."""

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from rotator.core.instants import from_us
from rotator.core.timeguard import Reading
from rotator.errors import RefusedError

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

BOOT_ID_VARIABLE: Final = "ROTATOR_BOOT_ID"
"""Stands in for the file above where the service cannot see it (``ProcSubset=pid``); the unit sets it to ``%b``."""

SYNCHRONISED: Final = Path("/run/systemd/timesync/synchronized")
"""Touched by systemd-timesyncd each time it has set the clock from the network."""


class SystemClock:
    """Implements :class:`~rotator.ports.Clock` for Linux."""

    def __init__(
        self,
        boot_id: Path = BOOT_ID,
        synchronised: Path = SYNCHRONISED,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._boot_id = _read_boot_id(boot_id, environ)  # one process lives in one boot
        self._synchronised = synchronised

    def read(self) -> Reading:
        """Read all of them at one moment."""
        synchronised_at = self._synchronised_at()
        # Back to back, with nothing between: their difference is what shows that the wall clock was set.
        wall_ns = time.time_ns()
        since_boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return Reading(
            now=_moment(wall_ns),
            boot_id=self._boot_id,
            since_boot=timedelta(microseconds=since_boot_ns // 1000),
            synchronised_at=synchronised_at,
        )

    def _synchronised_at(self) -> datetime | None:
        try:
            marked_at = self._synchronised.stat().st_mtime
        except OSError:  # absent under chrony and ntpd, unreadable in some sandboxes: there is no evidence, then
            return None
        return datetime.fromtimestamp(marked_at, UTC)


def _read_boot_id(path: Path, environ: Mapping[str, str]) -> str:
    """Return this boot's id as 32 hex digits; raise :class:`RefusedError` where nobody tells it."""
    try:
        text = path.read_text(encoding="ascii")
    except OSError as error:
        text = environ.get(BOOT_ID_VARIABLE, "")
        if not text:
            raise RefusedError(
                f"cannot tell one boot of this machine from the next, for {path} cannot be read ({error.strerror}); "
                f"in a unit with ProcSubset=pid, set Environment={BOOT_ID_VARIABLE}=%b"
            ) from None
    return text.strip().replace("-", "")  # %b has no dashes, the kernel's file has them


def wall_time() -> datetime:
    """Return the wall time in UTC, for what needs a time stamp and decides nothing by it."""
    return _moment(time.time_ns())


def _moment(epoch_ns: int) -> datetime:
    return from_us(epoch_ns // 1000)


def monotonic_microseconds() -> int:
    """Return CLOCK_MONOTONIC in microseconds, as systemd wants it beside ``RELOADING=1`` (sd_notify(3))."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
