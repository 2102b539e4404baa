"""How key rows are bound to this installation: what their MAC covers, and how their private halves are sealed."""

import json
from dataclasses import replace

from rotator.core.model import SigningKey
from rotator.core.secret import Secret
from rotator.engine.run import Run
from rotator.errors import SealError
from rotator.ports import KeyMaterial, KeyRow, Sealer, Signer

PURPOSE_KEY = "signing-key"
PURPOSE_TOKEN = "token"  # noqa: S105 - the name of a purpose, no secret


def mac_content(key: SigningKey) -> bytes:
    """Return what never changes in a key's row, unambiguously encoded."""
    return json.dumps(
        [key.kid, key.keyset, key.sequence, key.algorithm, key.origin, key.public_jwk], separators=(",", ":")
    ).encode()


def new_row(sealer: Sealer, key: SigningKey, material: KeyMaterial | None) -> KeyRow:
    """Return the row of a key that is stored for the first time; without ``material`` it has a public half only."""
    return sealed_row(sealer, key, None if material is None else material.private)


def sealed_row(sealer: Sealer, key: SigningKey, private: Secret[bytes] | None) -> KeyRow:
    """Return the row of a key as it is now, its private half (PKCS #8) sealed anew."""
    sealed = None
    if private is not None:
        sealed = sealer.seal(PURPOSE_KEY, key.kid, key.kid, key.algorithm, private.reveal())
    return KeyRow(key, sealed, sealer.kek_id, sealer.mac(PURPOSE_KEY, mac_content(key)))


def examine(run: Run, row: KeyRow) -> tuple[SigningKey, Signer | None]:
    """Return the key of ``row`` with what was observed of it, and its signer if it has one that opens.

    Without the KEK no row can be believed.
    """
    sealer = run.sealer
    if sealer is None:
        return replace(row.key, authentic=False), None
    content = mac_content(row.key)
    if (content, row.mac) not in run.authentic:
        if not sealer.verify_mac(PURPOSE_KEY, content, row.mac, row.kek_id):
            return replace(row.key, authentic=False), None
        run.authentic.add((content, row.mac))
    if row.sealed is None:
        return row.key, None
    signer = run.signers.get((row.key.kid, row.sealed))
    if signer is None:
        try:
            private = sealer.open(PURPOSE_KEY, row.key.kid, row.key.kid, row.key.algorithm, row.kek_id, row.sealed)
            signer = run.around.tokenmaker.load(row.key.kid, row.key.algorithm, private)
        except SealError:
            return replace(row.key, opens=False), None
        run.signers[row.key.kid, row.sealed] = signer
    return row.key, signer
