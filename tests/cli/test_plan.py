"""``rotator plan``: another config supposed, a key revoked in thought, and the picture."""

import json
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from rotator.cli import main
from rotator.schemas import load
from tests.cli.conftest import Shell
from tests.e2e.world import Site


def changed(site: Site, path: Path) -> Path:
    """Write a config that rotates keys every 60 days and has another workspace."""
    text = site.config.read_text()
    assert "90d" in text
    path.write_text(text.replace("90d", "60d").replace("w1", "w9"))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_changed_config_beside_the_one_in_force(
    started: Shell, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the same state, so that nothing else has to be said."""
    new = changed(site, site.config.with_name("new.yaml"))
    code, out, err = run(capsys, "plan", "--config", str(new))
    assert (code, err) == (0, "")
    assert out.startswith(f"what {new} changes\nit would be refused: the config drops 1 of 2 workspaces")
    assert "keyset default  has other deadlines; next activation 20" in out
    assert "workspaces      1 becomes due within the hour\n" in out
    assert "w1         removed" in out
    assert "w9         new" in out
    document = json.loads(run(capsys, "plan", "--config", str(new), "--json")[1])
    jsonschema.validate(document, load("plan"), format_checker=jsonschema.FormatChecker())
    assert document["changes"]["workspace_counts"] == {"due": 1, "new": 1, "removed": 1}
    code, out, _ = run(capsys, "plan", "--config", str(site.config))
    assert code == 0
    assert out.startswith("AT "), "what is in force changes nothing"


@pytest.mark.parametrize("way", ["option", "environment"])
def test_a_changed_config_elsewhere(
    started: Shell,
    site: Site,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """Its own state does not exist, so that the installation is the one that is named otherwise."""
    (tmp_path / "elsewhere").mkdir()
    new = changed(site, tmp_path / "elsewhere" / "new.yaml")
    text = "".join(line for line in new.read_text().splitlines(keepends=True) if not line.startswith("state:"))
    new.write_text(text)
    before = ["--config", str(site.config)] if way == "option" else []
    if way == "environment":
        monkeypatch.setenv("ROTATOR_CONFIG", str(site.config))
    code, out, err = run(capsys, *before, "plan", "--config", str(new))
    assert (code, err) == (0, "")
    assert out.startswith(f"what {new} changes")
    code, _, err = run(capsys, *before, "plan", "--config", str(new), "--what-if", "rotate:default")
    assert code == 2
    assert "one thing is supposed at a time" in err


def test_a_broken_config_is_told_with_its_line(started: Shell, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    new = site.config.with_name("new.yaml")
    new.write_text(site.config.read_text() + "surprise: 1\n")
    code, _, err = run(capsys, "plan", "--config", str(new))
    assert code == 2
    assert f"{new}:" in err
    assert "surprise" in err


def test_a_daemon_tells_what_would_be(daemon: Shell) -> None:
    """And nothing of it happens."""
    before = daemon("keys", "list", "--json")[1]
    (active,) = (key["kid"] for key in json.loads(before)["keys"] if key["phase"] == "active")
    code, out, _ = daemon("plan", "--what-if", f"revoke:{active[:10]}")
    assert code == 0
    assert out.startswith(
        f"what revoke:{active[:10]} changes\n  keyset default  has other deadlines; next activation at"
    )
    assert "2 get a new token before their time" in out
    assert daemon("keys", "list", "--json")[1] == before
    code, _, err = daemon("plan", "--what-if", "revoke:nobody")
    assert code == 1
    assert "`rotator keys list` names them" in err


def test_whoever_may_not_read_the_state_is_not_told_that_nothing_changes(
    daemon: Shell, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    """The daemon is asked, and it is said that its answer is not about the config that was named."""
    new = changed(site, site.config.with_name("new.yaml"))
    site.state.chmod(0o755)  # a command refuses to read it like that, as it would another user's
    code, out, err = run(capsys, "plan", "--config", str(new))
    site.state.chmod(0o700)
    assert (code, out[:3]) == (0, "AT ")
    assert err.startswith(f"rotator: this is what is in force; {new} could not be held against it: ")
    assert run(capsys, "plan", "--config", str(new))[1].startswith(f"what {new} changes")


def test_the_picture_is_written_whole(started: Shell, tmp_path: Path) -> None:
    """Over an older one, and nothing is left beside it."""
    path = tmp_path / "pictures" / "plan.svg"
    path.parent.mkdir()
    path.write_text("old")
    code, out, err = started("plan", "--for", "200d", "--svg", str(path))
    assert (code, err) == (0, "")
    assert out.endswith(f"drawn: {path}\n")
    assert ElementTree.fromstring(path.read_text()).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - our own
    assert [each.name for each in path.parent.iterdir()] == ["plan.svg"]
    assert json.loads(started("plan", "--svg", str(path), "--json")[1])["keys"]
    code, _, err = started("plan", "--svg", str(tmp_path / "none" / "plan.svg"))
    assert code == 1
    assert "plan.svg cannot be written: No such file or directory" in err


def test_the_plan_has_the_size_of_each_file(started: Shell) -> None:
    out = started("plan", "--for", "200d")[1]
    _, _, sizes = out.partition("PUBLISHED SET")
    assert "keysets/default/jwks.json" in sizes
    assert max(len(line) for line in out.splitlines() if "WHY" not in line and "stays published" not in line) <= 130
