"""A published tree as a web server shows it, the publisher that writes it, and the memory of every set that it held.

A file is replaced as a whole, as a rename does it; several files are not: a process can die, and a disk can fill up,
between any two of them. Whoever cached a set may go on using it, so every version is remembered with its time.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import chain

from rotator.core import jwks
from rotator.core.model import DEFAULT_KEYSET, KeysetName, Kid
from rotator.errors import PublishError
from rotator.ports import Publication, PublishedSet
from tests.simulation.hazards import Hazards

KEPT = timedelta(days=200)
"""How long versions are remembered after they were replaced."""


@dataclass(frozen=True, slots=True)
class Version:
    """What one file held, from ``since`` (true time) on; ``keys`` None: nothing that a verifier takes for a set."""

    since: datetime
    keys: Mapping[Kid, str] | None
    by_hand: bool
    """Someone other than the daemon put it there."""


@lru_cache(maxsize=512)
def keys_of(content: bytes) -> Mapping[Kid, str] | None:
    """Read a set as a verifier does: public JWKs by kid; None for what is no set."""
    try:
        keys = json.loads(content)["keys"]
        return {Kid(key["kid"]): json.dumps(key, sort_keys=True, separators=(",", ":")) for key in keys}
    except (ValueError, TypeError, KeyError):
        return None


@lru_cache(maxsize=512)
def _published(content: bytes) -> PublishedSet | None:
    kids = jwks.parse_kids(content)
    return None if kids is None else PublishedSet(kids, hashlib.sha256(content).hexdigest(), content)


def places(keyset: KeysetName) -> tuple[str, ...]:
    """Return the paths of a keyset's set."""
    own = f"keysets/{keyset}/jwks.json"
    return (own, ".well-known/jwks.json") if keyset == DEFAULT_KEYSET else (own,)


def _meta(keyset: KeysetName) -> str:
    return f"keysets/{keyset}/jwks.meta.json"


def _described(issuer: str, content: bytes, witness: Mapping[str, object] | None) -> bytes:
    """Return the meta file of a set, and in one with it what must change with the issuer."""
    members: dict[str, object] = {"issuer": issuer, "sha256": hashlib.sha256(content).hexdigest()}
    return jwks.attested(members, {} if witness is None else witness)


def keyset_of(path: str) -> KeysetName:
    """Return the keyset whose set stands at ``path``."""
    return DEFAULT_KEYSET if path.startswith(".well-known") else KeysetName(path.split("/")[1])


@dataclass(slots=True)
class Tree:
    """The files, and what they were."""

    files: dict[str, bytes] = field(default_factory=dict)
    stamps: dict[str, int] = field(default_factory=dict)
    versions: dict[str, list[Version]] = field(default_factory=dict)
    written: list[tuple[str, bytes]] = field(default_factory=list)
    """Sets that a daemon wrote since this was last looked at."""
    served: bool = True
    """A web server shows it."""
    _stamp: int = 0

    def put(self, path: str, content: bytes | None, now: datetime, *, by_hand: bool = False) -> None:
        """Replace a file, or remove it."""
        self._stamp += 1
        self.stamps[path] = self._stamp
        if content is None:
            self.files.pop(path, None)
        else:
            self.files[path] = content
        if path.endswith("jwks.json"):
            if content is not None and not by_hand:
                self.written.append((path, content))
            self._remember(path, None if content is None else keys_of(content), now, by_hand=by_hand)

    def withdraw(self, now: datetime) -> None:
        """Show nothing any more: the web server is gone."""
        self.served = False
        for path in self.versions:
            self._remember(path, None, now, by_hand=True)

    def _remember(self, path: str, keys: Mapping[Kid, str] | None, now: datetime, *, by_hand: bool) -> None:
        versions = self.versions.setdefault(path, [])
        if versions and versions[-1].keys == keys and versions[-1].by_hand == by_hand:
            return
        versions.append(Version(now, keys, by_hand))
        while len(versions) > 2 and versions[1].since < now - KEPT:
            del versions[0]

    def copies(self, path: str, oldest: datetime) -> list[Version]:
        """Return the sets that someone who fetched since ``oldest`` may hold now, what others put there left out."""
        versions = self.versions[path]
        ends = [version.since for version in versions[1:]]
        held = [version for version, end in zip(versions, ends, strict=False) if end > oldest]
        return [version for version in (*held, versions[-1]) if version.keys is not None and not version.by_hand]

    def last_without(self, path: str, kid: Kid, now: datetime) -> datetime | None:
        """Return when a set without ``kid`` was last shown at ``path``; None: never, as far as anyone remembers."""
        end: datetime | None = now
        for version in reversed(self.versions[path]):
            if version.keys is not None and not version.by_hand and kid not in version.keys:
                return end
            end = version.since
        return None


class StandInPublisher:
    """One process's hands on a tree; implements the port."""

    def __init__(self, tree: Tree, hazards: Hazards, now: Callable[[], datetime]) -> None:
        self._tree = tree
        self._hazards = hazards
        self._now = now
        self._read: dict[str, int] = {}
        self.aside: list[bytes] = []

    def read(self, keyset: KeysetName, *, fully: bool = False) -> PublishedSet | None:
        contents = {self._content(path) for path in places(keyset)}
        content = contents.pop()
        return None if contents or content is None else _published(content)

    def found(self, keyset: KeysetName) -> PublishedSet | None:
        sets = [found for path in places(keyset) if (found := jwks.parse_set(self._content(path) or b"")) is not None]
        keys: dict[Kid, str] = {}
        for kid, text in chain.from_iterable(sets):
            keys.setdefault(kid, text)
        return _published(f'{{"keys":[{",".join(keys.values())}]}}'.encode()) if sets else None

    def _content(self, path: str) -> bytes | None:
        self._read[path] = self._tree.stamps.get(path, 0)
        return self._tree.files.get(path)

    def publish(self, publication: Publication) -> PublishedSet:
        name = publication.policy.name
        try:
            content = jwks.render(publication.jwks)
        except jwks.JwksError as error:
            raise PublishError(str(error)) from error
        part = publication.witness if publication.witness is not None else jwks.meta_witness(self.meta(name))
        for path in places(name):
            self._put(path, content)
        self._put(_meta(name), _described(publication.policy.issuer, content, part))
        standing = self.read(name)
        if standing is None:
            raise PublishError("the tree does not hold what was just written")
        return standing

    def _put(self, path: str, content: bytes) -> None:
        if self._tree.files.get(path) == content:
            return
        if self._hazards.disk_full:
            if self._hazards.files_until_full == 0:
                raise PublishError(f"cannot write {path}: No space left on device")
            self._hazards.files_until_full -= 1
        self._hazards.before("file")
        self._tree.put(path, content, self._now())
        self._hazards.done("file")
        self._read[path] = self._tree.stamps[path]

    def take_out(self, keyset: KeysetName, kids: Collection[Kid], now: datetime) -> bool:
        left = {path: jwks.without(self._content(path) or b"", kids) for path in places(keyset)}
        for path, content in left.items():
            if content is not None:
                self._put(path, content)
                kept = jwks.meta_witness(self.meta(keyset)) or {}
                self._put(_meta(keyset), jwks.attested({"sha256": "of another set"}, kept))
        return any(content is not None for content in left.values())

    def intact(self, publication: Publication, *, fully: bool = False) -> bool:
        name = publication.policy.name
        content = jwks.render(publication.jwks)
        standing = self.meta(name) or b""
        return all(self._content(path) == content for path in places(name)) and (
            _described(publication.policy.issuer, content, jwks.meta_witness(standing)) == standing
        )

    def meta(self, keyset: KeysetName) -> bytes | None:
        return self._content(_meta(keyset))

    def attest(self, keyset: KeysetName, witness: Mapping[str, object]) -> bool:
        standing, published = self.meta(keyset), self.read(keyset)
        members = None if standing is None else jwks.meta_members(standing)
        if members is None or published is None or members.get("sha256") != published.sha256:
            return False
        self._put(_meta(keyset), jwks.attested(members, witness))
        return True

    def unchanged(self, keyset: KeysetName) -> bool:
        paths = (*places(keyset), _meta(keyset))
        return all(path in self._read and self._read[path] == self._tree.stamps.get(path) for path in paths)

    def keep_aside(self, keyset: KeysetName, content: bytes, now: datetime) -> str:
        self.aside.append(content)
        return f"aside/{len(self.aside)}"

    def remove(self, keyset: KeysetName) -> bool:
        stood = self.found(keyset) is not None
        for path in places(keyset):
            self._tree.put(path, None, self._now())
        return stood

    def withdraw(self, keyset: KeysetName, content: bytes, now: datetime) -> str:
        for path in (_meta(keyset), *places(keyset)):
            self._tree.put(path, None, self._now())
        return self.keep_aside(keyset, content, now)
