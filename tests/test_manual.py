"""The manual page: in step with the commands, and well-formed."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from rotator.cli import manual
from tests.test_readme import COMMANDS

PAGE = Path(__file__).parent.parent / "docs" / "rotator.1"


def test_the_page_is_in_step_with_the_commands() -> None:
    """After a change of a command: ``python -m rotator.cli.manual > docs/rotator.1``."""
    assert PAGE.read_text() == manual.render()


def test_every_command_and_option_is_there() -> None:
    page = PAGE.read_text().replace("\\-", "-")
    for name, command in COMMANDS.items():
        if hasattr(command, "commands"):
            continue
        _, _, rest = page.partition(f"\n.SS rotator {name}")
        section, _, _ = rest.partition("\n.S")
        assert section, f"rotator {name} is not in the manual"
        for param in command.params:
            known = param.name in ("help", "config") or param.param_type_name == "argument"
            assert known or f"\\fB{param.opts[0]}\\fR" in section, (
                f"rotator {name} {param.opts[0]} is not in the manual"
            )


def test_no_text_is_taken_for_a_request() -> None:
    """A line that begins with a dot or an apostrophe is one; and a backslash begins an escape."""
    for line in PAGE.read_text().splitlines():
        if line.startswith((".", "'")):
            assert re.match(r"\.(TH|SH|SS|TP|PP|B|nh|ad|\\\")( |$)", line), line
        assert not re.search(r"\\[^efI&\-\"]", re.sub(r"\\f[BIR]", "", line)), line


def test_texts_are_told_as_they_are() -> None:
    """Whatever is in a help text shows as it was written."""
    own = typer.Typer()

    def odd(*, x: bool = False) -> None:
        r""".dotted first. A \ and 'quotes', --and-dashes."""

    own.command()(odd)
    command: Any = typer.main.get_command(own)
    (first, *_) = manual._paragraphs(command.help)
    assert first == r"\&.dotted first. A \e and 'quotes', \-\-and\-dashes."


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed here")
def test_it_renders_without_a_warning() -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", str(PAGE)], capture_output=True, check=False, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
