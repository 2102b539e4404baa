"""Requests that come with a secret: it is in the row sealed, bound to all that the row says, until it is finished."""

import base64
import json
from dataclasses import replace
from typing import Final

from rotator.core.model import KekId
from rotator.core.secret import Secret
from rotator.engine.run import Run
from rotator.errors import RefusedError
from rotator.ports import SEALED, RequestRow, Sealer

PURPOSE: Final = "request"


def with_secret(sealer: Sealer, draft: RequestRow, secret: bytes) -> RequestRow:
    """Return ``draft``, whose nonce is drawn and whose id is not, with ``secret`` as its sealed argument."""
    sealed = sealer.seal(PURPOSE, _bound_to(draft), "", "", secret)
    text = f"{sealer.kek_id} {base64.b64encode(sealed).decode()}"
    return replace(draft, arguments={**draft.arguments, SEALED: text})


def secret_of(run: Run, request: RequestRow) -> Secret[bytes]:
    """Open the sealed argument; raise :class:`RefusedError` without one, :class:`SealError` if it is not this row's."""
    kek_id, _, text = str(request.arguments.get(SEALED, "")).partition(" ")
    if not text:
        raise RefusedError("the request came without the key that it is about; ask again")
    try:
        sealed = base64.b64decode(text, validate=True)
    except ValueError:
        raise RefusedError("what the request holds sealed is damaged; ask again") from None
    return run.ready_sealer.open(PURPOSE, _bound_to(request), "", "", KekId(kek_id), sealed)


def _bound_to(request: RequestRow) -> str:
    arguments = {name: value for name, value in sorted(request.arguments.items()) if name != SEALED}
    asked_at = request.created_at.isoformat()
    said = [request.nonce, request.kind, arguments, request.actor, request.uid, request.reason, asked_at]
    return json.dumps(said, separators=(",", ":"))
