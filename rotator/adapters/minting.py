"""Signs and seals large batches in a process of its own, so that one processor signs while another one stores.

Within one process the two fight for the interpreter's lock, and each row stored waits for it anew. The child is
``python -m rotator.adapters.minting_child`` on one end of a socket pair, and knows nothing between two batches: each
brings the key that signs it and the one that seals its tokens. They pass through the socket alone, never through
arguments, environment or a file; the KEK stays with the parent, and the text of the tokens with the child. The child
ends when the other end is closed, so that it never outlives its parent.

A request is the frames of a :class:`Batch` and its answer three (the length of each sealed token, all of them in a row,
and the MACs of their rows), each after its length; what is many in a frame is separated by newlines, which none of it
can hold.
"""

import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from select import POLLIN, poll
from threading import Lock
from typing import Final, Self

from rotator.adapters.isolated import how_it_ended, start_isolated
from rotator.adapters.sealing import AesGcmSealing
from rotator.adapters.signing import compact, signing_function
from rotator.core.model import Algorithm, KekId
from rotator.core.secret import Secret
from rotator.ports import Sealed

PATIENCE_SECONDS: Final = 10.0
"""How long the child may do nothing at all before it is given up: it signs a batch in a tenth of a second."""

MOST_FAILURES: Final = 3
"""Children that may end without having signed anything, before no other one is started for :data:`REST_SECONDS`."""

REST_SECONDS: Final = 600.0

LENGTHS: Final = "I"
"""How the lengths of many parts stand in a frame: each as the machine's own unsigned integer."""
MAC_BYTES: Final = 32
CHILD: Final = "rotator.adapters.minting_child"
_LENGTH: Final = struct.Struct(">I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Tokens to be signed with one key and sealed under another."""

    algorithm: Algorithm
    private: Secret[bytes]
    """PKCS #8, DER."""
    header: bytes
    """Encoded, with the dot that follows it."""
    sealing: AesGcmSealing
    identities: Sequence[str]
    claims: Sequence[str]
    """As JSON, one for each of ``identities``."""

    def frames(self) -> Iterator[bytes]:
        """Yield what :meth:`read` reads."""
        yield self.algorithm.encode()
        yield self.private.reveal()
        yield self.header
        yield self.sealing.kek_id.encode()
        yield self.sealing.key.reveal()
        yield self.sealing.before.encode()
        yield self.sealing.after.encode()
        yield self.sealing.mac_key.reveal()
        yield "\n".join(self.identities).encode()
        yield "\n".join(self.claims).encode()

    @classmethod
    def read(cls, connection: socket.socket) -> Self:
        """Receive one. Raise as :func:`receive` does."""
        algorithm, private, header, kek_id, key, before, after, mac_key, identities, claims = (
            receive(connection) for _ in range(10)
        )
        return cls(
            algorithm=Algorithm(algorithm.decode()),
            private=Secret(private),
            header=header,
            sealing=AesGcmSealing(
                KekId(kek_id.decode()), Secret(key), before.decode(), after.decode(), Secret(mac_key)
            ),
            identities=identities.decode().split("\n"),
            claims=claims.decode().split("\n"),
        )

    def mint(self) -> list[Sealed]:
        """Sign and seal it here."""
        sign = signing_function("a batch", self.algorithm, self.private)
        tokens = (compact(self.header, claims.encode(), sign) for claims in self.claims)
        return self.sealing.seal_many(zip(self.identities, tokens, strict=True))


class MintingProcess:
    """The parent's end. Whatever happens to the child, the caller can do its work itself. Several threads may mint."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._child: _Child | None = None
        self._failures = 0
        self._rests_until = 0.0
        self._problem = ""
        self._clock = clock
        self._changing: Final = Lock()

    def start(self) -> None:
        """Start a child unless there is one, or several have failed of late; does not wait for it."""
        with self._changing:
            if self._child is not None or (self._failures >= MOST_FAILURES and self._clock() < self._rests_until):
                return
            try:
                self._child = _Child()
            except OSError as error:  # no process can be had now
                self._failed(f"none could be started: {error.strerror or error}")

    def trouble(self) -> str:
        """Return how the last child ended, until another one is ready, which is tried now and then; else nothing."""
        if self._problem:
            self.start()
            child = self._child
            if child is not None:
                try:
                    ready = child.ready()
                except (OSError, EOFError, struct.error):
                    self._lost(child)
                else:
                    self._problem = "" if ready else self._problem
        return self._problem

    def _failed(self, problem: str) -> None:
        self._failures += 1
        self._problem = problem
        self._rests_until = self._clock() + REST_SECONDS

    def mint(self, batch: Batch) -> list[Sealed] | None:
        """Return the sealed token for each of the claims; None where the child is not ready, or has just been lost."""
        child = self._child
        if child is None:
            return None
        try:
            if not child.ready():
                return None
            sealed = child.mint(batch)
        except (OSError, EOFError, struct.error):
            sealed = []
        if len(sealed) != len(batch.claims):
            self._lost(child)
            return None
        self._failures, self._problem = 0, ""
        return sealed

    def _lost(self, child: "_Child") -> None:
        with self._changing:
            if self._child is child:  # else another thread has told of it
                self._child = None
                self._failed(child.close())
                return
        child.close()

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        child = self._child
        return None if child is None else child.process.pid

    def close(self) -> None:
        """End the child."""
        with self._changing:
            child, self._child = self._child, None
        if child is not None:
            child.close()


class _Child:
    def __init__(self) -> None:
        self.process, self._socket = start_isolated(CHILD, installed=True)
        self._socket.settimeout(PATIENCE_SECONDS)
        self._ready = False
        self._asking: Final = Lock()
        self._listening: Final = Lock()

    def ready(self) -> bool:
        """Tell whether it can sign, which it says once, with an empty frame."""
        with self._asking:
            if not self._ready:
                asked = poll()
                asked.register(self._socket, POLLIN)
                if asked.poll(0):
                    receive(self._socket)
                    self._ready = True
            return self._ready

    def mint(self, batch: Batch) -> list[Sealed]:
        """Have it sign. The next thread's batch goes out while an answer is waited for, so that the child never waits.

        Answers come in the order of the questions.
        """
        with self._asking:
            for part in batch.frames():
                send(self._socket, part)
            self._listening.acquire()  # in the same order, and not before the answer to the batch before this one
        try:
            lengths = memoryview(receive(self._socket)).cast(LENGTHS)
            sealed = receive(self._socket)
            macs = receive(self._socket)
        finally:
            self._listening.release()
        ends = list(accumulate(lengths, initial=0))
        if ends[-1] != len(sealed) or len(macs) != len(lengths) * MAC_BYTES:
            return []
        each_mac = range(0, len(macs), MAC_BYTES)
        return [
            Sealed(sealed[start:end], macs[at : at + MAC_BYTES])
            for (start, end), at in zip(pairwise(ends), each_mac, strict=True)
        ]

    def close(self) -> str:
        """End it, if it has not ended by itself; return what became of it."""
        self._socket.close()
        try:
            return how_it_ended(self.process.wait(timeout=1))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return f"it did nothing for {PATIENCE_SECONDS:g} s, and was ended"


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
