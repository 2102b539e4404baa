"""How moments are shown to people: UTC, whatever the machine's zone, and how far away they are."""

from datetime import UTC, datetime, timedelta

_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


def absolute(moment: datetime) -> str:
    """Return ``moment`` to the minute in UTC: ``2026-03-01 04:05Z``."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%MZ}"


def relative(moment: datetime, now: datetime) -> str:
    """Return how far ``moment`` is from ``now``: ``in 3d 4h``, ``5m ago``, ``now``."""
    span = abs(moment - now)
    if span < timedelta(seconds=1):
        return "now"
    return f"in {rough(span)}" if moment > now else f"{rough(span)} ago"


def rough(span: timedelta) -> str:
    """Return ``span`` in its two largest units, from weeks of days down to seconds: ``85d``, ``3d 4h``, ``90s``."""
    seconds = int(span.total_seconds())
    for place, (unit, size) in enumerate(_UNITS):
        count, rest = divmod(seconds, size)
        if not count:
            continue
        if place + 1 == len(_UNITS) or count >= 30:
            return f"{count}{unit}"
        smaller, smaller_size = _UNITS[place + 1]
        more = rest // smaller_size
        return f"{count}{unit} {more}{smaller}" if more else f"{count}{unit}"
    return "0s"


def both(moment: datetime, now: datetime) -> str:
    """Return ``moment`` in both ways: ``2026-03-01 04:05Z (in 3d 4h)``."""
    return f"{absolute(moment)} ({relative(moment, now)})"
