"""The published sets as verifiers see them: fetched over HTTP in the background, never in the loop.

What answers is read as hostile: only the given server is asked and no redirect is followed, at most 1 MiB is read, and
a fetch that takes too long in all, however slowly the bytes drip, is cut off.
"""

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import SplitResult, quote, urlsplit

from rotator.core import jwks
from rotator.core.model import KeysetName, Kid
from rotator.errors import ConfigError
from rotator.ports import ServedSet

STEP_TIMEOUT: Final = timedelta(seconds=5)
"""For the connection and for each wait for bytes."""
FETCH_TIMEOUT: Final = timedelta(seconds=15)
"""For one set in all."""
READ_LIMIT_BYTES: Final = 1 << 20


class HttpServedSets:
    """Sets below each ``verify_url``; implements :class:`~rotator.ports.ServedSets`. Safe to use from several threads.

    Of each keyset every URL is asked at which verifiers may look: the one that its discovery document names, and the
    one among the keysets. A look bears the ``now`` of the :meth:`refresh` that started it: the earliest moment at which
    a server can have shown what it showed.
    """

    def __init__(
        self,
        verify_urls: Sequence[str],
        *,
        on_news: Callable[[], None] = lambda: None,
        step_timeout: timedelta = STEP_TIMEOUT,
        fetch_timeout: timedelta = FETCH_TIMEOUT,
    ) -> None:
        self._urls = [_checked(url).geturl().rstrip("/") for url in verify_urls]
        self.on_news = on_news
        """Called, from a thread, when something is served that was not before, or no more."""
        self._step_timeout = step_timeout
        self._fetch_timeout = fetch_timeout
        self._lock = threading.Lock()
        self._latest: dict[KeysetName, ServedSet] = {}
        self._thread: threading.Thread | None = None
        self._stream: socket.socket | None = None
        self._closed = False

    def latest(self, keyset: KeysetName) -> ServedSet | None:
        """Return what was seen last; None before the first look."""
        with self._lock:
            return self._latest.get(keyset)

    def refresh(self, keysets: Sequence[KeysetName], now: datetime) -> None:
        """Start fetching in the background; while a fetch is under way, nothing is started."""
        with self._lock:
            if self._closed or (self._thread is not None and self._thread.is_alive()):
                return
            self._thread = threading.Thread(
                target=self._fetch_all, args=(tuple(keysets), now), name="served-sets", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Cut off the fetch that is under way and start no more."""
        with self._lock:
            self._closed = True
            thread, stream = self._thread, self._stream
        _cut_off(stream)
        if thread is not None:
            thread.join(self._step_timeout.total_seconds())

    def _fetch_all(self, keysets: Sequence[KeysetName], now: datetime) -> None:
        news = False
        for keyset in keysets:
            seen = self._look(keyset, now)
            if self._closed:
                return
            with self._lock:
                before = self._latest.get(keyset)
                self._latest[keyset] = seen
            news = news or before is None or before.shown != seen.shown
        if news:
            self.on_news()

    def _look(self, keyset: KeysetName, now: datetime) -> ServedSet:
        shown: dict[str, frozenset[Kid] | None] = {}
        problem = ""
        for target in self._targets(keyset):
            try:
                shown[target] = None if self._closed else self._fetch(target)
            except (OSError, http.client.HTTPException, _UnusableAnswerError) as error:
                shown[target] = None
                problem = problem or f"{target}: {str(error) or type(error).__name__}"
        return ServedSet(now, shown, problem)

    def _targets(self, keyset: KeysetName) -> Sequence[str]:
        targets = [
            target
            for url in self._urls
            for target in (jwks.jwks_uri(url, keyset), f"{url}/keysets/{quote(keyset, safe='')}/jwks.json")
        ]
        return list(dict.fromkeys(targets))

    def _fetch(self, target: str) -> frozenset[Kid]:
        connection = self._connection(urlsplit(target))
        deadline: threading.Timer | None = None
        try:
            connection.connect()
            with self._lock:
                self._stream = stream = connection.sock
            deadline = threading.Timer(self._fetch_timeout.total_seconds(), _cut_off, (stream,))
            deadline.daemon = True
            deadline.start()
            connection.request(
                "GET",
                urlsplit(target).path,
                headers={"Cache-Control": "no-cache", "Accept": "*/*"},
            )
            with connection.getresponse() as response:
                return _kids(response)
        finally:
            if deadline is not None:
                deadline.cancel()
            with self._lock:
                self._stream = None
            connection.close()

    def _connection(self, url: SplitResult) -> http.client.HTTPConnection:
        host, port, timeout = url.hostname or "", url.port, self._step_timeout.total_seconds()
        if url.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=timeout, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=timeout)


def _cut_off(stream: socket.socket | None) -> None:
    """Wake a thread that waits for bytes: closing a socket does not, shutting it down does."""
    if stream is not None:
        with contextlib.suppress(OSError):  # the fetch ended by itself in this moment
            stream.shutdown(socket.SHUT_RDWR)


class _UnusableAnswerError(Exception):
    """The server answered, and not with a set."""


def _checked(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(f"verify_url {url!r} is not where a tree is served: an http or https URL without ? and #")
    return parts


def _kids(response: http.client.HTTPResponse) -> frozenset[Kid]:
    if response.status != http.client.OK:
        moved = f" to {response.headers['Location']!r}" if "Location" in response.headers else ""
        raise _UnusableAnswerError(f"answered {response.status} {response.reason}{moved}, expected 200")
    content = response.read(READ_LIMIT_BYTES + 1)
    if len(content) > READ_LIMIT_BYTES:
        raise _UnusableAnswerError(f"answered more than {READ_LIMIT_BYTES} bytes")
    kids = jwks.parse_kids(content)
    if kids is None:
        raise _UnusableAnswerError("answered something that is not a JWK Set")
    return frozenset(kids)
