"""What a config changes for tokens that are out: each lives to its end, whatever the config says by now."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final, NamedTuple

from rotator.core.counting import counted
from rotator.core.model import WorkspaceState
from rotator.core.policy import Policy
from rotator.core.sinks import left_behind, path_of
from rotator.ports import Snapshot

NAMED_AT_MOST: Final = 5
"""Workspaces, and files, that are named one by one."""


class _Held(NamedTuple):
    """The current token of a workspace."""

    workspace: str
    jti: str
    ends_at: datetime


def prior_tokens(snapshot: Snapshot, policy: Policy, now: datetime) -> Iterator[str]:
    """Yield what there is to know about tokens of before, where ``policy`` is not in force yet."""
    changed: list[_Held] = []
    removed: list[_Held] = []
    for state in snapshot.workspaces():
        held = _held(state, now)
        if held is None or state.removed_at is not None:
            continue
        wanted = policy.workspaces.get(state.id)
        if wanted is None:
            removed.append(held)
        elif state.claims_fingerprint != wanted.claims_fingerprint(policy.keysets[wanted.keyset].issuer):
            changed.append(held)
    yield from _told(
        changed,
        "{0} is to say something else (roles, permissions, audience, keyset or issuer) and gets a new token; the prior "
        "one lives to its end, at {1}, with what it says. To end it before: rotator replace {2} --overlap 1h, or "
        "rotator revoke token {3}",
    )
    yield from _told(
        removed,
        "{0} is not in this config: it gets no new token, and the one that is out lives to its end, at {1}. To end it "
        "before: rotator revoke token {3}",
    )


def files_left(snapshot: Snapshot, policy: Policy) -> Iterator[str]:
    """Yield which files of sinks ``policy`` has no more, and what becomes of them."""
    found: list[str] = []
    for state in snapshot.workspaces():
        wanted = policy.workspaces.get(state.id)
        sinks = () if wanted is None else wanted.sinks
        if state.removed_at is not None or (wanted is not None and state.sinks_fingerprint == wanted.sinks_fingerprint):
            continue
        for row in snapshot.deliveries(state.id):
            path = path_of(row.sink)
            if path is None or not left_behind([row.sink], sinks):
                continue
            fate = "is deleted if it still holds our token" if row.sink in state.deletes else "stays where it is"
            found.append(f"{path} of workspace {state.id} is no sink any more: the file {fate}")
    yield from found[:NAMED_AT_MOST]
    if len(found) > NAMED_AT_MOST:
        yield f"{counted(len(found) - NAMED_AT_MOST, 'more file')} of sinks that are no more"


def _held(state: WorkspaceState, now: datetime) -> _Held | None:
    ends_at = state.current_expires_at
    return (
        None if state.current is None or ends_at is None or ends_at <= now else _Held(state.id, state.current, ends_at)
    )


def _told(found: Iterable[_Held], text: str) -> Iterator[str]:
    held = sorted(found)
    for each in held[:NAMED_AT_MOST]:
        ends = f"{each.ends_at:%Y-%m-%d %H:%M:%SZ}"
        yield text.format(f"workspace {each.workspace}", ends, each.workspace, each.jti)
    if more := held[NAMED_AT_MOST:]:
        last = max(each.ends_at for each in more)
        yield (
            f"the same holds for {counted(len(more), 'more workspace')}; the last of their tokens ends at "
            f"{last:%Y-%m-%d %H:%M:%SZ} (rotator tokens list)"
        )
