"""Where tokens are delivered: one module per kind of sink, and the courier that knows them all."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import assert_never

from rotator.adapters.disk import REAL_DISK, Disk
from rotator.adapters.sinks import file
from rotator.adapters.sinks.command import CommandRunner
from rotator.core.model import WorkspaceId
from rotator.core.policy import CommandSink, FileSink, Sink
from rotator.ports import Parcel


class SinkCourier:
    """Delivers to files and commands; implements :class:`~rotator.ports.Courier`. Safe to use from several threads.

    ``forbidden``: directories that no file sink may write into. ``on_output`` is given what a command printed: bounded,
    in one line, the token masked.
    """

    def __init__(
        self, forbidden: Sequence[Path], on_output: Callable[[WorkspaceId, str], None], *, disk: Disk = REAL_DISK
    ) -> None:
        self._forbidden = tuple(forbidden)
        self._disk = disk
        self._commands = CommandRunner(on_output)

    def deliver(self, sink: Sink, parcel: Parcel) -> None:
        """Put ``parcel`` into ``sink``. Raise :class:`~rotator.errors.DeliveryError` when it did not get there."""
        match sink:
            case FileSink():
                file.deliver(sink, parcel, self._forbidden, disk=self._disk)
            case CommandSink():
                self._commands.deliver(sink, parcel)
            case _:
                assert_never(sink)

    def holds(self, sink: Sink, parcel: Parcel) -> bool:
        """Tell whether ``sink`` still holds ``parcel``; True for a command, which cannot be looked into."""
        match sink:
            case FileSink():
                return file.holds(sink, parcel)
            case CommandSink():
                return True
            case _:
                assert_never(sink)

    def cancel(self) -> None:
        """End commands that are running now, and each later one at once: the daemon stops."""
        self._commands.cancel()
