"""The control socket: how people on this machine talk to the daemon.

A stream socket; one line of JSON in, one line out:

    {"command": "token.show", "arguments": {"workspace": "acme"}, "reason": "why"}
    {"command": "key.import", "arguments": {"keyset": "default"}, "reason": "why", "secret": "the key"}
    {"command": "keyset.rotate", "arguments": {"keyset": "default"}, "wait": "end"}   or "no"; else for a moment
    {"ok": true, "result": …}   or   {"ok": false, "error": "…", "exit_code": 1}

Anyone may connect: who is let in is decided by who the kernel says the peer is (SO_PEERCRED), so that a refusal is a
sentence and not a closed door. root and the service's own user are admins; Unix groups give the other roles. Reading
commands are answered from the database. All others are stored as a request before they are answered, carried out by the
daemon's one loop, and waited for; the text of a token goes from the loop to the peer and nowhere else. A secret that
comes with a request is sealed before the request is stored, and is in no argument, log line or answer.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Self

from rotator.adapters.calendar import CronCalendar
from rotator.adapters.signature import verify_signature
from rotator.config.settings import ControlSettings
from rotator.control_client import REASON_LIMIT, REASON_RULE, Wait, address_of, connect, open_to_others
from rotator.control_places import Complaints, Places
from rotator.control_questions import ANSWERED_WITHIN, LOOK, Question, Turns, has_gone
from rotator.control_roles import OPEN_SOCKET, Doorkeeper, Peer, Role, closed_to, name_of, peer_of
from rotator.core.policy import Policy
from rotator.core.schedule import Calendar
from rotator.core.secret import Secret
from rotator.engine.answers import Answers
from rotator.engine.requests.urgent import REVOCATIONS
from rotator.errors import ConfigError, RefusedError, RotatorError, StoreError
from rotator.ports import Answer, Clock, EventLog, RequestRow, Store
from rotator.report.answers import FOR_OPERATORS, READING, Arguments, View
from rotator.report.overlaid import with_revocations
from rotator.report.restores import Beside
from rotator.report.shape import to_json
from rotator.report.verdict import PublishedSet

LINE_LIMIT: Final = 64 * 1024
LINE_TIMEOUT: Final = timedelta(seconds=5)
"""How long a peer may take over its line."""

ANSWER_TIMEOUT: Final = timedelta(seconds=30)
"""How long a peer may take to read the answer."""

BACKLOG: Final = 128
"""How many may stand before the door: each is let in or told off at once."""

PATIENCE: Final = timedelta(seconds=10)
"""How long a request is waited for before the peer is told that it is still being worked on."""


@dataclass(frozen=True, slots=True)
class Request:
    """A command that changes something or shows a secret."""

    role: Role
    needs: tuple[str, ...] = ()
    """Names of its arguments, all of them text."""
    reason_required: bool = False
    optional: tuple[str, ...] = ()
    """Names of arguments that may be left out; text, too."""
    secret: bool = False
    """A secret comes with it."""


REQUESTS: Final[Mapping[str, Request]] = MappingProxyType(
    {
        "token.show": Request(Role.OPERATOR, ("workspace",)),
        "clock.accept": Request(Role.ADMIN, reason_required=True),
        "config.accept": Request(Role.ADMIN, reason_required=True),
        "key.import": Request(Role.ADMIN, ("keyset",), optional=("until",), secret=True),
        "keyset.rotate": Request(Role.OPERATOR, ("keyset",)),
        "keyset.rotate_at_once": Request(Role.ADMIN, ("keyset", "signing"), reason_required=True),
        "token.replace": Request(Role.OPERATOR, ("workspace", "overlap")),
        "key.revoke": Request(Role.ADMIN, ("kid",), reason_required=True, optional=("choice",)),
        "keyset.revoke": Request(Role.ADMIN, ("keyset",), reason_required=True, optional=("choice",)),
        "token.revoke": Request(Role.ADMIN, ("jti",), reason_required=True),
        "workspace.revoke": Request(Role.ADMIN, ("workspace",), reason_required=True),
    }
)


_TYPED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "audit.page": "audit export",
        "clock.accept": "clock accept",
        "config.accept": "config accept",
        "key.import": "import-key",
        "key.revoke": "revoke key",
        "keyset.revoke": "revoke keyset",
        "keyset.rotate": "rotate",
        "keyset.rotate_at_once": "rotate --emergency",
        "keyset.takeover": "rotate",
        "revocation.show": "revoke … --rehearse",
        "token.replace": "replace",
        "token.replacement": "replace",
        "token.revoke": "revoke token",
        "token.verify": "verify",
        "tokens.page": "tokens list",
        "workspace.revoke": "revoke workspace",
    }
)


def typed(command: str) -> str:
    """Return what a person types for a command of the socket, whose name is often another one."""
    return _TYPED.get(command, command.replace(".", " "))


# ------------------------------------------------------------------------------------------------------------- server


@dataclass(frozen=True, slots=True)
class _Call:
    """A line that was read and understood."""

    command: str
    arguments: Arguments
    reason: str
    secret: Secret[str] | None
    wait: Wait


@dataclass(slots=True, kw_only=True)
class ControlServer:
    """Serves the socket, in threads of its own, from entering the context to leaving it."""

    settings: ControlSettings
    store: Store
    clock: Clock
    policy: Callable[[], Policy]
    faults: Callable[[], Mapping[str, str]]
    wake: Callable[[], None]
    accept: Callable[[RequestRow, Secret[str] | None], RequestRow]
    """Stores a request, with the secret that came with it; returns it as stored, and as one whose answer is awaited."""
    answers: Answers
    log: EventLog
    published_set: PublishedSet
    beside: Callable[[], Beside] = Beside
    calendar: Calendar = field(default_factory=CronCalendar)
    several_replicas: bool = False
    peer_of: Callable[[socket.socket], Peer] = peer_of
    patience: timedelta = PATIENCE
    line_timeout: timedelta = LINE_TIMEOUT
    answered_within: timedelta = ANSWERED_WITHIN
    _listener: socket.socket | None = None
    _identity: tuple[int, int] | None = None
    """Of the socket that was made; None before that."""
    _refused: str = ""
    """Why it could not be made again."""
    _threads: list[threading.Thread] = field(default_factory=list)
    _places: Places = field(default_factory=Places)
    _complaints: Complaints = field(default_factory=Complaints)
    _turns: Turns = field(default_factory=Turns)
    _closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        """Begin to listen. Raises :class:`RefusedError` if another daemon listens there or the path cannot be used."""
        self._listen()
        for name in Doorkeeper(self.settings).unknown_groups():
            problem = f"control: this machine has no group {name!r}; it gives no one a role"
            self.log.event("config.warning", problem=problem)
        closed = Doorkeeper(self.settings).closed_directory()
        if closed is not None:
            directory, group = closed
            problem = f"control: {closed_to(group, directory, self.settings.socket)}; {OPEN_SOCKET}"
            self.log.event("config.warning", problem=problem)
        return self

    def _listen(self) -> None:
        path = self.settings.socket
        try:
            if problem := open_to_others(path.parent):
                raise RefusedError(problem)
            _remove_stale(path)
            self._listener = listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            with address_of(path) as address:
                listener.bind(address)
            path.chmod(0o666)
            self._identity = _identity(path)
            listener.listen(BACKLOG)
        except OSError as error:
            self._stop_listening()
            raise RefusedError(
                f"the control socket {path} cannot be made: {os.strerror(error.errno or 0)}; "
                "make its directory, owned by this user, or set control.socket"
            ) from None
        thread = threading.Thread(target=self._accept, args=(listener,), name="rotator-control", daemon=True)
        self._threads.append(thread)
        thread.start()

    def keep_listening(self) -> None:
        """Make the socket again where somebody has taken it away: nobody could ask for anything any more."""
        if self._identity is None or _identity(self.settings.socket) == self._identity:
            return
        self._stop_listening()
        try:
            self._listen()
        except RefusedError as error:
            if str(error) != self._refused:
                self._refused = str(error)
                self.log.event("control.failed", problem=self._refused)
            return
        self._refused = ""
        self.log.event("control.renewed", socket=str(self.settings.socket))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening and take the socket away."""
        self.close()

    def close(self) -> None:
        """Stop listening; peers that wait for a request are told that it is still being worked on."""
        self._closing.set()
        self._stop_listening()
        for thread in self._threads:
            thread.join(timeout=2.0)
        self._threads.clear()
        if self._identity is not None and _identity(self.settings.socket) == self._identity:
            with contextlib.suppress(OSError):
                self.settings.socket.unlink()

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):  # it never listened
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    # ------------------------------------------------------------------------------------------- connections

    def _accept(self, listener: socket.socket) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if self._closing.is_set() or listener is not self._listener:
                    return
                self.log.event("control.failed", problem=str(error))
                self._closing.wait(1.0)  # out of descriptors, most likely: others may give some back
                continue
            self._let_in(connection)

    def _let_in(self, connection: socket.socket) -> None:
        try:
            peer = self.peer_of(connection)
        except OSError:  # it is gone already
            connection.close()
            return
        role = Doorkeeper(self.settings).role(peer)
        if problem := self._places.take(peer.uid, role):
            with connection, contextlib.suppress(OSError):
                connection.settimeout(0.0)  # one line always fits, and nobody may hold up those who come next
                connection.sendall(_line(_refusal(RefusedError(problem))))
            return
        try:
            threading.Thread(
                target=self._serve, args=(connection, peer, role), name="rotator-peer", daemon=True
            ).start()
        except RuntimeError as error:  # no more threads: this peer is dropped, the next may be luckier
            self.log.event("control.failed", problem=str(error))
            connection.close()
            self._places.leave(peer.uid, role)

    def _serve(self, connection: socket.socket, peer: Peer, role: Role) -> None:
        try:
            with connection, contextlib.suppress(OSError):  # a peer that went away has no use for an answer
                reply = self._reply(connection, peer)
                connection.settimeout(ANSWER_TIMEOUT.total_seconds())
                connection.sendall(_line(reply))
        finally:
            self._places.leave(peer.uid, role)

    def _reply(self, connection: socket.socket, peer: Peer) -> Mapping[str, object]:
        try:
            call = _parse(_read_line(connection, self.line_timeout))
            self._admit(peer, call.command)
            return {"ok": True, "result": self._answer(connection, peer, call)}
        except RotatorError as error:
            return _refusal(error)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - the edge of one peer's command: the daemon outlives it
            self.log.event("control.failed", problem=f"{type(error).__name__}: {error}")
            return _refusal(RotatorError("the daemon failed at this; its log says how: journalctl -u rotator"))

    def _admit(self, peer: Peer, command: str) -> None:
        reading = Role.OPERATOR if command in FOR_OPERATORS else Role.VIEWER
        needed = REQUESTS[command].role if command in REQUESTS else reading
        keeper = Doorkeeper(self.settings)
        if keeper.role(peer) >= needed:
            return
        groups = keeper.groups(needed)
        who = "a member of " + " or ".join(groups) if groups else "root or the user of the service"
        problem = f"{name_of(peer.uid)} may not use `rotator {typed(command)}`; it needs {who} (config: control)"
        before = self._complaints.due(peer.uid)
        if before is not None:
            self.log.event("control.denied", actor=name_of(peer.uid), command=command, problem=problem, before=before)
        raise RefusedError(problem)

    # ---------------------------------------------------------------------------------------------- commands

    def _answer(self, connection: socket.socket, peer: Peer, call: _Call) -> object:
        if call.command in REQUESTS:
            return self._request(connection, peer, call, REQUESTS[call.command])
        question = Question(connection, self._closing, self.answered_within)
        with self._turns.answering(call.command, question):
            return self._look_up(call, question)

    def _look_up(self, call: _Call, question: Question) -> object:
        now, beside, faults = self.clock.read().now, self.beside(), self.faults()
        taken_out = not any(subject.startswith("publish:") for subject in faults)
        with self.store.read(question.check) as stored:
            # A verdict asks the journal itself, so that it can say whose word it is.
            known = call.command == "token.verify"
            view = View(
                snapshot=stored if known else with_revocations(stored, beside, now, taken_out=taken_out),
                policy=self.policy(),
                now=now,
                calendar=self.calendar,
                faults=faults,
                verify_signature=verify_signature,
                published_set=self.published_set,
                several_replicas=self.several_replicas,
                beside=beside,
                check=question.check,
            )
            return to_json(READING[call.command](view, call.arguments))

    def _request(self, connection: socket.socket, peer: Peer, call: _Call, wanted: Request) -> object:
        """Store a request, wait for the loop to carry it out, as long as is wanted, and return what came of it.

        The answer is the loop's own word: whoever can write the database can make a row say that it was done.
        """
        draft = self._draft(peer, call, wanted)
        urgent = call.command in REVOCATIONS
        question = Question(connection, self._closing, self.answered_within)
        with contextlib.nullcontext() if urgent else self._turns.storing(question):
            request = self.accept(draft, call.secret)
        try:
            self.wake()
            answer = self._wait(connection, request, call.wait)
        finally:
            self.answers.leave(request.nonce)
        if answer is None:
            said = {"finished": False, "text": self._unfinished(request), "secret": None, "follows": False}
            return {"request": request.id, **said}
        if not answer.succeeded:
            raise RefusedError(answer.text)
        shown = None if answer.secret is None else answer.secret.reveal()
        said = {"finished": True, "text": answer.text, "secret": shown, "follows": answer.follows}
        return {"request": request.id, **said}

    def _unfinished(self, request: RequestRow) -> str:
        """Say that a request is stored and not carried out yet, and what is wrong meanwhile."""
        begun = _NOT_SHOWN if request.kind == "token.show" else _UNFINISHED.format(request.id)
        begun = begun if request.id else _NOT_STORED
        faults = "; ".join(f"{subject}: {problem}" for subject, problem in self.faults().items())
        return begun + (f". What is wrong now: {faults}" if faults else "")

    def _draft(self, peer: Peer, call: _Call, wanted: Request) -> RequestRow:
        """Return the row to store, but for its id."""
        known = (*wanted.needs, *wanted.optional)
        if unknown := sorted(call.arguments.keys() - set(known)):
            raise ConfigError(f"unknown argument {unknown[0]!r}; known are: {', '.join(known) or 'none'}")
        given = [name for name in known if name in wanted.needs or name in call.arguments]
        if wanted.reason_required and not call.reason:
            raise ConfigError(f"`rotator {typed(call.command)}` goes into the audit: say why with --reason")
        if wanted.secret is not (call.secret is not None):
            raise ConfigError(f"{call.command} {'lacks its' if wanted.secret else 'takes no'} secret")
        return RequestRow(
            id=0,
            kind=call.command,
            arguments={name: _text(call.arguments, name) for name in given},
            actor=name_of(peer.uid),
            uid=peer.uid,
            reason=call.reason,
            created_at=self.clock.read().now,
        )

    def _wait(self, connection: socket.socket, request: RequestRow, wait: Wait) -> Answer | None:
        """Wait for an answer; None where none came in time, the daemon stops, or the peer has gone.

        Whoever does not wait leaves with the number of what is stored: what is not stored yet, as a revocation without
        the KEK, and what has no effect but its answer, is waited for all the same.
        """
        if wait is Wait.NO and request.id and request.kind != "token.show":
            return None
        patience = float("inf") if wait is Wait.TO_THE_END else self.patience.total_seconds()
        give_up_at = time.monotonic() + patience
        while time.monotonic() < give_up_at and not self._closing.is_set() and not has_gone(connection):
            answer = self.answers.wait(request.nonce, LOOK)
            if answer is not None:
                return answer
        return None


_UNFINISHED: Final = "accepted as request {}, and still under way; `rotator audit list` shows it when it is done"
_NOT_STORED: Final = "the daemon is busy, and has not written this down yet: look (rotator keys list), and ask again"
_NOT_SHOWN: Final = "the token could not be shown in time, and will not be: ask again"


def _text(arguments: Arguments, name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not value or len(value) > 256:
        raise ConfigError(f"the argument {name} is missing or no text of 1 to 256 characters")
    return value


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat(follow_symlinks=False)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _remove_stale(path: Path) -> None:
    """Take away the socket of a daemon that is gone; raise :class:`RefusedError` if one listens there."""
    if not path.exists():
        return
    if not path.is_socket():
        raise RefusedError(f"{path} is there and is no socket; it is left alone: move it, or set control.socket")
    try:
        connect(path, timedelta(seconds=1)).close()
    except ConnectionRefusedError:
        path.unlink()
        return
    raise RefusedError(f"a daemon is listening on {path} already; stop it first: systemctl stop rotator")


# ----------------------------------------------------------------------------------------------------------- the lines


def _read_line(connection: socket.socket, timeout: timedelta) -> bytes:
    """Read up to the end of the line; raise :class:`RefusedError` for one that is too long or too slow."""
    give_up_at = time.monotonic() + timeout.total_seconds()
    line = b""
    while not line.endswith(b"\n"):
        left = give_up_at - time.monotonic()
        if left <= 0:
            raise RefusedError(f"no whole line within {timeout.total_seconds():.0f} seconds")
        connection.settimeout(left)
        try:
            chunk = connection.recv(LINE_LIMIT)
        except TimeoutError:
            continue
        if not chunk:
            break
        line += chunk
        if len(line) > LINE_LIMIT:
            raise RefusedError(f"a request has at most {LINE_LIMIT} bytes; write a shorter reason or argument")
    return line


def _parse(line: bytes) -> _Call:
    try:
        message = json.loads(line.decode())
    except (ValueError, RecursionError):
        raise ConfigError("expected one line of JSON, in UTF-8") from None
    if not isinstance(message, dict) or not message.keys() <= {"command", "arguments", "reason", "secret", "wait"}:
        raise ConfigError("expected an object with command, arguments and reason")
    command, arguments = message.get("command"), message.get("arguments") or {}
    reason = message.get("reason") or ""
    if not isinstance(command, str) or command not in (*READING, *REQUESTS):
        raise ConfigError(f"unknown command {str(command)[:60]!r}; known are {', '.join((*READING, *REQUESTS))}")
    if not isinstance(arguments, dict):
        raise ConfigError("arguments are an object")
    if odd := next((name for name, value in arguments.items() if not _is_plain(value)), None):
        raise ConfigError(f"the argument {odd[:60]!r} has a control character, or is no text, number or yes or no")
    if not isinstance(reason, str) or len(reason) > REASON_LIMIT or not reason.isprintable():
        raise ConfigError(REASON_RULE)
    secret = message.get("secret")
    if secret is not None and not isinstance(secret, str):
        raise ConfigError("a secret is text")
    wait = message.get("wait", Wait.SHORTLY.value)
    if not isinstance(wait, str) or wait not in set(Wait):
        raise ConfigError(f"found {str(wait)[:60]!r} as wait, expected one of: {', '.join(Wait)}")
    return _Call(command, arguments, reason, None if secret is None else Secret(secret), Wait(wait))


def _is_plain(value: object) -> bool:
    return value.isprintable() if isinstance(value, str) else value is None or isinstance(value, int)


def _refusal(error: RotatorError) -> Mapping[str, object]:
    unreadable = isinstance(error, StoreError)
    return {"ok": False, "error": str(error), "exit_code": error.exit_code, "unreadable": unreadable}


def _line(message: Mapping[str, object]) -> bytes:
    return json.dumps(message, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
