"""Command sinks against real processes."""

import base64
import os
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rotator.adapters.sinks import SinkCourier
from rotator.adapters.sinks.command import CommandRunner, printable
from rotator.core.model import Jti, Kid, WorkspaceId
from rotator.core.policy import CommandSink
from rotator.core.secret import MASK, Secret
from rotator.errors import DeliveryError
from rotator.ports import Parcel
from tests.errands import deliver, holds
from tests.patience import HANG_SECONDS, wait_until

TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJ3b3Jrc3BhY2UiOiJhY21lIn0.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"
PARCEL = Parcel(
    workspace=WorkspaceId("acme"),
    jti=Jti("jti-1"),
    kid=Kid("kid-1"),
    sequence=7,
    issued_at=datetime(2026, 1, 1, tzinfo=UTC),
    expires_at=datetime(2026, 2, 1, 12, 30, tzinfo=UTC),
    token=Secret(TOKEN),
)


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[WorkspaceId, str]] = []

    def __call__(self, workspace: WorkspaceId, text: str) -> None:
        self.lines.append((workspace, text))

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.lines)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def runner(log: Log) -> Iterator[CommandRunner]:
    """Give a runner, and make sure that its deliveries leave no descriptor, thread or child behind."""
    runner = CommandRunner(log, termination_grace=timedelta(seconds=0.3))
    runner.deliver(CommandSink(("/bin/true",)), PARCEL)  # what starts commands stays
    descriptors, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    yield runner
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors  # fewer: an earlier test's runner went
    assert threading.active_count() == threads
    runner.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def python(code: str, *arguments: str, timeout: float = HANG_SECONDS) -> CommandSink:
    return CommandSink((sys.executable, "-I", "-c", code, *arguments), timedelta(seconds=timeout))


def shell(code: str, *arguments: str, timeout: float = HANG_SECONDS) -> CommandSink:
    return CommandSink(("/bin/sh", "-c", code, "sh", *arguments), timedelta(seconds=timeout))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # an orphan that its new parent has not reaped yet


def dies(pid: int) -> bool:
    """Wait until ``pid`` ends: a signal is delivered a moment after kill(2) returned."""
    wait_until(lambda: not alive(pid), f"process {pid} ends")
    return True


def in_a_timeout_that_suffices(happens: Callable[[float], bool]) -> bool:
    """Try with ever longer timeouts until the command has begun within one, however slow the machine."""
    return any(happens(0.5 * 4**attempt) for attempt in range(5))


def test_the_token_comes_on_standard_input_and_nowhere_else(tmp_path: Path, runner: CommandRunner, log: Log) -> None:
    out = tmp_path / "out"
    runner.deliver(
        shell(
            'cat > "$1"; tr "\\0" " " < /proc/$$/environ > "$1.env"; tr "\\0" " " < /proc/$$/cmdline > "$1.argv"',
            str(out),
        ),
        PARCEL,
    )
    assert out.read_text() == TOKEN
    assert TOKEN not in (tmp_path / "out.env").read_text()
    assert TOKEN not in (tmp_path / "out.argv").read_text()
    assert log.lines == []


def test_the_environment_is_scrubbed_and_tells_about_the_token(
    tmp_path: Path, runner: CommandRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROTATOR_KEK", "the kek")
    out = tmp_path / "out"
    runner.deliver(shell('tr "\\0" "\\n" < /proc/$$/environ > "$1"', str(out)), PARCEL)
    variables = dict(line.split("=", 1) for line in out.read_text().splitlines())
    assert variables == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/nonexistent",
        "ROTATOR_WORKSPACE": "acme",
        "ROTATOR_JTI": "jti-1",
        "ROTATOR_KID": "kid-1",
        "ROTATOR_SEQUENCE": "7",
        "ROTATOR_EXPIRES_AT": "2026-02-01T12:30:00Z",
    }


def test_it_runs_in_the_root_directory_in_a_session_of_its_own_without_our_descriptors(
    tmp_path: Path, runner: CommandRunner
) -> None:
    code = (
        "import os, sys; fds = sorted(map(int, os.listdir('/proc/self/fd')))[:-1]; "
        "open(sys.argv[1], 'w').write(repr((os.getcwd(), os.getsid(0) == os.getpid(), fds)))"
    )
    out = tmp_path / "out"
    kept = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(kept, True)
    runner.deliver(python(code, str(out)), PARCEL)
    os.close(kept)
    assert out.read_text() == repr(("/", True, [0, 1, 2]))


def test_no_shell_sees_the_arguments(tmp_path: Path, runner: CommandRunner) -> None:
    hostile = "$(touch /tmp/x); `id` 'a\" b"
    out = tmp_path / "out"
    runner.deliver(python("import sys; open(sys.argv[1], 'w').write(sys.argv[2])", str(out), hostile), PARCEL)
    assert out.read_text() == hostile


def test_a_command_that_never_reads_the_token_took_it_if_it_exits_with_0(runner: CommandRunner) -> None:
    runner.deliver(CommandSink(("/bin/true",)), PARCEL)
    runner.deliver(python("import os; os.close(0)"), PARCEL)


def test_a_token_larger_than_an_ordinary_pipe_gets_through(tmp_path: Path, runner: CommandRunner) -> None:
    token = "x" * 200_000
    out = tmp_path / "out"
    runner.deliver(shell('sleep 0.1; cat > "$1"', str(out)), replace(PARCEL, token=Secret(token)))
    assert out.read_text() == token


def test_a_token_that_no_pipe_holds_is_a_failed_delivery(runner: CommandRunner) -> None:
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may have pipes of any size
    try:
        with pytest.raises(DeliveryError, match="does not fit into a pipe"):
            runner.deliver(CommandSink(("/bin/true",)), replace(PARCEL, token=Secret("x" * 10_000_000)))
    finally:
        os.seteuid(user)


def test_wherever_the_descriptors_run_out_none_is_leaked(runner: CommandRunner) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    failed = 0
    enough = len(list(Path("/proc/self/fd").iterdir())) + 20
    try:
        for limit in range(enough):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            try:
                runner.deliver(CommandSink(("/bin/true",)), PARCEL)
            except DeliveryError as error:
                failed += 1
                assert "Too many open files" in str(error)  # noqa: PT017  # the limits that suffice raise nothing
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert 0 < failed < enough


@pytest.mark.parametrize(
    ("sink", "message"),
    [
        (shell("exit 3"), "/bin/sh exited with status 3: see its output in the log"),
        (shell("kill -9 $$"), "/bin/sh was killed by SIGKILL before it took the token"),
        (CommandSink(("/no/such/program", "a")), "/no/such/program .* is not there"),
        (CommandSink(("/etc/passwd",)), "/etc/passwd may not be run by this user"),
    ],
    ids=["status", "signal", "missing", "not executable"],
)
def test_a_failure_says_in_one_line_what_happened(sink: CommandSink, message: str, runner: CommandRunner) -> None:
    with pytest.raises(DeliveryError, match=message) as caught:
        runner.deliver(sink, PARCEL)
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_file_that_is_no_program_cannot_be_run(tmp_path: Path, runner: CommandRunner) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF nonsense")
    program.chmod(0o755)
    with pytest.raises(DeliveryError, match="no first line that names its interpreter: begin it with #!/bin/sh"):
        runner.deliver(CommandSink((str(program),)), PARCEL)


def test_at_the_timeout_the_whole_group_is_killed_even_if_it_ignores_sigterm(
    tmp_path: Path, runner: CommandRunner
) -> None:
    pids = tmp_path / "pids"
    stubborn = 'trap "" TERM; echo $$ >> "$1"; while :; do sleep 1; done'
    code = f"sh -c '{stubborn}' sh \"$1\" & {stubborn}"

    def killed(seconds: float) -> bool:
        pids.unlink(missing_ok=True)
        with pytest.raises(DeliveryError, match=rf"did not end within {seconds:g} s and was killed"):
            runner.deliver(shell(code, str(pids), timeout=seconds), PARCEL)
        found = [int(pid) for pid in pids.read_text().split()] if pids.exists() else []
        assert all(dies(pid) for pid in found)
        return len(found) == 2

    assert in_a_timeout_that_suffices(killed)


def test_a_command_may_clean_up_on_sigterm(tmp_path: Path, log: Log) -> None:
    mark = tmp_path / "mark"
    runner = CommandRunner(log, termination_grace=timedelta(seconds=HANG_SECONDS))

    def cleaned_up(seconds: float) -> bool:
        with pytest.raises(DeliveryError, match="did not end"):
            runner.deliver(
                shell('trap "echo bye > $1; exit 0" TERM; sleep 20 & wait', str(mark), timeout=seconds), PARCEL
            )
        return mark.exists()

    assert in_a_timeout_that_suffices(cleaned_up)
    assert mark.read_text() == "bye\n"


def test_what_a_command_leaves_running_in_its_group_ends_with_it(tmp_path: Path, runner: CommandRunner) -> None:
    pid = tmp_path / "pid"
    runner.deliver(shell('sleep 60 & echo $! > "$1"', str(pid)), PARCEL)
    assert dies(int(pid.read_text()))


def test_a_daemon_that_holds_the_output_open_does_not_hold_up_the_delivery(
    tmp_path: Path, runner: CommandRunner, log: Log
) -> None:
    pid = tmp_path / "pid"
    code = (
        "import os, sys, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid(); open(sys.argv[1], 'w').write(str(os.getpid())); print('on', flush=True); time.sleep(60)\n"
        "while not os.path.exists(sys.argv[1]) or not os.path.getsize(sys.argv[1]): time.sleep(0.01)\n"
        "time.sleep(0.1)"
    )
    runner.deliver(python(code, str(pid)), PARCEL)
    assert alive(int(pid.read_text()))
    os.kill(int(pid.read_text()), 9)
    assert log.text == "on"


def test_cancelling_ends_a_running_command(log: Log) -> None:
    courier = SinkCourier((), log)
    timer = threading.Timer(0.2, courier.cancel)
    timer.start()
    with pytest.raises(DeliveryError, match="was ended because rotator stops"):
        deliver(courier, shell("sleep 60"), PARCEL)
    timer.join()
    with pytest.raises(DeliveryError, match="was ended because rotator stops"):
        deliver(courier, shell("sleep 60"), PARCEL)


def test_a_command_cannot_be_looked_into(log: Log) -> None:
    assert holds(SinkCourier((), log), CommandSink(("/bin/false",)), PARCEL)


def test_output_reaches_the_log_also_when_the_command_succeeds(log: Log) -> None:
    deliver(SinkCourier((), log), shell("echo stored; echo careful >&2"), PARCEL)
    assert log.lines == [("acme", r"stored\ncareful")]


def test_output_is_escaped_and_the_token_masked_wherever_it_is_printed(runner: CommandRunner, log: Log) -> None:
    code = (
        "import sys; t = sys.stdin.read(); h, p, s = t.split('.')\n"
        "print('\\x1b[31mred\\x07', 'token=' + t, 'payload', p, 'cut', t[30:60], repr(s))\n"
        "sys.stdout.flush(); sys.stdout.buffer.write(b'\\xff'); sys.exit(4)"
    )
    with pytest.raises(DeliveryError):
        runner.deliver(python(code), PARCEL)
    for part in TOKEN.split("."):
        assert part not in log.text
    assert log.text == (rf"\x1b[31mred\x07 token={MASK}.{MASK}.{MASK} payload {MASK} cut {MASK}.{MASK} '{MASK}'\n\xff")


def test_endless_output_is_drained_and_its_end_kept(runner: CommandRunner, log: Log) -> None:
    code = "import sys; sys.stdout.write('x ' * 2_000_000 + 'the end')"
    runner.deliver(python(code), PARCEL)
    assert log.text.startswith("…")
    assert log.text.endswith("x x the end")
    assert len(log.text) == 2049


def test_a_token_cut_in_two_by_the_window_is_masked() -> None:
    """What remains of it at the cut may be too short to be known."""
    assert printable(TOKEN.encode()[-7:] + b" then nothing" * 10, Secret(TOKEN), cut=True).startswith("othing then")
    assert printable(b"short", Secret(TOKEN), cut=True) == ""


def test_every_shred_of_a_token_is_masked() -> None:
    """Nine characters in a row are enough to know it by, wherever the output was cut."""
    for start in range(len(TOKEN) - 20):
        shred = TOKEN[start : start + 20]
        shown = printable(f"a {shred} b".encode(), Secret(TOKEN))
        assert MASK in shown
        assert shred not in shown


ENCODED: dict[str, Callable[[bytes], bytes]] = {
    "base64": base64.b64encode,
    "base64url": base64.urlsafe_b64encode,
    "hex": lambda text: text.hex().encode(),
    "HEX": lambda text: text.hex().upper().encode(),
    "reversed": lambda text: text[::-1],
}


@pytest.mark.parametrize("before", [b"", b"x", b"xy", b'{"token":"'])
@pytest.mark.parametrize("encoding", ENCODED)
def test_an_encoded_token_is_masked_too(encoding: str, before: bytes) -> None:
    """As tools print it, whatever stands before it: three offsets in base64, in lines of any usual length."""
    encoded = ENCODED[encoding](before + TOKEN.encode() + b'"}').decode()
    for width in (len(encoded), 76, 40):
        lines = [encoded[at : at + width] for at in range(0, len(encoded), width)]
        shown = printable("\n".join(f"it is {line} ." for line in lines).encode(), Secret(TOKEN))
        shreds = {encoded[at : at + 12] for at in range(20, len(encoded) - 20)}
        assert [shred for shred in shreds if shred in shown] == []


def test_anything_long_that_may_be_an_encoded_secret_is_masked() -> None:
    """In an encoding of an encoding nobody finds the token again; sixty-four characters in a row are enough."""
    twice = base64.b64encode(base64.b64encode(TOKEN.encode())).decode()
    assert printable(f"data: {twice} end".encode(), Secret(TOKEN)) == f"data: {MASK} end"
    usual = "created secret/acme in /var/lib/kubelet/pods/3f1c0d9e/volumes with sha1 " + "ab" * 20
    assert printable(usual.encode(), Secret(TOKEN)) == usual


def test_the_same_output_is_logged_once_until_it_changes(runner: CommandRunner, log: Log, tmp_path: Path) -> None:
    """Of one sink; what another prints is told for itself."""
    said = tmp_path / "said"
    sink, other = shell(f"cat {said}"), shell(f"cat {said} # of another")
    for text, sinks in (("a", [sink, sink, other, sink]), ("b", [sink]), ("", [sink]), ("b", [sink, sink])):
        said.write_text(text)
        for each in sinks:
            runner.deliver(each, PARCEL)
    runner.deliver(sink, replace(PARCEL, workspace=WorkspaceId("umbrella")))
    assert [(str(workspace), text) for workspace, text in log.lines] == [
        ("acme", "a"),
        ("acme", "a"),
        ("acme", "b"),
        ("acme", "b"),
        ("umbrella", "b"),
    ]
