"""Carries out what people ask for: stored as rows before they were answered, handled by the one loop.

A module per family of requests; :mod:`rotator.engine.requests.outcome` says how each of them ends.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final

from rotator.engine.journal import written_down
from rotator.engine.request_rows import is_authentic, require_recent
from rotator.engine.requests.acceptance import accept_clock, accept_config
from rotator.engine.requests.importing import import_keys
from rotator.engine.requests.oddities import NOT_OURS, REPLAYED, put_aside
from rotator.engine.requests.outcome import Handler, answer, refuse
from rotator.engine.requests.replacement import replace_token
from rotator.engine.requests.revocation import revoke_key, revoke_keyset, revoke_token, revoke_workspace
from rotator.engine.requests.rotation import rotate_at_once, rotate_keyset
from rotator.engine.requests.showing import show_token
from rotator.engine.requests.urgent import REVOCATIONS
from rotator.engine.run import Run
from rotator.engine.timekeeping import trusted_time
from rotator.engine.witnessing import write_remembered
from rotator.errors import KekError, RefusedError, RotatorError, StoreError, WitnessError
from rotator.ports import Reading, RequestRow

BEFORE_THE_CLOCK: Final = REVOCATIONS | {"clock.accept"}
"""What works while the clock is held."""

BEFORE_THE_SETS: Final = REVOCATIONS | {"key.import"}
"""What a start does before it publishes: a set with what was revoked, or without what is to join it, is never seen."""

HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        "clock.accept": accept_clock,
        "config.accept": accept_config,
        "key.import": import_keys,
        "key.revoke": revoke_key,
        "keyset.rotate": rotate_keyset,
        "keyset.rotate_at_once": rotate_at_once,
        "keyset.revoke": revoke_keyset,
        "token.replace": replace_token,
        "token.revoke": revoke_token,
        "token.show": show_token,
        "workspace.revoke": revoke_workspace,
    }
)


def handle_requests(run: Run, reading: Reading, *, clock_held: bool, kinds: Collection[str] = HANDLERS.keys()) -> bool:
    """Handle every open request of ``kinds`` that can be handled now; tell whether there was one."""
    with run.around.store.read() as snapshot:
        waiting = snapshot.open_requests()
        installation = snapshot.installation()
    if not waiting:
        return False
    sealer = run.ready_sealer
    odd = [(row.id, row.kind, NOT_OURS) for row in waiting if not is_authentic(sealer, installation, row)]
    foreign = {number for number, _, _ in odd}
    handled = False
    for request in sorted(waiting, key=lambda each: each.kind not in REVOCATIONS):
        known = request.kind in HANDLERS
        if request.id in foreign:
            continue
        if request.nonce in run.answered:
            odd.append((request.id, request.kind, REPLAYED))
            continue
        if (clock_held and request.kind not in BEFORE_THE_CLOCK) or (known and request.kind not in kinds):
            continue
        handled = True
        _carry_out(run, request, reading)
    if odd:
        put_aside(run, odd, reading)
    if handled or odd:
        _remember(run)
    return handled or bool(odd)


def _carry_out(run: Run, request: RequestRow, reading: Reading) -> None:
    try:
        _handle(run, request, reading)
    except StoreError:
        raise
    except RotatorError as error:
        refuse(run, request, reading, str(error))
    except Exception as error:  # noqa: BLE001 - the edge of a unit of work: a request that fails is answered once
        refuse(run, request, reading, f"internal error: {type(error).__name__}: {error}")
    else:
        if request.nonce in run.outcomes:  # else it goes on in the next tick
            answer(run, request, run.outcomes.pop(request.nonce))
    finally:
        run.outcomes.pop(request.nonce, None)


def _handle(run: Run, request: RequestRow, reading: Reading) -> None:
    handler = HANDLERS.get(request.kind)
    if handler is None:
        raise RefusedError(f"this version knows no request {request.kind!r}")
    begun = run.accepting is not None and run.accepting.nonce == request.nonce
    if not begun and written_down(run, request.nonce) is None:  # what was begun is carried to its end
        require_recent(request, trusted_time(run, reading))
    handler(run, request, reading)


def _remember(run: Run) -> None:
    """Make durable which requests were answered, so that no old row of one is carried out again."""
    try:
        write_remembered(run)
    except (KekError, WitnessError) as error:
        run.fault("witness", str(error), "witness.refused")
