"""`rotator kek generate`: makes the key that the config names, and replaces none."""

import json
import stat
from pathlib import Path

import jsonschema
import pytest

from rotator.adapters.kek import read_ring_file
from rotator.beginning import OF_THE_UNIT, generate_kek
from rotator.cli.screen import Screen
from rotator.cli.starting import show_kek
from rotator.schemas import load
from tests.cli.conftest import Shell
from tests.e2e.world import Site


@pytest.fixture
def named(site: Site) -> Path:
    """Have the config name a file for the KEK that is not there."""
    site.config.write_text(site.config.read_text() + "kek: {file: keys/kek}\n")
    (site.config.parent / "keys").mkdir()
    return site.config.parent / "keys" / "kek"


def test_a_first_start_without_it_says_how_to_make_it_and_then_goes(shell: Shell, named: Path) -> None:
    """As `check` does, whose next step it is."""
    code, out, err = shell("run", "--once")
    assert code == 3
    assert f"make one: rotator kek generate {named}" in out + err
    assert "put the one back" not in out + err
    assert f"    rotator kek generate {named}\n" in shell("check")[1]
    code, out, _ = shell("kek", "generate")
    assert (code, out.splitlines()[0]) == (0, f"wrote {named}, mode 0600")
    assert f"    rotator --config {shell.config} check\n" in out
    assert "name it in the config" not in out
    assert stat.S_IMODE(named.stat().st_mode) == 0o600
    assert shell("check")[0] == shell("run", "--once")[0] == 0


def test_a_state_that_was_sealed_needs_the_one_that_sealed_it(shell: Shell, named: Path) -> None:
    shell("kek", "generate")
    assert shell("run", "--once")[0] == 0
    named.unlink()
    assert "put the one back that this state was sealed with" in shell("run", "--once")[1]
    assert "kek generate" not in shell("check")[1]


def test_it_is_never_replaced(shell: Shell, named: Path) -> None:
    assert shell("kek", "generate")[0] == 0
    before = named.read_bytes()
    code, _, err = shell("kek", "generate")
    assert (code, "is there already; a KEK is never replaced" in err) == (1, True)
    assert named.read_bytes() == before


def test_in_a_file_of_ones_own_it_is_said_how_it_is_used(shell: Shell, tmp_path: Path) -> None:
    code, out, _ = shell("kek", "generate", str(tmp_path / "new"))
    assert (code, f'    kek: {{file: "{tmp_path}/new"}}\n' in out) == (0, True)
    assert len(read_ring_file(tmp_path / "new").keys) == 1


def test_where_the_config_is_not_sound_a_named_file_can_be_made(shell: Shell, site: Site, tmp_path: Path) -> None:
    site.config.write_text("nonsense: [")
    assert shell("kek", "generate")[0] == 2
    assert shell("kek", "generate", str(tmp_path / "new"))[0] == 0


def test_where_the_config_names_none_the_place_is_told(
    shell: Shell, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = shell("kek", "generate")
    assert (code, f"the first start makes one in {site.state}/kek by itself" in err) == (1, True)
    assert "Of the unit of systemd that is /etc/rotator/kek" in err
    monkeypatch.setenv("ROTATOR_KEK", "x")
    code, _, err = shell("kek", "generate")
    assert (code, "given by $ROTATOR_KEK" in err) == (1, True)


def test_a_directory_that_is_not_there_is_told(shell: Shell, tmp_path: Path) -> None:
    code, _, err = shell("kek", "generate", str(tmp_path / "none" / "kek"))
    assert (code, "No such file or directory: create the directory" in err) == (1, True)


def test_for_programs(shell: Shell, named: Path) -> None:
    found = json.loads(shell("kek", "generate", "--json")[1])
    jsonschema.validate(found, load("kek-generate"))
    assert found == {
        "kek": str(named),
        "id": read_ring_file(named).first,
        "named": True,
        "next": [f"rotator --config {shell.config} check"],
    }


def test_the_file_of_the_unit_is_looked_at_as_its_credential(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("rotator.beginning.OF_THE_UNIT", tmp_path / "kek")
    done = generate_kek(tmp_path / "kek", OF_THE_UNIT.with_name("config.yaml"), None)
    show_kek(Screen.of(), done)
    assert f"    CREDENTIALS_DIRECTORY={tmp_path} rotator check\n" in capsys.readouterr().out
