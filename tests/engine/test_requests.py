"""A stored request is authentic, bound to what it was said of, and carried out once."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from rotator.core.events import EventName
from rotator.core.instants import to_us
from rotator.core.model import KeysetName, Phase
from rotator.engine.housekeeping import Chores
from rotator.engine.request_rows import GOOD_FOR, content, is_authentic
from rotator.engine.requests.binding import require_clock
from rotator.engine.scrub import NAMED_FOR
from rotator.errors import RefusedError
from rotator.ports import RequestRow
from rotator.report import status
from rotator.report.records import Report
from tests.engine.site import DAY, HOUR, MINUTE, SECOND, SKEW, Site, keyset, policy_of, without, workspace
from tests.engine.test_revoke import settled

CURRENT = "SELECT current FROM workspaces WHERE id = 'acme'"
FORGE = (
    "INSERT INTO requests (kind, arguments, actor, uid, reason, created_at, nonce, bound, kek_id, mac, result)"
    " VALUES (?, ?, 'root(0)', 0, 'why not', 0, 'AAAA', ?, ?, x'00', '')"
)
COPY = (
    "INSERT INTO requests (kind, arguments, actor, uid, reason, created_at, nonce, bound, kek_id, mac, result)"
    " SELECT kind, arguments, actor, uid, reason, created_at, nonce, bound, kek_id, mac, '' FROM requests WHERE id = ?"
)
REOPEN = "UPDATE requests SET finished_at = NULL, succeeded = NULL, result = '' WHERE id = ?"


def report(site: Site) -> Report:
    run = site.main.run
    with run.around.store.read() as snapshot:
        return status(snapshot, run.policy, site.clock.wall, run.faults)


def named(site: Site) -> list[str]:
    """Return what `status` says of requests."""
    return [problem.text for problem in report(site).problems if problem.subject == "request"]


def put_aside(site: Site) -> list[int]:
    return [int(row.event.details["requests"] or 0) for row in site.events(EventName.REQUEST_PUT_ASIDE)]


def rotations_asked(site: Site) -> int:
    return len(site.events(EventName.KEYSET_ROTATION_REQUESTED))


# -------------------------------------------------------------------------------------------------------- authenticity


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("key.revoke", '{"kid":"SIGNER"}'),
        ("keyset.revoke", '{"choice":"now","keyset":"default"}'),
        ("token.revoke", '{"jti":"JTI"}'),
        ("workspace.revoke", '{"workspace":"acme"}'),
        ("token.show", '{"workspace":"acme"}'),
        ("token.replace", '{"overlap":"0","workspace":"acme"}'),
        ("keyset.rotate", '{"keyset":"default"}'),
        ("keyset.rotate_at_once", '{"keyset":"default","signing":"SIGNER"}'),
        ("clock.accept", ""),
        ("config.accept", ""),
        ("key.import", '{"keyset":"default","sealed":"k x"}'),
        ("no.such", ""),
        ("key.revoke", "notjson"),
        ("key.revoke", '{"kid":["SIGNER"]}'),
        ("key.revoke", "[" * 100_000),
    ],
)
def test_a_row_that_somebody_inserted_is_put_aside(site: Site, kind: str, arguments: str) -> None:
    """Nothing of it is done, in nobody's name; it is named and audited once, and holds up no request that is real."""
    signer, _ = settled(site)
    ((jti,),) = site.query(CURRENT)
    before, set_before = len(site.audit()), site.main.kids()
    (kek_id,) = site.query("SELECT kek_id FROM keks")[0]
    text = arguments.replace("SIGNER", signer).replace("JTI", jti)
    site.meddle(FORGE, kind, text, '{"jtis":"[]","kids":"[]"}', kek_id)
    real = site.ask("token.replace", workspace="umbrella", overlap="end")
    assert real.succeeded, real.result
    site.advance(2 * MINUTE)
    assert put_aside(site) == [1]
    assert len(named(site)) == 1
    assert repr(kind) in named(site)[0]
    ((succeeded, result),) = site.query("SELECT succeeded, result FROM requests WHERE actor = 'root(0)'")
    assert (succeeded, "put aside" in result) == (0, True)
    assert all(row.event.actor != "root(0)" for row in site.audit()[before:])
    assert site.main.kids() == set_before
    assert site.query(CURRENT) == [(jti,)]
    site.assert_sound()


@pytest.mark.parametrize(
    "change",
    [
        "kind = 'keyset.rotate_at_once'",
        """arguments = '{"keyset":"default","x":null}'""",
        """arguments = '{"keyset":0}'""",
        "arguments = ''",
        "actor = 'root(0)'",
        "uid = 0",
        "reason = 'another'",
        "created_at = created_at + 1",
        "created_at = 9223372036854775807",
        "nonce = 'another'",
        "nonce = ''",
        """bound = '{"signing":"none"}'""",
        "bound = '[]'",
        "kek_id = 'another'",
        "mac = x''",
        "mac = x'0011'",
    ],
)
def test_a_request_that_somebody_changed_is_put_aside(site: Site, change: str) -> None:
    settled(site)
    number = site.submit("keyset.rotate", keyset="default")
    site.meddle(f"UPDATE requests SET {change} WHERE id = ?", number)  # noqa: S608 - ours
    site.main.settle()
    assert rotations_asked(site) == 0
    assert put_aside(site) == [1]
    assert len(named(site)) == 1
    assert "put aside" in site.query("SELECT result FROM requests WHERE id = ?", number)[0][0]
    site.advance(NAMED_FOR + MINUTE)
    assert named(site) == []  # whoever looks within an hour has seen it, and the audit has it for good
    site.assert_sound()


def test_many_rows_that_somebody_inserted_hold_up_nothing(site: Site) -> None:
    """They are put aside in one go, with one event; a request that comes after them is carried out in the same tick."""
    settled(site)
    with closing(sqlite3.connect(site.database)) as connection, connection:
        connection.executemany(FORGE, [("key.revoke", f'{{"kid":"k{number}"}}', "", "k") for number in range(20_000)])
    number = site.submit("keyset.rotate", keyset="default")
    site.main.tick()
    assert site.answer(number).succeeded
    assert put_aside(site) == [20_000]
    assert "and 19990 more" in named(site)[0]
    assert site.query("SELECT count(*) FROM requests WHERE finished_at IS NULL") == [(0,)]


def test_what_a_changed_import_holds_sealed_goes_when_it_is_put_aside(site: Site) -> None:
    """As of any other request that is finished."""
    site.main.start()
    number = site.accept("key.import", None, b"sealed", keyset="default").id
    site.meddle("UPDATE requests SET kind = 'keyset.rotate' WHERE id = ?", number)
    site.main.settle()
    ((arguments, result),) = site.query("SELECT arguments, result FROM requests")
    assert (arguments, "put aside" in result) == ("", True)


def test_a_request_of_another_installation_is_put_aside(site: Site) -> None:
    """As of one that was made as a copy of this one, with its KEK."""
    settled(site)
    number = site.submit("keyset.rotate", keyset="default")
    site.main.stop()
    site.main.witness.unlink()
    site.meddle("UPDATE installation SET id = 'another'")
    site.main.start()
    assert rotations_asked(site) == 0
    assert "put aside" in site.answer(number).result


def test_the_values_of_a_request_keep_their_types(site: Site) -> None:
    """A MAC over text alone would take 1 for '1' and nothing for 'null'."""
    site.main.start()
    request = site.accept("keyset.rotate", keyset="default")
    sealer = site.main.run.ready_sealer

    with site.main.run.around.store.read() as snapshot:
        installation = snapshot.installation()
    assert is_authentic(sealer, installation, request)
    same = [replace(request, arguments={"a": value}) for value in (1, "1", None, "null", "None", True)]
    assert len({content(installation, each) for each in same}) == len(same)
    assert not is_authentic(sealer, installation, replace(request, nonce=""))


def test_a_forged_row_holds_up_no_revocation_that_the_witness_knows(site: Site) -> None:
    """A row that asks for the revocation of a token would have been left to tell of it."""
    settled(site)
    ((jti,),) = site.query(CURRENT)
    assert site.ask("token.revoke", jti=jti).succeeded
    site.revoked.add(jti)
    site.main.stop()
    site.meddle("UPDATE tokens SET phase = 'active', revoked_at = NULL WHERE jti = ?", jti)
    site.meddle(FORGE, "token.revoke", f'{{"jti":"{jti}"}}', "", "k")
    site.main.start()
    assert site.query("SELECT phase FROM tokens WHERE jti = ?", jti) == [("revoked",)]


# ------------------------------------------------------------------------------------------------------------- replays


def reopen(site: Site, number: int) -> None:
    site.meddle(REOPEN, number)


def copy(site: Site, number: int) -> None:
    site.meddle(COPY, number)


def move(site: Site, number: int) -> None:
    site.meddle(COPY, number)
    site.meddle("DELETE FROM requests WHERE id = ?", number)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("replay", [reopen, copy, move])
def test_a_replay_finds_its_work_done(site: Site, replay: object, restarted: bool) -> None:
    assert callable(replay)
    settled(site)
    answer = site.ask("token.replace", workspace="acme", overlap="end")
    assert answer.succeeded
    ((jti,),) = site.query(CURRENT)
    site.advance(HOUR)
    if restarted:
        site.main.stop()
    replay(site, answer.id)
    if restarted:
        site.main.start()
    site.advance(2 * MINUTE)
    assert len(site.events(EventName.TOKEN_REPLACEMENT_REQUESTED)) == 1
    assert site.query(CURRENT) == [(jti,)]
    assert put_aside(site) == [1]
    assert "it was answered before" in named(site)[0]
    site.assert_sound()


def test_of_two_copies_that_wait_one_is_carried_out(site: Site) -> None:
    settled(site)
    number = site.submit("keyset.rotate_at_once", keyset="default", signing=str(site.active()))
    copy(site, number)
    site.main.settle()
    assert rotations_asked(site) == 1
    assert put_aside(site) == [1]
    site.assert_sound()


def test_a_request_that_was_refused_stays_so(site: Site) -> None:
    """Although what it asks for could be done now: whoever asked was told that it was not."""
    signer, spare = settled(site)
    assert site.ask("key.revoke", kid=spare).succeeded
    site.revoked.add(spare)
    refused = site.ask("key.revoke", kid=signer)
    assert "choose between waiting" in refused.result
    site.advance(60 * HOUR, pace=12 * HOUR)
    reopen(site, refused.id)
    site.advance(2 * MINUTE)
    assert site.active() == signer
    assert put_aside(site) == [1]
    site.assert_sound()


def test_an_answer_that_the_witness_had_no_time_to_hear_of_is_learnt_at_the_start(site: Site) -> None:
    """Killed between the commit and the witness; what is turned back after that start is still known."""
    settled(site)
    before = site.main.witness.read_bytes()
    answer = site.ask("keyset.rotate", keyset="default")
    site.main.stop()
    site.main.witness.write_bytes(before)
    site.main.start()
    site.main.stop()
    reopen(site, answer.id)
    site.main.start()
    assert rotations_asked(site) == 1
    assert put_aside(site) == [1]


def test_a_request_is_refused_when_it_is_old_and_its_nonce_forgotten_then(site: Site) -> None:
    """The witness need not remember for ever what could be put back; a refusal says since when it waited."""
    settled(site)
    answer = site.ask("token.replace", workspace="acme", overlap="end")
    nonce = site.query("SELECT nonce FROM requests WHERE id = ?", answer.id)[0][0]
    waiting = site.submit("token.replace", workspace="umbrella", overlap="end")
    site.main.stop()
    site.advance(GOOD_FOR - HOUR)
    site.main.start()
    assert nonce in site.main.run.answered
    assert site.answer(waiting).succeeded
    site.advance(3 * HOUR)
    assert nonce not in site.main.run.answered
    record = site.main.run.around.witness.read()
    assert record is not None
    assert nonce not in record.requests
    reopen(site, answer.id)
    site.advance(2 * MINUTE)
    assert "more than 7d ago" in site.answer(answer.id).result
    asked = [row.event.workspace for row in site.events(EventName.TOKEN_REPLACEMENT_REQUESTED)]
    assert asked == ["acme", "umbrella"]


def test_a_restored_database_has_no_request_carried_out(site: Site) -> None:
    """What became of it since nobody knows; a revocation is the one thing that can be done once too often."""
    signer, _ = settled(site)
    site.main.stop()
    rotation = site.submit("keyset.rotate", keyset="default")
    revocation = site.submit("token.revoke", jti=site.query(CURRENT)[0][0])
    site.revoked.add(site.query(CURRENT)[0][0])
    old = site.database.read_bytes()
    for number in (rotation, revocation):
        site.meddle("DELETE FROM requests WHERE id = ?", number)
    site.main.start()
    assert site.ask("token.replace", workspace="umbrella", overlap="end").succeeded
    site.main.stop()
    site.database.write_bytes(old)
    site.main.start()
    assert rotations_asked(site) == 0
    assert "an older database was put back" in site.answer(rotation).result
    assert site.answer(revocation).succeeded
    assert site.active() == signer


# -------------------------------------------------------------------------------------------------------------- clocks


def test_a_clock_that_was_accepted_in_another_boot_is_not_trusted(site: Site) -> None:
    """Stored, and the machine lost its power before it was carried out; it comes back with a clock that is ahead."""
    site.main.start()
    site.advance(DAY)
    site.clock.leap(2 * HOUR)
    site.main.tick()
    number = site.submit("clock.accept")
    site.main.stop()
    site.clock.reboot()
    site.clock.leap(400 * DAY)
    before = site.query("SELECT jti, expires_at FROM tokens")
    site.main.start()
    answer = site.answer(number)
    assert answer.succeeded is False
    assert "the machine was started again since the clock was accepted" in answer.result
    assert "clock accept" in answer.result
    assert "clock" in site.main.run.faults
    assert site.query("SELECT jti, expires_at FROM tokens") == before


@pytest.mark.parametrize("step", [400 * DAY, -2 * HOUR, SKEW + SECOND])
def test_a_clock_that_was_moved_since_it_was_accepted_is_not_trusted(site: Site, step: timedelta) -> None:
    site.main.start()
    site.advance(DAY)
    site.clock.leap(5 * DAY)
    site.main.tick()
    number = site.submit("clock.accept")
    site.clock.leap(step)
    site.clock.elapse(MINUTE)
    site.main.settle()
    answer = site.answer(number)
    assert answer.succeeded is False
    assert f"the clock was moved {'forward' if step > timedelta(0) else 'back'} by" in answer.result
    assert "clock" in site.main.run.faults


@pytest.mark.parametrize(("seen", "said"), [("", "when it was accepted it was not"), ("1 boot 2", "it: as it was")])
def test_a_clock_is_accepted_for_the_doubt_that_was_seen_alone(site: Site, seen: str, said: str) -> None:
    """Another memory speaks against it now, as that of a witness that was put back: nobody vouched for that."""
    site.main.start()
    site.advance(DAY)
    site.clock.leap(5 * DAY)
    site.main.tick()
    request = site.accept("clock.accept")
    run = site.main.run
    with run.around.store.read() as snapshot:
        require_clock(run, snapshot, request, site.clock.read())
        other = replace(request, bound={**request.bound, "doubt": seen, "problem": "as it was"})
        with pytest.raises(RefusedError, match="the clock is doubted for another reason now: the clock leapt") as told:
            require_clock(run, snapshot, other, site.clock.read())
    assert said.replace("it: ", "") in str(told.value)


def test_a_clock_that_was_accepted_stays_so_for_as_long_as_it_goes_right(site: Site) -> None:
    """The daemon was killed before it got to it, and starts again in the same boot."""
    site.main.start()
    site.advance(DAY)
    site.clock.leap(5 * DAY)
    site.main.tick()
    number = site.submit("clock.accept")
    site.main.stop()
    site.clock.elapse(3 * HOUR)
    site.clock.leap(SKEW - 2 * SECOND)
    site.main.start()
    assert site.answer(number).succeeded, site.answer(number).result
    assert "clock" not in site.main.run.faults


# ------------------------------------------------------------------------------------------------------------- configs


def wide(site: Site) -> Site:
    """Start with ten workspaces."""
    site.main.start(policy_of([keyset()], [workspace(f"ws-{number}") for number in range(10)]))
    site.advance(DAY)
    return site


def refused(site: Site, digest: str, *dropped: int) -> None:
    policy = replace(without(site.policy, *(f"ws-{number}" for number in dropped)), digest=digest)
    with pytest.raises(RefusedError, match="the config drops"):
        site.main.load(policy)


def removed(site: Site) -> int:
    return int(site.query("SELECT count(*) FROM workspaces WHERE removed_at IS NOT NULL")[0][0])


def test_a_config_that_was_accepted_is_that_one_and_no_other(site: Site) -> None:
    """Accepted for two workspaces, and the files changed before it was carried out."""
    wide(site)
    refused(site, "first", 0, 1)
    number = site.submit("config.accept")
    refused(site, "second", *range(9))
    site.main.settle()
    answer = site.answer(number)
    assert answer.succeeded is False
    assert "another config waits now than the one that was accepted" in answer.result
    assert removed(site) == 0
    assert site.ask("config.accept").succeeded
    assert removed(site) == 9


def test_a_config_is_accepted_for_what_it_dropped_then(site: Site) -> None:
    """The same files drop others when the database is another one."""
    wide(site)
    refused(site, "first", 0, 1)
    number = site.submit("config.accept")
    more = [workspace(f"ws-{each}") for each in range(12)]
    assert site.main.engine is not None
    site.main.engine.load_policy(policy_of([keyset()], more), site.clock.read())
    refused(site, "first", 0, 1)
    site.main.settle()
    assert "it dropped 2 workspaces, and now it drops 4, or others" in site.answer(number).result
    assert removed(site) == 0


def test_a_config_that_was_accepted_before_a_kill_is_in_force_after_the_start(site: Site) -> None:
    wide(site)
    refused(site, "first", 0, 1)
    number = site.submit("config.accept")
    site.main.restart(replace(without(site.policy, "ws-0", "ws-1"), digest="first"))
    assert site.answer(number).succeeded, site.answer(number).result
    assert removed(site) == 2


def test_no_config_is_accepted_before_one_waits(site: Site) -> None:
    """It is said at once: stored, it would have been carried out on whatever is loaded next."""
    wide(site)
    with pytest.raises(RefusedError, match="no config waits to be accepted"):
        site.submit("config.accept")
    assert site.query("SELECT id FROM requests") == []


# ------------------------------------------------------------------------------------------------------ keys and tokens


def test_a_rotation_is_of_the_key_that_signed(site: Site) -> None:
    signer, spare = settled(site)
    first, second = (site.submit("keyset.rotate", keyset="default") for _ in range(2))
    at_once = site.submit("keyset.rotate_at_once", keyset="default", signing=signer)
    site.main.stop()
    site.meddle("UPDATE requests SET finished_at = created_at WHERE id IN (?, ?)", first, at_once)
    site.main.start()
    site.advance(60 * HOUR, pace=12 * HOUR)
    assert site.active() == spare
    assert site.answer(second).succeeded
    for number in (first, at_once):
        reopen(site, number)
        site.main.settle()
        assert "it was rotated meanwhile" in site.answer(number).result or "put aside" in site.answer(number).result
    assert site.active() == spare
    assert rotations_asked(site) == 1


def test_a_replacement_is_of_the_token_that_was_current(site: Site) -> None:
    settled(site)
    ((jti,),) = site.query(CURRENT)
    first = site.submit("token.replace", workspace="acme", overlap="end")
    second = site.accept("token.replace", workspace="acme", overlap="0")
    held_back(site, second)
    site.main.settle()
    assert site.answer(first).succeeded
    assert site.query(CURRENT) != [(jti,)]
    let_go(site, second)
    answer = site.answer(second.id)
    assert answer.succeeded is False
    assert f"and not {jti}: it was replaced meanwhile" in answer.result
    assert site.events(EventName.TOKEN_REVOKED) == []
    site.assert_sound()


def held_back(site: Site, request: RequestRow) -> None:
    """Keep a request from being carried out, as one that another process holds locked."""
    site.meddle("UPDATE requests SET finished_at = created_at WHERE id = ?", request.id)


def let_go(site: Site, request: RequestRow) -> None:
    site.main.run.answered.pop(request.nonce, None)
    reopen(site, request.id)
    site.main.settle()


def test_the_revocation_of_a_keyset_is_of_the_keys_that_it_had(site: Site) -> None:
    signer, spare = settled(site)
    request = site.accept("keyset.revoke", keyset="default", choice="wait")
    held_back(site, request)
    assert site.ask("keyset.rotate", keyset="default").succeeded
    site.advance(HOUR)
    newer = {key.kid for key in site.signing_keys(Phase.PENDING)} - {spare}
    assert newer
    site.revoked |= {signer, spare}
    let_go(site, request)
    assert site.answer(request.id).succeeded
    assert {key.kid for key in site.signing_keys(Phase.REVOKED)} == {signer, spare}
    assert newer <= {key.kid for key in site.signing_keys(Phase.PENDING, Phase.ACTIVE)}


def test_the_revocation_of_a_workspace_is_of_the_tokens_that_it_had(site: Site) -> None:
    settled(site)
    ((jti,),) = site.query(CURRENT)
    request = site.accept("workspace.revoke", workspace="acme")
    held_back(site, request)
    assert site.ask("token.replace", workspace="acme", overlap="end").succeeded
    ((newer,),) = site.query(CURRENT)
    site.revoked.add(jti)
    let_go(site, request)
    answer = site.answer(request.id)
    assert answer.succeeded
    assert f"token {newer} was issued after this was asked, and stays" in answer.result
    assert [row.event.jti for row in site.events(EventName.TOKEN_REVOKED)] == [jti]
    site.assert_sound()


# ------------------------------------------------------------------------------------------------------ secret answers


def test_a_token_is_shown_to_whoever_waits(site: Site) -> None:
    settled(site)
    request = site.accept("token.show", workspace="acme")
    site.main.settle()
    answer = site.main.run.answers.wait(request.nonce, timedelta(0))
    assert answer is not None
    assert answer.secret is not None
    assert answer.secret.reveal() == site.held("acme")
    site.main.run.answers.leave(request.nonce)
    assert site.main.run.answers.wait(request.nonce, timedelta(0)) is None
    assert site.held("acme") not in site.answer(request.id).result


@pytest.mark.parametrize("restarted", [False, True])
def test_a_token_is_not_shown_when_nobody_waits_any_more(site: Site, restarted: bool) -> None:
    """Whoever asked has gone, or the daemon was started again: it would be shown to nobody, or to somebody else."""
    settled(site)
    request = site.accept("token.show", workspace="acme")
    if restarted:
        site.main.restart()
    else:
        site.main.run.answers.leave(request.nonce)
        site.main.settle()
    assert "waits no more; nothing was shown. Ask again" in site.answer(request.id).result
    assert site.events(EventName.TOKEN_SHOWN) == []


def test_another_token_is_not_shown_than_the_one_that_was_asked_for(site: Site) -> None:
    settled(site)
    request = site.accept("token.show", workspace="acme")
    held_back(site, request)
    assert site.ask("token.replace", workspace="acme", overlap="end").succeeded
    let_go(site, request)
    assert "it was replaced meanwhile" in site.answer(request.id).result


# ----------------------------------------------------------------------------------------------------------- acceptance


@pytest.mark.parametrize("wrong", [False, True])
def test_while_the_kek_is_away_nothing_is_accepted(site: Site, wrong: bool) -> None:
    """It is said at once, with the reason and what to do; and nothing that was not stored is carried out later."""
    settled(site)
    kek = site.kek.read_text()
    site.kek.write_text(kek.replace(kek[-8], "A" if kek[-8] != "A" else "B") if wrong else "")
    site.advance(MINUTE)
    for kind, arguments in (("clock.accept", {}), ("keyset.rotate", {"keyset": "default"})):
        with pytest.raises(RefusedError, match=f"{kind} is not accepted while the key-encryption key is away") as told:
            site.submit(kind, **arguments)
        assert "then ask again" in str(told.value)
    assert site.query("SELECT id FROM requests") == []
    site.kek.write_text(kek)
    assert site.ask("keyset.rotate", keyset="default").succeeded


def test_a_kek_that_is_back_is_found_by_the_request_itself(site: Site) -> None:
    """Whoever put it back need not wait for the next look of the daemon."""
    settled(site)
    kek = site.kek.read_text()
    site.kek.write_text("")
    site.advance(MINUTE)
    site.kek.write_text(kek)
    number = site.submit("keyset.rotate", keyset="default")
    site.main.settle()
    assert site.answer(number).succeeded
    assert site.main.run.answered
    assert KeysetName("default") in site.main.run.signing


@pytest.mark.parametrize("kind", ["keyset", "key"])
def test_a_revocation_is_followed_once_however_long_ago_it_was(site: Site, kind: str) -> None:
    """The journal holds it for ever, so what says that the database followed is not pruned."""
    signer, _ = settled(site)
    arguments = {"keyset": "default", "choice": "wait"} if kind == "keyset" else {"kid": signer}
    kids = [key.kid for key in site.signing_keys()] if kind == "keyset" else [signer]
    answer = site.ask(f"{kind}.revoke", **arguments)
    assert answer.succeeded, answer.result
    site.revoked.update(kids)
    site.main.stop()
    site.advance(Chores().retention_audit + DAY)
    site.main.start()
    site.main.restart()
    assert not site.query("SELECT seq FROM audit WHERE at <= ?", to_us(answer.created_at))  # pruned, as all of its age
    assert site.query("SELECT id FROM requests WHERE kind = ?", f"{kind}.revoke") == [(answer.id,)]
