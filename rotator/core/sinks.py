"""Names of sinks: what the database, the log and ``status`` call the places where tokens are delivered."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import assert_never

from rotator.core.model import SinkId
from rotator.core.policy import CommandSink, FileSink, Sink

_FILE = "file:"


def sink_id(sink: Sink) -> SinkId:
    """Return the lasting name of ``sink``: the same place has the same name however it is written to.

    A file is named by its path, whatever its mode or format; a command by its program and a hash over all arguments,
    for those may be long or private. The timeout of a command does not count.
    """
    match sink:
        case FileSink():
            return SinkId(f"{_FILE}{sink.path}")
        case CommandSink():
            # The separator cannot occur in an argument (execve(2)), so that no two lists look the same.
            digest = hashlib.sha256("\0".join(sink.run).encode("utf-8", "surrogateescape")).hexdigest()
            return SinkId(f"command:{sink.run[0]}#{digest[:8]}")
        case _:
            assert_never(sink)


def path_of(sink: SinkId) -> str | None:
    """Return the path of a file by its lasting name; None: it is no file."""
    return sink.removeprefix(_FILE) if sink.startswith(_FILE) else None


def to_delete(before: Iterable[SinkId], sinks: Iterable[Sink]) -> tuple[SinkId, ...]:
    """Return the files that go when the config names them no more, given those of ``before`` and the sinks of now."""
    return tuple(sorted({*_deleting(sinks), *left_behind(before, sinks)}))


def left_behind(before: Iterable[SinkId], sinks: Iterable[Sink]) -> tuple[SinkId, ...]:
    """Return those of ``before`` that are none of the sinks of now: they are to go."""
    wanted = {sink_id(sink) for sink in sinks}
    return tuple(each for each in before if each not in wanted)


def _deleting(sinks: Iterable[Sink]) -> Iterator[SinkId]:
    return (sink_id(sink) for sink in sinks if isinstance(sink, FileSink) and sink.deletes)
