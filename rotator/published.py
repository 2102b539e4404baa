"""``rotator published``: what to do with a set that is published already where a new database begins."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from rotator.config.settings import Config
from rotator.core.model import KeysetName, Kid
from rotator.engine import adopt
from rotator.engine.recover import reconcile
from rotator.engine.register import register
from rotator.engine.run import Run
from rotator.ports import Reading
from rotator.wiring import open_state


@contextmanager
def _unlocked(config: Config) -> Iterator[tuple[Run, Reading]]:
    with open_state(config) as state:
        run = state.run
        with run.around.store.read() as snapshot:
            known = snapshot.keks()
        run.sealer = run.around.keyring.unlock(known)
        reading = run.around.clock.read()
        reconcile(run, reading)
        register(run, reading)
        yield run, reading


def adopt_published(config: Config, keep_for: timedelta) -> Mapping[KeysetName, tuple[Kid, ...]]:
    """Keep the keys of published sets that the database does not know, until ``keep_for`` from now; return them."""
    with _unlocked(config) as (run, reading):
        return adopt.adopt_published(run, reading, keep_for)


def replace_published(config: Config) -> Mapping[KeysetName, str]:
    """Move such sets aside, so that the next start is a first start; return where each one is kept."""
    with _unlocked(config) as (run, reading):
        return adopt.replace_published(run, reading)
