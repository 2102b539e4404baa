import os
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from rotator.adapters.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """Yield a service manager that listens, and what it puts into NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(5)
        if request.param == "path":
            name = str(tmp_path / "notify")
            listening.bind(name)
        else:
            name = f"@rotator-test-{os.getpid()}-{id(listening)}"
            listening.bind("\0" + name[1:])
        yield listening, name


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda n: n.ready(), b"READY=1"),
        (lambda n: n.ready("3 keysets"), b"READY=1\nSTATUS=3 keysets"),
        (lambda n: n.reloading(), b"RELOADING=1\nMONOTONIC_USEC=42"),
        (lambda n: n.status("waiting"), b"STATUS=waiting"),
        (lambda n: n.status(""), b"STATUS="),
        (lambda n: n.status("a\nREADY=1\r\nb"), b"STATUS=a READY=1 b"),
        (lambda n: n.status("Schlüssel"), "STATUS=Schlüssel".encode()),
        (lambda n: n.watchdog(), b"WATCHDOG=1"),
        (lambda n: n.stopping(), b"STOPPING=1"),
        (lambda n: n.stopping("by SIGTERM"), b"STOPPING=1\nSTATUS=by SIGTERM"),
    ],
)
def test_each_notice_is_one_datagram(
    manager: tuple[socket.socket, str], act: Callable[[Notifier], None], expected: bytes
) -> None:
    listening, name = manager
    act(Notifier({"NOTIFY_SOCKET": name}, monotonic_microseconds=lambda: 42))
    assert listening.recv(4096) == expected


def test_a_notifier_takes_its_variables_out_of_the_environment() -> None:
    """Else a command sink could tell systemd that the daemon is well."""
    environ = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "PATH": "/bin"}
    assert Notifier(environ).listened_to
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "address", ["", "vsock:2:1234", "relative", "/nowhere/at/all", "@nobody-listens", "/" + "x" * 300]
)
def test_a_manager_that_is_not_there_stops_nothing(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address} if address else {})
    notifier.ready("up")
    notifier.watchdog()
    notifier.stopping()


def test_a_manager_that_does_not_read_holds_nothing_up(tmp_path: Path) -> None:
    """The loop goes on when the queue of the socket is full."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        for _ in range(2000):
            notifier.watchdog()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, timedelta(seconds=30)),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, timedelta(seconds=30)),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_PID": str(os.getpid())}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
    ],
)
def test_the_watchdog_is_pinged_at_half_its_limit_by_the_process_it_names(
    environ: dict[str, str], expected: timedelta | None
) -> None:
    assert Notifier(dict(environ)).watchdog_interval == expected


def test_monotonic_time_comes_from_the_kernel_by_default(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}).reloading()
        usec = int(listening.recv(4096).partition(b"MONOTONIC_USEC=")[2])
    assert usec > 0
