"""How rows are bound to this installation: what seals them, and what is believed of those that are read."""

from dataclasses import replace
from typing import Final

from rotator.core.instants import to_us
from rotator.core.integrity import TOKEN, token_identity
from rotator.core.model import SigningKey, Token
from rotator.core.secret import Secret
from rotator.engine.run import Run
from rotator.errors import SealError
from rotator.ports import KeyMaterial, KeyRow, Sealer, Signer

PURPOSE_KEY: Final = "signing-key"
PURPOSE_TOKEN: Final = TOKEN


def new_row(sealer: Sealer, key: SigningKey, material: KeyMaterial | None) -> KeyRow:
    """Return the row of a key that is stored for the first time; without ``material`` it has a public half only."""
    return sealed_row(sealer, key, None if material is None else material.private)


def sealed_row(sealer: Sealer, key: SigningKey, private: Secret[bytes] | None) -> KeyRow:
    """Return the row of a key as it is now, its private half (PKCS #8) sealed anew."""
    sealed = None
    if private is not None:
        sealed = sealer.seal(PURPOSE_KEY, key.kid, key.kid, key.algorithm, private.reveal())
    return KeyRow(key, sealed, sealer.kek_id)


def examine(run: Run, row: KeyRow) -> tuple[SigningKey, Signer | None]:
    """Return the key of ``row`` with what was observed of it, and its signer if it has one that opens.

    Without the KEK no row can be believed.
    """
    sealer = run.sealer
    if sealer is None or not row.key.authentic:
        return replace(row.key, authentic=False), None
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


def identity_of(token: Token) -> str:
    """Return what a token's seal and the MAC of its row are bound to."""
    return token_identity(
        token.jti,
        token.workspace,
        token.keyset,
        token.kid,
        token.sequence,
        to_us(token.issued_at),
        to_us(token.expires_at),
        to_us(token.rotate_at),
    )
