"""Writes to a stream that may be a pipe which nobody reads: a log must not hold up what it tells of."""

import errno
import io
import os
import select
from datetime import timedelta
from typing import Final, TextIO

PATIENCE: Final = timedelta(seconds=1)
"""How long a line waits for its reader; the lines after one that waited in vain do not wait at all."""

PIECE_BYTES: Final = select.PIPE_BUF
"""What a pipe that is ready takes without blocking (pipe(7))."""


def write_patiently(stream: TextIO, text: str, patience: timedelta) -> None:
    """Write all of ``text``; raise :class:`BlockingIOError` where nobody takes it within ``patience``.

    The error tells how much was out by then. A terminal that was stopped by Ctrl-S is such a reader, too; a file is
    always ready.
    """
    try:
        fd = stream.fileno()
    except io.UnsupportedOperation:  # no file behind it, so nothing to wait for
        stream.write(text)
        stream.flush()
        return
    stream.flush()
    content = text.encode(stream.encoding or "utf-8", "backslashreplace")
    ready = select.poll()
    ready.register(fd, select.POLLOUT)
    written = 0
    while written < len(content):
        if not ready.poll(patience // timedelta(milliseconds=1)):
            raise BlockingIOError(errno.EAGAIN, "nobody reads what is written", written)
        written += os.write(fd, content[written : written + PIECE_BYTES])
