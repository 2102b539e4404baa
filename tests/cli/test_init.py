"""`rotator init`: a first config that is sound as it stands, asked for or by options; nothing is ever replaced."""

import errno
import json
import os
import pty
import select
import stat
import subprocess
import time
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rotator.adapters.clock import wall_time
from rotator.adapters.disk import OsDisk
from rotator.adapters.kek import read_ring_file
from rotator.beginning import begin
from rotator.cli import main
from rotator.config import load
from rotator.config.first import FirstAnswers, render
from rotator.config.profiles import MAX_CACHE
from rotator.errors import RefusedError
from rotator.schemas import load as schema
from tests import forking
from tests.e2e.world import environment
from tests.patience import HANG_SECONDS

ISSUER = "https://tokens.example.com"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return forking.run(arguments, capture_output=True, text=True, timeout=HANG_SECONDS, env=environment())


def test_by_options_alone_and_ready_as_it_is(tmp_path: Path) -> None:
    """`check` finds the config sound and the machine ready, without a warning; `run` works; the KEK is private."""
    done = run("init", str(tmp_path / "new"), "--issuer", ISSUER, "--verifier", "envoy", "--workspace", "globex")
    assert (done.returncode, done.stderr) == (0, "")
    config, kek = tmp_path / "new" / "config.yaml", tmp_path / "new" / "kek"
    assert f"rotator --config {config} check" in done.stdout
    assert stat.S_IMODE(kek.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.stat().st_mode) == 0o644
    assert sorted(path.name for path in config.parent.iterdir()) == ["config.yaml", "kek"]
    assert len(read_ring_file(kek).keys) == 1
    checked = run("--config", str(config), "check", "--json")
    assert checked.returncode == 0, checked.stdout
    found = json.loads(checked.stdout)
    # The test runner's own directories are closed to others; which of them is told of first is the machine's affair.
    closed = [f"is in {directory}, which is closed to other users" for directory in tmp_path.parents]
    assert found["ready"]
    assert [each for each in found["warnings"] if not any(words in each for words in closed)] == []
    assert run("--config", str(config), "run", "--once").returncode == 0
    assert (tmp_path / "new" / "delivered" / "globex" / "token").exists()
    assert not (tmp_path / "new" / "rotator-data" / "kek").exists()


def test_for_the_unit(tmp_path: Path) -> None:
    """The places are the unit's, and the key lies where it takes the credential from."""
    done = run("init", str(tmp_path), "--issuer", ISSUER, "--systemd", "--workspace", "acme", "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    jsonschema.validate(found, schema("init"))
    assert found["next"][1] == "systemctl enable --now rotator"
    assert found["next"][0].startswith(f"CREDENTIALS_DIRECTORY={tmp_path} rotator")
    text = (tmp_path / "config.yaml").read_text()
    loaded = load(tmp_path / "config.yaml", {"CREDENTIALS_DIRECTORY": str(tmp_path)}, now=wall_time())
    assert loaded.warnings == ()
    assert loaded.settings.kek.file == tmp_path / "kek"
    assert str(loaded.settings.state_directory) == "/var/lib/rotator"
    assert "/run/rotator-tokens/acme/token" in text
    unit = (Path(__file__).parents[2] / "systemd" / "rotator.service").read_text()
    for place in ("/run/rotator-tokens", "/srv/rotator", "LoadCredential=kek:/etc/rotator/kek"):
        assert place in unit


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "there is no terminal to ask on: say at least --issuer"),
        (("--issuer", "tokens.example.com"), 2, "--issuer: 'tokens.example.com' is not an absolute https URL"),
        (("--issuer", ISSUER, "--verifier", "envoi"), 2, "--verifier: 'envoi' is not a verifier known here"),
        (("--issuer", ISSUER, "--max-cache", "90"), 2, "--max-cache:"),
        (("--issuer", ISSUER, "--max-cache", "1h", "--verifier", "envoy"), 2, "say the same"),
        (("--issuer", ISSUER, "--workspace", "Acme"), 2, "--workspace: 'Acme' is no name here"),
        (("--issuer", ISSUER, "--audience", "\x1b"), 2, "--audience: holds a character that cannot be printed"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, said: str
) -> None:
    assert main(["init", str(tmp_path / "new"), *arguments]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_nothing_is_replaced(tmp_path: Path) -> None:
    """A config stays as it is, a link that leads nowhere too; a KEK that is there already is used."""
    answers = FirstAnswers(issuer=ISSUER)
    first = begin(tmp_path, answers)
    before = (tmp_path / "config.yaml").read_bytes(), (tmp_path / "kek").read_bytes()
    with pytest.raises(RefusedError, match="is there already, and is left as it is"):
        begin(tmp_path, FirstAnswers(issuer="https://other.example.com"))
    assert ((tmp_path / "config.yaml").read_bytes(), (tmp_path / "kek").read_bytes()) == before
    (tmp_path / "config.yaml").unlink()
    again = begin(tmp_path, answers)
    assert (first.kek_kept, again.kek_kept) == (False, True)
    assert ((tmp_path / "config.yaml").read_bytes(), (tmp_path / "kek").read_bytes()) == before
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "config.yaml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RefusedError, match="is there already"):
        begin(tmp_path, answers)
    assert not (tmp_path / "nowhere").exists()


def test_a_config_that_is_there_has_its_key(tmp_path: Path) -> None:
    """Whatever fails, what is left can be begun again."""

    class Full(OsDisk):
        def __init__(self, left: int) -> None:
            super().__init__()
            self.left = left

        def write(self, fd: int, content: bytes) -> None:
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            super().write(fd, content)

    with pytest.raises(RefusedError, match="No space left"):
        begin(tmp_path / "b", FirstAnswers(issuer=ISSUER), disk=Full(1))
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["kek"]
    begin(tmp_path / "b", FirstAnswers(issuer=ISSUER))
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["config.yaml", "kek"]


@given(
    workspace=st.none()
    | st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)
    | st.sampled_from(["on", "1e3", "null"]),
    audience=st.lists(
        st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=20), min_size=1, max_size=3
    ),
    profiles=st.lists(st.sampled_from(sorted(MAX_CACHE)), max_size=3),
    systemd=st.booleans(),
)
def test_every_config_is_what_was_said(
    workspace: str | None, audience: list[str], profiles: list[str], systemd: bool
) -> None:
    """Whatever YAML would make of it without quotes."""
    answers = FirstAnswers(
        issuer=ISSUER, workspace=workspace, audience=tuple(audience), profiles=tuple(profiles), systemd=systemd
    )
    read = yaml.safe_load(render(answers))
    assert list(read["workspaces"]) == ([] if workspace is None else [workspace])
    assert read["defaults"]["audience"] == audience
    assert read["consumers"] == ({"profiles": profiles} if profiles else {"max_cache": "24h"})
    assert ("kek" in read) is not systemd


def test_on_a_terminal_it_asks_until_it_is_told(tmp_path: Path) -> None:
    """Three questions, each again after an answer that is wrong; Enter takes what stands in brackets."""
    primary, secondary = pty.openpty()
    env = environment() | {"TERM": "xterm", "COLUMNS": "200"}  # no path of a test is so long that a command is broken
    process = forking.Rotator(["init", str(tmp_path)], stdin=secondary, stdout=secondary, stderr=secondary, env=env)
    os.close(secondary)
    shown = ""
    answers = [
        ("issuer: ", "ftp://x"),
        ("is not an absolute https URL", ""),
        ("issuer: ", ISSUER),
        ("verifiers [24h]: ", "envoi"),
        ("did you mean envoy?", ""),
        ("verifiers [24h]: ", "envoy pyjwt"),
        ("workspace [acme]: ", "\n"),
    ]
    for wanted, answer in answers:
        shown = _until(primary, wanted, shown)
        if answer:
            os.write(primary, f"{answer.strip()}\n".encode())
    _until(primary, "token show acme", shown)
    assert process.wait(HANG_SECONDS) == 0
    os.close(primary)
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert written["issuer"] == ISSUER
    assert written["consumers"] == {"profiles": ["envoy", "pyjwt"]}
    assert list(written["workspaces"]) == ["acme"]


def _until(terminal: int, wanted: str, shown: str) -> str:
    """Read until ``wanted`` was shown; return what came after it."""
    give_up_at = time.monotonic() + HANG_SECONDS
    while wanted not in shown:
        assert time.monotonic() < give_up_at, f"{wanted!r} is not in {shown!r}"
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 4096).decode()
    return shown.partition(wanted)[2]
