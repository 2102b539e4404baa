from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from rotator.core import contract
from rotator.core.contract import (
    LARGE_TOKEN,
    LARGEST_TOKEN,
    Finding,
    Gap,
    Severity,
    check_policy,
    default_propagation,
    keys_at_most,
    least_grace,
    least_propagation,
    token_characters,
)
from rotator.core.model import DEFAULT_KEYSET, Algorithm, KeysetName, WorkspaceId
from rotator.core.policy import KeysetPolicy, Policy, RotationWindow, Verifiers, WorkspacePolicy

NOW = datetime(2026, 6, 1, tzinfo=UTC)
D, H, M = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
VERIFIERS = Verifiers(max_cache=24 * H, publish_lag=M)
WINDOW = RotationWindow("0 3 * * sun", "UTC", H)
KEYSET = KeysetPolicy(
    name=DEFAULT_KEYSET,
    issuer="https://tokens.example.com",
    algorithm=Algorithm.ES256,
    security_period=90 * D,
    propagation_period=49 * H,
    grace_period=31 * D + M,
    clock_skew=M,
)
ACME = WorkspacePolicy(id=WorkspaceId("acme"), keyset=DEFAULT_KEYSET, security_period=30 * D, grace_period=D)


@dataclass
class Every:
    """An almanac whose openings are evenly spaced; with `once`, the first gap is that wide instead."""

    period: timedelta
    once: timedelta | None = None
    never: bool = False

    def openings(self, window: RotationWindow, *, start: datetime, end: datetime) -> Iterator[datetime]:
        moment = NOW
        while moment < end:
            if moment >= start:
                yield moment
            moment += self.once if self.once is not None and moment == NOW else self.period

    def last_opening(self, window: RotationWindow, *, after: datetime, until: datetime) -> datetime | None:
        fitting = [
            moment
            for moment in self.openings(window, start=NOW, end=until)
            if moment > after and moment + window.duration <= until
        ]
        return fitting[-1] if fitting else None

    def widest_gap(self, window: RotationWindow, *, start: datetime, end: datetime) -> Gap | None:
        assert (start, end) == (NOW, NOW + 5 * 366 * D)
        if self.never:
            return None
        return Gap(NOW, NOW + (self.once or self.period), clock_change=self.once is not None)


def findings(
    keyset: KeysetPolicy = KEYSET, *workspaces: WorkspacePolicy, almanac: Every | None = None
) -> tuple[Finding, ...]:
    policy = Policy(
        keysets={keyset.name: keyset}, workspaces={each.id: each for each in workspaces or (ACME,)}, clock_skew=M
    )
    return check_policy(policy, VERIFIERS, almanac or Every(7 * D), NOW)


def subjects(found: tuple[Finding, ...], severity: Severity) -> list[str]:
    return [each.subject for each in found if each.severity is severity]


def about(found: tuple[Finding, ...], severity: Severity) -> dict[str, str]:
    return {each.subject: each.text for each in found if each.severity is severity}


def test_a_sound_policy_has_only_good_findings_with_its_numbers() -> None:
    found = findings()
    assert {Severity.OK} == {each.severity for each in found}
    assert [each.text for each in found] == [
        "propagation_period 49h ≥ 1d3m = max_cache 1d + publish.lag 1m + 2 * clock_skew 1m",
        "security_period 90d > propagation_period 49h",
        "grace_period 31d1m ≥ 31d1m = longest token lifetime 31d + clock_skew 1m",
        "keys in the set ≤ 4 = 3 + ⌈grace_period 31d1m ÷ security_period 90d⌉, about 831 bytes of ES256",
        "1, shortest grace_period 1d > clock_skew 1m, longest token lifetime 31d = security_period 30d"
        " + grace_period 1d (acme)",
    ]


def test_programs_read_three_severities() -> None:
    assert list(Severity) == ["error", "warning", "ok"]


def test_without_a_workspace_only_the_keysets_are_held_against_the_rules() -> None:
    policy = Policy(keysets={KEYSET.name: replace(KEYSET, grace_period=M)}, clock_skew=M)
    found = check_policy(policy, VERIFIERS, Every(7 * D), NOW)
    assert {each.severity for each in found} == {Severity.OK}
    assert found[2].text == "grace_period 1m ≥ 1m = longest token lifetime 0s + clock_skew 1m"
    assert "workspaces" not in subjects(found, Severity.OK)


@pytest.mark.parametrize(("grace", "summed_up"), [(D, True), (2 * M, True), (M, False)])
def test_workspaces_are_summed_up_unless_one_is_wrong(grace: timedelta, summed_up: bool) -> None:
    found = findings(KEYSET, ACME, replace(ACME, id=WorkspaceId("bad"), grace_period=grace))
    assert ("workspaces" in subjects(found, Severity.OK)) is summed_up


def test_the_sum_tells_the_shortest_grace_and_the_longest_life() -> None:
    other = replace(ACME, id=WorkspaceId("other"), security_period=H, grace_period=H)
    said = about(findings(KEYSET, ACME, other), Severity.OK)["workspaces"]
    assert said == (
        "2, shortest grace_period 1h > clock_skew 1m, longest token lifetime 31d = security_period 30d"
        " + grace_period 1d (acme)"
    )
    assert "= longest token lifetime 2h + clock_skew 1m" in findings(KEYSET, other)[2].text


LEAST = 24 * H + 3 * M


@pytest.mark.parametrize(
    ("keyset", "severity", "subject", "said"),
    [
        (
            replace(KEYSET, propagation_period=LEAST - timedelta(seconds=1)),
            Severity.ERROR,
            "keysets.default.propagation_period",
            "set it to 25h or more",
        ),
        (replace(KEYSET, security_period=49 * H), Severity.ERROR, "keysets.default.security_period", "set it to 5d"),
        (
            replace(KEYSET, security_period=98 * H - M),
            Severity.WARNING,
            "keysets.default.security_period",
            "5d or more",
        ),
        (
            replace(KEYSET, grace_period=31 * D + M - timedelta(seconds=1)),
            Severity.ERROR,
            "keysets.default.grace_period",
            "set it to 32d or more, or leave it out",
        ),
        (
            replace(KEYSET, security_period=10 * D),
            Severity.WARNING,
            "keysets.default.grace_period",
            "about 1446 bytes of ES256; 5 keys and 4096 bytes are safe with every verifier: shorten the tokens on this"
            " keyset, or set its security_period to 16d or more",
        ),
        (
            replace(KEYSET, algorithm=Algorithm.RS256, grace_period=600 * D),
            Severity.WARNING,
            "keysets.default.grace_period",
            "about 4531 bytes of RS256; 5 keys and 4096 bytes are safe",
        ),
    ],
)
def test_a_broken_rule_names_the_setting_and_what_to_set(
    keyset: KeysetPolicy, severity: Severity, subject: str, said: str
) -> None:
    assert said in about(findings(keyset), severity)[subject]


@pytest.mark.parametrize(
    "keyset",
    [
        replace(KEYSET, propagation_period=LEAST),
        replace(KEYSET, security_period=98 * H, grace_period=31 * D + M),
        replace(KEYSET, security_period=(31 * D + M) / 2),
    ],
)
def test_a_rule_holds_at_its_very_edge(keyset: KeysetPolicy) -> None:
    assert about(findings(keyset), Severity.ERROR) == {}


def test_at_twice_of_the_propagation_period_there_is_room_for_an_outage() -> None:
    assert subjects(findings(replace(KEYSET, security_period=98 * H)), Severity.WARNING) == [
        "keysets.default.grace_period"
    ]


@pytest.mark.parametrize(
    ("algorithm", "size"), [(Algorithm.ES256, 1036), (Algorithm.RS256, 2271), (Algorithm.EDDSA, 616)]
)
def test_five_keys_are_safe_whatever_their_algorithm(algorithm: Algorithm, size: int) -> None:
    found = findings(replace(KEYSET, security_period=20 * D, algorithm=algorithm))
    assert subjects(found, Severity.WARNING) == []
    assert found[3].text.startswith("keys in the set ≤ 5 = 3 + ⌈")
    assert found[3].text.endswith(f"about {size} bytes of {algorithm}")


def test_the_key_bound_counts_every_prior_key_in_grace() -> None:
    assert keys_at_most(replace(KEYSET, security_period=10 * D, grace_period=20 * D)) == 5
    assert keys_at_most(replace(KEYSET, security_period=10 * D, grace_period=20 * D + M)) == 6


@pytest.mark.parametrize(
    ("grace", "severity", "said"),
    [
        (M, Severity.ERROR, "grace_period 1m ≤ clock_skew 1m: the prior token ends before the next can arrive"),
        (2 * M, Severity.WARNING, "11m or more leaves room"),
        (11 * M, Severity.OK, None),
    ],
)
def test_a_token_outlives_outage_delivery_and_reload(grace: timedelta, severity: Severity, said: str | None) -> None:
    found = about(findings(KEYSET, replace(ACME, grace_period=grace)), severity)
    assert said is None or said in found["workspaces.acme.grace_period"]
    assert said is not None or "workspaces" in found
    wrong = [*subjects(findings(KEYSET, replace(ACME, grace_period=grace)), Severity.WARNING)]
    assert ("workspaces.acme.grace_period" in wrong) is (severity is Severity.WARNING)


def test_a_workspace_needs_the_widest_gap_and_the_opening_itself() -> None:
    """The error tells where the gap is; a second more of security period is enough."""
    almanac = Every(7 * D, once=7 * D + H)
    acme = replace(ACME, rotation_window=WINDOW, security_period=7 * D + 2 * H)
    fits = findings(KEYSET, acme, almanac=almanac)
    assert about(fits, Severity.ERROR) == {}
    assert "shortest security_period 7d2h ≥ 7d2h from the start of one opening" in fits[-1].text
    assert fits[-1].subject == "workspaces"
    short = replace(acme, security_period=7 * D)
    said = about(findings(KEYSET, short, almanac=almanac), Severity.ERROR)["workspaces.acme.security_period"]
    assert said == (
        "security_period 7d < 7d2h from the start of one opening to the end of the next: '0 3 * * sun' (UTC) opens up"
        " to 7d1h apart (2026-06-01 to 2026-06-08, the change of clocks) for 1h; set security_period to 8d or more"
    )


def test_a_window_that_never_opens_is_an_error_of_its_cron() -> None:
    almanac = Every(D, never=True)
    keyset = replace(KEYSET, rotation_window=WINDOW)
    found = about(findings(keyset, replace(ACME, rotation_window=WINDOW), almanac=almanac), Severity.ERROR)
    assert {"keysets.default.rotation_window.cron", "workspaces.acme.rotation_window.cron"} == set(found)


def test_a_window_that_never_opens_is_not_summed_up() -> None:
    """There is no gap to tell of; its error tells the rest."""
    reach = contract._WindowReach(Every(D, never=True), NOW)

    assert list(reach.sum_up([replace(ACME, rotation_window=WINDOW)])) == []


@pytest.mark.parametrize("cron", ["0 3 * * sun", "0 3 1-7 * *", "0 3 * * *"])
def test_days_or_weekdays_alone_are_none(cron: str) -> None:
    keyset = replace(KEYSET, rotation_window=RotationWindow(cron, "UTC", H))
    assert subjects(findings(keyset), Severity.WARNING) == []


def test_days_and_weekdays_together_are_a_warning() -> None:
    window = RotationWindow("0 3 1-7 * sun", "UTC", H)
    keyset = replace(KEYSET, rotation_window=window)
    found = about(findings(keyset, replace(ACME, rotation_window=window)), Severity.WARNING)
    assert {"keysets.default.rotation_window.cron", "workspaces.acme.rotation_window.cron"} == set(found)
    assert "where both meet" in found["workspaces.acme.rotation_window.cron"]


@pytest.mark.parametrize(
    ("security_period", "severity", "said"),
    [
        (7 * D + 49 * H + H, Severity.OK, "≥ 9d2h = propagation_period 49h + 7d1h from the start"),
        (7 * D + 49 * H, Severity.WARNING, "may be replaced outside, too; set security_period to 10d or more"),
        (7 * D + H, Severity.WARNING, "may be replaced outside"),
        (7 * D, Severity.ERROR, "a key that begins on 2026-06-01 finds no opening; set security_period to 10d"),
    ],
)
def test_a_keyset_needs_an_opening_after_its_successor_is_known(
    security_period: timedelta, severity: Severity, said: str
) -> None:
    keyset = replace(KEYSET, rotation_window=WINDOW, security_period=security_period)
    (found,) = (each for each in findings(keyset) if each.severity is severity and said in each.text)
    assert found.path == ("keysets", "default", "security_period")


def test_the_next_opening_counts_from_the_end_of_the_one_that_a_key_began_in() -> None:
    """At 50 hours apart the next begins just as the successor is known, an hour after this one: that is too early."""
    keyset = replace(KEYSET, rotation_window=WINDOW, security_period=60 * H)
    said = about(findings(keyset, almanac=Every(50 * H)), Severity.ERROR)["keysets.default.security_period"]
    assert "a key that begins on 2026-06-01 finds no opening" in said


def test_defaults_follow_the_cache_of_the_verifiers() -> None:
    assert least_propagation(VERIFIERS, M) == LEAST
    assert default_propagation(VERIFIERS, M) == 49 * H
    assert default_propagation(Verifiers(30 * H, M), M) == 49 * H
    assert default_propagation(Verifiers(10 * M, M), M) == 80 * M
    assert default_propagation(Verifiers(100 * H, M), M) == 100 * H + 3 * M
    assert least_grace(31 * D, M) == 31 * D + M


def test_an_unused_keyset_needs_only_the_skew() -> None:
    keyset = replace(KEYSET, name=KeysetName("other"), grace_period=M)
    assert about(findings(keyset), Severity.ERROR) == {}


# ----------------------------------------------------------------------------------------------------- tokens' size


def granted(number: int, name: str = "acme") -> WorkspacePolicy:
    return replace(ACME, id=WorkspaceId(name), permissions=tuple(f"metrics:write:{each:04}" for each in range(number)))


def test_a_token_that_fits_every_header_is_not_spoken_of() -> None:
    assert not [found for found in findings(KEYSET, granted(100)) if "token of about" in found.text]


def test_a_large_token_is_a_warning_and_one_above_the_limit_an_error() -> None:
    large, larger, too_large = granted(200, "large"), granted(280, "larger"), granted(2000, "too-large")
    found = {each.severity: each for each in findings(KEYSET, large, larger, too_large) if "token of" in each.text}
    warning, error = found[Severity.WARNING], found[Severity.ERROR]
    assert warning.path == ("workspaces", "larger", "permissions")
    assert "(2 workspaces have such tokens) > 4096: some servers refuse such a header" in warning.text
    assert error.path == ("workspaces", "too-large", "permissions")
    size = token_characters(too_large, KEYSET)
    assert error.text.startswith(f"a token of about {size} bytes > defaults.max_token_size")
    assert LARGE_TOKEN < token_characters(large, KEYSET) < LARGEST_TOKEN < token_characters(too_large, KEYSET)


def test_the_limit_can_be_raised() -> None:
    policy = Policy(
        keysets={KEYSET.name: KEYSET},
        workspaces={"acme": granted(500)},  # type: ignore[dict-item] # an id is text
        clock_skew=M,
        max_token_size=65536,
    )
    found = [each for each in check_policy(policy, VERIFIERS, Every(7 * D), NOW) if "token of" in each.text]
    assert [each.severity for each in found] == [Severity.WARNING]
