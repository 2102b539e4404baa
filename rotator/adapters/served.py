"""The published sets as verifiers see them: fetched over HTTP in the background, never in the loop.

What answers is read as hostile: only the given server is asked and no redirect is followed, at most 1 MiB is read, and
a fetch that takes too long in all, however slowly the bytes drip, is cut off.
"""

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import SplitResult, quote, urlsplit

from rotator.core import jwks
from rotator.core.model import KeysetName, Kid
from rotator.errors import ConfigError

STEP_TIMEOUT: Final = timedelta(seconds=5)
"""For the connection and for each wait for bytes."""
FETCH_TIMEOUT: Final = timedelta(seconds=15)
"""For one set in all."""
READ_LIMIT_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class _Fetch:
    at: datetime
    kids: frozenset[Kid] | None
    fault: str


class HttpServedSets:
    """Sets below ``verify_url``; implements :class:`~rotator.ports.ServedSets`. Safe to use from several threads.

    A fetch bears the ``now`` of the :meth:`refresh` that started it: the earliest moment at which the server can have
    shown what it showed.
    """

    def __init__(
        self,
        verify_url: str,
        *,
        step_timeout: timedelta = STEP_TIMEOUT,
        fetch_timeout: timedelta = FETCH_TIMEOUT,
    ) -> None:
        self._url = _checked(verify_url)
        self._step_timeout = step_timeout
        self._fetch_timeout = fetch_timeout
        self._lock = threading.Lock()
        self._latest: dict[KeysetName, _Fetch] = {}
        self._thread: threading.Thread | None = None
        self._stream: socket.socket | None = None
        self._closed = False

    def latest(self, keyset: KeysetName) -> tuple[datetime, frozenset[Kid] | None] | None:
        """Return when the last fetch began and the kids it showed (None: it failed); None before the first one."""
        with self._lock:
            fetch = self._latest.get(keyset)
        return None if fetch is None else (fetch.at, fetch.kids)

    def fault(self, keyset: KeysetName) -> str:
        """Return why the last fetch failed; empty if it did not."""
        with self._lock:
            fetch = self._latest.get(keyset)
        return "" if fetch is None else fetch.fault

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
        for keyset in keysets:
            if self._closed:
                return
            try:
                fetch = _Fetch(now, self._fetch(keyset), "")
            except (OSError, http.client.HTTPException, _UnusableAnswerError) as error:
                fetch = _Fetch(now, None, f"{self._target(keyset)}: {str(error) or type(error).__name__}")
            with self._lock:
                self._latest[keyset] = fetch

    def _fetch(self, keyset: KeysetName) -> frozenset[Kid]:
        connection = self._connection()
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
                urlsplit(self._target(keyset)).path,
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

    def _connection(self) -> http.client.HTTPConnection:
        host, port, timeout = self._url.hostname or "", self._url.port, self._step_timeout.total_seconds()
        if self._url.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=timeout, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=timeout)

    def _target(self, keyset: KeysetName) -> str:
        return f"{self._url.geturl().rstrip('/')}/keysets/{quote(keyset, safe='')}/jwks.json"


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
