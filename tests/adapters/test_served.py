"""Served sets against a real server on the loopback."""

import http.server
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from rotator.adapters.served import HttpServedSets
from rotator.core.model import DEFAULT_KEYSET, KeysetName, Kid
from rotator.errors import ConfigError
from rotator.ports import ServedSets
from tests.patience import HANG_SECONDS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
OTHER = KeysetName("other")
SET = b'{"keys":[{"kid":"a","kty":"EC"},{"kid":"b","kty":"EC"}]}'

_: type[ServedSets] = HttpServedSets

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def answer(body: bytes, status: int = 200, **headers: str) -> Answer:
    def respond(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return respond


class Server:
    """Serves what the test says, by path; everything else is missing."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.stop = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                outer.answers.get(self.path, answer(b"", 404))(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name that it overrides
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/tree"

    def close(self) -> None:
        self.stop.set()
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.answers["/tree/keysets/default/jwks.json"] = answer(SET)
    server.answers["/tree/.well-known/jwks.json"] = answer(SET)
    yield server
    server.close()


@pytest.fixture
def served(server: Server) -> Iterator[HttpServedSets]:
    """Wait as long as it takes for a server that will answer."""
    patience = timedelta(seconds=HANG_SECONDS)
    served = HttpServedSets([server.url + "/"], step_timeout=patience, fetch_timeout=patience)
    yield served
    served.close()


@pytest.fixture
def hurried(server: Server) -> Iterator[HttpServedSets]:
    """Give up soon on a server that will not."""
    served = HttpServedSets([server.url + "/"], step_timeout=timedelta(seconds=2), fetch_timeout=timedelta(seconds=0.5))
    yield served
    served.close()


def fetch(served: HttpServedSets, now: datetime = NOW, *keysets: KeysetName) -> None:
    served.refresh(keysets or (DEFAULT_KEYSET,), now)
    assert served._thread is not None
    served._thread.join()


def seen(served: HttpServedSets, keyset: KeysetName) -> tuple[datetime, frozenset[Kid] | None] | None:
    latest = served.latest(keyset)
    return None if latest is None else (latest.at, latest.everywhere)


def kids(*names: str) -> frozenset[Kid]:
    return frozenset(map(Kid, names))


def problem(served: HttpServedSets, keyset: KeysetName) -> str:
    latest = served.latest(keyset)
    return "" if latest is None else latest.problem


def test_before_the_first_fetch_nothing_is_known(served: HttpServedSets) -> None:
    assert served.latest(DEFAULT_KEYSET) is None
    assert problem(served, DEFAULT_KEYSET) == ""


def test_a_fetch_shows_the_kids_and_bypasses_caches(served: HttpServedSets, server: Server) -> None:
    fetch(served)
    assert seen(served, DEFAULT_KEYSET) == (NOW, frozenset({"a", "b"}))
    assert problem(served, DEFAULT_KEYSET) == ""
    paths, headers = zip(*server.requests, strict=True)
    assert paths == ("/tree/.well-known/jwks.json", "/tree/keysets/default/jwks.json")
    assert all(each["cache-control"] == "no-cache" for each in headers)


def test_every_place_where_a_verifier_may_look_counts(server: Server) -> None:
    """A cache may keep an old document at one of them, and at one of the servers."""
    old = b'{"keys":[{"kid":"a","kty":"EC"}]}'
    server.answers["/copy/.well-known/jwks.json"] = answer(old)
    server.answers["/copy/keysets/default/jwks.json"] = answer(SET)
    server.answers["/copy/keysets/other/jwks.json"] = answer(SET)
    server.answers["/tree/keysets/other/jwks.json"] = answer(SET)
    served = HttpServedSets([server.url, server.url.replace("/tree", "/copy")])
    fetch(served, NOW, DEFAULT_KEYSET, OTHER)
    latest = served.latest(DEFAULT_KEYSET)
    assert latest is not None
    assert (latest.everywhere, latest.anywhere) == (kids("a"), kids("a", "b"))
    assert latest.shown[server.url.replace("/tree", "/copy/.well-known/jwks.json")] == kids("a")
    assert seen(served, OTHER) == (NOW, kids("a", "b"))
    server.answers.pop("/copy/.well-known/jwks.json")
    fetch(served, LATER, DEFAULT_KEYSET)
    latest = served.latest(DEFAULT_KEYSET)
    assert latest is not None
    assert (latest.everywhere, latest.anywhere) == (None, kids("a", "b"))
    assert "/copy/.well-known/jwks.json: answered 404" in latest.problem
    served.close()


def test_the_loop_is_woken_by_news_alone(server: Server) -> None:
    woken: list[None] = []
    served = HttpServedSets([server.url], on_news=lambda: woken.append(None))
    fetch(served)
    fetch(served, LATER)
    assert len(woken) == 1
    server.answers["/tree/.well-known/jwks.json"] = answer(b'{"keys":[]}')
    fetch(served, LATER)
    assert len(woken) == 2
    served.close()


def test_one_keyset_that_fails_does_not_stop_the_next(served: HttpServedSets) -> None:
    fetch(served, NOW, OTHER, DEFAULT_KEYSET)
    assert seen(served, OTHER) == (NOW, None)
    assert seen(served, DEFAULT_KEYSET) == (NOW, frozenset({"a", "b"}))


def test_a_failed_fetch_replaces_the_earlier_success(served: HttpServedSets, server: Server) -> None:
    fetch(served)
    server.answers.clear()
    fetch(served, LATER)
    assert seen(served, DEFAULT_KEYSET) == (LATER, None)
    assert problem(served, DEFAULT_KEYSET).endswith("/tree/.well-known/jwks.json: answered 404 Not Found, expected 200")


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (answer(b"<html>"), "not a JWK Set"),
        (answer(b'{"keys":[{"kid":"a"},{"kid":"a"}]}'), "not a JWK Set"),
        (answer(SET + b" " * (1 << 20)), "more than 1048576 bytes"),
        (answer(SET, 302, Location="/elsewhere"), "answered 302 Found to '/elsewhere', expected 200"),
        (answer(SET, 500), "answered 500"),
        (lambda handler: handler.wfile.write(b"garbage\r\n\r\n"), "garbage"),
        (lambda handler: handler.connection.close(), ""),
    ],
    ids=["html", "not a set", "too large", "redirect", "error", "not http", "hung up"],
)
def test_an_answer_that_is_no_set_counts_as_failed(
    served: HttpServedSets, server: Server, wrong: Answer, fault: str
) -> None:
    server.answers["/elsewhere"] = answer(SET)
    server.answers["/tree/keysets/default/jwks.json"] = wrong
    fetch(served)
    assert seen(served, DEFAULT_KEYSET) == (NOW, None)
    assert fault in problem(served, DEFAULT_KEYSET)
    assert [path for path, _ in server.requests] == ["/tree/.well-known/jwks.json", "/tree/keysets/default/jwks.json"]


def test_no_server_counts_as_failed(server: Server) -> None:
    served = HttpServedSets(["http://127.0.0.1:1/"])
    fetch(served)
    assert seen(served, DEFAULT_KEYSET) == (NOW, None)
    assert "Connection refused" in problem(served, DEFAULT_KEYSET)


def test_https_is_spoken_and_its_certificate_wanted(server: Server) -> None:
    served = HttpServedSets([server.url.replace("http:", "https:")])
    fetch(served)
    assert seen(served, DEFAULT_KEYSET) == (NOW, None)
    assert "SSL" in problem(served, DEFAULT_KEYSET)
    assert server.requests == []


def drip(server: Server) -> Answer:
    def respond(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        try:
            while not server.stop.wait(0.05):
                handler.wfile.write(b" ")
        except OSError:
            return

    return respond


def test_an_answer_that_drips_without_end_is_cut_off(hurried: HttpServedSets, server: Server) -> None:
    server.answers["/tree/keysets/default/jwks.json"] = drip(server)
    fetch(hurried)
    assert seen(hurried, DEFAULT_KEYSET) == (NOW, None)


def test_while_a_fetch_is_under_way_no_second_one_starts(served: HttpServedSets, server: Server) -> None:
    asked_again = threading.Event()

    def respond(handler: http.server.BaseHTTPRequestHandler) -> None:
        assert asked_again.wait(HANG_SECONDS)
        answer(SET)(handler)

    server.answers["/tree/keysets/default/jwks.json"] = respond
    served.refresh((DEFAULT_KEYSET,), NOW)
    served.refresh((DEFAULT_KEYSET,), LATER)
    served.refresh((DEFAULT_KEYSET,), LATER)
    asked_again.set()
    assert served._thread is not None
    served._thread.join()
    assert len(server.requests) == 2
    assert seen(served, DEFAULT_KEYSET) == (NOW, frozenset({"a", "b"}))


def test_closing_cuts_off_a_fetch_and_starts_no_more(server: Server) -> None:
    served = HttpServedSets([server.url])
    begun = threading.Event()

    def hang(_: http.server.BaseHTTPRequestHandler) -> None:
        begun.set()
        server.stop.wait()

    server.answers["/tree/keysets/default/jwks.json"] = hang
    served.refresh((DEFAULT_KEYSET, OTHER), NOW)
    assert begun.wait(HANG_SECONDS)
    served.close()
    assert served._thread is not None
    assert not served._thread.is_alive()
    assert served.latest(OTHER) is None
    served.refresh((OTHER,), LATER)
    assert served.latest(OTHER) is None
    HttpServedSets([server.url]).close()


@pytest.mark.parametrize("url", ["ftp://x/", "file:///etc/passwd", "tokens.example.com", "http://", "http://x/?a=b"])
def test_a_url_that_is_no_place_of_a_tree_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="verify_url"):
        HttpServedSets([url])
