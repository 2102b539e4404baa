"""The export of the audit: whole, in order, resumable, and proof of itself."""

import json
from datetime import datetime
from pathlib import Path

import jsonschema
import pytest

from rotator.core.audit import Mark, verify_chain
from rotator.core.events import GENESIS, Event, EventName
from rotator.core.model import Jti, KeysetName, Kid, WorkspaceId
from rotator.ports import AuditRow
from rotator.schemas import load
from tests.cli.conftest import Shell


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_every_line_fits_the_schema_and_is_an_event_of_the_list(started: Shell) -> None:
    code, out, err = started("audit", "export")
    assert (code, err) == (0, "")
    listed = json.loads(started("audit", "list", "--limit", "1000", "--json")[1])["events"]
    assert lines(out) == listed
    assert len(listed) > 10
    for line in lines(out):
        jsonschema.validate(line, load("audit-export"), format_checker=jsonschema.FormatChecker())


def test_a_daemon_gives_the_same_export(daemon: Shell) -> None:
    exported = lines(daemon("audit", "export")[1])
    listed = json.loads(daemon("audit", "list", "--limit", "1000", "--json")[1])["events"]
    assert len(exported) > 10
    assert listed[: len(exported)] == exported  # it may have gone on since


def test_a_copy_proves_itself(started: Shell) -> None:
    """The lines alone are enough to hash the chain anew, from the first event to the head that `audit verify` tells."""
    rows = [
        AuditRow(
            seq=line["seq"],
            event=Event(
                name=EventName(line["event"]),
                at=datetime.fromisoformat(line["at"]),
                keyset=line["keyset"] and KeysetName(line["keyset"]),
                workspace=line["workspace"] and WorkspaceId(line["workspace"]),
                kid=line["kid"] and Kid(line["kid"]),
                jti=line["jti"] and Jti(line["jti"]),
                actor=line["actor"],
                reason=line["reason"],
                details=line["details"],
            ),
            hash=line["hash"],
        )
        for line in map(json.loads, started("audit", "export")[1].splitlines())
    ]
    proof = json.loads(started("audit", "verify", "--json")[1])
    assert verify_chain(rows, Mark(0, GENESIS), Mark(proof["head_seq"], proof["head_hash"])) is None
    changed = [*rows[:5], AuditRow(6, rows[5].event._replace(actor="mallory(0)"), rows[5].hash), *rows[6:]]
    broken = verify_chain(changed, Mark(0, GENESIS))
    assert broken is not None
    assert broken.seq == 6


def test_an_export_goes_on_where_it_ended(started: Shell, tmp_path: Path) -> None:
    """In a file that it made, a torn last line included; nothing comes twice, and nothing is missing."""
    file = tmp_path / "audit.jsonl"
    whole = started("audit", "export")[1]
    code, out, err = started("audit", "export", "--output", str(file))
    assert (code, out) == (0, "")
    assert file.read_text() == whole
    assert file.stat().st_mode & 0o777 == 0o600
    last = lines(whole)[-1]["seq"]
    assert f"every event up to {last}; later, go on with: --after {last}" in err
    file.write_text("".join(whole.splitlines(keepends=True)[:4]) + '{"seq": 5, "at"')
    assert started("audit", "export", "-o", str(file), "--after", "4")[0] == 0
    assert file.read_text() == whole


@pytest.mark.parametrize(
    ("content", "after", "said"),
    [
        ('{"seq":4}\n', "0", "ends with event 4; to go on from there: --after 4"),
        ('{"seq":4}\n', "7", "ends with event 4; to go on from there: --after 4"),
        ("my diary\n", "4", "it is left alone: name another file"),
        ("my diary", "0", "it is left alone: name another file"),
        ("[]\n", "4", "it is left alone: name another file"),
    ],
)
def test_a_file_that_does_not_end_there_is_left_alone(
    started: Shell, tmp_path: Path, content: str, after: str, said: str
) -> None:
    file = tmp_path / "there"
    file.write_text(content)
    code, _, err = started("audit", "export", "-o", str(file), "--after", after)
    assert code == 1
    assert said in err
    assert file.read_text() == content


def test_a_place_that_cannot_be_written_is_named(started: Shell, tmp_path: Path) -> None:
    code, _, err = started("audit", "export", "-o", str(tmp_path / "none" / "file"))
    assert code == 1
    assert "cannot be written: No such file or directory" in err
