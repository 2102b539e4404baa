"""The three standard streams, where the shell has closed one or nobody reads on. Imports nothing, as the root does."""

import os
import sys
from typing import Final

_STANDARD: Final = (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w"))
"""Name, how its place is filled, and how Python uses it.

What is printed has to fail, so that no script takes nothing for an answer; complaints are lost, for there is nobody to
complain to.
"""


def fill_closed_streams() -> None:
    """Put something in the place of each standard stream that was closed before this process began.

    Python has None for it, and the next file to be opened, such as the database, would get its number and whatever
    anyone writes there.
    """
    for number, (name, flags, mode) in enumerate(_STANDARD):
        if getattr(sys, name) is not None:
            continue
        descriptor = os.open(os.devnull, flags)
        if descriptor != number:
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.set_inheritable(number, True)  # noqa: FBT003 - positional only; as standard streams are
        setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - as long as we run


def write_no_more() -> None:
    """Let what Python flushes at its end go nowhere, so that it does not complain either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
