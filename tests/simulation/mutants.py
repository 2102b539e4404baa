"""Deliberate bugs: each one a line of the real code, replaced, or a stand-in that does its work badly."""

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from types import ModuleType
from typing import Any, Final

import pytest

from rotator.adapters.store import rows
from rotator.core import invariants, planner, schedule, timeguard
from rotator.core.model import Algorithm, KekId
from rotator.engine import deliver, issue, observe, recover, request_rows, requests
from rotator.engine.requests import binding
from rotator.engine.run import Surroundings
from rotator.ports import Journal, RevocationEntry, Sealer, WitnessRecord
from tests.simulation.commands import RevokeKey, RevokeToken, Rotate
from tests.simulation.keys import KEK_ID, KekFile, StandInKeyring, StandInSealer
from tests.simulation.machines import ClockStep, DiskFull, KekAway, MintFails, Outage, SinkFails
from tests.simulation.moves import Move, Nothing
from tests.simulation.newcomers import ImportSigner
from tests.simulation.operators import ChangeKeyset
from tests.simulation.requests import AcceptedInVain, ForgeRequest, ReplayRequest
from tests.simulation.vandals import BackUp, InsertKeyRow, PutAllBack, PutBack, Restore
from tests.stand_ins import DAY, HOUR

Line = tuple[ModuleType, str, str, str]
"""Module, function, text, replacement."""

RUNS_IN: Final = ("rotator.", "tests.model.")
"""Where the code that runs was imported to."""


@dataclass(frozen=True, slots=True)
class Bug:
    """A line of a function, and what stands there instead; several where one alone would be caught by another check."""

    name: str
    promises: tuple[int, ...]
    """Those that may be the first to notice it."""
    moves: tuple[tuple[timedelta, Move], ...]
    """A history that shows it: how long after the one before each move comes."""
    lines: tuple[Line, ...] = ()
    replicas: int = 1
    surround: Callable[[Surroundings], Surroundings] = lambda around: around


def plant(lines: Sequence[Line], monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a bug into the code that runs, wherever the function was imported to."""
    for module, name, old, new in lines:
        original = getattr(module, name)
        source = inspect.getsource(original)
        assert source.count(old) == 1, f"{module.__name__}.{name} has no line {old!r}"
        namespace: dict[str, Any] = dict(vars(module))
        exec(compile(source.replace(old, new), module.__file__ or "", "exec"), namespace)  # noqa: S102 - ours
        _replace_everywhere(original, namespace[name], monkeypatch)


def _replace_everywhere(original: object, changed: object, monkeypatch: pytest.MonkeyPatch) -> None:
    for known in [module for name, module in sys.modules.items() if name.startswith(RUNS_IN)]:
        for attribute, value in list(vars(known).items()):
            if value is original:
                monkeypatch.setattr(known, attribute, changed)
    if original in planner.RULES:
        rules = tuple(changed if rule is original else rule for rule in planner.RULES)
        monkeypatch.setattr(planner, "RULES", rules)


# ------------------------------------------------------------------------------------------------- careless stand-ins


@dataclass(frozen=True, slots=True)
class StubbornKeyring:
    """Remembers a KEK that is gone."""

    def unlock(self, known: object) -> Sealer:
        return StandInSealer(KEK_ID, b"kek")

    def check_value(self, kek_id: KekId) -> bytes:
        return StandInKeyring(KekFile()).check_value(kek_id)


@dataclass(frozen=True, slots=True)
class ForgetfulWitness:
    """Knows nothing at a start."""

    real: Any

    def read(self) -> WitnessRecord | None:
        return None

    def write(self, record: WitnessRecord) -> None:
        self.real.write(record)


@dataclass(frozen=True, slots=True)
class ForgetfulJournal:
    """Takes entries, and knows none at a start."""

    real: Any

    def read(self) -> Journal:
        return Journal()

    def append(self, entry: RevocationEntry) -> None:
        self.real.append(entry)


@dataclass(frozen=True, slots=True)
class HastyStore:
    """Says that what was erased is gone, without looking."""

    real: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def purge_erased(self) -> bool:
        return True


NOW = timedelta(0)
ALL_METAS, NO_META = "hold_against(snapshot, record, mine, ", "hold_against(snapshot, record, (), "
EVERY_TREE = """by_replica[replica] for replica in replicas)
        for kid, by_replica in holders.items()
        if replicas <= by_replica.keys()"""
ONE = """if len(chunk.due) == 1:
            _failed(run, [chunk.due[0][1].id],"""
WHOLE_CHUNK = """if True:
            _failed(run, [policy.id for _, policy in chunk.due],"""
ANY_TREE = """by_replica.values())
        for kid, by_replica in holders.items()"""

ALL = (
    Bug(
        "a key signs as soon as it is published",
        (1, 2),
        moves=((30 * DAY, RevokeKey(0, "active", twice=True, choice="wait")), (5 * DAY, Nothing())),
        lines=(
            (
                planner,
                "ready_at",
                "return since + policy.propagation_period if since != ALWAYS else ALWAYS",
                "return ALWAYS",
            ),
        ),
    ),
    Bug(
        "a rotation does not wait for the key after it",
        (3,),
        moves=((30 * DAY, Rotate(0, at_once=False)), (5 * DAY, Nothing())),
        lines=((planner, "spares_needed", "return 2 if", "return 1 if"),),
    ),
    Bug(
        "a key leaves as soon as it stops signing",
        (1, 5),
        moves=((30 * DAY, Rotate(0, at_once=False)), (30 * DAY, Nothing())),
        lines=(
            (planner, "_retirement_reason", "end is None or end <= now", "True"),
            (invariants, "keyset_violations", "key.phase is Phase.RETIRED and", "False and"),
        ),
    ),
    Bug(
        "the set is published without the key that signs",
        (1, 2, 6),
        moves=((30 * DAY, Nothing()),),
        lines=((planner, "desired_kids", "key.phase in IN_SET and", "key.phase is not Phase.ACTIVE and"),),
    ),
    Bug(
        "a token is issued long before its time",
        (7,),
        moves=((90 * DAY, Nothing()),),
        lines=((schedule, "rotation_due", "end - jitter * share(identity)", "end - 5 * jitter"),),
    ),
    Bug(
        "an erased private half is left in the log of the database",
        (4,),
        moves=((30 * DAY, Rotate(0, at_once=False)), (30 * DAY, Nothing())),
        surround=lambda around: replace(around, store=HastyStore(around.store)),
    ),
    Bug(
        "a clock that leaps ahead is believed",
        (11,),
        moves=((30 * DAY, ClockStep(3 * HOUR, 10 * DAY)), (12 * DAY, Nothing())),
        lines=((timeguard, "_suspicion", "leap > clock_skew", "False"),),
    ),
    Bug(
        "a key-encryption key that is gone is remembered",
        (10,),
        moves=((30 * DAY, KekAway(wrong=False, span=90 * DAY)), (90 * DAY, Nothing())),
        surround=lambda around: replace(around, keyring=StubbornKeyring()),
    ),
    Bug(
        "the journal of revocations is not read at a start",
        (10,),
        moves=(
            (30 * DAY, KekAway(wrong=False, span=40 * DAY)),
            (10 * DAY, RevokeKey(0, "active", twice=False, choice="wait")),
            (10 * DAY, Outage(0, HOUR)),
            (40 * DAY, Nothing()),
        ),
        surround=lambda around: replace(around, journal=ForgetfulJournal(around.journal)),
    ),
    Bug(
        "rows of keys are published without looking at their MAC",
        (10,),
        moves=((50 * DAY, InsertKeyRow(0, 1, "grace")), (30 * DAY, Nothing())),
        lines=((rows, "key", 'authentic = integrity.holds("signing_keys", _columns(row))', "authentic = True"),),
    ),
    Bug(
        "rows of requests are carried out without looking at their MAC",
        (3, 10),
        moves=((50 * DAY, ForgeRequest(2, 1)), (30 * DAY, Nothing())),
        lines=((request_rows, "is_authentic", "return sealer.verify_mac(", "return True or sealer.verify_mac("),),
    ),
    Bug(
        "a request is carried out as often as its row comes back",
        (10,),
        moves=(
            (50 * DAY, RevokeToken(1, everything=True)),
            (2 * DAY, ReplayRequest(0, "copy")),
            (30 * DAY, Nothing()),
        ),
        lines=((requests, "handle_requests", "if request.nonce in run.answered:", "if False:"),),
    ),
    Bug(
        "a clock that was accepted in one boot is trusted in the next",
        (11,),
        moves=((50 * DAY, AcceptedInVain(40 * DAY, 20 * DAY)), (30 * DAY, Nothing())),
        lines=((binding, "require_clock", 'if reading.boot_id != seen.get("boot_id"):', "return\n    if False:"),),
    ),
    Bug(
        "a delivery that failed counts as made",
        (8, 9),
        moves=((NOW, SinkFails(0, 12, 4 * DAY)), (40 * DAY, Nothing())),
        lines=((deliver, "_is_made", "and not result.ending.problem", ""),),
    ),
    Bug(
        "one workspace that fails keeps all others waiting",
        (8, 9),
        moves=((NOW, MintFails(0, 1, 60 * DAY)), (40 * DAY, Nothing())),
        lines=((issue, "_result", ONE, WHOLE_CHUNK),),
    ),
    Bug(
        "neither the witness nor the published metas are asked when the database is an old one",
        (1, 7, 12),
        moves=(
            (30 * DAY, BackUp()),
            (2 * DAY, Rotate(0, at_once=False)),
            (30 * DAY, PutBack(0, with_tree=False, running=False)),
            (30 * DAY, Nothing()),
        ),
        lines=((recover, "look_beside", ALL_METAS, NO_META),),
        surround=lambda around: replace(around, witness=ForgetfulWitness(around.witness)),
    ),
    Bug(
        "the published metas are not asked when the whole state was put back",
        (1, 5, 7, 12),
        moves=(
            (30 * DAY, BackUp()),
            (2 * DAY, RevokeKey(0, "active", twice=False, choice="wait")),
            (30 * DAY, PutAllBack(0)),
            (30 * DAY, Nothing()),
        ),
        lines=((recover, "look_beside", ALL_METAS, NO_META),),
    ),
    Bug(
        "`rotator restore` forgets what was revoked since",
        (12,),
        moves=(
            (30 * DAY, BackUp()),
            (2 * DAY, RevokeKey(0, "active", twice=False, choice="wait")),
            (30 * DAY, Restore(0, 0)),
            (30 * DAY, Nothing()),
        ),
        lines=((recover, "_revocations", "sorted(record.revoked_kids)", "()"),),
    ),
    Bug(
        "an imported key that will not sign leaves before the tokens that others signed with it",
        (5,),
        moves=(
            (30 * DAY, ImportSigner(0, 1, adopted_for=None, kept_for=300 * DAY)),
            (2 * DAY, ChangeKeyset(0, 1.0, Algorithm.RS256)),
            (60 * DAY, Nothing()),
        ),
        lines=(
            (planner, "_retirement_reason", "key.last_exp + policy.clock_skew > now", "False"),
            (invariants, "keyset_violations", "key.last_exp + policy.clock_skew > now", "False"),
        ),
    ),
    Bug(
        "only one tree is asked whether a key is out",
        (1, 2),
        moves=(
            (30 * DAY, DiskFull(1, 0, 90 * DAY)),
            (2 * DAY, RevokeKey(0, "active", twice=True, choice="wait")),
            (40 * DAY, Nothing()),
        ),
        lines=((observe, "out_since", EVERY_TREE, ANY_TREE),),
        replicas=2,
    ),
)
