"""Files → text: what is refused before a parser sees it, and which files `include` means."""

import glob
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from rotator.config.places import WHOLE_FILE, SyntaxFaultError

MAX_BYTES: Final = 512 * 1024 * 1024
"""A million workspaces take less."""

_UNPRINTABLE: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read_text(file: Path, *, included: bool) -> tuple[bytes, str]:
    """Return the bytes and the text of ``file``.

    Raise :class:`SyntaxFaultError` if it cannot be read, may have been written by others, or is not text in UTF-8.
    """
    try:
        str(file.absolute()).encode()
    except UnicodeEncodeError:
        raise SyntaxFaultError(WHOLE_FILE, "the name of the file or of its directory is not UTF-8; rename it") from None
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not block
        try:
            _check_file(os.fstat(descriptor), included=included)
            with open(descriptor, "rb", closefd=False) as stream:  # a descriptor has no path
                content = stream.read()
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise SyntaxFaultError(WHOLE_FILE, "there is no such file; name it with --config or $ROTATOR_CONFIG") from None
    except OSError as error:
        raise SyntaxFaultError(WHOLE_FILE, f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # a NUL in the path
        raise SyntaxFaultError(WHOLE_FILE, f"cannot be read: {error}") from None
    return content, _decode(content)


def _check_file(found: os.stat_result, *, included: bool) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise SyntaxFaultError(WHOLE_FILE, "is a directory; name the file in it")
    if not stat.S_ISREG(found.st_mode):
        raise SyntaxFaultError(WHOLE_FILE, "is not a regular file")
    if found.st_size > MAX_BYTES:
        raise SyntaxFaultError(WHOLE_FILE, f"has {found.st_size:,} bytes; {MAX_BYTES:,} is the most that is read")
    if found.st_mode & stat.S_IWOTH:
        raise SyntaxFaultError(WHOLE_FILE, "can be written by everybody on the machine; chmod o-w it")
    if included and found.st_uid not in (0, os.geteuid()):
        raise SyntaxFaultError(
            WHOLE_FILE,
            f"belongs to uid {found.st_uid}, who is neither root nor the user of rotator; chown it to one of them",
        )


def _decode(content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SyntaxFaultError(
            line, f"is not UTF-8: the byte 0x{content[error.start]:02x}; save the file as UTF-8"
        ) from None
    bad = _UNPRINTABLE.search(text)
    if bad is not None:
        line = text.count("\n", 0, bad.start()) + 1
        raise SyntaxFaultError(line, f"holds the control character U+{ord(bad.group()):04X}; take it out")
    return text


def find_included(patterns: Iterable[str], directory: Path) -> tuple[list[Path], list[str]]:
    """Return the files that ``patterns`` match, each once and in order, and the patterns that match none."""
    files: dict[str, Path] = {}  # by where each really is; Path.resolve raises on links in a circle
    empty = []
    for pattern in patterns:
        found = glob.glob(pattern, root_dir=directory, recursive=True)  # noqa: PTH207  # Path.glob takes no absolute one
        matched = sorted(directory / name for name in found)
        if not matched:
            empty.append(pattern)
        for file in matched:
            files.setdefault(os.path.realpath(file), file)
    return list(files.values()), empty
