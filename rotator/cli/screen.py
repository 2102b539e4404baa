"""Output for people: with colours and fitted tables on a terminal, as plain columns into a pipe or on a dumb terminal.

Nothing that is shown can steer the terminal, or look like a line of its own: whatever is not printable is replaced, the
end of a line among it, but where a text of ours has several lines.
"""

import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:  # rich is imported only where there is a terminal to show it on
    from rich.console import Console

GAP: Final = "  "
KID_SHOWN: Final = 12


def printable(text: str) -> str:
    """Return ``text`` with a mark in place of each character that could steer a terminal; line ends stay."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def on_one_line(text: str) -> str:
    """Return ``text`` with a mark in place of each line end as well: what others chose can fake no line of ours."""
    return printable(text).replace("\n", "\N{REPLACEMENT CHARACTER}")


def say(text: str) -> None:
    """Write one line of an answer, whatever stands in it."""
    sys.stdout.write(f"{on_one_line(text)}\n")


def speaks_unicode(stream: TextIO) -> bool:
    """Tell whether ``stream`` can show more than ASCII."""
    return (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "").startswith("utf")


def is_rich(stream: TextIO) -> bool:
    """Tell whether ``stream`` is a terminal that knows more than lines."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")


def short(kid: str, shown: int = KID_SHOWN) -> str:
    """Return the beginning of a kid, a jti or a hash, which is enough to tell it from others."""
    if kid.startswith("(") or len(kid) <= shown + 1:  # a placeholder for a key that is yet to be made
        return kid
    return kid[:shown] + ("\N{HORIZONTAL ELLIPSIS}" if speaks_unicode(sys.stdout) else "..")


def tell(text: str) -> None:
    """Tell a person something beside the answer: on stderr, as ``rotator: …``, wrapped between words on a terminal.

    A line that is indented is a command to type, and stays whole.
    """
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() else 0
    for line in printable(text).splitlines():
        whole = f"rotator: {line}"
        parts = textwrap.wrap(whole, width, subsequent_indent=" " * len("rotator: "), **_BETWEEN_WORDS) if width else []
        for part in [whole] if line.startswith(" ") or not parts else parts:
            sys.stderr.write(f"{part}\n")
    sys.stderr.flush()


_BETWEEN_WORDS: Final[Any] = {"break_long_words": False, "break_on_hyphens": False}


@dataclass(frozen=True, slots=True)
class Screen:
    """Where a command's page goes."""

    stream: TextIO
    console: "Console | None"
    """None: plain."""

    @classmethod
    def of(cls, stream: TextIO | None = None) -> "Screen":
        """Return the screen on ``stream`` (default: stdout)."""
        stream = sys.stdout if stream is None else stream
        if not is_rich(stream):
            return cls(stream, None)
        from rich.console import Console  # noqa: PLC0415 - only where it is used

        return cls(stream, Console(file=stream, highlight=False, markup=False, emoji=False))

    def line(self, text: str = "", style: str = "") -> None:
        """Write one line, or what a terminal makes a paragraph of, in a rich ``style``."""
        if self.console is None:
            self._write(on_one_line(text))
        else:
            self.console.print(on_one_line(text), style=style or None)

    def command(self, text: str) -> None:
        """Write a command to type, on a line of its own, which a terminal may run over but is never broken in two."""
        if self.console is None:
            self._write(f"    {on_one_line(text)}")
        else:
            self.console.print(f"    {on_one_line(text)}", soft_wrap=True)

    def facts(self, pairs: Iterable[tuple[str, str]], *, indent: int = 2, style: str = "") -> None:
        """Write labelled lines; what is too long for a terminal is wrapped beside its label."""
        pairs = [(on_one_line(label), on_one_line(text)) for label, text in pairs]
        width = max((len(label) for label, _ in pairs), default=0)
        if self.console is None:
            for label, text in pairs:
                self._write(f"{' ' * indent}{label.ljust(width)}{GAP}{text}")
            return
        from rich.table import Table  # noqa: PLC0415 - only where it is used

        grid = Table.grid(padding=(0, len(GAP), 0, 0))
        grid.add_column(width=indent - len(GAP) if indent > len(GAP) else 0)
        grid.add_column(style=style or "dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for label, text in pairs:
            grid.add_row("", label, text)
        self.console.print(grid)

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[str]], *, wrapped: str = "") -> None:
        """Write a table; on a terminal only the column ``wrapped`` gives way when it is too wide."""
        cells = [[on_one_line(cell) for cell in row] for row in rows]
        if self.console is None:
            widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
            for row in (headers, *cells):
                self._write(GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
            return
        from rich.table import Table  # noqa: PLC0415 - only where it is used

        table = Table(box=None, padding=(0, len(GAP), 0, 0), pad_edge=False, header_style="bold")
        for header in headers:
            table.add_column(header, no_wrap=header != wrapped, overflow="fold" if header == wrapped else "ellipsis")
        for row in cells:
            table.add_row(*row, style=_ROW_STYLES.get(_first_known(row), ""))
        self.console.print(table)

    def _write(self, text: str) -> None:
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        shown = text.encode(encoding, "replace").decode(encoding)
        self.stream.write("\n".join(line.rstrip() for line in shown.split("\n")) + "\n")


_ROW_STYLES: Final = {"retired": "dim", "revoked": "red", "failing": "yellow"}


def _first_known(row: Sequence[str]) -> str:
    return next((cell for cell in row if cell in _ROW_STYLES), "")
