"""Acting as a user who may do little, where the tests run as root."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def as_nobody(*within: Path) -> Iterator[None]:
    """Let the block run as nobody where this is root, to whom nothing is forbidden; else change nothing.

    The directories above ``within``, which the test runner keeps to its own user, can be entered meanwhile. What is
    imported late must be imported before: nobody may not find it.
    """
    if os.geteuid() != 0:
        yield
        return
    private = {above for path in within for above in path.parents if above.stat().st_mode & 0o777 == 0o700}
    for directory in private:
        directory.chmod(0o711)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        for directory in private:
            directory.chmod(0o700)
