"""Cron expressions: the five fields, checked before a scheduler sees them, so that each mistake gets its own words."""

import re
from functools import lru_cache
from typing import Final

from rotator.config.nearest import nearest

WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_FIELDS: Final = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12))
_NUMBERS: Final = re.compile(
    r"(?:\*|(?P<first>[0-9]{1,3})(?:-(?P<last>[0-9]{1,3}))?)(?:/(?P<step>[0-9]{1,3}))?", re.ASCII
)
_NAMES: Final = re.compile(r"(?P<first>[a-z]+)(?:-(?P<last>[a-z]+))?")


@lru_cache(maxsize=256)
def check_cron(text: str) -> str:
    """Return ``text`` in lower case with single spaces; raise ``ValueError`` for what is not five fields of cron.

    Weekdays are names: numbers mean different days to cron (0 is Sunday) and to schedulers (0 is Monday).
    """
    if text.startswith("@"):
        raise ValueError(f"{text!r} is a nickname; write five fields, such as '0 3 * * sun'")
    fields = text.lower().split()
    if len(fields) != 5:
        raise ValueError(
            f"{text!r} has {len(fields)} fields; cron has five: minute, hour, day of the month, month, weekday"
        )
    for field, (name, lowest, highest) in zip(fields, _FIELDS, strict=False):
        for item in field.split(","):
            if name == "month" and item[:1].isalpha():
                _check_names(item, name, MONTHS)
            else:
                _check_numbers(item, name, lowest, highest)
    for item in fields[4].split(","):
        if item != "*":
            _check_weekday(item)
    return " ".join(fields)


def _check_numbers(item: str, name: str, lowest: int, highest: int) -> None:
    match = _NUMBERS.fullmatch(item)
    if match is None:
        raise ValueError(f"{item!r} is not a {name}; write *, a number, a range 1-5, a list 1,3 or a step */15")
    first, last, step = match["first"], match["last"], match["step"]
    for number in (first, last):
        if number is not None and not lowest <= int(number) <= highest:
            raise ValueError(f"{number} is not a {name}; it is between {lowest} and {highest}")
    if first is not None and last is not None and int(first) > int(last):
        raise ValueError(f"the range {item!r} of the {name} runs backwards; write it as two, joined by a comma")
    span = int(last or highest) - int(first or lowest)
    if step is not None and not 1 <= int(step) <= span:
        raise ValueError(f"the step of {item!r} in the {name} must be between 1 and {span}, to meet a second one")


def _check_weekday(item: str) -> None:
    if any(character.isdigit() for character in item.split("/", maxsplit=1)[0]):
        raise ValueError(
            f"the weekday {item!r} is a number, and 0 is Sunday to cron but Monday to other schedulers;"
            " write its name: mon, tue, wed, thu, fri, sat, sun"
        )
    if "/" in item:
        raise ValueError(f"{item!r} steps over weekdays; name them: mon,wed,fri")
    _check_names(item, "weekday", WEEKDAYS)


def _check_names(item: str, name: str, known: tuple[str, ...]) -> None:
    match = _NAMES.fullmatch(item)
    if match is None:
        raise ValueError(f"{item!r} is not a {name}; use the names {known[0]} to {known[-1]}")
    for word in (match["first"], match["last"]):
        if word is not None and word not in known:
            raise ValueError(f"{word!r} is not a {name}{nearest(word, known)}; use the names {known[0]} to {known[-1]}")
    if match["last"] is not None and known.index(match["first"]) > known.index(match["last"]):
        raise ValueError(
            f"the range {item!r} runs backwards for a {name}, whose first is {known[0]}; name them in a list"
        )
