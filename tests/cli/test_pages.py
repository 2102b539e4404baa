"""Pages of states that a short test cannot reach by living through them."""

import io
from dataclasses import replace
from datetime import timedelta

import pytest

from rotator.cli import pages, plan_pages
from rotator.cli.screen import Screen
from rotator.core.model import DEFAULT_KEYSET, Algorithm, Jti, KekId, KeysetName, Kid, Origin, Phase, ReplicaId, SinkId
from rotator.report.lanes import PublishedFile
from rotator.report.lists import DeliveryEntry, DeliveryState, KeyEntry, KeyList, TokenEntry, TokenList
from rotator.report.plans import Plan
from rotator.report.records import (
    AuditStatus,
    ClockStatus,
    DeliveryCounts,
    Health,
    KekStatus,
    KeysetStatus,
    Problem,
    ReplicaStatus,
    Report,
    Standby,
    WorkspaceCounts,
)
from rotator.report.timeline import PlanEntry, Step
from tests.contract.records import ACME, DAY, FILE, HOUR, NOW

KEYSET = KeysetStatus(
    name=DEFAULT_KEYSET,
    generation=7,
    algorithm=Algorithm.ES256,
    issuer="https://tokens.example.com",
    ending=False,
    keys={"pending": 1, "active": 1, "grace": 0},
    signing_kid=Kid("signing-kid-of-43-characters"),
    signing_since=NOW - 90 * DAY,
    rotates_at=NOW - HOUR,
    security_period_ends_at=NOW,
    overdue_seconds=3600,
    standby=Standby(kid=Kid("standby"), ready=False, ready_at=NOW + HOUR),
    next_event=None,
    needs_signer=True,
    ever_signed=True,
    failures=2,
    fault="the disk is full",
)
REPORT = Report(
    state=Health.CRITICAL,
    at=NOW,
    installation="i",
    problems=(Problem(subject="kek", severity=Health.CRITICAL, text="it is gone", next_step="put it back"),),
    keysets=(KEYSET,),
    workspaces=WorkspaceCounts(total=1, overdue=0, failing=0, tokens=1),
    failing=(),
    deliveries=DeliveryCounts(open=0, overdue=0, failing=0, late=0, critical=0),
    clock=ClockStatus(trusted=False, problem="it leapt", latest_trusted_at=NOW),
    kek=KekStatus(usable=False, problem="it is gone", ids=(KekId("k1"),)),
    replicas=(ReplicaStatus(replica=ReplicaId("b"), started_at=NOW, seen_at=NOW - HOUR, silent=True),),
    adopted_kids=(),
    adopted_until=None,
    audit=AuditStatus(seq=1, hash="0" * 64, not_logged=0),
    open_requests=1,
    next_due_at=None,
)


def shown(page: str, *arguments: object) -> str:
    stream = io.StringIO()
    getattr(plan_pages if page == "show_plan" else pages, page)(Screen.of(stream), *arguments)
    return stream.getvalue()


def test_status_of_a_bad_night() -> None:
    """The state first, then what is wrong and what to do, then the rest."""
    page = shown("show_status", REPORT)
    assert page.startswith(
        "CRITICAL  1 critical, at 2026-03-29 00:59Z\n\nCRITICAL  kek\n  what  it is gone\n  do    put it back\n"
    )
    for line in (
        "  rotates     2026-03-28 23:59Z (1h ago), overdue by 1h",
        "  standby     standby ready 2026-03-29 01:59Z (in 1h)",
        "  failed      2 times in a row: the disk is full",
        "  clock       not trusted",
        "  KEK         not usable: k1",
        "  replica     b, seen 1h ago",
        "  requests    1 being worked on",
        "  next due    nothing",
    ):
        assert line in page.splitlines()


def test_keyset_without_a_signer() -> None:
    """Nothing is made up for what is not there."""
    bare = replace(KEYSET, signing_kid=None, rotates_at=None, standby=None)
    page = shown("show_status", replace(REPORT, keysets=(bare,)))
    assert "  signs       no key" in page
    assert "  standby     none" in page
    ending = replace(bare, ending=True)
    assert "leaving: it is no longer in the config" in shown("show_status", replace(REPORT, keysets=(ending,)))


@pytest.mark.parametrize(
    ("phase", "dates", "outlook"),
    [
        (Phase.PENDING, {}, "not published by every replica yet"),
        (Phase.PENDING, {"ready_at": NOW + DAY}, "ready 2026-03-30 00:59Z (in 1d)"),
        (Phase.ACTIVE, {"rotate_at": NOW + DAY}, "signs until 2026-03-30 00:59Z (in 1d)"),
        (Phase.GRACE, {"grace_until": NOW + DAY, "last_exp": NOW + 2 * DAY}, "leaves the set 2026-03-31 (in 2d)"),
        (Phase.GRACE, {}, "leaves the set soon"),
        (Phase.RETIRED, {"retired_at": NOW - DAY}, "left the set 2026-03-28 00:59Z (1d ago)"),
        (Phase.REVOKED, {"revoked_at": NOW - DAY}, "revoked 2026-03-28 00:59Z (1d ago)"),
        (
            Phase.GRACE,
            {"origin": Origin.ADOPTED, "grace_until": NOW},
            "adopted, leaves the set 2026-03-29 00:59Z (now)",
        ),
    ],
)
def test_outlook_of_a_key(phase: Phase, dates: dict[str, object], outlook: str) -> None:
    """What comes next for it, or what came last."""
    none = dict.fromkeys(KeyEntry.__slots__)
    facts = {"kid": "k", "keyset": "default", "algorithm": "ES256", "origin": "made", "sequence": 1, "phase": phase}
    entry = KeyEntry(**(none | facts | dates))  # type: ignore[arg-type]  # by the record's own names
    assert shown("show_keys", KeyList(keys=(entry,)), NOW).splitlines()[1].endswith(f"  {outlook}")


def test_tokens_with_their_sinks() -> None:
    """How many sinks are in which state."""
    delivery = DeliveryEntry(
        sink=SinkId(FILE),
        state=DeliveryState.FAILING,
        wanted_at=NOW,
        deadline=NOW,
        delivered_at=None,
        attempts=1,
        last_error="x",
    )
    token = TokenEntry(
        workspace=ACME,
        jti=Jti("j"),
        kid=Kid("k"),
        keyset=DEFAULT_KEYSET,
        phase=Phase.REVOKED,
        sequence=3,
        issued_at=NOW,
        expires_at=NOW + DAY,
        rotate_at=NOW,
        superseded_at=None,
        retired_at=None,
        revoked_at=NOW - HOUR,
        deliveries=(delivery, delivery, replace(delivery, state=DeliveryState.OPEN)),
    )
    page = shown("show_tokens", TokenList(tokens=(token,)), NOW)
    assert page.splitlines()[1] == "acme       3   revoked  j    k    revoked 1h ago  2 failing, 1 open"


def test_nothing_is_said_in_words() -> None:
    """An empty list is a sentence."""
    assert shown("show_keys", KeyList(keys=()), NOW) == "no key has been made yet\n"
    assert shown("show_tokens", TokenList(tokens=()), NOW) == "no token has been issued yet\n"
    empty = Plan(from_at=NOW, until=NOW + DAY, events=(), notes=())
    assert shown("show_plan", empty) == "nothing is due until 2026-03-30 00:59Z\n"


def test_timeline_marks_what_is_estimated() -> None:
    """With notes on what was left out, and rotations told together."""
    entry = PlanEntry(
        at=NOW + HOUR, what=Step.ROTATE, subject="acme", why="w", workspace=ACME, count=3, last_at=NOW, estimated=True
    )
    found = Plan(from_at=NOW, until=NOW + DAY, events=(entry,), notes=("only some",))
    page = shown("show_plan", found)
    assert "~2026-03-29 01:59Z  in 1h  rotate  acme (3 times)  w" in page
    assert page.endswith("only some\n")


def test_a_key_is_told_with_its_keyset_where_there_are_several() -> None:
    """Its kid does not tell; a placeholder does, and a workspace is on whichever it is."""
    entry = PlanEntry(at=NOW, what=Step.ACTIVATE, subject="kid", why="first", keyset=DEFAULT_KEYSET)
    files = tuple(PublishedFile(keyset=name, path="p", sizes=()) for name in (DEFAULT_KEYSET, KeysetName("payments")))
    found = Plan(from_at=NOW, until=NOW + DAY, events=(entry,), notes=(), files=files)
    assert "activate  kid      default: first" in shown("show_plan", found)
    assert "activate  kid      first" in shown("show_plan", replace(found, files=files[:1]))


def test_single_pass() -> None:
    """What it leaves, and when the next is needed."""
    page = shown("show_pass", REPORT, NOW + timedelta(minutes=5))
    assert page.splitlines()[-1] == "next due 2026-03-29 01:04Z (in 5m)"
    assert "critical  it is gone" in page
