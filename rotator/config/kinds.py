"""The kinds of values in the config, each with its check, the words that explain it, and its JSON Schema."""

import re
from datetime import timedelta
from functools import cache, lru_cache
from typing import Annotated, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from rotator.config.crontab import check_cron
from rotator.config.durations import number_without_unit, parse_duration
from rotator.config.nearest import nearest
from rotator.config.profiles import MAX_CACHE
from rotator.config.yaml_source import kind_of

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")
_MODE: Final = re.compile(r"(?:0o)?[0-7]{3,4}", re.ASCII)
_LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def wrong(text: str) -> PydanticCustomError:
    """Return an error that says ``text`` at the place of the setting."""
    return PydanticCustomError("rotator", "{text}", {"text": text})


# ------------------------------------------------------------------------------------------------- kinds of values


def _duration(value: object, *, zero_allowed: bool = False) -> timedelta:
    if isinstance(value, str):
        try:
            return parse_duration(value, zero_allowed=zero_allowed)
        except ValueError as error:
            raise wrong(str(error)) from None
    if isinstance(value, int) and not isinstance(value, bool):
        if value == 0 and zero_allowed:
            return timedelta(0)
        raise wrong(number_without_unit(str(value)[:40]))
    raise wrong(f"expected a span of time such as 90s, 10m, 12h, 30d or 8w, found {kind_of(value)}")


def _duration_or_zero(value: object) -> timedelta:
    return _duration(value, zero_allowed=True)


_DURATION_SCHEMA: Final = {
    "type": "string",
    "pattern": r"^(?:[0-9]+[wdhms])+$|^P[0-9WDTHMS]+$",
    "examples": ["90s", "10m", "12h", "30d", "8w", "1h30m", "P30D"],
}
Duration = Annotated[timedelta, BeforeValidator(_duration), WithJsonSchema(_DURATION_SCHEMA)]
DurationOrZero = Annotated[timedelta, BeforeValidator(_duration_or_zero), WithJsonSchema(_DURATION_SCHEMA)]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise wrong(_not_text(value))
    if not value:
        raise wrong("is empty")
    if not value.isprintable():
        raise wrong(f"holds a character that cannot be printed: {value!a}")
    return value


def _not_text(value: object) -> str:
    if isinstance(value, bool):
        return f"expected text, found {kind_of(value)} (YAML reads yes, no, on and off so); write it in quotes"
    if isinstance(value, int | float):
        return f"expected text, found {kind_of(value)}; write it in quotes"
    return f"expected text, found {kind_of(value)}"


Text = Annotated[str, BeforeValidator(_text), Field(min_length=1)]


def _permission(value: object) -> str:
    text = _text(value)
    if not _SCOPE_TOKEN.fullmatch(text):
        raise wrong(
            f"{text!r} cannot be part of the claim `scope` (RFC 6749 §3.3): no spaces, quotes, backslashes or letters"
            " outside ASCII; write something like metrics:write"
        )
    return text


Permission = Annotated[
    str, BeforeValidator(_permission), WithJsonSchema({"type": "string", "pattern": r"^[!#-\[\]-~]+$"})
]


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise wrong(_not_text(value))
    if not NAME.fullmatch(value) or ".." in value:
        shown = value if len(value) <= 80 else value[:80] + "…"
        raise wrong(
            f"{shown!r} is no name here: up to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first, no '..'"
        )
    return value


Name = Annotated[str, BeforeValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME.pattern}$"})]


def _one_or_more(value: object) -> object:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and not value:
        raise wrong("is an empty list; name at least one")
    return value


_ONE_OR_MORE_SCHEMA: Final = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
    ]
}
Audience = Annotated[tuple[Text, ...], BeforeValidator(_one_or_more), WithJsonSchema(_ONE_OR_MORE_SCHEMA)]


def _url(value: object) -> str:
    text = _text(value)
    try:
        parts = urlsplit(text)
        host = parts.hostname
        _ = parts.port
    except ValueError as error:
        raise wrong(f"{text!r} is not a URL: {error}") from None
    if parts.scheme == "http" and host not in _LOCAL_HOSTS:
        raise wrong(f"{text!r} must begin with https:// (http:// is for localhost only)")
    if parts.scheme not in ("https", "http") or not host:
        raise wrong(f"{text!r} is not an absolute https URL; write something like https://tokens.example.com")
    if "?" in text or "#" in text:
        raise wrong(f"{text!r} must have no query and no fragment (RFC 8414 §2)")
    if "@" in parts.netloc:
        raise wrong("must hold no user name or password")
    if not text.isascii() or re.search(r"[\s\"<>\\^`{|}]", text):
        raise wrong(f"{text!r} holds characters that a URL cannot have")
    return text


_URL_SCHEMA: Final = {"type": "string", "format": "uri", "pattern": "^https?://[^?#]+$"}
Url = Annotated[str, BeforeValidator(_url), WithJsonSchema(_URL_SCHEMA)]


def _urls(value: object) -> tuple[str, ...]:
    return tuple(map(_url, value if isinstance(value, list | tuple) else [value]))


Urls = Annotated[
    tuple[str, ...],
    BeforeValidator(_urls),
    WithJsonSchema({"anyOf": [_URL_SCHEMA, {"type": "array", "items": _URL_SCHEMA}]}),
]


def _path(value: object) -> str:
    text = _text(value)
    if text.startswith("~"):
        raise wrong(f"{text!r}: ~ is not expanded; write the path in full")
    if text.endswith("/") and text != "/":
        text = text.rstrip("/") or "/"
    return text


PathText = Annotated[str, BeforeValidator(_path), WithJsonSchema({"type": "string", "minLength": 1})]


TOKEN_SIZES: Final = range(1024, 65536 + 1)


def _token_size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in TOKEN_SIZES:
        raise wrong(f"{value!r} must be a whole number of characters from {TOKEN_SIZES[0]} to {TOKEN_SIZES[-1]}")
    return value


TokenSize = Annotated[
    int,
    BeforeValidator(_token_size),
    WithJsonSchema({"type": "integer", "minimum": TOKEN_SIZES[0], "maximum": TOKEN_SIZES[-1]}),
]


def _mode(value: object) -> int:
    if isinstance(value, str) and _MODE.fullmatch(value):
        mode = int(value.removeprefix("0o"), 8)
        if mode > 0o777:
            raise wrong(f'{value!r} sets more than permissions; write something like "0640"')
        if not mode & 0o400:
            raise wrong(
                f'{value!r} does not let the owner read the file, who must compare it; write something like "0640"'
            )
        if mode & 0o007:
            raise wrong(f'{value!r} lets everybody on the machine at the token; write something like "0640"')
        return mode
    if isinstance(value, int) and not isinstance(value, bool):
        raise wrong(f'{value} is a decimal number; write the mode in octal and in quotes, such as "0640"')
    raise wrong(f'expected permissions in octal, such as "0640", found {kind_of(value)}')


Mode = Annotated[
    int,
    BeforeValidator(_mode),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": "^(?:0o)?[0-7]{3,4}$"}, {"type": "integer"}], "examples": ["0640"]}
    ),
]


def _zone(value: object) -> str:
    text = _text(value)
    if not _is_zone(text):
        guess = nearest(text, _zones())
        raise wrong(f"{text!r} is not a time zone{guess or '; write an IANA name such as Europe/Berlin'}")
    return text


@lru_cache(maxsize=256)
def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _cron(value: object) -> str:
    text = _text(value)
    try:
        return check_cron(text)
    except ValueError as error:
        raise wrong(str(error)) from None


Zone = Annotated[str, BeforeValidator(_zone), WithJsonSchema({"type": "string", "examples": ["Europe/Berlin", "UTC"]})]
Cron = Annotated[str, BeforeValidator(_cron), WithJsonSchema({"type": "string", "examples": ["0 3 * * sun"]})]


def _profile(value: object) -> str:
    text = _text(value)
    if text not in MAX_CACHE:
        raise wrong(f"{text!r} is not a verifier known here{nearest(text, MAX_CACHE)}; known: {', '.join(MAX_CACHE)}")
    return text


Profile = Annotated[str, BeforeValidator(_profile), WithJsonSchema({"type": "string", "enum": list(MAX_CACHE)})]


def _program(value: object) -> object:
    if isinstance(value, str):
        raise wrong(
            "is one text; write a list, the program first: [/usr/local/bin/push-token, acme] (no shell is used)"
        )
    if isinstance(value, list) and not value:
        raise wrong("is an empty list; write the program and its arguments")
    if isinstance(value, list) and isinstance(value[0], str) and not value[0].startswith("/"):
        raise wrong(f"the program {value[0]!r} must be an absolute path; no search path is used")
    return value


def _argument(value: object) -> str:
    if not isinstance(value, str):
        raise wrong(_not_text(value))
    if "\0" in value:
        raise wrong("holds a NUL character")
    return value


Argument = Annotated[str, BeforeValidator(_argument)]
Run = Annotated[tuple[Argument, ...], BeforeValidator(_program), Field(min_length=1)]
