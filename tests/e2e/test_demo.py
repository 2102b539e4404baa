"""``rotator demo`` as people start it: in a pipe, on a terminal, ended early, killed."""

import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.world import environment
from tests.patience import HANG_SECONDS, wait_until

CLEAR = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def demo_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rotator", "demo", *arguments]


def demo_environment(tmp_path: Path) -> dict[str, str]:
    """Let the demonstration make its directory where the test can look for it."""
    return environment() | {"TMPDIR": str(tmp_path), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}


@contextmanager
def demo(tmp_path: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        demo_command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=demo_environment(tmp_path),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
        for daemon in daemons_in(tmp_path):
            os.kill(daemon, signal.SIGKILL)


def daemons_in(directory: Path) -> list[int]:
    """Return the processes whose command line names something in ``directory``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if os.fsencode(directory) in command:
            found.append(int(entry.name))
    return found


def test_a_key_takes_over_and_retires_and_no_token_is_refused(tmp_path: Path) -> None:
    """In a pipe it writes a plain line for each event, then what came of it; nothing is left behind."""
    done = subprocess.run(
        demo_command("--seconds", "28"),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
        env=demo_environment(tmp_path) | {"STATE_DIRECTORY": "/nonexistent", "ROTATOR_KEK": "of another installation"},
    )

    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    for event in (" announced: ", " took over from ", " retired: ", "token of acme rotated: number 2"):
        assert event in done.stdout
    assert all(char.isprintable() or char == "\n" for char in done.stdout)
    checks, refused = re.search(r"verifier +(\d+) checks, (\d+) refused", done.stdout).groups()  # type: ignore[union-attr]  # a miss fails
    assert int(checks) > 100
    assert int(refused) == 0
    taken_over, retired = re.search(r"(\d+) took over, (\d+) retired", done.stdout).groups()  # type: ignore[union-attr]  # as above
    assert int(taken_over) >= 1
    assert int(retired) >= 1
    assert "the chain is unbroken" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert daemons_in(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_can_be_ended_early(tmp_path: Path, number: signal.Signals) -> None:
    """It sums up what was seen, and takes its daemon and its directory with it."""
    with demo(tmp_path) as process:
        assert process.stdout is not None
        assert "announced" in process.stdout.readline()
        process.send_signal(number)
        rest, errors = process.communicate(timeout=HANG_SECONDS)

    assert errors == ""
    assert process.returncode == 0
    assert "0 refused" in rest
    assert list(tmp_path.iterdir()) == []
    assert daemons_in(tmp_path) == []


def test_it_can_be_ended_before_there_is_anything_to_see(tmp_path: Path) -> None:
    """It then says nothing, and leaves nothing."""
    with demo(tmp_path) as process:
        wait_until(lambda: any(tmp_path.iterdir()), "the directory is made")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=HANG_SECONDS)

    assert errors == ""
    assert process.returncode in (0, 130)  # 0 where the daemon was quicker
    assert list(tmp_path.iterdir()) == []
    assert daemons_in(tmp_path) == []


def test_the_daemon_does_not_outlive_a_killed_demonstration(tmp_path: Path) -> None:
    """The kernel tells it to stop."""
    with demo(tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert daemons_in(tmp_path) != []
        process.kill()
        wait_until(lambda: daemons_in(tmp_path) == [], "the daemon ends")


def test_a_daemon_that_dies_ends_the_demonstration(tmp_path: Path) -> None:
    """With its exit code, the end of its log, and a failure."""
    with demo(tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (daemon,) = daemons_in(tmp_path)
        os.kill(daemon, signal.SIGKILL)
        _, errors = process.communicate(timeout=HANG_SECONDS)

    assert process.returncode == 1
    assert "ended with -9" in errors
    assert list(tmp_path.iterdir()) == []


def test_a_directory_can_be_kept(tmp_path: Path) -> None:
    """Every other command works on it afterwards; one that holds something already is refused."""
    kept = tmp_path / "kept"
    arguments = demo_command("--seconds", "1", "--keep", str(kept))
    done = subprocess.run(
        arguments, capture_output=True, text=True, timeout=HANG_SECONDS, check=True, env=demo_environment(tmp_path)
    )

    assert str(kept) in done.stdout
    assert kept.stat().st_mode & 0o777 == 0o700
    verified = [sys.executable, "-m", "rotator", "--config", str(kept / "config.yaml"), "audit", "verify"]
    subprocess.run(verified, capture_output=True, timeout=HANG_SECONDS, check=True, env=environment())
    again = subprocess.run(
        arguments, capture_output=True, text=True, timeout=HANG_SECONDS, check=False, env=environment()
    )
    assert again.returncode == 1
    assert "is not empty" in again.stderr


def read_terminal(tmp_path: Path, *arguments: str, columns: int, lines: int, **environ: str) -> str:
    """Run it on a terminal of that size, and return all that was written to it."""
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = subprocess.Popen(
        demo_command(*arguments),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=demo_environment(tmp_path) | environ,
    )
    os.close(theirs)
    written = b""
    with open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123 - a descriptor
        while True:
            try:
                chunk = terminal.read(65_536)
            except OSError:  # EIO: nobody holds the other end any more
                break
            written += chunk
    assert process.wait(HANG_SECONDS) == 0
    return written.decode()


def test_a_terminal_of_80_columns_shows_a_picture(tmp_path: Path) -> None:
    """Keys, tokens and the verifier all fit, on a screen of their own that is left at the end."""
    written = read_terminal(tmp_path, "--seconds", "3", columns=80, lines=24)

    enter, leave = "\x1b[?1049h", "\x1b[?1049l"
    picture, _, summary = written.partition(leave)
    assert enter in picture
    frames = [CLEAR.sub("", frame) for frame in picture.split("\x1b[H")[1:]]
    last = [line.rstrip("\r") for line in frames[-1].split("\n")]
    assert len(last) <= 24
    assert max(map(len, last)) <= 80
    text = "\n".join(last)
    for shown in ("KEYS", "TOKENS", "acme #1", "initech #1", "signs for", "signs in", "0 refused", "token.issued"):
        assert shown in text
    assert "rotated" in CLEAR.sub("", summary)


def test_a_dumb_terminal_gets_lines(tmp_path: Path) -> None:
    """No control character reaches a terminal that knows none."""
    written = read_terminal(tmp_path, "--seconds", "1", columns=80, lines=24, TERM="dumb")

    assert "announced" in written
    assert "\x1b" not in written
