"""The export of the audit: page by page, so that it takes no memory to speak of, and whole lines only."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from rotator.adapters.disk import describe
from rotator.cli.screen import tell
from rotator.cli.session import reader
from rotator.config.outputs import open_own
from rotator.errors import RefusedError, RotatorError
from rotator.report.shape import from_json
from rotator.report.trail import AuditPage

_TAIL_BYTES: Final = 1024 * 1024
"""More than a line of the audit has."""


def export(option: Path | None, after: int, output: Path | None) -> None:
    """Write every event after ``after`` as a line of JSON."""
    ask = reader(option)
    with _written_to(output, after) as stream:
        while True:
            found = ask("audit.page", {"after": after})
            page = from_json(AuditPage, found)
            if page.anchor_seq > after:
                tell(f"events {after + 1} to {page.anchor_seq} are past their retention; the first is told as it is")
            for event in found["events"]:
                stream.write(json.dumps(event, ensure_ascii=True, separators=(",", ":")) + "\n")
            stream.flush()
            if not page.events or page.events[-1].seq >= page.head_seq:
                break
            after = page.events[-1].seq
    if output is not None:
        last = page.events[-1].seq if page.events else after
        tell(f"{output} has every event up to {last}; later, go on with: --after {last}")


@contextmanager
def _written_to(output: Path | None, after: int) -> Iterator[IO[str]]:
    if output is None:
        yield sys.stdout
        return
    try:
        with _opened(output, after) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise RotatorError(f"{output} cannot be written: {describe(error)}") from None


def _opened(output: Path, after: int) -> IO[str]:
    """Open a file that is new, or, to go on, one that ends with event ``after``; a torn last line is cut off."""
    descriptor = open_own(output)
    stream = os.fdopen(descriptor, "r+", encoding="ascii", newline="\n")
    try:
        os.ftruncate(descriptor, _end_of_whole_lines(descriptor, output, after))
        stream.seek(0, os.SEEK_END)
    except BaseException:
        stream.close()
        raise
    return stream


def _end_of_whole_lines(descriptor: int, output: Path, after: int) -> int:
    """Return where a file is to go on; raise :class:`RefusedError` unless it is empty or ends with event ``after``."""
    last, end = _last_event(descriptor, output)
    if last is not None and last != after:
        raise RefusedError(f"{output} is there and ends with event {last}; to go on from there: --after {last}")
    return end


def _last_event(descriptor: int, output: Path) -> tuple[int | None, int]:
    """Return the number of the last event in a file, None where there is none, and where its whole lines end."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - _TAIL_BYTES)
    tail = os.pread(descriptor, _TAIL_BYTES, start)
    end = tail.rfind(b"\n") + 1
    if not end:
        if not size:
            return None, 0
        raise RefusedError(_NO_EXPORT.format(output))
    try:
        return int(json.loads(tail[:end].splitlines()[-1])["seq"]), start + end
    except (ValueError, TypeError, KeyError):
        raise RefusedError(_NO_EXPORT.format(output)) from None


_NO_EXPORT: Final = "{} is there and does not end with an event of an export; it is left alone: name another file"
