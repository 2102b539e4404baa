"""Whole rows are turned back, swapped, put in again or taken away, each with the MAC that it once had for good."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import jwt
import pytest

from rotator.core.events import EventName
from rotator.engine.tick import HEARTBEAT
from rotator.errors import StoreError
from rotator.report import status
from rotator.report.records import Health, Problem
from tests.engine.site import DAY, HOUR, MINUTE, SECOND, Site, keyset, policy_of, workspace

Row = dict[str, Any]


def rows(site: Site, table: str, where: str = "1") -> list[Row]:
    with closing(sqlite3.connect(site.database)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table} WHERE {where}")]  # noqa: S608 - ours


def put(site: Site, table: str, *found: Row) -> None:
    """Put whole rows in, in place of what has their keys."""
    with closing(sqlite3.connect(site.database)) as connection, connection:
        for row in found:
            marks = ", ".join("?" * len(row))
            connection.execute(
                f"INSERT OR REPLACE INTO {table} ({', '.join(row)}) VALUES ({marks})",  # noqa: S608 - names of ours
                list(row.values()),
            )


def problems(site: Site) -> dict[str, Problem]:
    run = site.main.run
    with run.around.store.read() as snapshot:
        report = status(snapshot, site.policy, site.clock.wall, run.faults)
    return {problem.subject: problem for problem in report.problems}


def beat(site: Site, *, stopped: bool) -> None:
    site.clock.elapse(HEARTBEAT + SECOND)
    if stopped:
        site.main.restart()
    else:
        site.main.settle()


def critical(site: Site, subject: str) -> bool:
    return subject in problems(site) and problems(site)[subject].severity is Health.CRITICAL


both = pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])


@both
@pytest.mark.parametrize("whole", [False, True], ids=["edited", "turned back"])
def test_a_revoked_key_stays_revoked(site: Site, stopped: bool, whole: bool) -> None:
    site.main.start()
    site.advance(60 * HOUR)
    (before,) = rows(site, "signing_keys", "phase = 'active'")
    site.revoked.add(before["kid"])
    assert site.ask("key.revoke", kid=before["kid"]).succeeded
    if whole:
        site.meddle("UPDATE signing_keys SET phase = 'pending' WHERE phase = 'active'")  # only one may be active
        put(site, "signing_keys", before)
    else:
        until = 1_000_000 * int((site.clock.wall + HOUR).timestamp())
        sql = "UPDATE signing_keys SET phase = 'grace', revoked_at = NULL, grace_until = ? WHERE kid = ?"
        site.meddle(sql, until, before["kid"])
    beat(site, stopped=stopped)
    assert before["kid"] not in site.main.kids()
    assert any(subject.startswith(("row:signing_keys", "key:")) for subject in problems(site))
    site.advance(HOUR)
    assert before["kid"] not in site.main.kids()
    assert site.refused == []


@both
@pytest.mark.parametrize(
    "change",
    [
        "phase = 'revoked', sealed = NULL, revoked_at = created_at",
        "phase = 'retired', sealed = NULL, retired_at = created_at, destroyed_at = created_at",
    ],
    ids=["revoked", "retired"],
)
def test_a_key_that_nothing_says_is_gone_stays_published_and_does_not_sign(
    site: Site, stopped: bool, change: str
) -> None:
    """Its tokens live, and verifiers accept them; a ready spare signs in its place."""
    site.main.start()
    site.advance(60 * HOUR)
    kid, set_before = site.active(), site.main.kids()
    site.meddle(f"UPDATE signing_keys SET {change} WHERE kid = ?", kid)  # noqa: S608 - ours
    beat(site, stopped=stopped)
    assert set(set_before) <= set(site.main.kids())
    assert kid not in {each.kid for each in site.main.run.signing.values()}
    assert critical(site, f"row:signing_keys {kid}")
    site.advance(2 * DAY)
    assert kid in site.main.kids()
    assert site.refused == []


@both
def test_a_key_in_grace_stays_for_its_tokens(site: Site, stopped: bool) -> None:
    site.main.start()
    site.advance(21 * DAY)
    (kid,) = [key.kid for key in site.signing_keys() if key.phase == "grace"]
    site.meddle("UPDATE signing_keys SET last_exp = 1, grace_until = 1 WHERE kid = ?", kid)
    beat(site, stopped=stopped)
    assert kid in site.main.kids()
    assert critical(site, f"row:signing_keys {kid}")
    assert site.refused == []


@both
def test_a_key_that_stopped_signing_does_not_sign_again(site: Site, stopped: bool) -> None:
    """Its old row says that it is active, and holds its private half; the witness has seen another one sign."""
    site.main.start()
    site.advance(15 * DAY)
    (before,) = rows(site, "signing_keys", "phase = 'active'")
    site.advance(6 * DAY)
    (after,) = rows(site, "signing_keys", "phase = 'active'")
    assert after["kid"] != before["kid"]
    site.meddle("UPDATE signing_keys SET phase = 'pending' WHERE kid = ?", after["kid"])
    put(site, "signing_keys", before)
    beat(site, stopped=stopped)
    signing = {each.kid for each in site.main.run.signing.values()}
    assert before["kid"] not in signing
    assert before["kid"] in site.main.kids()
    assert after["kid"] in site.main.kids()
    assert f"key:{before['kid']}" in problems(site)
    assert site.refused == []


@both
@pytest.mark.parametrize("earlier", ["pending", "active", "grace"])
def test_a_key_that_has_left_for_good_does_not_come_back(site: Site, stopped: bool, earlier: str) -> None:
    """Its row is turned back to when it was a spare, with its private half, or signed, or was kept for its tokens."""
    policy = policy_of([keyset(security_period=8 * DAY)], [workspace("acme", site.sink("acme"))])
    site.main.start(policy)
    kid = site.main.kids()[1]
    past: dict[str, Row] = {}
    while "retired" not in past:
        site.advance(DAY, pace=8 * HOUR)
        (row,) = rows(site, "signing_keys", f"kid = '{kid}'")
        past[row["phase"]] = row
    if earlier == "active":
        site.meddle("UPDATE signing_keys SET phase = 'pending' WHERE phase = 'active'")  # only one may be active
    put(site, "signing_keys", past[earlier])
    beat(site, stopped=stopped)
    assert critical(site, f"row:signing_keys {kid}") or earlier == "grace"  # which it leaves at once, by its own end
    for _ in range(6):
        assert kid not in site.main.kids()
        assert kid not in {each.kid for each in site.main.run.signing.values()}
        site.advance(DAY, pace=8 * HOUR)
    assert site.refused == []


@both
def test_tokens_that_change_places_are_handed_to_nobody(site: Site, stopped: bool) -> None:
    """Two rows of tokens swap their workspaces, with all that points at them; deliveries are due again."""
    site.main.start()
    site.advance(HOUR)
    (first,) = rows(site, "tokens", "workspace = 'acme'")
    (second,) = rows(site, "tokens", "workspace = 'umbrella'")
    site.meddle("UPDATE tokens SET workspace = 'between' WHERE jti = ?", first["jti"])
    site.meddle("UPDATE tokens SET workspace = 'acme' WHERE jti = ?", second["jti"])
    site.meddle("UPDATE tokens SET workspace = 'umbrella' WHERE jti = ?", first["jti"])
    for name, jti in (("acme", second["jti"]), ("umbrella", first["jti"])):
        site.meddle("UPDATE workspaces SET current = ? WHERE id = ?", jti, name)
        site.meddle("UPDATE deliveries SET jti = ?, due_at = 1, delivered_sequence = 0 WHERE workspace = ?", jti, name)
    beat(site, stopped=stopped)
    for name in ("acme", "umbrella"):
        assert jwt.decode(site.held(name), options={"verify_signature": False})["workspace"] == name
    assert {parcel.jti for parcel in site.main.post.delivered if parcel.workspace == "acme"}.isdisjoint({second["jti"]})
    assert critical(site, f"row:tokens {first['jti']}")
    assert critical(site, f"row:tokens {second['jti']}")
    answer = site.ask("token.show", workspace="acme")
    assert answer.result != second["jti"]


@both
def test_a_current_token_of_another_workspace_is_handed_to_nobody(site: Site, stopped: bool) -> None:
    site.main.start()
    (other,) = rows(site, "tokens", "workspace = 'umbrella'")
    site.meddle("UPDATE workspaces SET current = ? WHERE id = 'acme'", other["jti"])
    site.meddle("UPDATE deliveries SET jti = ?, due_at = 1 WHERE workspace = 'acme'", other["jti"])
    beat(site, stopped=stopped)
    assert jwt.decode(site.held("acme"), options={"verify_signature": False})["workspace"] == "acme"
    assert critical(site, "row:workspaces acme")
    site.advance(HOUR)
    assert jwt.decode(site.held("acme"), options={"verify_signature": False})["workspace"] == "acme"
    assert site.held_sequence("acme") > 1
    assert site.refused == []


@both
def test_sealed_records_that_change_places_open_nowhere(site: Site, stopped: bool) -> None:
    """Private halves and texts of tokens, each in the row of another."""
    site.main.start()
    site.advance(60 * HOUR)
    for table, key, where in (
        ("signing_keys", "kid", "sealed IS NOT NULL"),
        ("tokens", "jti", "phase = 'active'"),
    ):
        first, second = rows(site, table, where)[:2]
        site.meddle(f"UPDATE {table} SET sealed = ? WHERE {key} = ?", second["sealed"], first[key])  # noqa: S608 - ours
        site.meddle(f"UPDATE {table} SET sealed = ? WHERE {key} = ?", first["sealed"], second[key])  # noqa: S608 - ours
    kids = site.main.kids()
    beat(site, stopped=stopped)
    assert set(kids) <= set(site.main.kids())
    for name in ("acme", "umbrella"):
        assert jwt.decode(site.held(name), options={"verify_signature": False})["workspace"] == name
        assert critical(site, f"row:workspaces {name}")
    assert len([subject for subject in problems(site) if subject.startswith("row:signing_keys")]) == 2
    assert site.refused == []


@both
def test_a_kek_whose_row_is_gone_is_named_and_no_second_state_is_created(site: Site, stopped: bool) -> None:
    site.main.start()
    site.advance(HOUR)
    if stopped:
        site.main.stop()
    site.meddle("DELETE FROM keks")
    beat(site, stopped=stopped)
    assert any(subject.startswith("row:keks") for subject in problems(site))
    assert len(site.events(EventName.STATE_CREATED)) == 1
    assert len(rows(site, "keks")) == 1


@both
@pytest.mark.parametrize("table", ["clock", "replicas", "sightings"])
def test_rows_that_are_gone_are_made_anew(site: Site, stopped: bool, table: str) -> None:
    """Nobody's set loses a key, and nobody's token goes elsewhere; what had to be there is named."""
    site.main.start()
    site.advance(60 * HOUR)
    kids = site.main.kids()
    site.meddle(f"DELETE FROM {table}")  # noqa: S608 - ours
    beat(site, stopped=stopped)
    site.advance(HOUR)
    assert site.main.kids() == kids
    assert rows(site, table)
    assert site.refused == []


def test_a_workspace_whose_row_is_gone_gets_it_back_with_a_fresh_token(site: Site) -> None:
    """Nobody but the config knows of it: without its row it would be left out until the next start."""
    site.main.start(site.usual("acme", "globex", "umbrella"))
    site.advance(HOUR)
    before = site.held_sequence("globex")
    site.meddle("DELETE FROM workspaces WHERE id = 'globex'")
    beat(site, stopped=False)
    assert critical(site, "row:workspaces globex")
    site.advance(MINUTE)
    assert site.held_sequence("globex") == before + 1
    assert len(rows(site, "workspaces")) == 3
    assert site.refused == []


@both
@pytest.mark.parametrize("emergency", [0, 1])
def test_a_wish_that_nobody_made_asks_for_nothing(site: Site, stopped: bool, emergency: int) -> None:
    """Also one that is dated beyond all time, or says nothing that can be read."""
    site.main.start()
    site.advance(4 * DAY)
    signs = site.active()
    for at, actor in ((0, b"root(0)"), (2**63 - 1, b"\xc3\xff")):
        site.meddle(
            "INSERT OR REPLACE INTO wishes (keyset, asked_at, emergency, signed, actor, reason, kek_id, mac)"
            " VALUES ('default', ?, ?, ?, CAST(? AS TEXT), '', 'kek', x'00')",
            at,
            emergency,
            signs,
            actor,
        )
        beat(site, stopped=stopped)
        assert critical(site, "row:wishes default")
        site.advance(HOUR)
        assert site.active() == signs
    assert site.refused == []


@pytest.mark.parametrize("table", ["installation", "audit_head"])
def test_a_database_without_the_row_that_says_what_it_is_is_not_worked_on(site: Site, table: str) -> None:
    """What to do about it is said, the set stays, and all goes on when the row is back."""
    site.main.start()
    kids, before = site.main.kids(), rows(site, table)
    site.meddle(f"DELETE FROM {table}")  # noqa: S608 - ours
    site.clock.elapse(HEARTBEAT + SECOND)
    with pytest.raises(StoreError, match=f"no row in {table}: .* rotator restore"):
        site.main.tick()
    assert site.main.kids() == kids
    put(site, table, *before)
    beat(site, stopped=False)
    assert site.ask("token.replace", workspace="acme", overlap="3600").succeeded
    assert site.refused == []


@pytest.mark.parametrize("table", ["tokens", "workspaces"])
def test_what_a_row_says_of_its_key_spares_no_workspace_and_revokes_no_live_token(site: Site, table: str) -> None:
    """A revoked key's tokens and workspaces are found by their rows, of which some are moved to another key."""
    others = policy_of(
        [keyset(), keyset("other")],
        [workspace(name, site.sink(name)) for name in ("acme", "umbrella")]
        + [workspace("globex", site.sink("globex"), on="other")],
    )
    site.main.start(others)
    site.advance(60 * HOUR)
    kid, live = site.active(), site.active("other")
    before = {name: site.held_sequence(name) for name in ("acme", "umbrella", "globex")}
    column = "kid" if table == "tokens" else "current_kid"
    of = "workspace" if table == "tokens" else "id"
    site.meddle(f"UPDATE {table} SET {column} = ? WHERE {of} = 'acme'", live)  # noqa: S608 - ours
    site.meddle(f"UPDATE {table} SET {column} = ? WHERE {of} = 'globex'", kid)  # noqa: S608 - ours
    assert kid is not None
    site.revoked.add(kid)
    assert site.ask("key.revoke", kid=kid, choice="now").succeeded
    site.advance(HOUR)
    for name in ("acme", "umbrella", "globex"):
        assert site.held_sequence(name) > before[name] or name == "globex"
    assert live in site.main.kids("other")
    assert site.main.run.revoked_kids == {kid}
    assert site.main.run.revoked_jtis == {}
    assert site.refused == []


ABSURD: dict[str, Callable[[Site], None]] = {
    "algorithm": lambda site: site.meddle("UPDATE signing_keys SET algorithm = 'XX' WHERE phase = 'pending'"),
    "key": lambda site: site.meddle("UPDATE signing_keys SET rotate_at = 9223372036854775807 WHERE phase = 'active'"),
    "token": lambda site: site.meddle("UPDATE tokens SET expires_at = -9223372036854775807 WHERE workspace = 'acme'"),
    "workspace": lambda site: site.meddle("UPDATE workspaces SET current_expires_at = -1 << 60 WHERE id = 'acme'"),
    "delivery": lambda site: site.meddle("UPDATE deliveries SET deadline = 1 << 62 WHERE workspace = 'acme'"),
    "sighting": lambda site: site.meddle("UPDATE sightings SET seen_at = -1 << 62"),
    "no text in a key": lambda site: site.meddle("UPDATE signing_keys SET origin = CAST(x'c3ff' AS TEXT)"),
    "no text in a keyset": lambda site: site.meddle("UPDATE keysets SET fault = CAST(x'c3ff' AS TEXT)"),
    "no text in a token": lambda site: site.meddle(
        "UPDATE tokens SET reason = CAST(x'c3ff' AS TEXT), kid = CAST(x'c3ff' AS TEXT) WHERE workspace = 'acme'"
    ),
    "no text in a workspace": lambda site: site.meddle(
        "UPDATE workspaces SET current = CAST(x'c3ff' AS TEXT) WHERE id = 'acme'"
    ),
    "no text in a delivery": lambda site: site.meddle("UPDATE deliveries SET last_error = CAST(x'c3ff' AS TEXT)"),
    "no text in an event": lambda site: site.meddle("UPDATE audit SET reason = CAST(x'c3ff' AS TEXT) WHERE seq = 3"),
}


@pytest.mark.parametrize("what", ABSURD)
def test_a_row_that_cannot_be_read_holds_up_nothing_else(site: Site, what: str) -> None:
    """A revocation works at once, the others get their tokens, and status has no traceback."""
    site.main.start(site.usual("acme", "umbrella", "globex"))
    site.advance(60 * HOUR)
    ABSURD[what](site)
    beat(site, stopped=False)
    assert site.ask("token.replace", workspace="umbrella", overlap="0").succeeded
    site.revoked |= {row["jti"] for row in rows(site, "tokens", "workspace = 'umbrella' AND phase = 'revoked'")}
    kid = site.active()
    if kid is not None:
        site.revoked.add(kid)
        answer = site.ask("key.revoke", kid=kid, choice="now")
        assert answer.succeeded, answer.result
        assert kid not in site.main.kids()
    problems(site)
    site.advance(HOUR)
    for name in ("umbrella", "globex"):
        assert jwt.decode(site.held(name), options={"verify_signature": False})["workspace"] == name


def test_one_workspace_whose_number_was_turned_back_holds_up_no_other(site: Site) -> None:
    """A batch in which one token cannot be stored is committed without it; that one gets the next number."""
    names = ("acme", "umbrella", "globex")
    site.main.start(site.usual(*names))
    site.advance(4 * DAY)
    site.meddle("UPDATE workspaces SET sequence = 0, due_at = 1, next_at = 1")
    latest = "(SELECT max(sequence) FROM tokens WHERE workspace = workspaces.id)"
    site.meddle(f"UPDATE workspaces SET sequence = {latest} WHERE id <> 'acme'")  # noqa: S608 - ours
    before = {name: site.held_sequence(name) for name in names}
    site.clock.elapse(SECOND)
    site.main.settle()
    assert {name: site.held_sequence(name) for name in names} == {name: number + 1 for name, number in before.items()}
    assert critical(site, "row:workspaces acme")
    assert site.refused == []
