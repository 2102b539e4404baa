"""What a person may have meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(found: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean X?"`` for the known word nearest to ``found``; empty when none is near."""
    words = {word.lower(): word for word in known}
    close = get_close_matches(found[:80].lower(), words, n=1, cutoff=0.6)
    return f"; did you mean {words[close[0]]}?" if close else ""
