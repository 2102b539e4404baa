"""The witness part of the meta file that stands beside each published set, and how it is kept.

The database and the witness file lie in one directory, which a snapshot can put back as a whole; the published tree is
another place. So each ``jwks.meta.json`` says what must be known of its keyset even then: under a MAC of the KEK, for
anybody can read the file, and whoever serves the tree may write it. No secret is in it.

- It is written with each set, and again where what it says of the keys changed: once an hour at most, for that is how
  the ends of tokens are rounded. The head of the audit that it names is that of the last writing.
- One that is not authentic, of another installation, or older than what this tree held is reported once, and written
  again. It holds nothing up.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from rotator.core.instants import from_us, to_us
from rotator.core.jwks import canonical, meta_witness
from rotator.core.model import Algorithm, KekId, KeysetName, Kid
from rotator.engine.knowledge import is_newer
from rotator.engine.run import Attested, Run
from rotator.errors import PublishError, SealError
from rotator.ports import AuditHead, PublishedWitness, Publisher, Sealer, Snapshot, WitnessedKey, WitnessedKeyset

FORMAT: Final = 1
PURPOSE: Final = "published-meta"
AT_ONCE: Final = 16
"""How many metas are written anew in one tick, each with its fsync: a stop and a revocation wait no longer for them."""


@dataclass(frozen=True, slots=True)
class Metas:
    """The metas of one tree, read."""

    authentic: tuple[PublishedWitness, ...] = ()
    problems: Mapping[KeysetName, str] = field(default_factory=dict)
    """Why others say nothing, by keyset; where no meta stands, or one without a witness part, there is no problem."""


def read_metas(publisher: Publisher, sealer: Sealer, names: Iterable[KeysetName]) -> Metas:
    """Read and authenticate the metas of some keysets."""
    authentic: list[PublishedWitness] = []
    problems: dict[KeysetName, str] = {}
    for name in names:
        try:
            part = meta_witness(publisher.meta(name))
        except PublishError as error:
            problems[name] = str(error)
            continue
        if part is None:
            continue
        found = _authenticate(sealer, part)
        if isinstance(found, str):
            problems[name] = found
        elif found.keyset != name:
            problems[name] = f"it is that of keyset {found.keyset}, put in another place"
        else:
            authentic.append(found)
    return Metas(tuple(authentic), problems)


def _authenticate(sealer: Sealer, part: Mapping[str, Any]) -> PublishedWitness | str:
    """Return what the part says, or why it cannot be believed."""
    try:
        kek_id, mac = KekId(str(part["kek_id"])), bytes.fromhex(part["mac"])
        if not sealer.verify_mac(PURPOSE, _content(part), mac, kek_id):
            return f"it was changed, or was not written under the KEK {kek_id!r} of this installation"
        if part["format"] != FORMAT:
            return f"it has format {part['format']}, and this version reads {FORMAT}"
        return _decode(part)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, SealError):
        return "it is damaged"


def _content(part: Mapping[str, object]) -> bytes:
    return canonical({name: value for name, value in part.items() if name != "mac"}).encode()


def _encode(sealer: Sealer, witness: PublishedWitness) -> Mapping[str, object]:
    part: dict[str, object] = {
        "format": FORMAT,
        "kek_id": witness.kek_id,
        "installation": witness.installation,
        "keyset": witness.keyset,
        "generation": witness.known.generation,
        "audit_seq": witness.audit_seq,
        "audit_hash": witness.audit_hash,
        "active": witness.known.active,
        "published": [
            {
                "kid": key.kid,
                "sequence": key.sequence,
                "algorithm": key.algorithm,
                "public_jwk": key.public_jwk,
                "ends_at_us": None if key.ends_at is None else to_us(key.ends_at),
            }
            for key in witness.known.published
        ],
        "revoked": sorted(witness.revoked_kids),
    }
    return {**part, "mac": sealer.mac(PURPOSE, _content(part), witness.kek_id).hex()}


def _decode(part: Mapping[str, Any]) -> PublishedWitness:
    published = tuple(
        WitnessedKey(
            kid=Kid(key["kid"]),
            algorithm=Algorithm(key["algorithm"]),
            public_jwk=key["public_jwk"],
            sequence=key["sequence"],
            ends_at=None if key["ends_at_us"] is None else from_us(key["ends_at_us"]),
        )
        for key in part["published"]
    )
    return PublishedWitness(
        installation=part["installation"],
        keyset=KeysetName(part["keyset"]),
        kek_id=KekId(part["kek_id"]),
        audit_seq=part["audit_seq"],
        audit_hash=part["audit_hash"],
        known=WitnessedKeyset(part["generation"], part["active"], published),
        revoked_kids=frozenset(Kid(kid) for kid in part["revoked"]),
    )


def report_metas(run: Run, problems: Mapping[KeysetName, str]) -> None:
    """Report metas that do not count, each once until that changes: they are written again with what is known."""
    for name, problem in problems.items():
        if run.refused_metas.get(name) != problem:
            run.around.log.event("publish.meta_refused", keyset=name, problem=problem)
    run.refused_metas = dict(problems)


def is_outdone(run: Run, snapshot: Snapshot, name: KeysetName) -> bool:
    """Look, before the meta of a keyset is replaced, whether it knows what the database lacks, and note it if so.

    A tree that was away when the daemon started, as on a file system that is mounted late, may be a newer one.
    """
    if run.sealer is not None and run.reconciled and not run.outdone:
        metas = read_metas(run.around.publisher, run.sealer, [name]).authentic
        mine = [meta for meta in metas if meta.installation == snapshot.installation()]
        run.outdone = any(is_newer(snapshot, meta, run.policy.keysets) for meta in mine)
    return run.outdone


# ------------------------------------------------------------------------------------------------------------- writing


def facts_of(run: Run, snapshot: Snapshot, name: KeysetName, known: WitnessedKeyset) -> Attested | None:
    """Return what the meta of a keyset is to say, beside the head of the audit; None while nothing can be sealed."""
    if run.sealer is None:
        return None
    return Attested(run.sealer.kek_id, snapshot.installation(), known, _revoked(run, snapshot)(name))


def part_of(run: Run, name: KeysetName, facts: Attested | None, head: AuditHead) -> Mapping[str, object] | None:
    """Return the witness part that says ``facts``; None where the one that stands is to be kept.

    So it is while nothing can be sealed, and while the database was not held against the witnesses yet, as with a clock
    that is not trusted: it may be an older one, and what it says must not outdo what they know. What was revoked is
    added to that.
    """
    if run.sealer is None or facts is None:
        return None
    if not run.reconciled:
        standing = read_metas(run.around.publisher, run.sealer, [name]).authentic
        if not standing or standing[0].installation != facts.installation:
            return None
        revoked = standing[0].revoked_kids | facts.revoked_kids
        return _encode(run.sealer, replace(standing[0], kek_id=facts.kek_id, revoked_kids=revoked))
    return _encode(
        run.sealer,
        PublishedWitness(
            installation=facts.installation,
            keyset=name,
            kek_id=facts.kek_id,
            audit_seq=head.seq,
            audit_hash=head.hash,
            known=facts.known,
            revoked_kids=facts.revoked_kids,
        ),
    )


def _revoked(run: Run, snapshot: Snapshot) -> Callable[[KeysetName], frozenset[Kid]]:
    """Return what gives the revoked kids of a keyset: its own, and those of which no row says whose they were."""
    for kid in run.revoked_kids - run.revoked_in.keys():
        row = snapshot.key(kid)
        run.revoked_in[kid] = None if row is None else row.key.keyset
    by_keyset: dict[KeysetName | None, set[Kid]] = {}
    for kid in run.revoked_kids:
        by_keyset.setdefault(run.revoked_in[kid], set()).add(kid)
    return lambda name: frozenset(by_keyset.get(name, set()) | by_keyset.get(None, set()))


def write_metas(run: Run, *, beat: bool) -> bool:
    """Let each meta say what is known of its keyset now, where that changed; tell whether more of them wait.

    One that cannot be written is tried again at the next heartbeat.
    """
    if run.sealer is None:
        return False
    with run.around.store.read() as snapshot:
        head, installation, revoked = snapshot.audit_head(), snapshot.installation(), _revoked(run, snapshot)
        return _write_stale(run, snapshot, head, installation, revoked, beat=beat)


def _write_stale(
    run: Run,
    snapshot: Snapshot,
    head: AuditHead,
    installation: str,
    revoked: Callable[[KeysetName], frozenset[Kid]],
    *,
    beat: bool,
) -> bool:
    sealer, written = run.ready_sealer, 0
    for name, known in run.witnessed.items():
        facts, before = Attested(sealer.kek_id, installation, known, revoked(name)), run.attested.get(name)
        if facts == before or (before is not None and before.known.generation > known.generation):
            run.healed(f"meta:{name}")
            continue
        if f"publish:{name}" in run.faults:
            run.faults.pop(f"meta:{name}", None)  # one failure is one fault: the set cannot be written, either
            continue
        if f"meta:{name}" in run.faults and not beat:
            continue
        if written == AT_ONCE or is_outdone(run, snapshot, name):
            return True
        try:
            done = run.around.publisher.attest(name, part_of(run, name, facts, head) or {})
        except PublishError as error:
            run.fault(f"meta:{name}", str(error), "publish.failed", keyset=name)
            continue
        run.healed(f"meta:{name}")
        if done:
            run.attested[name] = facts
            written += 1
    return False
