"""The service as it is installed: the real unit on a real systemd, in a container.

Takes a minute and root, so it is run on demand: ``pytest -m container``. The Debian tree is made by debootstrap, or
copied from ``$ROTATOR_TEST_TREE``, made with ``--variant=minbase --include=dbus,python3,systemd-sysv``.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.container

ROOT = Path(__file__).parent.parent.parent

PROGRAM = """\
#!/usr/bin/python3
import sys
sys.path.insert(0, "/opt/rotator/lib")
from rotator.cli import main
sys.exit(main())
"""

CONFIG = """\
issuer: https://tokens.example.com
state:   {url: sqlite:////var/lib/rotator/rotator.db}
publish: {directory: /srv/rotator/public}
control: {socket: /run/rotator/control.sock, viewers: [acme]}
workspaces:
  acme:
    security_period: 8d
    deliver:
      - file: {path: /run/rotator-tokens/acme/token, mode: "0640"}
      - command: {run: [/usr/bin/tee, /var/lib/rotator/pushed]}
"""

PEOPLE = """\
g acme -
u ann - "reads the token of acme"
m ann acme
"""

ASK = """\
#!/bin/bash
# Runs in the container, once the service was started or failed: writes what it finds as lines of NAME<tab>VALUE.
exec 2>&1 > /results/out
say() { printf '%s\\t%s\\n' "$1" "$2"; }
show() { systemctl show rotator -P "$1"; }
until_active() { for _ in $(seq 150); do [ "$(show SubState)" = running ] && return; sleep 0.2; done; }
until_file() { for _ in $(seq 50); do [ -s "$1" ] && return; sleep 0.2; done; }
until_active
until_file /run/rotator-tokens/acme/token
say state "$(show ActiveState)"
say status "$(show StatusText)"
say exposure "$(systemd-analyze security --no-pager rotator | tail -n 1)"
say token "$(su ann -s /bin/sh -c 'cat /run/rotator-tokens/acme/token')"
say modes "$(stat -c '%n %a %U %G' /var/lib/rotator /var/lib/rotator/rotator.db /run/rotator-tokens/acme/token \
    /srv/rotator/public/.well-known/jwks.json | tr '\\n' ' ')"
say forbidden "$(su ann -s /bin/sh -c 'cat /var/lib/rotator/rotator.db /etc/rotator/kek 2>&1 >/dev/null | wc -l')"
say jwks "$(cat /srv/rotator/public/.well-known/jwks.json | tr -d '\\n')"
call() { su "$1" -s /bin/sh -c '/opt/rotator/bin/rotator keys list --json 2>&1; echo "exit $?"' | tr '\n' ' '; }
say root_calls "$(call root)"
say ann_calls "$(call ann)"
if [ "$1" = first ]; then
    systemctl reload rotator && say reloaded yes
    sed 's/issuer/isuer/' -i.good /etc/rotator/config.yaml
    systemctl reload rotator
    for _ in $(seq 50); do [[ "$(show StatusText)" = degraded* ]] && break; sleep 0.2; done
    say refused "$(show StatusText)"
    say still "$(show SubState)"
    mv /etc/rotator/config.yaml.good /etc/rotator/config.yaml
    systemctl kill --signal=KILL rotator
    for _ in $(seq 100); do [ "$(show NRestarts)" = 1 ] && break; sleep 0.2; done
    until_active
    say restarted "$(show NRestarts) $(show SubState) $(show StatusText)"
    say jwks_after "$(cat /srv/rotator/public/.well-known/jwks.json | tr -d '\\n')"
fi
if [ "$1" = second ]; then
    mkdir /etc/systemd/system/rotator.service.d
    cp /results/control-groups.conf /etc/systemd/system/rotator.service.d/
    systemctl daemon-reload
    systemctl restart rotator
    say ann_calls_then "$(call ann)"
fi
systemctl stop rotator
say stopped "$(show Result) $(show ExecMainStatus)"
say journal "$(journalctl -b -u rotator -o json --output-fields=ROTATOR_EVENT,MESSAGE_ID,MESSAGE | tr '\\n' ',')"
"""

CHECK = """\
[Unit]
After=multi-user.target rotator.service
[Service]
Type=oneshot
ExecStart=/results/ask {which}
ExecStopPost=/bin/systemctl poweroff --force
[Install]
WantedBy=graphical.target
"""


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=600)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the service as docs/systemd.md says, but for the virtual environment, which is this one's packages."""
    tree = tmp_path_factory.mktemp("container") / "tree"
    prepared = os.environ.get("ROTATOR_TEST_TREE")
    if prepared:
        run("cp", "-a", prepared, tree)
    else:
        run("debootstrap", "--variant=minbase", "--include=dbus,python3,systemd-sysv", "bookworm", tree)
    library = tree / "opt/rotator/lib"
    shutil.copytree(sysconfig.get_path("purelib"), library, ignore=shutil.ignore_patterns("__pycache__", "pgserver*"))
    shutil.copytree(ROOT / "rotator", library / "rotator", dirs_exist_ok=True)
    units = tree / "etc/systemd/system"
    for path, content in {
        tree / "opt/rotator/bin/rotator": PROGRAM,
        tree / "etc/rotator/config.yaml": CONFIG,
        tree / "etc/sysusers.d/people.conf": PEOPLE,
        tree / "etc/tmpfiles.d/tokens.conf": "d /run/rotator-tokens/acme 2750 rotator acme -\n",
        tree / "results/ask": ASK,
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o755)
    for name, place in {
        "rotator.service": units / "rotator.service",
        "rotator.sysusers.conf": tree / "etc/sysusers.d/rotator.conf",
        "rotator.tmpfiles.conf": tree / "etc/tmpfiles.d/rotator.conf",
        "control-groups.conf": tree / "results/control-groups.conf",
    }.items():
        shutil.copy(ROOT / "systemd" / name, place)
    kek = tree / "etc/rotator/kek"
    kek.touch(0o600)
    kek.write_text(f"k1 {'A' * 42}8\n")
    for wants, name in {"multi-user": "rotator", "graphical": "check"}.items():
        (units / f"{wants}.target.wants").mkdir(exist_ok=True)
        (units / f"{wants}.target.wants/{name}.service").symlink_to(f"/etc/systemd/system/{name}.service")
    (units / "default.target").symlink_to("/lib/systemd/system/graphical.target")
    return tree


def boot(tree: Path, which: str) -> dict[str, str]:
    """Boot the tree, ask it, and return what was found when it is off again."""
    (tree / "etc/systemd/system/check.service").write_text(CHECK.format(which=which))
    run("systemd-nspawn", "--boot", "--register=no", "--keep-unit", "--quiet", "-D", tree)
    return dict(line.split("\t", 1) for line in (tree / "results/out").read_text().splitlines() if "\t" in line)


@pytest.fixture(scope="module")
def boots(tree: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Boot twice, as a machine does on whose disk everything stays but ``/run``."""
    assert sys.version_info[:2] == (3, 11), "the packages are copied into a Debian 12, whose Python is 3.11"
    return boot(tree, "first"), boot(tree, "second")


Boots = tuple[dict[str, str], dict[str, str]]


def test_it_is_ready_once_keys_are_published_and_tokens_issued(boots: Boots) -> None:
    first, _ = boots
    assert first["state"] == "active"
    assert "1 workspaces on 1 signing keysets" in first["status"]
    assert len(json.loads(first["jwks"])["keys"]) == 2
    assert first["token"].count(".") == 2


def test_it_runs_with_the_whole_set_of_restrictions(boots: Boots) -> None:
    assert "exposure level for rotator.service: 0.2" in boots[0]["exposure"]


def test_only_those_who_should_can_read_what_it_writes(boots: Boots) -> None:
    first, _ = boots
    assert first["modes"].strip().split(" /") == [
        "/var/lib/rotator 700 rotator rotator",
        "var/lib/rotator/rotator.db 600 rotator rotator",
        "run/rotator-tokens/acme/token 640 rotator acme",
        "srv/rotator/public/.well-known/jwks.json 644 rotator rotator",
    ]
    assert first["forbidden"] == "2", "neither the state nor the key-encryption key"


def test_a_reload_takes_a_good_config_and_leaves_a_bad_one(boots: Boots) -> None:
    first, _ = boots
    assert first["reloaded"] == "yes"
    assert "issuer: is missing" in first["refused"]
    assert first["still"] == "running"


def test_a_group_has_its_role_only_with_the_drop_in_that_lets_the_daemon_see_it(boots: Boots) -> None:
    """The kernel shows a service with PrivateUsers=yes every caller but root as nobody."""
    first, second = boots
    assert '"phase": "active"' in first["root_calls"]
    assert first["root_calls"].endswith("exit 0 ")
    assert '"phase"' not in first["ann_calls"]
    assert not first["ann_calls"].endswith("exit 0 ")
    assert '"phase": "active"' in second["ann_calls_then"]
    assert second["ann_calls_then"].endswith("exit 0 ")


def test_killed_it_comes_back_and_changes_nothing(boots: Boots) -> None:
    first, _ = boots
    assert first["restarted"].startswith("1 running 1 workspaces on 1 signing keysets")
    assert first["jwks_after"] == first["jwks"]


def test_it_stops_cleanly(boots: Boots) -> None:
    assert [found["stopped"] for found in boots] == ["success 0", "success 0"]


def test_after_a_reboot_the_same_token_is_back_in_the_empty_directory(boots: Boots) -> None:
    first, second = boots
    assert second["token"] == first["token"]
    assert second["jwks"] == first["jwks"]


def test_each_event_is_a_journal_entry_with_its_name_and_id_and_no_secret(boots: Boots) -> None:
    first, _ = boots
    entries = json.loads(f"[{first['journal'].rstrip(',')}]")
    ids = {entry["ROTATOR_EVENT"]: entry.get("MESSAGE_ID") for entry in entries if "ROTATOR_EVENT" in entry}
    assert {"daemon.ready", "key.activated", "token.issued", "config.refused", "daemon.stopping"} <= set(ids)
    assert all(ids.values())
    assert first["token"].rpartition(".")[2] not in first["journal"]
