"""The control socket: a real socket, a real database, and a stand-in for the daemon's loop."""

import contextlib
import json
import os
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from rotator.adapters.clock import SystemClock
from rotator.adapters.store import SqlStore, open_store
from rotator.adapters.store.connect import CONNECTIONS_AT_MOST
from rotator.config.settings import ControlSettings
from rotator.control import LINE_LIMIT, REQUESTS, ControlServer, typed
from rotator.control_client import NoDaemonError, Wait, ask, connect
from rotator.control_places import Complaints
from rotator.control_questions import LONG_AT_ONCE, SHORT_AT_ONCE, STORED_AT_ONCE, Question
from rotator.control_roles import Doorkeeper, Peer, Role, name_of, peer_of
from rotator.core.policy import Policy
from rotator.core.secret import Secret
from rotator.engine.answers import Answers
from rotator.errors import ConfigError, KekError, RefusedError, RotatorError
from rotator.ports import SEALED, Answer, AuditRow, RequestRow, Snapshot
from rotator.report.answers import FOR_OPERATORS
from tests.contract.records import ENDLESS
from tests.patience import HANG_SECONDS, wait_until

NOBODY = Peer(uid=54_321, gid=54_321)


@dataclass
class Loop:
    """What the server is wired to: it answers requests as the daemon's loop would, and records what it was told."""

    store: SqlStore
    outcome: tuple[bool, str, str | None] | None = (True, "done", None)
    """None: requests are left lying."""
    answers: Answers = field(default_factory=Answers)
    events: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)
    peer: Peer | None = None

    def accept(self, draft: RequestRow, secret: Secret[str] | None) -> RequestRow:
        request = replace(draft, nonce=secrets.token_hex(8), mac=b"of a process with the KEK")
        if secret is not None:
            request = replace(request, arguments={**draft.arguments, SEALED: f"{len(secret.reveal())} characters"})
        self.answers.expect(request.nonce)
        with self.store.begin() as transaction:
            return replace(request, id=transaction.add_request(request))

    def wake(self) -> None:
        if self.outcome is None:
            return
        succeeded, result, secret = self.outcome
        with self.store.begin() as transaction:
            requests = transaction.open_requests()
            for request in requests:
                transaction.finish_request(request.id, SystemClock().read().now, succeeded=succeeded, result=result)
        for request in requests:
            self.answers.give(request.nonce, Answer(succeeded, result, None if secret is None else Secret(secret)))

    def audit(self, rows: object) -> None:
        assert isinstance(rows, list | AuditRow)

    def event(self, name: str, **fields: object) -> None:
        self.events.append((name, fields))

    def peer_of(self, connection: socket.socket) -> Peer:
        return peer_of(connection) if self.peer is None else self.peer


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    store = open_store(f"sqlite:///{tmp_path / 'rotator.db'}", create=True)
    yield Loop(store)
    store.close()


def settings(path: Path, **groups: tuple[str, ...]) -> ControlSettings:
    return replace(ControlSettings(path, (), (), ()), **groups)  # type: ignore[arg-type]  # groups, by name


def server_of(loop: Loop, path: Path, **rest: Any) -> ControlServer:
    given: dict[str, Any] = {
        "settings": settings(path),
        "faults": dict,
        "policy": Policy,
        "published_set": lambda _: None,
        "accept": loop.accept,
        "wake": loop.wake,
    } | rest
    return ControlServer(
        store=loop.store,
        clock=SystemClock(),
        answers=loop.answers,
        log=loop,
        peer_of=loop.peer_of,
        **given,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
def server(loop: Loop, path: Path) -> Iterator[ControlServer]:
    with server_of(loop, path, patience=timedelta(seconds=0.3), line_timeout=timedelta(seconds=0.5)) as served:
        yield served


def speak(path: Path, said: bytes, *, end: bool = True) -> dict[str, Any]:
    """Send raw bytes and return the answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(HANG_SECONDS)
        connection.connect(str(path))
        try:
            connection.sendall(said)
            if end:
                connection.shutdown(socket.SHUT_WR)
        except BrokenPipeError:
            pass  # refused before all of it was sent: the answer is there to be read
        with connection.makefile("rb") as stream:
            answer: dict[str, Any] = json.loads(stream.readline())
            return answer


# ------------------------------------------------------------------------------------------------------------ answers


def test_reading_command_is_answered(server: ControlServer, path: Path) -> None:
    """From the database, as the service's own user."""
    assert ask(path, "keys.list") == {"keys": []}
    assert ask(path, "status")["state"] == "ok"


def test_faults_of_the_daemon_are_in_its_answer(loop: Loop, path: Path) -> None:
    """What only the daemon knows."""
    with server_of(loop, path, faults=lambda: {"kek": "gone"}):
        assert ask(path, "status")["kek"] == {"usable": False, "problem": "gone", "ids": []}


class EndlessStore:
    """A real store, any read of which never ends by itself."""

    def __init__(self, real: SqlStore) -> None:
        self._real = real

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    @contextlib.contextmanager
    def read(self, check: Callable[[], None] | None = None) -> Iterator[Snapshot]:
        with self._real.read(check) as snapshot:
            snapshot._connection.exec_driver_sql(ENDLESS)  # type: ignore[attr-defined]  # the real one's
            yield snapshot


def test_a_question_ends_when_whoever_asked_has_gone(loop: Loop, path: Path) -> None:
    """In the midst of a statement that would never end; its place is free again."""
    loop.store = cast("SqlStore", EndlessStore(loop.store))
    with server_of(loop, path) as server:
        with connect(path, timedelta(seconds=HANG_SECONDS)) as connection:
            connection.sendall(b'{"command": "audit.verify"}\n')
            wait_until(lambda: server._turns._long._value < LONG_AT_ONCE, "it is being answered")
        wait_until(lambda: server._places._taken.total() == 0, "the place is free again")
        assert server._turns._long._value == LONG_AT_ONCE


def test_a_question_that_takes_too_long_is_given_up_with_a_sentence(loop: Loop, path: Path) -> None:
    """And nothing of the bound is left on the connection, which the next one gets."""
    real, loop.store = loop.store, cast("SqlStore", EndlessStore(loop.store))
    with (
        server_of(loop, path, answered_within=timedelta(seconds=0.2)),
        pytest.raises(RefusedError, match=r"longer than 0\.2 seconds and was given up.*Ask for less"),
    ):
        ask(path, "audit.list")
    loop.store = real
    with server_of(loop, path):
        assert ask(path, "audit.list") == {"events": []}


def test_a_daemon_that_stops_ends_the_questions_that_are_being_answered(loop: Loop, path: Path) -> None:
    loop.store = cast("SqlStore", EndlessStore(loop.store))
    with connect_to(path, server_of(loop, path)) as connection, connection.makefile("rb") as stream:
        assert "the daemon is stopping" in json.loads(stream.readline())["error"]


@contextlib.contextmanager
def connect_to(path: Path, server: ControlServer) -> Iterator[socket.socket]:
    """Ask a question of a server that then stops."""
    with contextlib.ExitStack() as stack:
        with server:
            connection = stack.enter_context(connect(path, timedelta(seconds=HANG_SECONDS)))
            connection.sendall(b'{"command": "plan"}\n')
            wait_until(lambda: server._turns._long._value < LONG_AT_ONCE, "it is being answered")
        yield connection


def test_few_long_questions_are_answered_at_a_time_and_short_ones_wait_for_none(loop: Loop, path: Path) -> None:
    with server_of(loop, path, answered_within=timedelta(seconds=0.3)) as server:
        with contextlib.ExitStack() as others:
            for _ in range(LONG_AT_ONCE):
                others.enter_context(
                    server._turns.answering("plan", Question(others_connection(others), threading.Event()))
                )
            assert ask(path, "status")["state"] == "ok"
            with pytest.raises(RefusedError, match=r"longer than 0\.3 seconds and was given up"):
                ask(path, "plan")
        assert ask(path, "plan")["keys"] == []


def test_a_revocation_waits_for_no_other_request_to_be_stored(loop: Loop, path: Path) -> None:
    """They leave the loop its connections to the database, and it passes them by."""
    with server_of(loop, path, answered_within=timedelta(seconds=0.3)) as server, contextlib.ExitStack() as others:
        for _ in range(STORED_AT_ONCE):
            others.enter_context(server._turns.storing(Question(others_connection(others), threading.Event())))
        with pytest.raises(RefusedError, match="was given up"):
            ask(path, "clock.accept", reason="why")
        assert ask(path, "token.revoke", {"jti": "abc"}, "leaked")["finished"]


def test_whoever_looks_leaves_the_loop_connections_to_the_database() -> None:
    assert LONG_AT_ONCE + SHORT_AT_ONCE + STORED_AT_ONCE <= CONNECTIONS_AT_MOST - 4


def others_connection(stack: contextlib.ExitStack) -> socket.socket:
    mine, theirs = socket.socketpair()
    stack.enter_context(theirs)
    return stack.enter_context(mine)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"\n", "expected one line of JSON"),
        (b"", "expected one line of JSON"),
        (b"\xff\xfe\n", "expected one line of JSON"),
        (b"[" * 60_000 + b"\n", "expected one line of JSON"),
        (b"[]\n", "expected an object"),
        (b'{"command": "status", "uid": 0}\n', "expected an object with command, arguments and reason"),
        (b"{}\n", "unknown command 'None'"),
        (b'{"command": ["status"]}\n', "unknown command"),
        (b'{"command": "stop"}\n', "unknown command 'stop'; known are status, plan"),
        (b'{"command": "status", "arguments": []}\n', None),
        (b'{"command": "status", "arguments": [1]}\n', "arguments are an object"),
        (b'{"command": "status", "arguments": {"a": {}}}\n', "the argument 'a' has a control character, or is no text"),
        (b'{"command": "token.show", "arguments": {"workspace": "\\ud800"}}\n', "has a control character"),
        (b'{"command": "token.show", "arguments": {"workspace": "\\u001b[2J"}}\n', "has a control character"),
        (b'{"command": "token.show"}\n', "the argument workspace is missing"),
        (b'{"command": "token.show", "arguments": {"workspace": 1}}\n', "the argument workspace is missing"),
        (b'{"command": "token.show", "arguments": {"workspace": "a", "x": 1}}\n', "unknown argument 'x'"),
        (b'{"command": "clock.accept"}\n', "say why with --reason"),
        (b'{"command": "clock.accept", "reason": "a\\nb"}\n', "a reason is one line"),
        (b'{"command": "clock.accept", "reason": 1}\n', "a reason is one line"),
        (b'{"command": "status", "arguments": {"x": 1}}\n', "unknown argument 'x'"),
        (b'{"command": "plan", "arguments": {"for_seconds": 1e99}}\n', "is no text, number"),
        (b'{"command": "key.import", "arguments": {"keyset": "default"}}\n', "key.import lacks its secret"),
        (b'{"command": "key.import", "arguments": {"keyset": "default"}, "secret": 1}\n', "a secret is text"),
        (b'{"command": "key.import", "arguments": {"x": "1"}, "secret": "s"}\n', "known are: keyset, until"),
        (b'{"command": "config.accept", "reason": "why", "secret": "s"}\n', "config.accept takes no secret"),
        (
            b'{"command": "clock.accept", "reason": "why", "wait": "long"}\n',
            "found 'long' as wait, expected one of",
        ),
        (b'{"command": "clock.accept", "reason": "why", "wait": []}\n', "as wait, expected one of"),
        (b"x" * (LINE_LIMIT + 1), "at most 65536 bytes; write a shorter reason or argument"),
    ],
)
def test_hostile_lines_are_refused(server: ControlServer, path: Path, said: bytes, problem: str | None) -> None:
    """With a sentence each; the next peer is served as ever."""
    answer = speak(path, said)
    if problem is None:
        assert answer["ok"]
    else:
        assert (answer["ok"], problem in answer["error"]) == (False, True), answer
    assert ask(path, "keys.list") == {"keys": []}


def test_slow_peer_is_refused(server: ControlServer, path: Path) -> None:
    """Who does not finish the line in time makes room for others."""
    assert speak(path, b'{"command"', end=False)["error"] == "no whole line within 0 seconds"


def test_peer_that_goes_away_harms_nothing(server: ControlServer, path: Path, loop: Loop) -> None:
    """In the middle of its line or of our answer."""
    for said in (b'{"comm', b'{"command": "status"}\n'):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(said)
    assert ask(path, "keys.list") == {"keys": []}
    assert loop.events == []


def test_too_many_peers_at_once_are_told_so(server: ControlServer, path: Path) -> None:
    """The 33rd gets a clear answer, and a place when another leaves."""
    waiting = []
    for _ in range(32):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
        waiting.append(connection)
    answer = speak(path, b"", end=False)
    assert "32 others are talking to the daemon" in answer["error"]
    for connection in waiting:
        connection.close()
    assert _in_time(lambda: ask(path, "keys.list") == {"keys": []})


def _crowd(loop: Loop, path: Path, peer: Peer, size: int) -> list[socket.socket]:
    """Connect ``size`` times as ``peer``, saying nothing; return the connections, for those that are told off too."""
    loop.peer = peer
    connections = []
    for _ in range(size):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
        connections.append(connection)
    speak(path, b"\n")  # accepted in order: they all have been looked at
    return connections


VIEWER, OPERATOR, ADMIN = 701, 702, 703


def _roles(name: str) -> Any:
    return SimpleNamespace(gr_gid={"v": VIEWER, "o": OPERATOR, "a": ADMIN}[name])


def test_who_may_do_less_takes_no_place_of_who_may_do_more(
    loop: Loop, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users without a role have a few places of their own; the others are let in up to a number that grows by role."""
    monkeypatch.setattr("grp.getgrnam", _roles)
    crowd = []
    with server_of(loop, path, settings=settings(path, viewers=("v",), operators=("o",), admins=("a",))):
        try:
            crowd += _crowd(loop, path, NOBODY, 100)
            assert "talking to the daemon 4 times already" in speak(path, b"\n")["error"]
            crowd += _crowd(loop, path, Peer(3_000, 3_000), 4)
            assert "8 others are talking to the daemon" in speak(path, b"\n")["error"]
            for gid, ceiling in ((VIEWER, 16), (OPERATOR, 20), (ADMIN, 24)):
                loop.peer = Peer(4_000 + gid, gid)
                assert ask(path, "keys.list") == {"keys": []}
                for uid in range(5_000 + 10 * gid, 5_000 + 10 * gid + 4):
                    crowd += _crowd(loop, path, Peer(uid, gid), 9)
                assert f"{ceiling} others are talking to the daemon" in speak(path, b"\n")["error"]
            for owner in (Peer(0, 0), Peer(os.geteuid(), os.getegid())):
                loop.peer = owner
                assert ask(path, "keys.list") == {"keys": []}
        finally:
            for connection in crowd:
                connection.close()
        loop.peer = NOBODY
        assert _in_time(lambda: "expected one line" in speak(path, b"\n")["error"])


def test_one_user_has_eight_places_at_most(loop: Loop, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grp.getgrnam", _roles)
    with server_of(loop, path, settings=settings(path, admins=("a",))):
        crowd = _crowd(loop, path, Peer(2_000, ADMIN), 100)
        try:
            assert "talking to the daemon 8 times already" in speak(path, b"\n")["error"]
            loop.peer = Peer(2_001, ADMIN)
            assert ask(path, "keys.list") == {"keys": []}
        finally:
            for connection in crowd:
                connection.close()


def test_what_is_refused_to_one_user_is_logged_now_and_then_and_counted() -> None:
    now = [0.0]
    complaints = Complaints(clock=lambda: now[0])
    assert [complaints.due(1) for _ in range(1_000)] == [0, *[None] * 999]
    assert complaints.due(2) == 0
    now[0] = 9.9
    assert complaints.due(1) is None
    now[0] = 10.0
    assert complaints.due(1) == 1_000
    now[0] = 40.0
    assert complaints.due(1) == 0
    assert not complaints._left_out


def _in_time(holds: Callable[[], bool]) -> bool:
    def held() -> bool:
        try:
            return holds()
        except RotatorError:
            return False

    wait_until(held, "a place is free again")
    return True


def test_own_fault_is_logged_and_not_told(loop: Loop, path: Path) -> None:
    """A peer sees no traceback, and the daemon goes on."""

    def policy() -> Policy:
        raise ZeroDivisionError("inside")

    with server_of(loop, path, policy=policy), pytest.raises(RotatorError, match="the daemon failed at this"):
        ask(path, "status")
    assert loop.events == [("control.failed", {"problem": "ZeroDivisionError: inside"})]


# ----------------------------------------------------------------------------------------------------------- requests


def test_request_is_stored_before_it_is_answered(server: ControlServer, path: Path, loop: Loop) -> None:
    """With who asked, as the kernel knows them, and why."""
    loop.outcome = (True, "the clock is trusted", None)
    answer = ask(path, "clock.accept", reason="checked by phone")
    said = {"finished": True, "text": "the clock is trusted", "secret": None, "follows": False}
    assert answer == {"request": 1, **said}
    with loop.store.read() as snapshot:
        row = snapshot.request(1)
    assert row is not None
    assert (row.kind, row.uid, row.actor) == ("clock.accept", os.getuid(), name_of(os.getuid()))
    assert (row.reason, dict(row.arguments)) == ("checked by phone", {})


def test_secret_goes_to_the_peer_alone(server: ControlServer, path: Path, loop: Loop, tmp_path: Path) -> None:
    """It is in no row, no log, and no memory afterwards."""
    loop.outcome = (True, "jti-1", "eyJ.secret.text")
    assert ask(path, "token.show", {"workspace": "acme"})["secret"] == "eyJ.secret.text"
    assert loop.answers == Answers()
    assert loop.events == []
    for file in tmp_path.iterdir():
        if file.is_file():
            assert b"eyJ.secret.text" not in file.read_bytes()


def test_refusal_of_the_loop_is_passed_on(server: ControlServer, path: Path, loop: Loop) -> None:
    """As the sentence that it is."""
    loop.outcome = (False, "no config waits to be accepted", None)
    with pytest.raises(RefusedError, match="no config waits to be accepted"):
        ask(path, "config.accept", reason="meant")


def test_request_that_waits_says_what_for(loop: Loop, path: Path) -> None:
    """As a revocation does while the KEK is missing: it is stored, and carried out when that is back."""
    loop.outcome = None
    with server_of(loop, path, faults=lambda: {"kek": "it is missing"}, patience=timedelta(seconds=0.2)):
        answer = ask(path, "key.revoke", {"kid": "abc"}, "leaked")
    assert not answer["finished"]
    assert answer["text"].endswith("What is wrong now: kek: it is missing")


def test_request_that_takes_long_goes_on_without_its_peer(server: ControlServer, path: Path, loop: Loop) -> None:
    """The peer is told its number; nothing is kept for a peer that waits no more."""
    loop.outcome = None
    answer = ask(path, "clock.accept", reason="why")
    assert (answer["finished"], answer["text"][:21]) == (False, "accepted as request 1")
    assert not loop.answers.awaited(_nonce(loop, 1))
    loop.outcome = (True, "done", "eyJ.secret.text")
    loop.wake()
    assert loop.answers == Answers()


def test_who_does_not_wait_gets_the_number_at_once(loop: Loop, path: Path) -> None:
    """As soon as it is stored, whatever the loop does meanwhile."""
    loop.outcome = None
    with server_of(loop, path, patience=timedelta(days=1)):
        answer = ask(path, "key.revoke", {"kid": "abc"}, "leaked", wait=Wait.NO)
    assert (answer["request"], answer["finished"]) == (1, False)
    assert answer["text"].startswith("accepted as request 1")


def test_what_is_not_stored_is_waited_for_by_whoever_does_not_wait(loop: Loop, path: Path) -> None:
    """A revocation without the KEK is in memory alone until it is in the journal: that is no time to leave."""

    def accept(draft: RequestRow, secret: Secret[str] | None) -> RequestRow:
        stored = loop.accept(draft, secret)
        return replace(stored, id=0)

    with server_of(loop, path, accept=accept):
        assert ask(path, "key.revoke", {"kid": "abc"}, "leaked", wait=Wait.NO)["finished"]
        assert ask(path, "token.show", {"workspace": "acme"}, wait=Wait.NO)["finished"]


def test_who_waits_to_the_end_does_so_beyond_all_patience(loop: Loop, path: Path) -> None:
    loop.outcome = None
    answers: list[Any] = []
    with server_of(loop, path, patience=timedelta(0)):
        asking = threading.Thread(
            target=lambda: answers.append(ask(path, "clock.accept", reason="why", wait=Wait.TO_THE_END)), daemon=True
        )
        asking.start()
        wait_until(lambda: _open_requests(loop) == 1, "it is stored")
        assert not ask(path, "config.accept", reason="why")["finished"]
        loop.outcome = (True, "done", None)
        loop.wake()
        asking.join(HANG_SECONDS)
    assert [answer["finished"] for answer in answers] == [True]


def test_a_token_that_comes_too_late_is_not_promised(server: ControlServer, path: Path, loop: Loop) -> None:
    """It would be shown to nobody."""
    loop.outcome = None
    answer = ask(path, "token.show", {"workspace": "acme"})
    assert not answer["finished"]
    assert "could not be shown in time, and will not be: ask again" in answer["text"]


def test_nobody_is_waited_for_who_hung_up(loop: Loop, path: Path) -> None:
    """A secret answer is for the connection that waits: when it is gone, nobody does."""
    loop.outcome = None
    with server_of(loop, path, patience=timedelta(seconds=30)):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(b'{"command": "token.show", "arguments": {"workspace": "acme"}}\n')
            assert _in_time(lambda: _open_requests(loop) == 1)
            assert loop.answers.awaited(_nonce(loop, 1))
        assert _in_time(lambda: not loop.answers.awaited(_nonce(loop, 1)))


def test_a_row_does_not_answer_for_the_loop(loop: Loop, path: Path) -> None:
    """Whoever can write the database could say there that a revocation was made, and nothing would be revoked."""
    loop.outcome = None

    def lie() -> None:
        with loop.store.begin() as transaction:
            for request in transaction.open_requests():
                transaction.finish_request(request.id, SystemClock().read().now, succeeded=True, result="it is revoked")

    with server_of(loop, path, wake=lie, patience=timedelta(seconds=0.3)):
        answer = ask(path, "key.revoke", {"kid": "abc"}, "leaked")
    assert not answer["finished"]
    assert "it is revoked" not in answer["text"]


def test_an_answer_goes_to_its_own_connection_alone(loop: Loop, path: Path) -> None:
    """However many ask at the same time for the same."""
    loop.outcome = None
    shown: dict[str, str] = {}

    def look(workspace: str) -> None:
        shown[workspace] = ask(path, "token.show", {"workspace": workspace})["secret"]

    names = [f"ws-{number}" for number in range(6)]
    with server_of(loop, path):
        threads = [threading.Thread(target=look, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        assert _in_time(lambda: _open_requests(loop) == len(names))
        with loop.store.read() as snapshot:
            waiting = snapshot.open_requests()
        for request in reversed(waiting):
            loop.answers.give(request.nonce, Answer(True, "jti", Secret(f"token of {request.arguments['workspace']}")))
        for thread in threads:
            thread.join(10)
    assert shown == {name: f"token of {name}" for name in names}


def _nonce(loop: Loop, number: int) -> str:
    with loop.store.read() as snapshot:
        request = snapshot.request(number)
    assert request is not None
    return request.nonce


# -------------------------------------------------------------------------------------------------------------- roles


COMMANDS: dict[str, dict[str, str]] = {
    "status": {},
    "token.verify": {},
    "token.show": {"workspace": "acme"},
    "token.replace": {"workspace": "acme", "overlap": "600"},
    "keyset.rotate": {"keyset": "default"},
    "keyset.rotate_at_once": {"keyset": "default", "signing": "none"},
    "clock.accept": {},
    "config.accept": {},
}


@pytest.mark.parametrize(
    ("group", "may"),
    [
        (None, set()),
        ("viewers", {"status"}),
        ("operators", {"status", "token.verify", "token.show", "token.replace", "keyset.rotate"}),
        ("admins", set(COMMANDS)),
    ],
)
def test_groups_give_roles(
    loop: Loop, path: Path, monkeypatch: pytest.MonkeyPatch, group: str | None, may: set[str]
) -> None:
    """Each may what the ones below may; who may not is told what it takes, and it is logged."""
    monkeypatch.setattr("grp.getgrnam", _groups)
    loop.peer = replace(NOBODY, gid=700) if group else NOBODY
    groups = {} if group is None else {group: ("mine",)}
    with server_of(loop, path, settings=settings(path, **groups)):
        for command, arguments in COMMANDS.items():
            if command in may:
                ask(path, command, arguments, "why")
            else:
                with pytest.raises(RefusedError, match=rf"unknown\(54321\) may not use `rotator {typed(command)}`"):
                    ask(path, command, arguments, "why")
    denied = [fields["command"] for name, fields in loop.events if name == "control.denied"]
    assert denied == [name for name in COMMANDS if name not in may][:1]  # the others would fill the log
    with loop.store.read() as snapshot:
        assert snapshot.open_requests() == ()


REVOKING = {
    "key.revoke": {"kid": "abc"},
    "keyset.revoke": {"keyset": "default", "choice": "wait"},
    "token.revoke": {"jti": "abc"},
    "workspace.revoke": {"workspace": "acme"},
}


@pytest.mark.parametrize(
    ("group", "rehearses", "revokes"),
    [(None, False, False), ("viewers", False, False), ("operators", True, False), ("admins", True, True)],
)
def test_operators_rehearse_and_admins_revoke(
    loop: Loop, path: Path, monkeypatch: pytest.MonkeyPatch, group: str | None, rehearses: bool, revokes: bool
) -> None:
    """With a reason, which goes into the audit."""
    monkeypatch.setattr("grp.getgrnam", _groups)
    loop.peer = replace(NOBODY, gid=700) if group else NOBODY
    groups = {} if group is None else {group: ("mine",)}
    with server_of(loop, path, settings=settings(path, **groups)):
        answer = "there is no workspace" if rehearses else "may not use `rotator revoke … --rehearse`"
        with pytest.raises(RefusedError, match=answer):
            ask(path, "revocation.show", {"subject": "workspace", "name": "acme"})
        for command, arguments in REVOKING.items():
            if revokes:
                assert ask(path, command, arguments, "leaked")["finished"]
                with pytest.raises(ConfigError, match="say why with --reason"):
                    ask(path, command, arguments)
            else:
                with pytest.raises(RefusedError, match=f"may not use `rotator {typed(command)}`"):
                    ask(path, command, arguments, "leaked")
    with loop.store.read() as snapshot:
        assert (snapshot.request(len(REVOKING)) is not None) is revokes


def test_what_to_rehearse_is_named(loop: Loop, path: Path) -> None:
    with server_of(loop, path), pytest.raises(ConfigError, match="found 'all' to revoke, expected one of: key"):
        ask(path, "revocation.show", {"subject": "all", "name": "acme"})


def _groups(name: str) -> Any:
    import grp

    known = {"mine": 700, "theirs": 701}
    if name not in known:
        raise KeyError(name)
    return grp.struct_group((name, "x", known[name], []))


def test_what_roles_may_do_is_said_whole_where_they_are_given() -> None:
    """In the example of a config and in README.md, each command beside its role."""
    root = Path(__file__).parent.parent
    example, readme = (root / "config.example.yaml").read_text(), (root / "README.md").read_text()
    for role in (Role.OPERATOR, Role.ADMIN):
        (line,) = re.findall(rf"^#   {role.name.lower()}s: .*# and: (.*)$", example, re.MULTILINE)
        (row,) = re.findall(rf"^\| {role.name.lower()} \| and (.*) \|$", readme, re.MULTILINE)
        named = set(line.split(", "))
        told = {typed(command) for command, request in REQUESTS.items() if request.role is role}
        told |= {typed(command) for command in FOR_OPERATORS if role is Role.OPERATOR}
        missing = [each for each in told if not {each, each.split()[0]} & named]
        assert missing == []
        assert [each for each in named if f"`{each}" not in row] == []


def test_refusal_names_the_groups(loop: Loop, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that people know whom to ask."""
    monkeypatch.setattr("grp.getgrnam", _groups)
    loop.peer = NOBODY
    given = settings(path, viewers=("mine",), operators=("theirs",))
    with server_of(loop, path, settings=given):
        with pytest.raises(RefusedError, match="it needs a member of theirs or mine"):
            ask(path, "status")
        with pytest.raises(RefusedError, match="it needs root or the user of the service"):
            ask(path, "clock.accept", reason="why")


def test_supplementary_groups_count(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """The peer's credentials hold one group; its user may be in others."""
    monkeypatch.setattr("grp.getgrnam", _groups)
    monkeypatch.setattr("os.getgrouplist", lambda _name, gid: [gid, 701])
    monkeypatch.setattr("os.geteuid", lambda: 12_345)
    keeper = Doorkeeper(settings(path, viewers=("theirs",)))
    import pwd

    user = next(entry for entry in pwd.getpwall() if entry.pw_uid not in (0, 12_345))
    assert keeper.role(Peer(user.pw_uid, user.pw_gid)) is Role.VIEWER
    assert keeper.role(Peer(0, 0)) is Role.ADMIN
    assert keeper.role(Peer(12_345, 1)) is Role.ADMIN


def test_unknown_group_in_the_config_is_a_warning(loop: Loop, path: Path) -> None:
    """It gives no one a role, and nobody should have to find out by being refused."""
    with server_of(loop, path, settings=settings(path, admins=("no-such-group",))):
        pass
    assert loop.events == [
        ("config.warning", {"problem": "control: this machine has no group 'no-such-group'; it gives no one a role"})
    ]


# --------------------------------------------------------------------------------------------------------- the socket


def test_anyone_may_connect_and_the_socket_goes_with_the_daemon(loop: Loop, path: Path) -> None:
    """Roles decide, not the mode."""
    with server_of(loop, path):
        assert path.stat().st_mode & 0o777 == 0o666
    assert not path.exists()
    with pytest.raises(NoDaemonError, match="no daemon listens"):
        ask(path, "status")


def test_socket_of_a_dead_daemon_is_replaced(loop: Loop, path: Path) -> None:
    """A kill leaves it behind."""
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with server_of(loop, path):
        assert ask(path, "keys.list") == {"keys": []}


def test_socket_of_a_live_daemon_is_left_alone(server: ControlServer, loop: Loop, path: Path) -> None:
    """And still works after the second one was refused."""
    with pytest.raises(RefusedError, match="a daemon is listening"), server_of(loop, path):
        pass
    assert ask(path, "keys.list") == {"keys": []}


def test_file_in_its_place_is_left_alone(loop: Loop, path: Path) -> None:
    """Someone else's."""
    path.write_text("mine")
    with pytest.raises(RefusedError, match="is no socket"), server_of(loop, path):
        pass
    assert path.read_text() == "mine"


def test_directory_that_is_missing_is_named(loop: Loop, tmp_path: Path) -> None:
    """With what to do."""
    with pytest.raises(RefusedError, match=r"set control\.socket"), server_of(loop, tmp_path / "no" / "s.sock"):
        pass


def test_long_path_works(loop: Loop, tmp_path: Path) -> None:
    """Although the kernel takes 107 bytes only."""
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    with server_of(loop, directory / "control.sock"):
        assert ask(directory / "control.sock", "keys.list") == {"keys": []}


def test_stopping_answers_who_waits(loop: Loop, path: Path) -> None:
    """A stop takes less than a second, whoever is connected."""
    loop.outcome = None
    answers: list[Any] = []
    with server_of(loop, path):
        thread = threading.Thread(target=lambda: answers.append(ask(path, "clock.accept", reason="why")))
        thread.start()
        assert _in_time(lambda: _open_requests(loop) == 1)
    thread.join(5)
    assert [answer["finished"] for answer in answers] == [False]


def _open_requests(loop: Loop) -> int:
    with loop.store.read() as snapshot:
        return len(snapshot.open_requests())


# --------------------------------------------------------------------------------------------------------- the client


@pytest.mark.parametrize(
    ("reply", "error", "problem"),
    [
        (b"", RotatorError, "hung up"),
        (b"[]\n", RotatorError, "hung up"),
        (b'{"ok": false}\n', RotatorError, "hung up"),
        (b'{"ok": false, "error": "no", "exit_code": 2}\n', ConfigError, "no"),
        (b'{"ok": false, "error": "no", "exit_code": 1}\n', RefusedError, "no"),
    ],
)
def test_client_understands_refusals(path: Path, reply: bytes, error: type[RotatorError], problem: str) -> None:
    """And daemons that die in the middle."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(error, match=problem):
            ask(path, "status")
        thread.join()


def test_client_does_not_wait_for_ever(path: Path) -> None:
    """A daemon that hangs is named."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(RotatorError, match="did not answer within"):
            ask(path, "status", timeout=timedelta(seconds=0.2))


def test_client_waits_for_a_place_in_the_queue(path: Path) -> None:
    """Where many come at once, the kernel turns the last ones away for a moment."""
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
        listener.bind(str(path))
        listener.listen(0)
        stack.enter_context(connect(path, timedelta(seconds=1)))
        with pytest.raises(TimeoutError):
            connect(path, timedelta(seconds=0.05))

        def accept() -> None:
            listener.accept()[0].close()

        later = threading.Timer(0.2, accept)
        later.start()
        stack.enter_context(connect(path, timedelta(seconds=HANG_SECONDS)))
        later.join()


# ----------------------------------------------------------------------------------------------- secrets that come in


def test_a_secret_is_sealed_before_it_is_stored(loop: Loop, path: Path) -> None:
    """It is in no row, event or answer; what is sealed goes when the request is finished."""
    loop.outcome = None
    secret = Secret("the private key")
    with server_of(loop, path, patience=timedelta(seconds=0.2)):
        ask(path, "key.import", {"keyset": "default"}, "why", secret=secret)
        with loop.store.read() as snapshot:
            (stored,) = snapshot.open_requests()
        assert stored.arguments == {"keyset": "default", SEALED: "15 characters"}
        loop.outcome = (False, "refused", None)
        with pytest.raises(RefusedError, match="refused"):
            ask(path, "key.import", {"keyset": "default"}, "why", secret=secret)
        with loop.store.read() as snapshot:
            finished = [snapshot.request(number) for number in (1, 2)]
    assert [row.arguments for row in finished if row is not None] == [{"keyset": "default"}] * 2
    assert secret.reveal() not in repr((stored, finished, loop.events))


def test_a_secret_that_cannot_be_sealed_is_not_stored(loop: Loop, path: Path) -> None:
    """As while the KEK is away."""

    def no_kek(_draft: RequestRow, _secret: Secret[str] | None) -> RequestRow:
        raise KekError("the KEK is away")

    with server_of(loop, path, accept=no_kek), pytest.raises(RefusedError, match="the KEK is away"):
        ask(path, "key.import", {"keyset": "default"}, secret=Secret("the private key"))
    with loop.store.read() as snapshot:
        assert snapshot.request(1) is None


def test_only_an_admin_may_import(loop: Loop, path: Path) -> None:
    loop.peer = NOBODY
    with server_of(loop, path), pytest.raises(RefusedError, match="may not use `rotator import-key`"):
        ask(path, "key.import", {"keyset": "default"}, secret=Secret("the private key"))
    assert "the private key" not in repr(loop.events)


def test_the_start_tells_of_a_socket_that_a_group_cannot_reach(loop: Loop, path: Path) -> None:
    """Its members would only learn that the door is out of reach."""
    path.parent.chmod(0o700)
    with server_of(loop, path, settings=settings(path, viewers=("nogroup",))):
        pass

    ((name, fields),) = loop.events
    assert name == "config.warning"
    assert "members of nogroup have a role, and cannot reach" in str(fields["problem"])
    assert "set control.socket to a path that they can reach" in str(fields["problem"])


# ---------------------------------------------------------------------------------------------- who listens there


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775])
def test_a_socket_where_others_can_put_one_is_neither_made_nor_talked_to(loop: Loop, path: Path, mode: int) -> None:
    """Whoever can make files there could stand in for the daemon, and be told a key that is to be imported."""
    with server_of(loop, path) as server:
        path.parent.chmod(mode)
        with pytest.raises(RefusedError, match=rf"can be written by others \(mode {mode:04o}\).*nothing was sent"):
            ask(server.settings.socket, "status")
    with pytest.raises(RefusedError, match="could stand in for the daemon: chmod go-w"), server_of(loop, path):
        pass
    path.parent.chmod(0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can listen as somebody else")
def test_somebody_else_who_listens_is_told_nothing(path: Path) -> None:
    heard = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        os.seteuid(54_321)
        try:
            listener.listen()  # the kernel tells who did this
        finally:
            os.seteuid(0)

        def listen() -> None:
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(4096))

        thread = threading.Thread(target=listen)
        thread.start()
        with pytest.raises(
            RefusedError, match=r"\(user id 54321\) is neither root nor the owner of .* nothing was sent"
        ):
            ask(path, "key.import", {"keyset": "default"}, "why", secret=Secret("the key"))
        thread.join(HANG_SECONDS)
    assert heard == [b""]


def test_a_socket_that_was_deleted_is_made_again(loop: Loop, path: Path) -> None:
    """And who was connected before is answered all the same."""
    with server_of(loop, path) as server, contextlib.closing(connect(path, timedelta(seconds=5))) as before:
        assert ask(path, "keys.list") == {"keys": []}  # accepted in order: who came before is let in by now
        path.unlink()
        server.keep_listening()
        assert loop.events == [("control.renewed", {"socket": str(path)})]
        server.keep_listening()
        assert ask(path, "keys.list") == {"keys": []}
        before.sendall(b'{"command": "keys.list"}\n')
        assert json.loads(before.makefile().readline())["ok"] is True
    assert not path.exists()


def test_a_socket_that_somebody_else_put_there_is_left_alone_and_told_of_once(loop: Loop, path: Path) -> None:
    with server_of(loop, path) as server, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        path.unlink()
        other.bind(str(path))
        other.listen()
        server.keep_listening()
        server.keep_listening()
        ((name, fields),) = loop.events
        assert name == "control.failed"
        assert "listening on" in str(fields["problem"])
    assert path.exists()
