"""Rotates a keyset's key at an operator's word: stored as a wish, which the planner fulfils as soon as that is safe."""

from dataclasses import replace
from typing import Final

from rotator.core.contract import SAFE_KEYS, keys_at_most
from rotator.core.counting import counted
from rotator.core.events import Event, EventName
from rotator.core.model import KeysetName, Phase, Wish
from rotator.core.planner import leaves_at
from rotator.engine.requests.binding import require_signing, signing_key
from rotator.engine.requests.outcome import done
from rotator.engine.run import Run
from rotator.errors import RefusedError
from rotator.ports import KeysetRow, Reading, RequestRow, Transaction

KEYS_BESIDE_PRIOR: Final = 3
"""What a set holds beside prior keys while it rotates: the key that signs, and two that come."""


def rotate_keyset(run: Run, request: RequestRow, reading: Reading) -> None:
    """Let the standby take over as soon as every verifier can know it and the key after it."""
    _ask(run, request, reading, emergency=False)


def rotate_at_once(run: Run, request: RequestRow, reading: Reading) -> None:
    """Let the standby take over now. The request names the key that signs, so that none is rotated away unseen."""
    _ask(run, request, reading, emergency=True)


def _ask(run: Run, request: RequestRow, reading: Reading, *, emergency: bool) -> None:
    name = KeysetName(str(request.arguments.get("keyset", "")))
    with run.around.store.begin() as transaction:
        row = transaction.lock_keyset(name)
        signing = signing_key(transaction, name)
        _refuse_if_in_vain(run, row, name, reading, transaction)
        if emergency:
            require_signing(signing, str(request.arguments.get("signing", "")))
        elif signing is None:
            raise RefusedError(
                f"no key signs on keyset {name}, so that there is none to rotate; `rotator status` says when one will"
            )
        require_signing(signing, str(request.bound.get("signing")))
        _refuse_if_under_way(transaction.wish(name), name, emergency=emergency)
        if row is not None and not emergency:
            _refuse_if_full(run, transaction, row, reading)
        wish = Wish(asked_at=reading.now, actor=request.actor, reason=request.reason, emergency=emergency)
        transaction.put_wish(name, wish)
        if row is not None:
            transaction.put_keyset(replace(row, due_at=reading.now, retry_at=None))
        event = Event(
            name=EventName.KEYSET_ROTATION_REQUESTED,
            at=reading.now,
            keyset=name,
            kid=signing,
            actor=request.actor,
            reason=request.reason,
            details={"emergency": "yes" if emergency else "no"},
        )
        done(run, transaction, request, event, f"keyset {name} is to rotate")


def _refuse_if_in_vain(
    run: Run, row: KeysetRow | None, name: KeysetName, reading: Reading, transaction: Transaction
) -> None:
    if row is None or row.ended_at is not None:
        raise RefusedError(f"there is no keyset {name!r}; `rotator status` names them")
    if name not in run.policy.keysets and not transaction.keyset_in_use(name, reading.now):
        raise RefusedError(f"keyset {name} has left the config and nothing uses it: it gets no more keys")


def _refuse_if_full(run: Run, transaction: Transaction, row: KeysetRow, reading: Reading) -> None:
    """Refuse a rotation for which no key need be compromised, where the set would get larger than verifiers take."""
    policy = run.keyset_policy(row)
    at_most = max(keys_at_most(policy), SAFE_KEYS)
    keys = [stored.key for stored in transaction.keys(row.name)]
    prior = [key for key in keys if key.phase is Phase.GRACE]
    room = at_most - KEYS_BESIDE_PRIOR
    if len(prior) <= room:
        return
    leave = sorted(max(leaves_at(key, policy) or reading.now, reading.now) for key in prior)
    raise RefusedError(
        f"keyset {row.name} still publishes {counted(len(prior), 'prior key')}, and to rotate now would make it a set "
        f"of {len(prior) + KEYS_BESIDE_PRIOR} keys, more than the {at_most} that every verifier takes; it can rotate "
        f"after {leave[len(prior) - room - 1]:%Y-%m-%d %H:%M:%S} UTC. If its key leaked, do not wait: rotator rotate "
        "--emergency, or rotator revoke key"
    )


def _refuse_if_under_way(wish: Wish | None, name: KeysetName, *, emergency: bool) -> None:
    if wish is not None and (wish.emergency or not emergency):
        raise RefusedError(
            f"a rotation of keyset {name} is under way: {wish.actor} asked for it at "
            f"{wish.asked_at:%Y-%m-%d %H:%M:%S} UTC; nothing was changed"
        )
