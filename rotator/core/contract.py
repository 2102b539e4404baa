"""The time contract: the arithmetic that a policy must keep so that no valid token is ever refused.

Pure. Each rule yields findings with the user's own numbers: what is wrong and what to set, or that it holds. The rules:

- a key is public for longer than any verifier holds an older copy: ``propagation_period`` covers the cache, the lag of
  publishing, and both clocks' skew;
- a key signs for longer than its successor needs to become known;
- a prior key stays for as long as the longest token on it lives, and the skew;
- a prior token outlives an outage, a delivery and a reload;
- every moment has an opening of its rotation window in time;
- the set stays small enough for every verifier.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from math import ceil
from typing import Final, Protocol

from rotator.core.durations import format_duration, round_up
from rotator.core.model import Algorithm
from rotator.core.policy import KeysetPolicy, Policy, RotationWindow, Verifiers, WorkspacePolicy
from rotator.core.schedule import Calendar

JWK_BYTES: Final = {Algorithm.ES256: 204, Algorithm.RS256: 451, Algorithm.EDDSA: 120}
"""Of one public JWK with a thumbprint as kid: P-256, RSA of 2048 bits, Ed25519."""

SAFE_KEYS: Final = 5
"""More keys than this at once, and some verifiers keep only a part of the set."""

SAFE_BYTES: Final = 4096
"""A larger document is cut short by some verifiers."""

WORKING_GRACE: Final = timedelta(minutes=10)
"""What a token's grace should leave beside the skew: a restart of the daemon (a minute), three attempts at a delivery
with their pauses (five), and the reload of whoever reads it (a few more)."""

HORIZON: Final = timedelta(days=5 * 366)
"""How far ahead windows are looked at: every change of clocks, and one leap day."""

_SET_OVERHEAD_BYTES: Final = 11


LARGE_TOKEN: Final = 4096
"""Some servers take no longer header than this (nginx: 8 KiB for all of them)."""

LARGEST_TOKEN: Final = 8192
"""By default; nginx and Node take no header that is longer, Kestrel 32 KiB in all."""

SIGNATURE_CHARACTERS: Final = {Algorithm.ES256: 86, Algorithm.RS256: 342, Algorithm.EDDSA: 86}
"""Of one signature in base64url: P-256, RSA of 2048 bits, Ed25519."""

_HEADER_CHARACTERS: Final = 110
_EMPTY_CLAIMS_BYTES: Final = 175
"""Names, punctuation, three times, and the jti."""


class Severity(StrEnum):
    """What a finding means for the config."""

    ERROR = "error"
    WARNING = "warning"
    OK = "ok"


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule held against one part of a policy."""

    severity: Severity
    path: tuple[str, ...]
    """Of the setting that is to change."""
    text: str

    @property
    def subject(self) -> str:
        """The path with dots, such as ``keysets.default.propagation_period``."""
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Gap:
    """Two neighbouring openings of a window."""

    first: datetime
    second: datetime
    clock_change: bool
    """The offset of the window's zone differs between them."""

    @property
    def span(self) -> timedelta:
        """From the start of one to the start of the other."""
        return self.second - self.first


class Almanac(Calendar, Protocol):
    """A calendar that can also be looked through."""

    def openings(self, window: RotationWindow, *, start: datetime, end: datetime) -> Iterator[datetime]:
        """Yield the openings from ``start`` to before ``end``."""
        ...

    def widest_gap(self, window: RotationWindow, *, start: datetime, end: datetime) -> Gap | None:
        """Return the two neighbouring openings that lie furthest apart; None where it opens fewer than twice."""
        ...


# ------------------------------------------------------------------------------------------------------- defaults


def least_propagation(verifiers: Verifiers, clock_skew: timedelta) -> timedelta:
    """Return how long a key must be out so that no verifier can hold a copy without it."""
    return verifiers.max_cache + verifiers.publish_lag + 2 * clock_skew


def default_propagation(verifiers: Verifiers, clock_skew: timedelta) -> timedelta:
    """Return a ``propagation_period`` that survives one missed refresh: twice the cache and an hour, at most 49h."""
    generous = min(timedelta(hours=49), 2 * verifiers.max_cache + timedelta(hours=1))
    return max(least_propagation(verifiers, clock_skew), generous)


def least_grace(longest_lifetime: timedelta, clock_skew: timedelta) -> timedelta:
    """Return how long a prior key must stay: until the last token on it has ended for every clock."""
    return longest_lifetime + clock_skew


# ---------------------------------------------------------------------------------------------------------- rules


def check_policy(policy: Policy, verifiers: Verifiers, almanac: Almanac, now: datetime) -> tuple[Finding, ...]:
    """Return what every rule says about ``policy``, as of ``now``.

    Workspaces yield findings only where something is wrong, and one line that sums up the rest.
    """
    reach = _WindowReach(almanac, now)
    findings: list[Finding] = []
    for keyset in policy.keysets.values():
        findings += _check_keyset(keyset, verifiers, policy.longest_lifetime(keyset.name), reach)
    bad = [found for workspace in policy.workspaces.values() for found in _check_workspace(workspace, policy, reach)]
    bad += _large_tokens(policy)
    findings += bad
    if policy.workspaces and not any(found.severity is Severity.ERROR for found in bad):
        findings.append(_sum_up(policy))
        findings += reach.sum_up(policy.workspaces.values())
    return tuple(findings)


def _check_keyset(
    keyset: KeysetPolicy, verifiers: Verifiers, lifetime: timedelta, reach: "_WindowReach"
) -> Iterator[Finding]:
    yield _propagation(keyset, verifiers)
    yield _security_period(keyset)
    yield _grace(keyset, lifetime)
    yield _size(keyset)
    if keyset.rotation_window is not None:
        yield from reach.check_keyset(keyset, keyset.rotation_window)


def _propagation(keyset: KeysetPolicy, verifiers: Verifiers) -> Finding:
    least = least_propagation(verifiers, keyset.clock_skew)
    period = keyset.propagation_period
    sides = (
        f"propagation_period {_d(period)} {'≥' if period >= least else '<'} {_d(least)}"
        f" = max_cache {_d(verifiers.max_cache)} + publish.lag {_d(verifiers.publish_lag)}"
        f" + 2 * clock_skew {_d(keyset.clock_skew)}"
    )
    path = ("keysets", keyset.name, "propagation_period")
    if period >= least:
        return Finding(Severity.OK, path, sides)
    return Finding(
        Severity.ERROR,
        path,
        f"{sides}: a verifier could meet a token of a key it cannot know yet; set it to {_d(round_up(least))} or more",
    )


def _security_period(keyset: KeysetPolicy) -> Finding:
    security, propagation = keyset.security_period, keyset.propagation_period
    path = ("keysets", keyset.name, "security_period")
    sides = (
        f"security_period {_d(security)} {'>' if security > propagation else '≤'} propagation_period {_d(propagation)}"
    )
    advice = _d(round_up(2 * propagation))
    if security <= propagation:
        return Finding(
            Severity.ERROR, path, f"{sides}: a key would end before its successor is known; set it to {advice} or more"
        )
    if security < 2 * propagation:
        return Finding(
            Severity.WARNING, path, f"{sides}, but below twice of it: no room for an outage; {advice} or more gives it"
        )
    return Finding(Severity.OK, path, sides)


def _grace(keyset: KeysetPolicy, lifetime: timedelta) -> Finding:
    least = least_grace(lifetime, keyset.clock_skew)
    path = ("keysets", keyset.name, "grace_period")
    sides = (
        f"grace_period {_d(keyset.grace_period)} {'≥' if keyset.grace_period >= least else '<'} {_d(least)}"
        f" = longest token lifetime {_d(lifetime)} + clock_skew {_d(keyset.clock_skew)}"
    )
    if keyset.grace_period >= least:
        return Finding(Severity.OK, path, sides)
    return Finding(
        Severity.ERROR,
        path,
        f"{sides}: a token would outlive the published key; set it to {_d(round_up(least))} or more, or leave it out",
    )


def keys_at_most(keyset: KeysetPolicy) -> int:
    """Return how many keys the published set can hold: the active one, two spares, and the prior ones in grace."""
    return 3 + ceil(keyset.grace_period / keyset.security_period)


def _size(keyset: KeysetPolicy) -> Finding:
    count = keys_at_most(keyset)
    size = _SET_OVERHEAD_BYTES + count * (JWK_BYTES[keyset.algorithm] + 1)
    path = ("keysets", keyset.name, "grace_period")
    sides = (
        f"keys in the set ≤ {count} = 3 + ⌈grace_period {_d(keyset.grace_period)} ÷ security_period"
        f" {_d(keyset.security_period)}⌉, about {size} bytes of {keyset.algorithm}"
    )
    if count <= SAFE_KEYS and size <= SAFE_BYTES:
        return Finding(Severity.OK, path, sides)
    limits = f"{SAFE_KEYS} keys and {SAFE_BYTES} bytes are safe with every verifier"
    longer = _d(round_up(keyset.grace_period / (SAFE_KEYS - 3)))
    return Finding(
        Severity.WARNING,
        path,
        f"{sides}; {limits}: shorten the tokens on this keyset, or set its security_period to {longer} or more",
    )


def _check_workspace(workspace: WorkspacePolicy, policy: Policy, reach: "_WindowReach") -> Iterator[Finding]:
    grace, skew = workspace.grace_period, policy.clock_skew
    if grace < skew + WORKING_GRACE:
        path = ("workspaces", workspace.id, "grace_period")
        advice = _d(round_up(skew + WORKING_GRACE))
        if grace <= skew:
            yield Finding(
                Severity.ERROR,
                path,
                f"grace_period {_d(grace)} ≤ clock_skew {_d(skew)}: the prior token ends before the next can arrive;"
                f" set it to {advice} or more",
            )
        else:
            yield Finding(
                Severity.WARNING,
                path,
                f"grace_period {_d(grace)} < clock_skew {_d(skew)} + {_d(WORKING_GRACE)} for a restart, a delivery that"
                f" is tried again, and the reader's reload; {advice} or more leaves room",
            )
    if workspace.rotation_window is not None:
        yield from reach.check_workspace(workspace, workspace.rotation_window)


def token_characters(workspace: WorkspacePolicy, keyset: KeysetPolicy) -> int:
    """Return about how long a token of a workspace is: header, claims and signature in base64url, with their dots."""
    claims = (
        _EMPTY_CLAIMS_BYTES
        + len(keyset.issuer)
        + 2 * len(workspace.id)
        + _bytes_of(workspace.audience, beside=3)
        + _bytes_of(workspace.roles, beside=3)
        + _bytes_of(workspace.permissions, beside=1)
    )
    return _HEADER_CHARACTERS + ceil(claims * 4 / 3) + SIGNATURE_CHARACTERS[keyset.algorithm] + 2


@lru_cache(maxsize=4096)
def _bytes_of(values: tuple[str, ...], *, beside: int) -> int:
    return sum(len(value.encode()) + beside for value in values)


def _large_tokens(policy: Policy) -> Iterator[Finding]:
    """Yield what is wrong with tokens that are too large for the headers that they travel in, a line for each kind."""
    large: list[tuple[int, WorkspacePolicy]] = []
    for workspace in policy.workspaces.values():
        keyset = policy.keysets.get(workspace.keyset)
        if keyset is not None and (size := token_characters(workspace, keyset)) > LARGE_TOKEN:
            large.append((size, workspace))
    for severity, found in (
        (Severity.ERROR, [each for each in large if each[0] > policy.max_token_size]),
        (Severity.WARNING, [each for each in large if each[0] <= policy.max_token_size]),
    ):
        if not found:
            continue
        size, workspace = max(found, key=lambda each: each[0])
        more = f" ({len(found)} workspaces have such tokens)" if len(found) > 1 else ""
        limit = (
            f"> defaults.max_token_size {policy.max_token_size}: many servers refuse such a header; give it fewer"
            " permissions, or raise the limit if every reader takes it"
            if severity is Severity.ERROR
            else f"> {LARGE_TOKEN}: some servers refuse such a header; fewer permissions, or a role in their"
            " place, make it shorter"
        )
        path = ("workspaces", workspace.id, "permissions")
        yield Finding(severity, path, f"a token of about {size} bytes{more} {limit}")


def _sum_up(policy: Policy) -> Finding:
    workspaces = policy.workspaces.values()
    shortest = min(workspace.grace_period for workspace in workspaces)
    longest = max(workspaces, key=lambda workspace: workspace.lifetime)
    return Finding(
        Severity.OK,
        ("workspaces",),
        f"{len(policy.workspaces)}, shortest grace_period {_d(shortest)} > clock_skew {_d(policy.clock_skew)},"
        f" longest token lifetime {_d(longest.lifetime)} = security_period {_d(longest.security_period)}"
        f" + grace_period {_d(longest.grace_period)} ({longest.id})",
    )


# -------------------------------------------------------------------------------------------------------- windows


class _WindowReach:
    """Holds windows against periods; each distinct window is looked through once."""

    def __init__(self, almanac: Almanac, now: datetime) -> None:
        self._almanac = almanac
        self._now = now
        self._gaps: dict[RotationWindow, Gap | None] = {}

    def check_workspace(self, workspace: WorkspacePolicy, window: RotationWindow) -> Iterator[Finding]:
        """Hold the widest gap against the security period: after every moment an opening must end within it."""
        gap = self._gap(window)
        path = ("workspaces", workspace.id, "rotation_window", "cron")
        if gap is None:
            yield _never(path, window)
            return
        yield from _both_days(path, window)
        needed = gap.span + window.duration
        if needed > workspace.security_period:
            yield Finding(
                Severity.ERROR,
                ("workspaces", workspace.id, "security_period"),
                f"security_period {_d(workspace.security_period)} < {_reach(window, gap)};"
                f" set security_period to {_d(round_up(needed))} or more",
            )

    def check_keyset(self, keyset: KeysetPolicy, window: RotationWindow) -> Iterator[Finding]:
        """Hold every opening against the next: a key that begins in one must find a later one in time."""
        gap = self._gap(window)
        path = ("keysets", keyset.name, "rotation_window", "cron")
        if gap is None:
            yield _never(path, window)
            return
        yield from _both_days(path, window)
        at = ("keysets", keyset.name, "security_period")
        propagation = keyset.propagation_period
        needed = propagation + gap.span + window.duration
        sides = (
            f"security_period {_d(keyset.security_period)} {'≥' if keyset.security_period >= needed else '<'}"
            f" {_d(needed)} = propagation_period {_d(propagation)} + {_reach(window, gap)}"
        )
        if keyset.security_period >= needed:
            yield Finding(Severity.OK, at, sides)
            return
        advice = f"set security_period to {_d(round_up(needed))} or more"
        missed = self._missed(keyset, window)
        if missed is not None:
            yield Finding(
                Severity.ERROR, at, f"{sides}: a key that begins on {missed:%Y-%m-%d} finds no opening; {advice}"
            )
        else:
            yield Finding(
                Severity.WARNING,
                at,
                f"{sides}: a key that begins outside of an opening, as the first does, may be replaced outside, too;"
                f" {advice} to rule it out",
            )

    def sum_up(self, workspaces: Iterable[WorkspacePolicy]) -> Iterator[Finding]:
        """Yield a line for each window that workspaces share, with the shortest security period on it."""
        shortest: dict[RotationWindow, timedelta] = {}
        for workspace in workspaces:
            window = workspace.rotation_window
            if window is not None:
                shortest[window] = min(shortest.get(window, timedelta.max), workspace.security_period)
        for window, period in shortest.items():
            gap = self._gap(window)
            if gap is not None:
                text = f"shortest security_period {_d(period)} ≥ {_reach(window, gap)}"
                yield Finding(Severity.OK, ("workspaces",), text)

    def _missed(self, keyset: KeysetPolicy, window: RotationWindow) -> datetime | None:
        for opening in self._almanac.openings(window, start=self._now, end=self._now + HORIZON):
            following = self._almanac.last_opening(
                window,
                after=opening + window.duration + keyset.propagation_period,
                until=opening + keyset.security_period,
            )
            if following is None:
                return opening
        return None

    def _gap(self, window: RotationWindow) -> Gap | None:
        if window not in self._gaps:
            end = self._now + HORIZON
            self._gaps[window] = self._almanac.widest_gap(window, start=self._now, end=end)
        return self._gaps[window]


def _reach(window: RotationWindow, gap: Gap) -> str:
    apart = gap.span
    return (
        f"{_d(apart + window.duration)} from the start of one opening to the end of the next: '{window.cron}'"
        f" ({window.timezone}) opens up to {_d(apart)} apart ({gap.first:%Y-%m-%d} to {gap.second:%Y-%m-%d}"
        f"{', the change of clocks' if gap.clock_change else ''}) for {_d(window.duration)}"
    )


def _both_days(path: tuple[str, ...], window: RotationWindow) -> Iterator[Finding]:
    _, _, day, _, weekday = window.cron.split()
    if day != "*" and weekday != "*":
        yield Finding(
            Severity.WARNING,
            path,
            f"'{window.cron}' names days of the month and weekdays: it opens where both meet, while cron itself would"
            " run on either; put * for one of them if that is not meant",
        )


def _never(path: tuple[str, ...], window: RotationWindow) -> Finding:
    return Finding(
        Severity.ERROR, path, f"'{window.cron}' ({window.timezone}) does not open twice in years; write one that does"
    )


_d = format_duration
