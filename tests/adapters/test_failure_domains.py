"""What a sink hangs with is found in the table of mounts, and no path is touched."""

import os
from pathlib import Path

import pytest

from rotator.adapters.failure_domains import FailureDomains, file_system, mounts
from rotator.core.policy import CommandSink, FileSink

MOUNTINFO = rb"""21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
22 21 0:20 / /proc rw,nosuid shared:5 - proc proc rw
23 21 0:21 / /run rw,nosuid,nodev shared:2 - tmpfs tmpfs rw,size=803520k
24 23 0:45 /exports/a /run/tokens rw,relatime - nfs4 server:/exports rw,hard,addr=10.0.0.1
25 21 0:46 / /mnt/with\040space\134and\011tab rw - ext4 /dev/vdb rw
26 21 254:0 /var/lib /srv/bound rw,relatime - ext4 /dev/vda rw
27 21 0:47 / /mnt/caf\303\251 rw - ext4 /dev/vdc rw
28 21 0:48 / /mnt/twice rw - nfs old:/ rw
29 21 0:49 / /mnt/twice rw - nfs new:/ rw
30 21 0:50 / /mnt/\777odd rw - tmpfs tmpfs rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "domain"),
    [
        ("/token", "filesystem:/#254:0"),
        ("/etc/acme/token", "filesystem:/#254:0"),
        ("/run/acme/token", "filesystem:/run#0:21"),
        ("/run/tokens/acme/token", "filesystem:/run/tokens#0:45"),
        ("/run/tokens", "filesystem:/run/tokens#0:45"),
        ("/run/tokens-of-others/token", "filesystem:/run#0:21"),
        ("/runaway/token", "filesystem:/#254:0"),
        ("//run//tokens/./x/../token", "filesystem:/run/tokens#0:45"),
        ("/run/tokens/../token", "filesystem:/run#0:21"),
        ("/mnt/with space\\and\ttab/token", "filesystem:/mnt/with space\\and\ttab#0:46"),
        ("/mnt/café/token", "filesystem:/mnt/café#0:47"),
        ("/srv/bound/acme/token", "filesystem:/#254:0"),
        ("/mnt/twice/token", "filesystem:/mnt/twice#0:49"),
        ("token", "filesystem:/#254:0"),
        ("run/token", "filesystem:/run#0:21"),
        ("", "filesystem:/#254:0"),
    ],
)
def test_a_path_lies_on_the_file_system_of_the_longest_mount_point_above_it(path: str, domain: str) -> None:
    """A bind mount is the file system that it shows; of two mounts at one place the later one is on top."""
    assert file_system(path, mounts(MOUNTINFO)) == domain


@pytest.mark.parametrize("text", [b"", b"\n", b"1 2 3"])
def test_without_a_table_all_files_are_one_domain(text: bytes) -> None:
    assert file_system("/run/token", mounts(text)) == "filesystem:/"


def test_a_table_that_cannot_be_read_makes_one_domain_of_all_files() -> None:
    def unreadable() -> bytes:
        raise PermissionError

    domains = FailureDomains(unreadable)
    domains.look()
    assert domains.of(FileSink("/run/token")) == domains.of(FileSink("/mnt/token")) == "filesystem:/"


def test_each_look_sees_the_mounts_of_then() -> None:
    table = [MOUNTINFO]
    domains = FailureDomains(lambda: table[0])
    domains.look()
    assert domains.of(FileSink("/run/tokens/token")) == "filesystem:/run/tokens#0:45"
    table[0] = MOUNTINFO.splitlines()[0]
    domains.look()
    assert domains.of(FileSink("/run/tokens/token")) == "filesystem:/#254:0"


def test_a_command_hangs_with_its_program_whatever_its_arguments() -> None:
    domains = FailureDomains()
    assert domains.of(CommandSink(("/bin/push", "acme"))) == domains.of(CommandSink(("/bin/push", "umbrella")))
    assert domains.of(CommandSink(("/bin/push",))) == "command:/bin/push"


def test_the_real_table_names_the_real_file_systems(tmp_path: Path) -> None:
    domains = FailureDomains()
    domains.look()
    assert domains.of(FileSink("/proc/token")) != domains.of(FileSink("/token"))
    number = tmp_path.stat().st_dev
    device = f"#{os.major(number)}:{os.minor(number)}"
    assert domains.of(FileSink(str(tmp_path / "token"))).endswith(device)
