"""A token in a file: desired state, which can be compared at any time and put back when it is gone.

The formats, each ended by a newline:

- ``raw``: the token alone. Most programs strip the newline, and editors and ``cat`` expect it.
- ``json``: an object with ``token workspace jti kid issued_at expires_at sequence``; times as RFC 3339 in UTC.
- ``env``: ``TOKEN=… TOKEN_EXPIRES_AT=… TOKEN_JTI=…``, one a line, for a shell or systemd's ``EnvironmentFile=``.

The owner stays the service's user (no chown: it is forbidden in the unit); other readers come in by the directory's
group or a default ACL. Readers that keep the file open, or a container that mounts the file instead of its directory,
go on seeing the old token, for a new one is a new file.
"""

import json
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from rotator.adapters.disk import Disk
from rotator.adapters.failure_domains import FailureDomains
from rotator.adapters.sink_helper import COMPARE, REMOVE, WRITE, Files, Item, KeptError, Request
from rotator.adapters.sinks.helpers import Helpers
from rotator.core.model import FailureDomain
from rotator.core.policy import FileSink
from rotator.errors import DeliveryError
from rotator.ports import Bring, Ending, Leftover, Parcel


class FileWork(Protocol):
    """Whoever touches the files."""

    def do(self, domain: FailureDomain, beneath: FailureDomain, request: Request, bring: Bring) -> None:
        """Do what is asked for with each item, and bring what came of it. What was never begun is not brought."""
        ...

    def cancel(self) -> None:
        """Begin nothing more, and return soon: the daemon stops."""
        ...


class InThisProcess:
    """Touches the files here, on a disk of the caller's: what hangs there hangs here."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def do(self, domain: FailureDomain, beneath: FailureDomain, request: Request, bring: Bring) -> None:  # noqa: ARG002 - all are ours
        """Do one after the other."""
        with Files(request, self._disk) as files:
            for number in range(len(request.items)):
                try:
                    bring(number, Ending(files.do(number)))
                except KeptError as error:
                    bring(number, Ending(str(error), kept=True))

    def cancel(self) -> None:
        """Nothing here can be ended."""


class FileErrand(NamedTuple):
    """A parcel for a file, and its number among all that are under way."""

    number: int
    sink: FileSink
    parcel: Parcel


class FileSinks:
    """Files as sinks."""

    def __init__(self, forbidden: Sequence[Path], domains: FailureDomains, work: FileWork | None = None) -> None:
        self._forbidden = tuple(str(each) for each in forbidden)
        self._domains = domains
        self._work = work if work is not None else Helpers()

    def do(
        self,
        domain: FailureDomain,
        errands: Sequence[FileErrand],
        bring: Bring,
        *,
        compares: bool,
    ) -> None:
        """Put each token at its sink's path, whole and durable; with ``compares``, look whether it is there just so."""
        if not errands:
            return
        items: list[Item] = []
        numbers: list[int] = []
        for number, sink, parcel in errands:
            try:
                content = render(sink.format, parcel)
            except DeliveryError as error:
                bring(number, Ending(str(error)))
                continue
            items.append(Item(sink.path, sink.mode, content))
            numbers.append(number)
        beneath = self._domains.of(errands[0].sink)
        request = Request(COMPARE if compares else WRITE, self._forbidden, items)
        self._work.do(domain, beneath, request, lambda item, ending: bring(numbers[item], ending))

    def remove(self, domain: FailureDomain, leftovers: Sequence[Leftover], bring: Bring) -> None:
        """Delete each file that holds one of its tokens."""
        if leftovers:
            items = [Item(sink.path, 0, " ".join(tokens)) for sink, tokens in leftovers]
            beneath = self._domains.of(leftovers[0].sink)
            self._work.do(domain, beneath, Request(REMOVE, self._forbidden, items), bring)

    def cancel(self) -> None:
        """Begin nothing more: the daemon stops."""
        self._work.cancel()


def render(file_format: str, parcel: Parcel) -> str:
    """Return the content of the file."""
    token = parcel.token.reveal()
    match file_format:
        case "raw":
            return f"{token}\n"
        case "json":
            record = {
                "token": token,
                "workspace": parcel.workspace,
                "jti": parcel.jti,
                "kid": parcel.kid,
                "issued_at": rfc3339(parcel.issued_at),
                "expires_at": rfc3339(parcel.expires_at),
                "sequence": parcel.sequence,
            }
            return json.dumps(record, indent=2) + "\n"
        case "env":
            values = {
                "TOKEN": token,
                "TOKEN_EXPIRES_AT": rfc3339(parcel.expires_at),
                "TOKEN_JTI": parcel.jti,
            }
            return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
        case _:
            raise DeliveryError(f"the file format {file_format!r} is unknown: use raw, json or env")


def rfc3339(moment: datetime) -> str:
    """Return ``moment`` to the second, in UTC (RFC 3339 §5.6)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
