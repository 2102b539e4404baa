"""Judges one token as a strict verifier would, and then asks what only the state knows.

The key comes from the database alone, by the kid that the token names; the algorithm from the key (RFC 8725 §3.1).
Nothing that the token says is told before its signature holds. No text of the token ever goes into a verdict.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, TypeGuard

from rotator.core.compact import LONGEST_NAME, Compact, MalformedError, read_compact
from rotator.core.durations import format_duration
from rotator.core.instants import epoch_seconds
from rotator.core.jwks import parse_set
from rotator.core.model import Jti, KeysetName, Kid, Origin, Phase, SigningKey, Token, WorkspaceId
from rotator.core.policy import Policy
from rotator.core.secret import Secret
from rotator.core.stored_policy import policy_from_json
from rotator.errors import SealError
from rotator.ports import RevocationEntry, Snapshot
from rotator.report.restores import Beside, Restore, restores

VerifySignature = Callable[[Secret[str], str], None]
"""Verifies a token with a public JWK; raises :class:`SealError`."""

PublishedSet = Callable[[KeysetName], bytes | None]
"""Returns the bytes of a keyset's published file; None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a token is to be accepted, and why."""

    valid: bool
    verdict: str
    """One line."""
    checks: tuple[Check, ...]
    """In the order in which they were made; what comes after a forged signature is not looked at."""
    notes: tuple[str, ...] = ()
    """What makes nobody refuse it, and is to be known: who may hold it, and what it says otherwise than the config."""
    workspace: str | None = None
    """This and what follows only where the signature holds."""
    jti: str | None = None
    kid: Kid | None = None
    keyset: KeysetName | None = None
    issued_at: datetime | None = None
    expires_at: datetime | None = None
    audience: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a token is asked for beside being valid."""

    audiences: tuple[str, ...] = ()
    """At least one of them."""
    permissions: tuple[str, ...] = ()
    """All of them."""
    roles: tuple[str, ...] = ()
    """All of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a verdict is made from."""

    snapshot: Snapshot
    policy: Policy
    now: datetime
    verify_signature: VerifySignature
    published_set: PublishedSet
    beside: Beside = field(default_factory=Beside)


def malformed(problem: str) -> Verdict:
    """Return the verdict on what is no token at all."""
    return _verdict([Check(name="form", ok=False, text=problem)])


def judge(token: Secret[str], wanted: Wanted, bench: Bench) -> Verdict:
    """Return the verdict on ``token``. Total: whatever the token is, there is a verdict."""
    try:
        compact = read_compact(token.reveal())
    except MalformedError as error:
        return malformed(str(error))
    checks = [Check(name="form", ok=True, text=f"a signed token in compact form, alg {compact.algorithm}")]
    row = bench.snapshot.key(compact.kid)
    if row is None:
        text = f"no key {compact.kid!r} was ever here"
        if compact.kid in bench.beside.revoked_kids:
            text = f"key {compact.kid} was revoked, {_BY_WITNESS}; this database, an older one, never had it"
        if (entry := bench.beside.entry_of(compact.kid)) is not None:
            text = f"key {compact.kid} {_by_journal(entry)}; this database never had it"
        return _verdict([*checks, Check(name="key", ok=False, text=text)])
    key = row.key
    if not key.authentic:
        text = f"the row of key {key.kid} was changed by somebody else, and cannot be believed (rotator status)"
        return _verdict([*checks, Check(name="key", ok=False, text=text)])
    checks.append(_algorithm(compact, key))
    if checks[-1].ok:
        checks.append(_signature(token, key, bench))
    if not checks[-1].ok:
        return _verdict(checks)
    checks += _key(key, bench)
    checks += _claims(compact, key, wanted, bench)
    return _verdict(checks, compact, key, tuple(_notes(_Told.of(compact, key), key, bench)))


def _verdict(
    checks: Sequence[Check],
    compact: Compact | None = None,
    key: SigningKey | None = None,
    notes: tuple[str, ...] = (),
) -> Verdict:
    problems = [check for check in checks if not check.ok]
    told = _Told.of(compact, key)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        line = f"refused: {problems[0].text}{more}"
    else:
        until = "" if told.expires_at is None else f", until {told.expires_at:%Y-%m-%d %H:%M:%SZ}"
        line = f"valid: workspace {told.workspace}{until}"
        line += "".join(f"; but {note}" for note in notes[:1])
    return Verdict(
        valid=not problems,
        verdict=line,
        checks=tuple(checks),
        notes=() if problems else notes,
        workspace=told.workspace,
        jti=told.jti,
        kid=None if key is None else key.kid,
        keyset=None if key is None else key.keyset,
        issued_at=told.issued_at,
        expires_at=told.expires_at,
        audience=told.audience,
        roles=told.roles,
        permissions=told.permissions,
    )


# ---------------------------------------------------------------------------------------- the key and its signature


def _algorithm(compact: Compact, key: SigningKey) -> Check:
    if compact.algorithm != key.algorithm:
        text = f"the token says alg {compact.algorithm}, and its key is for {key.algorithm} alone"
        return Check(name="algorithm", ok=False, text=text)
    return Check(name="algorithm", ok=True, text=f"{key.algorithm}, as its key says")


def _signature(token: Secret[str], key: SigningKey, bench: Bench) -> Check:
    try:
        bench.verify_signature(token, key.public_jwk)
    except SealError:
        return Check(name="signature", ok=False, text=f"it was not signed by key {key.kid}, or was changed since")
    return Check(name="signature", ok=True, text=f"signed by key {key.kid}")


def _key(key: SigningKey, bench: Bench) -> Iterator[Check]:
    def told(text: str, *, ok: bool = False) -> Check:
        return Check(name="key", ok=ok, text=f"its key {text}")

    if key.phase is not Phase.REVOKED and (known := _known_beside(key.kid, bench)):
        yield told(known)
        return
    match key.phase:
        case Phase.ACTIVE:
            yield told("is active", ok=True)
        case Phase.GRACE:
            until = "" if key.grace_until is None else f" until {key.grace_until:%Y-%m-%d %H:%MZ} at least"
            yield told(f"is in grace: it stays published{until}", ok=True)
        case Phase.PENDING if key.origin is Origin.IMPORTED:
            yield told("was imported, and is pending here: tokens of its former system may be of it", ok=True)
        case Phase.PENDING:
            yield told("is pending: it has not begun to sign, so that no token of it can be right")
        case Phase.RETIRED:
            yield told(f"was retired{_on(key.retired_at)}: no verifier has it any more")
        case Phase.REVOKED:
            yield told(f"was revoked{_on(key.revoked_at)}")
    if key.phase in (Phase.ACTIVE, Phase.GRACE):
        published = dict(parse_set(bench.published_set(key.keyset) or b"") or ())
        found = published.get(key.kid) == key.public_jwk
        text = (
            "its key is in the published set"
            if found
            else ("its key is not, or not as it is here, in the published set: verifiers refuse it (rotator status)")
        )
        yield Check(name="published", ok=found, text=text)


_BY_WITNESS: Final = "as the witness says"


def _known_beside(kid: Kid, bench: Bench) -> str:
    """Return who knows that a key was revoked of which the database does not; empty where nobody does."""
    entry = bench.beside.entry_of(kid)
    if entry is not None:
        return f"{_by_journal(entry)}; the database is to follow"
    if kid in bench.beside.revoked_kids:
        return f"was revoked, {_BY_WITNESS}; this database, an older one, does not know it"
    return ""


def _by_journal(entry: RevocationEntry) -> str:
    return f"was revoked{_on(entry.accepted_at)} by {entry.actor}, as the journal of revocations says"


def _on(moment: datetime | None) -> str:
    return "" if moment is None else f" on {moment:%Y-%m-%d %H:%MZ}"


# --------------------------------------------------------------------------------------------------------- the claims


def _claims(compact: Compact, key: SigningKey, wanted: Wanted, bench: Bench) -> Iterator[Check]:
    told = _Told.of(compact, key)
    yield _type(compact, key)
    yield _issuer(compact, key, bench)
    yield _audience(told, wanted)
    yield from _time(compact.claims, bench.now, bench.policy.clock_skew)
    yield _token(compact, key, bench)
    yield _workspace(told, key, bench)
    for each in wanted.permissions:
        yield _grant("permission", each, told.permissions)
    for each in wanted.roles:
        yield _grant("role", each, told.roles)


TYPES: Final = frozenset({"jwt", "application/jwt", "at+jwt", "application/at+jwt"})


def _type(compact: Compact, key: SigningKey) -> Check:
    kind = compact.kind
    if kind == "JWT" or (key.origin is not Origin.MADE and (kind is None or kind.lower() in TYPES)):
        return Check(name="type", ok=True, text="it is a token" if kind is None else f"typ {kind}")
    return Check(name="type", ok=False, text=f"it is no token of a workspace: typ {kind or 'is missing'}, expected JWT")


def _issuer(compact: Compact, key: SigningKey, bench: Bench) -> Check:
    own = bench.policy.keysets.get(key.keyset)
    if own is None:
        row = bench.snapshot.keyset(key.keyset)
        own = policy_from_json(row.policy) if row is not None and row.policy else None
    expected = "" if own is None else own.issuer
    found = compact.claims.get("iss")
    if found == expected:
        return Check(name="issuer", ok=True, text=expected)
    return Check(
        name="issuer", ok=False, text=f"it is of issuer {_shown(found)}, and keyset {key.keyset} of {expected}"
    )


def _audience(told: "_Told", wanted: Wanted) -> Check:
    listed = ", ".join(told.audience)
    if not told.audience:
        return Check(name="audience", ok=False, text="it is for no audience: aud is missing or no text")
    if not wanted.audiences:
        return Check(name="audience", ok=True, text=f"{listed}; none was asked for (--audience)")
    if set(wanted.audiences) & set(told.audience):
        return Check(name="audience", ok=True, text=listed)
    return Check(name="audience", ok=False, text=f"it is for {listed}, not for {' or '.join(wanted.audiences)}")


def _time(claims: Mapping[str, object], now: datetime, skew: timedelta) -> Iterator[Check]:
    """Hold the times against ``now``; each may be off by ``skew`` (RFC 7519 §4.1.4 to §4.1.6)."""
    at, allowed = now.timestamp(), skew.total_seconds()
    end = _number(claims.get("exp"))
    if end is None:
        yield Check(name="time", ok=False, text="it has no end: exp is missing or no number")
    elif at >= end + allowed:
        yield Check(name="time", ok=False, text=f"it expired {_day(end)}")
    else:
        late = f", which is within the clock_skew of {format_duration(skew)}" if at >= end else ""
        yield Check(name="time", ok=True, text=f"valid until {_day(end)}{late}")
    for name, meaning in (("nbf", "not valid before"), ("iat", "issued")):
        if name not in claims:
            continue
        begin = _number(claims[name])
        if begin is None:
            yield Check(name="time", ok=False, text=f"its {name} is no number")
        elif begin > at + allowed:
            yield Check(name="time", ok=False, text=f"it is {meaning} {_day(begin)}, which is still to come")


def _token(compact: Compact, key: SigningKey, bench: Bench) -> Check:
    """Ask the database for the token itself: a signature that holds over a token unknown here is the worst of news."""
    jti = compact.claims.get("jti")
    row = bench.snapshot.token(Jti(jti)) if _is_name(jti) else None
    revoked = row is not None and row.token.phase is Phase.REVOKED
    entry = bench.beside.entry_of(Jti(jti)) if _is_name(jti) and not revoked else None
    if entry is not None:
        return Check(name="token", ok=False, text=f"the token {_by_journal(entry)}; the database is to follow")
    if _is_name(jti) and jti in bench.beside.revoked_jtis and not revoked:
        text = f"the token was revoked, {_BY_WITNESS}; this database, an older one, does not know it"
        return Check(name="token", ok=False, text=text)
    if row is None and key.origin is not Origin.MADE:
        return Check(name="token", ok=True, text=f"not of this database, as its key is {key.origin}")
    if row is None or not _is_the_one(row.token, compact, key):
        lost = _lost(compact, bench) if row is None else ""
        text = lost or (
            f"no such token {_shown(jti)} was issued on this key here. Unless an older database was put in place of "
            f"which nothing here tells, somebody else can sign with it: rotator revoke key {key.kid}"
        )
        return Check(name="token", ok=False, text=text)
    token = row.token
    if _says_otherwise(compact, token, key, bench):
        text = (
            f"it is not what was issued as token {jti}, and yet signed by key {key.kid}: somebody else can sign with "
            f"it: rotator revoke key {key.kid}"
        )
        return Check(name="token", ok=False, text=text)
    if token.phase is Phase.REVOKED:
        return Check(name="token", ok=False, text=f"the token was revoked{_on(token.revoked_at)}")
    if token.phase is Phase.ACTIVE:
        return Check(name="token", ok=True, text=f"the current token of its workspace, number {token.sequence}")
    return Check(
        name="token", ok=True, text=f"number {token.sequence} of its workspace; not revoked, and not the current one"
    )


def _says_otherwise(compact: Compact, token: Token, key: SigningKey, bench: Bench) -> bool:
    """Tell whether a token claims something else than what was issued under its jti, where that text is at hand.

    A key that leaked signs what it is given: so a forgery can borrow jti, workspace and end from a token that is out.
    """
    text = bench.snapshot.token_text(token.jti, key.algorithm)
    return text is not None and read_compact(text.reveal().decode()).claims != compact.claims


def _lost(compact: Compact, bench: Bench) -> str:
    """Return what is known of a token that was issued, as it says, between a backup and its restore; else nothing."""
    issued_at = _moment(compact.claims.get("iat"))
    if issued_at is None:
        return ""
    when = f"by its iat it was issued at {issued_at:%Y-%m-%d %H:%M:%SZ}"
    skew = bench.policy.clock_skew + timedelta(seconds=1)  # iat is that much before the moment, RFC 7519 §4.1.6
    found = next((each for each in reversed(restores(bench.snapshot)) if _fell_into(each, issued_at, skew)), None)
    if found is None and bench.beside.ahead is None:
        return ""
    if found is None:
        return (
            f"{when}, and is not in this database; but this database is older than the witness, so that it may have "
            "been issued since. It is not revoked as far as the witness knows (rotator status)"
        )
    since = "" if found.last_at is None else f" of {found.last_at:%Y-%m-%d %H:%M:%SZ}"
    revoked = "it is not revoked as far as the witness knows"
    if found.lost_hash is None:
        revoked = "nothing tells whether it was revoked, for nothing else was left of that database"
    return (
        f"{when}, after the last event{since} of the backup that was put in place since: {found.told}. So it was lost "
        f"with the database of before; {revoked}, and verifiers accept it to its end"
    )


def _fell_into(found: Restore, issued_at: datetime, skew: timedelta) -> bool:
    return (found.last_at is None or issued_at >= found.last_at - skew) and issued_at <= found.at


def _is_the_one(token: Token, compact: Compact, key: SigningKey) -> bool:
    """Tell whether the token that was issued under this jti is the one in hand, and not one that borrows its name."""
    claims = compact.claims
    issued = (token.kid, token.workspace, epoch_seconds(token.expires_at))
    return issued == (key.kid, claims.get("workspace"), claims.get("exp"))


def _workspace(told: "_Told", key: SigningKey, bench: Bench) -> Check:
    name = told.workspace
    if name is None and key.origin is not Origin.MADE:
        return Check(name="workspace", ok=True, text=f"it names none, as its key is {key.origin}")
    state = None if name is None else bench.snapshot.workspace(WorkspaceId(name))
    if state is None:
        return Check(name="workspace", ok=False, text=f"there is no workspace {_shown(name)}")
    if state.removed_at is not None:
        text = f"workspace {name} left the config{_on(state.removed_at)}; verifiers accept its tokens until they end"
        return Check(name="workspace", ok=False, text=text)
    return Check(name="workspace", ok=True, text=f"workspace {name} is there")


def _notes(told: "_Told", key: SigningKey, bench: Bench) -> Iterator[str]:
    """Yield what a verifier cannot know of a token that it accepts: it is from another time of its workspace."""
    name = None if told.workspace is None else WorkspaceId(told.workspace)
    wanted = None if name is None else bench.policy.workspaces.get(name)
    if name is None or wanted is None or told.jti is None or key.origin is not Origin.MADE:
        return
    row, state = bench.snapshot.token(Jti(told.jti)), bench.snapshot.workspace(name)
    if row is None:  # nothing of ours, whatever it says
        return
    returned_at = None if state is None else state.returned_at
    way_out = f"To end it before its time: rotator revoke token {told.jti}"
    if returned_at is not None and row.token.issued_at < returned_at:
        yield (
            f"it was issued before the workspace left the config and came back{_on(returned_at)}: whoever held the "
            f"workspace then may still hold it. {way_out}"
        )
    differs = [
        f"{kind} {_listed(had)}, and now {_listed(has)}"
        for kind, had, has in (
            ("roles", told.roles, wanted.roles),
            ("permissions", told.permissions, wanted.permissions),
            ("audience", told.audience, wanted.audience),
        )
        if set(had) != set(has)
    ]
    if differs:
        yield f"the workspace has other rights by now: {'; '.join(differs)}. {way_out}"


_LISTED_AT_MOST: Final = 5


def _listed(names: Sequence[str]) -> str:
    """Return the first of some names that the token or the config says."""
    more = [f"{len(names) - _LISTED_AT_MOST} more"] if len(names) > _LISTED_AT_MOST else []
    return ", ".join([*map(_shown, names[:_LISTED_AT_MOST]), *more]) or "none"


def _grant(kind: str, wanted: str, granted: Sequence[str]) -> Check:
    if wanted in granted:
        return Check(name=kind, ok=True, text=f"it has the {kind} {wanted}")
    return Check(name=kind, ok=False, text=f"it has no {kind} {wanted}; it has {', '.join(granted) or 'none'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What a token says of itself, as far as it says it as it should."""

    workspace: str | None = None
    jti: str | None = None
    issued_at: datetime | None = None
    expires_at: datetime | None = None
    audience: tuple[str, ...] = field(default=())
    roles: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()

    @classmethod
    def of(cls, compact: Compact | None, key: SigningKey | None) -> "_Told":
        """Read the claims of a token whose signature holds; nothing of any other."""
        if compact is None or key is None:
            return cls()
        claims = compact.claims
        workspace, scope, jti = claims.get("workspace"), claims.get("scope"), claims.get("jti")
        return cls(
            workspace=workspace if _is_name(workspace) else None,
            jti=jti if _is_name(jti) else None,
            issued_at=_moment(claims.get("iat")),
            expires_at=_moment(claims.get("exp")),
            audience=_texts(claims.get("aud")),
            roles=_texts(claims.get("roles")),
            permissions=tuple(scope.split()) if isinstance(scope, str) else (),
        )


def _texts(value: object) -> tuple[str, ...]:
    """Return one text or a list of them; nothing where anything else is among them."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    return ()


def _is_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and value.isprintable()


def _shown(value: object) -> str:
    return value if _is_name(value) else "(none that could be read)"


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _moment(value: object) -> datetime | None:
    number = _number(value)
    try:
        return None if number is None else datetime.fromtimestamp(number, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _day(number: float) -> str:
    moment = _moment(number)
    return "in a year that no calendar has" if moment is None else f"{moment:%Y-%m-%d %H:%M:%SZ}"
