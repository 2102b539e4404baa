"""Takes commands and configs out of the Markdown files, so that what they say is what is tried.

Run as a script it prints one marked command: ``python3 tests/readme.py run``. Imports only the standard library.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = ROOT / "README.md"

_FENCE: Final = re.compile(
    r"(?:<!-- (?P<mark>[a-z -]+) -->\n)?^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_HEREDOC: Final = re.compile(r"<<\s*'?(\w+)'?[^\n]*\n.*?^\1$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    language: str
    mark: str
    """What a comment on the line above calls it; empty without one."""
    text: str


def documents() -> tuple[Path, ...]:
    """Return every Markdown file of the project."""
    return (README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "tests" / "README.md")


def blocks(path: Path) -> tuple[Block, ...]:
    """Return the fenced blocks of a Markdown file, in order."""
    return tuple(
        Block(found["language"], found["mark"] or "", found["text"]) for found in _FENCE.finditer(path.read_text())
    )


def marked(mark: str, path: Path = README) -> str:
    """Return the text of the one block that is marked ``mark``."""
    (text,) = [block.text for block in blocks(path) if block.mark == mark]
    return text.strip()


def block_with(language: str, words: str, path: Path = README) -> str:
    """Return the text of the one block in ``language`` that contains ``words``."""
    (text,) = [block.text for block in blocks(path) if block.language == language and words in block.text]
    return text


def shell_commands(text: str) -> Iterator[list[str]]:
    """Return the words of each simple command in shell text, without comments, redirections and here-documents."""
    for line in _HEREDOC.sub("", text).replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        redirected = False
        for word in lexer:
            if set(word) <= set("();|&<>"):
                redirected = bool(set(word) & set("<>"))
                if not redirected and words:
                    yield words
                    words = []
            elif not redirected:
                words.append(word)
            else:
                redirected = False
        if words:
            yield words


if __name__ == "__main__":
    sys.stdout.write(marked(sys.argv[1]) + "\n")
