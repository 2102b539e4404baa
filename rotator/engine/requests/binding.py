"""What a request is bound to when it is accepted, and what is said when that no longer fits.

A person decides by what they see. What was asked of one key, token, config or state of the clock is not carried out on
another that has taken its place since: it is refused, with what changed and what to do.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from rotator.core.durations import format_duration
from rotator.core.events import Detail
from rotator.core.instants import MICROSECOND, to_us
from rotator.core.model import Jti, KeysetName, Kid, Phase, WorkspaceId, WorkspaceState
from rotator.core.planner import IN_SET
from rotator.core.policy import Policy
from rotator.core.timeguard import SMALLEST_STEP, ClockMark
from rotator.core.tokens import SyncSurvey, survey_sync
from rotator.engine.run import Run
from rotator.engine.timekeeping import judge_clock
from rotator.errors import RefusedError
from rotator.ports import Reading, RequestRow, Snapshot

LIVING: Final = (Phase.ACTIVE, Phase.GRACE)

NOTHING: Final = "none"
"""Stands for a key or a token where there is none."""

Bound = Mapping[str, Detail]


def bind(run: Run, snapshot: Snapshot, draft: RequestRow, reading: Reading) -> Bound:
    """Return what ``draft`` is to be bound to; raise :class:`RefusedError` where that is not there."""
    binder = _BINDERS.get(draft.kind)
    return {} if binder is None else binder(run, snapshot, draft, reading)


# --------------------------------------------------------------------------------------------------------------- keys


def signing_key(snapshot: Snapshot, keyset: KeysetName) -> Kid | None:
    """Return the key that signs on ``keyset``."""
    return next((row.key.kid for row in snapshot.keys(keyset) if row.key.phase is Phase.ACTIVE), None)


def _bind_signing(_run: Run, snapshot: Snapshot, draft: RequestRow, _reading: Reading) -> Bound:
    return {"signing": signing_key(snapshot, KeysetName(str(draft.arguments.get("keyset", "")))) or NOTHING}


def require_signing(found: Kid | None, seen: str) -> None:
    """Raise :class:`RefusedError` where another key signs than the one that was seen."""
    if (found or NOTHING) != seen:
        now = "no key signs" if found is None else f"key {found} signs"
        raise RefusedError(f"{now} now, and not {seen}: it was rotated meanwhile. Look again before you do more")


def _every_key(_run: Run, snapshot: Snapshot, draft: RequestRow, _reading: Reading) -> Bound:
    keys = snapshot.keys(KeysetName(str(draft.arguments.get("keyset", ""))))
    return {"kids": json.dumps([row.key.kid for row in keys if row.key.phase in IN_SET])}


def bound_kids(request: RequestRow) -> list[Kid]:
    """Return the keys that the revocation of a keyset is of."""
    return [Kid(kid) for kid in json.loads(str(request.bound.get("kids", "[]")))]


# ------------------------------------------------------------------------------------------------------------- tokens


def _current_token(_run: Run, snapshot: Snapshot, draft: RequestRow, _reading: Reading) -> Bound:
    state = snapshot.workspace(WorkspaceId(str(draft.arguments.get("workspace", ""))))
    return {"jti": NOTHING if state is None else state.current or NOTHING}


def require_current(request: RequestRow, state: WorkspaceState) -> None:
    """Raise :class:`RefusedError` where a workspace has another current token than when the request was accepted."""
    seen = request.bound.get("jti")
    if (state.current or NOTHING) != seen:
        raise RefusedError(
            f"the current token of workspace {state.id} is {state.current or NOTHING} now, and not {seen}: it was "
            "replaced meanwhile. Look again before you do more: rotator tokens list"
        )


def _living_tokens(_run: Run, snapshot: Snapshot, draft: RequestRow, _reading: Reading) -> Bound:
    tokens = snapshot.tokens(WorkspaceId(str(draft.arguments.get("workspace", ""))))
    living = [token.jti for token in tokens if token.phase in LIVING]
    return {"jtis": json.dumps(living)}


def bound_jtis(request: RequestRow) -> frozenset[Jti]:
    """Return the tokens that the revocation of a workspace is of."""
    return frozenset(Jti(jti) for jti in json.loads(str(request.bound.get("jtis", "[]"))))


# ------------------------------------------------------------------------------------------------------------- config


def waiting_config(run: Run) -> Policy:
    """Return the config that waits to be accepted: one that was refused, or the one that this process starts with."""
    if run.refused_policy is not None:
        return run.refused_policy
    if run.started_at is None:
        return run.policy
    raise RefusedError("no config waits to be accepted")


def _config(run: Run, snapshot: Snapshot, _draft: RequestRow, _reading: Reading) -> Bound:
    policy = waiting_config(run)
    return {"config": policy.digest, **_dropped(survey_sync(snapshot.workspaces(), policy))}


def _dropped(survey: SyncSurvey) -> Bound:
    names = json.dumps(sorted(survey.removed))
    return {"drops": len(survey.removed), "dropped": hashlib.sha256(names.encode()).hexdigest()}


def require_config(run: Run, request: RequestRow) -> Policy:
    """Return the config that was accepted; raise :class:`RefusedError` where another waits."""
    policy = waiting_config(run)
    if policy.digest != request.bound.get("config"):
        raise RefusedError(
            "another config waits now than the one that was accepted: its files were changed since. See what it drops "
            "(rotator status, rotator check), and accept that if it is meant: rotator config accept --reason WHY"
        )
    return policy


def require_same_drops(survey: SyncSurvey, request: RequestRow) -> None:
    """Raise :class:`RefusedError` where the config drops other workspaces than when it was accepted."""
    found, seen = _dropped(survey), request.bound
    if found != {name: seen.get(name) for name in found}:
        raise RefusedError(
            f"the config was accepted when it dropped {seen.get('drops')} workspaces, and now it drops "
            f"{found['drops']}, or others: the database was changed since. See what it drops (rotator status), and "
            "accept that if it is meant: rotator config accept --reason WHY"
        )


# -------------------------------------------------------------------------------------------------------------- clock


def _clock(run: Run, snapshot: Snapshot, _draft: RequestRow, reading: Reading) -> Bound:
    return {
        "boot_id": reading.boot_id,
        "since_boot_us": reading.since_boot // MICROSECOND,
        "wall_us": to_us(reading.now),
        **_doubt(run, snapshot, reading),
    }


def _doubt(run: Run, snapshot: Snapshot, reading: Reading) -> Bound:
    verdict, against = judge_clock(run, snapshot, reading)
    return {"doubt": "" if verdict.trusted else _name(against), "problem": verdict.held}


def _name(mark: ClockMark | None) -> str:
    """Name a memory of time: the sentence about it says the time, and so changes with each look."""
    if mark is None:
        return NOTHING
    return f"{to_us(mark.high_water_at)} {mark.boot_id} {mark.offset // MICROSECOND}"


def require_clock(run: Run, snapshot: Snapshot, request: RequestRow, reading: Reading) -> None:
    """Raise :class:`RefusedError` where it is not the clock that a person saw, or is doubted for another reason."""
    seen = request.bound
    look = "look at the time (timedatectl), and accept it if it is right: rotator clock accept --reason WHY"
    if reading.boot_id != seen.get("boot_id"):
        raise RefusedError(f"the machine was started again since the clock was accepted; {look}")
    passed = reading.since_boot - int(seen.get("since_boot_us") or 0) * MICROSECOND
    moved = (to_us(reading.now) - int(seen.get("wall_us") or 0)) * MICROSECOND - passed
    if abs(moved) > max(run.policy.clock_skew, SMALLEST_STEP):
        shown = format_duration(timedelta(seconds=round(abs(moved).total_seconds())))
        way = "forward" if moved > timedelta(0) else "back"
        raise RefusedError(f"the clock was moved {way} by {shown} since it was accepted; {look}")
    found = _doubt(run, snapshot, reading)
    if found["doubt"] and found["doubt"] != seen.get("doubt"):
        before = (
            f"when it was accepted: {seen.get('problem')}" if seen.get("doubt") else "when it was accepted it was not"
        )
        raise RefusedError(f"the clock is doubted for another reason now: {found['problem']}; {before}; {look}")


_BINDERS: Final[Mapping[str, Callable[[Run, Snapshot, RequestRow, Reading], Bound]]] = MappingProxyType(
    {
        "clock.accept": _clock,
        "config.accept": _config,
        "keyset.revoke": _every_key,
        "keyset.rotate": _bind_signing,
        "keyset.rotate_at_once": _bind_signing,
        "token.replace": _current_token,
        "token.show": _current_token,
        "workspace.revoke": _living_tokens,
    }
)
