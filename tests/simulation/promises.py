"""The twelve promises, each a small checker that judges by what the world shows, never by what the planner thinks.

A checker is given the world and the replica that ticked last, and returns what is wrong, or the empty string. Facts
come from the chronicle (the audit, read back), from the trees and their past, from the sinks and from the rows of the
database. Time is true time; a trusted clock may be wrong by the skew that is configured.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from rotator.core.model import KeysetName, Kid, WorkspaceId
from tests.simulation.chronicle import EPOCH, Entry
from tests.simulation.keys import PRIVATE, TOKEN
from tests.simulation.setting import SKEW
from tests.simulation.tree import Tree, keys_of, keyset_of, places
from tests.simulation.verifiers import HABITS, Verifier
from tests.simulation.world import ADA, BrokenPromiseError, Replica, World
from tests.stand_ins import DAY

PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})
PLANNED: Final = "security_period"
BY_THE_CLOCK: Final = frozenset(
    {
        "key.made",
        "key.activated",
        "key.demoted",
        "key.retired",
        "key.destroyed",
        "token.issued",
        "token.delivered",
        "token.retired",
    }
)
"""What must not happen while the clock is distrusted."""

ASKED: Final = {
    "clock.accepted": ("clock.accept",),
    "config.accepted": ("config.accept",),
    "keyset.rotation_requested": ("keyset.rotate", "keyset.rotate_at_once"),
    "keyset.revoked": ("keyset.revoke",),
    "token.replacement_requested": ("token.replace",),
    "workspace.revoked": ("workspace.revoke",),
}
"""Events of which a request makes one, and by which kinds."""

NEVER: Final = datetime.max.replace(tzinfo=UTC)

WHOLE: Final = ("down", "clock", "kek", "store")
"""Troubles of everything."""


class Promise(NamedTuple):
    """A promise of the design, by number."""

    number: int
    name: str
    check: Callable[[World, Replica | None], str]


# -------------------------------------------------------------------------------------------------------- the promises


def no_valid_token_is_refused(world: World, _: Replica | None) -> str:
    """Every copy that a verifier may hold knows the key of every token that is out."""
    oldest = world.now - world.setting.max_cache
    for keyset, kids in world.chronicle.live(world.now).items():
        ahead = world.revoked_ahead
        promised = [kid for kid in kids if kid not in world.suspended or world.now > world.suspended[kid]]
        promised = [kid for kid in promised if kid not in ahead]
        for name, tree in world.trees:
            for path in places(keyset):
                if path in tree.versions and (problem := _missing(world, tree, path, promised, oldest)):
                    return f"a token is out on {problem} of {name}"
    return _asked(world)


def _missing(world: World, tree: Tree, path: str, kids: Sequence[Kid], oldest: datetime) -> str:
    """Return which of ``kids`` some copy of a file lacks."""
    for copy in tree.copies(path, oldest):
        for kid in kids:
            if copy.keys is not None and copy.keys.get(kid) != world.forge.made[kid]:
                return f"{kid}, and a copy since {copy.since} of the {path} lacks it"
    return ""


def _asked(world: World) -> str:
    """Ask one of the services that verify tokens, by its own habits, whether it accepts a token that is out."""
    out = [(keyset, kid) for keyset, kids in world.chronicle.live(world.now).items() for kid in kids]
    ahead = world.revoked_ahead
    live = [(keyset, kid) for keyset, kid in out if world.now > world.suspended.get(kid, EPOCH) and kid not in ahead]
    served = [replica for replica in world.replicas.values() if replica.tree.served]
    habit = world.random.choice([habit for habit in HABITS if habit.promised(world.setting.max_cache)])
    choice = world.random.random()
    if not live or not served:
        return ""
    keyset, kid = live[int(choice * len(live))]
    replica = served[int(choice * 7919) % len(served)]
    path = places(keyset)[-1]
    if path not in replica.tree.versions:
        return ""
    key = (replica.name, path, habit.name)
    verifier = world.verifiers.setdefault(key, Verifier(habit, path))
    accepted = verifier.accepts(kid, world.forge.made[kid], replica.tree, world.now)
    for revoked, since in world.chronicle.revoked.items():
        forgotten = habit.max_age + world.setting.patience
        if revoked in (verifier.keys or {}) and world.now - since > forgotten and world.calm_for(*WHOLE) > forgotten:
            return f"{habit.name} still accepts {revoked} of {replica.name}, which was revoked {world.now - since} ago"
    if accepted or verifier.unavailable:
        return ""
    return f"{habit.name} refuses a token on {kid}, from the {path} of {replica.name} as of {verifier.fetched_at}"


def a_key_is_published_before_it_signs(world: World, _: Replica | None) -> str:
    """Where it was not for as long as the propagation period in every tree, no set without it was ever served."""
    for entry in activations(world):
        wait = min((policy.propagation_period for policy in world.keyset_policies(entry.keyset)), default=None)
        since = missing_until(world, entry.keyset, entry.kid)
        if entry.kid in world.suspended or wait is None or since is None:
            continue
        if world.now - since < wait - 2 * SKEW:
            return f"{entry.kid} signs, and a set without it was served {world.now - since} ago; {wait} was to pass"
    return ""


def a_ready_spare_is_always_out(world: World, _: Replica | None) -> str:
    """After a planned activation the next emergency finds a key that every verifier can know."""
    for entry in activations(world):
        policies = world.keyset_policies(entry.keyset)
        if entry.reason not in (PLANNED, "requested") or not policies or entry.keyset in world.hurried:
            continue
        wait = min(policy.propagation_period for policy in policies)
        spares = [key.kid for key in world.chronicle.keys if key.keyset == entry.keyset and key.phase == "pending"]
        spares = [kid for kid in spares if kid in world.forge.made]
        missing = [missing_until(world, entry.keyset, kid) for kid in spares]
        if not any(since is None or world.now - since >= wait - 2 * SKEW for since in missing):
            return f"{entry.kid} took over, and no spare of {spares} has been out for {wait}"
    return ""


def a_private_half_dies_when_it_stops_signing(world: World, _: Replica | None) -> str:
    """Nothing but what signs, or is to, has one; what is called destroyed is nowhere in the files; keys were proven."""
    chronicle = world.chronicle
    for key in chronicle.keys:
        if key.private and key.phase not in ("pending", "active"):
            return f"{key.kid} is {key.phase} and has a private half"
    for entry in chronicle.news:
        if entry.name == "key.activated" and entry.kid not in chronicle.proven and entry.reason != "restored":
            return f"{entry.kid} signs and never proved itself"
        if entry.name == "key.destroyed" and world.database.holds_bytes(f"{PRIVATE}{entry.kid}".encode()):
            return f"the private half of {entry.kid} is said to be destroyed, and is in the database's files"
    if world.looks % 32 == 0 and not world.unreconciled:
        left = world.database.query(
            "SELECT jti FROM tokens WHERE phase = 'grace' AND sealed IS NOT NULL AND NOT EXISTS"
            " (SELECT 1 FROM deliveries WHERE deliveries.workspace = tokens.workspace AND due_at IS NOT NULL) LIMIT 1"
        )
        if left:
            return f"token {left[0][0]} has a successor that is delivered, and its sealed text is kept"
    return ""


def a_key_leaves_on_evidence(world: World, replica: Replica | None) -> str:
    """Not before the last token on it has ended, soon after, and never to come back."""
    chronicle = world.chronicle
    now = seconds(world.now)
    for entry in chronicle.news:
        if entry.name == "key.retired" and entry.kid is not None and entry.kid not in chronicle.revoked:
            left = chronicle.last_exp.get(entry.kid, 0) - now
            if left > 0:
                return f"{entry.kid} is retired while a token on it lives for {timedelta(seconds=left)}"
            left = chronicle.foreign_until.get(entry.kid, 0) - SKEW.total_seconds() - now
            if left > 0:
                return f"{entry.kid} is retired while tokens signed elsewhere live for {timedelta(seconds=left)}"
    if problem := _lingers(world) or _drops_foreign(world, replica):
        return problem
    calm = calm_keysets(world)
    patience = world.setting.patience / timedelta(seconds=1)
    for key in chronicle.keys:
        if key.phase != "grace" or key.grace_until is None or key.keyset not in calm:
            continue
        end = max(key.grace_until / 1e6, chronicle.last_exp.get(key.kid, 0) + 60)
        # As long as the witness thought that it might be needed, or as tokens that were signed elsewhere may live.
        if chronicle.counted["state.restored"] or key.origin == "imported":
            end = max(end, (key.last_exp or 0) / 1e6 + 60)
        if now > end + patience + 60 and key.origin != "adopted":
            return f"{key.kid} is still in the set, {timedelta(seconds=now - end)} after nothing needed it"
    return "" if replica is None else _came_back(world, replica)


def _lingers(world: World) -> str:
    """Tell whether a tree still shows a key that has left for good, although nothing keeps its daemon from its work."""
    for replica in world.replicas.values():
        if replica.engine is None or world.calm_for(*WHOLE, "config", "trees") < world.setting.patience:
            continue
        if min(world.calm_for(f"disk:{replica.name}"), world.now - replica.started_at) < world.setting.patience:
            continue
        for path, versions in replica.tree.versions.items():
            for kid in sorted((versions[-1].keys or {}).keys() & world.chronicle.gone.keys()):
                if world.now - world.chronicle.gone[kid] >= world.setting.patience:
                    return f"{path} of {replica.name} still shows {kid}, which has left for good"
    return ""


def _drops_foreign(world: World, replica: Replica | None) -> str:
    """Tell whether a set was written without a key that stood in it, and that tokens signed elsewhere still need."""
    if replica is None:
        return ""
    needed = {
        kid
        for kid, until in world.chronicle.foreign_until.items()
        if until - SKEW.total_seconds() > seconds(world.now) and kid not in world.chronicle.revoked
    } - world.revoked_ahead
    for path, _ in replica.tree.written:
        before, *after = [version for version in replica.tree.versions[path][-2:] if not version.by_hand]
        for version in after:
            if dropped := needed & ((before.keys or {}).keys() - (version.keys or {}).keys()):
                return f"{path} of {replica.name} was written without {min(dropped)}, which tokens of others still need"
    return ""


def _came_back(world: World, replica: Replica) -> str:
    """Tell whether a key that has left for good was published again."""
    for path, content in replica.tree.written:
        back = world.chronicle.gone.keys() & (keys_of(content) or {}).keys()
        if back and not any(entry.kid in back for entry in world.chronicle.news):
            return f"{sorted(back)[0]} has left for good, and {path} of {replica.name} was written with it"
    return ""


def the_set_is_never_worse_than_the_last_good_one(world: World, replica: Replica | None) -> str:
    """Let what a daemon writes have no private member, no kid twice, and the key that signs; never be empty."""
    if replica is None:
        return ""
    active = {key.keyset: key.kid for key in world.chronicle.keys if key.phase == "active"}
    for path, content in replica.tree.written:
        keys = json.loads(content)["keys"]
        kids = [key["kid"] for key in keys]
        keyset = keyset_of(path)
        if any(PRIVATE_MEMBERS & key.keys() for key in keys):
            return f"{path} of {replica.name} was written with a private member"
        if len(set(kids)) < len(kids):
            return f"{path} of {replica.name} was written with a kid twice: {kids}"
        if not kids and keyset in world.policy.keysets and not revoked_lately(world, keyset):
            return f"{path} of {replica.name} was written empty"
        last = replica.tree.files.get(path) == content
        signs = active.get(keyset)
        if last and signs not in (None, *kids, *world.revoked_ahead) and not world.unreconciled:
            return f"{path} of {replica.name} was written without {signs}, which signs"
    return ""


def everything_happens_exactly_once(world: World, _: Replica | None) -> str:
    """One event for each change, chained; one key that signs; sequences without a gap; no rotation before its time."""
    chronicle = world.chronicle
    if chronicle.broken:
        return chronicle.broken[0]
    for entry in chronicle.news:
        count = chronicle.once.get((entry.name, entry.jti or entry.kid or ""), 0)
        if count > 1:
            return f"{entry.name} of {entry.jti or entry.kid} happened {count} times"
        if entry.name == "token.issued" and (problem := _out_of_turn(world, entry)):
            return problem
    signing = [key.keyset for key in chronicle.keys if key.phase == "active"]
    if len(set(signing)) < len(signing):
        return f"two keys of one keyset sign: {sorted(signing)}"
    return ""


def _out_of_turn(world: World, entry: Entry) -> str:
    """Tell what is wrong with a token's place among those of its workspace."""
    assert entry.workspace is not None
    sequence = int(json.loads(entry.details)["sequence"])
    before = world.chronicle.sequences.get(entry.workspace)
    world.chronicle.sequences[entry.workspace] = sequence
    if before is None:
        world.chronicle.issued_at[entry.workspace] = entry.at
    if before is None or entry.workspace in world.chronicle.may_jump:
        world.chronicle.may_jump.discard(entry.workspace)
        return "" if before is None or sequence > before else f"{entry.workspace} goes back to token {sequence}"
    if sequence != before + 1:
        return f"{entry.workspace} was given token {sequence} after {before}"
    wanted = world.policy.workspaces.get(entry.workspace)
    previous = world.chronicle.issued_at.get(entry.workspace)
    world.chronicle.issued_at[entry.workspace] = entry.at
    if entry.reason == PLANNED and wanted is not None and previous is not None:
        shortest = wanted.security_period * 0.85 - (32 * DAY if wanted.rotation_window else timedelta(0))
        age = timedelta(microseconds=entry.at - previous)
        # A config of the same moment as the one before counts, too: the clock that dates the events may have drifted.
        if age < shortest and world.calm_for("config") > age + SKEW:
            return f"{entry.workspace} was given a token {age} after the one before, by schedule"
    return ""


def no_workspace_is_left_without_a_token(world: World, _: Replica | None) -> str:
    """When nothing is out of order, every sink holds its workspace's current token, which is not past its time."""
    if world.calm_for("elsewhere") < world.setting.patience:
        return ""  # then it is the next promise that is broken
    return _neglected(world)


def one_failure_stays_one_failure(world: World, replica: Replica | None) -> str:
    """While one workspace, sink or tree fails, all others go on, and the health report names what fails."""
    if replica is not None and replica.hazards.disk_full and replica.failure == "" and replica.engine is not None:
        behind = [name for name in replica.engine.run.policy.keysets if _not_written(world, replica, name)]
        for name in behind:
            if f"publish:{name}" not in replica.engine.run.faults and not replica.engine.run.faults:
                return f"the set of {name} cannot be written by {replica.name}, and no fault names it"
    return _neglected(world) if world.calm_for("elsewhere") < world.setting.patience else ""


def secrets_stay_sealed_and_state_is_authentic(world: World, replica: Replica | None) -> str:
    """No secret in a log or the audit, no work without the KEK, and nothing published that was made elsewhere."""
    if world.log.leaks:
        return f"the log holds a secret: {world.log.leaks[0]}"
    for entry in world.chronicle.news:
        if PRIVATE in entry.details or TOKEN in entry.details:
            return f"event {entry.seq} ({entry.name}) holds a secret"
        if entry.name == "key.activated" and entry.kid not in world.forge.made:
            return f"{entry.kid} signs, and was made by somebody else"
    if problem := _nobody_asked(world):
        return problem
    used, world.forge.used = world.forge.used, []
    # A process looks at the key-encryption key at each heartbeat.
    if used and world.kek.secret != b"kek" and world.now - world.kek_taken_at > world.setting.heartbeat:
        return f"{used[0][0]} with {used[0][1]} while the key-encryption key was not there"
    for path, content in () if replica is None else replica.tree.written:
        for kid, jwk in (keys_of(content) or {}).items():
            if world.forge.made.get(kid) != jwk:
                return f"{path} was written with {kid}, which was made by somebody else"
    return "" if replica is None else _what_was_written_down(world, replica)


def _what_was_written_down(world: World, replica: Replica) -> str:
    """Hold a replica to its journal: what it names is out of the set at once, and never back."""
    journaled = {kid for entry in replica.journal.journal.entries for kid in entry.kids}
    for path, content in replica.tree.written:
        if replica.tree.files.get(path) == content and (back := journaled & (keys_of(content) or {}).keys()):
            return f"{path} of {replica.name} was written with {min(back)}, which its journal says was revoked"
    looked = 2 * world.setting.heartbeat + world.setting.grain
    calm = min(world.calm_for("trees", "store", "down", f"disk:{replica.name}"), world.now - replica.started_at)
    if replica.engine is None or replica.failure or calm < looked:
        return ""
    for path, content in replica.tree.files.items():
        if path.endswith("jwks.json") and (shown := journaled & (keys_of(content) or {}).keys()):
            return f"{path} of {replica.name} shows {min(shown)}, which its journal says was revoked"
    return ""


def _nobody_asked(world: World) -> str:
    """Return what was done in somebody's name who did not ask for it, or more often than it was asked for."""
    news, counted = world.chronicle.news, world.chronicle.counted
    for entry in news:
        if entry.actor not in ("rotator", ADA):
            return f"{entry.name} in the name of {entry.actor}, who never asked for anything"
    for name in {entry.name for entry in news} & ASKED.keys():
        asked = sum(world.asked[kind] for kind in ASKED[name])
        if counted[name] > asked:
            return f"{name} for the {counted[name]}. time, and it was asked for {asked} times"
    return ""


def time_is_distrusted(world: World, replica: Replica | None) -> str:
    """While the clock says what it must not be believed, nothing that depends on it is done, and the report says so."""
    if not world.clock_wrong:
        return ""
    for entry in world.chronicle.news:
        if entry.name in BY_THE_CLOCK and entry.reason not in ("revoked", "key_revoked", "restored"):
            return f"{entry.name} of {entry.workspace or entry.kid} while the clock could not be trusted"
    if replica is not None and replica.engine is not None and replica.failure == "":
        faults = replica.engine.run.faults
        if "clock" not in faults and "kek" not in faults:
            return "the clock cannot be trusted, and no fault says so"
    return ""


def a_restored_backup_does_no_harm(world: World, replica: Replica | None) -> str:
    """Let what has stopped signing never sign again; it has no private half, and what was revoked stays so."""
    chronicle = world.chronicle
    for entry in chronicle.news:
        if entry.name == "token.issued" and entry.kid in chronicle.stopped and not _stopped_now(world, entry.kid):
            return f"{entry.jti} was signed with {entry.kid}, which had stopped signing"
    if world.unreconciled or replica is None:
        return ""
    for key in chronicle.keys:
        if key.kid in chronicle.stopped and key.private:
            return f"{key.kid} had stopped signing, and has its private half again"
        if key.kid in chronicle.revoked and key.phase != "revoked":
            return f"{key.kid} was revoked, and is {key.phase}"
    return ""


PROMISES: Final = (
    Promise(1, "No valid token is refused", no_valid_token_is_refused),
    Promise(2, "Publish before use", a_key_is_published_before_it_signs),
    Promise(3, "A ready spare is always out", a_ready_spare_is_always_out),
    Promise(4, "The private half dies when it stops signing", a_private_half_dies_when_it_stops_signing),
    Promise(5, "A key leaves on evidence", a_key_leaves_on_evidence),
    Promise(6, "The set is never worse than the last good one", the_set_is_never_worse_than_the_last_good_one),
    Promise(7, "Exactly once", everything_happens_exactly_once),
    Promise(8, "No workspace is left without a usable token", no_workspace_is_left_without_a_token),
    Promise(9, "One failure stays one failure", one_failure_stays_one_failure),
    Promise(10, "Secrets stay sealed, and state is authentic", secrets_stay_sealed_and_state_is_authentic),
    Promise(11, "Time is distrusted", time_is_distrusted),
    Promise(12, "A restored backup does no harm", a_restored_backup_does_no_harm),
)


def check_all(world: World, replica: Replica | None) -> None:
    """Raise :class:`BrokenPromiseError` for the first promise that does not hold."""
    _suspend(world)
    for promise in PROMISES:
        problem = promise.check(world, replica)
        if problem:
            raise BrokenPromiseError(f"promise {promise.number}, {promise.name}", problem)
    for entry in activations(world):
        world.hurried.pop(entry.keyset, None)
    for each in world.replicas.values():
        each.tree.written.clear()


def _suspend(world: World) -> None:
    """Note which tokens may be refused, and until when, because an operator chose so in an emergency.

    That is until every tree has shown the key for as long as any other must have been shown.
    """
    for entry in activations(world):
        since = missing_until(world, entry.keyset, entry.kid)
        if entry.keyset in world.hurried and since is not None:
            world.suspended[entry.kid] = world.now
    for kid in [kid for kid, until in world.suspended.items() if until >= world.now]:
        keyset = world.chronicle.keyset_of[kid]
        since = missing_until(world, keyset, kid)
        wait = max((policy.propagation_period for policy in world.keyset_policies(keyset)), default=timedelta(0))
        if since is not None:
            world.suspended[kid] = since + wait if since < world.now else NEVER  # a tree still lacks it


# ------------------------------------------------------------------------------------------------- reading the world


def seconds(moment: datetime) -> float:
    """Return seconds since the epoch, as in the claims of a token."""
    return (moment - EPOCH) / timedelta(seconds=1)


class Activation(NamedTuple):
    """That a key began to sign for the first time."""

    keyset: KeysetName
    kid: Kid
    reason: str


def activations(world: World) -> Iterator[Activation]:
    """Yield the keys that have just begun to sign; a restore that lets the one go on that signs is none."""
    for entry in world.chronicle.news:
        if entry.name == "key.activated" and entry.kid is not None and entry.keyset is not None:
            first = world.chronicle.began[entry.kid] == world.now
            if first and entry.reason != "restored":
                # Where a person wished it, the reason is theirs, and the planner's stands beside it.
                cause = json.loads(entry.details).get("cause", entry.reason)
                yield Activation(entry.keyset, entry.kid, cause)


def missing_until(world: World, keyset: KeysetName, kid: Kid) -> datetime | None:
    """Return when any tree last showed a set without ``kid``, that of a pod that left included; None: none ever did."""
    found = [
        tree.last_without(path, kid, world.now)
        for _, tree in world.trees
        for path in places(keyset)
        if path in tree.versions
    ]
    return max((moment for moment in found if moment is not None), default=None)


def revoked_lately(world: World, keyset: KeysetName) -> bool:
    """Tell whether a revocation may have left the keyset without any key."""
    revoked = world.chronicle.revoked.keys() | world.revoked_ahead
    return any(world.chronicle.keyset_of.get(kid) == keyset for kid in revoked)


def calm_keysets(world: World) -> set[KeysetName]:
    """Return the keysets on which nothing has been out of order for long enough to have everything done."""
    disks = [f"disk:{name}" for name in world.replicas]
    if world.calm_for(*WHOLE, *disks, "config") < world.setting.patience or world.unreconciled:
        return set()
    return set(world.policy.keysets)


def _neglected(world: World) -> str:
    """Return which workspace has no current token although nothing is wrong with it."""
    patience = world.setting.patience
    if world.now - world.neglect_looked_for_at < 2 * world.setting.grain:
        return ""
    world.neglect_looked_for_at = world.now
    if world.calm_for(*WHOLE, "config") < patience or world.unreconciled:
        return ""
    now = seconds(world.now)
    late = patience / timedelta(seconds=1)
    signing = {keyset: not _without_signer(world, keyset) for keyset in world.policy.keysets}
    for keyset, signs in signing.items():
        if not signs and (problem := _waits_too_long(world, keyset)):
            return problem
    settled = {keyset for keyset in signing if world.now - world.signing_since(keyset) >= patience}
    for name, wanted in world.policy.workspaces.items():
        if wanted.keyset not in settled or world.calm_for(f"workspace:{name}") < patience:
            continue
        if problem := _problem_of(world, name, now, late):
            return problem
    return ""


def _problem_of(world: World, name: WorkspaceId, now: float, late: float) -> str:
    current = world.chronicle.current.get(name)
    if current is None:
        return f"{name} has no token"
    token = world.forge.minted[current]
    revoked_at = max(
        world.chronicle.revoked_jtis.get(current, EPOCH), world.chronicle.revoked.get(token.kid, EPOCH)
    ).timestamp()
    if revoked_at and now > revoked_at + late:
        return f"the token of {name} is revoked, and it has no new one"
    for sink in world.sink_names(name):
        held = world.sinks.held.get(sink)
        settled = now > token.not_before + late
        if (held is None or held.jti != current) and settled:
            return f"the sink {sink[1]} of {name} holds {held and held.jti}, and {current} is current"
        if held is not None and now >= held.expires_at.timestamp():
            return f"the sink {sink[1]} of {name} holds {held.jti}, which has ended"
    period = world.policy.workspaces[name].security_period / timedelta(seconds=1)
    if now >= token.expires:
        return f"the token of {name} has ended, {timedelta(seconds=now - token.expires)} ago"
    if now > token.not_before + period + late + 180:
        over = timedelta(seconds=now - token.not_before - period)
        return f"the token of {name} is {over} past its security period"
    return ""


def _without_signer(world: World, keyset: KeysetName) -> bool:
    return not any(key.keyset == keyset and key.phase == "active" for key in world.chronicle.keys)


def _waits_too_long(world: World, keyset: KeysetName) -> str:
    """Tell whether a keyset has had time enough to publish a first or a fresh key and to let it sign."""
    since = max(world.awaited.get(keyset, EPOCH), world.signed_until.get(keyset, EPOCH))
    disks = [f"disk:{name}" for name in world.replicas]
    stale = any(replica.engine is None for replica in world.replicas.values())
    wait = max(policy.propagation_period for policy in world.keyset_policies(keyset))
    calm = min(world.calm_for(*disks, "trees"), world.now - since)
    if stale or calm < wait + 2 * world.setting.patience:
        return ""
    return f"keyset {keyset} has had no key that signs for {world.now - since}"


def _not_written(world: World, replica: Replica, keyset: KeysetName) -> bool:
    """Tell whether a tree lacks a key that is to be in it."""
    looked = world.setting.heartbeat + world.setting.grain
    if world.calm_for("trees", "clock", "kek", "down", f"pod:{replica.name}") < looked:
        return False
    shown = keys_of(replica.tree.files.get(places(keyset)[0], b"")) or {}
    return any(
        key.keyset == keyset
        and key.phase in ("pending", "active")
        and key.kid not in shown
        and seconds(world.now) - key.created_at / 1e6 > looked / timedelta(seconds=1)
        for key in world.chronicle.keys
        if key.kid in world.forge.made
    )


def _stopped_now(world: World, kid: Kid) -> bool:
    """Tell whether a key stopped in this very tick, after the token was signed."""
    names = ("key.demoted", "key.retired", "key.revoked")
    return any(entry.kid == kid and entry.name in names for entry in world.chronicle.news)
