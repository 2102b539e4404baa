"""How spans of time are shown to people, everywhere."""

from datetime import timedelta
from typing import Final

_UNITS: Final = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))

_ONE_UNIT_BELOW: Final = 100
"""A span that is fewer than this many whole units is shown in that unit alone: ``49h`` rather than ``2d1h``."""


def format_duration(span: timedelta) -> str:
    """Return ``span`` as a config file would say it: ``90d``, ``49h``, ``7d2h``, ``90s``.

    Whole seconds read back as the same span. What is smaller than a second is shown only where there is nothing larger.
    """
    if span < timedelta(0):
        return "-" + format_duration(-span)
    seconds = span // timedelta(seconds=1)
    if seconds == 0:
        return f"{span.total_seconds():.3g}s" if span else "0s"
    for unit, size in _UNITS:
        count, rest = divmod(seconds, size)
        if not rest and count < _ONE_UNIT_BELOW:
            return f"{count}{unit}"
    parts = []
    for unit, size in _UNITS:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def round_up(span: timedelta) -> timedelta:
    """Return the next span at or above ``span`` that a person would write: whole days, hours, minutes or seconds."""
    for above, unit in (
        (timedelta(days=3), timedelta(days=1)),
        (timedelta(hours=3), timedelta(hours=1)),
        (timedelta(minutes=3), timedelta(minutes=1)),
    ):
        if span > above:
            return -(-span // unit) * unit
    return -(-span // timedelta(seconds=1)) * timedelta(seconds=1)
