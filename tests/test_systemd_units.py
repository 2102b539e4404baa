import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from rotator.adapters.clock import BOOT_ID_VARIABLE

ROOT = Path(__file__).parent.parent
UNITS = ROOT / "systemd"


def settings(name: str = "rotator.service") -> dict[str, list[str]]:
    """Return every value of every setting of a unit or drop-in."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", (UNITS / name).read_text(), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


def exposure(tmp_path: Path, *drop_ins: str) -> float:
    """Return how exposed the service is, from 0 to 10, with ``drop_ins``."""
    unit = tmp_path / "rotator.service"
    unit.write_bytes((UNITS / "rotator.service").read_bytes())
    directory = tmp_path / "rotator.service.d"
    directory.mkdir()
    for name in drop_ins:
        (directory / name).write_bytes((UNITS / name).read_bytes())
    shown = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    ).stdout
    found = re.search(r"exposure level for rotator.service: ([0-9.]+)", shown)
    assert found is not None, shown
    return float(found[1])


@pytest.mark.parametrize(
    ("drop_ins", "limit"),
    [
        ([], 0.2),
        (["control-groups.conf"], 0.4),
        (["network-sinks.conf"], 1.0),
        (["control-groups.conf", "network-sinks.conf"], 1.2),
    ],
)
def test_the_service_is_exposed_no_more_than_its_files_say(tmp_path: Path, drop_ins: list[str], limit: float) -> None:
    assert exposure(tmp_path, *drop_ins) <= limit


@pytest.mark.parametrize(("name", "said"), [("control-groups.conf", "0.4"), ("network-sinks.conf", "1.0")])
def test_each_drop_in_says_how_exposed_it_leaves_the_service(tmp_path: Path, name: str, said: str) -> None:
    assert f"Exposure: {said}." in (UNITS / name).read_text()
    assert float(said) == exposure(tmp_path, name)


@pytest.mark.parametrize("drop_ins", [[], ["control-groups.conf", "network-sinks.conf"]])
def test_systemd_has_nothing_to_say_against_the_unit(tmp_path: Path, drop_ins: list[str]) -> None:
    """But for the program, which is not installed here."""
    unit = (UNITS / "rotator.service").read_text().replace("/opt/rotator/bin/rotator", "/bin/true")
    for name in drop_ins:
        unit += (UNITS / name).read_text()
    (tmp_path / "rotator.service").write_text(unit)
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "rotator.service"],
        capture_output=True,
        check=False,
        text=True,
    )
    assert [line for line in verified.stderr.splitlines() if "rotator" in line] == []


def test_the_service_starts_again_whatever_it_died_of_and_never_gives_up() -> None:
    assert settings()["Restart"] == ["always"]
    assert settings()["StartLimitIntervalSec"] == ["0"]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("WatchdogSec", "60"),
        ("LimitCORE", "0"),
        ("UMask", "0077"),
        ("User", "rotator"),
        ("StateDirectory", "rotator"),
        ("StateDirectoryMode", "0700"),
        ("RuntimeDirectory", "rotator"),
        ("LoadCredential", "kek:/etc/rotator/kek"),
        ("ExecStart", "/opt/rotator/bin/rotator run --config /etc/rotator/config.yaml"),
        ("LogRateLimitIntervalSec", "0"),
    ],
)
def test_the_unit_gives_the_daemon_what_it_looks_for(setting: str, expected: str) -> None:
    assert settings()[setting] == [expected]


def test_the_boot_id_is_told_where_proc_is_hidden() -> None:
    assert settings()["ProcSubset"] == ["pid"]
    assert f"{BOOT_ID_VARIABLE}=%b" in settings()["Environment"]


def test_nothing_that_the_unit_filters_is_allowed_again_but_the_network() -> None:
    """A drop-in that someone adds for one need must not open another."""
    assert set(settings("control-groups.conf")) == {"PrivateUsers"}
    assert set(settings("network-sinks.conf")) == {
        *("After", "Wants"),
        *("PrivateNetwork", "RestrictAddressFamilies", "IPAddressAllow"),
    }


def test_the_user_of_the_service_can_be_made(tmp_path: Path) -> None:
    """systemd-sysusers reads it, in a tree of its own."""
    (tmp_path / "etc").mkdir()
    subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", UNITS / "rotator.sysusers.conf"], capture_output=True, check=True
    )
    user = next(line for line in (tmp_path / "etc/passwd").read_text().splitlines() if line.startswith("rotator:"))
    assert user.endswith(":/var/lib/rotator:/usr/sbin/nologin")
    assert settings()["User"] == settings()["Group"] == ["rotator"]


def test_every_directory_that_the_unit_writes_to_is_made_and_belongs_to_its_user() -> None:
    lines = [line.split() for line in (UNITS / "rotator.tmpfiles.conf").read_text().splitlines() if line[:1] == "d"]
    made = {path: (mode, user, group) for _, path, mode, user, group, _ in lines}
    for path in settings()["ReadWritePaths"][0].split():
        assert made[path] == ("0755", "rotator", "rotator")
    assert made["/srv/rotator/public"] == ("0755", "rotator", "rotator")
    assert made["/etc/rotator"] == ("0755", "root", "root")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories to another user")
def test_systemd_makes_the_directories(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for command, name in (("systemd-sysusers", "sysusers"), ("systemd-tmpfiles", "tmpfiles")):
        create = ["--create"] if name == "tmpfiles" else []
        subprocess.run(
            [command, *create, f"--root={tmp_path}", UNITS / f"rotator.{name}.conf"], capture_output=True, check=True
        )
    owners = {
        path: (oct((tmp_path / path).stat().st_mode & 0o7777), (tmp_path / path).stat().st_uid == 0)
        for path in ("srv/rotator/public", "run/rotator-tokens", "etc/rotator")
    }
    assert owners == {
        "srv/rotator/public": ("0o755", False),
        "run/rotator-tokens": ("0o755", False),
        "etc/rotator": ("0o755", True),
    }


def test_the_package_brings_every_file_of_the_service() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    shared = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    for path in [*UNITS.iterdir(), ROOT / "docs/systemd.md", ROOT / "docs/events.md"]:
        assert shared[str(path.relative_to(ROOT))].endswith(path.name)
    documentation = re.search(r"Documentation=file:///opt/rotator/(\S+)", (UNITS / "rotator.service").read_text())
    assert documentation is not None
    assert documentation[1] in shared.values()


def test_the_guide_names_files_and_figures_as_they_are() -> None:
    guide = (ROOT / "docs/systemd.md").read_text()
    for path in UNITS.iterdir():
        assert path.name in guide
    for drop_in, said in (("network-sinks.conf", "1.0"), ("control-groups.conf", "0.4")):
        assert re.search(rf"\| `{drop_in}` \|.*\| {said} \|", guide)
