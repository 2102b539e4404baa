"""A helper that does as its first item's path says: see test_sink_helpers.py."""

import socket
import sys
import time

from rotator.adapters.sink_helper import ANSWER, BEGUN, ENDED, receive

with socket.socket(fileno=sys.stdin.fileno()) as connection:
    while frame := receive(connection):
        if b"/silent" in frame:
            time.sleep(3600)
        connection.sendall(ANSWER.pack(0, BEGUN, 0) + ANSWER.pack(0, ENDED, 0) + ANSWER.pack(1, BEGUN, 0))
        if b"/ends" in frame:
            break
        time.sleep(3600)
