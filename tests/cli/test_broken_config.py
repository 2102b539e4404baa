"""A config that was broken in an editor, beside a daemon that runs on the one before."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Shell
from tests.e2e.world import Site, running


def _unknown_setting(text: str) -> str:
    return text + "colour: red\n"


def _bad_syntax(text: str) -> str:
    return text + "defaults: {audience: [\n"


def _bad_elsewhere(text: str) -> str:
    return text.replace("roles: [admin]", "roles: 7")


def _no_mapping(_: str) -> str:
    return "- nothing\n"


def _empty(_: str) -> str:
    return ""


@pytest.mark.parametrize("spoil", [_unknown_setting, _bad_syntax, _bad_elsewhere, _no_mapping, _empty])
def test_the_running_daemon_is_found(daemon: Shell, site: Site, spoil: Callable[[str], str]) -> None:
    """Where it is when nothing is set: reading and changing commands reach it."""
    site.config.write_text(spoil(site.config.read_text()))
    code, out, err = daemon("status", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["state"] == "ok"
    assert daemon("token", "show", "w0", "--reason", "looking")[0] == 0


@pytest.mark.parametrize("where", ["control: {socket: elsewhere/s.sock}\n", "state: {url: sqlite:///elsewhere/db}\n"])
@pytest.mark.parametrize("spoil", [_unknown_setting, _bad_syntax, _bad_elsewhere])
def test_it_is_found_where_the_broken_config_puts_it(
    shell: Shell, site: Site, where: str, spoil: Callable[[str], str], tmp_path: Path
) -> None:
    """`control` and `state` are read by themselves, whatever is wrong around them."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    site.config.write_text(site.config.read_text() + where)
    with running(site):
        site.config.write_text(spoil(site.config.read_text()))
        assert shell("status")[0] == 0
    code, out, err = shell("status")
    assert (code, out) == (2, "")
    assert err.startswith(f"rotator: {site.config}")


@pytest.mark.parametrize(
    "settings",
    [
        "control: {socket: [1]}\n",
        "control: 5\n",
        "control: {socket: 5}\n",
        "state: {url: 'x://y'}\n",
        "state: {url: {}}\n",
    ],
)
def test_settings_that_are_wrong_themselves_are_told(shell: Shell, site: Site, settings: str) -> None:
    """Nobody answers: every error of the config, exit 2, no traceback."""
    site.config.write_text(site.config.read_text() + settings)
    for command in ("status", "clock accept --reason why"):
        code, out, err = shell(*command.split())
        assert (code, out) == (2, "")
        assert err.startswith(f"rotator: {site.config}:")
