"""File sinks against real files."""

import json
import os
import resource
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from rotator.adapters.disk import REAL_DISK
from rotator.adapters.sinks import SinkCourier
from rotator.core.model import Jti, Kid, WorkspaceId
from rotator.core.policy import CommandSink, FileSink, Sink
from rotator.core.secret import Secret
from rotator.core.sinks import sink_id
from rotator.errors import DeliveryError
from rotator.ports import Courier, Parcel
from tests.errands import deliver, helpers_are_gone, holds

_: type[Courier] = SinkCourier

PARCEL = Parcel(
    workspace=WorkspaceId("acme"),
    jti=Jti("jti-1"),
    kid=Kid("kid-1"),
    sequence=7,
    issued_at=datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
    expires_at=datetime(2026, 2, 1, 12, 30, tzinfo=UTC),
    token=Secret("aaa.bbb.ccc"),
)


@pytest.fixture
def courier(tmp_path: Path) -> Iterator[SinkCourier]:
    for name in ("state", "public"):
        (tmp_path / name).mkdir()
    made = SinkCourier((tmp_path / "state", tmp_path / "public"), _no_output)
    yield made
    made.cancel()
    helpers_are_gone()


def _no_output(workspace: WorkspaceId, text: str) -> None:
    raise AssertionError


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may enter a directory that nobody may")


@pytest.mark.parametrize("umask", [0o000, 0o077, pytest.param(0o777, marks=only_root)])
def test_file_and_missing_directories_get_their_modes_whatever_the_umask(
    courier: SinkCourier, tmp_path: Path, umask: int
) -> None:
    path = tmp_path / "run" / "acme" / "token"
    before = os.umask(umask)
    try:
        deliver(courier, FileSink(str(path), mode=0o640), PARCEL)
    finally:
        os.umask(before)
    assert path.read_text() == "aaa.bbb.ccc\n"
    assert (mode_of(path), mode_of(path.parent), mode_of(path.parent.parent)) == (0o640, 0o750, 0o750)


def test_json_holds_the_token_and_what_is_known_of_it(courier: SinkCourier, tmp_path: Path) -> None:
    path = tmp_path / "token.json"
    deliver(courier, FileSink(str(path), format="json"), PARCEL)
    assert json.loads(path.read_text()) == {
        "token": "aaa.bbb.ccc",
        "workspace": "acme",
        "jti": "jti-1",
        "kid": "kid-1",
        "issued_at": "2026-01-01T00:00:00Z",
        "expires_at": "2026-02-01T12:30:00Z",
        "sequence": 7,
    }


def test_env_can_be_sourced_by_a_shell_whatever_the_values_are(courier: SinkCourier, tmp_path: Path) -> None:
    path = tmp_path / "token.env"
    deliver(courier, FileSink(str(path), format="env"), replace(PARCEL, jti=Jti("$(id) 'x")))
    shown = subprocess.run(
        ["/bin/sh", "-c", f'. {path}; printf "%s|" "$TOKEN" "$TOKEN_EXPIRES_AT" "$TOKEN_JTI"'],
        check=True,
        capture_output=True,
        text=True,
    )
    assert shown.stdout == "aaa.bbb.ccc|2026-02-01T12:30:00Z|$(id) 'x|"


def test_an_unknown_format_writes_nothing(courier: SinkCourier, tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match="use raw, json or env"):
        deliver(courier, FileSink(str(tmp_path / "token"), format="xml"), PARCEL)
    assert not (tmp_path / "token").exists()


@pytest.mark.parametrize("file_format", ["raw", "json", "env"])
def test_a_file_holds_its_parcel_until_content_mode_or_kind_change(
    courier: SinkCourier, tmp_path: Path, file_format: str
) -> None:
    path = tmp_path / "token"
    sink = FileSink(str(path), format=file_format)
    assert not holds(courier, sink, PARCEL)
    deliver(courier, sink, PARCEL)
    assert holds(courier, sink, PARCEL)
    assert not holds(courier, sink, replace(PARCEL, jti=Jti("2"), token=Secret("aaa.bbb.ddd")))
    assert not holds(courier, replace(sink, mode=0o600), PARCEL)
    with path.open("a") as file:
        file.write("x")
    assert not holds(courier, sink, PARCEL)
    deliver(courier, sink, PARCEL)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert not holds(courier, sink, PARCEL)
    path.unlink()
    os.mkfifo(path)
    assert not holds(courier, sink, PARCEL)


def test_a_later_token_replaces_the_earlier_one_in_one_step(courier: SinkCourier, tmp_path: Path) -> None:
    """A reader with the old file open goes on reading the old token."""
    path = tmp_path / "token"
    deliver(courier, FileSink(str(path)), PARCEL)
    with path.open() as old:
        deliver(courier, FileSink(str(path)), replace(PARCEL, token=Secret("new")))
        assert old.read() == "aaa.bbb.ccc\n"
    assert path.read_text() == "new\n"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["public", "state", "token"]


def test_existing_directories_keep_their_mode(courier: SinkCourier, tmp_path: Path) -> None:
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o2775)
    deliver(courier, FileSink(str(directory / "token")), PARCEL)
    assert mode_of(directory) == 0o2775


def test_a_symlink_at_the_path_is_refused_and_left_alone(courier: SinkCourier, tmp_path: Path) -> None:
    (tmp_path / "token").symlink_to(tmp_path / "victim")
    with pytest.raises(DeliveryError, match="is a symlink"):
        deliver(courier, FileSink(str(tmp_path / "token")), PARCEL)
    assert not (tmp_path / "victim").exists()


def test_a_directory_or_a_fifo_at_the_path_is_refused(courier: SinkCourier, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for name in ("directory", "fifo"):
        with pytest.raises(DeliveryError, match="not a regular file"):
            deliver(courier, FileSink(str(tmp_path / name)), PARCEL)


@pytest.mark.parametrize(
    "path", ["state/token", "public/.well-known/jwks.json", "elsewhere/../state/kek", "link/token"]
)
def test_a_path_in_the_state_or_published_directory_is_refused_and_nothing_created(
    courier: SinkCourier, tmp_path: Path, path: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "state")
    with pytest.raises(DeliveryError, match="which is rotator's own"):
        deliver(courier, FileSink(f"{tmp_path}/{path}"), PARCEL)
    assert not any((tmp_path / "state").iterdir())
    assert not any((tmp_path / "public").iterdir())


def test_a_link_to_a_file_of_ours_is_no_way_to_replace_it(tmp_path: Path) -> None:
    """The config already refuses its name; this is another way to it."""
    ours = tmp_path / "etc" / "kek"
    ours.parent.mkdir()
    ours.write_text("the key")
    (tmp_path / "link").symlink_to(ours.parent)
    courier = SinkCourier([ours], lambda *_: None, disk=REAL_DISK)
    with pytest.raises(DeliveryError, match=f"kek is {ours}, which is rotator's own"):
        deliver(courier, FileSink(f"{tmp_path}/link/kek"), PARCEL)
    assert ours.read_text() == "the key"
    deliver(courier, FileSink(f"{tmp_path}/link/kek.token"), PARCEL)


@pytest.mark.parametrize("path", ["token", "/", "/tmp/.."])
def test_a_path_that_names_no_file_is_refused(courier: SinkCourier, path: str) -> None:
    with pytest.raises(DeliveryError, match="absolute path of a file"):
        deliver(courier, FileSink(path), PARCEL)


def test_a_file_where_a_directory_should_be_is_said(courier: SinkCourier, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeliveryError, match=r"cannot write the token to .*/file/token: Not a directory"):
        deliver(courier, FileSink(str(tmp_path / "file" / "token")), PARCEL)


def test_a_full_disk_leaves_the_old_token_and_no_debris(courier: SinkCourier, tmp_path: Path) -> None:
    path = tmp_path / "token"
    deliver(courier, FileSink(str(path)), PARCEL)
    courier.cancel()
    limited, before = SinkCourier((), _no_output), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, before[1]))  # as a full disk: the write stops half-way
    try:
        with pytest.raises(DeliveryError, match="File too large: raise the limit") as caught:
            deliver(limited, FileSink(str(path)), replace(PARCEL, token=Secret("a-longer-token")))
    finally:
        limited.cancel()
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "a-longer-token" not in str(caught.value)
    assert path.read_text() == "aaa.bbb.ccc\n"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["public", "state", "token"]


@pytest.mark.parametrize(
    ("sink", "expected"),
    [
        (FileSink("/run/rotator/acme/token"), "file:/run/rotator/acme/token"),
        (FileSink("/run/rotator/acme/token", mode=0o600, format="env"), "file:/run/rotator/acme/token"),
        (CommandSink(("/usr/local/bin/push-token", "acme")), "command:/usr/local/bin/push-token#cc876995"),
        (
            CommandSink(("/usr/local/bin/push-token", "acme"), timedelta(1)),
            "command:/usr/local/bin/push-token#cc876995",
        ),
    ],
)
def test_a_sink_has_a_lasting_name(sink: Sink, expected: str) -> None:
    assert sink_id(sink) == expected


def test_other_arguments_make_another_sink() -> None:
    commands = [("/x", "a", "b"), ("/x", "a b"), ("/x", "ab"), ("/x", "a", "b", ""), ("/x", "\udcff")]
    assert len({sink_id(CommandSink(run)) for run in commands}) == len(commands)
