"""Long answers, asked for page by page, so that none holds up whoever else asks the daemon."""

from pathlib import Path
from typing import Final

from rotator.cli.session import Arguments, reader
from rotator.errors import ConfigError
from rotator.report.answers import LARGEST_PAGE
from rotator.report.lists import TokenList, TokenPage
from rotator.report.proof import ChainProof, ProofPage
from rotator.report.shape import from_json
from rotator.report.trail import AuditEntry, AuditList

MOST_EVENTS: Final = 1_000_000
"""Of the audit in one list, which is in memory as a whole; `audit export` has no such limit."""


def newest_events(option: Path | None, arguments: Arguments, limit: int) -> AuditList:
    """Return the last ``limit`` events of the audit that fit ``arguments``."""
    if limit > MOST_EVENTS:
        raise ConfigError(f"found a limit of {limit}, expected 1 to {MOST_EVENTS}")
    ask = reader(option)
    events: tuple[AuditEntry, ...] = ()
    before = None
    while len(events) < limit:
        wanted = min(limit - len(events), LARGEST_PAGE)
        page = from_json(AuditList, ask("audit.list", {**arguments, "before": before, "limit": wanted})).events
        events = page + events
        if len(page) < wanted:
            break
        before = page[0].seq
    return AuditList(events=events)


def proof(option: Path | None, head: str | None) -> ChainProof:
    """Return the proof of the whole audit."""
    ask = reader(option)
    begun: Arguments = {}
    while True:
        page = from_json(ProofPage, ask("audit.verify", {"head": head, **begun}))
        if page.proof is not None:
            return page.proof
        so_far = page.go_on_from
        begun = {"seq": so_far.seq, "hash": so_far.hash, "found": so_far.found, "events": so_far.events}


def all_tokens(option: Path | None, *, ended: bool) -> TokenList:
    """Return the tokens of every workspace."""
    ask = reader(option)
    page = from_json(TokenPage, ask("tokens.page", {"all": ended}))
    found = page.tokens
    while page.after is not None:
        page = from_json(TokenPage, ask("tokens.page", {"after": page.after, "all": ended}))
        found += page.tokens
    return TokenList(tokens=found)
