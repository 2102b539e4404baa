"""Names of sinks: what the database, the log and ``status`` call the places where tokens are delivered."""

import hashlib
from typing import assert_never

from rotator.core.model import SinkId
from rotator.core.policy import CommandSink, FileSink, Sink


def sink_id(sink: Sink) -> SinkId:
    """Return the lasting name of ``sink``: the same place has the same name however it is written to.

    A file is named by its path, whatever its mode or format; a command by its program and a hash over all arguments,
    for those may be long or private. The timeout of a command does not count.
    """
    match sink:
        case FileSink():
            return SinkId(f"file:{sink.path}")
        case CommandSink():
            # The separator cannot occur in an argument (execve(2)), so that no two lists look the same.
            digest = hashlib.sha256("\0".join(sink.run).encode("utf-8", "surrogateescape")).hexdigest()
            return SinkId(f"command:{sink.run[0]}#{digest[:8]}")
        case _:
            assert_never(sink)
