"""What ``rotator published replace`` would move aside: shown before it is asked for, and read without a change."""

import sys
from dataclasses import dataclass

import typer

from rotator.cli.outside import lost_database, publisher_of, see_witness
from rotator.cli.screen import say
from rotator.config.settings import Config
from rotator.core.counting import counted
from rotator.core.model import KeysetName, Kid
from rotator.errors import ConfigError, StoreEmptyError
from rotator.published import SetAside, SetsAside
from rotator.wiring import open_readonly


@dataclass(frozen=True, slots=True)
class Ahead:
    """Published sets that the database does not know."""

    sets: tuple[tuple[KeysetName, tuple[Kid, ...]], ...]
    lost: tuple[Kid, ...]
    """Keys that a lost database published, as its witness knows."""

    @property
    def ends_anything(self) -> bool:
        """Tell whether tokens that are out can be refused by it."""
        return bool(self.sets or self.lost)

    def as_report(self) -> SetsAside:
        """Return it as the command reports what it did."""
        return SetsAside(tuple(SetAside(name, None, kids) for name, kids in self.sets), None)


def what_is_ahead(config: Config) -> Ahead:
    """Return what there is to move aside."""
    known, new = _known(config)
    publisher = publisher_of(config.settings)
    found = {name: publisher.found(name) for name in config.policy.keysets if name not in known}
    sets = tuple((name, each.kids) for name, each in found.items() if each is not None and each.kids)
    record = see_witness(config).record if new else None
    published = [key.kid for known in record.keysets.values() for key in known.published] if record else []
    return Ahead(sets, tuple(dict.fromkeys(published)))


def _known(config: Config) -> tuple[set[KeysetName], bool]:
    """Return the keysets that the database knows, and whether it has yet to begin."""
    if lost_database(config.settings) is not None:
        return set(), True
    try:
        with open_readonly(config) as store, store.read() as snapshot:
            names = {row.name for row in snapshot.keysets()}
    except StoreEmptyError:
        return set(), True
    return names, not names


def show_ahead(ahead: Ahead, *, rehearsed: bool) -> None:
    """Show what is moved aside, and what that ends."""
    if rehearsed:
        say("REHEARSAL: nothing is changed")
    for name, kids in ahead.sets:
        say(f"keyset {name}: {counted(len(kids), 'key')} to be moved aside: {', '.join(kids)}")
    if ahead.lost:
        say(f"{counted(len(ahead.lost), 'key')} of a lost database, of which the witness knows: no longer kept")
    if ahead.ends_anything:
        say(
            "every token on these keys is refused as soon as a verifier fetches the new set. To keep them until their "
            "tokens end: rotator published adopt --keep-for PERIOD"
        )
    else:
        say("nothing is to be replaced: no set is published that the database does not know")


def confirm(ahead: Ahead, *, yes: bool) -> None:
    """Have it confirmed, unless ``yes`` or nothing is ended by it.

    Raises :class:`ConfigError` where nobody can be asked.
    """
    if yes or not ahead.ends_anything:
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("nothing is changed: there is no terminal to ask on; add --yes if it is meant")
    typer.confirm("Replace them?", abort=True, err=True)
