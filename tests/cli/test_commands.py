"""Commands, against a real state with and without a daemon."""

import json
import re
import socket
from datetime import timedelta

import jsonschema
import jwt
import pytest
from joserfc.jwk import ECKey

from rotator.adapters.keymaker import CryptographyKeyMaker
from rotator.cli.session import PATIENCE, read
from rotator.core.model import Algorithm
from rotator.errors import RotatorError
from rotator.schemas import load
from tests.cli.conftest import Shell
from tests.e2e.world import Site

READING = [
    ("status", "status"),
    ("plan --for 60d", "plan"),
    ("keys list", "keys-list"),
    ("tokens list --all", "tokens-list"),
    ("audit list", "audit-list"),
    ("audit verify", "audit-verify"),
    ("check", "check"),
]


def test_json_fits_its_schema_without_a_daemon(started: Shell) -> None:
    """From the state itself."""
    for command, shape in READING:
        code, out, err = started(*command.split(), "--json")
        assert (code, err) == (0, ""), command
        jsonschema.validate(json.loads(out), load(shape), format_checker=jsonschema.FormatChecker())


def test_daemon_and_state_give_the_same_answers(daemon: Shell, site: Site) -> None:
    """Whoever is asked: kids, tokens and events are the same, and each answer fits its schema."""
    answers = {}
    for command, shape in READING:
        code, out, err = daemon(*command.split(), "--json")
        assert (code, err) == (0, ""), command
        answers[command] = json.loads(out)
        jsonschema.validate(answers[command], load(shape))
    socket = site.state / "control.sock"
    socket.rename(socket.with_suffix(".away"))
    for command in ("keys list", "tokens list --all", "audit verify"):
        assert json.loads(daemon(*command.split(), "--json")[1]) == answers[command]
    socket.with_suffix(".away").rename(socket)


def test_pages_name_what_there_is(started: Shell) -> None:
    """Plain columns into a pipe: no colours, no boxes, no trailing space, at most 80 columns where it can be."""
    for command, _ in READING:
        code, out, err = started(*command.split())
        assert (code, err) == (0, ""), command
        assert "\x1b" not in out
        assert not re.search(r"[─-╿]", out)
        assert all(line == line.rstrip() for line in out.splitlines())
    _, status, _ = started("status")
    assert status.startswith("OK  nothing is overdue")
    assert "keyset default  ES256, generation 1" in status
    assert max(map(len, status.splitlines())) <= 80
    _, keys, _ = started("keys", "list")
    header, active, pending = keys.splitlines()
    assert header.split() == ["KID", "KEYSET", "ALG", "PHASE", "OUTLOOK"]
    assert re.fullmatch(r"\S{12}…  default  ES256  active   signs until 20\S+ \(in \d+d\)", active)
    assert "ready since" in pending
    assert max(map(len, keys.splitlines())) <= 80
    _, tokens, _ = started("tokens", "list", "--workspace", "w1")
    assert re.search(r"^w1 +1 +active .* 1 delivered$", tokens, re.MULTILINE)
    assert max(map(len, tokens.splitlines())) <= 80


def test_status_is_degraded_when_something_is_wrong(started: Shell, site: Site) -> None:
    """Exit 3, the state first, and the next step beside each problem."""
    (site.state / "kek").write_text("other " + "A" * 43 + "\n")
    site.jwks.parents[1].joinpath("keysets/default/jwks.json").write_text('{"keys": []}')
    code, out, err = started("status")
    assert (code, err) == (3, "")
    assert out.startswith("CRITICAL  1 critical, 1 degraded, at ")
    assert re.search(r"^CRITICAL  kek\n  what  .*\n  do    put the key-encryption key back", out, re.MULTILINE)
    assert "DEGRADED  publish:default" in out
    assert started("status", "--json")[0] == 3


# ------------------------------------------------------------------------------------------------ requests, the token


def test_token_show_prints_the_token_and_nothing_else(daemon: Shell, site: Site) -> None:
    """It verifies against the printed set; the audit says who asked and why."""
    code, out, err = daemon("token", "show", "w0", "--reason", "debugging")
    assert (code, err) == (0, "")
    assert out == site.root.joinpath("delivered/w0/token").read_text().strip()
    kid = jwt.get_unverified_header(out)["kid"]
    assert kid in daemon("jwks")[1]
    _, listed, _ = daemon("audit", "list", "--event", "token.shown", "--json")
    (event,) = json.loads(listed)["events"]
    assert (event["workspace"], event["reason"], event["kid"]) == ("w0", "debugging", kid)


def test_token_show_without_a_daemon(started: Shell, site: Site) -> None:
    """It says how to start one; with --offline it does the work itself."""
    code, out, err = started("token", "show", "w0")
    assert (code, out) == (1, "")
    assert "systemctl start rotator, or: rotator run), or do it without one: --offline" in err
    code, out, _ = started("token", "show", "w0", "--offline")
    assert (code, out) == (0, site.root.joinpath("delivered/w0/token").read_text().strip())


@pytest.mark.parametrize(
    ("arguments", "events"),
    [
        (("token", "show", "w0"), {"token.shown"}),
        (("clock", "accept", "--reason", "I looked"), {"clock.accepted"}),
        (("config", "accept", "--reason", "I looked"), {"config.applied", "config.accepted"}),
        (("import-key", "--jwk", "old.jwk", "--keep-for", "1d"), {"config.applied", "key.adopted", "keyset.published"}),
    ],
)
def test_an_offline_command_does_what_was_asked_and_begins_nothing_else(
    started: Shell, site: Site, arguments: tuple[str, ...], events: set[str]
) -> None:
    """Though a token is due and undelivered, and its sink is a command, which would be ended midway."""
    old = site.root / "old.jwk"
    old.write_text(json.dumps(ECKey.generate_key("P-256").as_dict(private=False)))
    arguments = tuple(str(old) if each == old.name else each for each in arguments)
    begun = site.root / "begun"
    sink = f"{{command: {{run: [/usr/bin/touch, {begun}]}}}}"
    text = site.config.read_text()
    site.config.write_text(f"{text}  w9:\n    security_period: 30d\n    grace_period: 1d\n    deliver: [{sink}]\n")
    assert started("check")[0] == 0, started("check")
    (site.root / "delivered/w0/token").unlink()
    last = site.events()[-1]["seq"]
    code, _, err = started(*arguments, "--offline")
    assert code == 0, err
    assert {event["name"] for event in site.events() if event["seq"] > last} == events
    assert not begun.exists()
    assert not (site.root / "delivered/w0/token").exists()


def test_refusals_are_one_sentence(daemon: Shell) -> None:
    """On stderr, exit 1, without a traceback."""
    code, out, err = daemon("token", "show", "nobody")
    assert (code, out) == (1, "")
    assert err == "rotator: there is no workspace 'nobody'; `rotator tokens list` names them\n"
    code, _, err = daemon("config", "accept", "--reason", "why")
    assert (code, err) == (1, "rotator: no config waits to be accepted\n")


def test_clock_accept(daemon: Shell) -> None:
    """It says what is trusted now."""
    code, out, _ = daemon("clock", "accept", "--reason", "I looked")
    assert (code, out[:32]) == (0, "the clock is trusted as it stand")


def test_a_config_is_accepted_without_a_daemon(started: Shell, site: Site) -> None:
    """As the one that is in the files now: what is stored by a command goes the same way as what a daemon stores."""
    usual = {"keyset_period": "90d", "token_period": "30d", "token_grace": "1d", "max_cache": "1h", "propagation": "2h"}
    site.write_config(workspaces=1, **usual)
    assert started("run", "--once")[0] == 3
    code, out, err = started("config", "accept", "--reason", "w1 has ended", "--offline")
    assert (code, out) == (0, "the config is in force, with 1 workspace\n"), err
    assert started("config", "accept", "--reason", "again", "--offline")[1] == out


def test_nothing_is_accepted_without_the_kek(started: Shell, site: Site) -> None:
    """By no daemon and by no command; it is said what is wrong, and nothing is stored."""
    kek = site.state / "kek"
    kek.rename(site.root / "kek")
    code, out, err = started("replace", "w0", "--offline")
    assert (code, out) == (1, "")
    assert "token.replace is not accepted while the key-encryption key is away, and nothing was stored" in err
    (site.root / "kek").rename(kek)
    assert started("audit", "list", "--event", "token.replacement_requested", "--json")[1].count('"seq"') == 0


def test_offline_is_refused_beside_a_daemon(daemon: Shell) -> None:
    """The state's lock is held."""
    code, _, err = daemon("clock", "accept", "--reason", "why", "--offline")
    assert code == 1
    assert err.startswith("rotator: ")


# -------------------------------------------------------------------------------------------------------------- audit


def test_audit_can_be_narrowed(started: Shell) -> None:
    """By event, key, workspace, time and number."""
    kid = json.loads(started("keys", "list", "--json")[1])["keys"][0]["kid"]
    for options, names in {
        ("--event", "key.activated"): {"key.activated"},
        ("--key", kid[:10], "--event", "key.*"): {"key.made", "key.proven", "key.activated"},
        ("--workspace", "w0"): {"token.issued", "token.delivered"},
        ("--since", "1h", "--event", "state.*"): {"state.created"},
        ("--since", "2100-01-01T00:00:00Z"): set(),
    }.items():
        code, out, _ = started("audit", "list", *options, "--json")
        assert (code, {event["event"] for event in json.loads(out)["events"]}) == (0, names), options
    assert len(json.loads(started("audit", "list", "--limit", "2", "--json")[1])["events"]) == 2
    assert started("audit", "list", "--since", "2100-01-01T00:00:00Z")[1] == "no such event\n"


def test_audit_at_a_glance(started: Shell) -> None:
    """Hashes are shortened as kids are, and every moment is written in the same way."""
    out = started("audit", "list")[1]
    assert re.search(r" sha256=[0-9a-f]{12}… ", out)
    moments = re.findall(r"(?:expires_at|rotate_at)=(\S+)", out)
    assert len(moments) == 3
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", moment) for moment in moments)


def test_audit_limit_that_no_list_can_have(started: Shell) -> None:
    """Bad usage, whoever answers."""
    code, out, err = started("audit", "list", "--limit", "9" * 30)
    assert (code, out) == (2, "")
    assert err == f"rotator: found a limit of {'9' * 30}, expected 1 to 1000000\n"


def test_a_daemon_that_does_not_answer(shell: Shell, site: Site) -> None:
    """One that is stopped takes connections and nothing else: it is not waited for any longer."""
    assert timedelta(seconds=10) == PATIENCE
    site.state.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(site.state / "control.sock"))
        listener.listen()
        with pytest.raises(RotatorError, match=r"^the daemon does not answer: nothing came from .* within 0.2 seconds"):
            read(site.config, "status", patience=timedelta(seconds=0.2))


def test_audit_verify_with_a_head(started: Shell) -> None:
    """A head from before is found; another is not, and the exit code says so."""
    head = json.loads(started("audit", "verify", "--json")[1])["head_hash"]
    assert started("audit", "verify", "--head", head)[0] == 0
    code, out, _ = started("audit", "verify", "--head", "0123" * 16)
    assert (code, out[:30]) == (1, "BROKEN: the head that you note")
    code, _, err = started("audit", "verify", "--head", "0123")
    assert (code, "expected the 64 hex digits" in err) == (2, True)


# -------------------------------------------------------------------------------------------------------------- check


def test_check_shows_the_arithmetic_and_the_machine(shell: Shell) -> None:
    """Before the first start, with the user's own numbers."""
    code, out, err = shell("check")
    assert (code, err) == (0, "")
    assert "propagation_period 2h ≥ 1h = max_cache 1h" in out
    assert "is made at the first start" in out
    assert out.endswith(f"ready; next: rotator --config {shell.config} run\n")


def test_check_of_a_machine_that_is_not_ready(started: Shell, site: Site) -> None:
    """Each thing that is missing has its next step; exit 1."""
    site.state.chmod(0o755)
    code, out, _ = started("check")
    assert code == 1
    assert "not ready; next:" in out
    assert f"chmod 700 {site.state}" in out
    site.state.chmod(0o700)
    (site.state / "kek").write_text("other " + "A" * 43 + "\n")
    code, out, _ = started("check")
    assert (code, "put the one back that this database was sealed with" in out) == (1, True)


def test_check_names_a_program_that_cannot_run(shell: Shell, site: Site) -> None:
    """And a group that the machine does not have."""
    site.config.write_text(
        site.config.read_text()
        + "  cmd:\n    deliver: [command: {run: [/no/such/program]}]\ncontrol: {viewers: [no-such-group]}\n"
    )
    code, out, _ = shell("check", "--json")
    problems = [found["text"] for found in json.loads(out)["machine"] if not found["ok"]]
    assert code == 1
    assert problems[0].startswith("workspace cmd: /no/such/program is no program")
    assert problems[1].startswith("this machine has no group 'no-such-group'")


def test_wrong_config_is_exit_2(shell: Shell, site: Site) -> None:
    """Every command says what is wrong with it, by file and line."""
    site.config.write_text("issuer: https://a.example.com\ncolour: red\n")
    for command in ("check", "status", "run --once", "token show w0", "jwks"):
        code, out, err = shell(*command.split())
        assert (code, out) == (2, ""), command
        assert err.startswith(f"rotator: {site.config}:2: colour: unknown setting"), command


def test_config_schema_is_one(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    """It needs no config."""
    from rotator.cli import main

    assert main(["config", "schema"]) == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(capsys.readouterr().out))


def test_jwks_is_the_published_file(started: Shell, site: Site) -> None:
    """Byte for byte; a keyset that is not there is named, and no other file can be reached."""
    assert started("jwks")[1] == site.jwks.read_text()
    assert started("jwks", "--keyset", "other")[::2] == (
        1,
        f"rotator: no set of keyset other is published: there is no {site.state}/public/keysets/other/jwks.json\n",
    )
    assert started("jwks", "--keyset", "../../..")[0] == 2


def test_no_state_yet(shell: Shell, site: Site) -> None:
    """Reading commands say how to make it."""
    code, _, err = shell("status")
    assert code == 1
    assert "no daemon listens on" in err
    assert f"there is no state yet in {site.state}; the first start makes it: rotator run" in err


def lose_state(site: Site) -> None:
    """Leave the published tree and the KEK alone."""
    for left in (*site.state.glob("rotator.db*"), site.state / "witness.json"):
        left.unlink()


def test_published_adopt(started: Shell, site: Site) -> None:
    """A new database beside an old tree refuses to start; adopting says who, why, and from when on tokens come."""
    lose_state(site)
    code, _, err = started("run", "--once")
    assert code == 1
    assert "`rotator published adopt --keep-for PERIOD` keeps those keys" in err
    code, out, err = started("published", "adopt", "--keep-for", "1d", "--reason", "the disk died")
    assert (code, err) == (0, "")
    assert out.startswith("the lost database, installation ")
    assert "\nkeyset default: " in out
    assert "no token can be issued on it until its new keys have been published for the propagation_period of 2h" in out
    assert re.search(r": 20\d\d-\d\d-\d\d \d\d:\d\dZ if the daemon is started now", out)
    assert "warning" not in out
    _, listed, _ = started("audit", "list", "--event", "key.adopted", "--json")
    events = json.loads(listed)["events"]
    assert len(events) == 2
    assert {event["reason"] for event in events} == {"the disk died"}
    assert all(re.fullmatch(r"\w+\(\d+\)", event["actor"]) for event in events)
    assert started("published", "adopt", "--keep-for", "soon")[0] == 2
    assert started("published", "adopt", "--keep-for", "1d")[1].startswith("nothing is adopted: no set is published")
    assert started("audit", "verify")[0] == 0


def publish(site: Site, jwk: object) -> None:
    for path in (site.jwks, site.state / "public/keysets/default/jwks.json"):
        path.write_text(json.dumps({"keys": [jwk]}))


def test_published_adopt_of_keys_without_alg(started: Shell, site: Site) -> None:
    """What is assumed of an RSA key is said; a curve that is not known is named."""
    lose_state(site)
    publish(site, {"kty": "EC", "crv": "P-384", "kid": "p", "x": "AA", "y": "AA"})
    code, _, err = started("published", "adopt", "--keep-for", "1d")
    assert (code, err.split(",")[0]) == (1, "rotator: the published key p is of algorithm EC P-384")
    found = json.loads(CryptographyKeyMaker().make(Algorithm.RS256).public_jwk)
    publish(site, {"kty": "RSA", "kid": "old", "n": found["n"], "e": "AQAB"})
    code, out, err = started("published", "adopt", "--keep-for", "1d")
    assert (code, err) == (0, "")
    assert "  warning: no alg is given for old; published as RS256" in out


def test_a_published_kid_fakes_no_line_of_what_is_moved_aside(started: Shell, site: Site) -> None:
    jwk = json.loads(site.jwks.read_text())["keys"][0]
    lose_state(site)
    publish(site, {**jwk, "kid": "k1\nnothing is to be replaced\x1b[2J"})
    code, out, _ = started("published", "replace", "--rehearse")
    assert code == 0
    assert (
        len([line for line in out.splitlines() if line.startswith("keyset default: 1 key to be moved aside: k1")]) == 1
    )
    assert "\nnothing is to be replaced" not in out
    assert "\x1b" not in out


def test_what_is_done_offline_is_logged_by_the_next_daemon(started: Shell, site: Site) -> None:
    """The terminal shows the answer and no line of the log; the log itself, the daemon's, misses no event."""
    code, out, err = started("replace", "w0", "--offline", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["done"]

    head = json.loads(started("audit", "list", "--limit", "1", "--json")[1])["events"][0]
    _, log, _ = started("run", "--once")
    assert f'"hash":"{head["hash"]}"' in log


def test_published_replace_shows_what_it_ends_and_asks(started: Shell, site: Site) -> None:
    """As a revocation does: a reason, a rehearsal that changes nothing, and a question that needs a terminal."""
    lose_state(site)
    before = {path: path.read_bytes() for path in site.state.rglob("*") if path.is_file()}
    kids = [key["kid"] for key in json.loads(site.jwks.read_text())["keys"]]
    code, _, err = started("published", "replace")
    assert (code, "say why with --reason" in err) == (2, True)
    code, out, err = started("published", "replace", "--rehearse")
    assert (code, err) == (0, "")
    assert f"keyset default: 2 keys to be moved aside: {', '.join(kids)}" in out
    assert "every token on these keys is refused" in out
    _, out, _ = started("published", "replace", "--rehearse", "--json")
    assert json.loads(out) == {"replaced": [{"keyset": "default", "kept": None, "kids": kids}], "inherited": None}
    code, _, err = started("published", "replace", "--reason", "begun anew")
    assert (code, "no terminal to ask on; add --yes" in err) == (2, True)
    assert {path: path.read_bytes() for path in site.state.rglob("*") if path.is_file()} == before
    code, out, err = started("published", "replace", "--reason", "begun anew", "--yes")
    assert (code, err) == (0, "")
    assert "keyset default: kept in " in out
    assert not site.jwks.exists()
    (event,) = json.loads(started("audit", "list", "--event", "keyset.replaced", "--json")[1])["events"]
    assert (event["reason"], event["keyset"], event["details"]["keys"]) == ("begun anew", "default", 2)
    code, out, _ = started("published", "replace", "--reason", "once more")
    assert (code, "nothing is replaced" in out) == (0, True)


@pytest.mark.parametrize("command", ["adopt --keep-for 1m", "replace --yes --reason lost"])
def test_what_was_revoked_in_a_lost_database_stays_so(started: Shell, site: Site, command: str) -> None:
    """The witness is taken over where it lies: nobody is asked to move it away."""
    signs = next(
        key["kid"] for key in json.loads(started("keys", "list", "--json")[1])["keys"] if key["phase"] == "active"
    )
    assert started("revoke", "key", signs, "--now", "--offline", "--yes", "--reason", "leaked")[0] == 0
    for file in site.state.glob("rotator.db*"):
        file.unlink()
    _, out, _ = started("check")
    assert "rotator published adopt" in out
    code, out, err = started("published", *command.split())
    assert (code, err) == (0, "")
    assert "what was revoked there stays so, 1 key and 0 tokens" in out
    started("run", "--once")
    assert signs in (site.state / "witness.json").read_text()
    assert signs not in site.jwks.read_text()
    events = json.loads(started("audit", "list", "--event", "state.inherited", "--json")[1])["events"]
    assert [event["details"]["revoked_kids"] for event in events] == [1]


def test_a_witness_of_another_kek_is_said_so_with_the_way_out(started: Shell, site: Site) -> None:
    for file in site.state.glob("rotator.db*"):
        file.unlink()
    (site.state / "kek").unlink()
    code, _, err = started("published", "adopt", "--keep-for", "1d")
    assert code == 1
    assert "was not written under the KEK" in err
    assert "mv " in err
