"""Writes configs into a directory and loads them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rotator.config import Config, load
from rotator.errors import ConfigError

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ISSUER = "issuer: https://tokens.example.com\n"


@dataclass(frozen=True)
class Desk:
    """A directory with a config in it."""

    directory: Path

    @property
    def path(self) -> Path:
        return self.directory / "config.yaml"

    def write(self, content: str | bytes, name: str = "config.yaml") -> Path:
        file = self.directory / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(0o644)
        return file

    def load(self, content: str | bytes | None = None, environ: Mapping[str, str] | None = None) -> Config:
        if content is not None:
            self.write(content)
        return load(self.path, environ or {}, now=NOW)

    def errors(self, content: str | bytes | None = None, environ: Mapping[str, str] | None = None) -> list[str]:
        """Return the lines of the error, each without the directory."""
        with pytest.raises(ConfigError) as caught:
            self.load(content, environ)
        return str(caught.value).replace(f"{self.directory}/", "").split("\n")

    def error(self, content: str | bytes | None = None, environ: Mapping[str, str] | None = None) -> str:
        """Return the one line of the error."""
        lines = self.errors(content, environ)
        assert len(lines) == 1, lines
        return lines[0]
