"""Progress for people: bars on a terminal, a line now and then elsewhere, nothing where nobody looks."""

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TextIO

from rotator.cli.screen import is_rich

if TYPE_CHECKING:  # rich is imported only where there is a terminal to show it on
    from rich.progress import Progress, TaskID

LINE_SECONDS: Final = 5.0
"""How often a line is written where there is no terminal."""


@dataclass(slots=True)
class Bar:
    """One bar for each thing that is counted."""

    stream: TextIO
    bars: "Progress | None"
    """None: lines."""
    quiet: bool
    _tasks: "dict[str, TaskID]" = field(default_factory=dict)
    _written: dict[str, tuple[int, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, stream: TextIO, *, quiet: bool = False) -> "Bar":
        """Return the progress on ``stream``."""
        if quiet or not is_rich(stream):
            return cls(stream, None, quiet)
        from rich.console import Console  # noqa: PLC0415 - only where it is used
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        return cls(stream, Progress(*columns, console=Console(file=stream)), quiet)

    def __enter__(self) -> Self:
        """Begin to show."""
        if self.bars is not None:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bars as they are."""
        if self.bars is not None:
            self.bars.stop()

    def show(self, what: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` are done; nothing where there is nothing to do."""
        if self.quiet or not total:
            return
        if self.bars is not None:
            if what not in self._tasks:
                self._tasks[what] = self.bars.add_task(what, total=total)
            self.bars.update(self._tasks[what], completed=done, total=total)
            return
        last, written_at = self._written.get(what, (-1, 0.0))
        now = time.monotonic()
        if done != last and (done == total or now - written_at >= LINE_SECONDS):
            self._written[what] = done, now
            self.stream.write(f"{what}: {done} of {total}\n")
            self.stream.flush()
