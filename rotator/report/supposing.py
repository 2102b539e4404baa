"""What things would be like: the keysets and workspaces after a change that is only supposed."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from rotator.core import lifecycle
from rotator.core.actions import Reason
from rotator.core.compromise import needs_choice, without
from rotator.core.model import KeysetName, KeysetState, Kid, Wish, WorkspaceId, WorkspaceState
from rotator.core.planner import IN_SET, ready_at, spares
from rotator.core.policy import KeysetPolicy, Policy
from rotator.core.schedule import Calendar
from rotator.core.stored_policy import policy_from_json
from rotator.core.tokens import SyncPlan, plan_sync
from rotator.errors import ConfigError, UnknownNameError
from rotator.ports import KeysetRow, Snapshot
from rotator.report.known import KnownKeyset, known_keyset, known_keysets
from rotator.report.naming import key_named


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that the time ahead is told from."""

    policy: Policy
    keysets: tuple[KnownKeyset, ...]
    workspaces: Mapping[WorkspaceId, WorkspaceState]
    revoked: tuple[Kid, ...] = ()
    """Supposed to be revoked at this moment."""
    assumed: str = ""
    """What else is supposed, where an operator would have to choose."""
    check: Callable[[], None] = lambda: None
    """Raises when nobody waits any more for what is told from it."""

    def unused_from(self, name: KeysetName, now: datetime) -> datetime | None:
        """Return when the last token on a keyset that left the config ends; None while the config has it."""
        if name in self.policy.keysets:
            return None
        on_it = [state for state in self.workspaces.values() if state.keyset == name]
        if any(state.removed_at is None for state in on_it):
            return None
        return max((end for state in on_it if (end := state.current_expires_at) is not None), default=now)


def standing(snapshot: Snapshot, policy: Policy, now: datetime) -> World:
    """Return how things stand under the policy in force."""
    states = {state.id: state for state in snapshot.workspaces()}
    return World(policy=policy, keysets=known_keysets(snapshot, policy, now), workspaces=states)


# ----------------------------------------------------------------------------------------------------- another config


def in_force(snapshot: Snapshot, wanted: Policy, now: datetime) -> World:
    """Return how things stand under what the database was brought in step with, whatever the config says by now.

    It holds all of a keyset's policy but the rotation window: where that is not the one of ``wanted``, rotations after
    the next one are told without it.
    """
    keysets = []
    policies: dict[KeysetName, KeysetPolicy] = {}
    for row in snapshot.keysets():
        if row.ended_at is not None:
            continue
        policy = _policy_of(row, wanted)
        if not policy.ending:
            policies[row.name] = policy
        known = known_keyset(snapshot, row, Policy(keysets=policies), now)
        state = replace(known.state, schedule_fingerprint=policy.schedule_fingerprint)
        keysets.append(KnownKeyset(known.row, policy, state))
    states = {state.id: state for state in snapshot.workspaces()}
    return World(policy=replace(wanted, keysets=policies), keysets=tuple(keysets), workspaces=states)


def _policy_of(row: KeysetRow, wanted: Policy) -> KeysetPolicy:
    stored = policy_from_json(row.policy)
    same = wanted.keysets.get(row.name)
    if same is not None and same.schedule_fingerprint == row.schedule_fingerprint and same.issuer == stored.issuer:
        return same
    ending = replace(stored, ending=True)
    return ending if ending.schedule_fingerprint == row.schedule_fingerprint else stored


def changed(
    snapshot: Snapshot, before: World, wanted: Policy, now: datetime, calendar: Calendar
) -> tuple[World, SyncPlan]:
    """Return how things would stand with ``wanted`` loaded at ``now``, and what loading it would do to workspaces."""
    sync = plan_sync(before.workspaces.values(), wanted, now, calendar)
    states = dict(before.workspaces)
    states |= {state.id: state for state in (*sync.new, *sync.updated, *sync.removed)}
    known = known_keysets(snapshot, wanted, now)
    there = {each.row.name for each in known}
    new = [_new_keyset(policy, now) for name, policy in wanted.keysets.items() if name not in there]
    return World(policy=wanted, keysets=(*known, *new), workspaces=states), sync


def _new_keyset(policy: KeysetPolicy, now: datetime) -> KnownKeyset:
    row = KeysetRow(name=policy.name, due_at=now, schedule_fingerprint=policy.schedule_fingerprint)
    state = KeysetState(name=policy.name, schedule_fingerprint=policy.schedule_fingerprint, first_publication=True)
    return KnownKeyset(row, policy, state)


# --------------------------------------------------------------------------------------------------------- what-if


def suppose(world: World, text: str, now: datetime) -> World:
    """Return the world after ``revoke:KID`` or ``rotate:KEYSET``; raise :class:`ConfigError` for any other ``text``.

    Raise :class:`UnknownNameError` where there is no such key or keyset.
    """
    kind, _, name = text.partition(":")
    if kind == "revoke" and name:
        return _revoked(world, name, now)
    if kind == "rotate" and name:
        return _rotated(world, name, now)
    raise ConfigError(f"--what-if: found {text!r}, expected revoke:KID (or the beginning of one) or rotate:KEYSET")


def _revoked(world: World, name: str, now: datetime) -> World:
    published = (key for known in world.keysets for key in known.state.keys if key.phase in IN_SET)
    key = key_named(published, name, where=" in a published set")
    known = next(each for each in world.keysets if each.row.name == key.keyset)
    keys = tuple(lifecycle.revoke(each, now=now) if each is key else each for each in known.state.keys)
    after = KnownKeyset(known.row, known.policy, replace(known.state, keys=keys))
    waits_until = _waits_until(known, key.kid, now)
    due = waits_until or now
    states = {
        state.id: state._replace(due_at=due if waits_until else min(state.due_at, due), due_reason=Reason.KEY_REVOKED)
        for state in world.workspaces.values()
        if state.current_kid == key.kid and state.removed_at is None
    }
    assumed = "" if waits_until is None else _ASSUMED.format(known.row.name, waits_until)
    return replace(
        _with_keyset(world, known, after),
        workspaces={**world.workspaces, **states},
        revoked=(key.kid,),
        assumed=assumed,
    )


_ASSUMED: Final = (
    "keyset {} has no spare that every verifier can know: this is with `revoke key --wait`, by which no token is "
    "issued until {:%Y-%m-%d %H:%MZ}. With --now the next key signs at once, and verifiers that cache may refuse the "
    "new tokens"
)


def _waits_until(known: KnownKeyset, kid: Kid, now: datetime) -> datetime | None:
    """Return when a key can sign again after ``kid`` is revoked; None: one can at once, or nothing is to sign."""
    if not needs_choice(known.state, known.policy, now, {kid}):
        return None
    left = without(known.state, {kid}, now)
    moments = [ready_at(left, spare.kid, known.policy) for spare in spares(left, known.policy)]
    return min((at for at in moments if at is not None), default=now + known.policy.propagation_period)


def _rotated(world: World, name: str, now: datetime) -> World:
    known = next((each for each in world.keysets if each.row.name == name), None)
    if known is None:
        names = ", ".join(each.row.name for each in world.keysets)
        raise UnknownNameError(f"--what-if: there is no keyset {name!r}; there are: {names}")
    state = replace(known.state, wish=Wish(asked_at=now, actor="(supposed)"))
    return _with_keyset(world, known, KnownKeyset(known.row, known.policy, state))


def _with_keyset(world: World, before: KnownKeyset, after: KnownKeyset) -> World:
    return replace(world, keysets=_replaced(world.keysets, before, after))


def _replaced(keysets: Iterable[KnownKeyset], before: KnownKeyset, after: KnownKeyset) -> tuple[KnownKeyset, ...]:
    return tuple(after if known is before else known for known in keysets)
