"""``rotator published``: what to do with a set that is published already where a new database begins."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, cast

from rotator.config.settings import Config
from rotator.core.events import Event
from rotator.core.jwks import parse_set
from rotator.core.model import KeysetName, Kid
from rotator.engine import adopt
from rotator.engine.adopt import Inherited
from rotator.engine.recover import reconcile
from rotator.engine.register import register
from rotator.engine.run import Run
from rotator.ports import Reading, Store, Transaction
from rotator.wiring import open_state, user_name


@dataclass(frozen=True, slots=True)
class Adoption:
    """What became of one published set."""

    keyset: KeysetName
    kids: tuple[Kid, ...]
    taken_as_rs256: tuple[Kid, ...]
    """RSA keys that do not say their ``alg``."""
    propagation_seconds: int
    usable_at: datetime
    """When the first token can be issued if the daemon is started now: verifiers may hold copies without new keys."""


@dataclass(frozen=True, slots=True)
class Adoptions:
    """What became of all published sets that the database did not know."""

    adoptions: tuple[Adoption, ...]
    inherited: Inherited | None
    """What was known beside a lost database; null where there was nothing, or it was taken over before."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """A published set that was moved away."""

    keyset: KeysetName
    kept: str | None
    """Where it is now; null in a rehearsal, where it stays."""
    kids: tuple[Kid, ...]
    """Tokens on these keys are refused from then on."""


@dataclass(frozen=True, slots=True)
class SetsAside:
    """What became of all published sets that the database did not know."""

    replaced: tuple[SetAside, ...]
    inherited: Inherited | None
    """What was known beside a lost database; null where there was nothing, or it was taken over before."""


@contextmanager
def _unlocked(config: Config, command: str, reason: str = "") -> Iterator[tuple[Run, Reading, Inherited | None]]:
    with open_state(config) as state:
        run = state.run
        with run.around.store.read() as snapshot:
            known = snapshot.keks()
        run.unlock(run.around.keyring.unlock(known))
        reading = run.around.clock.read()
        plain = run.around
        _attribute(run, command, reason)
        inherited = adopt.inherit(run, reading)
        run.around = plain
        reconcile(run, reading)
        register(run, reading)
        yield run, reading, inherited


def _attribute(run: Run, command: str, reason: str) -> None:
    uid = os.getuid()
    store = cast("Store", _AttributedStore(run.around.store, f"{user_name(uid)}({uid})", reason, command))
    run.around = replace(run.around, store=store)


def adopt_published(config: Config, keep_for: timedelta, reason: str = "") -> Adoptions:
    """Keep the keys of published sets that the database does not know, until ``keep_for`` from now.

    ``reason`` goes into the audit, beside who runs this.
    """
    with _unlocked(config, "published.adopt", reason) as (run, reading, inherited):
        _attribute(run, "published.adopt", reason)
        found = adopt.found_sets(run)
        adopted = adopt.adopt_published(run, reading, keep_for)
        periods = {name: config.policy.keysets[name].propagation_period for name in adopted}
        adoptions = tuple(
            Adoption(
                keyset=name,
                kids=kids,
                taken_as_rs256=_without_algorithm(found[name].content) if name in found else (),
                propagation_seconds=int(periods[name].total_seconds()),
                usable_at=reading.now + periods[name],
            )
            for name, kids in adopted.items()
        )
        return Adoptions(adoptions, inherited)


def replace_published(config: Config, reason: str) -> SetsAside:
    """Move such sets aside, so that the next start is a first start; return where each one is kept.

    ``reason`` goes into the audit, beside who runs this.
    """
    with _unlocked(config, "published.replace", reason) as (run, reading, inherited):
        _attribute(run, "published.replace", reason)
        found = adopt.found_sets(run)
        moved = adopt.replace_published(run, reading)
        return SetsAside(tuple(SetAside(name, path, found[name].kids) for name, path in moved.items()), inherited)


def _without_algorithm(content: bytes) -> tuple[Kid, ...]:
    jwks = {kid: json.loads(text) for kid, text in parse_set(content) or ()}
    return tuple(kid for kid, jwk in jwks.items() if jwk["kty"] == "RSA" and "alg" not in jwk)


# --------------------------------------------------------------------------------------------------------- the audit


@dataclass(frozen=True, slots=True)
class _AttributedStore:
    """A store whose events name the person and the reason, where the schedule would be named otherwise."""

    store: Store
    actor: str
    reason: str
    command: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """Open a writing transaction as the store does."""
        with self.store.begin() as transaction:
            yield cast("Transaction", _AttributedTransaction(transaction, self.actor, self.reason, self.command))


@dataclass(frozen=True, slots=True)
class _AttributedTransaction:
    transaction: Transaction
    actor: str
    reason: str
    command: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transaction, name)

    def append(self, events: Iterable[Event], **rest: Any) -> Any:
        """Append ``events`` with the person and the reason."""
        return self.transaction.append(
            [
                event._replace(actor=self.actor, reason=self.reason, details={**event.details, "command": self.command})
                for event in events
            ],
            **rest,
        )
