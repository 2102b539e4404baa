"""The pages of replacing and rotating: what was asked for, when it happens, and what it costs."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from rotator.cli.screen import Screen, short
from rotator.cli.times import absolute, both, relative
from rotator.core.actions import Reason
from rotator.core.counting import counted
from rotator.core.durations import format_duration
from rotator.core.model import Phase
from rotator.report.hanging import KeyDetail, Removal
from rotator.report.lists import KeyEntry
from rotator.report.replacement import PriorToken, Replacement
from rotator.report.takeover import CONFIGURED, Takeover

# -------------------------------------------------------------------------------------------------------- replacement


def show_replacement(screen: Screen, found: Replacement) -> None:
    """Show the new token, what becomes of the prior ones, and the way out for those who cannot wait."""
    style = "bold green" if found.done else "bold yellow"
    screen.line(f"workspace {found.workspace}: {_how_far(found)}", style)
    facts = []
    if found.token is not None:
        token = found.token
        facts.append(("new", f"number {token.sequence}, {token.jti}, on key {short(token.kid)}"))
    facts += [("prior", _prior(each, found.at)) for each in found.prior]
    if found.problem:
        facts.append(("failed", f"{found.problem}; it is tried again by itself"))
    screen.facts(facts)
    shortened = [each for each in found.prior if each.counts_until < each.expires_at and not each.key_revoked]
    if shortened:
        screen.line()
        for paragraph in _warning(shortened, found.at):
            screen.line(paragraph)


def _how_far(found: Replacement) -> str:
    if found.token is None:
        return "the new token is on its way"
    if not found.sinks:
        return "the new token is issued; it has no sink: rotator token show " + found.workspace
    return f"the new token is issued and delivered to {found.delivered} of {counted(found.sinks, 'sink')}"


def _prior(token: PriorToken, now: datetime) -> str:
    name = f"number {token.sequence}, {token.jti}, "
    if token.phase is Phase.REVOKED:
        return name + f"revoked {relative(token.counts_until, now)}{', as its key is' if token.key_revoked else ''}"
    if token.counts_until < token.expires_at:
        return name + f"counts as revoked from {both(token.counts_until, now)} on"
    return name + f"valid to its own end, {both(token.expires_at, now)}"


def _warning(shortened: list[PriorToken], now: datetime) -> Iterator[str]:
    last = max(token.expires_at for token in shortened)
    kids = dict.fromkeys(token.kid for token in shortened)
    yield (
        "A signed token cannot be called back: a verifier that checks nothing but signature and time accepts what is "
        f"revoked here until {both(last, now)}."
    )
    keys = "its key" if len(kids) == 1 else "their keys"
    yield f"To end it there as well, revoke {keys}, with every token on it: " + ", ".join(
        f"rotator revoke key {kid}" for kid in kids
    )


# --------------------------------------------------------------------------------------------------------------- keys


def show_takeover(screen: Screen, found: Takeover, *, headline: str) -> None:
    """Show when another key signs and why then, and in an emergency who refuses tokens for how long."""
    screen.line(headline, "bold")
    screen.facts(_takeover(found))


def _takeover(found: Takeover) -> Iterator[tuple[str, str]]:
    now = found.at
    if found.signing_kid is not None:
        since = "" if found.signing_since is None else f" since {both(found.signing_since, now)}"
        yield "signs", short(found.signing_kid) + since
    else:
        yield "signs", "no key"
    if found.takes_over_at is None or found.successor_kid is None:
        yield "next", "no key is to take over"
        return
    when = "now" if found.takes_over_at <= now else both(found.takes_over_at, now)
    yield "next", f"{short(found.successor_kid)} takes over {when}"
    yield "because", _because(found)
    if found.asked is not None:
        reason = f": {found.asked.reason}" if found.asked.reason else ""
        yield "asked", f"by {found.asked.actor} at {absolute(found.asked.at)}{reason}"


def _because(found: Takeover) -> str:
    period = format_duration(timedelta(seconds=found.propagation_seconds))
    at = found.takes_over_at
    if at is None or at <= found.at:
        return (
            "not every verifier can know it yet, and you do not wait" if found.refusals else "every verifier knows it"
        )
    if found.reason == Reason.SECURITY_PERIOD:
        return "the security period of the key that signs ends then"
    last = max(found.waits_for, key=lambda key: key.known_at or found.at)
    published = "is published now"
    if last.published_at is not None and last.published_at < found.at:
        published = f"was published at {absolute(last.published_at)}"
    if last.kid == found.successor_kid:
        return f"it {published}, and signs when every verifier can know it, {period} later"
    return (
        f"the key after it {published}; that must be out for {period} first, so that a spare which every verifier "
        "knows is left for an emergency"
    )


def show_cost(screen: Screen, found: Takeover) -> None:
    """Show what an emergency breaks, for which kinds of verifier and for how long."""
    screen.line()
    if not found.refusals:
        screen.line("What breaks: nothing. Every verifier can know the key that takes over.", "green")
    else:
        screen.line("What breaks: these verifiers can refuse tokens on the new key, until", "bold yellow")
        rows = [
            (
                "the slowest you have" if each.verifier == CONFIGURED else each.verifier,
                format_duration(timedelta(seconds=each.max_cache_seconds)),
                "yes" if each.refetches else "no",
                both(each.until, found.at),
            )
            for each in found.refusals
        ]
        screen.table(("VERIFIER", "CACHE", "REFETCH", "UNTIL AT THE LATEST"), rows, wrapped="UNTIL AT THE LATEST")
        screen.line("CACHE: how long it uses its copy. REFETCH: an unknown kid makes it fetch again.", "dim")
    screen.line("Tokens that are out now stay valid: the key that signed them stays published.")
    if found.spare_known_at is not None:
        spare = both(found.spare_known_at, found.at)
        screen.line(f"A spare that every verifier knows is there again at {spare}. Do not rotate again before.")


# --------------------------------------------------------------------------------------------------------- keys show


def show_key(screen: Screen, found: KeyDetail) -> None:
    """Show one key, what hangs on it, and when it can go."""
    key, now = found.key, found.at
    screen.line(f"key {key.kid}", "bold")
    screen.facts([*_key_facts(key, now), *_leaving(found)])
    screen.line()
    screen.line(_hang(found), "bold")
    if found.holders:
        rows = [(holder.workspace, str(holder.tokens), both(holder.last_expires_at, now)) for holder in found.holders]
        screen.table(("WORKSPACE", "TOKENS", "LAST ONE ENDS"), rows)
        more = found.workspaces - len(found.holders)
        if more:
            screen.line(f"and {counted(more, 'more workspace')}", "dim")
    screen.line()
    screen.line(_removal(found.removal, now))


def _hang(found: KeyDetail) -> str:
    on_it = "no unexpired token hangs on it"
    if found.tokens:
        tokens = counted(found.tokens, "unexpired token")
        hang = "hangs" if found.tokens == 1 else "hang"
        on_it = f"{tokens} of {counted(found.workspaces, 'workspace')} {hang} on it"
    if found.foreign_until is None:
        return on_it
    unknown = f"tokens that this database does not know may live until {both(found.foreign_until, found.at)}"
    return f"{on_it}, and {unknown}" if found.tokens else f"unknown what hangs on it: {unknown}"


def _key_facts(key: KeyEntry, now: datetime) -> Iterator[tuple[str, str]]:
    origin = "" if key.origin == "made" else f", {key.origin}"
    yield "phase", f"{key.phase}{origin}"
    yield "keyset", f"{key.keyset}, {key.algorithm}, number {key.sequence}"
    moments = (
        ("made", key.created_at),
        ("known", key.ready_at),
        ("signs since" if key.phase is Phase.ACTIVE else "signed since", key.activated_at),
        ("rotates", key.rotate_at if key.phase is Phase.ACTIVE else None),
        ("signed until", key.demoted_at),
        ("grace until", key.grace_until),
        ("last token ends", key.last_exp),
        ("retired", key.retired_at),
        ("revoked", key.revoked_at),
        ("destroyed", key.destroyed_at),
    )
    for label, moment in moments:
        if moment is not None:
            yield label, both(moment, now)


def _leaving(found: KeyDetail) -> Iterator[tuple[str, str]]:
    """Say which of the two ends of a key in grace counts."""
    key, leaves_at = found.key, found.removal.safe_at
    if key.phase is not Phase.GRACE or leaves_at is None:
        return
    by_token = key.last_exp is not None and (key.grace_until is None or key.last_exp > key.grace_until)
    why = "the last token on it outlives its grace" if by_token else "its grace outlives the last token on it"
    yield "leaves", f"{both(leaves_at, found.at)}: {why}"


def _removal(removal: Removal, now: datetime) -> str:
    if removal.safe_at is None:
        return f"not safe to remove: {removal.because}"
    if removal.safe_at <= now:
        return f"safe to remove, because {removal.because}"
    about = "about " if removal.estimated else ""
    return f"safe to remove at {about}{both(removal.safe_at, now)}, because {removal.because}"
