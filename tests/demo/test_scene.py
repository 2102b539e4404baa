"""Lanes say what was, what is, and what the deadlines say will be."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rotator.config import load
from rotator.core.model import DEFAULT_KEYSET, Algorithm, Jti, Kid, Origin, Phase, WorkspaceId
from rotator.demo.scene import Lane, Stage, _key_lanes, _token_lane
from rotator.demo.world import CONFIG
from rotator.report.lists import KeyEntry, TokenEntry

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def key(phase: Phase, created: float, **moments: datetime) -> KeyEntry:
    dates: dict[str, datetime | None] = dict.fromkeys(
        ("activated_at", "rotate_at", "demoted_at", "grace_until", "retired_at", "ready_at")
    )
    return KeyEntry(
        kid=Kid(f"{phase}-key"),
        keyset=DEFAULT_KEYSET,
        algorithm=Algorithm.ES256,
        phase=phase,
        origin=Origin.MADE,
        sequence=1,
        created_at=after(created),
        last_exp=None,
        revoked_at=None,
        destroyed_at=None,
        **(dates | moments),
    )


def key_lanes(tmp_path: Path, *entries: KeyEntry) -> list[Lane]:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    policy = load(path, {}, now=NOW).policy.keysets[DEFAULT_KEYSET]
    assert (policy.security_period, policy.propagation_period) == (timedelta(seconds=12), timedelta(seconds=4))
    assert policy.grace_period == timedelta(seconds=12)
    return list(_key_lanes(entries, policy, NOW))


def spans(lane: Lane) -> dict[Stage, tuple[float, float]]:
    return {
        each.stage: ((each.start - NOW).total_seconds(), (each.end - NOW).total_seconds())
        for each in lane.stretches
        if each.start < each.end
    }


RETIRED = key(
    Phase.RETIRED,
    -40,
    activated_at=after(-40),
    rotate_at=after(-28),
    demoted_at=after(-27),
    grace_until=after(-15),
    retired_at=after(-14),
)
GRACE = key(
    Phase.GRACE,
    -40,
    activated_at=after(-27),
    rotate_at=after(-5),
    demoted_at=after(-5),
    grace_until=after(7),
)
ACTIVE = key(Phase.ACTIVE, -30, activated_at=after(-5), rotate_at=after(6.5))
NEXT = key(Phase.PENDING, -20, ready_at=after(-16))
SPARE = key(Phase.PENDING, -1, ready_at=after(3))


def test_lanes_of_keys_go_from_recorded_dates_to_those_to_come(tmp_path: Path) -> None:
    """The next key begins where the one that signs ends, and the one after where that will end at the latest."""
    lanes = key_lanes(tmp_path, RETIRED, GRACE, ACTIVE, NEXT, SPARE)
    assert [spans(lane) for lane in lanes] == [
        {Stage.ACTIVE: (-40, -27), Stage.GRACE: (-27, -14)},
        {Stage.ANNOUNCED: (-40, -36), Stage.READY: (-36, -27), Stage.ACTIVE: (-27, -5), Stage.GRACE: (-5, 7)},
        {Stage.ANNOUNCED: (-30, -26), Stage.READY: (-26, -5), Stage.ACTIVE: (-5, 6.5), Stage.GRACE: (6.5, 18.5)},
        {Stage.ANNOUNCED: (-20, -16), Stage.READY: (-16, 6.5), Stage.ACTIVE: (6.5, 18.5), Stage.GRACE: (18.5, 30.5)},
        {Stage.ANNOUNCED: (-1, 3), Stage.READY: (3, 18.5), Stage.ACTIVE: (18.5, 30.5), Stage.GRACE: (30.5, 42.5)},
    ]
    assert [lane.note for lane in lanes] == [
        "out of the set",
        "retires in 7s",
        "signs for 7s",
        "signs in 7s",
        "known in 3s",
    ]


def test_a_second_key_that_waits_is_a_spare(tmp_path: Path) -> None:
    lanes = key_lanes(tmp_path, ACTIVE, NEXT, replace(SPARE, ready_at=after(-1)))
    assert [lane.note for lane in lanes][1:] == ["signs in 7s", "spare"]


def test_a_key_that_should_sign_already_does_not_seem_to(tmp_path: Path) -> None:
    """A rotation that is late is shown as still to come."""
    _, late = key_lanes(tmp_path, replace(ACTIVE, rotate_at=after(-2)), NEXT)
    assert spans(late)[Stage.ACTIVE][0] == 0
    assert late.note == "signs in 0s"


TOKEN = TokenEntry(
    workspace=WorkspaceId("acme"),
    jti=Jti("jti"),
    kid=Kid("kid"),
    keyset=DEFAULT_KEYSET,
    phase=Phase.ACTIVE,
    sequence=3,
    issued_at=after(-2),
    expires_at=after(8),
    rotate_at=after(2.5),
    superseded_at=None,
    retired_at=None,
    revoked_at=None,
    deliveries=(),
)


@pytest.mark.parametrize(
    ("token", "phase", "note", "replaced"),
    [
        (TOKEN, Phase.ACTIVE, "expires in 8s", 2.5),
        (replace(TOKEN, phase=Phase.GRACE, superseded_at=after(-1)), Phase.GRACE, "expires in 8s", -1),
        (replace(TOKEN, phase=Phase.GRACE, superseded_at=after(-1), expires_at=NOW), Phase.RETIRED, "expired", -1),
    ],
)
def test_a_token_is_current_until_it_is_replaced(token: TokenEntry, phase: Phase, note: str, replaced: float) -> None:
    """One that has expired is shown so, whenever its record says that."""
    lane = _token_lane(token, NOW)
    assert (lane.name, lane.phase, lane.note) == ("acme #3", phase, note)
    assert spans(lane)[Stage.ACTIVE] == (-2, replaced)
