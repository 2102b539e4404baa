"""What follows from a policy: leads and jitters by a table, and what makes stored deadlines stale."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rotator.core.model import Algorithm, KeysetName, WorkspaceId
from rotator.core.policy import CommandSink, FileSink, KeysetPolicy, Policy, RotationWindow, Verifiers, WorkspacePolicy
from tests.core.worlds import DAY, HOUR, keyset_policy

WINDOW = RotationWindow("0 3 * * sun", "Europe/Berlin", HOUR)
KEYSET = keyset_policy()
ACME = WorkspacePolicy(
    id=WorkspaceId("acme"), keyset=KeysetName("default"), security_period=8 * DAY, grace_period=DAY, roles=("admin",)
)


@pytest.mark.parametrize(
    ("security", "propagation", "headroom"),
    [(100, 20, 20), (100, 30, 30), (100, 32, 29), (100, 60, 15), (100, 90, 0), (100, 95, 0)],
)
def test_a_successor_is_announced_early_as_far_as_the_period_has_room(
    security: int, propagation: int, headroom: int
) -> None:
    """A second propagation period, at most half of what jitter and the first one leave."""
    policy = keyset_policy(security_period=security * HOUR, propagation_period=propagation * HOUR)
    assert policy.headroom == headroom * HOUR
    assert policy.lead == (propagation + headroom) * HOUR


@pytest.mark.parametrize(
    ("security", "propagation", "jitter"), [(100, 20, 10), (100, 60, 10), (100, 80, 5), (100, 100, 0), (100, 120, 0)]
)
def test_jitter_is_a_tenth_of_the_period_and_leaves_room_for_a_successor(
    security: int, propagation: int, jitter: int
) -> None:
    policy = keyset_policy(security_period=security * HOUR, propagation_period=propagation * HOUR)
    assert policy.jitter == jitter * HOUR


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ({"algorithm": Algorithm.RS256}, True),
        ({"security_period": DAY}, True),
        ({"propagation_period": DAY}, True),
        ({"grace_period": DAY}, True),
        ({"rotation_window": WINDOW}, True),
        ({"ending": True}, True),
        ({"issuer": "https://another.example"}, False),
        ({"clock_skew": HOUR}, False),
    ],
)
def test_deadlines_of_a_keyset_are_computed_anew_for_what_they_depend_on(
    change: dict[str, object], stale: bool
) -> None:
    changed: KeysetPolicy = replace(KEYSET, **change)  # type: ignore[arg-type] # a table of many types
    assert (changed.schedule_fingerprint != KEYSET.schedule_fingerprint) is stale
    assert len(changed.schedule_fingerprint) == 16


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ({"security_period": DAY}, "schedule"),
        ({"grace_period": 2 * DAY}, "schedule"),
        ({"rotation_window": WINDOW}, "schedule"),
        ({"sinks": (FileSink("/run/token"),)}, "sinks"),
        ({"keyset": KeysetName("other")}, "claims"),
        ({"audience": ("api",)}, "claims"),
        ({"roles": ("viewer",)}, "claims"),
        ({"permissions": ("logs:write",)}, "claims"),
    ],
)
def test_each_setting_of_a_workspace_makes_one_thing_stale(change: dict[str, object], stale: str) -> None:
    def fingerprints(policy: WorkspacePolicy) -> dict[str, str]:
        return {
            "schedule": policy.schedule_fingerprint,
            "sinks": policy.sinks_fingerprint,
            "claims": policy.claims_fingerprint("https://tokens.example.com"),
        }

    before = fingerprints(ACME)
    after = fingerprints(replace(ACME, **change))  # type: ignore[arg-type] # a table of many types
    assert [name for name in before if before[name] != after[name]] == [stale]
    assert ACME.claims_fingerprint("https://another.example") != before["claims"]


def test_a_token_lives_for_its_period_and_its_grace() -> None:
    assert ACME.lifetime == 9 * DAY


@pytest.mark.parametrize("periods", [(8, 30), (30, 8)])
def test_the_longest_lifetime_on_a_keyset_is_that_of_its_workspaces(periods: tuple[int, ...]) -> None:
    several = [replace(ACME, id=WorkspaceId(f"w{days}"), security_period=days * DAY) for days in periods]
    policy = Policy(workspaces={one.id: one for one in several})
    assert policy.longest_lifetime(KeysetName("default")) == 31 * DAY
    assert policy.longest_lifetime(KeysetName("other")) == timedelta(0)


def test_what_holds_where_nothing_is_said() -> None:
    policy = Policy()
    assert (policy.clock_skew, policy.clock_max_gap) == (timedelta(seconds=60), 30 * DAY)
    assert policy.verifiers == Verifiers(max_cache=24 * HOUR, publish_lag=timedelta(seconds=60))
    assert FileSink("/run/token") == FileSink("/run/token", mode=0o640, format="raw")
    assert CommandSink(("/bin/true",)).timeout == timedelta(seconds=30)
    keyset = KeysetPolicy(
        name=KEYSET.name,
        issuer=KEYSET.issuer,
        algorithm=KEYSET.algorithm,
        security_period=KEYSET.security_period,
        propagation_period=KEYSET.propagation_period,
        grace_period=KEYSET.grace_period,
        clock_skew=KEYSET.clock_skew,
    )
    assert (keyset.ending, keyset.rotation_window) == (False, None)
