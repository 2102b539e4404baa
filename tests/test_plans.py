"""The time ahead: phases and sizes along it, what a supposed change does to it, and its picture."""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from rotator.adapters.calendar import CronCalendar
from rotator.adapters.publish import read_set
from rotator.cli import plan_pages
from rotator.cli.screen import Screen
from rotator.core.actions import RetireKey
from rotator.core.model import Algorithm, KeysetName, Kid, Phase
from rotator.core.policy import Policy
from rotator.errors import ConfigError, UnknownNameError
from rotator.ports import KeysetRow, Snapshot
from rotator.report.differences import Change
from rotator.report.gantt import LANES_AT_MOST, draw
from rotator.report.known import KnownKeyset
from rotator.report.lanes import KeyLane, LanePhase
from rotator.report.plans import Plan, plan, plan_changed
from rotator.report.supposing import standing, suppose
from rotator.report.time_axis import marks
from rotator.report.timeline import Step
from rotator.report.unrolling import turns
from tests.core.test_reading_a_state import POLICY
from tests.core.test_rules import PRIOR, at_rest
from tests.core.worlds import T0
from tests.engine.site import DAY, HOUR, PROPAGATION, SKEW, Site, keyset, policy_of, workspace

DEFAULT, PAYMENTS = KeysetName("default"), KeysetName("payments")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Run a site just long enough for its keys to be out; nothing here changes it."""
    made = Site(tmp_path_factory.mktemp("site"))
    made.main.start()
    made.advance(3 * DAY, pace=DAY)
    yield made
    made.close()


@pytest.fixture
def snapshot(site: Site) -> Iterator[Snapshot]:
    assert site.main.store is not None
    with site.main.store.read() as found:
        yield found


def ahead(site: Site, snapshot: Snapshot, *, days: int = 60, what_if: str = "") -> Plan:
    horizon = days * DAY
    return plan(snapshot, site.policy, site.clock.wall, CronCalendar(), horizon=horizon, what_if=what_if)


def with_config(site: Site, snapshot: Snapshot, policy: Policy, *, days: int = 60) -> Plan:
    return plan_changed(snapshot, policy, site.clock.wall, CronCalendar(), horizon=days * DAY, name="new.yaml")


# -------------------------------------------------------------------------------------------------- lanes and sizes


def test_each_key_goes_through_its_phases_without_a_gap(site: Site, snapshot: Snapshot) -> None:
    found = ahead(site, snapshot)
    assert len(found.keys) >= 5
    order = list(LanePhase)
    for lane in found.keys:
        phases = [order.index(stretch.phase) for stretch in lane.stretches]
        assert phases == sorted(set(phases))
        for first, second in pairwise(lane.stretches):
            assert first.until == second.from_at
        assert all(each.until is None or each.from_at < each.until for each in lane.stretches)
    signing = [each for lane in found.keys for each in lane.stretches if each.phase is LanePhase.ACTIVE]
    for first, second in pairwise(sorted(signing, key=lambda each: each.from_at)):
        assert first.until == second.from_at, "there is always one key that signs"


def test_a_key_is_pending_for_the_propagation_period_and_then_standby(site: Site, snapshot: Snapshot) -> None:
    lane = next(lane for lane in ahead(site, snapshot).keys if lane.estimated)
    pending, standby = lane.stretches[:2]
    assert (pending.phase, standby.phase) == (LanePhase.PENDING, LanePhase.STANDBY)
    assert pending.until is not None
    assert pending.until - pending.from_at == PROPAGATION
    assert lane.kid.startswith("(default #")


def test_the_first_keys_were_never_pending(site: Site, snapshot: Snapshot) -> None:
    """No verifier could hold a set without them."""
    first, second = ahead(site, snapshot).keys[:2]
    assert [each.phase for each in first.stretches] == [LanePhase.ACTIVE, LanePhase.GRACE]
    assert second.stretches[0].phase is LanePhase.STANDBY


def test_sizes_begin_with_the_file_as_it_is(site: Site, snapshot: Snapshot) -> None:
    (file,) = ahead(site, snapshot).files
    content = read_set(site.main.tree, DEFAULT)
    assert content is not None
    first = file.sizes[0]
    assert (file.path, first.keys, first.bytes) == ("keysets/default/jwks.json", len(site.main.kids()), len(content))
    assert not first.estimated
    assert {size.keys for size in file.sizes} == {2, 3}
    assert all(size.estimated for size in file.sizes if size.keys == 3)


def test_what_is_foretold_is_what_comes(tmp_path: Path) -> None:
    """Lived through, a plan comes true: as many keys, as many bytes, at these times."""
    site = Site(tmp_path)
    site.main.start()
    assert site.main.store is not None
    with site.main.store.read() as snapshot:
        (file,) = ahead(site, snapshot, days=25).files
    for size, following in [*pairwise(file.sizes)]:
        site.advance(following.at - site.clock.wall - HOUR, pace=6 * HOUR)
        content = read_set(site.main.tree, DEFAULT)
        assert content is not None
        assert (len(site.main.kids()), len(content)) == (size.keys, size.bytes)
    assert len(file.sizes) >= 3
    site.close()


# ----------------------------------------------------------------------------------------------------------- what if


def test_a_revoked_key_leaves_and_the_standby_signs_at_once(site: Site, snapshot: Snapshot) -> None:
    now = site.clock.wall
    active, standby = site.main.kids()
    found = ahead(site, snapshot, what_if=f"revoke:{active[:8]}")
    at_once = {(event.what, event.subject) for event in found.events if event.at == now}
    assert {(Step.REVOKE, active), (Step.ACTIVATE, standby), (Step.ROTATE, "acme")} <= at_once
    lane = next(lane for lane in found.keys if lane.kid == active)
    assert (lane.ended, lane.stretches[-1].until) == (Phase.REVOKED, now)
    changes = found.changes
    assert changes is not None
    assert changes.workspace_counts == {"reissued": 2, "due": 2}
    (keyset_change,) = changes.keysets
    assert (keyset_change.change, keyset_change.rotates_after) == (Change.RESCHEDULED, now)
    assert {(each.what, each.subject) for each in changes.events if each.after_at is None} >= {(Step.RETIRE, active)}


@pytest.mark.parametrize("supposed", ["revoke", "rotate"])
def test_what_is_supposed_is_what_happens(tmp_path: Path, supposed: str) -> None:
    """Asked for in earnest, the same keys sign from the same moments on, and the files become as large."""
    site = Site(tmp_path)
    site.main.start()
    site.advance(3 * DAY, pace=DAY)
    assert site.main.store is not None
    active = site.main.kids()[0]
    what_if = f"revoke:{active}" if supposed == "revoke" else "rotate:default"
    with site.main.store.read() as snapshot:
        foretold = ahead(site, snapshot, what_if=what_if)
    if supposed == "revoke":
        assert site.ask("key.revoke", kid=active).succeeded
    else:
        assert site.ask("keyset.rotate", keyset="default").succeeded
    with site.main.store.read() as snapshot:
        came = ahead(site, snapshot)
    told = [
        [(e.what, e.at) for e in p.events if e.what is not Step.ROTATE and e.at > site.clock.wall]
        for p in (foretold, came)
    ]
    jitter = 2 * DAY  # the kid of the key that was made meanwhile decides when it hands over
    assert [what for what, _ in told[0]][:5] == [what for what, _ in told[1]][:5]
    for (_, first), (_, second) in zip(told[0][:5], told[1][:5], strict=True):
        assert abs(first - second) <= jitter
    assert [size.keys for size in foretold.files[0].sizes][:4] == [size.keys for size in came.files[0].sizes][:4]
    site.close()


def test_without_a_ready_spare_tokens_come_when_one_is_known_and_that_is_said(tmp_path: Path) -> None:
    """One moment in every table, and the choice that it is of: to wait. In earnest it comes so."""
    site = Site(tmp_path)
    site.main.start()
    site.advance(3 * DAY, pace=DAY)
    assert site.main.store is not None
    assert site.ask("key.revoke", kid=site.main.kids()[0]).succeeded
    site.advance(HOUR, pace=HOUR)
    active = site.main.kids()[0]
    with site.main.store.read() as snapshot:
        found = ahead(site, snapshot, what_if=f"revoke:{active}")
    changes = found.changes
    assert changes is not None
    comes = next(event.at for event in found.events if event.what is Step.ACTIVATE)
    assert comes > site.clock.wall + HOUR
    assert {each.due_after for each in changes.workspaces} == {comes}
    assert min(event.at for event in found.events if event.what is Step.ROTATE) == comes
    assert changes.workspace_counts == {"reissued": 2}
    assert f"no token is issued until {comes:%Y-%m-%d %H:%MZ}. With --now" in changes.assumed
    page = io.StringIO()
    plan_pages.show_plan(Screen(page, None), found)
    assert changes.assumed in page.getvalue()
    assert site.ask("key.revoke", kid=active, choice="wait").succeeded
    with site.main.store.read() as snapshot:
        came = ahead(site, snapshot)
    assert next(event.at for event in came.events if event.what is Step.ACTIVATE) == comes
    site.close()


def test_a_revoked_standby_touches_no_workspace(site: Site, snapshot: Snapshot) -> None:
    changes = ahead(site, snapshot, what_if=f"revoke:{site.main.kids()[1]}").changes
    assert changes is not None
    assert changes.workspace_counts == {}
    assert not changes.nothing


def test_a_keyset_that_is_rotated_by_hand_hands_over_sooner(site: Site, snapshot: Snapshot) -> None:
    changes = ahead(site, snapshot, what_if="rotate:default").changes
    assert changes is not None
    (change,) = changes.keysets
    assert change.rotates_before is not None
    assert change.rotates_after is not None
    assert site.clock.wall <= change.rotates_after < change.rotates_before - 5 * DAY


@pytest.mark.parametrize("what_if", ["", "rotate:default"])
def test_a_plan_that_nobody_waits_for_is_given_up_amid_the_time_ahead(
    site: Site, snapshot: Snapshot, what_if: str
) -> None:
    """It is long after the database was read."""
    looks: list[None] = []

    class GivenUpError(Exception):
        pass

    def check() -> None:
        looks.append(None)
        if len(looks) == 5:
            raise GivenUpError

    with pytest.raises(GivenUpError):
        plan(
            snapshot,
            site.policy,
            site.clock.wall,
            CronCalendar(),
            horizon=1000 * DAY,
            what_if=what_if,
            check=check,
        )


def test_tokens_wait_for_a_key_that_signs(tmp_path: Path) -> None:
    """A second emergency sooner than the next spare is known: no token is foretold before one can be signed."""
    site = Site(tmp_path)
    site.main.start()
    site.advance(3 * DAY, pace=DAY)
    first, second = site.main.kids()
    assert site.ask("key.revoke", kid=first).succeeded
    assert site.main.store is not None
    with site.main.store.read() as snapshot:
        found = ahead(site, snapshot, what_if=f"revoke:{second}")
    signing = next(event.at for event in found.events if event.what is Step.ACTIVATE)
    assert signing == site.clock.wall + PROPAGATION
    assert min(event.at for event in found.events if event.what is Step.ROTATE) == signing
    site.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("revoke:", "expected revoke:KID"),
        ("destroy:all", "expected revoke:KID"),
        ("", None),
        ("revoke:nobody", "there is no key 'nobody' in a published set"),
        ("rotate:nothing", "there is no keyset 'nothing'; there are: default"),
    ],
)
def test_what_cannot_be_supposed_is_refused(site: Site, snapshot: Snapshot, text: str, said: str | None) -> None:
    if said is None:
        assert ahead(site, snapshot, what_if=text).changes is None
        return
    with pytest.raises((ConfigError, UnknownNameError), match=re.escape(said)):
        ahead(site, snapshot, what_if=text)


def test_the_beginning_of_a_kid_is_enough_unless_two_keys_have_it(site: Site, snapshot: Snapshot) -> None:
    world = standing(snapshot, site.policy, site.clock.wall)
    (known,) = world.keysets
    keys = tuple(replace(key, kid=Kid(f"same-{place}")) for place, key in enumerate(known.state.keys))
    doubled = replace(world, keysets=(replace(known, state=replace(known.state, keys=keys)),))
    with pytest.raises(UnknownNameError, match="2 keys begin with 'same': same-0, same-1"):
        suppose(doubled, "revoke:same", site.clock.wall)
    assert suppose(doubled, "revoke:same-1", site.clock.wall).revoked == ("same-1",)


# ---------------------------------------------------------------------------------------------------- another config


def test_the_config_in_force_changes_nothing(site: Site, snapshot: Snapshot) -> None:
    found = with_config(site, snapshot, site.policy)
    assert found.changes is not None
    assert found.changes.nothing
    assert replace(found, changes=None) == ahead(site, snapshot)


def test_a_shorter_period_brings_rotations_forward(site: Site, snapshot: Snapshot) -> None:
    shorter = replace(site.policy, keysets={DEFAULT: keyset(security_period=8 * DAY)})
    changes = with_config(site, snapshot, shorter).changes
    assert changes is not None
    (change,) = changes.keysets
    assert change.change is Change.RESCHEDULED
    assert change.rotates_before is not None
    assert change.rotates_after is not None
    assert change.rotates_after < change.rotates_before - 10 * DAY
    assert change.keys_made_after > change.keys_made_before
    moved = next(each for each in changes.events if each.what is Step.ACTIVATE and each.before_at is not None)
    assert moved.after_at != moved.before_at


def test_a_longer_skew_alone_is_no_change_of_a_deadline(site: Site, snapshot: Snapshot) -> None:
    changes = with_config(site, snapshot, replace(site.policy, clock_skew=2 * SKEW)).changes
    assert changes is not None
    assert changes.events == ()


def test_workspaces_that_come_go_and_change(site: Site, snapshot: Snapshot) -> None:
    sink = site.sink("acme")
    wanted = policy_of([keyset()], [workspace("acme", sink, roles=("root",)), workspace("globex")])
    changes = with_config(site, snapshot, wanted).changes
    assert changes is not None
    assert [(each.workspace, each.change) for each in changes.workspaces] == [
        ("acme", Change.REISSUED),
        ("globex", Change.NEW),
        ("umbrella", Change.REMOVED),
    ]
    assert changes.workspace_counts == {"reissued": 1, "new": 1, "removed": 1, "due": 2}
    acme, globex, umbrella = changes.workspaces
    assert acme.due_before is not None
    assert acme.due_after is not None
    assert acme.due_after < acme.due_before
    assert globex.due_before is None
    assert umbrella.due_after is None


def test_a_new_keyset_begins_at_once_and_one_that_leaves_ends_with_its_last_token(
    site: Site, snapshot: Snapshot
) -> None:
    now = site.clock.wall
    wanted = policy_of([keyset("payments", algorithm=Algorithm.EDDSA)], [workspace("globex", on="payments")])
    found = with_config(site, snapshot, wanted)
    assert found.changes is not None
    assert {each.keyset: each.change for each in found.changes.keysets} == {
        DEFAULT: Change.REMOVED,
        PAYMENTS: Change.NEW,
    }
    told = [(event.what, event.keyset) for event in found.events if event.at == now]
    assert (Step.ACTIVATE, PAYMENTS) in told
    end = next(event for event in found.events if event.what is Step.END)
    assert now < end.at <= now + 4 * DAY
    gone = [event for event in found.events if event.what is Step.RETIRE and event.keyset == DEFAULT]
    assert len(gone) == 2
    assert found.files[0].sizes[-1].keys == 0


def test_a_keyset_that_is_ending_goes_on_ending(tmp_path: Path) -> None:
    """It left the config before; the same config again changes nothing, and what is told of its end stays."""
    site = Site(tmp_path)
    both = policy_of([keyset(), keyset("payments")], [workspace("acme"), workspace("globex", on="payments")])
    site.main.start(both)
    moved = policy_of([keyset()], [workspace("acme"), workspace("globex")])
    site.main.load(moved)
    site.advance(HOUR, pace=HOUR)
    assert site.main.store is not None
    with site.main.store.read() as snapshot:
        found = with_config(site, snapshot, moved)
        assert found.changes is not None
        assert found.changes.nothing
        ends = [event for event in found.events if event.what is Step.END or event.keyset == PAYMENTS]
        assert ends
        back = with_config(site, snapshot, both).changes
    assert back is not None
    assert {each.keyset: each.change for each in back.keysets}[PAYMENTS] is Change.RESCHEDULED
    site.close()


# --------------------------------------------------------------------------------------------------------- the picture


def drawn(found: Plan) -> ElementTree.Element:
    return ElementTree.fromstring(draw(found))  # noqa: S314 - it is our own


def classes(root: ElementTree.Element, tag: str) -> list[str]:
    return [element.get("class") or "" for element in root.iter(f"{SVG}{tag}")]


def test_the_picture_has_a_bar_for_each_phase_that_is_seen(site: Site, snapshot: Snapshot) -> None:
    found = ahead(site, snapshot)
    root = drawn(found)
    titles = [element.text or "" for element in root.iter(f"{SVG}title")]
    for lane in found.keys:
        for stretch in lane.stretches:
            assert any(title.startswith(f"{stretch.phase}: {stretch.from_at:%Y-%m-%d %H:%M}Z") for title in titles)
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]
    assert sum(text.startswith("keyset ") for text in texts) == 1
    assert any(text.startswith("now: ") for text in texts)
    assert any(text.startswith("end of this plan: ") for text in texts)
    assert {"pending", "standby", "active", "grace"} <= set(classes(root, "rect"))
    assert "active estimated" in classes(root, "rect")


def test_nothing_is_drawn_outside_the_picture(site: Site, snapshot: Snapshot) -> None:
    root = drawn(ahead(site, snapshot, days=365))
    width, height = float(root.get("width") or 0), float(root.get("height") or 0)
    for element in root.iter(f"{SVG}rect"):
        x, y = float(element.get("x") or 0), float(element.get("y") or 0)
        assert 0 <= x <= x + float(element.get("width") or 0) <= width
        assert 0 <= y <= y + float(element.get("height") or 0) <= height


def test_a_supposed_revocation_is_marked(site: Site, snapshot: Snapshot) -> None:
    root = drawn(ahead(site, snapshot, what_if=f"revoke:{site.main.kids()[0]}"))
    assert "revoked" in classes(root, "path")
    assert any((element.text or "").startswith("supposed: revoke:") for element in root.iter(f"{SVG}text"))


def test_names_of_others_cannot_break_the_picture(site: Site, snapshot: Snapshot) -> None:
    found = ahead(site, snapshot)
    odd = replace(found.keys[0], kid=type(found.keys[0].kid)('</svg>&"\x00\x1b'))
    assert any("</svg>" in (element.text or "") for element in drawn(replace(found, keys=(odd,))).iter(f"{SVG}text"))


def test_a_plan_without_keys_and_one_with_too_many(site: Site, snapshot: Snapshot) -> None:
    found = ahead(site, snapshot)
    assert any("there is no key yet" in (each.text or "") for each in drawn(replace(found, keys=())).iter(f"{SVG}text"))
    many: tuple[KeyLane, ...] = (found.keys[0],) * (LANES_AT_MOST + 3)
    texts = [each.text or "" for each in drawn(replace(found, keys=many)).iter(f"{SVG}text")]
    assert "and 3 more keys" in texts


NOON = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("span", "texts"),
    [
        (timedelta(seconds=50), ["24 Nov 2026 12:30:00", "12:30:05"]),
        (timedelta(hours=6), ["24 Nov 2026 12:30", "13:00"]),
        (timedelta(days=2), ["24 Nov 2026 18:00", "25 Nov 00:00", "06:00"]),
        (timedelta(days=10), ["25 Nov 2026", "26 Nov"]),
        (timedelta(days=90), ["30 Nov 2026", "7 Dec"]),
        (timedelta(days=365), ["Dec 2026", "Jan 2027", "Feb"]),
        (timedelta(days=3653), ["2027", "2028"]),
    ],
)
def test_marks_are_at_round_moments_and_say_what_is_new(span: timedelta, texts: list[str]) -> None:
    found = marks(NOON, NOON + span, at_most=13)
    assert [mark.text for mark in found[: len(texts)]] == texts
    assert 4 <= len(found) <= 14
    assert all(NOON <= mark.at <= NOON + span for mark in found)
    assert [mark.at for mark in found] == sorted({mark.at for mark in found})
    if timedelta(days=13) < span < timedelta(days=100):
        assert {mark.at.strftime("%a") for mark in found} == {"Mon"}


def test_all_keys_that_leave_at_one_moment_are_told_of_it() -> None:
    """However many: each leaves in a set of its own."""
    many = [replace(PRIOR, kid=Kid(f"prior{number}"), grace_until=T0) for number in range(20)]
    known = KnownKeyset(KeysetRow(name=POLICY.name, due_at=T0), POLICY, at_rest(*many))
    left = [turn.at for turn in turns(known, T0, T0, CronCalendar()) if isinstance(turn.action, RetireKey)]
    assert left == [T0] * 20


def test_a_short_time_ahead_is_told_by_the_clock(site: Site, snapshot: Snapshot) -> None:
    """Its ends and bars, of which the date alone would tell nothing; and no two texts of the axis touch."""
    found = plan(snapshot, site.policy, site.clock.wall, CronCalendar(), horizon=3 * HOUR)
    root = drawn(found)
    texts = [each.text or "" for each in root.iter(f"{SVG}text")]
    assert any(re.fullmatch(r"Signing keys, \S+ \d\d:\d\dZ to \S+ \d\d:\d\dZ", text) for text in texts)
    axis = max(float(each.get("y", "0")) for each in root.iter(f"{SVG}text"))
    labels = [
        (float(each.get("x", "0")), len(each.text or "") * 7.2)
        for each in root.iter(f"{SVG}text")
        if float(each.get("y", "0")) == axis and each.get("text-anchor") == "middle"
    ]
    assert len(labels) > 5
    for (left, width), (right, other) in pairwise(labels):
        assert left + width / 2 < right - other / 2


def test_a_kid_and_its_algorithm_do_not_touch(site: Site, snapshot: Snapshot) -> None:
    """Also with a font that is a third wider than the ones that are named."""
    root = drawn(ahead(site, snapshot))
    kids = [each for each in root.iter(f"{SVG}text") if "mono" in (each.get("class") or "")]
    ends = [each for each in root.iter(f"{SVG}text") if each.text in set(Algorithm)]
    assert kids
    assert min(float(each.get("x", "0")) - len(each.text or "") * 7.2 for each in ends) > max(
        float(each.get("x", "0")) + len(each.text or "") * 9.6 for each in kids
    )


def test_a_long_time_ahead_leaves_nothing_out_and_nothing_empty(site: Site, snapshot: Snapshot) -> None:
    """Every key has its lane, and the sizes of the file are told in one where there is no room for each."""
    found = ahead(site, snapshot, days=1000)
    root = drawn(found)
    texts = [each.text or "" for each in root.iter(f"{SVG}text")]
    assert len(found.keys) > 45
    assert not any("more keys" in text for text in texts)
    assert len([each for each in root.iter(f"{SVG}rect") if each.get("class") == "cell"]) == 1
    assert any(re.fullmatch(r"\d to \d keys, at most ~\d+ B; it changes \d+ times", text) for text in texts)
