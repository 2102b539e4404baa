"""Many keysets have their turn at once: one look at each, one commit for several, and still one failure is one."""

import pytest

from rotator.core.model import Phase
from tests.benchmarks.keysets import counted_statements
from tests.engine.site import DAY, MINUTE, Site, keyset, policy_of, workspace
from tests.model.bugs import BUGS, planted

NAMES = ["default", *(f"more-{number:02}" for number in range(9))]
MANY = policy_of([keyset(name) for name in NAMES], [])

FORBIDS = "CREATE TRIGGER forbidden BEFORE {change} BEGIN SELECT RAISE(ABORT, 'not this one'); END"


@pytest.fixture
def empty(site: Site) -> Site:
    """Give a site with a database of one keyset, to which many are to come."""
    site.main.start(policy_of([keyset()], []))
    return site


def forbid(site: Site, change: str) -> None:
    """Let the database refuse a change, as one that somebody tinkers with may."""
    with site.main.store._engine.begin() as connection:  # type: ignore[union-attr]
        connection.exec_driver_sql(FORBIDS.format(change=change))


def allow(site: Site) -> None:
    with site.main.store._engine.begin() as connection:  # type: ignore[union-attr]
        connection.exec_driver_sql("DROP TRIGGER forbidden")


def signing(site: Site) -> set[str]:
    return {key.keyset for key in site.signing_keys(Phase.ACTIVE)}


def test_a_first_start_looks_three_times_at_each_keyset_and_shares_its_commits(site: Site) -> None:
    """Before there are keys, before their set is written, and when it was read back."""
    with counted_statements() as counted:
        site.main.start(MANY)
    assert signing(site) == set(NAMES)
    assert counted["observations"] == 3 * len(NAMES)
    assert 0 < counted["commits"] < 2 * len(NAMES)
    site.assert_sound()


def test_a_turn_with_nothing_to_do_looks_once(site: Site) -> None:
    site.main.start(MANY)
    with counted_statements() as counted:
        site.main.restart()
    assert counted["observations"] == len(NAMES)


def test_a_keyset_that_cannot_be_stored_costs_no_other_its_turn(empty: Site) -> None:
    site = empty
    forbid(site, "INSERT ON signing_keys WHEN NEW.keyset = 'more-03'")
    site.main.load(MANY)
    assert signing(site) == {*NAMES} - {"more-03"}
    assert [subject for subject in site.main.run.faults if subject.startswith("keyset:")] == ["keyset:more-03"]
    allow(site)
    site.advance(MINUTE)
    assert signing(site) == {*NAMES}
    assert not site.main.run.faults
    site.assert_sound()


def test_a_plan_that_would_break_an_invariant_ends_before_it(site: Site) -> None:
    """Our fault, and one that is told: what came before it in the plan stays done, and nothing signs."""
    with planted(BUGS["a key signs without having proved itself"]):
        site.main.start()
    assert site.main.run.faults["keyset:default"].endswith("signs and never proved itself")
    assert site.active() is None
    assert len(site.main.kids()) == 2
    site.advance(5 * MINUTE)
    assert site.active() is not None
    site.assert_sound()


def test_what_was_published_is_recorded_although_what_comes_after_it_fails(empty: Site) -> None:
    site = empty
    forbid(site, "UPDATE ON signing_keys WHEN NEW.keyset = 'more-03'")
    site.main.load(MANY)
    assert signing(site) == {*NAMES} - {"more-03"}
    assert site.query("SELECT count(*) FROM publications WHERE keyset = 'more-03'") == [(1,)]
    assert site.query("SELECT count(*) FROM sightings WHERE keyset = 'more-03'") == [(2,)]
    allow(site)
    site.advance(MINUTE)
    assert signing(site) == {*NAMES}
    site.assert_sound()


def test_a_tree_that_cannot_be_written_for_one_keyset_is_written_for_the_others(empty: Site) -> None:
    site = empty
    (site.main.tree / "keysets" / "more-03").write_text("in the way")
    site.main.load(MANY)
    assert signing(site) == {*NAMES} - {"more-03"}
    assert "publish:more-03" in site.main.run.faults
    (site.main.tree / "keysets" / "more-03").unlink()
    site.advance(MINUTE)
    assert signing(site) == {*NAMES}
    assert not site.main.run.faults
    site.assert_sound()


def test_all_rotate_at_once_and_their_tokens_follow(site: Site) -> None:
    workspaces = [workspace(f"on-{name}", site.sink(f"on-{name}"), on=name) for name in NAMES]
    site.main.start(policy_of([keyset(name, security_period=8 * DAY) for name in NAMES], workspaces))
    first = {key.kid for key in site.signing_keys(Phase.ACTIVE)}
    site.advance(8 * DAY, pace=DAY)
    second = {key.kid for key in site.signing_keys(Phase.ACTIVE)}
    assert len(first) == len(second) == len(NAMES)
    assert not first & second
    site.assert_sound()
