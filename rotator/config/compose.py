"""Shapes → policy: inheritance, references between settings, and the sinks."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from rotator.config.nearest import nearest
from rotator.config.places import KeyPath, show_path
from rotator.config.problems import Problems, Source
from rotator.config.schema import (
    ConfigShape,
    KeysetShape,
    RotationWindowShape,
    SinkShape,
    WorkspaceShape,
)
from rotator.core.contract import default_propagation, least_grace
from rotator.core.model import DEFAULT_KEYSET, KeysetName, WorkspaceId
from rotator.core.policy import (
    CommandSink,
    FileSink,
    KeysetPolicy,
    Policy,
    RotationWindow,
    Sink,
    Verifiers,
    WorkspacePolicy,
)

DEFAULT_SECURITY_PERIOD: Final = timedelta(days=30)
DEFAULT_GRACE_PERIOD: Final = timedelta(hours=24)
DEFAULT_AUDIENCE: Final = ("api",)


@dataclass(slots=True)
class Composer:
    """Builds the policy from the shapes of all files."""

    main: Source
    shape: ConfigShape
    directory: Path
    forbidden: Mapping[str, Path]
    """Directories that no file sink may be in, by what each is."""
    own: Mapping[str, str]
    """Files that no sink may be, with what each is: a token would be written over them."""
    problems: Problems
    looks_at_sinks: bool
    """Follow the links in the paths of sinks; else they are not touched."""
    _files: dict[str, tuple[Source, KeyPath]] = field(default_factory=dict)
    _real_files: dict[str, tuple[Source, KeyPath]] = field(default_factory=dict)
    _real: dict[str, str] = field(default_factory=dict)
    _windows: dict[tuple[str, str, timedelta], RotationWindow] = field(default_factory=dict)
    _without_audience: list[str] = field(default_factory=list)
    _real_forbidden: dict[str, str] = field(default_factory=dict)

    _real_own: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._real_own = {os.path.realpath(file): what for file, what in self.own.items()}
        self._real_forbidden = {what: os.path.realpath(directory) for what, directory in self.forbidden.items()}

    def policy(self, workspaces: Mapping[str, tuple[Source, WorkspaceShape]], verifiers: Verifiers) -> Policy:
        """Return the policy; what is wrong goes to the problems."""
        names = {DEFAULT_KEYSET, *self.shape.keysets}
        composed = {
            WorkspaceId(name): self._workspace(name, source, shape, names)
            for name, (source, shape) in workspaces.items()
        }
        if self.shape.defaults.keyset is not None and self.shape.defaults.keyset not in names:
            self._unknown_keyset(self.main, ("defaults", "keyset"), self.shape.defaults.keyset, names)
        if self._without_audience:
            count, first = len(self._without_audience), self._without_audience[0]
            self.problems.warn(
                self.main,
                ("defaults",),
                f"no audience for {first if count == 1 else f'{count} workspaces ({first}, …)'}, so the tokens say"
                f" aud {list(DEFAULT_AUDIENCE)}; set defaults.audience to who they are for",
            )
        without_keysets = Policy(workspaces=composed)
        shapes = {DEFAULT_KEYSET: KeysetShape(), **self.shape.keysets}
        keysets = {
            KeysetName(name): self._keyset(
                KeysetName(name), shape, verifiers, without_keysets.longest_lifetime(KeysetName(name))
            )
            for name, shape in shapes.items()
        }
        self._check_issuers(keysets)
        return Policy(
            keysets=keysets,
            workspaces=composed,
            clock_skew=self.shape.clock_skew,
            clock_max_gap=self.shape.clock.max_gap,
            verifiers=verifiers,
            max_token_size=self.shape.defaults.max_token_size,
            base_url=(self.shape.publish.base_url or self.shape.issuer).rstrip("/"),
        )

    # ------------------------------------------------------------------------------------------------- keysets

    def _keyset(self, name: KeysetName, shape: KeysetShape, verifiers: Verifiers, lifetime: timedelta) -> KeysetPolicy:
        if name == DEFAULT_KEYSET and shape.issuer is not None:
            self.problems.add(
                self.main,
                ("keysets", name, "issuer"),
                "the issuer of this keyset is the top-level issuer; leave it out here",
            )
        skew = self.shape.clock_skew
        derived = self.shape.issuer if name == DEFAULT_KEYSET else f"{self.shape.issuer.rstrip('/')}/keysets/{name}"
        return KeysetPolicy(
            name=name,
            issuer=shape.issuer or derived,
            algorithm=shape.algorithm,
            security_period=shape.security_period,
            propagation_period=shape.propagation_period or default_propagation(verifiers, skew),
            grace_period=shape.grace_period or max(least_grace(lifetime, skew), timedelta(seconds=1)),
            clock_skew=skew,
            rotation_window=self._window(shape.rotation_window),
        )

    def _check_issuers(self, keysets: Mapping[KeysetName, KeysetPolicy]) -> None:
        owners: dict[str, KeysetName] = {}
        for keyset in keysets.values():
            owner = owners.setdefault(keyset.issuer.rstrip("/"), keyset.name)
            if owner != keyset.name:
                self.problems.add(
                    self.main,
                    ("keysets", keyset.name, "issuer"),
                    f"{keyset.issuer} is the issuer of the keyset {owner} already, and an issuer has one key set",
                )

    def _window(self, shape: RotationWindowShape | None) -> RotationWindow | None:
        if shape is None:
            return None
        parts = (shape.cron, shape.timezone, shape.duration)
        if parts not in self._windows:
            self._windows[parts] = RotationWindow(*parts)
        return self._windows[parts]

    # ---------------------------------------------------------------------------------------------- workspaces

    def _workspace(self, name: str, source: Source, shape: WorkspaceShape, keysets: set[str]) -> WorkspacePolicy:
        defaults = self.shape.defaults
        keyset = shape.keyset or defaults.keyset or DEFAULT_KEYSET
        if shape.keyset is not None and keyset not in keysets:
            self._unknown_keyset(source, ("workspaces", name, "keyset"), keyset, keysets)
        audience = shape.audience or defaults.audience
        if not audience:
            self._without_audience.append(name)
        roles = shape.roles if shape.roles is not None else defaults.roles
        permissions = shape.permissions if shape.permissions is not None else defaults.permissions
        return WorkspacePolicy(
            id=WorkspaceId(name),
            keyset=KeysetName(keyset),
            security_period=shape.security_period or defaults.security_period or DEFAULT_SECURITY_PERIOD,
            grace_period=shape.grace_period or defaults.grace_period or DEFAULT_GRACE_PERIOD,
            audience=audience or DEFAULT_AUDIENCE,
            roles=roles or (),
            permissions=permissions or (),
            rotation_window=self._window(shape.rotation_window or defaults.rotation_window),
            sinks=tuple(self._sinks(source, ("workspaces", name, "deliver"), shape.deliver)),
        )

    def _unknown_keyset(self, source: Source, path: KeyPath, found: str, known: set[str]) -> None:
        hint = nearest(found, known) or f"; there are: {', '.join(sorted(known))}"
        self.problems.add(source, path, f"there is no keyset {found!r}{hint}")

    # --------------------------------------------------------------------------------------------------- sinks

    def _sinks(self, source: Source, path: KeyPath, shapes: tuple[SinkShape, ...]) -> Iterator[Sink]:
        for place, shape in enumerate(shapes):
            if shape.file is not None:
                at = (*path, place, "file", "path")
                file = os.path.normpath(os.path.join(self.directory, shape.file.path))  # noqa: PTH118  # 100,000 times
                self._check_file(source, at, file)
                yield FileSink(file, shape.file.mode, shape.file.format, shape.file.on_removal == "delete")
            if shape.command is not None:
                if source is not self.main:
                    self.problems.add(
                        source,
                        (*path, place, "command"),
                        f"an included file may name no command, as it runs as the daemon; move it to {self.main.file}",
                    )
                yield CommandSink(shape.command.run, shape.command.timeout)

    def _check_file(self, source: Source, path: KeyPath, file: str) -> None:
        """Refuse what the config itself says wrong; warn of what links on the disk make of a path.

        Whoever can write to one directory on the way can make such a link at any time: that is for the delivery to
        refuse, which looks again, and must stop neither the other workspaces nor a start or a reload.
        """
        first = self._files.setdefault(file, (source, path))
        if first != (source, path):
            text = f"{file} is delivered to already, by {_place(first)}; each needs its own"
            self.problems.add(source, path, text)
        if (what := self.own.get(file) or self._real_own.get(file)) is not None:
            self.problems.add(source, path, f"{file} is the {what}, which a token would replace; name another path")
            return
        for what, directory in self.forbidden.items():
            if _is_in(file, str(directory)) or _is_in(file, self._real_forbidden[what]):
                text = f"{file} is in the {what} ({directory}); name a path outside of it"
                self.problems.add(source, path, text)
                return
        if self.looks_at_sinks and first == (source, path):
            self._look_for_links(source, path, file)

    def _look_for_links(self, source: Source, path: KeyPath, file: str) -> None:
        real = self._real_path(file)
        first = self._real_files.setdefault(real, (source, path))
        if os.path.islink(file):  # noqa: PTH114  # 100,000 times
            text = f"{file} is a symbolic link now, and nothing is delivered through one; remove it"
            self.problems.warn(source, path, text)
        elif first != (source, path):
            text = f"{file} is now, by a link, the file of {_place(first)}, too; each needs its own"
            self.problems.warn(source, path, text)
        elif real != file:
            if real in self._real_own:
                text = f"{file} leads to the {self._real_own[real]} by a link, and nothing is delivered there"
                self.problems.warn(source, path, text)
                return
            for what, directory in self.forbidden.items():
                if _is_in(real, self._real_forbidden[what]):
                    text = f"{file} leads into the {what} ({directory}) by a link, and nothing is delivered there"
                    self.problems.warn(source, path, text)
                    return

    def _real_path(self, file: str) -> str:
        """Return ``file`` with the links in its directory followed; each directory is looked at once."""
        directory, name = os.path.split(file)
        if directory not in self._real:
            if os.path.islink(directory):  # noqa: PTH114  # 100,000 times
                self._real[directory] = os.path.realpath(directory)
            else:
                self._real[directory] = directory if directory == "/" else self._real_path(directory)
        return os.path.join(self._real[directory], name)  # noqa: PTH118  # 100,000 times


def _is_in(file: str, directory: str) -> bool:
    return file == directory or file.startswith(f"{directory}/")


def _place(found: tuple[Source, KeyPath]) -> str:
    return f"{show_path(found[1])} in {found[0].file}"
