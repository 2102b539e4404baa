"""Keys, tokens and seals without cryptography: fast, the same for the same seed, and as strictly bound as real ones.

A made key's public half names it; its private half is the only text from which a signer can be loaded; a token is text
that names its kid, its jti and its times; a seal opens only for the record that it was made for, under its KEK.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from rotator.core.model import Algorithm, Jti, KekId, Kid, Token, WorkspaceId
from rotator.core.secret import Secret
from rotator.errors import KekError, SealError
from rotator.ports import KekRow, KeyMaterial, MintOrder, Sealed, Sealer, Sealing, Signer

PRIVATE = "PRIVATE-HALF-OF-"
"""What every private half begins with: text that must stand nowhere but in a sealed record."""
TOKEN = "TOKEN-OF-"
"""What every token begins with."""
KEK_ID = KekId("kek-1")
MEMBERS: Mapping[Algorithm, Mapping[str, str]] = {
    Algorithm.ES256: {"kty": "EC", "crv": "P-256", "y": "AA"},
    Algorithm.EDDSA: {"kty": "OKP", "crv": "Ed25519"},
    Algorithm.RS256: {"kty": "RSA", "e": "AQAB"},
}


def digest(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=15).hexdigest()


class MintedToken(NamedTuple):
    """What a verifier reads in a token."""

    jti: Jti
    workspace: WorkspaceId
    kid: Kid
    not_before: int
    expires: int


@dataclass(slots=True)
class Forge:
    """Makes the keys and tokens of a whole world, and remembers them: what is not here was made by somebody else."""

    seed: int
    made: dict[Kid, str] = field(default_factory=dict)
    """Public JWKs by kid."""
    minted: dict[Jti, MintedToken] = field(default_factory=dict)
    """Tokens that some process signed, committed or not."""
    keys_made: int = 0
    tokens_minted: int = 0
    jtis_drawn: int = 0
    used: list[tuple[str, Kid]] = field(default_factory=list)
    """What the forge was used for since it was last looked at: ``make``, ``mint`` or ``probe``."""
    failing: set[WorkspaceId] = field(default_factory=set)
    """Workspaces whose token cannot be made."""

    def material(self, algorithm: Algorithm) -> KeyMaterial:
        """Make the next key pair."""
        self.keys_made += 1
        return forge_key(f"{self.seed}/{self.keys_made}", self.keys_made, algorithm)


def forge_key(name: str, number: int, algorithm: Algorithm) -> KeyMaterial:
    """Make a key pair out of a name."""
    public = digest(name)
    kid = Kid(f"k{number:05}-{public[:8]}")
    members = {**MEMBERS[algorithm], "n" if algorithm is Algorithm.RS256 else "x": public}
    jwk = {**members, "kid": kid, "use": "sig", "alg": str(algorithm)}
    text = json.dumps(jwk, sort_keys=True, separators=(",", ":"))
    return KeyMaterial(kid, algorithm, text, Secret(f"{PRIVATE}{kid}".encode()))


@dataclass(frozen=True, slots=True)
class ForgedSigner:
    """A loaded private half."""

    kid: Kid
    algorithm: Algorithm


@dataclass(frozen=True, slots=True)
class StandInKeyMaker:
    """Makes key pairs."""

    forge: Forge

    def make(self, algorithm: Algorithm) -> KeyMaterial:
        material = self.forge.material(algorithm)
        self.forge.made[material.kid] = material.public_jwk
        self.forge.used.append(("make", material.kid))
        return material


@dataclass(frozen=True, slots=True)
class StandInTokenMaker:
    """Signs tokens and probes."""

    forge: Forge

    def load(self, kid: Kid, algorithm: Algorithm, private: Secret[bytes]) -> Signer:
        if private.reveal() != f"{PRIVATE}{kid}".encode():
            raise SealError(f"the private half of {kid} is not one")
        return ForgedSigner(kid, algorithm)

    def trouble(self) -> str:
        return ""

    def mint_sealed(self, signer: Signer, orders: Sequence[MintOrder], sealing: Sealing) -> list[Sealed]:
        forge, kid = self.forge, signer.kid
        for order in orders:
            if order.workspace.id in forge.failing:
                raise SealError(f"the token of {order.workspace.id} cannot be made")
        for order in orders:
            forge.minted[order.jti] = MintedToken(order.jti, order.workspace.id, kid, order.not_before, order.expires)
        forge.tokens_minted += len(orders)
        forge.used.append(("mint", kid))
        return sealing.seal_many(
            (order.identity, f"{TOKEN}{order.workspace.id}.{kid}.{order.jti}".encode()) for order in orders
        )

    def probe(self, signer: Signer, issuer: str, now: datetime) -> Secret[str]:
        self.forge.used.append(("probe", signer.kid))
        return Secret(f"{TOKEN}{issuer}.{signer.kid}.probe")

    def new_jtis(self, now: datetime, count: int) -> list[Jti]:
        first = self.forge.jtis_drawn
        self.forge.jtis_drawn += count
        return [Jti(f"j{number:09}") for number in range(first, first + count)]

    def require_same(self, text: Secret[bytes], token: Token) -> None:
        if text.reveal().decode() != f"{TOKEN}{token.workspace}.{token.kid}.{token.jti}":
            raise SealError(f"the text of {token.jti} is not that of its row")

    def verify_with(self, token: Secret[str], jwks: bytes) -> None:
        kid = Kid(token.reveal().rsplit(".", 2)[1])
        keys = {key["kid"]: key for key in json.loads(jwks)["keys"]}
        if kid not in keys or json.dumps(keys[kid], sort_keys=True, separators=(",", ":")) != self.forge.made.get(kid):
            raise SealError(f"no key of the set verifies a token on {kid}")


@dataclass(slots=True)
class KekFile:
    """The machine's key-encryption key: there, gone, or another one."""

    secret: bytes | None = b"kek"


@dataclass(frozen=True, slots=True)
class StandInSealer:
    """Binds what it seals to its record and its KEK."""

    kek_id: KekId
    secret: bytes

    def seal(self, purpose: str, record_id: str, kid: str, algorithm: str, secret: bytes) -> bytes:
        return f"{digest(self.secret, purpose, record_id, kid, algorithm, secret)}|".encode() + secret

    def sealing(self, purpose: str, kid: str, algorithm: str) -> Sealing:
        return StandInSealing(self, purpose, kid, algorithm)

    def open(
        self, purpose: str, record_id: str, kid: str, algorithm: str, kek_id: KekId, sealed: bytes
    ) -> Secret[bytes]:
        _, _, secret = sealed.partition(b"|")
        if sealed != self.seal(purpose, record_id, kid, algorithm, secret):
            raise SealError(f"the record {record_id} does not open")
        return Secret(secret)

    def mac(self, purpose: str, content: bytes, kek_id: KekId | None = None) -> bytes:
        return digest(self.secret, purpose, content).encode()

    def verify_mac(self, purpose: str, content: bytes, mac: bytes, kek_id: KekId) -> bool:
        return mac == self.mac(purpose, content)


@dataclass(frozen=True, slots=True)
class StandInSealing:
    """Seals records of one kind."""

    sealer: StandInSealer
    purpose: str
    kid: str
    algorithm: str

    @property
    def kek_id(self) -> KekId:
        return self.sealer.kek_id

    def seal_many(self, records: Iterable[tuple[str, bytes]]) -> list[Sealed]:
        seal, mac = self.sealer.seal, self.sealer.mac
        return [
            Sealed(
                seal(self.purpose, record_id, self.kid, self.algorithm, secret), mac(self.purpose, record_id.encode())
            )
            for record_id, secret in records
        ]


@dataclass(frozen=True, slots=True)
class StandInKeyring:
    """Reads the KEK anew each time."""

    file: KekFile

    def unlock(self, known: Sequence[KekRow]) -> Sealer:
        if self.file.secret is None:
            raise KekError("the key-encryption key is missing")
        for row in known:
            if row.check != self.check_value(row.kek_id):
                raise KekError(f"the key-encryption key {row.kek_id} is another one")
        return StandInSealer(KEK_ID, self.file.secret)

    def check_value(self, kek_id: KekId) -> bytes:
        if self.file.secret is None:
            raise KekError("the key-encryption key is missing")
        return digest(self.file.secret, "check").encode()
