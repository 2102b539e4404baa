"""The published tree: files that any static file server can serve as they are.

    .well-known/jwks.json                            the set of the keyset ``default``
    .well-known/openid-configuration                 its discovery document
    keysets/NAME/jwks.json                           every keyset's set, ``default`` included
    keysets/NAME/jwks.meta.json                      how fresh it is, and a witness for a lost state
    keysets/NAME/.well-known/openid-configuration    discovery of every other keyset, each an issuer of its own

Rules:

- A set stands in all its places before anything points to it, and the last good one stays until then.
- What stands as it should is not written again: its mtime, and so the ETag that a file server makes of it, stay.
- What a path holds is read as hostile: no symlink is followed below the tree's directory, nothing but a regular file of
  at most 1 MiB is read, and nothing found there makes :meth:`TreePublisher.read` fail.
"""

import contextlib
import errno
import hashlib
import json
import operator
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Final

from rotator.adapters.disk import (
    REAL_DISK,
    Disk,
    describe,
    ensure_directory,
    make_directory,
    open_directory,
    read_regular,
    replace_file,
    sync_file,
    write_durably,
)
from rotator.core import jwks
from rotator.core.model import DEFAULT_KEYSET, Algorithm, KeysetName, Kid
from rotator.errors import PublishError
from rotator.ports import Publication, PublishedSet

FILE_MODE: Final = 0o644
DIRECTORY_MODE: Final = 0o755
READ_LIMIT_BYTES: Final = 1 << 20
ASIDE_LIMIT: Final = 100
"""How many sets of others are kept per keyset; then the oldest goes."""

_META: Final = "jwks.meta.json"
_DISCOVERY: Final = ".well-known/openid-configuration"
_UNCOMPARED: Final = frozenset({"generation", "published_at", "next_change_at"})
_WITNESS: Final = "witness"
_NO_FILE: Final = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ELOOP,  # a symlink
        errno.EISDIR,
        errno.EINVAL,  # a FIFO or a device
        errno.ENXIO,  # a socket
        errno.EFBIG,
    }
)
"""What is at a path is no set that could be served, and can be replaced by one."""


@dataclass(frozen=True, slots=True)
class _Identity:
    """Tells whether a file is the one that was read, without reading it again."""

    device: int
    inode: int
    mode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "_Identity":
        return cls(
            status.st_dev,
            status.st_ino,
            status.st_mode,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )


@dataclass(frozen=True, slots=True)
class _Standing:
    """A file as it was last read."""

    identity: _Identity
    content: bytes


class TreePublisher:
    """One published tree; implements :class:`~rotator.ports.Publisher`. For one thread at a time.

    ``aside_directory`` takes what others put into it. ``max_age`` is how long consumers
    may cache a set. The tree must not hold ``state_directory``, where the secrets are.
    """

    def __init__(
        self,
        directory: Path,
        aside_directory: Path,
        *,
        state_directory: Path,
        max_age: timedelta,
        disk: Disk = REAL_DISK,
    ) -> None:
        self._directory = directory
        self._aside_directory = aside_directory
        self._state_directory = state_directory
        self._max_age = max_age
        self._disk = disk
        self._read: dict[str, _Standing] = {}
        self._durable: set[str] = set()

    # ------------------------------------------------------------------------------------------------------- reading

    def read(self, keyset: KeysetName, *, fully: bool = False) -> PublishedSet | None:
        """Read the keyset's published set; None where there is none or it is not a JWK Set.

        For ``default`` both of its places are read, and differing or missing ones count as none. A file whose status
        did not change since it was read is not read again, unless ``fully``.
        """
        self._require_place()
        if fully:
            self._read.clear()
        contents = {self._content(path) for path in _places(keyset)}
        content = contents.pop()
        if contents or content is None:
            return None
        return _published_set(content)

    def found(self, keyset: KeysetName) -> PublishedSet | None:
        """Read every set that stands in any of the keyset's places, as one, and empty if they are; None without any.

        The one in the directory of keysets comes first, and its key is taken where both have a kid.
        """
        self._require_place()
        contents = [content for path in _places(keyset) if (content := self._content(path)) is not None]
        sets = [found for content in contents if (found := jwks.parse_set(content)) is not None]
        if not sets:
            return None
        keys: dict[Kid, str] = {}
        for kid, text in chain.from_iterable(sets):
            keys.setdefault(kid, text)
        return _published_set(f'{{"keys":[{",".join(keys.values())}]}}'.encode())

    def intact(self, publication: Publication, *, fully: bool = False) -> bool:
        """Tell whether every file of the keyset stands as :meth:`publish` would write it.

        ``published_at``, ``next_change_at``, the generation and the witness in the meta file are not compared.
        """
        self._require_place()
        if fully:
            self._read.clear()
        return all(
            self._stands(path, content, compare=_same_meta if path.endswith(_META) else operator.eq)
            for path, content in self._files(publication)
        )

    def meta(self, keyset: KeysetName) -> bytes | None:
        """Return the keyset's meta file as it stands; None where there is none."""
        self._require_place()
        return self._content(_meta_path(keyset))

    def unchanged(self, keyset: KeysetName) -> bool:
        """Tell, by the status of its files alone, whether all of them are those that were last read."""
        self._require_place()
        return all(
            self._is_the_one_read(path) for path in (*_places(keyset), _meta_path(keyset), _discovery_path(keyset))
        )

    def _is_the_one_read(self, path: str) -> bool:
        known = self._read.get(path)
        try:
            return known is not None and known.identity == _Identity.of((self._directory / path).lstat())
        except OSError:
            return False  # whoever looks closer finds out why

    def _content(self, path: str) -> bytes | None:
        """Return what a regular file of the tree holds; None for anything else that may be there."""
        known = self._read.pop(path, None)
        try:
            if known is None or known.identity != _Identity.of((self._directory / path).lstat()):
                with self._below(path) as (directory_fd, name):
                    content, status = read_regular(name, READ_LIMIT_BYTES, dir_fd=directory_fd)
                known = _Standing(_Identity.of(status), content)
        except OSError as error:
            if error.errno in _NO_FILE:
                return None
            raise self._failed("read", path, error) from error
        self._read[path] = known
        return known.content

    def _stands(self, path: str, expected: bytes, *, compare: Callable[[bytes, bytes], bool] = operator.eq) -> bool:
        content = self._content(path)
        if content is None or stat.S_IMODE(self._read[path].identity.mode) != FILE_MODE:
            return False
        return compare(expected, content)

    # ------------------------------------------------------------------------------------------------------- writing

    def publish(self, publication: Publication) -> PublishedSet:
        """Write every file of the keyset durably, read them back, and return what stands there now.

        Refuses, before anything is written, a set that holds a private member or a kid twice. The engine decides
        whether a set may be empty.
        """
        self._require_place()
        if publication.witness is None:
            publication = replace(publication, witness=self._standing_witness(publication.policy.name))
        files = self._files(publication)
        try:
            ensure_directory(self._directory, DIRECTORY_MODE, disk=self._disk)
        except OSError as error:
            raise self._failed("create", "", error) from error
        for path, content in files:
            self._put(path, content)
            self._read.pop(path, None)
        wrong = [path for path, content in files if not self._stands(path, content)]
        published = self.read(publication.policy.name)
        if wrong or published is None:
            raise self._overwritten((wrong or ["keysets"])[0])
        return published

    def _overwritten(self, path: str) -> PublishError:
        return PublishError(
            f"{self._directory}/{path} does not hold what was just written: something else writes there; give the tree "
            "to rotator alone"
        )

    def attest(self, keyset: KeysetName, witness: Mapping[str, object]) -> bool:
        """Replace the witness part of the meta file, durably; False where no meta file describes the set that stands.

        The set keeps its files, and so its ETag; the rest of the meta file says what it said.
        """
        self._require_place()
        path, standing, published = _meta_path(keyset), self.meta(keyset), self.read(keyset)
        members = None if standing is None else jwks.meta_members(standing)
        if members is None or published is None or members.get("sha256") != published.sha256:
            return False
        self._put(path, jwks.attested(members, witness))
        return True

    def _standing_witness(self, keyset: KeysetName) -> Mapping[str, object] | None:
        try:
            return jwks.meta_witness(self._content(_meta_path(keyset)))
        except PublishError:
            return None  # writing it says so, or puts it right

    def _put(self, path: str, content: bytes) -> None:
        try:
            if not self._stands(path, content):
                self._durable.discard(path)
                with self._below(path, create=True) as (directory_fd, name):
                    replace_file(directory_fd, name, content, FILE_MODE, disk=self._disk)
            elif path not in self._durable:
                with self._below(path) as (directory_fd, name):
                    sync_file(directory_fd, name, disk=self._disk)
        except OSError as error:
            raise self._failed("write", path, error) from error
        self._durable.add(path)

    def take_out(self, keyset: KeysetName, kids: Collection[Kid], now: datetime) -> bool:
        """Let ``kids`` leave every set that stands in the keyset's places; return whether one was there.

        Nothing else changes but the meta file, which says that the set is another one. That needs neither a policy nor
        a number of the set, so that it can be done whatever else is out of reach.
        """
        self._require_place()
        left = {
            path: content
            for path in _places(keyset)
            if (content := jwks.without(self._content(path) or b"", kids)) is not None
        }
        for path, content in left.items():
            self._put(path, content)
        meta = self._content(_meta_path(keyset))
        if left and meta is not None:
            sha256 = hashlib.sha256(next(iter(left.values()))).hexdigest()
            document = jwks.meta_without(meta, sha256=sha256, published_at=now)
            if document is not None:
                self._put(_meta_path(keyset), document)
        self._read.clear()
        if wrong := [path for path, content in left.items() if not self._stands(path, content)]:
            raise self._overwritten(wrong[0])
        return bool(left)

    def keep_aside(self, keyset: KeysetName, content: bytes, now: datetime) -> str:
        """Keep a set that someone else put into the tree, outside it, for a person to look at; return the path."""
        digest = hashlib.sha256(content).hexdigest()[:16]
        directory = self._aside_directory / keyset
        try:
            ensure_directory(directory, 0o700, disk=self._disk)
            kept = sorted(directory.glob("*.json"))
            for path in kept:
                if path.stem.endswith(f"-{digest}"):
                    return str(path)
            half_written = directory.glob(".*.tmp")  # a name has the time in it, and is not written a second time
            with open_directory(directory) as directory_fd:
                for gone in (*kept[: max(0, len(kept) - ASIDE_LIMIT + 1)], *half_written):
                    self._disk.unlink(gone.name, directory_fd)
            path = directory / f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{digest}.json"
            write_durably(path, content, 0o600, disk=self._disk)
        except OSError as error:
            raise PublishError(f"cannot keep a foreign set aside in {directory}: {describe(error)}") from error
        return str(path)

    def remove(self, keyset: KeysetName) -> bool:
        """Remove the set and what points to it, that first; return whether a set was there."""
        if self.found(keyset) is None:
            return False
        self._require_place()
        for path in (_discovery_path(keyset), *_places(keyset)):
            self._remove(path)
        self._read.clear()
        return True

    def _remove(self, path: str) -> None:
        self._durable.discard(path)
        try:
            with self._below(path) as (directory_fd, name):
                self._disk.unlink(name, directory_fd)
                self._disk.fsync_directory(directory_fd)
        except FileNotFoundError:
            pass  # its directory is not there, so neither is the file
        except OSError as error:
            raise self._failed("remove", path, error) from error

    def withdraw(self, keyset: KeysetName, content: bytes, now: datetime) -> str:
        """Keep the set aside and remove it from the tree, what points to it first; return where it is kept."""
        self._require_place()
        kept = self.keep_aside(keyset, content, now)
        for path in (_discovery_path(keyset), _meta_path(keyset), *_places(keyset)):
            self._remove(path)
        return kept

    # -------------------------------------------------------------------------------------------------------- content

    def _files(self, publication: Publication) -> list[tuple[str, bytes]]:
        """Return every file of the keyset in the order of writing: sets, then what describes or points to them."""
        policy = publication.policy
        try:
            content = jwks.render(publication.jwks)
        except jwks.JwksError as error:
            raise PublishError(
                f"the set of keyset {policy.name} is not published, the last good one stays: {error}"
            ) from error
        meta = jwks.meta(
            generation=publication.generation,
            sha256=hashlib.sha256(content).hexdigest(),
            published_at=publication.published_at,
            next_change_at=publication.next_change_at,
            max_age=self._max_age,
            witness=publication.witness,
        )
        present = {policy.algorithm, *(json.loads(jwk)["alg"] for jwk in publication.jwks)}
        algorithms = [algorithm for algorithm in Algorithm if algorithm in present]
        discovery = jwks.discovery(policy.issuer, publication.jwks_uri, algorithms)
        return [
            *((path, content) for path in _places(policy.name)),
            (_meta_path(policy.name), meta),
            (_discovery_path(policy.name), discovery),
        ]

    # ---------------------------------------------------------------------------------------------------------- paths

    def _require_place(self) -> None:
        if self._directory.is_symlink():
            raise PublishError(
                f"{self._directory} is a symlink, which could be turned elsewhere: set publish.directory to "
                f"{os.path.realpath(self._directory)}"
            )
        if Path(os.path.realpath(self._state_directory)).is_relative_to(os.path.realpath(self._directory)):
            raise PublishError(
                f"{self._directory} is to be served to everybody and holds the state ({self._state_directory}): set "
                "publish.directory to a directory of its own"
            )

    @contextlib.contextmanager
    def _below(self, path: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """Open the directory of a file of the tree, step by step and following no symlink."""
        *directories, name = path.split("/")
        with contextlib.ExitStack() as opened:
            fd = opened.enter_context(open_directory(self._directory, follow_symlinks=False))
            for directory in directories:
                if create:
                    make_directory(fd, directory, DIRECTORY_MODE, disk=self._disk)
                fd = opened.enter_context(open_directory(directory, dir_fd=fd, follow_symlinks=False))
            yield fd, name

    def _failed(self, verb: str, path: str, error: OSError) -> PublishError:
        return PublishError(f"cannot {verb} {self._directory / path}: {describe(error)}")


def read_set(directory: Path, keyset: KeysetName) -> bytes | None:
    """Return the bytes of the set that verifiers are served from the tree at ``directory``; None if there is none."""
    try:
        return read_regular(directory / _places(keyset)[0], READ_LIMIT_BYTES)[0]
    except OSError:
        return None


def _places(keyset: KeysetName) -> tuple[str, ...]:
    own = f"keysets/{keyset}/jwks.json"
    return (own, ".well-known/jwks.json") if keyset == DEFAULT_KEYSET else (own,)


def _meta_path(keyset: KeysetName) -> str:
    return f"keysets/{keyset}/{_META}"


def _discovery_path(keyset: KeysetName) -> str:
    return _DISCOVERY if keyset == DEFAULT_KEYSET else f"keysets/{keyset}/{_DISCOVERY}"


def _published_set(content: bytes) -> PublishedSet | None:
    kids = jwks.parse_kids(content)
    return None if kids is None else PublishedSet(kids, hashlib.sha256(content).hexdigest(), content)


def _same_meta(expected: bytes, found: bytes) -> bool:
    try:
        document = json.loads(found)
    except (ValueError, RecursionError):
        return False
    wanted = json.loads(expected)
    return (
        isinstance(document, dict)
        and document.keys() - {_WITNESS} == wanted.keys() - {_WITNESS}
        and all(document[member] == value for member, value in wanted.items() if member not in _UNCOMPARED | {_WITNESS})
    )
