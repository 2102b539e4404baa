"""What must hold of a world that was stopped and went on, whatever it was doing."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, cast

from rotator.core.events import EventName
from rotator.core.jwks import parse_set
from rotator.core.model import Origin, Phase, SigningKey
from rotator.errors import WitnessError
from rotator.ports import AuditRow
from tests.crash.disk import Loss
from tests.crash.world import Point, World
from tests.engine.site import PROPAGATION

EVENT_OF = {
    EventName.KEY_ACTIVATED: "activated_at",
    EventName.KEY_DEMOTED: "demoted_at",
    EventName.KEY_RETIRED: "retired_at",
    EventName.KEY_REVOKED: "revoked_at",
    EventName.KEY_DESTROYED: "destroyed_at",
}
"""What a key's row says when it has that event, and only then."""


def at_once(point: Point, loss: Loss) -> Iterator[str]:
    """Hold what must hold of any moment: what a web server could serve, were the daemon to stay away.

    Every set is valid, and knows the key that signs and that of every token that is out. None knows what somebody was
    told is revoked and out of it.
    """
    memory, image = point.memory, point.images[loss]
    out = {parcel.kid for parcel in memory.tokens.values() if not {parcel.jti, parcel.kid} & memory.revoked}
    for path, node in image.items():
        if not path.endswith("/jwks.json") or not path.startswith("public-"):
            continue
        entries = parse_set(node.content or b"")
        if not entries and not (entries == () and "emptied" in memory.notes):
            yield f"{path} is no valid set: {node.content!r}"
            continue
        missing = (out | set(memory.active)) - memory.revoked - {kid for kid, _ in entries or ()}
        if missing:
            yield f"{path} lacks {missing}, which signs or has signed"
        if back := {kid for kid, _ in entries} & set(cast("tuple[str, ...]", memory.notes.get("out", ()))):
            yield f"{path} shows {back}, which was said to be out of it"


def in_the_end(world: World) -> Iterator[str]:
    """Hold what must hold once everything was made up for; yield each promise that does not."""
    site = world.site
    rows = site.audit()
    yield from (f"refused: {each}" for each in site.refused)
    for (keyset, generation), digests in world.generations.items():
        if len(digests) > 1:
            yield f"generation {generation} of {keyset} was published with {len(digests)} contents"
    if faults := dict(world.daemon.run.faults):
        yield f"faults are left: {faults}"
    if found := site.chain():
        yield f"the audit chain is broken: {found}"
    yield from (f"{number} times {subject}" for subject, number in site.once().items() if number > 1)
    if lost := {row.seq for row in rows} - {row.seq for row in site.log.audited}:
        yield f"never reached the log: {sorted(lost)}"
    yield from _keys(world, rows)
    yield from _tokens(world, rows)
    yield from _private_halves(world)
    yield from _published(world)
    yield from _witness(world)
    yield from _debris(world)


def _keys(world: World, rows: list[AuditRow]) -> Iterator[str]:
    """Each key was made once, each change of it has its event, and none signed before all could know it."""
    keys = world.site.signing_keys()
    for name in {key.keyset for key in keys}:
        sequences = sorted(key.sequence for key in keys if key.keyset == name)
        if len(set(sequences)) != len(sequences) or (sequences[-1] != len(sequences) and not _restored(rows)):
            yield f"the keys of {name} have the sequences {sequences}"
        if len([key for key in keys if key.keyset == name and key.phase is Phase.ACTIVE]) > 1:
            yield f"two keys of {name} sign"
    told = {(row.event.name, row.event.kid) for row in rows}
    for key in keys:
        if key.origin is Origin.ADOPTED:
            continue
        origin = EventName.KEY_IMPORTED if key.origin is Origin.IMPORTED else EventName.KEY_MADE
        if (origin, key.kid) not in told:
            yield f"key {key.kid} has no event {origin}"
        for event, column in EVENT_OF.items():
            if ((event, key.kid) in told) != (getattr(key, column) is not None) and not _restored(rows):
                yield f"key {key.kid}: {column} and {event} do not agree"
        yield from _early(world, key)


def _early(world: World, key: SigningKey) -> Iterator[str]:
    """Hold against a key that it signed before it was in public for the propagation period; the first one may."""
    versions = world.site.history.get(("local", key.keyset), [])
    if key.activated_at is None or (versions and key.kid in versions[0].kids) or "clock" in world.notes:
        return
    since: datetime | None = None
    for version in versions:
        if version.since <= key.activated_at:
            since = (since or version.since) if key.kid in version.kids else None
    if since is None or key.activated_at - since < PROPAGATION:
        yield f"key {key.kid} signed from {key.activated_at} on, and was in public since {since}"


def _tokens(world: World, rows: list[AuditRow]) -> Iterator[str]:
    issued = [row.event for row in rows if row.event.name == EventName.TOKEN_ISSUED]
    by_workspace: dict[str, list[int]] = {}
    for event in issued:
        by_workspace.setdefault(str(event.workspace), []).append(int(str(event.details["sequence"])))
    for workspace, sequences in by_workspace.items():
        if sequences != sorted(set(sequences)):
            yield f"the tokens of {workspace} were issued as {sequences}"
        elif sequences[-1] != len(sequences) and not _restored(rows):
            yield f"a token of {workspace} is missing in {sequences}"
    stored = {jti for (jti,) in world.site.query("SELECT jti FROM tokens")}
    if stored - {event.jti for event in issued}:
        yield "there are tokens without an event of their issue"
    for name, policy in world.site.policy.workspaces.items():
        ((current, sequence),) = world.site.query("SELECT current, sequence FROM workspaces WHERE id = ?", name)
        for _ in policy.sinks:
            if current is None or world.site.held_sequence(name) != sequence:
                yield f"the sink of {name} does not hold its current token"


def _private_halves(world: World) -> Iterator[str]:
    """Only what may sign has a private half, and the bytes of the others are in no file."""
    site = world.site
    content = b"".join(path.read_bytes() for path in world.root.glob("rotator.db*") if not path.name.endswith("-shm"))
    few = 3 * len(site.query("SELECT name FROM keysets"))
    sealed = dict(site.query("SELECT kid, sealed FROM signing_keys WHERE sealed IS NOT NULL"))
    if len(sealed) > few:
        yield f"{len(sealed)} private halves are kept"
    for key in site.signing_keys():
        if key.phase not in (Phase.PENDING, Phase.ACTIVE):
            if key.kid in sealed:
                yield f"the private half of {key.kid} outlived its use ({key.phase})"
            if key.destroyed_at is None:
                yield f"key {key.kid} is {key.phase} and not destroyed"
            if key.kid in world.sealed and world.sealed[key.kid] in content:
                yield f"the private half of {key.kid} is still on the disk"


def _published(world: World) -> Iterator[str]:
    site, tree = world.site, world.daemon.tree
    for name, generation, digest in site.query(
        "SELECT name, generation, set_sha256 FROM keysets WHERE ended_at IS NULL"
    ):
        path = world.daemon.jwks(name)
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            yield f"{path} is not the set that the database has"
        meta = json.loads(path.with_name("jwks.meta.json").read_bytes())
        if (meta["sha256"], meta["generation"]) != (digest, generation):
            yield f"the meta file of {name} tells of another set: {meta}"
        yield from _attested(world, name, meta["witness"])
        if name == "default" and (tree / ".well-known" / "jwks.json").read_bytes() != content:
            yield "the two places of the set differ"
        held = {kid for kid, _ in parse_set(content) or ()}
        wanted = {
            kid
            for (kid,) in site.query(
                "SELECT kid FROM signing_keys WHERE keyset = ? AND phase IN ('pending', 'active', 'grace')", name
            )
        }
        if held != wanted:
            yield f"{name} publishes {sorted(held)}, not {sorted(wanted)}"


def _attested(world: World, name: str, witness: Mapping[str, Any]) -> Iterator[str]:
    """Hold the witness part of a meta file against the database."""
    (generation,) = world.site.query("SELECT generation FROM keysets WHERE name = ?", name)[0]
    if witness["generation"] != generation:
        yield f"the meta file of {name} attests generation {witness['generation']}, not {generation}"
    if witness["active"] != world.site.active(name):
        yield f"the meta file of {name} says that {witness['active']} signs"
    if sorted(key["kid"] for key in witness["published"]) != sorted(world.daemon.kids(name)):
        yield f"the meta file of {name} does not name what is published"
    hashes = {row.seq: row.hash for row in world.site.audit()}
    if hashes.get(witness["audit_seq"]) != witness["audit_hash"]:
        yield f"the meta file of {name} names event {witness['audit_seq']} with another hash"
    revoked = {key.kid for key in world.site.signing_keys(Phase.REVOKED) if key.keyset == name}
    if not revoked <= set(witness["revoked"]):
        yield f"the meta file of {name} does not name every key that was revoked"


def _witness(world: World) -> Iterator[str]:
    try:
        record = world.daemon.run.around.witness.read()
    except WitnessError as error:
        yield str(error)
        return
    if record is None:
        yield "there is no witness"
        return
    hashes = {row.seq: row.hash for row in world.site.audit()}
    if hashes.get(record.audit_seq) != record.audit_hash:
        yield f"the witness names event {record.audit_seq} with another hash"
    for (name,) in world.site.query("SELECT name FROM keysets WHERE ended_at IS NULL"):
        witnessed = record.keysets[name]
        if witnessed.active != world.site.active(name):
            yield f"the witness says that {witnessed.active} signs for {name}"
        if sorted(key.kid for key in witnessed.published) != sorted(world.daemon.kids(name)):
            yield f"the witness does not know what {name} publishes"


def _debris(world: World) -> Iterator[str]:
    """Nothing half-written lies about, and what is to be read by others can be."""
    for path in world.root.rglob(".*.*"):
        if path.name.endswith((".tmp", ".new")):
            yield f"{path} was left behind"
    for path in (world.daemon.tree, *world.daemon.tree.rglob("*")):
        wanted = 0o755 if path.is_dir() else 0o644
        if path.stat().st_mode & 0o777 != wanted:
            yield f"{path} has mode {path.stat().st_mode & 0o777:04o}"


def _restored(rows: list[AuditRow]) -> bool:
    return any(row.event.name in (EventName.STATE_RESTORED, EventName.STATE_INHERITED) for row in rows)
