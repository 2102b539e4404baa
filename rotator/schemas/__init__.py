"""The JSON Schemas of everything that commands print with ``--json``, one file each: stable, for programs read them.

``python -m rotator.schemas NAME`` prints one. The files are made from the records: without a name it writes them anew.
A change that takes a field away, or changes what it holds, breaks those programs.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from rotator.backing_up import Backup
from rotator.beginning import Beginning, MadeKek
from rotator.cli.checking import CheckReport
from rotator.cli.taking_in import Import
from rotator.published import Adoptions, SetsAside
from rotator.report.hanging import KeyDetail
from rotator.report.lists import KeyList, TokenList
from rotator.report.plans import Plan
from rotator.report.proof import ChainProof
from rotator.report.records import Done, Failure, Pass, Report, ShownToken
from rotator.report.replacement import Replacement
from rotator.report.revocation import Revocation
from rotator.report.shape import schema
from rotator.report.takeover import Takeover
from rotator.report.trail import AuditEntry, AuditList
from rotator.report.verdict import Verdict
from rotator.restoring import Restored

DIRECTORY: Final = Path(__file__).parent

SHAPES: Final[Mapping[str, type]] = MappingProxyType(
    {
        "audit-export": AuditEntry,  # of each line
        "audit-list": AuditList,
        "audit-verify": ChainProof,
        "backup": Backup,
        "check": CheckReport,
        "error": Failure,  # of any command, on stderr
        "import-key": Import,
        "init": Beginning,
        "kek-generate": MadeKek,
        "keys-list": KeyList,
        "keys-show": KeyDetail,
        "clock-accept": Done,
        "config-accept": Done,
        "plan": Plan,
        "published-adopt": Adoptions,
        "published-replace": SetsAside,
        "replace": Replacement,
        "restore": Restored,
        "revoke-key": Revocation,
        "revoke-keyset": Revocation,
        "revoke-token": Revocation,
        "revoke-workspace": Revocation,
        "rotate": Takeover,
        "run-once": Pass,
        "status": Report,
        "token-show": ShownToken,
        "tokens-list": TokenList,
        "verify": Verdict,
    }
)
"""By the name of the file, which is that of the command."""


_TITLES: Final = {"error": "the last line on stderr of a command with --json that fails"}


def render(name: str) -> str:
    """Return the text of a schema file."""
    return (
        json.dumps(schema(SHAPES[name], _TITLES.get(name, f"rotator {name.replace('-', ' ')} --json")), indent=2) + "\n"
    )


def load(name: str) -> dict[str, Any]:
    """Return a schema as it is shipped."""
    document: dict[str, Any] = json.loads((DIRECTORY / f"{name}.json").read_text(encoding="utf-8"))
    return document


def write_all(directory: Path) -> None:
    """Write every schema file."""
    for name in SHAPES:
        (directory / f"{name}.json").write_text(render(name), encoding="utf-8")
