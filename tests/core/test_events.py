"""The stored form of an event: what was hashed by one version is verified by every later one."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rotator.core.events import GENESIS, Detail, Event, EventName, chain_hash, encode_details
from rotator.core.model import Jti, KeysetName, Kid, WorkspaceId

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("details", "stored"),
    [
        ({}, ""),
        ({"b": 1, "a": "x"}, '{"a":"x","b":1}'),
        ({"a": None, "b": True, "c": -7}, '{"a":null,"b":true,"c":-7}'),
        ({'"': "füße\n"}, '{"\\"":"füße\\n"}'),
    ],
)
def test_details_are_sorted_json_without_white_space(details: dict[str, Detail], stored: str) -> None:
    assert encode_details(details) == stored


@pytest.mark.parametrize(
    ("event", "content"),
    [
        (
            Event(EventName.STATE_CREATED, AT),
            f'["{GENESIS}",1,1767225600000000,"state.created",null,null,null,null,"rotator","",""]',
        ),
        (
            Event(
                EventName.TOKEN_ISSUED,
                AT,
                KeysetName("default"),
                WorkspaceId("acme"),
                Kid("k"),
                Jti("t"),
                "ada(1000)",
                'he said "now"',
                {"sequence": 1},
            ),
            f'["{GENESIS}",1,1767225600000000,"token.issued","default","acme","k","t","ada(1000)",'
            '"he said \\"now\\"","{\\"sequence\\":1}"]',
        ),
    ],
)
def test_a_link_is_the_hash_of_a_json_array(event: Event, content: str) -> None:
    found = chain_hash(GENESIS, 1, event, 1_767_225_600_000_000, encode_details(event.details))
    assert found == hashlib.sha256(content.encode()).hexdigest()


@pytest.mark.parametrize("name", EventName)
def test_each_name_is_one_that_users_read_of(name: EventName) -> None:
    """They filter their logs by it."""
    assert f"`{name}`" in (Path(__file__).parents[2] / "docs/events.md").read_text(encoding="utf-8")


def test_the_chain_begins_with_a_hash_of_zeros() -> None:
    assert GENESIS == "0000000000000000000000000000000000000000000000000000000000000000"
