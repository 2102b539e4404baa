"""Reports as JSON and back, and the schema of each: one description, the dataclass, behind all three.

Instants are RFC 3339 with ``Z``, durations whole seconds in fields whose name ends in ``_seconds``. Fields
are only ever added: a reader ignores those that it does not know.
"""

from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, Final, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

from rotator.errors import RotatorError

Json = dict[str, Any] | list[Any] | str | int | bool | None

T = TypeVar("T")

_UNIONS: Final = (UnionType, Union)  # `X | None` is the latter where X is a NewType


def rfc3339(moment: datetime) -> str:
    """Return ``moment`` as RFC 3339 with ``Z``; microseconds only where there are any."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def to_json(value: object) -> Json:
    """Return the JSON form of a report, or of a part of one."""
    if is_dataclass(value):
        return {each.name: to_json(getattr(value, each.name)) for each in fields(value)}
    match value:
        case None | bool() | int():
            return value
        case str():
            return str(value)
        case datetime():
            return rfc3339(value)
        case tuple():
            return [to_json(item) for item in value]
        case dict():
            return {str(key): to_json(item) for key, item in value.items()}
        case _:
            raise AssertionError(f"{type(value).__name__} has no place in a report")


def from_json(kind: type[T], value: object) -> T:
    """Read what :func:`to_json` wrote; raise :class:`RotatorError` for anything else.

    Unknown members are ignored, and missing ones take their default: the writer may be of another version.
    """
    try:
        return _read(kind, value)  # type: ignore[no-any-return]  # by construction of _read
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise RotatorError(
            f"the daemon's answer is not understood ({error!r}); it may be of another version: restart it"
        ) from None


def _read(kind: Any, value: Any) -> Any:
    if value is None:
        return value
    if isinstance(kind, NewType):
        return value
    if get_origin(kind) in _UNIONS:
        return _read(next(option for option in get_args(kind) if option is not NoneType), value)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _read(hint, value[name]) for name, hint in hints.items() if name in value})
    if kind is datetime:
        return datetime.fromisoformat(value)
    if get_origin(kind) is tuple:
        return tuple(_read(get_args(kind)[0], item) for item in value)
    if get_origin(kind) is dict:
        return {key: _read(get_args(kind)[1], item) for key, item in value.items()}
    return kind(value) if isinstance(kind, type) and issubclass(kind, StrEnum) else value


# ------------------------------------------------------------------------------------------------------------ schemas


def schema(kind: type, title: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what :func:`to_json` makes of a ``kind``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **_describe(kind)}


def _describe(kind: Any) -> dict[str, Any]:
    if isinstance(kind, NewType):
        return _describe(kind.__supertype__)
    if get_origin(kind) in _UNIONS:
        options = [_describe(option) for option in get_args(kind)]
        names = [option["type"] for option in options if option.keys() == {"type"}]
        return {"type": names} if len(names) == len(options) else {"anyOf": options}
    if is_dataclass(kind):
        return _describe_record(kind)
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _describe(get_args(kind)[0])}
    if get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": _describe(get_args(kind)[1])}
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return {"type": "string", "enum": [member.value for member in kind]}
    return dict(_PLAIN[kind])


def _describe_record(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {
        "type": "object",
        "description": (kind.__doc__ or "").strip(),
        "properties": {each.name: _describe(hints[each.name]) for each in fields(kind)},
        "required": [each.name for each in fields(kind)],
        "additionalProperties": False,
    }


_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    NoneType: {"type": "null"},
    datetime: {"type": "string", "format": "date-time"},
}

__all__ = ["Json", "from_json", "rfc3339", "schema", "to_json"]
