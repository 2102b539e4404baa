"""Verifiers that check every token that is still valid, all the time, and an account of what each of them did."""

import hashlib
import json
import threading
import time
from base64 import urlsafe_b64decode
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import OK
from typing import Any, Final

from tests.interop.site import ServedSite, get
from tests.interop.verifiers import Verifier

SWEEP_SECONDS: Final = 0.5
"""The pause between two sweeps of one verifier over all tokens."""


@dataclass(frozen=True)
class Token:
    """One token that was delivered."""

    keyset: str
    kid: str
    text: str
    ends_at: float


@dataclass
class Account:
    """What one verifier did."""

    accepted: int = 0
    refused: list[str] = field(default_factory=list)
    """Refusals of tokens that were valid before the check and after it."""
    kids: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """How many tokens it accepted, by key."""
    turned: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """How many unexpired tokens on revoked keys it refused, by key."""
    accepted_last: dict[str, float] = field(default_factory=dict)
    """When the last check began, in Unix time, that found a token on the key good, by key."""


class Watch:
    """Reads what is delivered, and lets each verifier check it in a thread of its own."""

    def __init__(self, site: ServedSite, verifiers: Sequence[Verifier]) -> None:
        self._site = site
        self._verifiers = verifiers
        self._tokens: dict[str, Token] = {}
        self._revoked: set[str] = set()
        self._failures: list[BaseException] = []
        self._all_read = threading.Event()
        self._last_sweep = threading.Event()
        self.served: Final[defaultdict[str, set[tuple[str, str]]]] = defaultdict(set)
        """ETag and digest of each set that the web server handed out, by keyset."""
        self.accounts: Final = {verifier.name: Account() for verifier in verifiers}

    def revoked(self, kid: str) -> None:
        """From now on, whether a token on this key is refused is the verifier's affair."""
        self._revoked.add(kid)

    def signed(self) -> dict[str, str]:
        """Return the keyset of every key on which a token was delivered, by kid."""
        return {token.kid: token.keyset for token in self._tokens.values()}

    def accepted_by_all(self, kid: str) -> bool:
        """Tell whether every verifier has accepted a token on a key."""
        return all(kid in account.kids for account in self.accounts.values())

    def failed(self) -> bool:
        """Tell whether there is no use in going on."""
        return bool(self._failures)

    @contextmanager
    def watching(self) -> Iterator["Watch"]:
        """Check until the end of the block, and then once more what is still valid."""
        readers = [
            threading.Thread(target=self._guarded, args=(each,)) for each in (self._read_tokens, self._read_sets)
        ]
        checkers = [threading.Thread(target=self._guarded, args=(self._check, each)) for each in self._verifiers]
        for thread in (*readers, *checkers):
            thread.start()
        try:
            yield self
        finally:
            self._all_read.set()
            for thread in readers:
                thread.join()
            self._last_sweep.set()
            for thread in checkers:
                thread.join()
        assert not self._failures, self._failures

    def _guarded(self, work: Any, *arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as error:  # noqa: BLE001 - carried to the test
            self._failures.append(error)

    def _read_tokens(self) -> None:
        last = False
        while not last:
            last = self._all_read.wait(0.1)
            for path in self._site.token_files():
                text = path.read_text().strip()
                if text not in self._tokens:
                    keyset = path.parent.name.rpartition("-")[0]
                    self._tokens[text] = Token(keyset, part_of(text, 0)["kid"], text, part_of(text, 1)["exp"])

    def _read_sets(self) -> None:
        while not self._all_read.wait(0.1):
            for keyset in self._site.keysets():
                answer = get(keyset.jwks_url)
                if answer.status == OK:
                    self.served[keyset.name].add((answer.etag, hashlib.sha256(answer.body).hexdigest()))

    def _check(self, verifier: Verifier) -> None:
        last = False
        while not last:
            last = self._last_sweep.wait(SWEEP_SECONDS)
            for token in list(self._tokens.values()):
                self._check_one(verifier, token)

    def _check_one(self, verifier: Verifier, token: Token) -> None:
        began_at = time.time()
        if began_at >= token.ends_at:
            return
        account = self.accounts[verifier.name]
        if refusal := verifier.refusal(token.keyset, token.text):
            if time.time() >= token.ends_at:
                return
            if token.kid in self._revoked:
                account.turned[token.kid] += 1
            else:
                account.refused.append(f"{token.keyset}, kid {token.kid}: {refusal}")
            return
        account.accepted += 1
        account.kids[token.kid] += 1
        account.accepted_last[token.kid] = began_at


def part_of(token: str, number: int) -> dict[str, Any]:
    """Decode one part of a token, unverified."""
    part = token.split(".")[number]
    found: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found
