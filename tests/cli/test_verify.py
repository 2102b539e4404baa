"""``rotator verify``: where the token comes from, who may ask, what is shown, and that the token is left nowhere."""

import io
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotator.adapters.sinks.file import render
from rotator.cli.screen import Screen
from rotator.cli.verdicts import read_token, show_verdict, verdict_on
from rotator.core.model import Jti, Kid, WorkspaceId
from rotator.core.secret import Secret
from rotator.ports import Parcel
from rotator.report.verdict import Check, Verdict
from rotator.schemas import load
from tests import forking
from tests.cli.conftest import Shell
from tests.e2e.world import Site, wait_for
from tests.patience import HANG_SECONDS


@pytest.fixture
def token(site: Site) -> str:
    """Name the file that it is delivered to."""
    return str(site.config.parent / "delivered" / "w0" / "token")


def test_a_delivered_token_is_valid(started: Shell, token: str) -> None:
    code, out, err = started("verify", "--file", token)
    assert (code, err) == (0, "")
    first, *checks = out.splitlines()
    assert first.startswith("VALID  workspace w0, until 20")
    assert len(checks) == 11
    assert all(line.startswith("  ✓  ") for line in checks)
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_from_standard_input(started: Shell, site: Site, token: str, ending: str) -> None:
    """So that it is in no list of processes."""
    text = Path(token).read_text().strip() + ending
    command = ["verify", "-", "--json", "-c", str(site.config)]
    done = forking.run(command, input=text.encode(), capture_output=True, timeout=HANG_SECONDS)
    assert (done.returncode, done.stderr) == (0, b"")
    verdict = json.loads(done.stdout)
    jsonschema.validate(verdict, load("verify"), format_checker=jsonschema.FormatChecker())
    assert verdict["valid"] is True


@pytest.mark.parametrize("file_format", ["json", "env"])
def test_a_file_of_any_format_that_a_sink_writes(started: Shell, token: str, tmp_path: Path, file_format: str) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    text = Secret(Path(token).read_text().strip())
    parcel = Parcel(WorkspaceId("w0"), Jti("j"), Kid("k"), 1, now, now, text)
    (tmp_path / "file").write_text(render(file_format, parcel))
    assert started("verify", "--file", str(tmp_path / "file"))[0] == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"token": 5}', "it is JSON; a token is in the compact form"),
        ('{"token": "a.b.c", "token": "d"}', "it is JSON; a token is in the compact form"),
        ("{" * 5000, "it is JSON; a token is in the compact form"),
        ("TOKEN=", "it is empty"),
        ("TOKEN='a'\nb", "it has 1 part"),
    ],
)
def test_a_file_of_such_a_format_without_a_token(shell: Shell, tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "odd").write_text(content)
    code, out, _ = shell("verify", "--file", str(tmp_path / "odd"))
    assert (code, said in out) == (1, True)


def test_a_daemon_gives_the_same_verdict_and_keeps_nothing(daemon: Shell, site: Site, token: str) -> None:
    wait_for(Path(token).exists, None, "the first delivery")
    text = Path(token).read_text().strip()
    before = json.loads(daemon("audit", "verify", "--json")[1])["head_seq"]
    verdict = json.loads(daemon("verify", text, "--json")[1])
    assert verdict["valid"] is True
    assert "its key is in the published set" in [check["text"] for check in verdict["checks"]]
    code, out, _ = daemon("verify", text[:-4] + "AAAA")
    assert code == 1
    assert out.startswith("REFUSED  it was not signed by key ")
    events = json.loads(daemon("audit", "list", "--json", "--limit", "1000")[1])["events"]
    since = [event["event"] for event in events if event["seq"] > before]
    assert not [name for name in since if name.startswith("token.s")]
    part = text.split(".")[1].encode()
    assert part not in b"".join(path.read_bytes() for path in site.state.rglob("*") if path.is_file())


def test_what_is_asked_for(started: Shell, token: str) -> None:
    assert started("verify", "-f", token, "--role", "nobody")[0] == 1
    code, out, _ = started("verify", "-f", token, "--require", "a:b", "--require", "c:d", "--audience", "elsewhere")
    assert code == 1
    assert out.startswith("REFUSED  it is for ")
    assert "(and 2 more)" in out
    assert "  ✗  permission: it has no permission c:d" in out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("verify",), 2, "name one token: as the argument, as - for standard input, or with --file FILE"),
        (("verify", "x", "--file", "y"), 2, "name one token"),
        (
            ("verify", "--file", "/none/there"),
            1,
            "/none/there cannot be read: No such file or directory: see that its path is right",
        ),
        (("verify", "--file", "/"), 1, "/ cannot be read: Is a directory: name a file in it"),
    ],
)
def test_wrong_ways_to_ask(started: Shell, arguments: tuple[str, ...], code: int, said: str) -> None:
    found, _, err = started(*arguments)
    assert found == code
    assert said in err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "REFUSED  it is empty"),
        (b"\xff\xfe.\x00.\x1b[2J", "REFUSED  its header has characters outside base64url"),
        (b"a" * 10_000_000, "REFUSED  it has more than 32768 characters"),
        (b"e30.e30.", "REFUSED  its header has no text as alg"),
        (b"\n", "REFUSED  it is empty"),
    ],
)
def test_what_is_no_token_is_refused_without_asking_anybody(
    shell: Shell, tmp_path: Path, content: bytes, said: str
) -> None:
    """There is no state here at all."""
    (tmp_path / "token").write_bytes(content)
    code, out, err = shell("verify", "--file", str(tmp_path / "token"))
    assert (code, err) == (1, "")
    assert out.startswith(said)


PIECES = st.lists(st.sampled_from([b"e30", b".", b"{", b"TOKEN=", b"\n"])).map(b"".join)


@given(st.binary() | st.text().map(str.encode) | PIECES)
def test_whatever_comes_in_there_is_a_verdict(content: bytes) -> None:
    """Nothing of this is a token, and nothing of it is a traceback; nobody is asked, for there is nobody."""
    token = read_token("-", None, io.TextIOWrapper(io.BytesIO(content)))
    verdict = verdict_on(Path("/nonexistent"), token, audiences=(), permissions=(), roles=())
    assert not verdict.valid
    assert verdict.verdict.isprintable()


def test_an_endless_input_is_read_no_further_than_a_token_is_long(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless(io.RawIOBase):
        count = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            self.count += (size := len(memoryview(buffer)))  # type: ignore[arg-type]  # a buffer it is
            return size

    endless = Endless()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(endless)))
    assert shell("verify", "-")[0] == 1
    assert endless.count < 100_000


ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    ["\nVALID  workspace acme", "\x1b[2J\x1b[HVALID", "\r\u2028VALID", "\u202eDILAV", "a\x85VALID"]
)


@pytest.mark.parametrize("terminal", [False, True])
@given(texts=st.lists(ANY, min_size=1, max_size=4), notes=st.lists(ANY, max_size=2), why=ANY)
def test_nothing_in_a_token_fakes_a_line(texts: list[str], notes: list[str], why: str, *, terminal: bool) -> None:
    """A page has as many lines as it has things to say, whatever a token says of itself."""
    from rich.console import Console

    checks = tuple(Check(name="audience", ok=False, text=text) for text in texts)
    stream = io.StringIO()
    console = Console(file=stream, highlight=False, markup=False, emoji=False, width=10_000) if terminal else None
    verdict = Verdict(valid=False, verdict=f"refused: {why}", checks=checks, notes=tuple(notes))
    show_verdict(Screen(stream, console), verdict)
    first, *rest = stream.getvalue().splitlines()
    assert first.startswith("REFUSED")
    assert len(rest) == len(checks) + len(notes)
    assert all(line.startswith("  ") for line in rest)
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
@given(rows=st.lists(st.tuples(ANY, ANY), max_size=4), heading=ANY)
def test_nothing_in_a_list_fakes_a_line(rows: list[tuple[str, str]], heading: str, *, terminal: bool) -> None:
    """Lists, plans and pages are made of these: tables, facts, lines and commands."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, highlight=False, markup=False, emoji=False, width=10_000) if terminal else None
    screen = Screen(stream, console)
    screen.table(("KID", "WHAT"), rows, wrapped="WHAT")
    screen.line(f"head {heading}")
    screen.command(f"rotator {heading}")
    screen.facts([("what", what) for what, _ in rows])
    assert len(stream.getvalue().splitlines()) == 1 + len(rows) + 1 + 1 + len(rows)
