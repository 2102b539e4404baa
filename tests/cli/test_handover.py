"""`replace`, `rotate` and `keys show`, as a person and a program see them."""

import json
import os
import re
import subprocess

import jsonschema
import pytest

from rotator.schemas import load
from tests.cli.conftest import Shell
from tests.e2e.world import Site
from tests.forking import Rotator
from tests.patience import HANG_SECONDS


def fits(text: str, shape: str) -> dict[str, object]:
    document: dict[str, object] = json.loads(text)
    jsonschema.validate(document, load(shape), format_checker=jsonschema.FormatChecker())
    return document


def lines_of(text: str) -> str:
    """Return a page with its wrapping taken out."""
    return re.sub(r"\s+", " ", text)


# ------------------------------------------------------------------------------------------------------------- replace


def test_replace_follows_the_new_token_until_it_is_delivered(daemon: Shell, site: Site) -> None:
    """With lines of progress on stderr, and the page on stdout."""
    before = site.root.joinpath("delivered/w0/token").read_text()
    code, out, err = daemon("replace", "w0", "--overlap", "10m", "--wait", "--reason", "the contractor left")
    assert code == 0
    assert site.root.joinpath("delivered/w0/token").read_text() != before
    told = err.splitlines()  # how often it looked in between is the machine's affair
    assert "token issued: 1 of 1" in told
    assert told[-1] == "deliveries made: 1 of 1"
    assert out.startswith("workspace w0: the new token is issued and delivered to 1 of 1 sink\n")
    page = lines_of(out)
    assert re.search(r"prior number 1, \S+, counts as revoked from 20\S+ \S+Z \(in 9m \d+s\) on", page)
    assert "checks nothing but signature and time accepts what is revoked here until" in page
    assert re.search(r"rotator revoke key \S{43}$", page.strip())


def test_replace_to_its_own_end_warns_of_nothing(daemon: Shell) -> None:
    """Nothing is shortened, so nothing is left to say."""
    code, out, _ = daemon("replace", "w0")
    assert code == 0
    assert re.search(r"prior  number 1, \S+, valid to its own end, ", out)
    assert "revoke" not in out


def test_the_end_of_an_overlap_is_in_the_list_of_tokens(daemon: Shell) -> None:
    daemon("replace", "w0", "--overlap", "10m", "--wait")
    listed = daemon("tokens", "list", "--workspace", "w0")[1]
    assert re.search(r"^w0 +1 +grace .* revoked in 9m \d+s", listed, re.MULTILINE)
    first, second = json.loads(daemon("tokens", "list", "--workspace", "w0", "--json")[1])["tokens"]
    assert first["revoke_at"] < first["expires_at"]
    assert second["revoke_at"] is None


def test_replace_now_revokes_and_json_says_so(daemon: Shell) -> None:
    """It fits its schema, and `verify` refuses the leaked token from now on."""
    leaked = daemon("token", "show", "w0")[1]
    code, out, _ = daemon("replace", "w0", "--overlap", "now", "--wait", "--json")
    document = fits(out, "replace")
    assert (code, document["done"], document["delivered"]) == (0, True, 1)
    assert '"phase": "revoked"' in out
    code, out, _ = daemon("verify", leaked)
    assert code == 1
    assert "revoked" in out


def test_replace_without_a_daemon_issues_and_delivers(started: Shell, site: Site) -> None:
    """All of it, before it returns."""
    before = site.root.joinpath("delivered/w1/token").read_text()
    assert started("replace", "w1", "--overlap", "6h")[0] == 1
    code, out, _ = started("replace", "w1", "--overlap", "6h", "--wait", "--offline", "--json")
    assert (code, fits(out, "replace")["done"]) == (0, True)
    assert site.root.joinpath("delivered/w1/token").read_text() != before


def test_a_wait_ends_with_a_failure_when_it_was_long_enough(daemon: Shell, site: Site) -> None:
    """The sink cannot be written: it says so, and that the daemon goes on."""
    token = site.root / "delivered" / "w0" / "token"
    token.unlink()
    token.mkdir()
    out = err = ""
    for seconds in (2, 10, 60, 300):  # until the first attempt is made within it
        code, out, err = daemon("replace", "w0", "--wait", "--timeout", f"{seconds}s")
        assert code == 1
        if "it is tried again by itself" in lines_of(out):
            break
    assert "delivered to 0 of 1 sink" in out
    assert "it is tried again by itself" in lines_of(out)
    assert "deliveries made: 0 of 1" in err


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("nobody",), 1, "there is no workspace 'nobody'"),
        (("w0", "--overlap", "soon"), 2, "--overlap: 'soon' is not a span of time"),
        (("w0", "--overlap", "10"), 2, "--overlap: 10 has no unit"),
    ],
)
def test_replace_refuses_in_one_sentence(daemon: Shell, arguments: tuple[str, ...], code: int, problem: str) -> None:
    found = daemon("replace", *arguments)
    assert (found[0], found[1]) == (code, "")
    assert found[2].startswith(f"rotator: {problem}")


# -------------------------------------------------------------------------------------------------------------- rotate


def test_rotate_says_when_and_why_then(daemon: Shell) -> None:
    """The key after the standby has its wait ahead; asked again, nothing changes."""
    code, out, _ = daemon("rotate", "default", "--reason", "an exercise")
    assert code == 0
    assert out.startswith("keyset default: it will rotate\n")
    page = lines_of(out)
    assert re.search(r"next \S+ takes over 20\S+ \S+Z \(in (2h|1h 59m)\) because the key after it", page)
    assert "must be out for 2h first, so that a spare which every verifier knows is left for an emergency" in page
    assert "an exercise" in page
    status = lines_of(daemon("status")[1])
    assert re.search(r"asked \S+\(\d+\) asked for a rotation at 20\S+ \S+Z, which is under way", status)
    code, out, _ = daemon("rotate")
    assert (code, out.splitlines()[0]) == (0, "keyset default: a rotation is under way already; nothing changed")
    _, listed, _ = daemon("audit", "list", "--event", "keyset.rotation_requested", "--json")
    (event,) = json.loads(listed)["events"]
    assert event["reason"] == "an exercise"
    assert "an operator asked for it" in lines_of(daemon("plan", "--for", "3h")[1])


def test_a_rehearsal_changes_nothing(started: Shell) -> None:
    """With and without an emergency, for people and for programs."""
    before, out = started("keys", "list", "--json")[1], ""
    for options in ((), ("--emergency",)):
        code, out, _ = started("rotate", "--rehearse", *options)
        assert code == 0
        assert out.startswith("keyset default: a rotation, rehearsed; nothing was changed\n")
        fits(started("rotate", "--rehearse", *options, "--json")[1], "rotate")
    assert "What breaks: nothing" in out
    assert started("keys", "list", "--json")[1] == before


def test_an_emergency_shows_what_breaks_and_asks(daemon: Shell) -> None:
    """The first costs nothing; a second so soon costs every verifier that does not fetch again at once."""
    code, _, err = daemon("rotate", "--emergency", "--reason", "stolen disk")
    assert (code, err.splitlines()[-1]) == (
        2,
        "rotator: an emergency rotation asks before it is done, and there is no terminal to ask on: add --yes",
    )
    assert daemon("rotate", "--emergency", "--yes")[0] == 2  # without a reason
    code, out, _ = daemon("rotate", "--emergency", "--reason", "stolen disk", "--yes")
    assert code == 0
    assert "What breaks: nothing. Every verifier can know the key that takes over." in out
    assert "keyset default: rotated\n" in out
    code, out, _ = daemon("rotate", "--emergency", "--reason", "again", "--rehearse")
    rows = {line.split()[0]: line for line in out.splitlines() if re.search(r"  (yes|no)  ", line)}
    assert {"envoy", "istio", "step-ca", "smallrye"} <= rows.keys()
    assert "pyjwt" not in rows or "in" in rows["pyjwt"]
    assert re.search(r"^the slowest you have  1h +no ", out, re.MULTILINE)


def test_an_emergency_asks_on_a_terminal(daemon: Shell, site: Site) -> None:
    """No is the answer of whoever just presses return."""
    screen, terminal = os.openpty()
    command = ["rotate", "--emergency", "--reason", "why", "-c", str(site.config)]
    process = Rotator(command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.write(screen, b"\n")
    _, err = process.communicate(timeout=HANG_SECONDS)
    os.close(screen)
    os.close(terminal)
    assert process.returncode == 1
    assert err.endswith("rotator: nothing was changed\n")
    assert "Rotate keyset default now? [y/N]" in err
    assert "keyset.rotation_requested" not in daemon("audit", "list", "--limit", "100")[1]


def test_rotate_of_an_unknown_keyset(started: Shell) -> None:
    code, out, err = started("rotate", "payments", "--rehearse")
    assert (code, out) == (1, "")
    assert err == "rotator: there is no keyset 'payments'; `rotator status` names them\n"


# ----------------------------------------------------------------------------------------------------------- keys show


def test_keys_show_tells_whose_tokens_hang_on_a_key_and_when_it_can_go(started: Shell) -> None:
    """For the signer and the spare, by the beginning of a kid."""
    signer, spare = (key["kid"] for key in json.loads(started("keys", "list", "--json")[1])["keys"])
    code, out, _ = started("keys", "show", signer[:8])
    assert code == 0
    assert out.startswith(f"key {signer}\n")
    page = lines_of(out)
    assert "2 unexpired tokens of 2 workspaces hang on it" in page
    assert re.search(r"w0 1 20\S+ \S+Z \(in 30d\) w1 1 20", page)
    assert re.search(r"safe to remove at about 20\S+ \S+Z \(in \d+d\), because it signs until 20", page)
    document = fits(started("keys", "show", signer, "--json")[1], "keys-show")
    assert (document["tokens"], document["workspaces"]) == (2, 2)
    page = lines_of(started("keys", "show", spare)[1])
    assert "no unexpired token hangs on it safe to remove, because nothing was ever signed with it" in page


def test_keys_show_of_no_key_or_of_several(started: Shell) -> None:
    code, _, err = started("keys", "show", "nothing")
    assert (code, err) == (1, "rotator: there is no key 'nothing'; `rotator keys list` names them\n")
