"""Sets up the log: what a line looks like, where it goes, and that no secret is in it.

Under systemd each event becomes a journal entry with fields; in a pipe or a file, a line of JSON; on a terminal, a
line for people. All pass the same redaction. Lines of libraries (``logging``) come out the same way, warnings and
worse only.

A log that cannot be written stops nothing: lost lines are counted, and the count is logged when one gets through again.
"""

import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Protocol, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from rotator.adapters.clock import wall_time
from rotator.adapters.journal import SOCKET, Journal, field_name, is_journal
from rotator.core.redaction import Plain, redact
from rotator.log_events import AUDIT_EVENTS, Level, LogEvent, find, message_id
from rotator.log_stream import PATIENCE, write_patiently
from rotator.ports import AuditRow, EventLog

LogFormat = Literal["json", "console", "auto"]

IDENTIFIER: Final = "rotator"

_LEVELS: Final[Mapping[str, int]] = {level.value: getattr(logging, level.name) for level in Level}
_PRIORITIES: Final[Mapping[str, str]] = {"debug": "7", "info": "6", "warning": "4", "error": "3", "critical": "2"}
"""syslog(3)."""


def configure(
    format: LogFormat = "auto",  # noqa: A002 - the word of the config
    level: str = "info",
    environ: Mapping[str, str] | None = None,
    stream: TextIO | None = None,
    *,
    now: Callable[[], datetime] = wall_time,
    journal_socket: Path = SOCKET,
) -> None:
    """Let every logger, made before or after, write lines of ``level`` and above to ``stream`` (default: stdout).

    With ``auto`` and ``json``, entries go to the journal with their fields where ``$JOURNAL_STREAM`` says that the
    stream ends there. ``auto`` is for people on a terminal, and JSON elsewhere. May be called again, as at a reload.
    """
    environ = os.environ if environ is None else environ
    stream = sys.stdout if stream is None else stream
    output = _Output(
        lines=_console(stream, environ) if _wants_console(format, stream) else _json_line,
        stream=stream,
        journal=_find_journal(format, environ, stream, journal_socket),
    )
    _write_to(output, level, now)


def configure_notes(stream: TextIO) -> None:
    """Let every logger write warnings and worse to ``stream`` as notes beside the answer of a command: ``note: …``."""
    _write_to(_Output(lines=_note, stream=stream, journal=None), Level.WARNING.value, wall_time)


def _write_to(output: "_Output", level: str, now: Callable[[], datetime]) -> None:
    structlog.configure(
        processors=[*_prepare(now), output],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=_Named,
        cache_logger_on_first_use=False,  # so that a second call reaches the loggers that exist
    )
    _route_libraries(level)


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the logger ``name``. Until :func:`configure` is called it writes warnings and worse to stderr."""
    _ensure_configured()
    return cast("FilteringBoundLogger", structlog.get_logger(name))


def _ensure_configured() -> None:
    if not structlog.is_configured():
        configure("auto", "warning", {}, sys.stderr)


# ------------------------------------------------------------------------------------------------ the events' log


class CataloguedLog:
    """Implements :class:`~rotator.ports.EventLog`: each event at the level that the catalogue gives it."""

    def __init__(self) -> None:
        _ensure_configured()
        self._events = get_logger("rotator")
        # Audit events are the outbox of the database: no level setting may hold them back.
        self._audit = cast(
            "FilteringBoundLogger",
            structlog.wrap_logger(
                None,
                wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
                logger_factory_args=("rotator.audit",),
            ),
        )

    def audit(self, rows: Sequence[AuditRow]) -> None:
        """Write audit events, in order."""
        for row in rows:
            event = row.event
            named = {"keyset": event.keyset, "workspace": event.workspace, "kid": event.kid, "jti": event.jti}
            told = {"actor": event.actor, "reason": event.reason or None, "seq": row.seq, "hash": row.hash}
            fields = {key: value for key, value in {**named, **told}.items() if value is not None}
            _write(self._audit, AUDIT_EVENTS[event.name].level, event.name, {**event.details, **fields, "at": event.at})

    def event(self, name: str, **fields: object) -> None:
        """Write an event of the log's catalogue that changes no state."""
        entry = find(name)
        _write(self._events, Level.WARNING if entry is None else entry.level, name, fields)


def log_uncaught(log: EventLog) -> None:
    """From now on, write to ``log`` what nobody caught, of threads and of the whole process, in place of stderr.

    A raw traceback would go around the redaction, and in the journal be a heap of lines without a level.
    """

    def thread_died(died: threading.ExceptHookArgs) -> None:
        if not issubclass(died.exc_type, SystemExit):  # which ends a thread, and is no fault
            name = "unknown" if died.thread is None else died.thread.name
            log.event("thread.died", thread=name, **_told(died.exc_type, died.exc_value, died.exc_traceback))

    def process_died(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        log.event("daemon.failed", **_told(kind, error, trace))

    threading.excepthook = thread_died
    sys.excepthook = process_died


def _told(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> dict[str, str]:
    lines = traceback.format_exception(kind, error, trace)
    return {"problem": f"{kind.__name__}: {error}", "exception": "".join(lines).rstrip()}


def _write(logger: FilteringBoundLogger, level: Level, name: str, fields: Mapping[str, object]) -> None:
    """Write a line; a field that has the name of one of the line's own parts gets a trailing underscore."""
    safe = {f"{key}_" if key in _RESERVED else key: value for key, value in fields.items()}
    logger.log(_LEVELS[level], str(name), **safe)


_RESERVED: Final = frozenset(
    {"event", "level", "logger", "timestamp", "message", "exc_info", "stack_info", "method_name"}
)


# ----------------------------------------------------------------------------------------------------- processors


class _Named:
    """What structlog calls a logger: here nothing but a name, for the last processor writes."""

    def __init__(self, *name: str) -> None:
        self.name = name[0] if name else IDENTIFIER


def _prepare(now: Callable[[], datetime]) -> list[Processor]:
    def stamp(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """Give the line the time of what it tells of, else the time of its telling."""
        at = event.pop("at", None)
        moment = at if isinstance(at, datetime) else now()
        event["timestamp"] = moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return event

    return [
        structlog.processors.add_log_level,
        _add_name,
        stamp,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,  # plain text: a traceback with local variables would show secrets
        _redact,
    ]


def _add_name(logger: _Named, _method: str, event: EventDict) -> EventDict:
    event.setdefault("logger", logger.name)
    return event


def _redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask secrets and order the line: when, how bad, what, then the rest as it came."""
    plain = redact(dict(event))
    assert isinstance(plain, dict)  # noqa: S101 - a mapping stays one
    head: dict[str, Plain] = {key: plain.pop(key) for key in ("timestamp", "level", "event", "logger") if key in plain}
    return {**head, **plain}


# --------------------------------------------------------------------------------------------------------- output


class _Render(Protocol):
    def __call__(self, line: dict[str, Plain]) -> str: ...


@dataclass(slots=True)
class _Output:
    """The last processor: writes a line to the journal, else to the stream."""

    lines: _Render
    stream: TextIO
    journal: Journal | None
    lost: int = 0
    cut: bool = False
    """Of the last line that got through, a part did not."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        line = dict(event)
        with self.lock:
            if not self._to_journal(line):
                self._to_stream(line)
        raise structlog.DropEvent  # written; there is no logger behind this one

    def _to_journal(self, line: dict[str, Plain]) -> bool:
        if self.journal is None:
            return False
        try:
            self.journal.send(journal_fields(line))
        except OSError:  # the journal went away, or is stuck: the stream shows the line instead
            return False
        return True

    def _to_stream(self, line: dict[str, Plain]) -> None:
        text = f"{self.lines(line)}\n"
        if self.lost:
            text = "\n" * self.cut + f"{self.lines(self._loss(line))}\n{text}"
        try:
            write_patiently(self.stream, text, timedelta(0) if self.lost else PATIENCE)
        except BlockingIOError as error:
            self.lost, self.cut = self.lost + 1, self.cut or error.characters_written > 0
        except (OSError, ValueError):  # a closed pipe, a full disk, a closed file: told when lines get through again
            self.lost += 1
        else:
            self.lost, self.cut = 0, False

    def _loss(self, line: dict[str, Plain]) -> dict[str, Plain]:
        return {
            "timestamp": line.get("timestamp"),
            "level": Level.ERROR.value,
            "event": LogEvent.LOG_LOST.value,
            "logger": IDENTIFIER,
            "lines": self.lost,
        }


def _wants_console(format: LogFormat, stream: TextIO) -> bool:  # noqa: A002 - the word of the config
    return format == "console" or (format == "auto" and stream.isatty())


def _find_journal(
    format: LogFormat,  # noqa: A002 - the word of the config
    environ: Mapping[str, str],
    stream: TextIO,
    journal_socket: Path,
) -> Journal | None:
    return Journal(journal_socket) if format != "console" and is_journal(environ, stream) else None


def _json_line(line: dict[str, Plain]) -> str:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


def _console(stream: TextIO, environ: Mapping[str, str]) -> _Render:
    renderer = structlog.dev.ConsoleRenderer(
        colors=stream.isatty() and not environ.get("NO_COLOR"),
        exception_formatter=structlog.dev.plain_traceback,
        sort_keys=False,
    )

    def render(line: dict[str, Plain]) -> str:
        printable = {key: _printable(value, keep="\n\t" if key == "exception" else "") for key, value in line.items()}
        return str(renderer(None, str(line.get("level")), printable))

    return render


def _note(line: dict[str, Plain]) -> str:
    return f"note: {_printable(sentence(line), keep='')}"


def _printable(value: Plain, keep: str) -> Plain:
    """Escape what would move the cursor or recolour a terminal: a log line may quote what strangers wrote."""
    if not isinstance(value, str):
        return value
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in value)


# -------------------------------------------------------------------------------------------------------- journal


def journal_fields(line: Mapping[str, Plain]) -> dict[str, str]:
    """Return a line as a journal entry: the fields that systemd knows, then ``ROTATOR_…`` for each of its own."""
    name = str(line.get("event", ""))
    fields = {
        "MESSAGE": sentence(line),
        "PRIORITY": _PRIORITIES.get(str(line.get("level")), _PRIORITIES["info"]),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
    }
    if find(name) is not None:
        fields["MESSAGE_ID"] = message_id(name)
    for key, value in line.items():
        if key not in {"level", "message"} and value is not None:
            fields[field_name(key, "ROTATOR_")] = value if isinstance(value, str) else json.dumps(value)
    return fields


def sentence(line: Mapping[str, Plain]) -> str:
    """Return a line for people: the event's name, what it means, and its fields."""
    name = str(line.get("event", ""))
    entry = find(name)
    told = name if entry is None else f"{name}: {entry.meaning}"
    problem = line.get("problem")
    if problem:
        told = f"{told.removesuffix('.')}: {problem}"
    shown = [f"{key}={_short(value)}" for key, value in line.items() if key not in _NOT_IN_SENTENCES]
    parts = [told, f"({', '.join(shown)})" if shown else "", str(line.get("exception", ""))]
    return parts[0] + "".join(("\n" if part == parts[2] else " ") + part for part in parts[1:] if part)


_NOT_IN_SENTENCES: Final = frozenset({"timestamp", "level", "event", "logger", "problem", "exception", "hash", "stack"})


def _short(value: Plain) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# ------------------------------------------------------------------------------------------------------ libraries


class _LibraryHandler(logging.Handler):
    """Hands the lines of libraries to structlog, so that they are redacted and look like ours: one event for all."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line of a library."""
        try:
            fields: dict[str, object] = {"exc_info": record.exc_info} if record.exc_info else {}
            fields["problem"] = record.getMessage()
            get_logger(record.name).log(_nearest(record.levelno), "library.reported", **fields)
        except Exception:  # noqa: BLE001 - what a library fails to format must not reach its caller
            self.handleError(record)


def _nearest(number: int) -> int:
    """Return the level of ours that a library's own level reaches."""
    return max((own for own in _LEVELS.values() if own <= number), default=logging.DEBUG)


def _route_libraries(level: str) -> None:
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _LibraryHandler)]:
        root.removeHandler(handler)
    root.addHandler(_LibraryHandler())
    root.setLevel(logging.DEBUG if level == Level.DEBUG else max(logging.WARNING, _LEVELS[level]))
    logging.getLogger("apscheduler").setLevel(logging.WARNING)  # the alarm clock: five lines at each turn of the loop
