"""Reads the compact serialisation of a signed token (RFC 7515 §7.1) of which nothing is known, and believes nothing.

What comes out is well-formed and no more: who signed it is for others to find out. A token is refused here for what no
token of anyone's should have: headers that bring a key along or point to one, an algorithm that is none or that makes
a public key a shared secret, extensions, encryption, and every way to write one thing so that two readers see two
(RFC 8725 §2, §3).
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rotator.core.model import Kid
from rotator.core.strict_json import parse

LONGEST_TOKEN: Final = 32 * 1024
"""Characters. More than any server takes in a header."""

LONGEST_NAME: Final = 256
"""Characters of a kid, a jti and other names."""

_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*")

_REFUSED_HEADERS: Final[Mapping[str, str]] = {
    "jku": "it points to a key set of its own (jku); keys come from the state alone",
    "x5u": "it points to a certificate of its own (x5u); keys come from the state alone",
    "jwk": "it brings its own key (jwk); keys come from the state alone",
    "x5c": "it brings its own certificate (x5c); keys come from the state alone",
    "crit": "it demands extensions (crit), and none is known here",
    "b64": "its payload is not encoded (b64, RFC 7797), which no token has",
    "enc": "it is encrypted (enc), not signed",
    "zip": "it is compressed (zip), which no signed token is",
}


class MalformedError(ValueError):
    """It is no signed token in compact form; says why, without a word of what is in it."""


@dataclass(frozen=True, slots=True)
class Compact:
    """A token that is well-formed. Nothing in it is to be believed before its signature is verified."""

    algorithm: str
    kid: Kid
    kind: str | None
    """``typ``."""
    claims: Mapping[str, object]


def read_compact(token: str) -> Compact:
    """Return the parts of ``token``; raise :class:`MalformedError` for whatever is not strictly one."""
    if len(token) > LONGEST_TOKEN:
        raise MalformedError(f"it has more than {LONGEST_TOKEN} characters")
    header_text, payload_text, signature_text = _split(token)
    header = _object("header", header_text)
    for name, problem in _REFUSED_HEADERS.items():
        if name in header:
            raise MalformedError(problem)
    algorithm = _algorithm(header.get("alg"))
    kid = _text("kid", header.get("kid"))
    kind = header.get("typ")
    claims = _object("payload", payload_text)
    if not _decode("signature", signature_text):
        raise MalformedError("it is not signed: the third part is empty")
    return Compact(algorithm, Kid(kid), None if kind is None else _text("typ", kind), claims)


def _split(token: str) -> tuple[str, str, str]:
    if not token:
        raise MalformedError("it is empty")
    if token.startswith("{"):
        raise MalformedError("it is JSON; a token is in the compact form, three parts with dots between")
    parts = token.split(".")
    match parts:
        case [header, payload, signature]:
            return header, payload, signature
        case [_, _, _, _, _]:
            raise MalformedError("it has five parts: it is encrypted (JWE), not signed")
        case _:
            raise MalformedError(f"it has {len(parts)} part{'s' * (len(parts) != 1)}, and a signed token has three")


def _algorithm(value: object) -> str:
    name = _text("alg", value)
    if name.lower() == "none":
        raise MalformedError("it says that it needs no signature (alg none)")
    if name.upper().startswith("HS"):
        raise MalformedError(f"it is signed with a shared secret (alg {name}); a public key is none")
    return name


def _text(member: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise MalformedError(f"its header has no text as {member}")
    if len(value) > LONGEST_NAME or not value.isprintable():
        raise MalformedError(f"its {member} has more than {LONGEST_NAME} characters, or some that cannot be printed")
    return value


def _object(part: str, text: str) -> Mapping[str, object]:
    try:
        value = parse(_decode(part, text).decode())
    except UnicodeDecodeError:
        raise MalformedError(f"its {part} is not UTF-8") from None
    except MalformedError:
        raise
    except ValueError as error:
        raise MalformedError(f"its {part} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise MalformedError(f"its {part} is not a JSON object")
    return value


def _decode(part: str, text: str) -> bytes:
    """Decode base64url as RFC 7515 §2 has it: no padding, nothing outside the alphabet, one text for each content."""
    if "=" in text:
        raise MalformedError(f"its {part} has padding (=), which base64url in a token never has")
    if not _BASE64URL.fullmatch(text):
        raise MalformedError(f"its {part} has characters outside base64url")
    if len(text) % 4 == 1:
        raise MalformedError(f"its {part} is cut short: no base64url has this length")
    content = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if urlsafe_b64encode(content).rstrip(b"=").decode() != text:
        raise MalformedError(
            f"its {part} could be written in another way: its last character has bits that mean nothing"
        )
    return content
