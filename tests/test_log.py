import ast
import fcntl
import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from rotator import log_catalogue
from rotator.adapters.journal import encode
from rotator.core.events import Event, EventName
from rotator.core.model import Jti, KeysetName, Kid, WorkspaceId
from rotator.core.redaction import Plain
from rotator.core.secret import Secret
from rotator.log import CataloguedLog, configure, configure_notes, get_logger, journal_fields, sentence
from rotator.log_events import AUDIT_EVENTS, LOG_EVENTS, Level, LogEvent, find, message_id
from rotator.ports import AuditRow, EventLog

ROOT = Path(__file__).parent.parent
NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
TOKEN = jwt.encode({"sub": "acme"}, ec.derive_private_key(7, ec.SECP256R1()), algorithm="ES256")


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """Put the process-wide set-up back after each test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def json_lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def set_up(level: str = "info", environ: dict[str, str] | None = None) -> io.StringIO:
    stream = io.StringIO()
    configure("json", level, environ or {}, stream, now=lambda: NOW)
    return stream


def audit_row(name: EventName = EventName.KEY_ACTIVATED, seq: int = 7) -> AuditRow:
    event = Event(
        name=name,
        at=NOW - timedelta(days=1),
        keyset=KeysetName("default"),
        workspace=WorkspaceId("acme"),
        kid=Kid("k1"),
        jti=Jti("j1"),
        actor="ann(1000)",
        reason="security_period",
        details={"rotate_at": "2026-06-01T00:00:00+00:00"},
    )
    return AuditRow(seq, event, "ab" * 32)


# ---------------------------------------------------------------------------------------------------------- lines


def test_a_json_line_says_when_how_bad_what_and_who_and_then_its_fields() -> None:
    stream = set_up()
    get_logger("daemon").warning("delivery.late", duration_seconds=3, parts=["observe", {"a": 1}])
    assert json_lines(stream) == [
        {
            "timestamp": "2026-03-01T12:00:00.250000Z",
            "level": "warning",
            "event": "delivery.late",
            "logger": "daemon",
            "duration_seconds": 3,
            "parts": ["observe", {"a": 1}],
        }
    ]
    assert stream.getvalue().startswith('{"timestamp":')


def test_the_moment_of_an_event_is_its_own_and_in_utc() -> None:
    stream = set_up()
    get_logger("x").info("a", at=datetime.fromisoformat("2026-03-01T10:00:00+02:00"))
    assert json_lines(stream)[0]["timestamp"] == "2026-03-01T08:00:00.000000Z"
    assert "at" not in json_lines(stream)[0]


def test_text_of_other_scripts_stays_readable() -> None:
    stream = set_up()
    get_logger("x").info("a", problem="Schlüssel fehlt")
    assert "Schlüssel fehlt" in stream.getvalue()


def test_each_line_is_one_line_whatever_is_in_it() -> None:
    stream = set_up()
    get_logger("x").info("a", problem="two\nlines\r\n\x85\u2028")
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error", "critical"]),
        ("info", ["info", "warning", "error", "critical"]),
        ("warning", ["warning", "error", "critical"]),
        ("critical", ["critical"]),
    ],
)
def test_lines_below_the_level_are_not_written(level: str, expected: list[str]) -> None:
    stream = set_up(level)
    logger = get_logger("x")
    for own in Level:
        getattr(logger, own)("a")
    assert [line["level"] for line in json_lines(stream)] == expected


def test_beside_the_answer_of_a_command_warnings_are_notes() -> None:
    """One line each, for people: without hashes, and without what could steer their terminal."""
    stream = io.StringIO()
    configure_notes(stream)

    CataloguedLog().event("config.warning", problem="the window\x1b[2J is short")
    CataloguedLog().event("daemon.ready")
    get_logger("library").info("chatter")

    assert stream.getvalue() == (
        "note: config.warning: The config is valid, and has something that is seldom meant: "
        "the window\\x1b[2J is short\n"
    )


def test_a_second_set_up_reaches_the_loggers_that_exist() -> None:
    """A reload changes the level of a running daemon."""
    logger = get_logger("x")
    first = set_up("error")
    logger.info("a")
    second = set_up("info")
    logger.info("b")
    assert (first.getvalue(), [line["event"] for line in json_lines(second)]) == ("", ["b"])


def test_before_the_set_up_warnings_go_to_stderr_and_are_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    logger = get_logger("x")
    logger.info("a")
    logger.warning("b", found=TOKEN)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [json.loads(line)["found"] for line in shown.err.splitlines()] == ["[secret]"]


def test_without_a_stream_lines_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    get_logger("x").info("a")
    assert json.loads(capsys.readouterr().out)["event"] == "a"


def test_the_format_for_people_is_one_line_without_control_characters() -> None:
    stream = io.StringIO()
    configure("console", "info", {}, stream, now=lambda: NOW)
    get_logger("x").info("a\x1b[31m", sink="\x1b]0;title\x07", problem="no room")
    line = stream.getvalue()
    assert line.startswith("2026-03-01T12:00:00.250000Z [info")
    assert "problem='no room'" in line
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert "\x07" not in line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("log_format", "stream", "environ", "expected"),
    [
        ("auto", io.StringIO(), {}, r"\{.*"),
        ("auto", Terminal(), {"NO_COLOR": "1"}, r"2026-\S+ \[info.*"),
        ("auto", Terminal(), {}, r"\x1b\[.*"),
        ("json", Terminal(), {}, r"\{.*"),
        ("console", io.StringIO(), {}, r"2026-\S+ \[info.*"),
    ],
)
def test_auto_is_for_people_on_a_terminal_and_json_elsewhere(
    log_format: str, stream: io.StringIO, environ: dict[str, str], expected: str
) -> None:
    configure(log_format, "info", environ, stream, now=lambda: NOW)  # type: ignore[arg-type]  # a table of literals
    get_logger("x").info("a")
    assert re.match(expected, stream.getvalue())


def test_a_traceback_for_people_keeps_its_lines() -> None:
    stream = io.StringIO()
    configure("console", "info", {}, stream)
    try:
        int("bad\x1b[0m")
    except ValueError:
        get_logger("x").exception("a")
    assert "Traceback (most recent call last):\n" in stream.getvalue()
    assert "\\x1b[0m" in stream.getvalue()


# --------------------------------------------------------------------------------------------------------- secrets


def fail_with(text: str) -> None:
    try:
        int(text)
    except ValueError as inner:
        error = RuntimeError("outer", text.encode())
        error.add_note(text)
        raise error from inner


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_form_of_the_log_shows_a_secret(log_format: str) -> None:
    stream = io.StringIO()
    configure(log_format, "debug", {}, stream)  # type: ignore[arg-type]  # a table of literals
    logger = get_logger("x")
    logger.info(f"event {TOKEN}", **{TOKEN: 1}, deep=[{"a": (TOKEN, Secret(TOKEN))}], raw=TOKEN.encode())
    logging.getLogger("library").warning("said %s", TOKEN)
    try:
        fail_with(TOKEN)
    except RuntimeError:
        logger.exception("a")
        logging.getLogger("library").exception("b")
    assert TOKEN.rpartition(".")[2] not in stream.getvalue()
    assert stream.getvalue().count("[secret]") >= 8
    assert "RuntimeError" in stream.getvalue()


# ------------------------------------------------------------------------------------------------------- libraries


def test_lines_of_libraries_look_like_ours() -> None:
    stream = set_up()
    logging.getLogger("apscheduler").warning("run %d of %s was missed", 3, "tick")
    assert json_lines(stream) == [
        {
            "timestamp": "2026-03-01T12:00:00.250000Z",
            "level": "warning",
            "event": "library.reported",
            "logger": "apscheduler",
            "problem": "run 3 of tick was missed",
        }
    ]


@pytest.mark.parametrize(("level", "expected"), [("info", 1), ("error", 0), ("debug", 2)])
def test_libraries_say_only_what_went_wrong_unless_debugging(level: str, expected: int) -> None:
    stream = set_up(level)
    logging.getLogger("alembic").info("running")
    logging.getLogger("alembic").warning("strange")
    assert len(json_lines(stream)) == expected


@pytest.mark.parametrize(("number", "expected"), [(35, "warning"), (55, "critical"), (5, None)])
def test_levels_that_only_a_library_knows_are_rounded_down(number: int, expected: str | None) -> None:
    stream = set_up("debug")
    logging.getLogger("library").log(number, "odd")
    assert [line["level"] for line in json_lines(stream)] == ([expected] if expected else [])


def test_a_library_s_line_that_cannot_be_formatted_does_not_reach_its_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)  # else the standard library prints it
    stream = set_up()
    logging.getLogger("library").warning("%d", "no number")
    assert stream.getvalue() == ""


def test_setting_up_twice_writes_the_lines_of_libraries_once() -> None:
    set_up()
    stream = set_up()
    logging.getLogger("library").warning("once")
    assert len(json_lines(stream)) == 1


# ------------------------------------------------------------------------------------------------------ lost lines


def test_a_pipe_that_nobody_reads_holds_up_one_line_and_no_more() -> None:
    """What stands in the pipe is whole lines but for the last; read again, the next line tells how many were lost."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(reading, "rb", buffering=0) as pipe, os.fdopen(writing, "w") as stream:
        configure("json", "info", {}, stream)
        log = CataloguedLog()
        for number in range(40):
            log.event("config.warning", problem=f"{number} " + "x" * 300)
        full = pipe.read(1 << 16)
        log.event("config.warning", problem="heard")
        said = [json.loads(line) for line in pipe.read(1 << 16).splitlines() if line]
    whole = [json.loads(line) for line in full.splitlines()[:-1]]
    assert [line["problem"].split()[0] for line in whole] == [str(number) for number in range(len(whole))]
    assert [(line["event"], line.get("lines"), line.get("problem")) for line in said] == [
        ("log.lost", 40 - full.count(b"\n"), None),
        ("config.warning", None, "heard"),
    ]


class Pipe(io.StringIO):
    """A stream whose reader comes and goes."""

    broken = False

    def write(self, text: str) -> int:
        if self.broken:
            raise BrokenPipeError
        return super().write(text)


def test_a_log_that_cannot_be_written_stops_nothing_and_says_later_what_was_lost() -> None:
    stream = Pipe()
    configure("json", "info", {}, stream, now=lambda: NOW)
    logger = get_logger("x")
    stream.broken = True
    logger.info("a")
    logger.info("b")
    stream.broken = False
    logger.info("c")
    logger.info("d")
    assert [(line["event"], line.get("lines")) for line in json_lines(stream)] == [
        ("log.lost", 2),
        ("c", None),
        ("d", None),
    ]


def test_a_closed_stream_stops_nothing() -> None:
    stream = set_up()
    stream.close()
    get_logger("x").info("a")


# --------------------------------------------------------------------------------------------------------- journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "socket"))
        bound.settimeout(0.2)
        yield bound


@pytest.mark.parametrize("log_format", ["auto", "json"])
def test_where_the_stream_is_the_journal_entries_go_to_it_with_fields(
    journal: socket.socket, tmp_path: Path, log_format: str
) -> None:
    with (tmp_path / "stdout").open("w+") as stdout:
        status = os.fstat(stdout.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        configure(log_format, "info", environ, stdout, journal_socket=tmp_path / "socket")  # type: ignore[arg-type]  # a table of literals
        CataloguedLog().event("publish.failed", keyset="default", problem="the disk is full")
        entry = journal.recv(1 << 16)
        assert b"MESSAGE_ID=" + message_id("publish.failed").encode() in entry
        assert b"\nROTATOR_KEYSET=default\n" in entry
        assert b"\nPRIORITY=3\n" in entry
        assert (tmp_path / "stdout").read_text() == ""

        (tmp_path / "socket").unlink()
        get_logger("x").info("a", kid="k1")
        assert json.loads((tmp_path / "stdout").read_text())["kid"] == "k1", "it falls back to JSON"


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_the_journal_is_left_alone_where_the_stream_is_not_the_journal_or_people_read_it(
    journal: socket.socket, tmp_path: Path, log_format: str
) -> None:
    with (tmp_path / "stdout").open("w+") as stdout, (tmp_path / "other").open("w") as other:
        status = os.fstat((stdout if log_format == "console" else other).fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        configure(log_format, "info", environ, stdout, journal_socket=tmp_path / "socket")  # type: ignore[arg-type]  # a table of literals
        get_logger("x").info("a")
    assert (tmp_path / "stdout").read_text()
    with pytest.raises(TimeoutError):
        journal.recv(100)


def test_a_journal_entry_has_a_field_for_each_of_the_line_s() -> None:
    line: dict[str, Plain] = {
        "timestamp": "2026-03-01T12:00:00.250000Z",
        "level": "critical",
        "event": "delivery.critical",
        "logger": "rotator",
        "workspace": "acme",
        "attempts": 4,
        "kids": ["a", "b"],
        "nothing": None,
    }
    fields = journal_fields(line)
    assert fields.pop("MESSAGE").startswith("delivery.critical: A sink has waited")
    assert fields == {
        "PRIORITY": "2",
        "SYSLOG_IDENTIFIER": "rotator",
        "MESSAGE_ID": message_id("delivery.critical"),
        "ROTATOR_TIMESTAMP": "2026-03-01T12:00:00.250000Z",
        "ROTATOR_EVENT": "delivery.critical",
        "ROTATOR_LOGGER": "rotator",
        "ROTATOR_WORKSPACE": "acme",
        "ROTATOR_ATTEMPTS": "4",
        "ROTATOR_KIDS": '["a", "b"]',
    }
    assert encode(fields)


def test_a_line_that_is_not_in_the_catalogue_has_no_message_id() -> None:
    assert "MESSAGE_ID" not in journal_fields({"event": "run missed", "level": "warning"})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"event": "run missed"}, "run missed"),
        (
            {"event": "store.failed", "level": "critical", "problem": "the disk is full", "timestamp": "x"},
            "store.failed: The database cannot be used; it is tried again: the disk is full",
        ),
        (
            {"event": "key.activated", "keyset": "default", "kid": "k1", "hash": "ff", "seq": 7},
            "key.activated: A key began to sign. (keyset=default, kid=k1, seq=7)",
        ),
        ({"event": "a", "exception": "Traceback\nValueError", "n": [1]}, "a (n=[1])\nTraceback\nValueError"),
    ],
)
def test_the_message_of_a_journal_entry_is_a_sentence(line: dict[str, str], expected: str) -> None:
    assert sentence(line) == expected


# ------------------------------------------------------------------------------------------------------ event log


def test_audit_events_carry_who_why_and_their_place_in_the_chain() -> None:
    stream = set_up()
    log: EventLog = CataloguedLog()
    log.audit([audit_row()])
    assert json_lines(stream) == [
        {
            "timestamp": "2026-02-28T12:00:00.250000Z",
            "level": "info",
            "event": "key.activated",
            "logger": "rotator.audit",
            "rotate_at": "2026-06-01T00:00:00+00:00",
            "keyset": "default",
            "workspace": "acme",
            "kid": "k1",
            "jti": "j1",
            "actor": "ann(1000)",
            "reason": "security_period",
            "seq": 7,
            "hash": "ab" * 32,
        }
    ]


def test_audit_events_are_written_in_order_and_at_every_level() -> None:
    """They are the outbox of the database: the level holds back none."""
    stream = set_up("critical")
    CataloguedLog().audit([audit_row(seq=seq) for seq in (3, 4, 5)])
    assert [line["seq"] for line in json_lines(stream)] == [3, 4, 5]


def test_details_cannot_take_the_place_of_what_is_certain() -> None:
    """What a person wrote into a request must not pose as another event, actor or place in the chain."""
    stream = set_up()
    event = Event(
        name=EventName.KEY_REVOKED,
        at=NOW,
        details={"seq": 1, "hash": "0", "actor": "rotator", "event": "x", "level": "debug", "at": "y", "exc_info": 1},
    )
    CataloguedLog().audit([AuditRow(9, event, "ff")])
    line = json_lines(stream)[0]
    assert (line["event"], line["level"], line["seq"], line["hash"]) == ("key.revoked", "warning", 9, "ff")
    assert line["timestamp"] == "2026-03-01T12:00:00.250000Z"
    assert line["event_"] == "x"


@pytest.mark.parametrize("name", list(LogEvent))
def test_every_log_event_is_written_at_its_level(name: LogEvent) -> None:
    stream = set_up("debug")
    CataloguedLog().event(name, problem="p", level="x", event="y", method_name="z", message="m")
    line = json_lines(stream)[0]
    assert (line["event"], line["level"], line["problem"]) == (name, LOG_EVENTS[name].level, "p")


def test_an_event_that_the_catalogue_does_not_know_is_written_as_a_warning() -> None:
    stream = set_up()
    CataloguedLog().event("some.thing", a=1)
    assert [(line["event"], line["level"]) for line in json_lines(stream)] == [("some.thing", "warning")]


# ------------------------------------------------------------------------------------------------------- catalogue


def test_every_event_has_an_entry_and_a_sentence() -> None:
    assert set(LOG_EVENTS) == set(LogEvent)
    assert set(AUDIT_EVENTS) == set(EventName)
    for entry in (*LOG_EVENTS.values(), *AUDIT_EVENTS.values()):
        assert re.fullmatch(r"[A-Z][^|\n]+\.", entry.meaning)


def test_no_two_events_share_a_name_or_a_message_id() -> None:
    names = [*LogEvent, *EventName]
    assert len({message_id(name) for name in names}) == len(set(names)) == len(names)


def test_message_ids_never_change() -> None:
    """Alerts stand on them."""
    assert message_id("key.activated") == "e0692c38a35e5ad3ae9f40059a125684"
    assert message_id("kek.missing") == "836e805c47ee57f29a786f4a09c3ede1"


def test_the_page_of_events_is_the_catalogue() -> None:
    page = (ROOT / "docs/events.md").read_text(encoding="utf-8")
    assert page == log_catalogue.render(), "run: python -m rotator.log_catalogue > docs/events.md"


def test_the_page_is_written_by_its_module() -> None:
    run = subprocess.run([sys.executable, "-m", "rotator.log_catalogue"], capture_output=True, check=True, cwd=ROOT)
    assert run.stdout.decode() == log_catalogue.render()


def texts(*, without: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield each text in the code, with where it stands and the method that it is an argument of, if any."""
    for path in sorted((ROOT / "rotator").rglob("*.py")):
        if path.name == without:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr=called), args=arguments):
                    for argument in arguments:
                        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                            yield argument.value, f"{path.name}:{argument.lineno}", called
                case ast.Constant(value=str(text)):
                    yield text, f"{path.name}:{node.lineno}", ""


def test_every_event_that_the_code_logs_is_in_the_catalogue() -> None:
    logged = {
        where: text
        for text, where, called in texts()
        if called in {"event", "fault", "healed"} and re.fullmatch(r"[a-z]+\.[a-z_]+", text)
    }
    assert logged
    assert {where: text for where, text in logged.items() if find(text) is None} == {}


def test_every_log_event_in_the_catalogue_is_logged_by_the_code() -> None:
    """An alert on an event that never comes is worse than none."""
    said = {text for text, _, _ in texts(without="log_events.py")} | {LogEvent.LOG_LOST}
    assert [event.value for event in LogEvent if event not in said] == []
