"""Verdicts on tokens, with the keys, tokens and published sets of a real site."""

import json
import sqlite3
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotator.adapters.publish import read_set
from rotator.adapters.signature import verify_signature
from rotator.adapters.signing import base64url, compact
from rotator.adapters.store.integrity import SIGNING_KEYS
from rotator.adapters.tokenmaker import JwtSigner
from rotator.core import lifecycle
from rotator.core.instants import epoch_seconds
from rotator.core.jwks import canonical
from rotator.core.model import KeysetName, Origin, Phase, SigningKey, WorkspaceId
from rotator.core.secret import Secret
from rotator.report import lists
from rotator.report.verdict import Bench, Verdict, Wanted, judge
from tests.engine.site import DAY, HOUR, SECOND, Site, without, workspace

ACME = WorkspaceId("acme")


class Court:
    """A site that runs, and what forgers may know of it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        site.main.start()

    def __call__(self, token: str, **wanted: tuple[str, ...]) -> Verdict:
        daemon = self.site.main
        assert daemon.store is not None
        with daemon.store.read() as snapshot:
            bench = Bench(
                snapshot=snapshot,
                policy=self.site.policy,
                now=self.site.clock.wall,
                verify_signature=verify_signature,
                published_set=partial(read_set, daemon.tree),
            )
            return judge(Secret(token), Wanted(**wanted), bench)

    @property
    def token(self) -> str:
        """The current token of acme, as it was delivered."""
        return [parcel for parcel in self.site.main.post.delivered if parcel.workspace == ACME][-1].token.reveal()

    @property
    def claims(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(decoded(self.token.split(".")[1]))
        return found

    def signer(self, phase: Phase = Phase.ACTIVE) -> JwtSigner:
        store = self.site.main.store
        assert store is not None
        with store.read() as snapshot:
            kid = next(row.key.kid for row in snapshot.all_keys() if row.key.phase is phase)
        signer = next(found for found in self.site.main.run.signers.values() if found.kid == kid)
        assert isinstance(signer, JwtSigner)
        return signer

    def signed(
        self, claims: object, *, phase: Phase = Phase.ACTIVE, header: Mapping[str, object] = MappingProxyType({})
    ) -> str:
        """Sign whatever it is with a key of the site, as whoever stole it could."""
        signer = self.signer(phase)
        head = {"alg": signer.algorithm, "kid": signer.kid, "typ": "JWT", **header}
        start = base64url(json.dumps(head).encode()) + b"."
        return compact(start, json.dumps(claims).encode(), signer.sign).decode()

    def change_key(self, change: Callable[[SigningKey], SigningKey], phase: Phase = Phase.ACTIVE) -> None:
        store = self.site.main.store
        assert store is not None
        with store.begin() as transaction:
            row = next(row for row in transaction.all_keys() if row.key.phase is phase)
            transaction.update_key(change(row.key))

    def change_row(self, **columns: str) -> None:
        """Change the active key's row behind our back."""
        with closing(sqlite3.connect(self.site.database)) as connection, connection:
            for name, value in columns.items():
                connection.execute(f"UPDATE signing_keys SET {name} = ? WHERE phase = 'active'", [value])  # noqa: S608

    def change_origin(self, origin: Origin) -> None:
        """Let the active key be one that came here otherwise."""
        store, kid = self.site.main.store, self.signer().kid
        assert store is not None
        with store._for_writing.begin() as connection:
            SIGNING_KEYS.put(connection, store._integrity, {"kid": kid, "origin": str(origin)})


def decoded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


@pytest.fixture
def court(tmp_path: Path) -> Iterator[Court]:
    site = Site(tmp_path)
    yield Court(site)
    site.close()


def problems(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if not check.ok]


def test_a_delivered_token_is_valid_and_everything_about_it_is_told(court: Court) -> None:
    verdict = court(court.token)
    assert verdict.valid
    assert verdict.verdict.startswith("valid: workspace acme, until 20")
    assert [check.name for check in verdict.checks] == [
        *("form", "algorithm", "signature", "key", "published"),
        *("type", "issuer", "audience", "time", "token", "workspace"),
    ]
    assert (verdict.workspace, verdict.kid) == ("acme", court.signer().kid)
    assert verdict.expires_at is not None
    assert epoch_seconds(verdict.expires_at) == court.claims["exp"]


def test_what_is_asked_for_is_asked_for(court: Court) -> None:
    aud, roles, scope = court.claims["aud"], court.claims["roles"], str(court.claims["scope"])
    granted = scope.split()
    assert roles
    assert isinstance(roles, list)
    assert court(court.token, audiences=("x", str(aud)), permissions=tuple(granted), roles=tuple(roles)).valid
    assert problems(court(court.token, audiences=("x",))) == ["audience"]
    assert problems(court(court.token, permissions=(*granted, "root"))) == ["permission"]
    refused = court(court.token, roles=("root", roles[0]))
    assert problems(refused) == ["role"]
    assert refused.verdict == f"refused: it has no role root; it has {', '.join(roles)}"


def test_a_token_ends_only_after_the_skew(court: Court) -> None:
    """As RFC 7519 §4.1.4 lets a verifier do it, and not a second later."""
    token, end = court.token, court.claims["exp"]
    assert isinstance(end, int)
    court.site.main.stop()
    skew = court.site.policy.clock_skew
    court.site.main.start(settle=False)
    clock = court.site.clock
    clock.elapse(timedelta(seconds=end - clock.wall.timestamp()) + skew - SECOND)
    verdict = court(token)
    assert "time" not in problems(verdict)
    assert any("within the clock_skew" in check.text for check in verdict.checks)
    clock.elapse(SECOND)
    assert "time" in problems(court(token))


def test_a_superseded_token_is_valid_to_its_end(court: Court) -> None:
    first = court.token
    court.site.advance(3 * DAY, pace=6 * HOUR)
    assert court.token != first
    verdict = court(first)
    assert verdict.valid
    assert any("not the current one" in check.text for check in verdict.checks)


def test_a_key_verifies_through_its_grace_and_no_longer(court: Court) -> None:
    now, token = court.site.clock.wall, court.token
    court.change_key(lambda key: lifecycle.demote(key, now=now, grace_until=now + DAY))
    verdict = court(token)
    assert verdict.valid
    assert any("its key is in grace: it stays published until" in check.text for check in verdict.checks)
    court.change_key(lambda key: lifecycle.retire(key, now=now), Phase.GRACE)
    verdict = court(token)
    assert problems(verdict) == ["key"]
    assert verdict.verdict.endswith("no verifier has it any more")


FORGED = ["form", "algorithm", "signature"]


def _other_key(court: Court) -> str:
    return court.signed(court.claims, phase=Phase.PENDING, header={"kid": court.signer().kid})


def _changed_claims(court: Court) -> str:
    return swap(court.token, 1, court.claims | {"roles": ["root"]})


def _changed_header(court: Court) -> str:
    return swap(court.token, 0, {"alg": "ES256", "kid": court.signer().kid})


def _changed_signature(court: Court) -> str:
    return court.token[:-4] + "AAAA"


def _short_signature(court: Court) -> str:
    return court.token[:-82]  # still base64url that could be written in no other way


@pytest.mark.parametrize("forge", [_other_key, _changed_claims, _changed_header, _changed_signature, _short_signature])
def test_a_forgery_is_refused_before_anything_it_says_is_looked_at(court: Court, forge: Callable[[Court], str]) -> None:
    verdict = court(forge(court))
    assert [check.name for check in verdict.checks] == FORGED
    assert problems(verdict) == ["signature"]
    assert (verdict.workspace, verdict.jti, verdict.roles) == (None, None, ())


def swap(token: str, place: int, value: object) -> str:
    parts = token.split(".")
    parts[place] = base64url(json.dumps(value).encode()).decode()
    return ".".join(parts)


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA", "ES384", "PS256", "es256"])
def test_the_algorithm_is_the_keys_to_say(court: Court, algorithm: str) -> None:
    verdict = court(court.signed(court.claims, header={"alg": algorithm}))
    assert problems(verdict) == ["algorithm"]
    assert verdict.verdict == f"refused: the token says alg {algorithm}, and its key is for ES256 alone"


def test_an_unknown_kid_is_refused_by_name(court: Court) -> None:
    assert court(court.signed(court.claims, header={"kid": "x"})).verdict == "refused: no key 'x' was ever here"


@pytest.mark.parametrize(
    ("claims", "found"),
    [
        ({"iss": "https://evil.example"}, ["issuer", "token"]),
        ({"iss": None}, ["issuer", "token"]),
        ({"iss": ["https://tokens.example.com"]}, ["issuer", "token"]),
        ({"aud": None}, ["audience", "token"]),
        ({"aud": [1]}, ["audience", "token"]),
        ({"exp": None}, ["time", "token"]),
        ({"exp": "9999999999"}, ["time", "token"]),
        ({"exp": True}, ["time", "token"]),
        ({"exp": 0}, ["time", "token"]),
        ({"exp": 9_999_999_999}, ["token"]),
        ({"nbf": 9_999_999_999}, ["time", "token"]),
        ({"nbf": "0"}, ["time", "token"]),
        ({"iat": 10**300}, ["time", "token"]),
        ({"jti": "never-issued"}, ["token"]),
        ({"jti": 5}, ["token"]),
        ({"jti": "a\0b"}, ["token"]),
        ({"workspace": "umbrella"}, ["token"]),
        ({"roles": ["admin", "root"]}, ["token"]),
        ({"scope": "everything"}, ["token"]),
        ({"sub": "umbrella"}, ["token"]),
        ({"aud": ["api", "billing"]}, ["token"]),
        ({"more": "than was issued"}, ["token"]),
        ({"workspace": "nobody"}, ["token", "workspace"]),
        ({"workspace": {"acme": 1}}, ["token", "workspace"]),
        ({"workspace": "a\0b"}, ["token", "workspace"]),
    ],
)
def test_each_claim_that_is_not_as_it_should_be(court: Court, claims: dict[str, object], found: list[str]) -> None:
    """Even under a signature that holds: what was issued is at hand, and says otherwise."""
    assert problems(court(court.signed(court.claims | claims))) == found


def test_a_signature_over_a_token_that_was_never_issued_is_an_alarm(court: Court) -> None:
    verdict = court(court.signed(court.claims | {"jti": "forged"}))
    assert "somebody else can sign with it: rotator revoke key" in verdict.verdict


def test_a_probe_and_a_token_on_a_key_that_does_not_sign_yet_are_no_tokens(court: Court) -> None:
    assert problems(court(court.signed(court.claims, header={"typ": "probe+jwt"}))) == ["type"]
    assert problems(court(court.signed(court.claims, phase=Phase.PENDING))) == ["key", "token"]


def test_a_revoked_key_and_a_revoked_token(court: Court) -> None:
    store, now, token = court.site.main.store, court.site.clock.wall, court.token
    assert store is not None
    with store.begin() as transaction:
        state = transaction.workspace(ACME)
        assert state is not None
        assert state.current is not None
        transaction.revoke_token(state.current, now, "leaked")
    verdict = court(token)
    assert problems(verdict) == ["token"]
    assert "was revoked on" in verdict.verdict
    court.change_key(lambda key: lifecycle.revoke(key, now=now))
    assert problems(court(token)) == ["key", "token"]


def test_a_token_of_a_workspace_that_left_the_config(court: Court) -> None:
    store, now, token = court.site.main.store, court.site.clock.wall, court.token
    assert store is not None
    with store.begin() as transaction:
        state = transaction.workspace(ACME)
        assert state is not None
        transaction.update_workspaces([state._replace(removed_at=now)])
    verdict = court(token)
    assert problems(verdict) == ["workspace"]
    assert "left the config" in verdict.verdict


def test_a_token_from_before_its_workspace_left_and_came_back_is_told_of(court: Court) -> None:
    """Whoever held the workspace then holds a token that every verifier accepts, with rights that nobody has now."""
    former, whole = court.token, court.site.policy
    assert not court(former).notes
    crowd = {each.id: each for each in (workspace(f"w{number}") for number in range(12))}
    whole = replace(whole, workspaces={**whole.workspaces, **crowd})
    court.site.main.load(whole)
    court.site.main.load(without(whole, "acme"))
    court.site.clock.elapse(HOUR)
    reader = replace(whole.workspaces[ACME], roles=("reader",))
    court.site.main.load(replace(whole, workspaces={**whole.workspaces, ACME: reader}))
    verdict = court(former)
    assert verdict.valid, "as every verifier says"
    assert "; but it was issued before the workspace left the config and came back on 20" in verdict.verdict
    assert f"rotator revoke token {verdict.jti}" in verdict.notes[0]
    assert verdict.notes[1].startswith("the workspace has other rights by now: roles admin, and now reader. To end it")
    assert court.token != former
    assert not court(court.token).notes
    store = court.site.main.store
    assert store is not None
    with store.read() as snapshot:
        first, second = (each for each in lists.tokens(snapshot).tokens if each.workspace == ACME)
    assert first.workspace_returned_at is not None
    assert second.workspace_returned_at is None


def test_a_token_with_rights_that_the_config_has_taken_back_is_told_of(court: Court) -> None:
    former, whole = court.token, court.site.policy
    changed = replace(whole.workspaces[ACME], permissions=(), audience=("api", "billing"))
    court.site.main.load(replace(whole, workspaces={**whole.workspaces, ACME: changed}))
    (note,) = court(former).notes
    assert "permissions metrics:write, and now none; audience api, and now api, billing" in note
    assert not court("no token").notes


def test_a_key_that_someone_put_into_the_database_is_not_believed(court: Court) -> None:
    """The daemon never publishes it, for its row has no MAC of ours; and a verdict says that no verifier has it."""
    kid = court.signer().kid
    public = json.loads(read_set(court.site.main.tree, KeysetName("default")) or b"")["keys"]
    other = next(jwk for jwk in public if jwk["kid"] != kid)
    court.change_row(public_jwk=canonical(other | {"kid": kid}))
    forged = court.signed(court.claims, phase=Phase.PENDING, header={"kid": kid})
    assert problems(court(forged)) == ["key"]


def test_tokens_of_an_adopted_key_are_of_another_system(court: Court) -> None:
    """What only this program puts into a token is not asked of them."""
    court.change_origin(Origin.ADOPTED)
    claims = {name: court.claims[name] for name in ("iss", "aud", "exp")}
    verdict = court(court.signed(claims, header={"typ": "at+jwt"}))
    assert problems(verdict) == []
    assert any("as its key is adopted" in check.text for check in verdict.checks)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["iss", "sub", "aud", "iat", "nbf", "exp", "jti", "workspace", "roles", "scope"])


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Court]:
    site = Site(tmp_path_factory.mktemp("site"))
    yield Court(site)
    site.close()


@settings(deadline=None)
@given(
    changes=st.dictionaries(NAMES, VALUES, max_size=4),
    header=st.dictionaries(st.sampled_from(["typ", "alg", "x"]), VALUES, max_size=2),
)
def test_whatever_is_signed_there_is_a_verdict(
    standing: Court, changes: dict[str, object], header: dict[str, object]
) -> None:
    """By our own key even, and of any types: never a traceback; and what says that it is of another, never valid."""
    verdict = standing(standing.signed(standing.claims | changes, header=header))
    assert verdict.valid == (not problems(verdict))
    assert verdict.verdict
    assert not (verdict.valid and changes.keys() & {"iss", "jti", "workspace"})


@settings(deadline=None)
@given(place=st.integers(0, 2), text=st.text(max_size=40))
def test_whatever_part_is_put_in_there_is_a_verdict(standing: Court, place: int, text: str) -> None:
    parts = standing.token.split(".")
    parts[place] = text
    assert not standing(".".join(parts)).valid
