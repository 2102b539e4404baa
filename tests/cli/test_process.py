"""What a shell sees: exit codes, streams, signals, and what an import costs."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rotator import __version__
from tests import forking
from tests.cli.conftest import Shell
from tests.e2e.world import Site
from tests.patience import HANG_SECONDS


def run(*arguments: str, **rest: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "TERM": "dumb", **rest}
    return forking.run(arguments, capture_output=True, text=True, timeout=HANG_SECONDS, env=environ)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--version"], 0, f"rotator {__version__}"),
        (["--help"], 0, "status"),
        (["token", "show", "-h"], 0, "--offline"),
        ([], 2, "Commands:"),
        (["keys"], 2, "list"),
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["status", "--nonsense"], 2, "No such option"),
        (["token", "show"], 2, "Missing argument"),
        (["clock", "accept"], 2, "Missing option '--reason'"),
        (["audit", "list", "--limit", "0"], 2, "'--limit'"),
        (["plan", "--for", "soon", "-c", "/no/such"], 2, "rotator: --for: 'soon' is not a span of time"),
        (["status", "-c", "/no/such"], 2, "rotator: /no/such: there is no such file"),
    ],
)
def test_exit_codes(arguments: list[str], code: int, said: str) -> None:
    """0 for what was asked for, 2 for bad usage and a bad config, each with a sentence and no traceback."""
    done = run(*arguments)
    assert done.returncode == code
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_help_imports_nothing_heavy() -> None:
    """It is to be there at once: typer and this package's own thin modules, nothing behind them."""
    program = (
        "import sys; from rotator.cli import main; main(['--help'])\n"
        "heavy = {'rich', 'pydantic', 'sqlalchemy', 'alembic', 'structlog', 'apscheduler', 'cryptography', 'yaml'}\n"
        "ours = {name for name in sys.modules if name.startswith('rotator.')} - {'rotator.errors'}\n"
        "behind = {name for name in ours if not name.startswith('rotator.cli')} | heavy & sys.modules.keys()\n"
        "sys.exit(repr(sorted(behind)) if behind else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=HANG_SECONDS
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_config_may_stand_before_or_after_the_command(started: Shell, site: Site) -> None:
    """Or in the environment."""
    expected = run("keys", "list", "-c", str(site.config)).stdout
    assert len(expected.splitlines()) == 3
    assert run("--config", str(site.config), "keys", "list").stdout.split()[:10] == expected.split()[:10]
    assert run("keys", "list", ROTATOR_CONFIG=str(site.config)).stdout.split()[:10] == expected.split()[:10]


@pytest.mark.skipif(os.geteuid() != 0 or Path("/etc/rotator/config.yaml").exists(), reason="what root is told")
def test_root_that_stands_beside_a_config_is_told_that_it_is_not_read(started: Shell, site: Site) -> None:
    """It is somebody's; in JSON the complaint stays the last line."""
    environ = {name: value for name, value in os.environ.items() if name != "ROTATOR_CONFIG"}
    for arguments in (["run", "--once"], ["status"], ["plan"], ["status", "--json"]):
        done = forking.run(
            arguments, capture_output=True, text=True, timeout=HANG_SECONDS, env=environ, cwd=site.config.parent
        )
        first, *_, last = done.stderr.splitlines()
        assert (done.returncode, first) == (
            2,
            "rotator: ./config.yaml is not read by itself, for this is root; if it is meant, name it: "
            "--config config.yaml",
        )
        assert "/etc/rotator/config.yaml: there is no such file" in last


@pytest.mark.parametrize("command", [["check"], ["run", "--once"], ["status"], ["check", "--json"]])
def test_a_path_is_utf8_whatever_the_locale_says(tmp_path: Path, command: list[str]) -> None:
    """The config says it in UTF-8, and what the terminal cannot show is shown by its number."""
    site = Site(tmp_path / "ö")
    site.root.mkdir()
    site.write_config(workspaces=1, token_period="30d", keyset_period="90d")
    program = [sys.executable, "-m", "rotator", "--config", str(site.config), *command]
    environ = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0"}
    once = [*program[:5], "run", "--once"]
    subprocess.run(once, check=True, capture_output=True, timeout=HANG_SECONDS, env=environ)
    done = subprocess.run(program, check=False, capture_output=True, timeout=HANG_SECONDS, env=environ)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()
    assert (site.root / "delivered" / "w0" / "token").exists()


def test_a_name_that_is_not_utf8_is_refused_with_a_sentence(tmp_path: Path) -> None:
    site = Site(tmp_path / os.fsdecode(b"\xf6"))
    site.root.mkdir()
    site.write_config(workspaces=1)
    done = run("--config", str(site.config), "run", "--once")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the name of the file or of its directory is not UTF-8; rename it" in done.stderr


def test_broken_pipe_is_silent(started: Shell, site: Site) -> None:
    """`rotator audit list | head` shows no complaint."""
    command = f"{sys.executable} -m rotator audit list --json -c {site.config} | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{", "")


def shell_line(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash; ``rotator`` in it is this one."""
    line = f'rotator() {{ {sys.executable} -m rotator "$@"; }}; {line}'
    return subprocess.run(["bash", "-c", line], check=False, capture_output=True, text=True, timeout=HANG_SECONDS)


def test_broken_pipe_in_the_middle_of_much_output_is_silent() -> None:
    """More than a buffer of it: found out while the command still runs."""
    done = shell_line("rotator config schema | :; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("command", ["status", "jwks", "config schema", "audit list --json", "--help"])
def test_a_full_disk_is_one_line(started: Shell, site: Site, command: str) -> None:
    """Exit 1, and no traceback, whether a little or much could not be written."""
    done = shell_line(f"ROTATOR_CONFIG={site.config} rotator {command} > /dev/full")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == complaint(command, "the output cannot be written: No space left on device")


def complaint(command: str, problem: str) -> str:
    """Return how ``command`` tells a problem: as a sentence, or as an object where it was asked for one."""
    if "--json" in command:
        return json.dumps({"error": problem, "exit_code": 1}) + "\n"
    return f"rotator: {problem}\n"


def test_interrupt_is_quiet(tmp_path: Path, site: Site) -> None:
    """Ctrl-C while the daemon's answer is awaited: exit 130, no traceback."""
    import socket

    site.state.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(site.state / "control.sock"))
        listener.listen()
        process = forking.Rotator(
            ["status", "-c", str(site.config)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        connection, _ = listener.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=HANG_SECONDS)
    assert (process.returncode, out, err) == (130, "", "")


def test_run_once_says_when_it_is_needed_again(site: Site) -> None:
    """Exit 0, and the next due time on the last line."""
    done = run("run", "--once", "-c", str(site.config))
    assert done.returncode == 0
    assert re.search(r"^OK  nothing is overdue.*\nnext due 20.* \(in .*\)\n\Z", done.stdout, re.MULTILINE)


def test_run_once_is_degraded_by_a_sink_that_fails_or_a_fault(site: Site) -> None:
    """Exit 3, with what is wrong."""
    assert run("run", "--once", "-c", str(site.config)).returncode == 0
    (site.state / "kek").write_text("other " + "A" * 43 + "\n")
    (site.state / "kek").chmod(0o600)
    done = run("run", "--once", "-c", str(site.config))
    assert done.returncode == 3
    assert "CRITICAL  1 critical" in done.stdout


def on_terminal(*arguments: str, term: str = "xterm-256color") -> str:
    """Run a command on a terminal of 80 columns and return what it shows."""
    fd, terminal = pty.openpty()
    environ = os.environ | {"TERM": term, "COLUMNS": "80", "LINES": "40"}
    process = forking.Rotator(arguments, stdin=terminal, stdout=terminal, stderr=terminal, env=environ)
    os.close(terminal)
    shown = b""
    while True:
        try:
            chunk = os.read(fd, 65_536)
        except OSError:  # how a terminal says that the other side is gone
            break
        if not chunk:
            break
        shown += chunk
    os.close(fd)
    process.wait(HANG_SECONDS)
    return shown.decode().replace("\r\n", "\n")


def test_pages_fit_a_terminal(started: Shell, site: Site) -> None:
    """Eighty columns, with colours."""
    for command in ("status", "plan", "keys list", "tokens list", "audit list", "audit verify", "check"):
        shown = on_terminal(*command.split(), "-c", str(site.config))
        plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
        assert "\x1b" in shown, command
        assert "\x1b" not in plain, command
        assert max(map(len, plain.splitlines())) <= 80, command


def test_dumb_terminal_gets_plain_lines(started: Shell, site: Site) -> None:
    """No escape at all."""
    assert "\x1b" not in on_terminal("status", "-c", str(site.config), term="dumb")


def test_token_ends_with_a_line_on_a_terminal(started: Shell, site: Site) -> None:
    """So that the prompt does not stick to it."""
    shown = on_terminal("token", "show", "w0", "--offline", "-c", str(site.config))
    assert shown.splitlines(keepends=True)[-1] == site.root.joinpath("delivered/w0/token").read_text().strip() + "\n"
