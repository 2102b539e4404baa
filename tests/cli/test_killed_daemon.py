"""What a command says when the daemon is killed under it, or when its user ends it: the request may be stored."""

import json
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rotator.cli import compromise, session
from rotator.schemas import load
from tests.cli.conftest import Shell
from tests.e2e.world import Site
from tests.forking import Rotator
from tests.patience import HANG_SECONDS, wait_until

Answer = Callable[[dict[str, Any]], object]
"""Returns a result, or None for a daemon that is killed before it answers."""


@contextmanager
def daemon_that(path: Path, answer: Answer) -> Iterator[list[str]]:
    """Listen on ``path`` in place of a daemon; it is gone for good once ``answer`` gives None. Gives what was asked."""
    asked: list[str] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                message = json.loads(stream.readline())
                asked.append(message["command"])
                if not message["command"]:
                    connection.sendall(b'{"ok": false, "error": "no command", "exit_code": 2}\n')
                    continue
                result = answer(message)
                if result is None:
                    path.unlink()
                    listener.shutdown(socket.SHUT_RDWR)
                    return
                with suppress(BrokenPipeError):  # who asked was interrupted
                    connection.sendall(json.dumps({"ok": True, "result": result}).encode() + b"\n")

    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield asked


def read_state(site: Site, message: dict[str, Any]) -> object:
    return session._read_state(session.load_config(site.config), message["command"], message["arguments"])


STORED = {"request": 1, "finished": True, "text": "done", "secret": None, "follows": False}


@pytest.mark.parametrize(
    ("command", "listing"),
    [
        ("replace w0", "rotator tokens list"),
        ("revoke workspace w0 --reason leaked --yes", "rotator tokens list"),
        ("rotate", "rotator keys list"),
        ("clock accept --reason known", "rotator status"),
    ],
)
def test_a_request_without_an_answer_may_be_stored(started: Shell, site: Site, command: str, listing: str) -> None:
    """It is never asked again in vain, or twice: the person is told where to look first."""

    def answer(message: dict[str, Any]) -> object:
        return read_state(site, message) if message["command"].endswith((".show", ".takeover")) else None

    with daemon_that(site.state / "control.sock", answer):
        code, _, err = started(*command.split())

    assert code == 1
    first, second, look, audit = err.splitlines()
    assert "hung up" in first
    assert "may have been stored" in second
    assert look == f"rotator:     {listing}"
    assert audit.startswith("rotator:     rotator audit list --since 20")


ACCEPTED = {"request": 7, "finished": False, "text": "accepted as request 7", "secret": None, "follows": False}


@pytest.mark.parametrize(
    ("command", "shape", "code"),
    [
        ("rotate", "rotate", 0),
        ("rotate --wait", "rotate", 3),
        ("replace w0", "replace", 0),
        ("replace w0 --wait", "replace", 3),
        ("clock accept --reason known", "clock-accept", 0),
        ("clock accept --reason known --wait", "clock-accept", 3),
        ("config accept --reason known", "config-accept", 0),
        ("import-key --jwk {jwk} --keep-for 1d", "import-key", 0),
        ("import-key --jwk {jwk} --keep-for 1d --wait", "import-key", 3),
        ("revoke workspace w0 --reason leaked --yes --no-wait", "revoke-workspace", 0),
        ("revoke workspace w0 --reason leaked --yes", "revoke-workspace", 3),
    ],
)
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_what_is_accepted_and_still_under_way_is_no_failure(
    started: Shell, site: Site, command: str, shape: str, code: int, as_json: bool
) -> None:
    """It has a number. Who wanted to see the end of it, and does not, is told by the code."""
    jwk = site.root / "old.jwk"
    jwk.write_text(site.jwks.read_text().replace('"kid":"', '"kid":"old-'))
    waits: list[object] = []

    def answer(message: dict[str, Any]) -> object:
        if message["reason"] or message["command"] in ("keyset.rotate", "token.replace", "key.import"):
            waits.append(message.get("wait"))
            return ACCEPTED
        return read_state(site, message)

    with daemon_that(site.state / "control.sock", answer):
        found, out, err = started(*command.format(jwk=jwk).split(), *["--json"] * as_json)

    assert found == code, err
    if as_json:
        told = json.loads(out)
        jsonschema.validate(told, load(shape), format_checker=jsonschema.FormatChecker())
        assert told["request"] == 7
    else:
        assert "accepted as request 7" in out
    assert waits == ["no" if "--no-wait" in command else "end" if code == 3 else None]


@pytest.mark.parametrize("command", ["status", "keys list", "audit list", "audit export", "plan"])
def test_a_question_is_asked_again_of_whoever_is_there(started: Shell, site: Site, command: str) -> None:
    """It changes nothing: where the daemon is killed over it, the state itself has the answer."""
    with daemon_that(site.state / "control.sock", lambda _: None) as asked:
        code, out, err = started(*command.split())

    assert (code, err) == (0, "")
    assert out
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("replace w0 --wait --timeout 1s", 1),
        ("revoke workspace w0 --reason leaked --yes", 3),
    ],
)
def test_a_daemon_killed_over_what_it_does_is_followed_in_the_state(
    started: Shell, site: Site, monkeypatch: pytest.MonkeyPatch, command: str, code: int
) -> None:
    """Both end with the page of how far it is, and say that it goes on."""
    monkeypatch.setattr(compromise, "STALLED_SECONDS", 0.5)
    listed = json.loads(started("tokens", "list", "--workspace", "w0", "--json")[1])["tokens"]
    token = site.root / "delivered" / "w0" / "token"
    token.unlink()
    token.mkdir()  # so that something stays open
    stored: list[object] = []

    def answer(message: dict[str, Any]) -> object:
        if message["command"] in ("token.replace", "workspace.revoke"):
            stored.append(message)
            if message["command"] == "workspace.revoke":
                session.request(site.config, "workspace.revoke", message["arguments"], "leaked", offline=True)
            return STORED | {"text": listed[0]["jti"]}
        return None if stored else read_state(site, message)

    with daemon_that(site.state / "control.sock", answer):
        found, out, err = started(*command.split())

    assert found == code, err
    assert "w0" in out
    assert "the daemon goes on with it, at its next start at the latest" in err
    assert err.splitlines()[-1].startswith("rotator:     rotator ")


@pytest.mark.parametrize("command", ["replace w0 --wait", "revoke workspace w0 --reason leaked --yes"])
def test_who_interrupts_the_following_is_told_that_it_goes_on(started: Shell, site: Site, command: str) -> None:
    """Ctrl-C ends the command and not what it asked for."""
    stored, follows = threading.Event(), threading.Event()
    listed = json.loads(started("tokens", "list", "--workspace", "w0", "--json")[1])["tokens"]

    def answer(message: dict[str, Any]) -> object:
        if message["command"] in ("token.replace", "workspace.revoke"):
            stored.set()
            return STORED | {"text": listed[0]["jti"]}
        if stored.is_set():
            follows.set()
        found = read_state(site, message)
        return found | {"workspaces": 1, "reissued": 0} if isinstance(found, dict) and "reissued" in found else found

    with daemon_that(site.state / "control.sock", answer):
        process = Rotator(
            [*command.split(), "-c", str(site.config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(follows.is_set, "it follows what it asked for", still_possible=lambda: process.poll() is None)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=HANG_SECONDS)

    assert process.returncode == 130
    assert "the daemon goes on with it" in err
    assert err.splitlines()[-1].startswith("rotator:     rotator ")
