"""What is said of wrong input: what was found, what would be right, and a next step that can be typed as it is."""

import json
import re
import shlex
from pathlib import Path

import pytest

from rotator.cli import main
from tests.another_user import as_nobody
from tests.cli.conftest import Shell
from tests.cli.test_process import on_terminal, run
from tests.e2e.world import Site

ISSUER = ("--issuer", "https://tokens.example.com")


def test_a_told_command_can_be_typed_whatever_is_in_a_path(tmp_path: Path) -> None:
    """On the page and for programs, each is quoted for the shell."""
    place = tmp_path / "my cfg; $HOME"
    steps = json.loads(run("init", str(place), *ISSUER, "--workspace", "acme", "--json").stdout)["next"]
    assert [shlex.split(step)[:3] for step in steps] == [["rotator", "--config", str(place / "config.yaml")]] * 4

    other = tmp_path / "my other cfg"
    page = run("init", str(other), *ISSUER).stdout
    assert f"    rotator --config '{other}/config.yaml' check\n" in page


def test_a_told_command_is_never_broken_in_two(tmp_path: Path) -> None:
    """On a terminal that is too narrow, it runs on: what is copied from there is whole."""
    place = tmp_path / ("a" * 60) / ("b" * 60)
    shown = on_terminal("init", str(place), *ISSUER, "--max-cache", "24h", "--workspace", "acme")
    assert f"rotator --config {place}/config.yaml check\n" in shown


def test_an_error_is_wrapped_between_words(site: Site) -> None:
    """No word of it is split at the edge of a terminal."""
    shown = on_terminal("plan", "--for", "a" * 30, "-c", str(site.config))
    assert max(map(len, shown.splitlines())) <= 80
    assert "such as 90s, 10m, 12h, 30d, 8w, 1h30m or P30D" in " ".join(shown.split())
    assert all(line.startswith(("rotator: ", "         ")) for line in shown.splitlines())


@pytest.mark.parametrize("place", ["ro", "ro/new"])
def test_a_first_config_where_nothing_can_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    """Says which directory it is, and how to have one."""
    (tmp_path / "ro").mkdir()
    (tmp_path / "ro").chmod(0o555)
    main(["init", str(tmp_path), *ISSUER])  # imports what nobody may not
    capsys.readouterr()
    with as_nobody(tmp_path / "ro"):
        code = main(["init", str(tmp_path / place), *ISSUER])

    err = capsys.readouterr().err
    assert code == 1
    assert f"rotator: {tmp_path}/ro cannot be written by this user (" in err
    assert err.splitlines()[-1].startswith("rotator:     install -d -o ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("audit", "list", "--since", "foo"), "or a moment, such as 2026-03-01T00:00:00Z"),
        (("replace", "w0", "--offline", "--reason", "x" * 1001), "--reason: a reason is one line of at most 1000"),
        (("replace", "w0", "--reason", "a\x07b"), "--reason: a reason is one line of at most 1000"),
    ],
)
def test_what_would_be_right_is_said(started: Shell, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = started(*arguments)
    assert code == 2
    assert said in err


def test_what_is_near_has_its_hour_and_what_is_not_there_is_not_shown(shell: Shell, site: Site) -> None:
    """The day alone does not tell when; and None is no word for people."""
    site.config.write_text(site.config.read_text().replace("90d", "6h"))
    shell("run", "--once")
    assert re.search(r"signs until 20\S+ \d\d:\d\dZ \(in \d+h", shell("keys", "list")[1])
    shell("replace", "w0", "--offline")
    listed = shell("audit", "list")[1]
    assert "token.replacement_requested" in listed
    assert "None" not in listed
    assert "list[str]" not in run("init", "--help").stdout


def test_an_overlap_beyond_the_end_of_the_prior_token_is_said_to_be_so(started: Shell) -> None:
    """It cannot be had, and is not shortened in silence."""
    _, _, err = started("replace", "w0", "--overlap", "400d", "--offline")
    assert "rotator: --overlap 400d goes beyond the prior token's own end: it is valid until 20" in err
    _, _, err = started("replace", "w1", "--overlap", "1h", "--offline")
    assert err == ""
