"""The service as README.md tells to install it, on a real systemd.

A Debian tree is booted in a container; the shell blocks of README.md are run in it, word for word, in a copy of
this checkout, with the wheels of its dependencies at hand and no network. The tests look at the one machine in the
order in which they stand here. Takes about a minute and root, so it is run on demand: ``pytest -m container``.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.container import Container
from tests.e2e.debian import debian_tree
from tests.readme import ROOT, block_with

pytestmark = pytest.mark.container

BUILT_WITH: Final[list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
GUIDE: Final = ROOT / "docs" / "systemd.md"
MANY: Final = 2_500
"""More workspaces than it takes for the daemon to sign in a process of its own."""

SIGNING_SECONDS: Final = 0.03
"""Less than it takes to sign a batch of so many, and more than it takes to wait for one."""

WORKSPACES: Final = """\
workspaces:
  acme:
    audience: [api]
    security_period: 8d
    deliver:
      - file: {path: /run/rotator-tokens/acme/token, mode: "0640"}
      - command: {run: [/usr/bin/tee, /var/lib/rotator/pushed]}
  initech:
    audience: [api]
"""

EDITOR: Final = """\
#!/bin/sh
# What a person does in the editor: the file becomes what they wanted.
cat /srv/wanted.yaml > "$1"
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the wheel of this checkout, unless ``$TEST_WHEEL`` is one, and get those that it needs on a Debian 12.

    Those are what it is built with, too: the guide installs from the checkout.
    """
    directory = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    made = os.environ.get("TEST_WHEEL")
    if made:
        shutil.copy(made, directory)
    else:
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", directory, ROOT], check=True, timeout=600)
    (wheel,) = directory.glob("*.whl")
    of_debian = ["--only-binary=:all:", "--python-version=3.11"]
    subprocess.run([*pip, "download", *of_debian, "--dest", directory, wheel, *BUILT_WITH], check=True, timeout=600)
    return directory


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Iterator[Container]:
    """Boot a new machine, and do on it what README.md tells."""
    directory = tmp_path_factory.mktemp("container")
    tree = directory / "tree"
    subprocess.run(["cp", "-a", "--reflink=auto", debian_tree(), tree], check=True, timeout=300)
    shutil.copytree(wheels, tree / "srv" / "wheels")
    copy_checkout(tree / "srv" / "checkout")
    (tree / "srv" / "wanted.yaml").write_text(f"{block_with('yaml', 'sqlite:////var/lib/rotator')}{WORKSPACES}")
    editor = tree / "usr" / "local" / "bin" / "editor"
    editor.write_text(EDITOR)
    editor.chmod(0o755)
    (tree / "usr" / "lib" / "sysusers.d" / "people.conf").write_text("g acme -\nu ann -\nm ann acme\n")
    (tree / "etc" / "tmpfiles.d" / "rotator-tokens.conf").write_text(f"{tmpfiles_line()}\n")
    container = Container(tree, directory / "console")
    with container.booted():
        install(container)
        yield container


def tmpfiles_line() -> str:
    """Return what docs/systemd.md says of the directory for a workspace's token."""
    (line,) = re.findall(r"^ +(d /run/rotator-tokens/acme .*)$", GUIDE.read_text(), re.MULTILINE)
    return str(line)


def copy_checkout(to: Path) -> None:
    """Copy what is under version control, as it stands."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, to / name)


def install(container: Container) -> None:
    container.tell(
        f"cd /srv/checkout\n{block_with('sh', 'python3 -m venv /opt/rotator')}",
        PIP_NO_INDEX="1",
        PIP_FIND_LINKS="/srv/wheels",
        PIP_QUIET="1",
    )
    container.tell("systemd-tmpfiles --create rotator-tokens.conf")
    container.tell(block_with("sh", "systemctl enable --now rotator"))


def active_tokens(machine: Container) -> dict[str, str]:
    """Return the id of each workspace's current token."""
    listed = machine.json("rotator tokens list --json")["tokens"]
    return {token["workspace"]: token["jti"] for token in listed if token["phase"] == "active"}


def published(machine: Container) -> str:
    return machine.tell("cat /srv/rotator/public/.well-known/jwks.json")


def journal(machine: Container, *matches: str) -> list[dict[str, Any]]:
    """Return the service's entries that have these fields."""
    lines = machine.tell(f"journalctl --unit=rotator --output=json --no-pager {' '.join(matches)}").splitlines()
    return [json.loads(line) for line in lines]


def test_it_is_ready_once_keys_are_published_and_tokens_issued(machine: Container) -> None:
    """`systemctl start` comes back then, for the unit is of the type notify."""
    assert (machine.unit("Type"), machine.unit("ActiveState"), machine.unit("SubState")) == (
        "notify",
        "active",
        "running",
    )
    assert "2 workspaces on 1 signing keyset" in machine.unit("StatusText")
    assert len(json.loads(published(machine))["keys"]) == 2
    assert machine.tell("cat /run/rotator-tokens/acme/token").count(".") == 2
    assert active_tokens(machine).keys() == {"acme", "initech"}


def test_it_runs_as_its_own_user_with_the_whole_set_of_restrictions(machine: Container) -> None:
    said = machine.tell("systemd-analyze security --no-pager rotator")
    exposure = re.search(r"exposure level for rotator\.service: (\d+\.\d+)", said)
    assert exposure is not None
    assert float(exposure[1]) <= 0.3, said
    status = machine.tell(f"cat /proc/{machine.unit('MainPID')}/status")
    user = machine.tell("id -u rotator")
    assert re.search(rf"^Uid:\s+{user}\s", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)


def test_the_kek_comes_as_a_credential(machine: Container) -> None:
    """The file is root's; the service has a copy that its own user alone can read, and none in its state."""
    assert machine.tell("stat --format='%a %U' /etc/rotator/kek") == "600 root"
    assert machine.run("cat /etc/rotator/kek", user="rotator").returncode != 0
    environment = machine.tell(f"tr '\\0' '\\n' < /proc/{machine.unit('MainPID')}/environ")
    assert "CREDENTIALS_DIRECTORY=/run/credentials/rotator.service" in environment.splitlines()
    assert "ROTATOR_KEK" not in environment
    secret = machine.tell("cut -d' ' -f2 /etc/rotator/kek")
    assert machine.run(f"grep --recursive --quiet '{secret}' /var/lib/rotator /srv/rotator").returncode == 1
    assert "kek" not in {problem["what"] for problem in machine.json("rotator status --json").get("problems", [])}


@pytest.mark.parametrize(
    "look",
    [
        "cat /var/lib/rotator/rotator.db",
        "cat /var/lib/rotator/witness.json",
        "cat /etc/rotator/kek",
        "ls /var/lib/rotator",
        "ls /run/credentials/rotator.service",
    ],
)
def test_the_web_servers_user_cannot_read_the_state(machine: Container, look: str) -> None:
    machine.tell(look)
    refused = machine.run(f"{look} 2>&1", user="www-data")
    assert refused.returncode != 0
    assert "Permission denied" in refused.stdout


def test_the_web_servers_user_can_read_what_is_published_and_no_token(machine: Container) -> None:
    assert machine.tell("cat /srv/rotator/public/.well-known/jwks.json", user="www-data") == published(machine)
    everything = "find /srv/rotator/public -type f -exec cat {} +"
    assert machine.tell(f"{everything} | wc -c", user="www-data") == machine.tell(f"{everything} | wc -c")
    assert machine.run("cat /run/rotator-tokens/acme/token", user="www-data").returncode != 0
    assert machine.run("touch /srv/rotator/public/mine", user="www-data").returncode != 0


def test_a_token_belongs_to_the_group_of_its_directory(machine: Container) -> None:
    token = "/run/rotator-tokens/acme/token"
    assert machine.tell(f"stat --format='%a %U %G' {token}") == "640 rotator acme"
    assert machine.tell(f"cat {token}", user="ann") == machine.tell(f"cat {token}")


def test_a_reload_takes_a_good_config_and_leaves_a_bad_one(machine: Container) -> None:
    before = active_tokens(machine)
    machine.tell("sed --in-place=.good 's/^issuer:/isuer:/' /etc/rotator/config.yaml; systemctl reload rotator")
    machine.wait_for(lambda: machine.unit("StatusText").startswith("degraded"), "the bad config is refused")
    refused = machine.unit("StatusText")
    machine.tell("mv /etc/rotator/config.yaml.good /etc/rotator/config.yaml")
    assert "issuer: is missing" in refused
    assert machine.unit("SubState") == "running"
    machine.tell("printf '  globex:\\n    audience: [api]\\n' >> /etc/rotator/config.yaml; systemctl reload rotator")
    machine.wait_for(lambda: "globex" in active_tokens(machine), "the new workspace has a token")
    assert active_tokens(machine).items() > before.items()
    assert machine.unit("NRestarts") == "0"


def test_large_batches_are_signed_in_a_process_of_its_own_inside_the_sandbox(machine: Container) -> None:
    """The sandbox lets the daemon start it; it has the same restrictions, and tokens come out of it."""
    (machine.tree / "etc" / "rotator" / "workspaces.d").mkdir()
    assert signing_processes(machine) == []
    add_workspaces(machine, "first")
    machine.tell("printf 'include: [workspaces.d/*.json]\\n' >> /etc/rotator/config.yaml; systemctl restart rotator")
    (child,) = machine.wait_for(lambda: signing_processes(machine), "the signing process")
    machine.wait_for(lambda: len(active_tokens(machine)) == MANY + 3, "every workspace has its token")
    assert re.search(r"^Seccomp:\s+2$", machine.tell(f"cat /proc/{child}/status"), re.MULTILINE)
    before = processor_seconds(machine, child)
    add_workspaces(machine, "second")
    machine.tell("systemctl reload rotator")
    machine.wait_for(lambda: len(active_tokens(machine)) == 2 * MANY + 3, "each of the new ones has its token")
    assert processor_seconds(machine, child) - before >= SIGNING_SECONDS
    assert signing_processes(machine) == [child]


def add_workspaces(machine: Container, name: str) -> None:
    workspaces = {f"{name}-{number}": {"audience": ["api"]} for number in range(MANY)}
    path = machine.tree / "etc" / "rotator" / "workspaces.d" / f"{name}.json"
    path.write_text(json.dumps({"workspaces": workspaces}))


def signing_processes(machine: Container) -> list[str]:
    found = machine.run("grep --files-with-matches --text 'rotator[.]adapters[.]minting' /proc/[0-9]*/cmdline")
    return [line.split("/")[2] for line in found.stdout.splitlines()]


def processor_seconds(machine: Container, process: str) -> float:
    fields = machine.tell(f"cat /proc/{process}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_killed_it_comes_back_with_nothing_lost(machine: Container) -> None:
    machine.tell(quickly())
    before = active_tokens(machine), published(machine), machine.tell("cat /run/rotator-tokens/acme/token")
    restarts = int(machine.unit("NRestarts"))
    machine.tell("systemctl kill --signal=KILL --kill-whom=main rotator")
    machine.wait_for(lambda: int(machine.unit("NRestarts")) == restarts + 1, "systemd starts it again")
    machine.wait_for(lambda: machine.unit("SubState") == "running", "it is ready again")
    assert before == (active_tokens(machine), published(machine), machine.tell("cat /run/rotator-tokens/acme/token"))
    assert machine.run("rotator audit verify").returncode == 0


def quickly() -> str:
    """Return how to make systemd wait for less than the unit tells it, by a drop-in that says nothing else."""
    return (
        "mkdir --parents /etc/systemd/system/rotator.service.d\n"
        "printf '[Service]\\nWatchdogSec=10\\nRestartSec=1\\n' > /etc/systemd/system/rotator.service.d/quick.conf\n"
        "systemctl daemon-reload && systemctl restart rotator"
    )


def test_frozen_it_is_found_by_the_watchdog_and_started_again(machine: Container) -> None:
    before = active_tokens(machine), published(machine)
    restarts = int(machine.unit("NRestarts"))
    machine.tell("systemctl kill --signal=STOP --kill-whom=main rotator")
    machine.wait_for(lambda: int(machine.unit("NRestarts")) > restarts, "the watchdog finds it")
    machine.wait_for(lambda: machine.unit("SubState") == "running", "it is ready again")
    assert "Watchdog timeout" in machine.tell("journalctl --unit=rotator --boot --no-pager --output=cat")
    assert before == (active_tokens(machine), published(machine))
    assert machine.run("rotator audit verify").returncode == 0


def test_a_group_has_its_role_only_with_the_drop_in_that_lets_the_daemon_see_it(machine: Container) -> None:
    """The kernel shows a service with PrivateUsers=yes every caller but root as nobody."""
    machine.tell("sed --in-place 's/^control: {/control: {viewers: [acme], /' /etc/rotator/config.yaml")
    machine.tell("systemctl restart rotator")
    assert '"kid"' not in machine.run("rotator keys list --json", user="ann").stdout
    machine.tell(block_with("sh", "control-groups.conf", GUIDE))
    assert '"kid"' in machine.tell("rotator keys list --json", user="ann")


def test_the_guides_way_to_work_on_a_stopped_daemon_works(machine: Container) -> None:
    assert "next" in machine.tell(block_with("sh", "run --once", GUIDE))
    assert machine.unit("SubState") == "running"


def test_events_are_journal_entries_with_fields_that_can_be_filtered_and_no_secret(machine: Container) -> None:
    token = machine.tell("cat /run/rotator-tokens/acme/token")
    everything = journal(machine)
    ids = {entry["ROTATOR_EVENT"]: entry.get("MESSAGE_ID") for entry in everything if "ROTATOR_EVENT" in entry}
    assert {"daemon.ready", "key.activated", "token.issued", "config.refused", "daemon.stopping"} <= ids.keys()
    assert all(ids.values())
    of_acme = journal(machine, "ROTATOR_WORKSPACE=acme")
    assert {entry["ROTATOR_WORKSPACE"] for entry in of_acme} == {"acme"}
    assert {"token.issued"} <= {entry["ROTATOR_EVENT"] for entry in of_acme}
    issued = journal(machine, "ROTATOR_EVENT=token.issued", "ROTATOR_WORKSPACE=acme")
    assert [entry["ROTATOR_JTI"] for entry in issued] == [active_tokens(machine)["acme"]]
    by_id = journal(machine, f"MESSAGE_ID={ids['config.refused']}")
    assert {entry["ROTATOR_EVENT"] for entry in by_id} == {"config.refused"}
    assert len(by_id) >= 1
    assert token.rpartition(".")[2] not in json.dumps(everything)


def test_it_stops_cleanly_and_a_reboot_brings_the_same_token_into_the_empty_directory(machine: Container) -> None:
    before = active_tokens(machine), published(machine), machine.tell("cat /run/rotator-tokens/acme/token")
    machine.tell("systemctl stop rotator")
    assert (machine.unit("Result"), machine.unit("ExecMainStatus"), machine.unit("ActiveState")) == (
        "success",
        "0",
        "inactive",
    )
    machine.reboot()
    token = "/run/rotator-tokens/acme/token"
    machine.wait_for(lambda: machine.run(f"test -s {token}").returncode == 0, "the token is back")
    machine.wait_for(lambda: machine.unit("SubState") == "running", "it is ready again")
    assert before == (active_tokens(machine), published(machine), machine.tell(f"cat {token}"))
