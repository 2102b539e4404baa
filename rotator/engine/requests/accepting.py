"""Accepts what a person asks for: bound to its object, authenticated, and stored before it is answered."""

import secrets
from contextlib import suppress
from dataclasses import replace
from typing import Final

from rotator.engine.request_rows import authenticated
from rotator.engine.requests.binding import bind
from rotator.engine.requests.sealed import with_secret
from rotator.engine.requests.urgent import REVOCATIONS
from rotator.engine.run import Run
from rotator.errors import KekError, RefusedError, StoreError
from rotator.ports import Reading, RequestRow, Sealer, Snapshot

NONCE_BYTES: Final = 16


def accept(run: Run, draft: RequestRow, reading: Reading, secret: bytes | None = None) -> RequestRow:
    """Store ``draft`` as a request that is accepted at ``reading``; return it as stored.

    Its answer is awaited from here on: whoever called has to leave ``run.answers``. May be called beside
    the loop. Raises :class:`RefusedError` for what is not accepted now, with the reason and what to do.

    A revocation is accepted in any case: where it cannot be stored, the loop has it in memory, and the journal next.
    """
    request = replace(draft, created_at=reading.now, nonce=secrets.token_urlsafe(NONCE_BYTES))
    run.answers.expect(request.nonce)
    try:
        if request.kind not in REVOCATIONS:
            return _store(run, request, reading, secret)
        with suppress(StoreError, KekError, RefusedError):  # the KEK or the database is away, and the loop says so
            request = _store(run, request, reading, None)
        run.urgent.put(request)
    except BaseException:
        run.answers.leave(request.nonce)
        raise
    return request


def _store(run: Run, request: RequestRow, reading: Reading, secret: bytes | None) -> RequestRow:
    with run.around.store.read() as snapshot:
        sealer = sealer_for(run, snapshot, request)
        installation = snapshot.installation()
        if secret is not None:
            request = with_secret(sealer, request, secret)
        request = replace(request, bound=bind(run, snapshot, request, reading))
    request = authenticated(sealer, installation, request)
    with run.around.store.begin() as transaction:
        return replace(request, id=transaction.add_request(request))


def sealer_for(run: Run, snapshot: Snapshot, draft: RequestRow) -> Sealer:
    """Return what authenticates ``draft``; raise :class:`RefusedError` while requests of its kind are not accepted.

    Without the KEK none is: what is stored then could be anybody's.
    """
    if run.sealer is not None:
        return run.sealer
    try:
        return run.around.keyring.unlock(snapshot.keks())
    except KekError as error:
        raise RefusedError(
            f"{draft.kind} is not accepted while the key-encryption key is away, and nothing was stored: {error}. Put "
            "it back (rotator check says where it is looked for), then ask again"
        ) from None
