"""The planner of workspace tokens, and what a changed config does to workspaces."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from rotator.core.actions import Reason
from rotator.core.model import DueWorkspace, Jti, KeysetName, Kid, Overlap, Phase, Token, WorkspaceId, WorkspaceState
from rotator.core.policy import CommandSink, FileSink, Policy, RotationWindow, WorkspacePolicy
from rotator.core.schedule import key_rotation_due, share, token_rotation_due
from rotator.core.sinks import path_of, sink_id
from rotator.core.tokens import OverlapEnds, plan_overlaps, plan_sync, plan_token, survey_sync
from tests.core.worlds import CALENDAR, DAY, HOUR, T0, keyset_policy

ACME = WorkspacePolicy(
    id=WorkspaceId("acme"),
    keyset=KeysetName("default"),
    security_period=8 * DAY,
    grace_period=DAY,
    audience=("api",),
    roles=("admin",),
)
ISSUER = "https://tokens.example.com"


def policy_of(*workspaces: WorkspacePolicy) -> Policy:
    return Policy(keysets={KeysetName("default"): keyset_policy()}, workspaces={w.id: w for w in workspaces})


def state_of(policy: WorkspacePolicy, *, issued_at: datetime = T0) -> WorkspaceState:
    return WorkspaceState(
        id=policy.id,
        keyset=policy.keyset,
        sequence=3,
        due_at=token_rotation_due(policy, issued_at, CALENDAR),
        current=Jti("t3"),
        current_kid=Kid("k"),
        current_issued_at=issued_at,
        current_expires_at=issued_at + policy.lifetime,
        claims_fingerprint=policy.claims_fingerprint(ISSUER),
        schedule_fingerprint=policy.schedule_fingerprint,
        sinks_fingerprint=policy.sinks_fingerprint,
    )


DUE = DueWorkspace(
    id=ACME.id,
    sequence=3,
    current=Jti("t3"),
    current_expires_at=T0 + ACME.lifetime,
    due_reason="",
)


def test_an_overlap_ends_a_token_that_has_a_successor_and_no_other() -> None:
    """One that is retired, revoked or gone leaves nothing to do; the current one of its workspace is left alone."""
    token = Token(
        jti=Jti("t1"),
        workspace=ACME.id,
        keyset=ACME.keyset,
        kid=Kid("k"),
        phase=Phase.GRACE,
        sequence=1,
        issued_at=T0,
        expires_at=T0 + DAY,
        rotate_at=T0 + HOUR,
    )
    overlap = Overlap(token.jti, token.workspace, T0 + HOUR, "ada(1000)")

    def planned(phase: Phase, now: datetime) -> OverlapEnds:
        return plan_overlaps([(overlap, token._replace(phase=phase))], now)

    assert planned(Phase.GRACE, T0 + HOUR) == OverlapEnds(((overlap, token),), ())
    assert planned(Phase.GRACE, T0 + HOUR - timedelta(microseconds=1)) == OverlapEnds((), ())
    assert planned(Phase.ACTIVE, T0 + DAY) == OverlapEnds((), ())
    for phase in (Phase.RETIRED, Phase.REVOKED):
        assert planned(phase, T0 + HOUR) == OverlapEnds((), (token.jti,))
    assert plan_overlaps([(overlap, None)], T0) == OverlapEnds((), (token.jti,))


def test_the_next_token_lives_for_its_security_and_its_grace_period() -> None:
    action = plan_token(DUE, ACME, T0 + 8 * DAY, CALENDAR)

    assert action.sequence == 4
    assert action.prior == Jti("t3")
    assert action.expires_at == T0 + 17 * DAY
    assert T0 + 15 * DAY < action.rotate_at <= T0 + 16 * DAY
    assert action.reason is Reason.SECURITY_PERIOD


@pytest.mark.parametrize("reason", [Reason.KEY_REVOKED, Reason.TOKEN_REVOKED])
def test_a_token_that_was_revoked_does_not_go_to_grace(reason: Reason) -> None:
    action = plan_token(DUE._replace(due_reason=reason), ACME, T0 + 9 * DAY, CALENDAR)

    assert (action.reason, action.prior) == (reason, None)


@pytest.mark.parametrize(
    ("due", "reason"),
    [
        (DUE._replace(current=None), Reason.FIRST),
        (DUE._replace(due_reason="key_revoked"), Reason.KEY_REVOKED),
    ],
)
def test_the_reason_of_a_token_is_recorded(due: DueWorkspace, reason: Reason) -> None:
    assert plan_token(due, ACME, T0 + 9 * DAY, CALENDAR).reason is reason


def test_a_new_workspace_is_due_at_once() -> None:
    plan = plan_sync([], policy_of(ACME), T0, CALENDAR)

    assert [(state.id, state.due_at, state.sequence) for state in plan.new] == [("acme", T0, 0)]
    assert plan.changes


def test_an_unchanged_config_changes_nothing() -> None:
    plan = plan_sync([state_of(ACME)], policy_of(ACME), T0 + DAY, CALENDAR)

    assert not plan.changes
    assert plan.known == 1


def test_a_workspace_that_left_gets_nothing_new_and_one_that_returns_begins_again() -> None:
    gone = plan_sync([state_of(ACME)], policy_of(), T0 + DAY, CALENDAR)
    assert [state.removed_at for state in gone.removed] == [T0 + DAY]
    assert gone.changes

    assert not plan_sync(gone.removed, policy_of(), T0 + 2 * DAY, CALENDAR).changes

    back = plan_sync(gone.removed, policy_of(ACME), T0 + 2 * DAY, CALENDAR)
    assert [(state.sequence, state.due_at, state.removed_at) for state in back.new] == [(3, T0 + 2 * DAY, None)]
    assert [state.returned_at for state in back.new] == [T0 + 2 * DAY], "a token from before is its former holder's"
    assert plan_sync([], policy_of(ACME), T0, CALENDAR).new[0].returned_at is None


def test_changed_claims_make_the_token_due_early_and_spread_a_crowd() -> None:
    """One is due practically at once; a thousand within 50 ms each, so that they do not come together."""
    changed = replace(ACME, roles=("viewer",))
    plan = plan_sync([state_of(ACME)], policy_of(changed), T0 + DAY, CALENDAR)
    assert plan.claims_changed == 1
    assert plan.changes
    assert plan.updated[0].due_reason == Reason.CLAIMS_CHANGED
    assert plan.updated[0].due_at - (T0 + DAY) < timedelta(milliseconds=50)

    crowd = [replace(ACME, id=WorkspaceId(f"w{n}")) for n in range(1000)]
    plan = plan_sync(
        [state_of(one) for one in crowd], policy_of(*(replace(one, roles=("x",)) for one in crowd)), T0 + DAY, CALENDAR
    )
    dues = [state.due_at - (T0 + DAY) for state in plan.updated]
    assert dues == [timedelta(seconds=50) * share(one.id) for one in crowd]
    assert len({int(due.total_seconds()) for due in dues}) > 40


def test_a_crowd_is_spread_over_a_tenth_of_its_period_at_most() -> None:
    crowd = [replace(ACME, id=WorkspaceId(f"w{n}"), security_period=timedelta(seconds=100)) for n in range(1000)]
    plan = plan_sync(
        [state_of(one) for one in crowd], policy_of(*(replace(one, roles=("x",)) for one in crowd)), T0, CALENDAR
    )
    assert [state.due_at for state in plan.updated] == [T0 + timedelta(seconds=10) * share(one.id) for one in crowd]


def test_claims_that_changed_twice_do_not_put_the_token_off() -> None:
    state = state_of(ACME)._replace(due_at=T0 + HOUR)
    plan = plan_sync([state], policy_of(replace(ACME, roles=("x",))), T0 + 2 * HOUR, CALENDAR)

    assert plan.updated[0].due_at == T0 + HOUR


@pytest.mark.parametrize(
    ("security_period", "due_at"),
    [(4 * DAY, T0 + 4 * DAY - 4 * DAY / 10 * share("acme")), (30 * DAY, T0 + 8 * DAY)],
    ids=["shorter", "longer, held by the end of the token that is out"],
)
def test_a_changed_period_moves_the_due_time(security_period: timedelta, due_at: datetime) -> None:
    plan = plan_sync([state_of(ACME)], policy_of(replace(ACME, security_period=security_period)), T0 + DAY, CALENDAR)

    assert plan.rescheduled == 1
    assert plan.changes
    assert plan.updated[0].due_at == due_at


@pytest.mark.parametrize("member", ["current_issued_at", "current_expires_at"])
def test_a_workspace_without_a_token_stays_due_when_its_period_changes(member: str) -> None:
    state = state_of(ACME)._replace(due_at=T0, **{member: None})  # type: ignore[arg-type] # two instants
    plan = plan_sync([state], policy_of(replace(ACME, security_period=DAY)), T0 + DAY, CALENDAR)

    assert plan.updated[0].due_at == T0


def test_a_config_is_held_against_each_workspace_by_itself() -> None:
    """One that is new, unchanged, has other roles, another period, other sinks, came back, left, left long ago."""
    names = ["unchanged", "roles", "period", "sinks", "back", "left", "long-ago"]
    before = {name: replace(ACME, id=WorkspaceId(name)) for name in names}
    states = [
        state_of(one)._replace(removed_at=T0 if name in {"back", "long-ago"} else None) for name, one in before.items()
    ]
    wanted = policy_of(
        replace(ACME, id=WorkspaceId("new")),
        before["unchanged"],
        replace(before["roles"], roles=("x",)),
        replace(before["period"], security_period=4 * DAY),
        replace(before["sinks"], sinks=(FileSink("/run/acme/token"),)),
        before["back"],
    )

    plan = plan_sync(states, wanted, T0 + DAY, CALENDAR)

    def ids(states: tuple[WorkspaceState, ...]) -> list[str]:
        return [state.id for state in states]

    assert (ids(plan.new), ids(plan.updated)) == (["new", "back"], ["period", "roles"])
    assert (ids(plan.sinks_changed), ids(plan.removed)) == (["sinks"], ["left"])
    assert (plan.claims_changed, plan.rescheduled, plan.known) == (1, 1, 5)


def test_changed_sinks_are_planned_without_a_new_token() -> None:
    changed = replace(ACME, sinks=(FileSink("/run/acme/token"),))
    plan = plan_sync([state_of(ACME)], policy_of(changed), T0 + DAY, CALENDAR)

    assert not plan.updated
    assert plan.changes
    assert [state.sinks_fingerprint for state in plan.sinks_changed] == [changed.sinks_fingerprint]


class OneOpening:
    """A calendar with a single opening."""

    def __init__(self, opening: datetime | None) -> None:
        self.opening = opening

    def last_opening(self, window: RotationWindow, *, after: datetime, until: datetime) -> datetime | None:
        opening = self.opening
        fits = opening is not None and after < opening and opening + window.duration <= until
        return opening if fits else None


WINDOW = RotationWindow("0 3 * * sun", "Europe/Berlin", HOUR)


def test_a_window_moves_the_rotation_to_its_opening_plus_a_share_of_its_duration() -> None:
    policy = replace(ACME, rotation_window=WINDOW)

    due = token_rotation_due(policy, T0, OneOpening(T0 + 5 * DAY))

    assert due == T0 + 5 * DAY + HOUR * share("acme")


def test_a_token_may_rotate_in_any_opening_after_its_issue() -> None:
    policy = replace(ACME, rotation_window=WINDOW)

    assert token_rotation_due(policy, T0, OneOpening(T0 + HOUR)) < T0 + 2 * HOUR
    assert token_rotation_due(policy, T0, OneOpening(T0)) > T0 + 7 * DAY


def test_without_a_fitting_opening_the_end_of_the_period_counts() -> None:
    policy = replace(ACME, rotation_window=WINDOW)

    due = token_rotation_due(policy, T0, OneOpening(None))

    assert T0 + 8 * DAY * 0.9 <= due <= T0 + 8 * DAY


def test_a_key_rotates_in_no_opening_before_its_successor_can_be_out() -> None:
    policy = replace(keyset_policy(), rotation_window=WINDOW)

    assert key_rotation_due("k", policy, T0, OneOpening(T0 + 48 * HOUR)) > T0 + 80 * DAY
    assert key_rotation_due("k", policy, T0, OneOpening(T0 + 50 * HOUR)) < T0 + 52 * HOUR


def test_shares_are_even_and_lasting() -> None:
    shares = [share(f"workspace-{n}") for n in range(10_000)]

    assert all(0 <= one < 1 for one in shares)
    assert abs(sum(shares) / len(shares) - 0.5) < 0.02
    assert share("acme") == share("acme")


def test_files_that_go_are_those_of_before_that_no_sink_of_now_names() -> None:
    """A workspace that left loses all of them, one that stays those that it names no more."""
    gone, kept = FileSink("/run/gone", deletes=True), FileSink("/run/kept", deletes=True)
    command = CommandSink(("/bin/true",))
    both = replace(ACME, sinks=(gone, kept, command))
    (fresh,) = plan_sync([], policy_of(both), T0, CALENDAR).new
    assert fresh.deletes == ("file:/run/gone", "file:/run/kept")
    assert survey_sync([fresh], policy_of(both)).to_delete == ()
    one = replace(both, sinks=(replace(kept, deletes=False),))
    assert survey_sync([fresh], policy_of(one)).to_delete == (("acme", "file:/run/gone"),)
    (changed,) = plan_sync([fresh], policy_of(one), T0, CALENDAR).sinks_changed
    assert changed.deletes == ("file:/run/gone",), "until it is gone"
    left = fresh._replace(removed_at=T0)
    assert len(survey_sync([left], policy_of()).to_delete) == 2
    assert survey_sync([fresh._replace(current=None)], policy_of()).removed == ("acme",)
    assert survey_sync([fresh._replace(claims_fingerprint="other")], policy_of(both)).claims_changed == 1
    assert path_of(sink_id(command)) is None
    assert survey_sync([state_of(ACME)], policy_of(ACME)).holders == {"default": 1}
