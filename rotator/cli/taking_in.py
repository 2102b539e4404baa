"""Reads the keys that are to be imported, and hands them over: sealed at the other end before anything is stored."""

import stat
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from rotator.adapters.clock import wall_time
from rotator.adapters.disk import describe_reading, read_regular
from rotator.adapters.keyfile import LARGEST_BYTES, FoundKeys, read_jwk, read_pem, to_jwk
from rotator.cli.output import span
from rotator.cli.outside import lost_database
from rotator.cli.session import load_config, request, wait_for
from rotator.core.model import Kid
from rotator.core.secret import Secret
from rotator.errors import ConfigError, RefusedError
from rotator.report.shape import rfc3339
from rotator.told import told
from rotator.wiring import open_readonly


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """Keys that were taken in."""

    keyset: str
    kids: tuple[Kid, ...]
    private: bool
    """It is a signing key; else they are public keys, which never sign."""
    until: datetime | None
    """When the last token of the other system on them ends, as the command said; None: it did not."""
    text: str
    """What to tell a person."""
    notes: tuple[str, ...]
    request: int | None = None
    """The number of a request that is accepted and still under way; None: it was carried out."""


def take_in(
    option: Path | None,
    *,
    jwk: str,
    pem: str,
    kid: str | None,
    keyset: str,
    until: str,
    keep_for: str,
    reason: str,
    offline: bool,
    wait: bool,
) -> Import:
    """Read a file, have what is in it imported, and return what became of it."""
    if bool(jwk) is bool(pem):
        raise ConfigError("say what to import with exactly one of --jwk FILE and --pem FILE; - reads standard input")
    end = _end(until, keep_for)
    path = jwk or pem
    text, note = _read(path)
    origin = "standard input" if path == "-" else path
    found = read_jwk(text, origin, kid) if jwk else read_pem(text, origin, kid)
    private = _check(found, origin, end)
    if offline:
        _require_started(option, keyset)
    arguments = {"keyset": keyset, **({} if end is None else {"until": rfc3339(end)})}
    secret = to_jwk(found.keys)
    said = request(option, "key.import", arguments, reason, offline=offline, secret=secret, wait=wait_for(wait=wait))
    notes = [*found.notes]
    if private and note:
        notes.append(note)
    if private and path != "-":
        notes.append(
            f"the private key is still in {path}: once it is safe elsewhere, or not needed: {told('shred', '-u', path)}"
        )
    return Import(
        keyset=keyset,
        kids=tuple(key.kid for key in found.keys),
        private=private,
        until=end,
        text=said.text,
        notes=tuple(notes),
        request=said.request,
    )


def _end(until: str, keep_for: str) -> datetime | None:
    if until and keep_for:
        raise ConfigError("--until and --keep-for say the same; give one of them")
    if keep_for:
        return wall_time() + span(keep_for, "--keep-for")
    if not until:
        return None
    try:
        end = datetime.fromisoformat(until)
    except ValueError:
        raise ConfigError(f"--until: {until!r} is no moment; expected RFC 3339: 2027-03-01T00:00:00Z") from None
    if end.tzinfo is None:
        raise ConfigError(f"--until: {until!r} has no zone; write {until}Z for UTC")
    return end


def _check(found: FoundKeys, origin: str, end: datetime | None) -> bool:
    """Tell whether it is a private key; raise :class:`ConfigError` where the options do not go with it."""
    private = any(key.private is not None for key in found.keys)
    if not private and end is None:
        raise ConfigError(
            f"{origin} has no private half: public keys are published until the last token on them has ended. Say "
            "when, with --until 2027-03-01T00:00:00Z or --keep-for 30d"
        )
    return private


def _read(path: str) -> tuple[Secret[str], str]:
    """Return the text of a file, and what is to be said of the file itself."""
    note = ""
    try:
        if path == "-":
            content = sys.stdin.buffer.read(LARGEST_BYTES + 1)
        else:
            content, status = read_regular(path, LARGEST_BYTES, follow_symlinks=True)
            if stat.S_IMODE(status.st_mode) & 0o077:
                note = f"others can reach {path} (mode {stat.S_IMODE(status.st_mode):04o}): who may have read it?"
    except OSError as error:
        raise RefusedError(f"{path}: it cannot be read: {describe_reading(error)}") from None
    if len(content) > LARGEST_BYTES:
        raise RefusedError(f"more than {LARGEST_BYTES} bytes came from standard input; that is no key")
    try:
        return Secret(content.decode()), note
    except UnicodeDecodeError:
        raise RefusedError(f"{path}: it is not text; DER becomes PEM with: openssl pkey -inform DER -in FILE") from None


_NOT_STARTED: Final = (
    "keyset {} has never been published from here. Where verifiers hold the set of another issuer already, put that "
    "set in place and adopt it first (rotator published adopt); else start the daemon once: rotator run"
)


def _require_started(option: Path | None, keyset: str) -> None:
    """Refuse to be the first start: it would let a new key sign at once, and verifiers hold another set, it seems."""
    config = load_config(option)
    if keyset not in config.policy.keysets:
        raise RefusedError(f"the config has no keyset {keyset!r}; it has {', '.join(sorted(config.policy.keysets))}")
    if config.settings.state_directory.exists() and lost_database(config.settings) is None:
        with open_readonly(config) as store, store.read() as snapshot:
            if any(row.name == keyset for row in snapshot.keysets()):
                return
    raise RefusedError(_NOT_STARTED.format(keyset))
