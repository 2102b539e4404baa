"""A verifier such as services have: it keeps a copy of the published set, and checks tokens against that alone.

It has the habit that forgives least: a copy is kept as long as the config allows, and is not fetched anew for a kid
that it does not know. A key that signed too early, or left too early, would be a refusal here.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from rotator.adapters.clock import monotonic_microseconds, wall_time
from rotator.demo.world import World

CHECK_INTERVAL: Final = timedelta(milliseconds=100)
REASONS_KEPT: Final = 5


@dataclass(slots=True)
class Verifier:
    """Checks the token of each workspace, over and over."""

    published_set: Path
    token_files: Mapping[str, Path]
    issuer: str
    max_cache: timedelta
    checks: int = 0
    refusals: int = 0
    reasons: list[str] = field(default_factory=list)
    """Why, for the first refusals."""
    _keys: Mapping[str, ECKey] = field(default_factory=dict)
    _fetched_us: int | None = None

    @classmethod
    def of(cls, world: World, max_cache: timedelta) -> "Verifier":
        """Return a verifier of the tokens of ``world``."""
        issuer = next(iter(world.config.policy.keysets.values())).issuer
        return cls(world.published_set, world.token_files, issuer, max_cache)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Check in a thread of its own until the end of the block."""
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(CHECK_INTERVAL.total_seconds()):
                self.check_all()

        thread = threading.Thread(target=watch, name="verifier", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def check_all(self) -> None:
        """Check what each workspace holds now."""
        for workspace, path in self.token_files.items():
            self.checks += 1
            try:
                self._check(path.read_text(encoding="ascii").strip())
            except (JoseError, LookupError, OSError, ValueError) as error:
                self.refusals += 1
                if len(self.reasons) < REASONS_KEPT:
                    self.reasons.append(f"{workspace}: {type(error).__name__}: {error}")

    def _check(self, token: str) -> None:
        keys = self._copy_of_set()
        kid = jws.extract_compact(token.encode()).headers().get("kid")
        key = keys.get(str(kid))
        if key is None:
            raise LookupError(f"no key {kid!r} in the copy of the set")
        claims = jwt.decode(token, key, algorithms=["ES256"]).claims
        registry = jwt.JWTClaimsRegistry(
            now=int(wall_time().timestamp()),
            iss={"essential": True, "value": self.issuer},
            aud={"essential": True, "value": "api"},
            exp={"essential": True},
        )
        registry.validate(claims)

    def _copy_of_set(self) -> Mapping[str, ECKey]:
        now_us = monotonic_microseconds()
        if self._fetched_us is None or timedelta(microseconds=now_us - self._fetched_us) > self.max_cache:
            document = json.loads(self.published_set.read_bytes())
            self._keys = {jwk["kid"]: ECKey.import_key(jwk) for jwk in document["keys"]}
            self._fetched_us = now_us
        return self._keys
