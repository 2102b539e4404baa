"""Signs large batches in a process of its own, so that one processor signs while another one stores.

Within one process the two fight for the interpreter's lock, and each row stored waits for it anew. The child is
``python -m rotator.adapters.minting`` on one end of a socket pair, and knows nothing between two batches: each brings
the key that signs it. The key and the tokens pass through the socket alone, never through arguments, environment or a
file; the KEK stays with the parent. The child ends when the other end is closed, so that it never outlives its parent.

A request is four frames (the algorithm, the private key, the encoded header of the tokens, their claims) and its answer
one (the tokens), each after its length; what is many in a frame is separated by newlines, which none of it can hold.
"""

import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from select import POLLIN, poll
from typing import Final

from rotator.core.model import Algorithm
from rotator.core.secret import Secret

PATIENCE_SECONDS: Final = 10.0
"""How long the child may do nothing at all before it is given up: it signs a batch in a tenth of a second."""

MOST_FAILURES: Final = 3
"""Children that may end without having signed anything, before no other one is started."""

SEPARATOR: Final = b"\n"
_LENGTH: Final = struct.Struct(">I")
_PACKAGE_ROOT: Final = Path(__file__).resolve().parents[2]


class MintingProcess:
    """The parent's end. Whatever happens to the child, the caller can do its work itself."""

    def __init__(self) -> None:
        self._child: _Child | None = None
        self._failures = 0

    def start(self) -> None:
        """Start a child unless there is one, or several have failed; does not wait for it."""
        if self._child is None and self._failures < MOST_FAILURES:
            try:
                self._child = _Child()
            except OSError:  # no process can be had now
                self._failures += 1

    def mint(
        self, algorithm: Algorithm, private: Secret[bytes], header: bytes, claims: Sequence[str]
    ) -> list[str] | None:
        """Return one token for each of ``claims``; None where the child is not ready, or has just been lost."""
        if self._child is None:
            return None
        try:
            if not self._child.ready():
                return None
            tokens = self._child.mint(algorithm, private, header, claims)
        except (OSError, EOFError):
            tokens = []
        if len(tokens) != len(claims):
            self._failures += 1
            self.close()
            return None
        self._failures = 0
        return tokens

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        return None if self._child is None else self._child.process.pid

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.close()
            self._child = None


class _Child:
    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        try:
            self.process: Final = subprocess.Popen(  # noqa: S603 - our own interpreter, on our own module
                # Isolated from the user's site and the working directory; and nothing of the environment, which may
                # hold the KEK.
                [sys.executable, "-s", "-P", "-m", __name__],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PYTHONPATH": str(_PACKAGE_ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
                cwd="/",
                process_group=0,  # a terminal's Ctrl-C is for the parent
            )
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()
        self._socket.settimeout(PATIENCE_SECONDS)
        self._ready = False

    def ready(self) -> bool:
        """Tell whether it can sign, which it says once, with an empty frame."""
        if not self._ready:
            asked = poll()
            asked.register(self._socket, POLLIN)
            if asked.poll(0):
                receive(self._socket)
                self._ready = True
        return self._ready

    def mint(self, algorithm: Algorithm, private: Secret[bytes], header: bytes, claims: Sequence[str]) -> list[str]:
        for part in (algorithm.encode(), private.reveal(), header, "\n".join(claims).encode()):
            send(self._socket, part)
        return receive(self._socket).decode().split("\n")

    def close(self) -> None:
        self._socket.close()
        try:
            self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def send(connection: socket.socket, content: bytes) -> None:
    """Send one frame. Raise :class:`OSError` if the other end is gone or takes nothing in for too long."""
    connection.sendall(_LENGTH.pack(len(content)))
    view = memoryview(content)
    while view:
        view = view[connection.send(view) :]


def receive(connection: socket.socket) -> bytes:
    """Receive one frame. Raise :class:`EOFError` if the other end is gone, :class:`OSError` if it says nothing."""
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    return bytes(_exactly(connection, length))


def _exactly(connection: socket.socket, length: int) -> bytearray:
    content = bytearray(length)
    view = memoryview(content)
    while view:
        count = connection.recv_into(view)
        if count == 0:
            raise EOFError
        view = view[count:]
    return content


def main() -> None:
    """Sign batch after batch until the parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a signal to the whole service is the parent's to act on
    from rotator.adapters.signing import compact, signing_function  # noqa: PLC0415 - takes long: after the signals

    with socket.socket(fileno=sys.stdin.fileno()) as connection, suppress(EOFError, ConnectionError):
        send(connection, b"")
        while True:
            algorithm, private, header, claims = (receive(connection) for _ in range(4))
            sign = signing_function("a batch", Algorithm(algorithm.decode()), Secret(private))
            tokens = [compact(header, payload, sign) for payload in claims.split(SEPARATOR)]
            send(connection, SEPARATOR.join(tokens))


if __name__ == "__main__":
    main()
