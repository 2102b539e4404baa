"""What this process asks of the kernel for the secrets in its memory."""

import ctypes
import resource
from contextlib import suppress
from typing import Final

_PR_SET_DUMPABLE: Final = 4


def keep_out_of_dumps() -> None:
    """Let no core dump be made of this process, and nobody but root look into its memory.

    For whoever holds a key-encryption key and what it opens (prctl(2), core(5)). Where a limit cannot be set, as under
    the unit's filter of system calls, which has its own, the other one holds.
    """
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
