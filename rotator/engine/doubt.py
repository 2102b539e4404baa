"""Finds what somebody else did to the rows of a keyset's keys, and what of it must not reach the published set."""

from dataclasses import dataclass
from typing import Final

from rotator.core.model import Kid
from rotator.engine.observe import Observed
from rotator.engine.run import Run
from rotator.engine.witnessing import witnessed_jwks
from rotator.ports import Snapshot

_KEPT: Final = (
    "it is a published key, and stays so as it was. Nothing else changes but what is revoked. Restore the database from"
    " a backup"
)


CHANGED: Final = "the row of key {kid} was not written by this installation, was changed since, or was turned back"


@dataclass(frozen=True, slots=True)
class Doubt:
    """That what the database says of a published key cannot be believed."""

    problem: str
    """What is wrong, what is done about it, and what a person can do."""
    seen: frozenset[Kid]
    """The keys that some replica's tree held."""


def examine_rows(run: Run, snapshot: Snapshot, observed: Observed) -> Doubt | None:
    """Report each row that is gone, is not authentic or does not open; return the doubt where one was published.

    The witness tells which those are, and, for a replica that is new and has none yet, what was seen in some tree. What
    was revoked is none of them any more.
    """
    name = observed.row.name
    seen = frozenset(sighting.kid for sighting in observed.sightings)
    published = seen | witnessed_jwks(run, name).keys()
    doubts: list[str] = []
    faulty: set[Kid] = set()
    for known in observed.lost:
        doubts.append(f"the row of key {known.kid} is gone, is another keyset's, or was changed; {_KEPT}")
        row = snapshot.key(known.kid)
        if row is None or not row.key.authentic:  # else it is told where it is now
            faulty.add(known.kid)
            problem = "its row is gone" if row is None else CHANGED.format(kid=known.kid)
            run.fault(f"key:{known.kid}", problem, "key.unauthentic", kid=known.kid, keyset=name)
    for key in observed.state.keys:
        if not key.authentic:
            problem = CHANGED.format(kid=key.kid)
            faulty.add(key.kid)
            run.fault(f"key:{key.kid}", problem, "key.unauthentic", kid=key.kid, keyset=name)
            if key.kid in published - run.revoked_kids:
                doubts.append(f"{problem}; {_KEPT}, or revoke the key")
        elif not key.opens:
            problem = "its private half does not open"
            run.fault(f"key:{key.kid}", problem, "key.unusable", kid=key.kid, keyset=name)
    for kid in run.faulty_rows.get(name, frozenset()) - faulty:
        run.healed(f"key:{kid}")
    run.faulty_rows[name] = frozenset(faulty)
    return Doubt(doubts[0], seen) if doubts else None
