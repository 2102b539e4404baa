"""A token on the clipboard of the terminal: OSC 52, and not a character of it anywhere else."""

import base64
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from rotator.cli.clipboard import copy, osc52, require_clipboard
from rotator.core.secret import Secret
from rotator.errors import ConfigError, RotatorError
from tests.cli.conftest import Shell

TOKEN = "eyJ." + "x" * 900 + ".sig"
XTERM = {"TERM": "xterm-256color"}


def copied(sequence: bytes) -> str:
    """Return what a terminal would have on its clipboard."""
    found = re.search(rb"\x1b\]52;c;([A-Za-z0-9+/=]*)\x07", sequence)
    assert found is not None
    return base64.b64decode(found[1]).decode()


def test_a_terminal_gets_the_sequence_and_nothing_else() -> None:
    """Written to the terminal itself, wherever standard output goes."""
    screen, terminal = os.openpty()
    try:
        os.set_blocking(screen, False)
        copy(Secret(TOKEN), XTERM, Path(os.ttyname(terminal)))
        assert os.read(screen, 10_000) == osc52(Secret(TOKEN), XTERM)
    finally:
        os.close(screen)
        os.close(terminal)
    assert copied(osc52(Secret(TOKEN), XTERM)) == TOKEN


def test_tmux_is_given_the_plain_sequence_and_the_one_that_it_passes_on() -> None:
    """The first for `set-clipboard on`, the second, its escapes doubled, for `allow-passthrough on`."""
    plain, _, wrapped = osc52(Secret(TOKEN), XTERM | {"TMUX": "/tmp/tmux,1,0"}).partition(b"\x1bPtmux;")
    assert copied(plain) == TOKEN
    assert wrapped.endswith(b"\x1b\\")
    assert wrapped.removesuffix(b"\x1b\\").replace(b"\x1b\x1b", b"\x1b") == plain


def test_gnu_screen_is_given_pieces_that_it_passes_on() -> None:
    """A string of more than 768 bytes it would drop."""
    pieces = re.findall(rb"\x1bP(.*?)\x1b\\", osc52(Secret(TOKEN), XTERM | {"STY": "1.pts"}), re.DOTALL)
    assert max(map(len, pieces)) < 768
    assert copied(b"".join(pieces)) == TOKEN


@pytest.mark.parametrize(
    ("environ", "terminal", "problem"),
    [
        ({"TERM": "dumb"}, "/dev/null", "TERM is 'dumb'"),
        ({}, "/dev/null", "TERM is ''"),
        (XTERM, "/nowhere/tty", "there is none here"),
    ],
)
def test_without_a_terminal_that_can_it_is_refused(environ: Mapping[str, str], terminal: str, problem: str) -> None:
    """A terminal that knows no such sequence would show it."""
    with pytest.raises(ConfigError, match=problem):
        require_clipboard(environ, Path(terminal))


def test_a_terminal_that_went_away_is_told_of() -> None:
    with pytest.raises(RotatorError, match="cannot be written to"):
        copy(Secret(TOKEN), XTERM, Path("/nowhere/tty"))


def test_what_is_refused_is_not_recorded_as_shown(started: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal is looked for before the token is opened."""
    monkeypatch.setenv("TERM", "dumb")
    code, out, err = started("token", "show", "w0", "--copy", "--offline")
    assert (code, out) == (2, "")
    assert "--copy needs a terminal" in err
    assert started("token", "show", "w0", "--copy", "--json")[0] == 2
    assert "token.shown" not in started("audit", "list", "--limit", "100")[1]
