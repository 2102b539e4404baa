"""Keeps secrets out of what people and log stores read: the last line of defence behind :class:`Secret`.

It knows secrets by their shape, wherever they stand: signed and encrypted tokens, private keys in PEM, private members
of a JWK, passwords in URLs. A KEK has no shape of its own; it is only ever held in a ``Secret``.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from rotator.core.secret import MASK, Secret

Plain = str | int | float | bool | None | list["Plain"] | dict[str, "Plain"]
"""What JSON can say."""

DEPTH_LIMIT: Final = 6
ITEM_LIMIT: Final = 500
"""How many values one log line holds, in all its nesting."""
TEXT_LIMIT: Final = 16_384
"""How many characters of one text are kept."""

_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})
"""RFC 7518 §6.2.2, §6.3.2, §6.4; RFC 9964 §4."""

_SECRET_NAMES: Final = frozenset({"authorization", "password", "private_key", "secret", "token"})

_JOSE_START: Final = ("eyJ", "eyA", "ewo", "ewk", "ew0")
"""How base64url of a JSON object begins: ``{"``, or ``{`` and a blank, a line feed, a tab or a carriage return."""

_SUSPICIOUS: Final = re.compile(rf"{'|'.join(_JOSE_START)}|PRIVATE KEY|://|b['\"]|['\"](?:d[pq]?|p|qi?|k|priv)\\*['\"]")
_JOSE_RUN: Final = re.compile(r"[A-Za-z0-9_.=-]{16,}")
_PEM: Final = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY.*?(?:-----END [A-Z0-9 ]*-----|\Z)", re.DOTALL)
_JWK_MEMBER: Final = re.compile(
    r"""(?P<name>(?P<quote>\\*['"])(?:d[pq]?|p|qi?|k|priv)(?P=quote)\s*:\s*)(?P=quote)[A-Za-z0-9_=-]+(?P=quote)"""
)
_URL_PASSWORD: Final = re.compile(r"(?P<start>://[^\s/:@]*:)[^\s/]+@")
_BYTES: Final = re.compile(r"""(?<!\w)b(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", re.DOTALL)
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]{16,}={0,2}")


def redact_text(text: str) -> str:
    """Return ``text`` with everything masked that looks like a secret, and its end cut off if it is very long."""
    if _SUSPICIOUS.search(text):
        text = _PEM.sub(MASK, text)
        text = _JWK_MEMBER.sub(rf"\g<name>\g<quote>{MASK}\g<quote>", text)
        text = _JOSE_RUN.sub(_mask_jose, text)
        text = _URL_PASSWORD.sub(rf"\g<start>{MASK}@", text)
        text = _BYTES.sub("[bytes]", text)
    return text if len(text) <= TEXT_LIMIT else f"{text[:TEXT_LIMIT]}… [{len(text) - TEXT_LIMIT} characters cut]"


def _mask_jose(run: re.Match[str]) -> str:
    """Mask from where a JWS or JWE in compact form begins (RFC 7515 §7.1: two dots, RFC 7516 §7.1: four)."""
    text = run[0]
    start = min((at for at in map(text.find, _JOSE_START) if at >= 0), default=None)
    return text if start is None or text.count(".", start) < 2 else text[:start] + MASK


def redact(value: object) -> Plain:
    """Return ``value`` as plain JSON values with its secrets masked, cut to a size that a log line can have.

    Bytes become their length. Mappings, sequences, sets and dataclasses are walked to a bounded depth.
    """
    return _Walk().visit(value, DEPTH_LIMIT)


class _Walk:
    """One redaction; counts what it has seen."""

    def __init__(self) -> None:
        self._left = ITEM_LIMIT

    def visit(self, value: object, depth: int) -> Plain:
        match value:
            case Secret():
                return MASK
            case Enum():
                return self.visit(value.value, depth)
            case str():
                return redact_text(value)
            case None | bool() | int() | float():
                return value
            case bytes() | bytearray() | memoryview():
                return f"[{len(value)} bytes]"
            case datetime():
                return value.isoformat()
            case timedelta():
                return value.total_seconds()
            case BaseException():
                return redact_text(f"{type(value).__name__}: {value}")
        return self._visit_composite(value, depth)

    def _visit_composite(self, value: object, depth: int) -> Plain:
        if depth == 0:
            return "[too deep]"
        match value:
            case Mapping():
                return self._visit_members(((str(name), member) for name, member in value.items()), depth)
            case list() | tuple():
                return self._visit_items(value, depth)
            case set() | frozenset():
                return self._visit_items(sorted(value, key=str), depth)
        if is_dataclass(value) and not isinstance(value, type):
            return self._visit_members(((field.name, getattr(value, field.name)) for field in fields(value)), depth)
        return redact_text(str(value))

    def _visit_members(self, members: Iterable[tuple[str, object]], depth: int) -> Plain:
        plain: dict[str, Plain] = {}
        for name, member in members:
            if self._left <= 0:
                plain["…"] = "[cut]"
                break
            self._left -= 1
            shown = name if name.isidentifier() else redact_text(name)
            plain[shown] = MASK if _is_secret_member(name, member) else self.visit(member, depth - 1)
        return plain

    def _visit_items(self, items: Iterable[object], depth: int) -> Plain:
        plain: list[Plain] = []
        for item in items:
            if self._left <= 0:
                plain.append("… [cut]")
                break
            self._left -= 1
            plain.append(self.visit(item, depth - 1))
        return plain


def _is_secret_member(name: str, value: object) -> bool:
    """Tell whether a member is secret by its name."""
    if name.lower() in _SECRET_NAMES:
        return isinstance(value, str | bytes | bytearray)
    if name not in _PRIVATE_MEMBERS:
        return False
    return name == "oth" or (isinstance(value, str) and _BASE64URL.fullmatch(value) is not None)
