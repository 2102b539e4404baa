"""The published tree on a real file system."""

import errno
import hashlib
import json
import mmap
import os
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rotator.adapters.disk import OsDisk
from rotator.adapters.publish import TreePublisher, read_set
from rotator.core.jwks import jwks_uri, parse_kids, parse_set, render
from rotator.core.model import DEFAULT_KEYSET, Algorithm, KeysetName, Kid
from rotator.core.policy import KeysetPolicy
from rotator.errors import PublishError
from rotator.ports import Publication, Publisher
from tests.another_user import as_nobody

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OTHER = KeysetName("other")
DEFAULT_PLACES = ("keysets/default/jwks.json", ".well-known/jwks.json")
META = "keysets/default/jwks.meta.json"
DISCOVERY = ".well-known/openid-configuration"
ROOT = os.geteuid() == 0


def jwk(kid: str, **members: str) -> str:
    return json.dumps(
        {"alg": "ES256", "crv": "P-256", "kid": kid, "kty": "EC", "use": "sig", "x": "AA", "y": "BB"} | members
    )


def policy(name: KeysetName = DEFAULT_KEYSET, issuer: str = "https://tokens.example.com") -> KeysetPolicy:
    return KeysetPolicy(
        name=name,
        issuer=issuer,
        algorithm=Algorithm.ES256,
        security_period=timedelta(days=90),
        propagation_period=timedelta(hours=49),
        grace_period=timedelta(days=31),
        clock_skew=timedelta(seconds=60),
    )


def publication(*kids: str, keyset: KeysetName = DEFAULT_KEYSET, generation: int = 1) -> Publication:
    issuer = "https://tokens.example.com" if keyset == DEFAULT_KEYSET else "https://other.example.com"
    return Publication(
        policy=policy(keyset, issuer),
        generation=generation,
        jwks_uri=jwks_uri("https://keys.example.com/", keyset),
        jwks=[jwk(kid) for kid in kids],
        published_at=NOW,
        next_change_at=NOW + timedelta(days=1),
    )


class RecordingDisk(OsDisk):
    """The real disk, which notes what is renamed and synced, and can fail."""

    def __init__(self) -> None:
        super().__init__()
        self.renamed: list[str] = []
        self.when_renamed: dict[str, Callable[[], None]] = {}
        self.fsyncs = 0
        self.fail_directory_sync = False
        self.lie = False

    def rename(self, old: str, new: str, directory_fd: int) -> None:
        super().rename(old, new, directory_fd)
        self.renamed.append(new)
        self.when_renamed.pop(new, lambda: None)()

    def write(self, fd: int, content: bytes) -> None:
        super().write(fd, content[:-2] if self.lie else content)

    def fsync(self, fd: int) -> None:
        super().fsync(fd)
        self.fsyncs += 1

    def fsync_directory(self, directory_fd: int) -> None:
        if self.fail_directory_sync:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().fsync_directory(directory_fd)


@pytest.fixture
def disk() -> RecordingDisk:
    return RecordingDisk()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tmp_path / "public"


@pytest.fixture
def publisher(tmp_path: Path, tree: Path, disk: RecordingDisk) -> TreePublisher:
    return make(tmp_path, tree, disk)


def make(tmp_path: Path, tree: Path, disk: OsDisk) -> TreePublisher:
    return TreePublisher(
        tree,
        tmp_path / "state" / "aside",
        state_directory=tmp_path / "state",
        max_age=timedelta(hours=24),
        disk=disk,
    )


_: type[Publisher] = TreePublisher


def files(tree: Path) -> dict[str, bytes]:
    return {str(path.relative_to(tree)): path.read_bytes() for path in sorted(tree.rglob("*")) if path.is_file()}


def identities(tree: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in tree.rglob("*") if path.is_file()}


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """Map a file so that what is written to the map changes the file and, until it is synced, not its status."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        content[0] = content[0]  # the kernel notes the time of the first write alone
        yield content


# ------------------------------------------------------------------------------------------------------ what it holds


def test_the_default_keyset_stands_in_both_places_with_the_same_bytes(publisher: TreePublisher, tree: Path) -> None:
    published = publisher.publish(publication("a", "b"))
    found = files(tree)
    assert set(found) == {
        ".well-known/jwks.json",
        ".well-known/openid-configuration",
        "keysets/default/jwks.json",
        "keysets/default/jwks.meta.json",
    }
    assert found[".well-known/jwks.json"] == found["keysets/default/jwks.json"] == published.content
    assert published.kids == ("a", "b")
    assert published.sha256 == hashlib.sha256(published.content).hexdigest()
    assert publisher.read(DEFAULT_KEYSET) == published
    assert json.loads(found["keysets/default/jwks.meta.json"]) == {
        "generation": 1,
        "sha256": published.sha256,
        "published_at": "2026-01-01T00:00:00Z",
        "next_change_at": "2026-01-02T00:00:00Z",
        "max_age": 86400,
    }
    discovery = json.loads(found[".well-known/openid-configuration"])
    assert discovery["issuer"] == "https://tokens.example.com"
    assert discovery["jwks_uri"] == "https://keys.example.com/.well-known/jwks.json"


def test_another_keyset_has_a_discovery_document_of_its_own(publisher: TreePublisher, tree: Path) -> None:
    publisher.publish(publication("a", keyset=OTHER))
    found = files(tree)
    assert set(found) == {
        "keysets/other/.well-known/openid-configuration",
        "keysets/other/jwks.json",
        "keysets/other/jwks.meta.json",
    }
    discovery = json.loads(found["keysets/other/.well-known/openid-configuration"])
    assert discovery["issuer"] == "https://other.example.com"
    assert discovery["jwks_uri"] == "https://keys.example.com/keysets/other/jwks.json"
    assert publisher.read(DEFAULT_KEYSET) is None


def test_discovery_names_each_algorithm_that_is_still_in_the_set(publisher: TreePublisher, tree: Path) -> None:
    migrating = replace(publication(), jwks=[jwk("a", alg="EdDSA")])
    publisher.publish(migrating)
    discovery = json.loads(files(tree)[".well-known/openid-configuration"])
    assert discovery["id_token_signing_alg_values_supported"] == ["ES256", "EdDSA"]


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_anyone_may_read_it_whatever_the_umask(publisher: TreePublisher, tree: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        publisher.publish(publication("a"))
    finally:
        os.umask(before)
    for path in (tree, *tree.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644)


def test_an_empty_set_is_published_when_the_engine_says_so(publisher: TreePublisher) -> None:
    assert publisher.publish(publication()).kids == ()


def test_the_set_stands_everywhere_before_anything_points_to_it(publisher: TreePublisher, disk: RecordingDisk) -> None:
    publisher.publish(publication("a"))
    written = [name for name in disk.renamed if "." in name[1:] or name == "openid-configuration"]
    assert written == ["jwks.json", "jwks.json", "jwks.meta.json", "openid-configuration"]


def test_a_reader_never_sees_half_a_set(publisher: TreePublisher, tree: Path) -> None:
    publisher.publish(publication("a"))
    seen: set[tuple[str, ...]] = set()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            keys = json.loads((tree / ".well-known/jwks.json").read_bytes())["keys"]
            seen.add(tuple(key["kid"] for key in keys))

    reader = threading.Thread(target=look)
    reader.start()
    for _ in range(50):
        publisher.publish(publication("b", "c"))
        publisher.publish(publication("a"))
    stop.set()
    reader.join()
    assert seen <= {("a",), ("b", "c")}


# ------------------------------------------------------------------------------------------------ what stands, stays


def test_what_stands_as_it_should_is_not_written_again(publisher: TreePublisher, tree: Path) -> None:
    """A file server's ETag comes from the inode and mtime: an unchanged set stays cached."""
    publisher.publish(publication("a"))
    before = identities(tree)
    publisher.publish(publication("a"))
    assert identities(tree) == before


@pytest.mark.parametrize("path", DEFAULT_PLACES)
@pytest.mark.parametrize("harm", ["deleted", "changed", "closed"])
def test_only_what_differs_is_written(publisher: TreePublisher, tree: Path, path: str, harm: str) -> None:
    publisher.publish(publication("a"))
    before = identities(tree)
    match harm:
        case "deleted":
            (tree / path).unlink()
        case "changed":
            (tree / path).write_bytes(b'{"keys":[]}')
        case _:
            (tree / path).chmod(0o600)
    assert not publisher.intact(publication("a"))
    publisher.publish(publication("a"))
    assert publisher.intact(publication("a"))
    changed = {str(Path(name).relative_to(tree)) for name, now in identities(tree).items() if before[name] != now}
    assert changed == {path}


def test_a_file_of_an_earlier_run_is_synced_once_before_it_counts(
    publisher: TreePublisher, tmp_path: Path, tree: Path
) -> None:
    """The earlier run may have been killed after the rename and before the sync."""
    publisher.publish(publication("a"))
    disk = RecordingDisk()
    later = make(tmp_path, tree, disk)
    later.publish(publication("a"))
    assert (disk.fsyncs, disk.renamed) == (4, [])
    later.publish(publication("a"))
    assert disk.fsyncs == 4


def test_a_directory_sync_that_failed_is_made_up_for(publisher: TreePublisher, tree: Path, disk: RecordingDisk) -> None:
    """The file has the right bytes then, and a power cut could still take it back."""
    publisher.publish(publication("a"))
    disk.fail_directory_sync = True
    with pytest.raises(PublishError, match="Input/output error"):
        publisher.publish(publication("a", "b"))
    assert (tree / DEFAULT_PLACES[0]).read_bytes() != (tree / DEFAULT_PLACES[1]).read_bytes()
    disk.fail_directory_sync = False
    disk.fsyncs, disk.renamed = 0, []
    assert publisher.publish(publication("a", "b")).kids == ("a", "b")
    assert disk.renamed == ["jwks.json", "jwks.meta.json"]
    assert disk.fsyncs == 3  # these two, and the file whose directory was not synced


def test_intact_compares_every_file_and_leaves_out_what_only_ages(publisher: TreePublisher, tree: Path) -> None:
    wanted = publication("a")
    assert not publisher.intact(wanted)
    publisher.publish(wanted)
    assert publisher.intact(wanted)
    assert publisher.intact(replace(wanted, generation=9, published_at=NOW + timedelta(1), next_change_at=None))
    assert not publisher.intact(publication("a", "b"))
    assert not publisher.intact(replace(wanted, policy=policy(issuer="https://elsewhere.example.com")))


@pytest.mark.parametrize(
    ("member", "value", "intact"),
    [
        ("generation", 9, True),
        ("published_at", "2020-01-01T00:00:00Z", True),
        ("next_change_at", None, True),
        ("sha256", "00", False),
        ("max_age", 1, False),
        ("another", 1, False),
    ],
)
def test_a_meta_file_may_differ_in_what_only_ages(
    publisher: TreePublisher, tree: Path, member: str, value: object, intact: bool
) -> None:
    publisher.publish(publication("a"))
    document = json.loads((tree / META).read_bytes())
    (tree / META).write_text(json.dumps(document | {member: value}))
    assert publisher.intact(publication("a")) is intact


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"\xff", b'{"sha256":"x"}', b"[" * 100_000, None],
    ids=["empty", "list", "object", "binary", "partial", "deep", "gone"],
)
def test_a_damaged_meta_file_is_not_intact(publisher: TreePublisher, tree: Path, content: bytes | None) -> None:
    publisher.publish(publication("a"))
    meta = tree / "keysets/default/jwks.meta.json"
    if content is None:
        meta.unlink()
    else:
        meta.write_bytes(content)
    assert not publisher.intact(publication("a"))
    publisher.publish(publication("a"))
    assert publisher.intact(publication("a"))


# ------------------------------------------------------------------------------------------------- what others put in


def _garbage(path: Path) -> None:
    path.write_bytes(b"\xff\x00garbage")


def _deep(path: Path) -> None:
    path.write_bytes(b"[" * 100_000)


def _twice(path: Path) -> None:
    path.write_bytes(b'{"keys":[{"kid":"a","kty":"EC"},{"kid":"a","kty":"EC"}]}')


def _private(path: Path) -> None:
    path.write_bytes(b'{"keys":[{"kid":"a","kty":"EC","d":"secret"}]}')


def _directory(path: Path) -> None:
    path.mkdir()


def _socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o644)


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 30)


def _symlink(path: Path) -> None:
    target = path.with_name("elsewhere.json")
    target.write_bytes(b'{"keys":[]}')
    path.symlink_to(target)


def _gone(path: Path) -> None:
    pass


@pytest.mark.parametrize(
    "put", [_garbage, _deep, _twice, _private, _directory, os.mkfifo, _socket, _huge, _symlink, _gone]
)
@pytest.mark.parametrize("place", DEFAULT_PLACES)
def test_reading_takes_whatever_stands_there(
    publisher: TreePublisher, tree: Path, put: Callable[[Path], None], place: str
) -> None:
    """It is no set, whatever it is; and, but for a directory, the next publication replaces it."""
    publisher.publish(publication("a"))
    (tree / place).unlink()
    put(tree / place)
    assert publisher.read(DEFAULT_KEYSET) is None
    assert not publisher.intact(publication("a"))
    if put is _directory:
        with pytest.raises(PublishError, match="Is a directory: move the directory away"):
            publisher.publish(publication("a"))
    else:
        assert publisher.publish(publication("a")).kids == ("a",)


def test_two_places_that_differ_are_no_set(publisher: TreePublisher, tree: Path) -> None:
    publisher.publish(publication("a"))
    (tree / ".well-known/jwks.json").write_bytes(b'{"keys":[]}')
    assert publisher.read(DEFAULT_KEYSET) is None


def test_a_symlink_on_the_way_is_followed_neither_in_reading_nor_in_writing(
    publisher: TreePublisher, tree: Path, tmp_path: Path
) -> None:
    publisher.publish(publication("a"))
    (tree / "keysets/default").rename(tmp_path / "away")
    (tree / "keysets/default").symlink_to(tmp_path / "away")
    before = identities(tmp_path / "away")
    assert make(tmp_path, tree, OsDisk()).read(DEFAULT_KEYSET) is None
    with pytest.raises(PublishError, match="a directory is needed there"):
        publisher.publish(publication("a", "b"))
    assert identities(tmp_path / "away") == before


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(publisher: TreePublisher, tree: Path) -> None:
    publisher.publish(publication("a"))
    place = tree / DEFAULT_PLACES[0]
    before = publisher.read(DEFAULT_KEYSET)
    os.utime(place)
    content = place.read_bytes()
    with place.open("r+b") as file:
        file.write(content.replace(b'"a"', b'"z"'))
    assert publisher.read(DEFAULT_KEYSET) is None
    publisher.publish(publication("a"))
    assert publisher.read(DEFAULT_KEYSET) == before
    assert publisher.read(DEFAULT_KEYSET, fully=True) == before
    assert publisher.intact(publication("a"), fully=True)


def test_what_changed_without_a_trace_is_seen_by_who_looks_fully(publisher: TreePublisher, tree: Path) -> None:
    """As on a disk that decays: the status of the file is what it was."""
    publisher.publish(publication("a"))
    before = publisher.read(DEFAULT_KEYSET)
    with mapped(tree / DEFAULT_PLACES[0]) as content:
        assert publisher.read(DEFAULT_KEYSET) == before
        content[content.find(b'"a"') + 1] = ord("z")
        assert publisher.read(DEFAULT_KEYSET) == before
        assert publisher.read(DEFAULT_KEYSET, fully=True) is None


def test_intact_looks_closer_when_asked_to(publisher: TreePublisher, tree: Path) -> None:
    publisher.publish(publication("a"))
    with mapped(tree / DISCOVERY) as content:
        assert publisher.intact(publication("a"))
        content[0] = ord(" ")
        assert publisher.intact(publication("a"))
        assert not publisher.intact(publication("a"), fully=True)


def test_what_is_published_is_read_back_whatever_its_status_says(publisher: TreePublisher, tree: Path) -> None:
    publisher.publish(publication("a"))
    with mapped(tree / DISCOVERY) as content:
        assert publisher.intact(publication("a"))
        content[0] = ord(" ")
        with pytest.raises(PublishError, match=f"{DISCOVERY} does not hold what was just written"):
            publisher.publish(publication("a"))


@pytest.mark.parametrize("path", [*DEFAULT_PLACES, META, DISCOVERY])
def test_a_file_that_is_not_the_one_that_was_read_is_noticed_by_its_status(
    publisher: TreePublisher, tmp_path: Path, tree: Path, path: str
) -> None:
    publisher.publish(publication("a"))
    assert publisher.unchanged(DEFAULT_KEYSET)
    assert not make(tmp_path, tree, OsDisk()).unchanged(DEFAULT_KEYSET)  # it has read none yet
    os.utime(tree / path, ns=(0, 0))
    assert not publisher.unchanged(DEFAULT_KEYSET)
    publisher.publish(publication("a"))
    assert publisher.unchanged(DEFAULT_KEYSET)
    (tree / path).unlink()
    assert not publisher.unchanged(DEFAULT_KEYSET)


def test_a_file_that_was_gone_when_it_was_last_read_is_a_change_when_it_is_back(
    publisher: TreePublisher, tree: Path
) -> None:
    publisher.publish(publication("a"))
    (tree / "keysets").rename(tree / "away")
    assert publisher.read(DEFAULT_KEYSET) is None
    (tree / "away").rename(tree / "keysets")
    assert not publisher.unchanged(DEFAULT_KEYSET)


def test_a_set_of_a_mebibyte_is_read_and_a_larger_one_is_not(publisher: TreePublisher, tree: Path) -> None:
    publisher.publish(publication("a", keyset=OTHER))
    place = tree / "keysets/other/jwks.json"
    content = place.read_bytes()
    place.write_bytes(content.ljust(1 << 20))
    found = publisher.read(OTHER)
    assert found is not None
    assert found.kids == ("a",)
    place.write_bytes(content.ljust((1 << 20) + 1))
    assert publisher.read(OTHER) is None


def test_reading_makes_nothing(publisher: TreePublisher, tree: Path) -> None:
    tree.mkdir()
    assert publisher.read(DEFAULT_KEYSET) is None
    assert publisher.found(DEFAULT_KEYSET) is None
    assert not publisher.intact(publication("a"))
    assert not list(tree.iterdir())


def test_what_verifiers_are_served_is_the_set_in_the_directory_of_keysets(publisher: TreePublisher, tree: Path) -> None:
    assert read_set(tree, OTHER) is None
    content = publisher.publish(publication("a", keyset=OTHER)).content
    assert read_set(tree, OTHER) == content
    content = publisher.publish(publication("b")).content
    (tree / DEFAULT_PLACES[1]).write_bytes(b"another")
    assert read_set(tree, DEFAULT_KEYSET) == content


# ---------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([jwk("a", d="secret")], "private member d"),
        ([jwk("a"), jwk("b"), jwk("a")], "kid a is there 2 times"),
        (["garbage"], "not JSON"),
    ],
)
def test_a_set_that_must_not_be_is_refused_and_the_last_good_one_stays(
    publisher: TreePublisher, tree: Path, keys: list[str], message: str
) -> None:
    publisher.publish(publication("a"))
    before = identities(tree)
    with pytest.raises(PublishError, match=message) as caught:
        publisher.publish(replace(publication(), jwks=keys))
    assert "secret" not in str(caught.value)
    assert identities(tree) == before


def test_a_tree_that_is_a_symlink_is_refused(publisher: TreePublisher, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    tree.symlink_to(tmp_path / "real")
    calls: list[Callable[[], object]] = [
        lambda: publisher.publish(publication("a")),
        lambda: publisher.read(DEFAULT_KEYSET),
        lambda: publisher.intact(publication("a")),
        lambda: publisher.found(DEFAULT_KEYSET),
        lambda: publisher.unchanged(DEFAULT_KEYSET),
        lambda: publisher.withdraw(DEFAULT_KEYSET, b"foreign", NOW),
    ]
    for call in calls:
        with pytest.raises(PublishError, match=f"is a symlink.*set publish.directory to {tmp_path}/real"):
            call()
    assert not any((tmp_path / "real").iterdir())


def test_a_tree_that_turns_into_a_symlink_amid_a_publication_leads_nowhere_else(
    publisher: TreePublisher, tree: Path, tmp_path: Path, disk: RecordingDisk
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def turn() -> None:
        tree.rename(tmp_path / "away")
        tree.symlink_to(elsewhere)

    disk.when_renamed["jwks.json"] = turn
    with pytest.raises(PublishError, match="a directory is needed there"):
        publisher.publish(publication("a"))
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("place", ["state", "x/../state", ".", "link/.."])
def test_a_tree_that_holds_the_state_is_refused(tmp_path: Path, place: str) -> None:
    for name in ("state", "x"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "state")
    publisher = make(tmp_path, Path(f"{tmp_path}/{place}"), OsDisk())
    with pytest.raises(PublishError, match="holds the state"):
        publisher.publish(publication("a"))
    assert not any((tmp_path / "state").iterdir())


def test_a_tree_below_the_state_is_accepted(tmp_path: Path) -> None:
    """As it is by default: whoever serves it from there is let in there, or serves it as the service's user."""
    (tmp_path / "state").mkdir(mode=0o700)
    publisher = make(tmp_path, tmp_path / "state" / "public", OsDisk())
    assert publisher.publish(publication("a")).kids == ("a",)


def test_what_is_read_back_must_be_what_was_written(publisher: TreePublisher, disk: RecordingDisk) -> None:
    disk.lie = True
    with pytest.raises(PublishError, match=r"keysets/default/jwks\.json does not hold what was just written"):
        publisher.publish(publication("a"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 64 KiB."""
    if not ROOT:
        pytest.skip("only root can mount")
    place = tmp_path / "mount"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        for _ in range(1000):
            try:
                file.write(b"x" * 1024)
            except OSError:
                return
    raise AssertionError


def test_a_full_disk_keeps_the_last_good_set_and_says_what_to_do(tmp_path: Path, small_disk: Path) -> None:
    tree = small_disk / "public"
    publisher = make(tmp_path, tree, OsDisk())
    before = publisher.publish(publication("a"))
    fill(small_disk / "ballast")
    with pytest.raises(PublishError, match=r"cannot write .*jwks\.json: No space left on device: free some"):
        publisher.publish(publication("a", "b"))
    assert publisher.read(DEFAULT_KEYSET, fully=True) == before
    (small_disk / "ballast").unlink()
    assert publisher.publish(publication("a", "b")).kids == ("a", "b")


def test_a_read_only_disk_says_what_to_do(tmp_path: Path, small_disk: Path) -> None:
    publisher = make(tmp_path, small_disk / "public", OsDisk())
    publisher.publish(publication("a"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(PublishError, match=r"Read-only file system: remount it, or add .* ReadWritePaths"):
        publisher.publish(publication("a", "b"))


def test_a_missing_permission_says_what_to_do(tmp_path: Path, tree: Path) -> None:
    make(tmp_path, tree, OsDisk()).publish(publication("a"))
    (tree / "keysets").chmod(0o700 if ROOT else 0)
    with as_nobody(tree):
        publisher = make(tmp_path, tree, OsDisk())
        calls: list[Callable[[], object]] = [
            lambda: publisher.read(DEFAULT_KEYSET),
            lambda: publisher.intact(publication("a")),
            lambda: publisher.publish(publication("a")),
        ]
        for call in calls:
            with pytest.raises(PublishError, match=r"cannot read .*jwks\.json: Permission denied: give"):
                call()
    (tree / "keysets").chmod(0o755)


def test_a_tree_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PublishError, match=r"cannot create .*file/public: Not a directory"):
        make(tmp_path, tmp_path / "file" / "public", OsDisk()).publish(publication("a"))


# ------------------------------------------------------------------------------------------------- what is kept aside


def test_a_foreign_set_is_kept_outside_the_tree_for_the_owner_alone(publisher: TreePublisher, tree: Path) -> None:
    path = Path(publisher.keep_aside(DEFAULT_KEYSET, b"foreign", NOW))
    assert path.read_bytes() == b"foreign"
    assert path.name == f"20260101T000000Z-{hashlib.sha256(b'foreign').hexdigest()[:16]}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.is_relative_to(tree)
    assert publisher.keep_aside(DEFAULT_KEYSET, b"foreign", NOW + timedelta(days=1)) == str(path)


def test_what_is_kept_aside_is_bounded(publisher: TreePublisher) -> None:
    """Someone who changes the tree every second must not fill the disk."""
    paths: list[Path] = []
    for i in range(105):
        paths.append(Path(publisher.keep_aside(OTHER, f"set {i}".encode(), NOW + timedelta(seconds=i))))
        assert sorted(paths[0].parent.iterdir()) == paths[-100:]


def test_what_a_killed_process_left_half_kept_is_cleared_away(publisher: TreePublisher) -> None:
    """Its name has the time in it, so that nothing else would ever take it away."""
    path = Path(publisher.keep_aside(OTHER, b"one", NOW))
    (path.parent / ".20250101T000000Z-0123.json.0123abcd.tmp").touch()
    other = Path(publisher.keep_aside(OTHER, b"other", NOW))
    assert sorted(path.parent.iterdir()) == sorted([path, other])


def test_a_set_that_cannot_be_kept_aside_is_an_error(publisher: TreePublisher, tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(PublishError, match="cannot keep a foreign set aside"):
        publisher.keep_aside(DEFAULT_KEYSET, b"foreign", NOW)


# --------------------------------------------------------------------------------------------------- what is withdrawn


@pytest.mark.parametrize("keyset", [DEFAULT_KEYSET, OTHER])
def test_a_withdrawn_set_leaves_the_tree_and_is_kept_aside(
    publisher: TreePublisher, tree: Path, keyset: KeysetName
) -> None:
    published = publisher.publish(publication("a", keyset=keyset))
    kept = publisher.withdraw(keyset, published.content, NOW)
    assert Path(kept).read_bytes() == published.content
    assert files(tree) == {}
    assert publisher.read(keyset) is None
    assert publisher.withdraw(keyset, published.content, NOW) == kept
    assert publisher.publish(publication("b", keyset=keyset)).kids == ("b",)


def test_a_withdrawn_set_that_someone_put_back_is_synced_before_it_counts(
    publisher: TreePublisher, tree: Path, disk: RecordingDisk
) -> None:
    published = publisher.publish(publication("a", keyset=OTHER))
    before = files(tree)
    publisher.withdraw(OTHER, published.content, NOW)
    for path, content in before.items():
        (tree / path).write_bytes(content)
        (tree / path).chmod(0o644)
    disk.fsyncs, disk.renamed = 0, []
    publisher.publish(publication("a", keyset=OTHER))
    assert (disk.fsyncs, disk.renamed) == (3, [])


def test_withdrawing_leaves_other_keysets_alone(publisher: TreePublisher) -> None:
    other = publisher.publish(publication("b", keyset=OTHER))
    publisher.withdraw(DEFAULT_KEYSET, b"foreign", NOW)
    assert publisher.read(OTHER) == other


def test_a_set_that_could_not_be_kept_is_not_removed(publisher: TreePublisher, tmp_path: Path) -> None:
    published = publisher.publish(publication("a"))
    (tmp_path / "state").touch()
    with pytest.raises(PublishError, match="cannot keep"):
        publisher.withdraw(DEFAULT_KEYSET, published.content, NOW)
    assert publisher.read(DEFAULT_KEYSET) == published


def test_a_set_that_cannot_be_removed_is_an_error(publisher: TreePublisher, disk: RecordingDisk) -> None:
    published = publisher.publish(publication("a"))
    disk.fail_directory_sync = True
    with pytest.raises(PublishError, match=r"cannot (remove|keep)"):
        publisher.withdraw(DEFAULT_KEYSET, published.content, NOW)
    disk.fail_directory_sync = False
    publisher.keep_aside(DEFAULT_KEYSET, published.content, NOW)
    disk.fail_directory_sync = True
    with pytest.raises(PublishError, match=r"cannot remove .*openid-configuration: Input/output error"):
        publisher.withdraw(DEFAULT_KEYSET, published.content, NOW)


@pytest.mark.parametrize("place", [".well-known/jwks.json", "keysets/default/jwks.json"])
def test_a_set_in_either_place_is_found(publisher: TreePublisher, tree: Path, place: str) -> None:
    """Others publish in one place only: that is no valid set of ours, and still one that verifiers hold."""
    assert publisher.found(DEFAULT_KEYSET) is None
    content = publisher.publish(publication("a")).content
    for path in tree.rglob("jwks.json"):
        if not str(path).endswith(place):
            path.unlink()
    assert publisher.read(DEFAULT_KEYSET) is None

    found = publisher.found(DEFAULT_KEYSET)

    assert found is not None
    assert found.kids == ("a",)
    assert parse_set(found.content) == parse_set(content)


def test_an_empty_set_is_found_as_one(publisher: TreePublisher, tree: Path) -> None:
    """A keyset that ended leaves it behind, and verifiers hold it."""
    place = tree / "keysets" / "other" / "jwks.json"
    place.parent.mkdir(parents=True)
    place.write_bytes(b'{"keys":[]}')
    found = publisher.found(OTHER)
    assert found is not None
    assert found.kids == ()
    place.write_bytes(b"no set")
    assert publisher.found(OTHER) is None


def test_sets_that_differ_are_found_as_one(publisher: TreePublisher, tree: Path) -> None:
    publisher.publish(publication("a", "b"))
    elsewhere = publisher.publish(publication("b", "c", keyset=OTHER)).content
    (tree / ".well-known" / "jwks.json").write_bytes(elsewhere)

    found = publisher.found(DEFAULT_KEYSET)

    assert found is not None
    assert found.kids == ("a", "b", "c")


# ---------------------------------------------------------------------------------------------- what is taken out of it


def test_a_key_is_taken_out_of_every_place_and_nothing_else_changes(publisher: TreePublisher, tree: Path) -> None:
    """The set is the one that would be published without it; the meta file says so, and has no number for it."""
    publisher.publish(publication("a", "b"))
    before = files(tree)
    assert publisher.take_out(DEFAULT_KEYSET, {Kid("a"), Kid("nonesuch")}, NOW + timedelta(hours=1))
    published = publisher.read(DEFAULT_KEYSET)
    assert published is not None
    assert published.content == render([jwk("b")])
    after = files(tree)
    meta = json.loads(after.pop("keysets/default/jwks.meta.json"))
    assert meta == {
        "sha256": published.sha256,
        "published_at": "2026-01-01T01:00:00Z",
        "next_change_at": "2026-01-02T00:00:00Z",
        "max_age": 86400,
    }
    assert after == {path: content for path, content in before.items() if "meta" not in path} | {
        ".well-known/jwks.json": published.content,
        "keysets/default/jwks.json": published.content,
    }
    assert not publisher.intact(publication("b")), "the next publication numbers it"


def test_where_there_is_nothing_to_take_out_nothing_is_written(publisher: TreePublisher, tree: Path) -> None:
    assert not publisher.take_out(DEFAULT_KEYSET, {Kid("a")}, NOW)
    assert not tree.exists()
    publisher.publish(publication("a"))
    before = identities(tree)
    assert not publisher.take_out(DEFAULT_KEYSET, {Kid("b")}, NOW)
    assert identities(tree) == before


def test_a_key_is_taken_out_of_a_damaged_tree(publisher: TreePublisher, tree: Path) -> None:
    """Of the place that shows it, whatever stands in the others."""
    publisher.publish(publication("a", "b"))
    (tree / ".well-known" / "jwks.json").write_bytes(b"no set")
    (tree / "keysets" / "default" / "jwks.meta.json").write_bytes(b"[]")
    assert publisher.take_out(DEFAULT_KEYSET, {Kid("a")}, NOW)
    assert parse_kids(files(tree)["keysets/default/jwks.json"]) == ("b",)
    (tree / "keysets" / "default" / "jwks.meta.json").unlink()
    assert publisher.take_out(DEFAULT_KEYSET, {Kid("b")}, NOW)
    assert parse_kids(files(tree)["keysets/default/jwks.json"]) == ()
    assert set(files(tree)) == {
        ".well-known/jwks.json",
        ".well-known/openid-configuration",
        "keysets/default/jwks.json",
    }


def test_a_key_that_cannot_be_taken_out_is_an_error(publisher: TreePublisher, disk: RecordingDisk) -> None:
    publisher.publish(publication("a", "b"))
    disk.fail_directory_sync = True
    with pytest.raises(PublishError, match=r"cannot write .*jwks.json: Input/output error"):
        publisher.take_out(DEFAULT_KEYSET, {Kid("a")}, NOW)
    disk.fail_directory_sync = False
    disk.lie = True
    with pytest.raises(PublishError, match="does not hold what was just written"):
        publisher.take_out(DEFAULT_KEYSET, {Kid("b")}, NOW)


# ----------------------------------------------------------------------------------------------- the witness part


def test_the_witness_part_is_written_anew_and_no_other_file(
    publisher: TreePublisher, tree: Path, disk: RecordingDisk
) -> None:
    """The set keeps its file, and so its ETag; the rest of the meta file says what it said."""
    publisher.publish(replace(publication("a"), witness={"active": "a"}))
    before = json.loads((tree / META).read_bytes())
    disk.renamed.clear()
    assert publisher.attest(DEFAULT_KEYSET, {"active": None})
    assert disk.renamed == ["jwks.meta.json"]
    assert json.loads((tree / META).read_bytes()) == {**before, "witness": {"active": None}}
    assert publisher.intact(publication("a"))
    assert publisher.attest(DEFAULT_KEYSET, {"active": None})
    assert disk.renamed == ["jwks.meta.json"]


@pytest.mark.parametrize("content", [None, b"{}", b"nothing", b'{"sha256": "of another set"}'])
def test_a_witness_part_needs_a_meta_file_of_the_set_that_stands(
    publisher: TreePublisher, tree: Path, content: bytes | None
) -> None:
    publisher.publish(publication("a"))
    (tree / META).unlink()
    if content is not None:
        (tree / META).write_bytes(content)
    assert not publisher.attest(DEFAULT_KEYSET, {"active": "a"})
    assert publisher.meta(DEFAULT_KEYSET) == content


def test_the_witness_part_stays_where_nobody_can_write_another(publisher: TreePublisher, tree: Path) -> None:
    """As while the KEK is away: what was once said of the set before is better than nothing."""
    publisher.publish(replace(publication("a"), witness={"active": "a"}))
    publisher.publish(publication("b", generation=2))
    document = json.loads((tree / META).read_bytes())
    assert (document["generation"], document["witness"]) == (2, {"active": "a"})
