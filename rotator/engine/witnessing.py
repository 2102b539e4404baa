"""Keeps the witness: what must be known about this installation even when its database is an old one."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType

from rotator.core.model import Jti, KeysetName, Kid, Phase, SigningKey
from rotator.core.planner import IN_SET, active_key, desired_kids
from rotator.core.timeguard import ClockMark
from rotator.engine.observe import Observed
from rotator.engine.run import Run
from rotator.errors import WitnessError
from rotator.ports import Reading, Snapshot, WitnessedKey, WitnessedKeyset, WitnessRecord


def remember_keyset(run: Run, observed: Observed, reading: Reading) -> None:
    """Take what the witness is to know of a keyset from a fresh look at it."""
    name = observed.row.name
    if all(key.authentic for key in observed.state.keys):
        run.partly_known.discard(name)
    elif name not in run.witnessed:
        run.partly_known.add(name)
    run.witnessed[name] = witnessed_keyset(run, observed, reading)


def witnessed_keyset(run: Run, observed: Observed, reading: Reading) -> WitnessedKeyset:
    """Return what a witness is to know of a keyset by a fresh look at it.

    Of a key whose row cannot be believed, or is gone, it goes on knowing what it knew: a backup may be put back because
    of that very row, and tokens on the key need it then as before.
    """
    wanted = frozenset(desired_kids(observed.state))
    active = active_key(observed.state)
    before = run.witnessed.get(observed.row.name)
    known = {} if before is None else {key.kid: key for key in before.published}
    published = list(observed.lost)
    for key in observed.state.keys:
        if key.kid in wanted:
            ends_at = _ends_at(run, key, reading.now)
            published.append(WitnessedKey(key.kid, key.algorithm, key.public_jwk, key.sequence, ends_at))
        elif key.kid in known and not key.authentic and key.phase in IN_SET:
            ends = [end for end in (known[key.kid].ends_at, _ends_at(run, key, reading.now)) if end is not None]
            published.append(replace(known[key.kid], ends_at=max(ends, default=None)))
    return WitnessedKeyset(
        generation=observed.row.generation,
        active=None if active is None else active.kid,
        published=tuple(published),
    )


def witnessed_jwks(run: Run, keyset: KeysetName) -> Mapping[Kid, str]:
    """Return the public JWKs that the witness knows to have been published, by kid."""
    known = run.witnessed.get(keyset)
    return {} if known is None else {key.kid: key.public_jwk for key in known.published}


def _ends_at(run: Run, key: SigningKey, now: datetime) -> datetime | None:
    if key.phase is Phase.PENDING:
        return key.last_exp  # None, but for an imported key: of tokens of the system that it comes from
    if key.phase is Phase.ACTIVE:
        # Room above the latest end of a token: the witness is not written for each one, but when all is compared.
        horizon = now + run.policy.longest_lifetime(key.keyset) + 2 * run.compare_interval
        end = horizon.replace(minute=0, second=0, microsecond=0)
        return end if key.last_exp is None else max(end, key.last_exp)
    ends = [end for end in (key.last_exp, key.grace_until if key.last_exp is None else None) if end is not None]
    return max(ends, default=now)


def remember_revoked(run: Run, kids: Iterable[Kid] = (), jtis: Mapping[Jti, datetime] = MappingProxyType({})) -> None:
    """Write durably what is about to be revoked: from here on no old database brings it back.

    ``jtis`` with the ``exp`` of each. While the witness was not read yet, as at a start whose clock is not trusted,
    what it says stays as it is but for this. Raises :class:`~rotator.errors.WitnessError`; it is remembered all the
    same, and written as soon as that can be done.
    """
    run.revoked_kids |= set(kids)
    run.revoked_jtis |= jtis
    write_remembered(run)


def write_remembered(run: Run) -> None:
    """Write what was revoked and answered; what else the witness says stays where it was not read in full yet."""
    if run.reconciled:
        write_witness(run)
        return
    record = run.around.witness.read()
    if record is not None:
        run.around.witness.write(
            replace(
                record,
                revoked_kids=record.revoked_kids | run.revoked_kids,
                revoked_jtis={**record.revoked_jtis, **run.revoked_jtis},
                requests={**record.requests, **run.answered},
            )
        )


def recall_revoked(run: Run, snapshot: Snapshot, reading: Reading) -> None:
    """Take from the database what was revoked: by another replica, or before the witness was lost."""
    run.revoked_kids |= {
        row.key.kid for row in snapshot.all_keys() if row.key.phase is Phase.REVOKED and row.key.authentic
    }
    run.revoked_jtis |= snapshot.revoked_tokens(reading.now)


def write_witness(run: Run) -> None:
    """Write what is remembered, if the database moved on or a revocation came."""
    if run.sealer is None or run.head is None:
        return
    run.around.witness.write(
        WitnessRecord(
            installation=run.installation,
            audit_seq=run.head.seq,
            audit_hash=run.head.hash,
            keysets=dict(run.witnessed),
            revoked_kids=frozenset(run.revoked_kids),
            revoked_jtis=dict(run.revoked_jtis),
            requests=dict(run.answered),
            replicas=run.replicas,
            clock=_to_the_hour(run.clock),
        )
    )
    run.healed("witness")  # what a request could not write, and went on without


def _to_the_hour(mark: ClockMark | None) -> ClockMark | None:
    """Round down, so that the file need not be written anew each minute."""
    if mark is None:
        return None
    return replace(mark, high_water_at=mark.high_water_at.replace(minute=0, second=0, microsecond=0))


def vouch_for(run: Run, clock: ClockMark) -> None:
    """Remember what a person says that the time is: no witness of what was known before speaks against it any more."""
    run.clock = clock
    try:
        record = run.around.witness.read()
        if record is not None:
            run.around.witness.write(replace(record, clock=_to_the_hour(clock)))
    except WitnessError as error:
        run.fault("witness", str(error), "witness.refused")
