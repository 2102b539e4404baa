"""The child that signs and seals: what runs at the other end of :mod:`rotator.adapters.minting`'s socket."""

import signal
import socket
import sys
from array import array
from contextlib import suppress


def main() -> None:
    """Sign and seal batch after batch until the parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a signal to the whole service is the parent's to act on
    from rotator.adapters.minting import LENGTHS, Batch, send  # noqa: PLC0415 - takes long: after the signals
    from rotator.adapters.process import keep_out_of_dumps  # noqa: PLC0415 - as above

    keep_out_of_dumps()

    with socket.socket(fileno=sys.stdin.fileno()) as connection, suppress(EOFError, ConnectionError):
        send(connection, b"")
        while True:
            sealed = Batch.read(connection).mint()
            send(connection, array(LENGTHS, [len(each.record) for each in sealed]).tobytes())
            send(connection, b"".join([each.record for each in sealed]))
            send(connection, b"".join([each.mac for each in sealed]))


if __name__ == "__main__":
    main()
