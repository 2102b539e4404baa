"""What people are told, from a real database whose rows are put there one by one."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from rotator.adapters.calendar import CronCalendar
from rotator.adapters.signature import verify_signature
from rotator.adapters.store import SqlStore, open_store
from rotator.core.durations import format_duration
from rotator.core.events import EventName
from rotator.core.model import DEFAULT_KEYSET, Algorithm, Jti, Kid, Origin, Phase, ReplicaId, SigningKey, WorkspaceId
from rotator.core.policy import Policy, WorkspacePolicy
from rotator.core.stored_policy import policy_to_json
from rotator.errors import ConfigError, RotatorError
from rotator.ports import DeliveryRow, KeyRow, KeysetRow, ReplicaRow, Sighting
from rotator.report import Health, Report, Step, audit, from_json, keys, plan, status, to_json, tokens
from rotator.report.answers import READING, View
from rotator.report.lists import DeliveryState, TokenEntry, tokens_page
from rotator.report.proof import prove, prove_page
from rotator.report.trail import AuditFilter, page
from rotator.schemas import SHAPES, load, render
from tests.contract.records import ACME, DAY, FILE, HOUR, KEK, NOW, events, issue, issued, workspace
from tests.core.worlds import keyset_policy

POLICY = Policy(
    keysets={DEFAULT_KEYSET: keyset_policy()},
    workspaces={
        ACME: WorkspacePolicy(id=ACME, keyset=DEFAULT_KEYSET, security_period=8 * DAY, grace_period=DAY),
    },
)
AROUND: dict[str, Any] = {
    "policy": POLICY,
    "now": NOW,
    "calendar": CronCalendar(),
    "verify_signature": verify_signature,
    "published_set": lambda _: None,
}
ACTIVE, SPARE = Kid("active"), Kid("spare")
HERE = ReplicaId("local")


def key(kid: str, phase: Phase, sequence: int, **rest: object) -> KeyRow:
    base = SigningKey(
        kid=Kid(kid),
        keyset=DEFAULT_KEYSET,
        sequence=sequence,
        algorithm=Algorithm.ES256,
        phase=phase,
        created_at=NOW - 10 * DAY,
        public_jwk=f'{{"kid":"{kid}"}}',
        has_private=phase in (Phase.PENDING, Phase.ACTIVE),
    )
    own = replace(base, **rest)  # type: ignore[arg-type]  # names and types are those of the record
    return KeyRow(own, b"sealed" if own.has_private else None, KEK)


def sighting(kid: str, *, days_ago: float, replica: ReplicaId = HERE) -> Sighting:
    at = NOW - timedelta(days=days_ago)
    return Sighting(replica, DEFAULT_KEYSET, Kid(kid), at, at, "boot", timedelta(0))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    """Make a keyset with a signing key and a ready spare, and a workspace with a token."""
    opened = open_store(f"sqlite:///{tmp_path / 'rotator.db'}", create=True)
    own = POLICY.keysets[DEFAULT_KEYSET]
    with opened.begin() as transaction:
        transaction.put_keyset(
            KeysetRow(
                name=DEFAULT_KEYSET,
                generation=2,
                schedule_fingerprint=own.schedule_fingerprint,
                next_sequence=3,
                ever_active=True,
                due_at=NOW + 75 * DAY,
                set_sha256="00",
                policy=policy_to_json(own),
            )
        )
        signing = key(ACTIVE, Phase.ACTIVE, 1, proven_at=NOW, activated_at=NOW - 10 * DAY, rotate_at=NOW + 79 * DAY)
        transaction.insert_key(signing)
        transaction.insert_key(key(SPARE, Phase.PENDING, 2))
        transaction.put_sighting(sighting(ACTIVE, days_ago=10))
        transaction.put_sighting(sighting(SPARE, days_ago=9))
        transaction.put_replica(ReplicaRow(replica=HERE, started_at=NOW - 10 * DAY, seen_at=NOW))
        transaction.insert_workspaces([workspace()])
        issue(transaction)
        transaction.append(events(EventName.KEY_MADE, EventName.KEY_ACTIVATED, EventName.TOKEN_ISSUED))
        transaction.delivered(ACME, FILE, 1, NOW)
    yield opened
    opened.close()


def report(store: SqlStore, *, policy: Policy = POLICY, **rest: object) -> Report:
    with store.read() as snapshot:
        return status(snapshot, policy, NOW, rest.pop("faults", {}), **rest)  # type: ignore[arg-type]  # few, by name


def put_keyset(store: SqlStore, **changes: object) -> None:
    with store.begin() as transaction:
        row = transaction.keyset(DEFAULT_KEYSET)
        assert row is not None
        transaction.put_keyset(replace(row, **changes))  # type: ignore[arg-type]  # as above


def update_key(store: SqlStore, kid: Kid, **changes: object) -> None:
    with store.begin() as transaction:
        row = transaction.key(kid)
        assert row is not None
        transaction.update_key(replace(row.key, **changes))  # type: ignore[arg-type]  # as above


# ------------------------------------------------------------------------------------------------------------- status


def test_all_is_well(store: SqlStore) -> None:
    """A keyset with a signer and a spare, a delivered token, no faults: ok, and nothing to tell."""
    found = report(store)
    assert (found.state, found.problems) == (Health.OK, ())
    (keyset,) = found.keysets
    assert keyset.signing_kid == ACTIVE
    assert keyset.standby is not None
    assert (keyset.standby.kid, keyset.standby.ready) == (SPARE, True)
    assert keyset.standby.ready_at == NOW - 9 * DAY + 49 * HOUR
    assert keyset.keys == {"pending": 1, "active": 1, "grace": 0}
    assert keyset.next_event is not None
    assert keyset.next_event.what is Step.PUBLISH
    assert (found.workspaces.total, found.deliveries.open, found.audit.seq) == (1, 0, 3)


def _overrun(store: SqlStore) -> None:
    update_key(store, ACTIVE, activated_at=NOW - 90 * DAY - HOUR, rotate_at=NOW - 2 * DAY)


def _no_signer(store: SqlStore) -> None:
    update_key(store, ACTIVE, phase=Phase.REVOKED, revoked_at=NOW, has_private=False)


def _never_signed(store: SqlStore) -> None:
    _no_signer(store)
    put_keyset(store, ever_active=False)


def _late(store: SqlStore, *, seconds: int = 61) -> None:
    put_keyset(store, due_at=NOW - timedelta(seconds=seconds))


def _just_due(store: SqlStore) -> None:
    _late(store, seconds=60)


def _adopted(store: SqlStore) -> None:
    with store.begin() as transaction:
        adopted = key("old", Phase.GRACE, 9, origin=Origin.ADOPTED, demoted_at=NOW, grace_until=NOW + DAY)
        transaction.insert_key(adopted)


def _no_spare(store: SqlStore) -> None:
    with store.begin() as transaction:
        transaction.update_key(key(SPARE, Phase.REVOKED, 2, has_private=False, revoked_at=NOW).key)


def _fresh_spare(store: SqlStore) -> None:
    """As after a revocation: it is out for 47 of 49 hours."""
    with store.begin() as transaction:
        transaction.delete_sightings(HERE, [SPARE])
        transaction.put_sighting(sighting(SPARE, days_ago=47 / 24))


def _fresh_signer(store: SqlStore) -> None:
    """As after `revoke keyset --now`: it is out for 23 hours, and a verifier may hold a copy for 24."""
    with store.begin() as transaction:
        transaction.delete_sightings(HERE, [ACTIVE])
        transaction.put_sighting(sighting(ACTIVE, days_ago=23 / 24))


def _delivery(share: float, *, attempts: int = 1) -> Callable[[SqlStore], None]:
    def change(store: SqlStore) -> None:
        wanted_at = NOW - share * DAY
        row = DeliveryRow(
            workspace=ACME,
            sink=FILE,
            jti=issued_jti(store),
            sequence=1,
            wanted_at=wanted_at,
            deadline=wanted_at + DAY,
            attempts=attempts,
            due_at=NOW + HOUR,
            last_error="disk full",
        )
        with store.begin() as transaction:
            transaction.want_deliveries([row])

    return change


def issued_jti(store: SqlStore) -> Jti:
    with store.read() as snapshot:
        (row,) = snapshot.deliveries(ACME)
        return row.jti


def _failing(store: SqlStore) -> None:
    with store.begin() as transaction:
        transaction.fail_workspaces([ACME], NOW + HOUR, "no such role")


def _failing_without_token(store: SqlStore) -> None:
    with store.begin() as transaction:
        transaction.insert_workspaces([workspace("bare")])
        transaction.fail_workspaces([WorkspaceId("bare")], NOW + HOUR, "no such role")


def _nothing(_: SqlStore) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "faults", "state", "subject"),
    [
        pytest.param(_overrun, {}, Health.CRITICAL, "keyset:default", id="security period over"),
        pytest.param(_no_signer, {}, Health.CRITICAL, "keyset:default", id="no signer any more"),
        pytest.param(_never_signed, {}, Health.DEGRADED, "keyset:default", id="no signer yet"),
        pytest.param(_late, {}, Health.DEGRADED, "keyset:default", id="overdue by 61 s"),
        pytest.param(_just_due, {}, Health.OK, None, id="overdue by 60 s"),
        pytest.param(_adopted, {}, Health.OK, None, id="adopted key, which ends by itself"),
        pytest.param(_no_spare, {}, Health.DEGRADED, "keyset:default", id="no spare"),
        pytest.param(_fresh_spare, {}, Health.DEGRADED, "keyset:default", id="no spare that verifiers know"),
        pytest.param(_fresh_signer, {}, Health.DEGRADED, "keyset:default", id="verifiers may refuse"),
        pytest.param(_delivery(0.24), {}, Health.OK, None, id="24 % of the grace"),
        pytest.param(_delivery(0.25), {}, Health.DEGRADED, f"delivery:acme:{FILE}", id="25 % of the grace"),
        pytest.param(_delivery(0.74), {}, Health.DEGRADED, f"delivery:acme:{FILE}", id="74 % of the grace"),
        pytest.param(_delivery(0.75), {}, Health.CRITICAL, f"delivery:acme:{FILE}", id="75 % of the grace"),
        pytest.param(_delivery(1.5), {}, Health.CRITICAL, f"delivery:acme:{FILE}", id="past the grace"),
        pytest.param(_failing, {}, Health.DEGRADED, "workspace:acme", id="workspace fails, token lives"),
        pytest.param(_failing_without_token, {}, Health.CRITICAL, "workspace:bare", id="workspace without a token"),
        pytest.param(_nothing, {"kek": "gone"}, Health.CRITICAL, "kek", id="KEK"),
        pytest.param(_nothing, {"clock": "leapt"}, Health.CRITICAL, "clock", id="clock"),
        pytest.param(_nothing, {"publish:default": "disk full"}, Health.DEGRADED, "publish:default", id="publishing"),
        pytest.param(_nothing, {"odd": "?"}, Health.DEGRADED, "odd", id="a fault of no known kind"),
        pytest.param(_nothing, {"delivery:acme:x": "late"}, Health.OK, None, id="deliveries speak for themselves"),
    ],
)
def test_each_thing_that_is_wrong(
    store: SqlStore,
    change: Callable[[SqlStore], None],
    faults: dict[str, str],
    state: Health,
    subject: str | None,
) -> None:
    """Each has its severity, its subject, and a next step for the person who looks."""
    change(store)
    found = report(store, faults=faults)
    assert found.state is state
    assert [problem.subject for problem in found.problems] == ([] if subject is None else [subject])
    assert all(problem.text and problem.next_step and problem.severity is state for problem in found.problems)


@pytest.mark.parametrize(
    ("change", "until"),
    [(_fresh_spare, NOW + 2 * HOUR), (_fresh_signer, NOW + HOUR + timedelta(seconds=60))],
    ids=["spare", "signer"],
)
def test_what_verifiers_do_not_know_yet_is_said_with_its_end(
    store: SqlStore, change: Callable[[SqlStore], None], until: datetime
) -> None:
    change(store)
    (problem,) = report(store).problems
    assert f"until {until:%Y-%m-%d %H:%M} UTC" in problem.text
    assert "by itself" in problem.next_step


def test_an_adopted_key_is_said_with_its_end_and_is_no_fault(store: SqlStore) -> None:
    _adopted(store)
    found = report(store)
    assert (found.state, found.adopted_kids, found.adopted_until) == (Health.OK, ("old",), NOW + DAY)


def test_critical_problems_come_first(store: SqlStore) -> None:
    """However many lesser ones there are."""
    _fresh_signer(store)
    _late(store)
    found = report(store, faults={"publish:default": "disk full", "kek": "gone"})
    assert [problem.severity for problem in found.problems] == [Health.CRITICAL] + 3 * [Health.DEGRADED]
    assert (found.kek.usable, found.kek.problem) == (False, "gone")


def test_overdue_workspaces_and_deliveries_are_counted(store: SqlStore) -> None:
    """Those that failed are named on their own and not counted twice."""
    names = [f"w{number}" for number in range(25)]
    with store.begin() as transaction:
        transaction.insert_workspaces([workspace(name, due_at=NOW - HOUR) for name in names])
        transaction.fail_workspaces([WorkspaceId(name) for name in names[:22]], NOW + HOUR, "no")
        (row,) = transaction.deliveries(ACME)
        transaction.want_deliveries([replace(row, due_at=NOW - HOUR, delivered_sequence=0)])
    found = report(store)
    assert (found.workspaces.overdue, found.workspaces.failing, len(found.failing)) == (25, 22, 20)
    texts = [problem.text for problem in found.problems if problem.subject in ("workspaces", "deliveries")]
    assert texts == [
        "2 more workspaces are failing",
        "3 workspaces are overdue for the next token by more than a minute",
        "1 delivery is overdue by more than a minute",
    ]


def test_workspaces_that_wait_for_a_keyset_to_sign_are_told_so(store: SqlStore) -> None:
    """Not that the daemon does not run or keep up: it is the keyset that they wait for."""
    _no_signer(store)
    with store.begin() as transaction:
        transaction.insert_workspaces([workspace(name, due_at=NOW - HOUR) for name in ("w1", "w2", "w3")])
        transaction.fail_workspaces([WorkspaceId("w3")], NOW + HOUR, "no")
    found = report(store)
    (keyset,) = [problem for problem in found.problems if problem.subject == "keyset:default"]
    (waiting,) = [problem for problem in found.problems if problem.subject == "workspaces"]
    assert waiting.text == (
        "2 workspaces are overdue for the next token by more than a minute: no key signs on keyset default"
    )
    assert waiting.next_step == keyset.next_step


@pytest.mark.parametrize(
    ("subject", "cause"),
    [
        ("kek", "without its KEK the daemon issues nothing"),
        ("clock", "the daemon issues nothing while the clock is not trusted"),
        ("witness", "the daemon issues nothing until the database fits the witness"),
    ],
)
def test_workspaces_that_wait_for_a_fault_to_be_mended_are_told_so(store: SqlStore, subject: str, cause: str) -> None:
    with store.begin() as transaction:
        transaction.insert_workspaces([workspace("w1", due_at=NOW - HOUR)])
    found = report(store, faults={subject: "it is so"})
    (waiting,) = [problem for problem in found.problems if problem.subject == "workspaces"]
    (fault,) = [problem for problem in found.problems if problem.subject == subject]
    assert waiting.text == f"1 workspace is overdue for the next token by more than a minute: {cause}"
    assert waiting.next_step == fault.next_step


def test_silent_replica(store: SqlStore) -> None:
    """Where there may be several, one that says nothing for five minutes is named."""
    with store.begin() as transaction:
        other = ReplicaRow(replica=ReplicaId("b"), started_at=NOW - DAY, seen_at=NOW - timedelta(minutes=6))
        transaction.put_replica(other)
    found = report(store, several_replicas=True)
    assert [(each.replica, each.silent) for each in found.replicas] == [("b", True), ("local", False)]
    assert "replica:b" in {problem.subject for problem in found.problems}
    assert found.keysets[0].standby is not None
    assert found.keysets[0].standby.ready_at is None  # the silent one was never seen with it
    assert "replica:b" not in {problem.subject for problem in report(store).problems}


@pytest.mark.parametrize(
    ("spare_days", "next_days", "faults", "step"),
    [
        (9, 9, {}, "the standby is ready and takes over by itself once the daemon runs"),
        (
            9,
            1,
            {},
            "nothing: the standby is ready and takes over by itself at 2026-03-30 01:59 UTC, when the key after it",
        ),
        (1, 1, {}, "nothing: the standby takes over by itself at 2026-03-30 01:59 UTC, when verifiers know it and the"),
        (9, None, {}, "the key after the standby is yet to be made"),
        (9, 9, {"clock": "it leapt"}, "the daemon rotates nothing while the clock is not trusted: see what the time"),
        (9, 9, {"kek": "gone"}, "without its KEK the daemon rotates nothing: put the key-encryption key back"),
    ],
)
def test_overrunning_key_says_what_it_waits_for(
    store: SqlStore, spare_days: float, next_days: float | None, faults: dict[str, str], step: str
) -> None:
    """The next step follows from where the standby and the key after it are, as the planner sees them."""
    _overrun(store)
    with store.begin() as transaction:
        transaction.put_sighting(sighting(SPARE, days_ago=spare_days))
        if next_days is not None:
            transaction.insert_key(key("next", Phase.PENDING, 3))
            transaction.put_sighting(sighting("next", days_ago=next_days))
    found = report(store, faults=faults)
    (problem,) = [each for each in found.problems if each.subject == "keyset:default"]
    assert problem.next_step.startswith(step)


def test_what_a_keyset_without_a_signer_waits_for(store: SqlStore) -> None:
    """One spare is enough there; one that some replica does not publish, or that is yet to be made, is named."""
    _no_signer(store)
    assert "takes over by itself once the daemon runs" in report(store).problems[0].next_step
    with store.begin() as transaction:
        transaction.put_sighting(sighting(SPARE, days_ago=1))
    assert "at 2026-03-30 01:59 UTC, when verifiers know it; see" in report(store).problems[0].next_step
    with store.begin() as transaction:
        transaction.put_replica(ReplicaRow(replica=ReplicaId("b"), started_at=NOW, seen_at=NOW))
    assert "waits until it is published by every replica" in report(store).problems[0].next_step
    update_key(store, SPARE, phase=Phase.RETIRED, retired_at=NOW, has_private=False)
    assert report(store).problems[0].next_step.startswith("the next key is yet to be made")


def test_a_late_look_at_a_keyset_that_needs_no_rotation(store: SqlStore) -> None:
    """Nothing is to take over: all that helps is a daemon that runs."""
    _late(store)
    assert report(store).problems[0].next_step == (
        "see that the daemon runs: systemctl status rotator; it does what is due by itself"
    )


def test_fault_of_a_keyset_is_told(store: SqlStore) -> None:
    """What the last turn failed with stands in the problem."""
    put_keyset(store, fault="the disk is full", failures=3, due_at=NOW - HOUR)
    (problem,) = report(store).problems
    assert problem.text == "keyset default is overdue by 1h: the disk is full"


def test_keyset_that_left_the_config_needs_no_signer(store: SqlStore) -> None:
    """It is shown by its last policy, as ending."""
    _no_signer(store)
    with store.begin() as transaction:
        state = transaction.workspace(ACME)
        assert state is not None
        transaction.update_workspaces([state._replace(removed_at=NOW)])
    found = report(store, policy=Policy())
    assert (found.state, found.keysets[0].ending) == (Health.OK, True)


# --------------------------------------------------------------------------------------------------------------- plan


def test_timeline_is_what_the_planner_will_do(store: SqlStore) -> None:
    """Announce, activate, retire, in the planner's own order and at its own moments."""
    with store.read() as snapshot:
        found = plan(snapshot, replace(POLICY, workspaces={}), NOW, CronCalendar(), horizon=180 * DAY)
    told = [(event.what, event.subject, event.at, event.estimated) for event in found.events]
    lead = POLICY.keysets[DEFAULT_KEYSET].lead
    assert told[:4] == [
        (Step.PUBLISH, "(default #3)", NOW + 79 * DAY - lead, True),
        (Step.ACTIVATE, SPARE, NOW + 79 * DAY, False),
        (Step.DEMOTE, ACTIVE, NOW + 79 * DAY, False),
        (Step.RETIRE, ACTIVE, NOW + 79 * DAY + 31 * DAY, False),
    ]
    assert [event.what for event in found.events[4:6]] == [Step.PUBLISH, Step.ACTIVATE]
    assert all(event.estimated for event in found.events[4:6])
    assert list(found.events) == sorted(found.events, key=lambda event: event.at)


def test_rotations_of_tokens_are_unrolled(store: SqlStore) -> None:
    """The known one first, then those that follow from it, never further apart than the security period."""
    with store.read() as snapshot:
        found = plan(snapshot, POLICY, NOW, CronCalendar(), horizon=40 * DAY)
    moments = [event.at for event in found.events if event.what is Step.ROTATE]
    assert moments[0] == NOW + 8 * DAY
    assert len(moments) == 5
    assert all(timedelta(0) < after - before <= 8 * DAY for before, after in pairwise(moments))


def test_many_rotations_are_told_by_the_day(store: SqlStore) -> None:
    """More than fifty would drown everything else."""
    names = [WorkspaceId(f"w{number}") for number in range(60)]
    policies = {
        name: WorkspacePolicy(id=name, keyset=DEFAULT_KEYSET, security_period=30 * DAY, grace_period=DAY)
        for name in names
    }
    with store.begin() as transaction:
        transaction.insert_workspaces([workspace(name, due_at=NOW + HOUR) for name in names])
    with store.read() as snapshot:
        found = plan(snapshot, replace(POLICY, workspaces=policies), NOW, CronCalendar(), horizon=10 * DAY)
    (only,) = [event for event in found.events if event.what is Step.ROTATE]
    assert (only.subject, only.count, only.last_at, only.why) == ("60 workspaces", 60, NOW + HOUR, "the first token")


def test_frequent_rotations_are_one_line(store: SqlStore) -> None:
    """A token of twelve hours is told once: its next rotation, how often, and until when. Others stay as they are."""
    fast, slow = WorkspaceId("fast"), WorkspaceId("slow")
    policies = {
        name: WorkspacePolicy(id=name, keyset=DEFAULT_KEYSET, security_period=period, grace_period=HOUR)
        for name, period in {fast: 12 * HOUR, slow: 8 * DAY}.items()
    }
    with store.begin() as transaction:
        transaction.insert_workspaces([workspace(name, due_at=NOW + HOUR) for name in policies])
    with store.read() as snapshot:
        found = plan(snapshot, replace(POLICY, workspaces=policies), NOW, CronCalendar(), horizon=90 * DAY)
    told = {name: [event for event in found.events if event.workspace == name] for name in policies}
    (once,) = told[fast]
    assert (once.at, once.estimated, once.subject) == (NOW + HOUR, False, "fast")
    assert once.last_at is not None
    assert once.count > 180
    assert NOW + 89 * DAY < once.last_at <= NOW + 90 * DAY
    every = (once.last_at - once.at) / (once.count - 1)
    assert once.why == f"about every {format_duration(timedelta(minutes=round(every / timedelta(minutes=1))))}"
    assert len(told[slow]) > 10
    assert all(event.count == 1 for event in told[slow])


def test_too_many_that_rotate_often_are_told_by_the_day(store: SqlStore) -> None:
    """A line for each would drown everything else, too."""
    names = [WorkspaceId(f"w{number}") for number in range(51)]
    policies = {
        name: WorkspacePolicy(id=name, keyset=DEFAULT_KEYSET, security_period=6 * HOUR, grace_period=HOUR)
        for name in names
    }
    with store.begin() as transaction:
        transaction.insert_workspaces([workspace(name, due_at=NOW + HOUR) for name in names])
    with store.read() as snapshot:
        found = plan(snapshot, replace(POLICY, workspaces=policies), NOW, CronCalendar(), horizon=10 * DAY)
    told = [event for event in found.events if event.what is Step.ROTATE]
    assert {event.subject for event in told[:-1]} == {"51 workspaces"}  # the horizon ends amid the last day
    assert 10 <= len(told) <= 11


def test_short_periods_end_the_timeline_early_and_say_so(store: SqlStore) -> None:
    """A keyset that rotates every few seconds cannot be told for months."""
    fast = keyset_policy(
        security_period=timedelta(seconds=20), propagation_period=timedelta(seconds=5), grace_period=HOUR
    )
    with store.read() as snapshot:
        found = plan(snapshot, Policy(keysets={DEFAULT_KEYSET: fast}), NOW, CronCalendar(), horizon=90 * DAY)
    assert len(found.events) == 500
    assert found.notes == ("keyset default: only the first 500 events are shown",)


# -------------------------------------------------------------------------------------------------------------- lists


def test_keys_have_every_date(store: SqlStore) -> None:
    """Pending keys say from when on every verifier can know them."""
    with store.read() as snapshot:
        found = keys(snapshot, POLICY, NOW)
    assert [(each.kid, each.phase, each.ready_at) for each in found.keys] == [
        (ACTIVE, Phase.ACTIVE, None),
        (SPARE, Phase.PENDING, NOW - 9 * DAY + 49 * HOUR),
    ]


def test_superseded_tokens_show_with_their_sinks(store: SqlStore) -> None:
    """A sink that still holds the prior token is shown there, and as open at the current one."""
    with store.begin() as transaction:
        issue(transaction, at=NOW + HOUR)
    with store.read() as snapshot:
        first, second = tokens(snapshot).tokens
    assert (first.phase, first.deliveries[0].state) == (Phase.GRACE, DeliveryState.HELD)
    assert (second.phase, second.deliveries[0].state) == (Phase.ACTIVE, DeliveryState.OPEN)
    with store.begin() as transaction:
        transaction.delivery_failed(ACME, FILE, 2, NOW + HOUR, "disk full")
    with store.read() as snapshot:
        (delivery,) = tokens(snapshot, workspace=ACME).tokens[1].deliveries
    assert (delivery.state, delivery.last_error) == (DeliveryState.FAILING, "disk full")


def test_last_token_never_vanishes(store: SqlStore) -> None:
    """A workspace whose only token has ended is still in the list; earlier ones are there when asked for."""
    with store.begin() as transaction:
        second = issue(transaction, at=NOW + HOUR)
        first = next(iter(transaction.tokens(ACME)))
        transaction.retire_tokens([first.jti, second.jti], NOW + 30 * DAY)
    with store.read() as snapshot:
        assert [(each.jti, each.phase) for each in tokens(snapshot).tokens] == [(second.jti, Phase.RETIRED)]
        assert [each.jti for each in tokens(snapshot, ended=True).tokens] == [first.jti, second.jti]


@pytest.mark.parametrize(
    ("wanted", "seqs"),
    [
        (AuditFilter(), [1, 2, 3]),
        (AuditFilter(limit=2), [2, 3]),
        (AuditFilter(event="key.*"), [1, 2]),
        (AuditFilter(event="key.*", limit=1), [2]),
        (AuditFilter(workspace=ACME), [1, 2, 3]),
        (AuditFilter(workspace=WorkspaceId("other")), []),
        (AuditFilter(key="kid"), [1, 2, 3]),
        (AuditFilter(key="kix"), []),
        (AuditFilter(key="KID"), []),
        (AuditFilter(key="k_d"), []),
        (AuditFilter(before=3, limit=1), [2]),
        (AuditFilter(event="no.such"), []),
        (AuditFilter(actor="ADA"), []),
        (AuditFilter(since=NOW), [1, 2, 3]),
        (AuditFilter(actor="ada"), [1, 2, 3]),
        (AuditFilter(actor="1000"), [1, 2, 3]),
        (AuditFilter(actor="*(1000)"), [1, 2, 3]),
        (AuditFilter(actor="ad"), []),
        (AuditFilter(actor="rotator"), []),
        (AuditFilter(since=NOW + HOUR), []),
    ],
)
def test_audit_is_filtered(store: SqlStore, wanted: AuditFilter, seqs: list[int]) -> None:
    """By anything, and the newest are last."""
    with store.read() as snapshot:
        assert [each.seq for each in audit(snapshot, wanted).events] == seqs


def test_pages_of_the_audit_are_the_whole_audit(store: SqlStore) -> None:
    """Each begins after the last event of the one before it, and the last one is known by the head."""
    with store.read() as snapshot:
        pages = [page(snapshot, after, 2) for after in (0, 2, 3)]
        whole = audit(snapshot, AuditFilter())
    assert [[each.seq for each in found.events] for found in pages] == [[1, 2], [3], []]
    assert {(found.head_seq, found.anchor_seq) for found in pages} == {(3, 0)}
    assert tuple(event for found in pages for event in found.events) == whole.events


def test_proof_finds_a_noted_head(store: SqlStore) -> None:
    """A head of any time is in the chain; one that never was shows that it was written anew."""
    with store.read() as snapshot:
        head = snapshot.audit_head().hash
        early = snapshot.audit_hash(1)
        assert prove(snapshot).intact
        assert prove(snapshot, head.upper()).intact
        assert prove(snapshot, early).intact
        foreign = prove(snapshot, "f" * 64)
    assert (foreign.intact, foreign.events) == (False, 3)
    assert "nowhere in the chain" in foreign.problem


def test_a_head_from_before_the_retention_may_be_no_alarm(store: SqlStore) -> None:
    """It cannot be told from one that was never there, and this is said."""
    with store.begin() as transaction:
        early = transaction.audit_hash(1)
        transaction.mark_logged(3)
        transaction.prune(tokens_before=NOW - 900 * DAY, audit_before=NOW + HOUR, at_most=99)
        transaction.append(events(EventName.KEY_MADE))
    with store.read() as snapshot:
        found = prove(snapshot, early)
    assert not found.intact
    assert "or it was noted before event 3, and what was before is past its retention" in found.problem


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("noted", [0, 1, 3, None], ids=["none", "first", "last", "foreign"])
def test_a_proof_in_pages_is_the_whole_proof(store: SqlStore, limit: int, noted: int | None) -> None:
    with store.read() as snapshot:
        head = {0: None, None: "f" * 64}.get(noted) if noted in (0, None) else snapshot.audit_hash(noted)
        found = prove_page(snapshot, head, limit=limit)
        while found.proof is None:
            found = prove_page(snapshot, head, begun=found.go_on_from, limit=limit)
        assert found.proof == prove(snapshot, head)


def test_a_proof_in_pages_finds_what_was_cut_off(store: SqlStore) -> None:
    with store.begin() as transaction:
        transaction.append(events(*[EventName.KEY_MADE] * 5))
    with store.read() as snapshot:
        begun = prove_page(snapshot, limit=3).go_on_from
    with store._engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM audit WHERE seq > 3")
    with store.read() as snapshot:
        found = prove_page(snapshot, begun=begun, limit=3).proof
    assert found is not None
    assert "event 8: it is not there" in found.problem


def test_pages_of_tokens_are_the_whole_list(store: SqlStore) -> None:
    names = [f"w{number}" for number in range(7)]
    with store.begin() as transaction:
        transaction.insert_workspaces([workspace(name) for name in names])
        transaction.issue([issued(state) for name in names if (state := transaction.workspace(WorkspaceId(name)))])
    with store.read() as snapshot:
        page, found = tokens_page(snapshot, WorkspaceId(""), 2), list[TokenEntry]()
        while page.after is not None:
            assert len(page.tokens) == 2
            found += page.tokens
            page = tokens_page(snapshot, page.after, 2)
        assert [*found, *page.tokens] == list(tokens(snapshot).tokens)


def test_proof_finds_a_changed_event(tmp_path: Path, store: SqlStore) -> None:
    """Whatever is changed in the table."""
    import sqlite3

    with sqlite3.connect(tmp_path / "rotator.db") as connection:
        connection.execute("UPDATE audit SET actor = 'mallory(0)' WHERE seq = 2")
    connection.close()
    with store.read() as snapshot:
        found = prove(snapshot)
    assert (found.intact, found.problem[:7]) == (False, "event 2")


# ------------------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("name", SHAPES)
def test_schema_is_the_one_that_was_shipped(name: str) -> None:
    """A changed record shows here; `python -m rotator.schemas` takes an added field into the file."""
    assert (Path(render.__code__.co_filename).parent / f"{name}.json").read_text() == render(name)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("status", "status"),
        ("plan", "plan"),
        ("keys.list", "keys-list"),
        ("tokens.list", "tokens-list"),
        ("audit.list", "audit-list"),
        ("token.verify", "verify"),
    ],
)
def test_answers_fit_their_schema_and_read_back(store: SqlStore, command: str, name: str) -> None:
    """What is printed is what the schema says, and the record again when it is read."""
    with store.read() as snapshot:
        view = View(snapshot=snapshot, **AROUND, faults={"kek": "gone"})
        found = READING[command](view, {})
    printed = json.loads(json.dumps(to_json(found)))
    jsonschema.validate(printed, load(name), format_checker=jsonschema.FormatChecker())
    assert from_json(type(found), printed) == found
    assert from_json(type(found), {**printed, "of_a_later_version": 1}) == found


def test_answer_of_another_version_is_refused() -> None:
    """With what to do, instead of a traceback."""
    with pytest.raises(RotatorError, match="another version: restart it"):
        from_json(Report, {"state": "ok"})


@pytest.mark.parametrize(
    ("command", "arguments", "problem"),
    [
        ("status", {"x": 1}, "unknown argument 'x'; known are: none"),
        ("plan", {"for_seconds": "1"}, "the argument for_seconds is '1'; expected int"),
        ("plan", {"for_seconds": True}, "the argument for_seconds is True; expected int"),
        ("plan", {"for_seconds": 0}, "from a second to 3653 days"),
        ("plan", {"for_seconds": 10**20}, "from a second to 3653 days"),
        ("audit.list", {"limit": 10**30}, "expected 1 to 5000"),
        ("audit.list", {"limit": 0}, "found a limit of 0"),
        ("token.verify", {"token": 5}, "the argument token is of another kind; expected str"),
        ("token.verify", {"roles": "admin"}, "the argument roles is not a list of texts in JSON"),
        ("token.verify", {"roles": "[1]"}, "not a list of texts"),
        ("token.verify", {"roles": "[" * 100000}, "not a list of texts"),
        ("audit.verify", {"head": "f" * 63}, "is no head of the audit; expected the 64 hex digits"),
        ("audit.page", {"limit": 5001}, "expected 1 to 5000"),
        ("audit.page", {"after": -1}, "found -1 as the number of an event"),
        ("audit.page", {"after": 10**30}, "expected 0 to"),
        ("audit.list", {"since": "yesterday"}, "'yesterday' is no moment"),
        ("audit.list", {"since": "2026-01-01T00:00:00"}, "with a zone"),
    ],
)
def test_wrong_arguments_are_refused(
    store: SqlStore, command: str, arguments: dict[str, str | int | bool | None], problem: str
) -> None:
    """By name, with what was expected."""
    with store.read() as snapshot:
        view = View(snapshot=snapshot, **AROUND, faults={})
        with pytest.raises(ConfigError, match=problem):
            READING[command](view, arguments)
