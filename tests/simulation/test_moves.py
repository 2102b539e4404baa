"""What people can ask for is among the moves of the simulation."""

from pathlib import Path

import pytest

from rotator.engine.requests import HANDLERS

CHANGES_NOTHING = {"token.show"}


@pytest.mark.parametrize("kind", sorted(HANDLERS.keys() - CHANGES_NOTHING))
def test_every_request_that_changes_something_is_made_in_the_simulation(kind: str) -> None:
    """A new kind of request without a move would be outside of what the promises were tried against."""
    sources = [path.read_text() for path in Path(__file__).parent.glob("*.py") if path != Path(__file__)]
    assert any(f'"{kind}"' in source for source in sources)
