"""The reading commands: the same names, arguments and answers over the control socket and in process."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from rotator.core.model import Jti, KeysetName, WorkspaceId
from rotator.core.policy import Policy
from rotator.core.schedule import Calendar
from rotator.core.secret import Secret
from rotator.errors import ConfigError
from rotator.ports import Snapshot
from rotator.report.hanging import KeyDetail, key_detail
from rotator.report.lists import KeyList, TokenList, TokenPage, keys, tokens, tokens_page
from rotator.report.naming import beginning_of
from rotator.report.plans import Plan, plan
from rotator.report.proof import Progress, ProofPage, prove_page
from rotator.report.records import Report
from rotator.report.replacement import Replacement, replacement
from rotator.report.restores import Beside
from rotator.report.revocation import Revocation, Subject, revocation
from rotator.report.status import status
from rotator.report.takeover import Takeover, takeover
from rotator.report.trail import AuditFilter, AuditList, AuditPage, audit, page
from rotator.report.verdict import Bench, PublishedSet, Verdict, VerifySignature, Wanted, judge

Arguments = Mapping[str, str | int | bool | None]

DEFAULT_HORIZON: Final = timedelta(days=90)
LONGEST_HORIZON: Final = timedelta(days=3653)
LARGEST_PAGE: Final = 5_000
"""Events of the audit, or tokens, in one answer: some megabytes."""
PROVEN_AT_ONCE: Final = 50_000
"""Events of the audit that are hashed for one answer: some seconds."""
LAST_EVENT: Final = 2**62
"""More than any database gets to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a reading command looks at."""

    snapshot: Snapshot
    policy: Policy
    now: datetime
    calendar: Calendar
    faults: Mapping[str, str]
    verify_signature: VerifySignature
    published_set: PublishedSet
    several_replicas: bool = False
    beside: Beside = field(default_factory=Beside)
    check: Callable[[], None] = lambda: None
    """Raises when nobody waits for the answer any more, or it takes too long."""


def _status(view: View, arguments: Arguments) -> Report:
    _expect(arguments)
    return status(view.snapshot, view.policy, view.now, view.faults, several_replicas=view.several_replicas)


def _plan(view: View, arguments: Arguments) -> Plan:
    _expect(arguments, for_seconds=int, what_if=str)
    given = arguments.get("for_seconds")
    seconds = DEFAULT_HORIZON.total_seconds() if given is None else int(given)
    if not 0 < seconds <= LONGEST_HORIZON.total_seconds():
        raise ConfigError(f"the timeline ahead goes from a second to {LONGEST_HORIZON.days} days")
    what_if = str(arguments.get("what_if") or "")
    horizon = timedelta(seconds=seconds)
    return plan(view.snapshot, view.policy, view.now, view.calendar, horizon=horizon, what_if=what_if, check=view.check)


def _keys(view: View, arguments: Arguments) -> KeyList:
    _expect(arguments)
    return keys(view.snapshot, view.policy, view.now)


def _tokens(view: View, arguments: Arguments) -> TokenList:
    _expect(arguments, workspace=str, all=bool)
    workspace = arguments.get("workspace")
    return tokens(
        view.snapshot,
        workspace=None if workspace is None else WorkspaceId(str(workspace)),
        ended=bool(arguments.get("all")),
    )


def _tokens_page(view: View, arguments: Arguments) -> TokenPage:
    _expect(arguments, after=str, limit=int, all=bool)
    after = WorkspaceId(str(arguments.get("after") or ""))
    return tokens_page(view.snapshot, after, _limit(arguments, LARGEST_PAGE), ended=bool(arguments.get("all")))


def _limit(arguments: Arguments, usual: int) -> int:
    given = arguments.get("limit")
    limit = usual if given is None else int(given)
    if not 1 <= limit <= LARGEST_PAGE:
        raise ConfigError(f"found a limit of {limit}, expected 1 to {LARGEST_PAGE}")
    return limit


def _number(arguments: Arguments, name: str) -> int | None:
    given = arguments.get(name)
    if given is not None and not 0 <= int(given) <= LAST_EVENT:
        raise ConfigError(f"found {given} as the number of an event, expected 0 to {LAST_EVENT}")
    return None if given is None else int(given)


def _audit(view: View, arguments: Arguments) -> AuditList:
    _expect(arguments, workspace=str, key=str, event=str, since=str, actor=str, before=int, limit=int)
    workspace, key, event, actor = (arguments.get(name) for name in ("workspace", "key", "event", "actor"))
    since = arguments.get("since")
    wanted = AuditFilter(
        workspace=None if workspace is None else WorkspaceId(str(workspace)),
        key=None if key is None else beginning_of(str(key)),
        event=None if event is None else str(event),
        since=None if since is None else _moment(str(since)),
        actor=None if actor is None else str(actor),
        before=_number(arguments, "before"),
        limit=_limit(arguments, AuditFilter().limit),
    )
    return audit(view.snapshot, wanted)


def _audit_page(view: View, arguments: Arguments) -> AuditPage:
    _expect(arguments, after=int, limit=int)
    return page(view.snapshot, _number(arguments, "after") or 0, _limit(arguments, LARGEST_PAGE))


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConfigError(f"{text!r} is no moment; expected RFC 3339 with a zone, such as 2026-03-01T00:00:00Z")
    return moment


def _proof(view: View, arguments: Arguments) -> ProofPage:
    _expect(arguments, head=str, seq=int, hash=str, found=bool, events=int)
    head, known = arguments.get("head"), str(arguments.get("hash") or "")
    for each in filter(None, (head, known)):
        if not _HASH.fullmatch(str(each).strip()):
            raise ConfigError(f"{str(each)[:80]!r} is no head of the audit; expected the 64 hex digits of a hash")
    begun = Progress(
        seq=_number(arguments, "seq") or 0,
        hash=known,
        found=bool(arguments.get("found")),
        events=_number(arguments, "events") or 0,
    )
    return prove_page(view.snapshot, None if head is None else str(head), view.beside.ahead, begun, PROVEN_AT_ONCE)


_HASH: Final = re.compile(r"[0-9a-fA-F]{64}")


def _verify(view: View, arguments: Arguments) -> Verdict:
    _expect(arguments, token=str, audiences=str, permissions=str, roles=str)
    token = Secret(str(arguments.get("token") or ""))
    wanted = Wanted(**{name: _texts(name, arguments.get(name)) for name in ("audiences", "permissions", "roles")})
    bench = Bench(
        snapshot=view.snapshot,
        policy=view.policy,
        now=view.now,
        verify_signature=view.verify_signature,
        published_set=view.published_set,
        beside=view.beside,
    )
    return judge(token, wanted, bench)


def _revocation(view: View, arguments: Arguments) -> Revocation:
    _expect(arguments, subject=str, name=str, since=str)
    subject, since = str(arguments.get("subject") or ""), arguments.get("since")
    if subject not in set(Subject):
        raise ConfigError(f"found {subject!r} to revoke, expected one of: {', '.join(Subject)}")
    return revocation(
        view.snapshot,
        view.policy,
        view.now,
        view.faults,
        Subject(subject),
        str(arguments.get("name") or ""),
        None if since is None else _moment(str(since)),
    )


def _key(view: View, arguments: Arguments) -> KeyDetail:
    _expect(arguments, kid=str)
    return key_detail(view.snapshot, view.policy, view.now, view.calendar, str(arguments.get("kid") or ""))


def _takeover(view: View, arguments: Arguments) -> Takeover:
    _expect(arguments, keyset=str, supposed=str)
    supposed = str(arguments.get("supposed") or "")
    if supposed not in ("", "rotation", "emergency"):
        raise ConfigError(f"found {supposed!r} as supposed, expected rotation or emergency")
    name = KeysetName(str(arguments.get("keyset") or ""))
    return takeover(view.snapshot, view.policy, view.now, view.calendar, name, supposed=supposed)


def _replacement(view: View, arguments: Arguments) -> Replacement:
    _expect(arguments, workspace=str, prior=str)
    workspace, prior = (str(arguments.get(name) or "") for name in ("workspace", "prior"))
    return replacement(view.snapshot, view.now, WorkspaceId(workspace), Jti(prior))


def _texts(name: str, value: str | int | None) -> tuple[str, ...]:
    """Read a list of texts, which goes through the socket as one text in JSON."""
    try:
        found = json.loads(str(value or "[]"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ConfigError(f"the argument {name} is not a list of texts in JSON")
    return tuple(found)


def _expect(arguments: Arguments, **known: type) -> None:
    for name, value in arguments.items():
        if name not in known:
            raise ConfigError(f"unknown argument {name!r}; known are: {', '.join(known) or 'none'}")
        if value is not None and type(value) is not known[name]:
            shown = "of another kind" if name == "token" else repr(value)
            raise ConfigError(f"the argument {name} is {shown}; expected {known[name].__name__}")


Answer = (
    Report
    | Plan
    | KeyList
    | KeyDetail
    | Takeover
    | TokenList
    | TokenPage
    | Replacement
    | AuditList
    | AuditPage
    | ProofPage
    | Verdict
    | Revocation
)

READING: Final[Mapping[str, Callable[[View, Arguments], Answer]]] = MappingProxyType(
    {
        "status": _status,
        "plan": _plan,
        "keys.list": _keys,
        "keys.show": _key,
        "keyset.takeover": _takeover,
        "token.replacement": _replacement,
        "tokens.list": _tokens,
        "tokens.page": _tokens_page,
        "audit.list": _audit,
        "audit.page": _audit_page,
        "audit.verify": _proof,
        "token.verify": _verify,
        "revocation.show": _revocation,
    }
)
"""By the name that goes over the control socket."""

FOR_OPERATORS: Final = frozenset({"keyset.takeover", "revocation.show", "token.replacement", "token.verify"})
"""What viewers may not ask; all else is for them."""

ANSWERS: Final[Mapping[str, type[Answer]]] = MappingProxyType(
    {
        "status": Report,
        "plan": Plan,
        "keys.list": KeyList,
        "keys.show": KeyDetail,
        "keyset.takeover": Takeover,
        "token.replacement": Replacement,
        "tokens.list": TokenList,
        "tokens.page": TokenPage,
        "audit.list": AuditList,
        "audit.page": AuditPage,
        "audit.verify": ProofPage,
        "token.verify": Verdict,
        "revocation.show": Revocation,
    }
)
