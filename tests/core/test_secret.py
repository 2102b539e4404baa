"""A secret does not show by accident."""

import copy
import json
import logging
import pickle

import pytest

from rotator.core.secret import Secret

MASK = "[secret]"
TOKEN = "eyJhbGciOiJFUzI1NiJ9.e30.c2ln"


def test_it_is_revealed_on_purpose_only() -> None:
    assert Secret(TOKEN).reveal() == TOKEN
    assert Secret(b"\x00key").reveal() == b"\x00key"


@pytest.mark.parametrize(
    "shown",
    [
        str(Secret(TOKEN)),
        repr(Secret(b"key")),
        f"{Secret(TOKEN)}",
        f"{Secret(TOKEN):>100}",
        "%s" % Secret(TOKEN),  # noqa: UP031  # the way in which logging formats
        f"{[Secret(TOKEN)]}",
    ],
)
def test_no_way_of_formatting_shows_it(shown: str) -> None:
    assert shown in {MASK, f"[{MASK}]"}


def test_a_log_record_does_not_show_it(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").warning("minted %s", Secret(TOKEN))
    assert caplog.messages == [f"minted {MASK}"]


def test_equality_is_of_the_secrets() -> None:
    assert Secret(TOKEN) == Secret(TOKEN)
    assert Secret(TOKEN) != Secret("other")
    assert Secret(TOKEN) != TOKEN


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps, hash, vars])
def test_it_cannot_leave_the_process_or_its_wrapper(leave: object) -> None:
    """Pickles, copies, JSON, keys of mappings and attribute listings are all ways to lose sight of it."""
    assert callable(leave)
    with pytest.raises(TypeError):
        leave(Secret(TOKEN))
