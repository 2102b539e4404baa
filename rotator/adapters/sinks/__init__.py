"""Where tokens are delivered: one module per kind of sink, and the courier that knows them all."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rotator.adapters.disk import Disk
from rotator.adapters.failure_domains import FailureDomains
from rotator.adapters.sinks.command import CommandRunner
from rotator.adapters.sinks.file import FileErrand, FileSinks, InThisProcess
from rotator.core.model import FailureDomain, WorkspaceId
from rotator.core.policy import CommandSink, FileSink, Sink
from rotator.errors import DeliveryError, SinkHungError
from rotator.ports import Bring, Ending, Errand, Leftover


class SinkCourier:
    """Delivers to files and commands; implements :class:`~rotator.ports.Courier`. Safe to use from several threads.

    ``forbidden``: directories that no file sink may write into. ``on_output`` is given what a command printed: bounded,
    in one line, the token masked. Files are touched by a process for each failure domain, or, with a ``disk``, by this
    one.
    """

    def __init__(
        self, forbidden: Sequence[Path], on_output: Callable[[WorkspaceId, str], None], *, disk: Disk | None = None
    ) -> None:
        self._domains = FailureDomains()
        self._files = FileSinks(forbidden, self._domains, None if disk is None else InThisProcess(disk))
        self._commands = CommandRunner(on_output)

    def domains(self, sinks: Sequence[Sink]) -> list[FailureDomain]:
        """Return what each of ``sinks`` hangs or fails with. None of them is touched."""
        self._domains.look()
        return [self._domains.of(sink) for sink in sinks]

    def deliver(self, domain: FailureDomain, errands: Sequence[Errand], bring: Bring) -> None:
        """Put each parcel into its sink, and bring what came of it. What was never begun is not brought."""
        self._files.do(domain, _files(errands), bring, compares=False)
        for number, (sink, parcel) in enumerate(errands):
            if not isinstance(sink, CommandSink):
                continue
            try:
                self._commands.deliver(sink, parcel)
            except DeliveryError as error:
                bring(number, Ending(str(error), hung=isinstance(error, SinkHungError)))
            else:
                bring(number, Ending())

    def compare(self, domain: FailureDomain, errands: Sequence[Errand], bring: Bring) -> None:
        """Look whether each file sink still holds its parcel, and bring what is wrong; a command cannot be asked."""
        self._files.do(domain, _files(errands), bring, compares=True)
        for number, (sink, _) in enumerate(errands):
            if isinstance(sink, CommandSink):
                bring(number, Ending())

    def remove(self, domain: FailureDomain, leftovers: Sequence[Leftover], bring: Bring) -> None:
        """Delete each file that holds one of its tokens, and bring what came of it."""
        self._files.remove(domain, leftovers, bring)

    def cancel(self) -> None:
        """Begin nothing more, and end what can hang: the daemon stops."""
        self._files.cancel()
        self._commands.cancel()


def _files(errands: Sequence[Errand]) -> list[FileErrand]:
    return [
        FileErrand(number, sink, parcel) for number, (sink, parcel) in enumerate(errands) if isinstance(sink, FileSink)
    ]
