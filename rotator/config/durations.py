"""Spans of time as the config writes them: ``90s``, ``10m``, ``12h``, ``30d``, ``8w``, or ISO 8601."""

import re
from datetime import timedelta
from functools import lru_cache
from typing import Final

from rotator.core.durations import format_duration

__all__ = ["LONGEST", "format_duration", "parse_duration"]

LONGEST: Final = timedelta(days=36_525)
"""A hundred years: what is longer is a slip of the keyboard, and would leave the range of dates."""

_SHORT: Final = re.compile(
    r"(?:(?P<w>[0-9]{1,9})w)?(?:(?P<d>[0-9]{1,9})d)?(?:(?P<h>[0-9]{1,9})h)?(?:(?P<m>[0-9]{1,9})m)?(?:(?P<s>[0-9]{1,12})s)?",
    re.ASCII,
)
_ISO: Final = re.compile(
    r"P(?:(?P<w>[0-9]{1,9})W)?(?:(?P<d>[0-9]{1,9})D)?"
    r"(?:T(?=[0-9])(?:(?P<h>[0-9]{1,9})H)?(?:(?P<m>[0-9]{1,9})M)?(?:(?P<s>[0-9]{1,12})S)?)?",
    re.ASCII,
)
_ISO_CALENDAR: Final = re.compile(r"P[0-9]+[YM]|P[0-9]+Y[0-9]+M")
_SECONDS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}


@lru_cache(maxsize=1024)
def parse_duration(text: str, *, zero_allowed: bool = False) -> timedelta:
    """Return the span that ``text`` means.

    ISO 8601 months and years are refused: they have no fixed length. Raise ``ValueError``, saying what would be right,
    for everything that is not a span between one second and :data:`LONGEST`.
    """
    shown = text if len(text) <= 40 else text[:40] + "…"
    match = _SHORT.fullmatch(text) or _ISO.fullmatch(text)
    groups = {unit: int(count) for unit, count in match.groupdict().items() if count} if match else {}
    if not groups:
        raise ValueError(_explain(text, shown))
    seconds = sum(count * _SECONDS[unit] for unit, count in groups.items())
    if seconds > LONGEST.total_seconds():
        raise ValueError(f"{shown} is longer than a hundred years; write less")
    if seconds == 0 and not zero_allowed:
        raise ValueError(f"{shown} is no time at all; write at least 1s")
    return timedelta(seconds=seconds)


def _explain(text: str, shown: str) -> str:
    if text.isascii() and text.isdigit():
        return number_without_unit(shown)
    if _ISO_CALENDAR.match(text):
        return f"{shown} counts months or years, which differ in length; write days, such as 30d or P30D"
    if text.startswith("-"):
        return f"{shown} is negative; write a span of time such as 90s, 10m, 12h, 30d or 8w"
    return f"{shown!r} is not a span of time; write one such as 90s, 10m, 12h, 30d, 8w, 1h30m or P30D"


def number_without_unit(shown: str) -> str:
    """Return what to say about a bare number where a span of time is meant."""
    return f"{shown} has no unit; write {shown}s, {shown}m, {shown}h or {shown}d"
