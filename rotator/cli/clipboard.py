"""The clipboard of the terminal that a person sits at, wherever the command runs: set by an escape sequence, OSC 52.

The terminal is opened by itself, for standard output may go elsewhere. Nothing of what is copied is shown. Whether the
terminal obeys, it does not say.
"""

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rotator.core.secret import Secret
from rotator.errors import ConfigError, RotatorError

TERMINAL: Final = Path("/dev/tty")
"""The terminal that controls this process (tty(4))."""

_NO_SEQUENCES: Final = ("", "dumb", "unknown", "linux")
"""Terminals that would show the sequence, or have no clipboard."""

_SCREEN_AT_ONCE: Final = 256
"""GNU screen passes on no longer string than 768 bytes; well below it."""


def require_clipboard(environ: Mapping[str, str], terminal: Path = TERMINAL) -> None:
    """Raise :class:`ConfigError` where there is no terminal with a clipboard; to be asked before the secret is."""
    name = environ.get("TERM", "")
    if name in _NO_SEQUENCES:
        raise ConfigError(f"--copy needs a terminal with a clipboard, and TERM is {name!r}: leave --copy out")
    try:
        os.close(_open(terminal))
    except OSError:
        raise ConfigError(
            "--copy puts the token on the clipboard of a terminal, and there is none here; in a script, leave it out "
            "and read standard output"
        ) from None


def copy(text: Secret[str], environ: Mapping[str, str], terminal: Path = TERMINAL) -> None:
    """Put ``text`` on the clipboard. Raise :class:`RotatorError` when the terminal went away."""
    sequence = osc52(text, environ)
    try:
        descriptor = _open(terminal)
        try:
            while sequence:
                sequence = sequence[os.write(descriptor, sequence) :]
        finally:
            os.close(descriptor)
    except OSError as error:
        raise RotatorError(f"the terminal cannot be written to: {error.strerror}") from None


def _open(terminal: Path) -> int:
    return os.open(terminal, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)


def osc52(text: Secret[str], environ: Mapping[str, str]) -> bytes:
    """Return the sequence, in the wrapping that a multiplexer between us and the terminal needs.

    tmux takes the plain one where ``set-clipboard`` is on, and the wrapped one where ``allow-passthrough`` is: it is
    given both, and ignores what it does not take.
    """
    plain = b"\x1b]52;c;" + base64.b64encode(text.reveal().encode()) + b"\x07"
    if environ.get("TMUX"):
        return plain + b"\x1bPtmux;" + plain.replace(b"\x1b", b"\x1b\x1b") + b"\x1b\\"
    if environ.get("STY"):
        pieces = (plain[start : start + _SCREEN_AT_ONCE] for start in range(0, len(plain), _SCREEN_AT_ONCE))
        return b"".join(b"\x1bP" + piece + b"\x1b\\" for piece in pieces)
    return plain


def if_nothing_came(environ: Mapping[str, str]) -> str:
    """Return what to look at when the clipboard stays as it was."""
    if environ.get("TMUX"):
        return "if nothing comes out of it: tmux set -g set-clipboard on"
    return "if nothing comes out of it, your terminal does not take OSC 52"
