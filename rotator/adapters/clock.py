"""The clocks of this machine. The only module that reads one; everything else is handed a moment."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from rotator.core.timeguard import EPOCH, Reading

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

SYNCHRONISED: Final = Path("/run/systemd/timesync/synchronized")
"""Touched by systemd-timesyncd each time it has set the clock from the network."""


class SystemClock:
    """Implements :class:`~rotator.ports.Clock` for Linux."""

    def __init__(self, boot_id: Path = BOOT_ID, synchronised: Path = SYNCHRONISED) -> None:
        self._boot_id = boot_id.read_text(encoding="ascii").strip()  # one process lives in one boot
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


def wall_time() -> datetime:
    """Return the wall time in UTC, for what needs a time stamp and decides nothing by it."""
    return _moment(time.time_ns())


def _moment(epoch_ns: int) -> datetime:
    return EPOCH + timedelta(microseconds=epoch_ns // 1000)


def monotonic_microseconds() -> int:
    """Return CLOCK_MONOTONIC in microseconds, as systemd wants it beside ``RELOADING=1`` (sd_notify(3))."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
