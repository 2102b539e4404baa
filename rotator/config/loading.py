"""Reads the config and what it includes, and puts everything that is wrong into one error."""

import gc
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from rotator.adapters.calendar import CronCalendar
from rotator.config import derive
from rotator.config.compose import Composer
from rotator.config.places import Fault, SyntaxFaultError
from rotator.config.problems import Problems, Source, explain
from rotator.config.reading import find_included, read_text
from rotator.config.schema import ConfigShape, IncludedShape, WorkspaceShape
from rotator.config.settings import Config
from rotator.config.yaml_source import kind_of
from rotator.core.contract import Finding, Severity, check_policy

_Shape = TypeVar("_Shape", bound=BaseModel)


def load_config(path: Path, environ: Mapping[str, str], now: datetime, *, looks_at_sinks: bool) -> Config:
    """Do what :func:`rotator.config.load` says."""
    loading = _Loading(looks_at_sinks=looks_at_sinks)
    enabled = gc.isenabled()
    gc.disable()  # a large config is millions of objects that stay: looking through them again takes half the time
    try:
        return loading.load(path.absolute(), environ, now)
    finally:
        if enabled:
            gc.enable()


class _Loading:
    """One loading of a config."""

    def __init__(self, *, looks_at_sinks: bool) -> None:
        self._looks_at_sinks = looks_at_sinks
        self._problems = Problems()
        self._digest = hashlib.sha256()

    def load(self, path: Path, environ: Mapping[str, str], now: datetime) -> Config:
        main, shape = self._read(path, ConfigShape, included=False)
        if main is None or shape is None:
            self._problems.check()
            raise AssertionError("a config without a shape has a problem")
        included, empty = self._included(shape, main)
        workspaces = self._merge([(main, shape.workspaces), *((source, each.workspaces) for source, each in included)])
        directory = path.parent
        verifiers = derive.verifiers(shape)
        settings = derive.settings(shape, directory, environ, lambda at, text: self._problems.add(main, at, text))
        forbidden = {
            "published directory": settings.publish_directory,
            "state directory": settings.state_directory,
        }
        own = {str(path): "config", str(settings.control.socket): "control socket"}
        own |= {str(source.file): "included file" for source, _ in included}
        if settings.kek.file is not None:
            own[str(settings.kek.file)] = "key-encryption key"
        policy = Composer(
            main, shape, directory, forbidden, own, self._problems, looks_at_sinks=self._looks_at_sinks
        ).policy(workspaces, verifiers)
        findings = check_policy(policy, verifiers, CronCalendar(), now)
        self._judge(findings, main, workspaces)
        for pattern in empty:
            at = ("include", shape.include.index(pattern))
            self._problems.warn(main, at, f"{pattern!r} matches no file in {directory}")
        self._problems.check()
        return Config(
            path=path,
            digest=self._digest.hexdigest(),
            settings=settings,
            policy=replace(policy, digest=self._digest.hexdigest()),
            warnings=self._problems.warnings(),
            arithmetic=tuple(_show(found) for found in findings),
            empty_includes=tuple(empty),
        )

    def _read(self, file: Path, model: type[_Shape], *, included: bool) -> tuple[Source | None, _Shape | None]:
        try:
            content, text = read_text(file, included=included)
            self._digest.update(b"%d:" % len(content))
            self._digest.update(content)
            source = Source(file, text)
            value, faults = source.parse()
        except SyntaxFaultError as error:
            self._problems.add_fault(file, error.fault)
            return None, None
        for fault in faults:
            self._problems.add_fault(file, fault)
        if value is None and not included:
            self._problems.add_fault(
                file, Fault(1, (), "is empty; it needs at least: issuer: https://tokens.example.com")
            )
            return source, None
        if value is not None and not isinstance(value, dict):
            self._problems.add_fault(
                file, Fault(1, (), f"expected a mapping of settings at the top, found {kind_of(value)}")
            )
            return source, None
        return source, self._validate(source, model, value or {}, included=included)

    def _validate(self, source: Source, model: type[_Shape], value: Any, *, included: bool) -> _Shape | None:
        try:
            return model.model_validate(value)
        except ValidationError as error:
            for path, text in explain(model, error):
                said = text
                if included and len(path) == 1 and path[0] in ConfigShape.model_fields and path[0] != "workspaces":
                    said = "an included file holds `workspaces:` only; move this to the config itself"
                self._problems.add(source, path, said)
            return None

    def _included(self, shape: ConfigShape, main: Source) -> tuple[list[tuple[Source, IncludedShape]], list[str]]:
        files, empty = find_included(shape.include, main.file.parent)
        found = []
        for file in files:
            if os.path.realpath(file) == os.path.realpath(main.file):
                self._problems.add(main, ("include",), f"matches the config itself, {main.file}; narrow the pattern")
                continue
            source, included = self._read(file, IncludedShape, included=True)
            if source is not None and included is not None:
                found.append((source, included))
        return found, empty

    def _merge(
        self, files: Iterable[tuple[Source, Mapping[str, WorkspaceShape]]]
    ) -> dict[str, tuple[Source, WorkspaceShape]]:
        merged: dict[str, tuple[Source, WorkspaceShape]] = {}
        twice: dict[Source, list[tuple[Source, str]]] = {}
        for source, workspaces in files:
            for name, shape in workspaces.items():
                first = merged.setdefault(name, (source, shape))
                if first[0] is not source:
                    twice.setdefault(first[0], []).append((source, name))
        for first_source, again in twice.items():
            lines = first_source.lines(("workspaces", name) for _, name in again)
            for source, name in again:
                at = ("workspaces", name)
                self._problems.add(
                    source, at, f"is defined already at {first_source.file}:{lines[at]}; keep one of them"
                )
        return merged

    def _judge(
        self, findings: Iterable[Finding], main: Source, workspaces: Mapping[str, tuple[Source, WorkspaceShape]]
    ) -> None:
        for found in findings:
            source, path = main, found.path
            if path[0] == "workspaces" and len(path) > 1:
                source, path = _where_set(found.path, workspaces[found.path[1]], main)
            if found.severity is Severity.ERROR:
                self._problems.add(source, path, found.text)
            elif found.severity is Severity.WARNING:
                self._problems.warn(source, path, found.text)


def _where_set(
    path: tuple[str, ...], workspace: tuple[Source, WorkspaceShape], main: Source
) -> tuple[Source, tuple[str, ...]]:
    """Return where the setting of a workspace is really made: there, or for many workspaces at once in ``defaults``."""
    source, shape = workspace
    name, setting = path[1], path[2]
    if getattr(shape, setting) is not None:
        return source, path
    if setting == "security_period" and shape.rotation_window is not None:
        return source, ("workspaces", name, "rotation_window")
    return main, ("defaults", *path[2:])


def _show(found: Finding) -> str:
    return f"{found.severity:<7} {found.subject}: {found.text}"
