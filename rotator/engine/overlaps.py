"""Ends the overlaps that operators set: a replaced token counts as revoked from the moment that they chose on."""

from typing import Final

from rotator.core.actions import Reason
from rotator.core.events import Event, EventName
from rotator.core.model import Overlap, Token
from rotator.core.tokens import plan_overlaps
from rotator.engine.attribution import in_name_of
from rotator.engine.run import Run
from rotator.engine.witnessing import remember_revoked
from rotator.errors import WitnessError
from rotator.ports import Reading

ENDED_AT_ONCE: Final = 500


def end_overlaps(run: Run, reading: Reading) -> bool:
    """Revoke the tokens whose overlap is over, the witness first; tell whether more are waiting."""
    with run.around.store.read() as snapshot:
        ended = snapshot.ended_overlaps(reading.now, ENDED_AT_ONCE)
        found = [(overlap, snapshot.token(overlap.jti)) for overlap in ended]
    if not ended:
        return False
    plan = plan_overlaps([(overlap, None if row is None else row.token) for overlap, row in found], reading.now)
    try:
        remember_revoked(run, jtis={token.jti: token.expires_at for _, token in plan.revoked})
    except WitnessError as error:
        run.fault("witness", str(error), "witness.refused")  # it is written as soon as it can be, as for any revocation
    with run.around.store.begin() as transaction:
        for _, token in plan.revoked:
            transaction.revoke_token(token.jti, reading.now, Reason.OVERLAP_OVER)
        transaction.drop_overlaps([*(token.jti for _, token in plan.revoked), *plan.dropped])
        run.head = transaction.append([_event(overlap, token, reading) for overlap, token in plan.revoked])
    return len(ended) == ENDED_AT_ONCE


def _event(overlap: Overlap, token: Token, reading: Reading) -> Event:
    event = Event(
        name=EventName.TOKEN_REVOKED,
        at=reading.now,
        keyset=token.keyset,
        workspace=token.workspace,
        kid=token.kid,
        jti=token.jti,
        reason=overlap.reason or Reason.OVERLAP_OVER,
    )
    return in_name_of(overlap.actor, "token.replace", event)
