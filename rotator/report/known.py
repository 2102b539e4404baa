"""What the planner would know of a keyset, built from the database alone: the ground of previews and reports.

The published tree is not looked at. What every replica was seen to hold stands for it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from rotator.core.model import ALWAYS, KeysetState, Kid, Origin, Phase, ReplicaId, SigningKey
from rotator.core.planner import desired_kids
from rotator.core.policy import KeysetPolicy, Policy
from rotator.core.stored_policy import policy_from_json
from rotator.ports import KeysetRow, Sighting, Snapshot


@dataclass(frozen=True, slots=True)
class KnownKeyset:
    """A keyset with the policy that it rotates by."""

    row: KeysetRow
    policy: KeysetPolicy
    state: KeysetState


def known_keysets(snapshot: Snapshot, policy: Policy, now: datetime) -> tuple[KnownKeyset, ...]:
    """Return every keyset that has not ended, by name."""
    return tuple(
        known_keyset(snapshot, row, policy, now)
        for row in snapshot.keysets()
        if row.ended_at is None and (row.name in policy.keysets or _says_how_it_ends(row))
    )


def _says_how_it_ends(row: KeysetRow) -> bool:
    """Tell whether the row of a keyset that has left the config is one that can be read; it is a fault if not."""
    try:
        policy_from_json(row.policy)
    except (ValueError, KeyError, TypeError):
        return False
    return row.authentic


def known_keyset(snapshot: Snapshot, row: KeysetRow, policy: Policy, now: datetime) -> KnownKeyset:
    """Return what is known of one keyset."""
    own = policy.keysets.get(row.name)
    if own is None:
        own = replace(policy_from_json(row.policy), ending=True)
    sightings = snapshot.sightings(row.name)
    replicas = frozenset(replica.replica for replica in snapshot.replicas())
    state = KeysetState(
        name=row.name,
        keys=tuple(stored.key for stored in snapshot.keys(row.name)),
        next_sequence=row.next_sequence,
        schedule_fingerprint=row.schedule_fingerprint,
        ever_active=row.ever_active,
        first_publication=not row.ever_active and not sightings,
        out_since=out_since(sightings, replicas),
        in_use=not own.ending or snapshot.keyset_in_use(row.name, now),
        wish=snapshot.wish(row.name),
    )
    if row.set_sha256:
        # A key that was only just made is still to be published.
        new = {key.kid for key in state.keys if key.phase is Phase.PENDING} - {sighting.kid for sighting in sightings}
        state = replace(state, published=tuple(kid for kid in desired_kids(state) if kid not in new))
    return KnownKeyset(row, own, state)


def foreign_until(key: SigningKey, now: datetime) -> datetime | None:
    """Return until when tokens can live that another system, or a database that is gone, signed with ``key``.

    None: there are none by ``now``. Nobody here counts them, and where the key has signed here as well, this is no
    earlier than the end of what it signed here: it is the latest that they can live.
    """
    if key.origin is Origin.MADE or key.last_exp is None or key.last_exp <= now:
        return None
    return key.last_exp


def out_since(sightings: Iterable[Sighting], replicas: frozenset[ReplicaId]) -> dict[Kid, datetime]:
    """Return since when every replica has held each kid, by the wall clock.

    ``replicas`` are those that must hold it, beside any that has a sighting, such as the served URL.
    """
    sightings = tuple(sightings)
    wanted = replicas | {sighting.replica for sighting in sightings}
    holders: dict[Kid, dict[ReplicaId, datetime]] = {}
    for sighting in sightings:
        since = sighting.absent_until
        if since is None or sighting.seen_at >= since:  # else it was lost, and not seen again yet
            holders.setdefault(sighting.kid, {})[sighting.replica] = ALWAYS if since is None else since
    return {kid: max(held.values()) for kid, held in holders.items() if wanted <= held.keys()}
