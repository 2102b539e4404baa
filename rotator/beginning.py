"""``rotator init`` and ``rotator kek generate``: the first config, and key-encryption keys.

What is there already is never replaced.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rotator.adapters.clock import wall_time
from rotator.adapters.disk import REAL_DISK, Disk, create_durably, describe, ensure_directory
from rotator.adapters.kek import ensure_kek_file, make_kek_file, read_ring_file
from rotator.adapters.process import keep_out_of_dumps
from rotator.config import load
from rotator.config.first import FirstAnswers, render
from rotator.config.outputs import require_own_place
from rotator.config.settings import DEFAULT_PATH, KekKind, KekSource
from rotator.core.model import KekId
from rotator.errors import RefusedError
from rotator.told import told
from rotator.wiring import user_name

CONFIG_NAME: Final = DEFAULT_PATH.name
KEK_NAME: Final = "kek"
CONFIG_MODE: Final = 0o644

OF_THE_UNIT: Final = DEFAULT_PATH.with_name(KEK_NAME)
"""Where the unit takes its credential from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What was written, and what to do next."""

    config: str
    kek: str
    kek_kept: bool
    """It was there already, and is used."""
    next: tuple[str, ...]
    """Commands, in order."""


def begin(directory: Path, answers: FirstAnswers, *, disk: Disk = REAL_DISK) -> Beginning:
    """Write ``config.yaml`` and ``kek`` into ``directory``: the config last, so that where it is, all is.

    Raises :class:`RefusedError` where there is a config already, :class:`ConfigError` if the answers make no sound one.
    """
    directory = directory.absolute()
    config, kek = directory / CONFIG_NAME, directory / KEK_NAME
    refusal = RefusedError(f"{config} is there already, and is left as it is; name another directory, or change it")
    if os.path.lexists(config):
        raise refusal
    _require_place(directory)
    require_own_place(config)
    text = render(answers)
    _prove(text)
    try:
        ensure_directory(directory, 0o755)
        kept = kek.exists()
        ensure_kek_file(kek, disk=disk)
        read_ring_file(kek)
        create_durably(config, text.encode(), CONFIG_MODE, disk=disk)
    except FileExistsError:
        raise refusal from None
    except OSError as error:
        raise RefusedError(f"{directory}: {describe(error)}") from None
    return Beginning(config=str(config), kek=str(kek), kek_kept=kept, next=tuple(_steps(config, answers)))


def _require_place(directory: Path) -> None:
    nearest = next(each for each in (directory, *directory.parents) if os.path.lexists(each))
    if nearest.is_dir() and not os.access(nearest, os.W_OK | os.X_OK, effective_ids=True):
        user = user_name(os.geteuid())
        raise RefusedError(
            f"{nearest} cannot be written by this user ({user}): name another directory, or have this one made:\n"
            f"    {told('install', '-d', '-o', user, directory)}"
        )


def _prove(text: str) -> None:
    """Load the config before it is written."""
    with tempfile.TemporaryDirectory(prefix="rotator-") as scratch:
        path = Path(scratch) / CONFIG_NAME
        path.write_text(text, encoding="utf-8")
        load(path, {}, now=wall_time())


def _steps(config: Path, answers: FirstAnswers) -> Iterator[str]:
    rotator = ("rotator",) if config == DEFAULT_PATH else ("rotator", "--config", config)
    if answers.systemd:
        yield f"CREDENTIALS_DIRECTORY={told(config.parent)} {told(*rotator, 'check')}"
        yield "systemctl enable --now rotator"
    else:
        yield told(*rotator, "check")
        yield told(*rotator, "run")
    yield told(*rotator, "status")
    if answers.workspace:
        yield told(*rotator, "token", "show", answers.workspace)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeKek:
    """A KEK that was made, and what to do next."""

    kek: str
    id: KekId
    named: bool
    """The config names the file, or the unit does."""
    next: tuple[str, ...]
    """Commands, in order."""


def file_of(source: KekSource) -> Path:
    """Return the file that the config names for the KEK; raise :class:`RefusedError` where it names none."""
    if source.kind is KekKind.ENVIRONMENT or source.file is None:
        raise RefusedError("the KEK is given by $ROTATOR_KEK; name a file for another one: rotator kek generate FILE")
    if source.kind is KekKind.STATE:
        raise RefusedError(
            f"the config names no file for the KEK, and the first start makes one in {source.file} by itself; for one "
            f"elsewhere name it: rotator kek generate FILE. Of the unit of systemd that is {OF_THE_UNIT}"
        )
    return source.file


def generate_kek(path: Path, config: Path, source: KekSource | None, *, disk: Disk = REAL_DISK) -> MadeKek:
    """Make a KEK at ``path``; ``source`` is what ``config`` says of it, None where there is no sound one.

    Raises :class:`KekError` where there is a file already, and where none can be written.
    """
    path = path.absolute()
    keep_out_of_dumps()
    require_own_place(path)
    ring = make_kek_file(path, disk=disk)
    rotator = ("rotator",) if config == DEFAULT_PATH else ("rotator", "--config", config)
    step = told(*rotator, "check")
    of_config = source is not None and source.kind is KekKind.CONFIG and source.file == path
    if path == OF_THE_UNIT and not of_config:
        step = f"CREDENTIALS_DIRECTORY={told(path.parent)} {step}"
    return MadeKek(kek=str(path), id=ring.first, named=of_config or path == OF_THE_UNIT, next=(step,))
