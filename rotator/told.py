"""Commands that a person is told to type: quoted for the shell, whatever is in a path or a name."""

import shlex
from pathlib import Path


def told(*words: str | Path) -> str:
    """Return a command as it can be typed, or a part of one."""
    return shlex.join(map(str, words))
