"""JSON → plain values, by the standard library's parser; for generated files it is many times faster than YAML."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from rotator.config.places import Fault, KeyPath, Mark, SyntaxFaultError, Token, walk

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]\n]|[^\s{}\[\],:"]+', re.DOTALL)
_MARKS: Final = {"{": Mark.OPEN_MAPPING, "[": Mark.OPEN_SEQUENCE, "}": Mark.CLOSE, "]": Mark.CLOSE}


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of a valid JSON text with their lines."""
    line = 1
    for match in _TOKEN.finditer(text):
        found = match.group()
        if found == "\n":
            line += 1
        elif found in _MARKS:
            yield _MARKS[found], "", line
        else:
            yield Mark.SCALAR, json.loads(found, strict=False) if found[0] == '"' else found, line


def parse(text: str) -> tuple[Any, list[Fault]]:
    """Return the value of the text and its duplicate keys; raise :class:`SyntaxFaultError` where it is not JSON."""
    duplicates = False

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal duplicates
        value = dict(found)
        duplicates = duplicates or len(value) < len(found)
        return value

    try:
        value = json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise SyntaxFaultError(error.lineno, f"is not JSON: {error.msg} (column {error.colno})") from None
    except RecursionError:
        raise SyntaxFaultError(1, "is nested too deep; a config needs seven levels") from None
    except ValueError:
        raise SyntaxFaultError(1, "holds a number with thousands of digits") from None
    return value, _duplicates(text) if duplicates else []


def _duplicates(text: str) -> list[Fault]:
    seen: set[KeyPath] = set()
    faults = []
    for path, line in walk(tokens(text)):
        if path in seen and isinstance(path[-1], str):
            faults.append(Fault(line, path, "is there twice; keep one of them"))
        seen.add(path)
    return faults
