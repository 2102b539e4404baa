"""What is told of the time ahead: one entry for each thing that happens."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import Final

from rotator.core.actions import ActivateKey, DemoteKey, PublishSet, RetireKey
from rotator.core.model import KeysetName, KeysetState, Kid, Phase, SigningKey, WorkspaceId
from rotator.core.policy import KeysetPolicy
from rotator.core.schedule import Calendar
from rotator.report.known import KnownKeyset
from rotator.report.unrolling import Turn, turns


class Step(StrEnum):
    """What happens."""

    PUBLISH = "publish"  # a new key is made and joins the set
    ACTIVATE = "activate"  # a key begins to sign
    DEMOTE = "demote"  # the key that signed until then goes to grace
    RETIRE = "retire"  # a key leaves the set
    REVOKE = "revoke"  # a key is taken out of the set at once; only where it is asked what that would do
    END = "end"  # a key stops signing and has no successor
    ROTATE = "rotate"  # a workspace gets its next token


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEntry:
    """Something that is going to happen."""

    at: datetime
    what: Step
    subject: str
    """The kid, or a placeholder for one that is yet to be made; the workspace, or how many of them."""
    why: str
    keyset: KeysetName | None = None
    workspace: WorkspaceId | None = None
    count: int = 1
    last_at: datetime | None = None
    """Of the last one where several are told together."""
    estimated: bool = False
    """It hangs on a key or token that is yet to be made, so that it may come a little earlier or later."""


# ------------------------------------------------------------------------------------------------------------ keysets


def unroll(
    known: KnownKeyset, now: datetime, until: datetime, calendar: Calendar, *, limit: int
) -> Iterator[PlanEntry]:
    """Yield what happens to a keyset, at most ``limit`` events, each at the moment at which the planner asks for it."""
    told = (entry for turn in turns(known, now, until, calendar) for entry in tell(turn, known.policy))
    return islice(told, limit)


def tell(turn: Turn, policy: KeysetPolicy) -> Iterator[PlanEntry]:
    """Yield what of a turn is worth telling."""
    state, action, at = turn.before, turn.action, turn.at
    keys = {key.kid: key for key in state.keys}
    match action:
        case PublishSet():
            new = [kid for kid in action.kids if kid not in (state.published or ())]
            if new:
                from_at = at + policy.propagation_period
                wait = "at once" if state.first_publication else f"from {from_at:%Y-%m-%d %H:%M}"
                why = f"spare, may sign {wait}"
                yield _entry(Step.PUBLISH, ", ".join(new), why, action.keyset, at, estimated=_unborn(keys[new[0]]))
        case ActivateKey():
            why = _REASONS.get(action.reason, str(action.reason))
            estimated = _hangs(state, action, keys)
            yield _entry(Step.ACTIVATE, action.kid, why, action.keyset, at, estimated=estimated)
            if action.prior is not None and action.prior_grace_until is not None:
                why = f"in grace until {action.prior_grace_until:%Y-%m-%d %H:%M}"
                yield _entry(Step.DEMOTE, action.prior, why, action.keyset, at, estimated=estimated)
        case RetireKey():
            why = _REASONS.get(action.reason, str(action.reason))
            estimated = _unborn(keys[action.kid]) or _followed_by_unborn(keys[action.kid], state)
            yield _entry(Step.RETIRE, action.kid, why, action.keyset, at, estimated=estimated)
        case DemoteKey():
            yield _entry(Step.END, action.kid, "the keyset left the config", action.keyset, at)
        case _:
            return


_REASONS: Final[dict[str, str]] = {
    "first": "the first key",
    "security_period": "the security period ends",
    "requested": "an operator asked for it",
    "signer_lost": "no key can sign",
    "grace_over": "its grace is over",
    "keyset_ended": "the keyset left the config",
    "algorithm_changed": "its algorithm is no longer wanted",
    "unusable": "its private half cannot be used",
}


def _entry(
    what: Step, subject: str, why: str, keyset: KeysetName, at: datetime, *, estimated: bool = False
) -> PlanEntry:
    return PlanEntry(at=at, what=what, subject=subject, why=why, keyset=keyset, estimated=estimated)


def _unborn(key: SigningKey) -> bool:
    return not key.public_jwk


def _followed_by_unborn(key: SigningKey, state: KeysetState) -> bool:
    """Tell whether the key's grace began with a successor that is yet to be made."""
    return any(_unborn(other) and other.activated_at == key.demoted_at for other in state.keys)


def _hangs(state: KeysetState, action: ActivateKey, keys: Mapping[Kid, SigningKey]) -> bool:
    prior = next((key for key in state.keys if key.phase is Phase.ACTIVE), None)
    return _unborn(keys[action.kid]) or (prior is not None and _unborn(prior))
