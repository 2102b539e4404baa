"""Real states of any size, for benchmarks: the adapters of the daemon on a directory of its own."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rotator.config import load
from rotator.ports import AuditRow
from rotator.wiring import State, open_state, settle


class Silence:
    """A log that is not written: the log's cost is its own."""

    def audit(self, rows: Sequence[AuditRow]) -> None:
        """Drop them."""

    def event(self, name: str, **fields: object) -> None:
        """Drop it."""


def write_config(directory: Path, workspaces: int, *, sinks: bool = True) -> Path:
    """Write a config with that many workspaces, each with a file sink."""
    directory.mkdir(parents=True, exist_ok=True)
    entries = {
        f"w{number:06}": {
            "roles": ["admin"],
            "permissions": ["metrics:write", "logs:write"],
            **({"deliver": [{"file": {"path": f"delivered/w{number:06}/token"}}]} if sinks else {}),
        }
        for number in range(workspaces)
    }
    (directory / "workspaces.json").write_text(json.dumps({"workspaces": entries}))
    path = directory / "config.yaml"
    path.write_text(
        "issuer: https://tokens.example.com\n"
        "defaults: {security_period: 30d, grace_period: 24h, audience: [api]}\n"
        "include: [workspaces.json]\n"
    )
    return path


@contextmanager
def state_with(directory: Path, workspaces: int, *, sinks: bool = True) -> Iterator[State]:
    """Open a state whose config has that many workspaces; nothing is issued yet."""
    config = load(write_config(directory, workspaces, sinks=sinks), {}, now=datetime.now(UTC))
    with open_state(config, Silence()) as state:
        settle(state.run)  # as the daemon does
        yield state
