"""Reads JSON of which nothing is known: what two parsers could take for two things, none of ours takes at all."""

import json
import math
from typing import Final, NoReturn

DEEPEST: Final = 16
"""Levels of arrays and objects; nothing that is read here has more than a few."""


def parse(text: str) -> object:
    """Return the value of ``text``; raise :class:`ValueError` with what is wrong with it.

    Refused beside what is not JSON (RFC 8259): a member name that is there twice, ``NaN`` and ``Infinity``, numbers
    beyond the range of a double, half a surrogate pair, and what is nested too deeply.
    """
    if _deepest(text) > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    try:
        value: object = json.loads(
            text, object_pairs_hook=_unique_members, parse_constant=_no_number, parse_float=_finite, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} at character {error.pos + 1}") from None
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it has half a surrogate pair, which is no character") from None
    return value


def _deepest(text: str) -> int:
    """Return how deep brackets are nested; the parser itself would find out only by running out of stack."""
    depth = deepest = 0
    quoted = escaped = False
    for char in text:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = quoted
        elif char == '"':
            quoted = not quoted
        elif not quoted:
            depth += (char in "[{") - (char in "]}")
            deepest = max(deepest, depth)
    return deepest


def _unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse a member name that is there twice: parsers differ in which one they take (RFC 7515 §4, RFC 7517 §4)."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number is beyond the range of a double")
    return value


def _integer(digits: str) -> int:
    if len(digits) > 309:  # what a double can be
        raise ValueError("a number is beyond the range of a double")
    return int(digits)
